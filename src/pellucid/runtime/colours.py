"""A stage of grey planes, used on each colour of a picture."""

from __future__ import annotations

from typing import Any

import torch

from pellucid.protocols import FrameInfo, Spec, Stage, Stream

__all__ = ["Colours", "for_colours"]


def for_colours(stage: Stage, given: Spec) -> Stage:
    """Return the stage itself, or for a colour picture what runs it on one colour after the other.

    A stage that wants all three at once says so with an attribute ``colours = True``.
    """
    return Colours(stage) if given.is_colour and not getattr(stage, "colours", False) else stage


class Colours:
    """Three calls of a stage in place of one; what is blurred or noisy in red is so without regard to green."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.reads, self.writes = stage.reads, stage.writes
        self.captures = False
        self.witness: torch.Tensor | None = None
        self.black = ""

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Open the stage for one colour; ``(3, y, x)`` in and out."""
        one = self._stage.open(stream, Spec(given.shape[1:], given.dtype, given.device), device)
        self.captures = self._stage.captures
        self.noted, self.notes = getattr(self._stage, "noted", ()), getattr(self._stage, "notes", None)
        if getattr(self._stage, "witness", None) is not None:
            self.witness = torch.zeros((), device=device)
        self.black = getattr(self._stage, "black", "")
        return Spec((given.shape[0], *one.shape), one.dtype, one.device, "c" + one.axes, one.facts, one.zoom)

    def describe(self) -> dict[str, Any]:
        """Return what the stage says of itself."""
        told: dict[str, Any] = getattr(self._stage, "describe", dict)()
        return told

    def forget(self) -> None:
        """Let the stage forget what it measured."""
        getattr(self._stage, "forget", lambda: None)()

    def at(self, info: FrameInfo) -> None:
        """Tell the stage of the frame, once for its three colours."""
        told = getattr(self._stage, "at", None)
        if told is not None:
            told(info)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: each colour in turn."""
        stage, witness = self._stage, self.witness
        if witness is not None:
            witness.zero_()
        for colour, restored in zip(given, result, strict=True):
            stage(colour, restored)
            if witness is not None:
                witness.add_(stage.witness)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the stage."""
        self._stage.close()
        self.witness = None
