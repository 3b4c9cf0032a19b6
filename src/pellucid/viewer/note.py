"""What a frame tells beside its pictures: why some are missing, where it was taken, what did not arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Losses", "Note", "read_note", "told_losses"]

Losses = Mapping[str, Mapping[str, Mapping[str, int]]]
"""``dropped`` or ``lost`` -> camera -> place -> frames."""
UNKNOWN = "unknown"
"""The camera of frames of which nobody knows whose they were."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note.

    Parameters
    ----------
    where
        Why planes are missing; empty where none is.
    places
        Names of the frame's places along axes that have any.
    losses
        Sums of the run so far; None where this note does not speak of them.
    recording
        What the recorders do; None where this note does not speak of it.
    rates
        Frames a second from the camera, and restored; None where this note does not speak of them.
    latency_ms
        For each mark of the run its median and 99th percentile, from the camera on: ``"received"``, ``"disk"``,
        ``"display"`` (drawn), names of stages ...; under ``"±"`` how well another computer's clock is known, twice.
        None where this note does not speak of them.
    """

    where: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    losses: Losses | None = None
    recording: Mapping[str, Any] | None = None
    latency_ms: Mapping[str, Sequence[float]] | None = None
    rates: tuple[float, float] | None = None


def read_note(text: str) -> Note:
    """Parse what `pellucid.sinks._window_note` packs; any other text says why planes are missing."""
    if not text:
        return Note()
    try:
        told = json.loads(text)
        rates = told.get("rates")
        return Note(
            told.get("where", ""),
            told.get("places", {}),
            told.get("losses"),
            told.get("recording"),
            told.get("latency_ms"),
            (float(rates[0]), float(rates[1])) if rates else None,
        )
    except (ValueError, AttributeError):
        return Note(text)


def told_losses(losses: Losses | None, cameras: int) -> str:
    """Return ``lost 12 (camera buffer 10, wire 2)   dropped 3 (ring 3)``; cameras are named where there are several.

    Parameters
    ----------
    losses
    cameras
        How many there are in this run.
    """
    texts = []
    for state in ("lost", "dropped", "not_recorded"):
        counts = [
            (f"{camera} {place}" if cameras > 1 or camera == UNKNOWN else place, n)
            for camera, places in (losses or {}).get(state, {}).items()
            for place, n in places.items()
            if n
        ]
        if counts:
            places = ", ".join(f"{name} {n}" for name, n in counts)
            texts.append(f"{state.replace('_', ' ')} {sum(n for _, n in counts)} ({places})")
    return "   ".join(texts)
