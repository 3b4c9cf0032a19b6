"""What is asked of a config, and how near a measurement comes to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

__all__ = ["POINTS", "Goal", "Measured", "Point"]

Point = Literal["restored", "disk", "display"]
POINTS: tuple[Point, ...] = ("restored", "disk", "display")
MARGIN = 0.95
"""Part of the target that has to suffice: what just reached it once will miss it the next time."""
_SEEN_DB = 60.0
"""Differences from the unchanged picture below this are none to anybody."""
_LOST = 0.005


@dataclass(frozen=True)
class Goal:
    """What is asked.

    Parameters
    ----------
    fps
        Frames of the camera a second, all streams together.
    latency_ms
        From the camera's time stamp to `point`, for 99 of 100 frames; None: as little as there can be.
    point
        ``"restored"``: all stages ran; ``"disk"``: the last plane is written; ``"display"``: drawn in the window.
    least_db
        PSNR of restored frames against those of the unchanged config, of the worst frame; the range is that of the
        frame, from its 0.1th to its 99.9th percentile.
    """

    fps: float
    latency_ms: float | None = None
    point: Point = "restored"
    least_db: float = 40.0

    def good(self, one: Measured) -> bool:
        """Tell whether the picture is good enough."""
        return not one.error and not one.psnr_db < self.least_db

    def met(self, one: Measured) -> bool:
        """Tell whether all that is asked is there."""
        return (
            self.good(one) and self.keeps_up(one) and self.latency_ms is not None and one.p99(self) <= self.latency_ms
        )

    def keeps_up(self, one: Measured) -> bool:
        """Tell whether frames are restored as fast as they come."""
        return one.gone <= _LOST

    def order(self, one: Measured) -> tuple[float, ...]:
        """Return what is smaller for what is better: first what is missing, then the picture, then the latency."""
        if not self.good(one):
            return (math.inf,)
        p99 = one.p99(self)
        missing = one.gone if one.gone > _LOST else 0.0
        if self.latency_ms is None:
            return (missing, p99, -min(one.psnr_db, _SEEN_DB))
        late = max(p99 / (self.latency_ms * MARGIN) - 1, 0.0)
        return (missing + late, -min(one.psnr_db, _SEEN_DB), p99)


@dataclass(frozen=True)
class Measured:
    """What a trial told.

    Parameters
    ----------
    error
        Why there is nothing else; empty where there is.
    psnr_db
        See `Goal`; infinite for the same pixels, nan where nothing is restored.
    latency_ms
        By point: ``p50``, ``p95``, ``p99``, ``max`` in ms and ``n``.
    way_ms
        The mean frame's way to its restored pixels in pieces, in ms: ``"to the session"``, ``"waiting"``, the stages
        by name, ``"back"``.
    gone
        Part of the frames that were not restored: dropped, lost, or raw only.
    throughput_fps
        Where the camera waits.
    memory_mb
        Of the process, at its end.
    made
        What ran the networks: a line for each.
    notes
        Lines that the session told.
    """

    error: str = ""
    psnr_db: float = math.nan
    latency_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    way_ms: Mapping[str, float] = field(default_factory=dict)
    gone: float = 1.0
    throughput_fps: float = math.nan
    memory_mb: float = math.nan
    made: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def p99(self, goal: Goal) -> float:
        """Return the latency that is asked for; infinite where no frame got there."""
        return float(self.latency_ms.get(goal.point, {}).get("p99", math.inf))

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Measured:
        """Return what a trial's file holds."""
        known = {f.name for f in fields(cls)}
        given: Any = {
            key: tuple(value) if isinstance(value, list) else value for key, value in told.items() if key in known
        }
        return cls(**given)

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)
