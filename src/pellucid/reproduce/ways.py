"""Which frames the chain of each stream was given, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pellucid.protocols import RAW, Stage, Stream
from pellucid.recording.contents import Contents

__all__ = ["Way", "results", "tellable", "ways_of"]

_KEYS = ("seq", "state", "stream", "part", "at", "axes", "xxh3", "camera_number", "planes", "to_seq", "missing_z")
"""Of a row: a long run has millions of them."""


@dataclass
class Way:
    """The frames of one stream that went through its chain."""

    stream: Stream
    rows: list[dict[str, Any]] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    """How many of `rows` come before a frame that the chain had and the recording has not."""

    @property
    def wanted(self) -> int:
        """How many of them have results to compare with."""
        return sum(results(row) != {} for row in self.rows)


def results(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the checksums of what the stages made of a frame, by plane."""
    return {k: [v] if isinstance(v, str) else v for k, v in row.get("xxh3", {}).items() if k != RAW}


def ways_of(contents: Contents) -> list[Way]:
    """Return those of all streams: frames in order of their number, as far as they are recorded."""
    ways = {index: Way(stream) for index, stream in contents.streams.items()}
    kept = ({key: row[key] for key in _KEYS if key in row} for row in contents.rows())
    for row in sorted(kept, key=lambda row: row["seq"]):
        mine = [ways[row["stream"]]] if row.get("stream") in ways else list(ways.values())
        restored = row["state"] == "processed" or bool(results(row))
        if restored and contents.has_raw(row):
            mine[0].rows.append(row)
        elif restored or row["state"] in ("unfinished", "unknown"):
            # Nobody knows whether the stages had one that was under way when everything died.
            for way in mine:
                way.broken.append(len(way.rows))
    return list(ways.values())


def tellable(way: Way, stages: Sequence[Stage]) -> Callable[[int], bool]:
    """Return which of the frames depend on nothing that is missing, by their place among those of the chain."""
    adapts = any(getattr(s, "adapts", False) and getattr(s, "adapt_frames", 1) > 0 for s in stages)
    history = sum(int(getattr(stage, "history", 0) or 0) for stage in stages)
    if not way.broken or not (adapts or history):
        return lambda at: True
    if adapts:
        return lambda at: at < way.broken[0]
    return lambda at: not any(gap <= at < gap + history for gap in way.broken)
