"""What is said of a recording that was restored again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Reproduced", "differences", "engines"]

_SHOWN = 10
_STAGE_KEYS = ("device", "method", "iterations", "psf", "model", "engine", "tile", "tiles", "frames")
_NO_MATTER = ("cached", "fidelity", "facts", "description", "trained", "licence")
"""How near an engine was measured to be, and whether it was cached, changes no pixel."""


@dataclass
class Reproduced:
    """What came of it.

    Parameters
    ----------
    frames
        Restored frames of the recording that were compared: all planes of a frame count as one.
    different
        Numbers of those that differ, in order.
    largest
        Of the first that differs: the largest difference as a part of the recorded plane's range.
    untold
        Frames of which nothing can be told, since a stage looks back to frames that are not recorded.
    first_untold
        The first of them.
    engines
        What computed here.
    elsewhere
        What was another when it was recorded, one line each.
    changes
        Of parameters in the middle of the run, which were made again at their frames.
    """

    frames: int = 0
    different: list[int] = field(default_factory=list)
    largest: float = 0.0
    untold: int = 0
    first_untold: int = -1
    engines: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    changes: int = 0

    def lines(self) -> Iterator[str]:
        """Yield what the user is told."""
        same, by = self.frames - len(self.different), " | ".join(self.engines)
        yield f"{same} of {self.frames} restored frames are the same as when they were recorded, bit for bit ({by})"
        if self.different:
            first = ", ".join(map(str, self.different[:_SHOWN]))
            more = f" and {len(self.different) - _SHOWN} more" if len(self.different) > _SHOWN else ""
            yield (
                f"  different: frame{'s' * (len(self.different) > 1)} {first}{more}; the first by "
                f"{self.largest:.1e} of its range at most"
            )
        if self.changes:
            yield f"  {self.changes} changes of parameters in changes.jsonl were made again, each at its frame"
        for line in self.elsewhere:
            yield f"  {line}"
        if self.untold:
            yield (
                f"  from frame {self.first_untold} on {self.untold} frames cannot be told: a stage looks back to "
                "frames that were restored and are not in the recording"
            )


def engines(stages: Sequence[Mapping[str, Any]], hardware: Mapping[str, Any]) -> str:
    """Return what computed, stage by stage."""
    named = []
    for stage in stages:
        made = stage.get("engine")
        by = f"{made['library']}, {made['precision']}" if made else f"torch {hardware['torch']}"
        named.append(f"{stage['stage']} on {by}, {stage['device']}")
    return "; ".join(named)


def differences(
    then: Sequence[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
    hardware_then: Mapping[str, Any],
    hardware_now: Mapping[str, Any],
) -> list[str]:
    """Say what was another when it was recorded: stages, engines, libraries, processor."""
    lines = []
    for a, b in zip(then, now, strict=False):
        for key in _STAGE_KEYS:
            for what, old, new in _unlike(a.get(key), b.get(key), key):
                lines.append(f"{b['stage']}: {what} was {old} when it was recorded, here it is {new}")
    for key in ("processor", "gpu", "torch", "threads", "cuda"):
        old, new = hardware_then.get(key), hardware_now.get(key)
        if old is not None and old != new:
            lines.append(f"{key} was {old} when it was recorded, here it is {new}")
    return lines


def _unlike(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs of two tables."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in _NO_MATTER:
                yield from _unlike(old[key], new.get(key), f"{where}.{key}")
    elif old is not None and old != new:
        yield where, old, new


def _quiet(_: str) -> None:
    """Tell nobody."""
