"""A stage that is switched off: its plane passes by, in the unit and the type that the stage's result has."""

from __future__ import annotations

from typing import Any

import torch

from pellucid.errors import StageError
from pellucid.memory import Needed
from pellucid.protocols import Spec, Stage, Stream

__all__ = ["Off"]


class Off:
    """Stands in for a stage that is off.

    What comes out is what went in, so that window, recorder and the stages behind go on as they were. It is brought
    into the unit that is written beside the result's pixels: less the background that the stage would have subtracted,
    times its grey values a count, and rounded and clipped where these are whole numbers.

    Parameters
    ----------
    stage
        Not open. It is opened once to learn what it would make, and closed again; not where `made` says it.
    made
        Spec of the stage's result, where that is known.
    """

    def __init__(self, stage: Stage, made: Spec | None = None) -> None:
        self.reads, self.writes = stage.reads, stage.writes
        self.captures = True
        self.colours = True  # it is the same to each colour
        self.witness: torch.Tensor | None = None
        self.tell: Any = None
        self.needed = Needed(0, 0, 0)
        self.tile = None
        self._stage, self._made = stage, made
        self._counts = torch.zeros(())
        self._less = self._times = 0.0
        self._most = (0.0, 0.0)

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Allocate.

        Raises
        ------
        StageError
            Where the result has other pixels than what is given, as behind a network that doubles them.
        """
        made = self._made or self._ask(stream, given, device)
        if made.shape != given.shape or made.axes != given.axes:
            raise StageError(f"it makes {made} of {given}, so it cannot be off: nothing else makes such frames")
        self._less = float(made.facts.get("background", 0.0))
        self._times = float(made.facts.get("grey_values_per_count", 1.0))
        kind = getattr(torch, made.dtype)
        self._counts = torch.zeros(given.shape, dtype=torch.float32, device=device)
        nbytes = self._counts.nbytes
        self.needed = Needed(nbytes, nbytes, nbytes)
        self._rounds = not kind.is_floating_point
        if self._rounds:
            self._most = float(torch.iinfo(kind).min), float(torch.iinfo(kind).max)
            self.witness = torch.zeros((), device=device)
        return Spec(made.shape, made.dtype, device, made.axes, made.facts)

    def _ask(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Return what the stage makes; one of grey planes is asked for one colour of a picture."""
        stage = self._stage
        if hasattr(stage, "tell"):
            stage.tell = self.tell
        alone = given.is_colour and not getattr(stage, "colours", False)
        one = Spec(given.shape[1:], given.dtype, given.device) if alone else given
        try:
            made = stage.open(stream, one, device)
        finally:
            stage.close()
        return Spec((3, *made.shape), made.dtype, device, "c" + made.axes, made.facts, made.zoom) if alone else made

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: pass the plane by."""
        counts = self._counts
        counts.copy_(given)
        if self._less:
            counts.sub_(self._less)
        if self._times != 1.0:
            counts.mul_(self._times)
        if self.witness is not None:
            torch.sum(counts, dim=tuple(range(counts.ndim)), out=self.witness)
            counts.round_().clamp_(*self._most).nan_to_num_(0.0)
        result.copy_(counts)

    def describe(self) -> dict[str, Any]:
        """Return what the report says."""
        return {"on": False}

    def close(self) -> None:
        """Give the memory back."""
        self._counts = torch.zeros(())
        self.witness = None
