"""Networks as files: what they are, where they come from, and whether they can be trusted to load."""

from pellucid.models.engine import Engine, Fidelity, Made
from pellucid.models.model import Form, Model, Operation, Port, Side

__all__ = ["Engine", "Fidelity", "Form", "Made", "Model", "Operation", "Port", "Side"]
