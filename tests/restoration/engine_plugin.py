"""The engine "eager" as a config's own file; the networks are those that the tests have made."""

from tests.restoration.network_parts import PELLUCID

__all__ = ["PELLUCID"]
