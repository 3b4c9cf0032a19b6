"""One walk over ``frames.jsonl``, in memory that does not grow with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from math import isfinite
from typing import Any

from pellucid.recording.contents import Contents
from pellucid.report_page.grid import Along, Grid
from pellucid.report_page.losses import Losses
from pellucid.report_page.series import Series

__all__ = ["ENDS", "Candidates", "StreamTally", "Tally"]

ENDS = ("recorded", "displayed")
"""Marks that both follow the last of the others: the disk does not wait for the screen."""
_NO_MARKS = frozenset({"began", "read", "stages", "write"})
_MISSING = frozenset({"dropped", "lost", "unknown"})
_STREAMS = 12
"""Streams with charts of their own; further ones are counted together, under -2."""
REST = -2
_LOOKED_AT = 1000


class Candidates:
    """A few of many rows, at equal distances."""

    _MOST = 64

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._every = 1
        self._seen = 0

    def offer(self, row: dict[str, Any]) -> None:
        """Take a row, or leave it out."""
        if self._seen % self._every == 0:
            if len(self.rows) == self._MOST:
                self.rows = self.rows[::2]
                self._every *= 2
            if self._seen % self._every == 0:
                self.rows.append(row)
        self._seen += 1


@dataclass
class StreamTally:
    """What is counted of one stream.

    Parameters
    ----------
    arrived, restored
        Frames in each bin of time.
    until
        Latency from the camera until each mark, of frames that were restored, or went through where nothing restores.
    raw_until
        The same of frames that stayed raw only.
    parts, raw_parts
        The time between two marks that follow each other on the way, in the order of the way.
    unsure
        To how much the clock of the camera's computer was known, in ms; without a frame where it is this one's own.
    received, processed
        Frames.
    both, raw
        Rows of recorded frames with, and without, a restored plane.
    """

    arrived: Along
    restored: Along
    until: dict[str, Series] = field(default_factory=dict)
    raw_until: dict[str, Series] = field(default_factory=dict)
    parts: dict[tuple[str, str], Series] = field(default_factory=dict)
    raw_parts: dict[tuple[str, str], Series] = field(default_factory=dict)
    unsure: Series = field(default_factory=Series)
    received: int = 0
    processed: int = 0
    both: Candidates = field(default_factory=Candidates)
    raw: Candidates = field(default_factory=Candidates)


class Tally:
    """Counts all rows of a recording.

    Parameters
    ----------
    contents
    tell
        Takes now and then how many rows were read.

    Attributes
    ----------
    grid : Grid
    timed : bool
        The axis is that of time, in seconds since `begin_s`; else of the frames' numbers.
    begin_s : float
        Camera time of the first frame, in seconds since 1970.
    streams : dict of int to StreamTally
        -2 for those beyond the first twelve.
    losses : Losses
    frames : collections.Counter
        By state, and ``"produced"``, ``"received"``, ``"recorded"``.
    events : list of (float, str)
        When a part or a stream began, beyond the first.
    """

    _EVENTS = 48

    def __init__(self, contents: Contents, tell: Callable[[int], None] | None = None) -> None:
        self.grid = Grid()
        self.losses = Losses(self.grid)
        self.streams: dict[int, StreamTally] = {}
        self.frames: Counter[str] = Counter()
        self.events: list[tuple[float, str]] = []
        self.timed = True
        self.begin_s = 0.0
        self._contents = contents
        self._part: int | None = None
        self._known: set[int] = set()
        self._walk(tell or (lambda n: None))

    def _walk(self, tell: Callable[[int], None]) -> None:
        rows = self._contents.rows()
        first = list(islice(rows, _LOOKED_AT))
        times = [t for row in first if (t := _time(row)) is not None]
        self.timed = bool(times)
        self.begin_s = min(times, default=0.0)
        for n, row in enumerate(chain(first, rows)):
            self._count(row)
            if n % 10_000 == 0:
                tell(n)
        self.losses.end()
        for series in self._series():
            series.flush()
        self._coarsen()

    def _series(self) -> Iterator[Series]:
        for stream in self.streams.values():
            for some in (stream.until, stream.raw_until, stream.parts, stream.raw_parts):
                yield from some.values()
            yield stream.unsure

    def _coarsen(self) -> None:
        """Leave a few frames in a bin, so that its percentiles mean something."""
        fewest = min((s.processed or s.received for s in self.streams.values()), default=0)
        wanted = min(max(fewest // 3, 24), 200)
        while self.grid.used > wanted:
            self.grid.halve()

    def _of(self, index: int) -> StreamTally:
        if index not in self.streams and len(self.streams) >= _STREAMS:
            index = REST
        found = self.streams.get(index)
        if found is None:
            found = self.streams[index] = StreamTally(self.grid.counts(), self.grid.counts())
        return found

    def _count(self, row: dict[str, Any]) -> None:
        seq, state, index = row["seq"], row["state"], _whole(row.get("stream"), 0)
        last = max(_whole(row.get("to_seq"), seq), seq)
        reason = str(row.get("where") or "")
        if state in _MISSING:
            count = last - seq + 1
            self.frames["produced"] += count
            self.frames[state] += count
            self.losses.untimed(state, reason, seq, last, _whole(row.get("stream"), -1))
            return
        count = _whole(row.get("planes"), 1)
        self.frames.update({"produced": count, "received": count, state: count})
        time_s = _time(row)
        if not self.timed:
            time_s = float(seq)
        if time_s is None:
            time_s = self.grid.last_s
        else:
            time_s = max(time_s - self.begin_s, 0.0)
            self.grid.reach(time_s)
            self.losses.passed(time_s)
        self._note_events(row, index, time_s)
        stream = self._of(index)
        stream.received += count
        at = int(min(time_s / self.grid.width_s, self.grid.used - 1))
        stream.arrived.values[at] += count
        recorded = self._contents.has_raw(row)
        self.frames["recorded"] += count if recorded else 0
        processed = state == "processed"
        if processed:
            stream.processed += count
            stream.restored.values[at] += count
        else:
            self.losses.timed(time_s, state, reason, seq, count, index)
        if row.get("not_recorded"):
            self.losses.timed(time_s, "not_recorded", str(row["not_recorded"]), seq, count, index)
        if recorded and row.get("stream", 0) == index:
            sums = row["xxh3"]
            (stream.both if len(sums) > 1 else stream.raw).offer(row)
        us = row.get("clock_unsure_us")
        if isinstance(us, int | float) and isfinite(us):
            stream.unsure.add(time_s, us * 1e-3)
        _note_marks(row, time_s, stream, self.grid, processed)

    def _note_events(self, row: dict[str, Any], index: int, time_s: float) -> None:
        part = _whole(row.get("part"), 0)
        if "at" in row and part != self._part:
            if self._part is not None:
                self._event(time_s, f"part {part}")
            self._part = part
        if index not in self._known:
            stream = self._contents.streams.get(index)
            if self._known and stream is not None and stream.replaces is not None:
                self._event(time_s, f"stream {index} takes over from {stream.replaces}")
            self._known.add(index)

    def _event(self, time_s: float, text: str) -> None:
        if len(self.events) < self._EVENTS:
            self.events.append((time_s, text))


def _note_marks(row: dict[str, Any], time_s: float, stream: StreamTally, grid: Grid, processed: bool) -> None:
    """Note the latencies of a frame and what lies between them; the row has its marks in the order of its way."""
    until, parts = (stream.until, stream.parts) if processed else (stream.raw_until, stream.raw_parts)
    before, had = "camera", 0.0
    for key, ms in row.items():
        mark = key[:-3]
        if not key.endswith("_ms") or mark in _NO_MARKS or not isinstance(ms, int | float) or not isfinite(ms):
            continue
        if mark not in until:
            until[mark] = Series(grid)
        until[mark].add(time_s, ms)
        step = before, mark
        if step not in parts:
            parts[step] = Series()
        parts[step].add(time_s, ms - had)
        if mark not in ENDS:
            before, had = mark, ms


def _time(row: dict[str, Any]) -> float | None:
    time_s = row.get("camera_time")
    return float(time_s) if isinstance(time_s, int | float) and isfinite(time_s) else None


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
