"""Where the time goes: the mean frame's way from the camera to the disk and to the screen, cut where it has marks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.recording.rows import stage_mark
from pellucid.report_page.facts import Facts, table
from pellucid.report_page.series import Series
from pellucid.report_page.tally import ENDS, StreamTally
from pellucid.report_page.words import mark_name

__all__ = ["Piece", "Way", "ways"]

Stages = Mapping[str, tuple[float, ...]]
"""Of each stage its percentiles in ms, as a piece has them."""


@dataclass(frozen=True)
class Piece:
    """A stretch of the way.

    Parameters
    ----------
    name
    mean_ms
    kind
        ``"way"``, ``"wait"``, ``"stage"``, ``"end"``: its colour.
    percentiles_ms
        The 50th, 95th and 99th, and the largest; nan where unknown.
    """

    name: str
    mean_ms: float
    kind: str
    percentiles_ms: tuple[float, ...] = (math.nan,) * 4


@dataclass(frozen=True)
class Way:
    """From the camera to one end.

    Parameters
    ----------
    name
        ``"to the disk"`` ...
    pieces
        In order.
    frames
    """

    name: str
    pieces: tuple[Piece, ...]
    frames: int

    @property
    def total_ms(self) -> float:
        """The mean latency until the end."""
        return sum(piece.mean_ms for piece in self.pieces)


def ways(stream: StreamTally, index: int, facts: Facts) -> list[Way]:
    """Return the ways that the frames of a stream went; those on which hardly any frame went are left out."""
    names = _names(index, facts)
    # Recordings of before have no marks of stages in their rows: what the report keeps has to do.
    told = {} if any(step[1] in names for step in stream.parts) else _stages(index, facts)
    found = _ways(stream.parts, told, names, "")
    return found + _ways(stream.raw_parts, {}, names, ", raw only")


def _ways(parts: Mapping[tuple[str, str], Series], stages: Stages, names: Mapping[str, str], what: str) -> list[Way]:
    most = max((series.count for series in parts.values()), default=0)
    usual = {step: series for step, series in parts.items() if series.count * 20 > most}
    on_way = [(step, series) for step, series in usual.items() if step[1] not in ENDS]
    last = on_way[-1][0][1] if on_way else "camera"
    begin = [piece for step, series in on_way for piece in _pieces(step, series, stages, names)]
    out = []
    for end, name in zip(ENDS, ("to the disk", "to the screen"), strict=True):
        series = usual.get((last, end))
        if series is not None:
            piece = Piece(
                f"{mark_name(last)} → {mark_name(end)}", max(series.mean_ms, 0.0), "end", _percentiles(series)
            )
            out.append(Way(name + what, (*begin, piece), series.count))
    if not out and begin:
        out.append(Way(f"until {mark_name(last)}{what}", tuple(begin), on_way[-1][1].count))
    return out


def _pieces(step: tuple[str, str], series: Series, stages: Stages, names: Mapping[str, str]) -> list[Piece]:
    """Return a stretch, and that of the stages cut into them and what a frame waited there."""
    mean_ms = max(series.mean_ms, 0.0)
    if step[1] in names:
        return [Piece(names[step[1]], mean_ms, "stage", _percentiles(series))]
    if step[0] in names and series.max_ms <= 0:
        return []  # on a CPU the last stage writes its result to where it is wanted: nothing is downloaded
    name = f"{mark_name(step[0])} → {mark_name(step[1])}"
    if step[1] == "uploaded":
        return [Piece(name, mean_ms, "wait", _percentiles(series))]
    within = sum(told[0] for told in stages.values())
    if step[1] != "processed" or not within:
        return [Piece(name, mean_ms, "way", _percentiles(series))]
    # Their medians are all that a report keeps, so a mean frame's may be a little more, never more than there is.
    share = min(1.0, mean_ms / within)
    waits = Piece("waiting for the stages, and copies", mean_ms - within * share, "wait")
    return [waits, *(Piece(stage, told[0] * share, "stage", told) for stage, told in stages.items())]


def _names(index: int, facts: Facts) -> dict[str, str]:
    """Return what the way until a stage's mark is called, by the mark."""
    rows = [stage for stage in facts.stages(index) if isinstance(stage.get("stage"), str)]
    if len(rows) > 1 and all(stage.get("captured") for stage in rows):
        # One graph: only its end has a mark.
        return {stage_mark(rows[-1]["stage"]): f"stages {', '.join(stage['stage'] for stage in rows)}"}
    return {stage_mark(stage["stage"]): f"stage {stage['stage']}" for stage in rows}


def _stages(index: int, facts: Facts) -> Stages:
    """Return the percentiles of each stage of a stream, where the report has them."""
    took = table(facts.report, "duration_ms")
    out: dict[str, tuple[float, ...]] = {}
    names = [str(stage.get("stage", "")) for stage in facts.stages(index)]
    for stage in facts.stages(index):
        name = stage.get("stage")
        # The second stream with a stage of one name has its number behind it (`Session`).
        row: Any = took.get(f"{name} {index}", took.get(name)) if isinstance(name, str) else None
        told = [row.get(key) if isinstance(row, Mapping) else None for key in ("p50", "p95", "p99", "max")]
        if all(isinstance(ms, int | float) and math.isfinite(ms) for ms in told):
            # On a GPU one time is taken, from before the upload until after the download of all stages.
            on_gpu = str(stage.get("device", "")).startswith("cuda")
            what = f"upload, {', '.join(names)}, download" if on_gpu else f"stage {name}"
            out[what] = tuple(float(ms) for ms in told if ms is not None)
    return out


def _percentiles(series: Series) -> tuple[float, ...]:
    return (*(series.quantile_ms(q) for q in (0.5, 0.95, 0.99)), series.max_ms)
