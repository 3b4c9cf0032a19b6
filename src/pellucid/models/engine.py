"""What runs a network: the protocol of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from pellucid.models.model import Model

__all__ = ["Engine", "Fidelity", "Made"]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far an engine's results are from those of float32, on real frames.

    Parameters
    ----------
    largest, rms
        Largest and root-mean-square difference, as parts of the range (maximum less minimum) of the reference.
    reference
        What it was compared with: ``"torch float32, eager"`` or ``"onnxruntime float32"``.
    frames
        How many frames were compared.
    """

    largest: float
    rms: float
    reference: str
    frames: int


@dataclass(frozen=True, slots=True)
class Made:
    """What an engine is, for the report and the recording.

    Parameters
    ----------
    kind
        Its name in a config: ``"openvino"``.
    precision
        ``"float32"``, ``"bfloat16"``, ``"float16"``: what it really computes in.
    library
        With its version: ``"openvino 2026.4.1"``.
    device
        ``"cpu"``, or the name of the GPU.
    fidelity
        None only where the engine is itself the reference.
    cached
        It came from the cache.
    facts
        Anything else worth keeping: ``graph``, ``threads``, ``profile``, ``key``; JSON types only.
    """

    kind: str
    precision: str
    library: str
    device: str
    fidelity: Fidelity | None
    cached: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """Runs one network on one device with tensors of one shape.

    Attributes
    ----------
    captures : bool
        After ``open``: may the hot verb be captured in a CUDA graph?
    made : Made
        After ``open``.
    """

    captures: bool
    made: Made

    def missing(self, model: Model, device: str) -> str:
        """Return why it cannot run this model here (what to type included), ``""`` where it can.

        Nothing is loaded; it looks whether the package is there, the device, and a form of the weights it takes.
        """

    def needed(self, model: Model, shape: tuple[int, ...], device: str) -> int:
        """Return the bytes that it will take beside what goes in and comes out, for tensors of `shape`."""

    def open(
        self, model: Model, shape: tuple[int, ...], device: str, tell: Callable[[str], None] | None = None
    ) -> tuple[int, ...]:
        """Fetch from the cache or build, load, compare with float32; return the shape of the result.

        Parameters
        ----------
        model
        shape
            Of what goes in, in the axes of ``model.given``.
        device
            ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        tell
            Gets one line now and then while something is built.

        Raises
        ------
        pellucid.errors.StageError
            One line: an operator it cannot do, a file that is not what it should be, an error beyond its bound.
        """

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result` from `given`, without waiting; on CUDA on the current stream.

        Both are contiguous, on the device, of the model's types and of the shapes of ``open``. The caller owns both;
        the values of `given` stay.
        """

    def close(self) -> None:
        """Give everything back; safe at any time and more than once."""
