"""Where each frame ended: what was produced is the sum of what became of it, or the run says so.

A frame that arrived ends ``processed`` (every stage ran) or ``raw_only`` (it skipped the stages, with the
place that made it so); one that did not arrive ends ``dropped`` (left out on purpose, by a policy) or
``lost`` (nobody meant to), each with the place. What the loop's thread alone writes takes no lock; how an
arrived frame ended is told by several threads and takes one.

All is counted twice: over the run, and for each stream, from which the report makes the sums of each camera.

A frame is what the camera gives: a plane. A stack that the session puts together from planes counts as many frames
as it holds, so that a plane that is lost is one frame lost, wherever that happens, and the sum holds for planes that
nobody can assign to a stack. How many stacks there were is told beside it (`stacks`).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.marks import Marks, latency_of
from pellucid.metrics import Histogram, Rate
from pellucid.protocols import RAW, FrameInfo, Stream

__all__ = ["Ends", "Ledger", "Recording"]

UNKNOWN = -1
"""Frames of which nobody can say to which stream they belonged."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a recorder does at present, for those who watch.

    Parameters
    ----------
    on
        Frames are recorded.
    switch
        It can be started and stopped.
    frames, nbytes
        Taken since it was started.
    left_s
        Until the disk is full; None where that is not known.
    held_s
        Of one that is off: how far back a start would reach.
    since_ns
        When it was started (`pellucid.metrics.now_ns`).
    failed
        It has given up; what comes now is not recorded.
    """

    on: bool
    switch: bool = False
    frames: int = 0
    nbytes: int = 0
    left_s: float | None = None
    held_s: float = 0.0
    since_ns: int = 0
    failed: bool = False


class Ends:
    """How the frames of one stream ended."""

    __slots__ = ("camera", "dropped", "lost", "not_recorded", "processed", "raw_only", "received")

    def __init__(self, camera: str = "") -> None:
        self.camera = camera
        self.received = 0
        self.processed = 0
        self.raw_only: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.not_recorded: Counter[str] = Counter()
        """Of those that arrived, what a recorder was to take and could not, by why."""

    @classmethod
    def total(cls, some: Iterable[Ends]) -> dict[str, Any]:
        """Return the sums, as the report has them."""
        out = cls()
        for ends in some:
            out.received += ends.received
            out.processed += ends.processed
            # Copied in one step each: other threads go on counting, and may meet a new place meanwhile.
            out.raw_only.update(dict(ends.raw_only))
            out.dropped.update(dict(ends.dropped))
            out.lost.update(dict(ends.lost))
            out.not_recorded.update(dict(ends.not_recorded))
        return {
            "produced": out.received + out.dropped.total() + out.lost.total(),
            "received": out.received,
            "processed": out.processed,
            "raw_only": dict(out.raw_only),
            "dropped": dict(out.dropped),
            "lost": dict(out.lost),
            "not_recorded": dict(out.not_recorded),
        }


class Ledger:
    """Counts and marks of one run.

    Attributes
    ----------
    rows : collections.deque
        Finished frames as dictionaries, to be taken by whoever writes them; bounded by `keep_rows`.
    marks : dict of int to Marks
        By the stream's index: when its frames reached each mark.
    duration : dict of str to Histogram
        The time spent within each part.
    streams : dict of int to Ends
        By the stream's index; -1 for frames that could be of any.
    taken : int
        Slots that were taken in: as many as frames, or as stacks.
    recordings : dict of str to Recording
        By the recording's folder; of recorders that run.
    planes_not_recorded : collections.Counter
        By name, what a recorder was to take and could not.
    stacks : collections.Counter
        Of those that were taken in, how many were ``"complete"`` and ``"incomplete"``.
    changes : list of dict
        Of the stages' parameters during the run, a row for each stream and key: ``frame`` (the first that was made with
        it), ``stream``, ``time``, ``what``, ``from``, ``to``, ``by``, ``stage``, ``is``. It only grows.
    """

    def __init__(self) -> None:
        self.received = 0
        self.taken = 0
        self.stacks: Counter[str] = Counter()
        self.first_count = 1
        self.processed = 0
        self.recorded = 0
        self.displayed = 0
        self.received_bytes = 0
        self.raw_only: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.sinks: dict[str, Counter[str]] = {}
        self.streams: dict[int, Ends] = {}
        self.ignored: Counter[str] = Counter()
        self.recordings: dict[str, Recording] = {}
        self.planes_not_recorded: Counter[str] = Counter()
        self.notes: list[str] = []
        self.changes: list[dict[str, Any]] = []
        self.rows: deque[FrameInfo | dict[str, Any]] = deque()
        self.keep_rows = False
        self.marks: dict[int, Marks] = {}
        self._expected: set[str] = set()
        self.duration: dict[str, Histogram] = {}
        self.arrivals = Rate()
        self._told = 0
        self._complete = True
        self.first_ns = 0
        self.last_ns = 0
        self._ends = threading.Lock()

    def expect(self, mark: str) -> None:
        """Give a mark its place among the latencies also while no frame has reached it."""
        self._expected.add(mark)

    @property
    def latency(self) -> dict[str, Histogram]:
        """From the camera's side to each mark, end to end, as it is now: of all streams together, stages of each."""
        return latency_of(sorted(self.marks.copy().items()), self._expected.__contains__)

    def follow(self, stream: Stream, stages: Sequence[str] = ()) -> None:
        """Begin to count for a stream, with the names of its stages; before its first frame."""
        self._of(stream.index).camera = stream.camera
        self.marks[stream.index] = Marks(stages)

    def marks_of(self, stream: int) -> Marks:
        """Return the marks of a stream, made at their first use."""
        found = self.marks.get(stream)
        return found if found is not None else self.marks.setdefault(stream, Marks())

    def _of(self, stream: int) -> Ends:
        found = self.streams.get(stream)
        return found if found is not None else self.streams.setdefault(stream, Ends())

    def arrived(self, info: FrameInfo, nbytes: int) -> None:
        """Count a frame, or the planes of a stack, in the session's memory."""
        count = info.count
        self.taken += 1
        self.received += count
        self._of(info.stream).received += count
        self.received_bytes += nbytes
        self.arrivals.count += count
        if info.planes:
            self.stacks["complete" if count == len(info.planes) else "incomplete"] += 1
        if not self.first_ns:
            self.first_ns, self.first_count = info.received_ns, count
        self.last_ns = info.received_ns
        self.marks_of(info.stream).arrived(info)

    def ended(self, info: FrameInfo, state: str, where: str = "") -> None:
        """Note how a frame that arrived ended: ``"processed"``, or ``"raw_only"`` and what made it so."""
        info.state, info.where = state, where
        of, count = self._of(info.stream), info.count
        with self._ends:
            if state == "processed":
                self.processed += count
                of.processed += count
            else:
                self.raw_only[where] += count
                of.raw_only[where] += count

    def unrecorded(self, info: FrameInfo, why: str, names: Iterable[str]) -> None:
        """Count planes of a frame that a recorder could not take; without its raw plane the frame is not recorded."""
        with self._ends:
            for name in names:
                self.planes_not_recorded[name] += info.count
                if name == RAW:
                    self._of(info.stream).not_recorded[why] += info.count

    def left_out(self, info: FrameInfo, state: str, where: str) -> None:
        """Count a frame, or all planes of a stack, that came to the session and was not taken in."""
        for number in sorted(info.planes) if info.planes else (info.seq,):
            if number >= 0:
                self.missing(number, 1, state, where, info.stream)

    def missing(self, first: int, count: int, state: str, where: str, stream: int = UNKNOWN) -> None:
        """Count frames that did not arrive.

        Parameters
        ----------
        first, count
            Sequence numbers ``first .. first + count - 1``.
        state
            ``"dropped"`` or ``"lost"``.
        where
            A short name: ``"sender"``, ``"ring"``, ``"camera"``, ``"wire"`` ...
        stream
            Index; -1 where nobody knows, which is as good as known where there is but one.
        """
        if stream == UNKNOWN and len(self.streams) == 1:
            (stream,) = self.streams
        of = self._of(stream)
        if state == "dropped":
            self.dropped[where] += count
            of.dropped[where] += count
        else:
            self.lost[where] += count
            of.lost[where] += count
        if self.keep_rows:
            row: dict[str, Any] = {"seq": first, "state": state, "where": where}
            if count > 1:
                row["to_seq"] = first + count - 1
            if stream != UNKNOWN:
                row["stream"] = stream
            self.rows.append(row)

    def told(self, produced: int, complete: bool = True) -> None:
        """Note how many frames the camera's side says it produced; the largest counts.

        Parameters
        ----------
        produced
            Since the first frame of this run.
        complete
            False where the camera's side went without its totals, so that frames after the last sign of life
            are unknown.
        """
        self._told = max(self._told, produced)
        self._complete = complete

    def ignore(self, why: str) -> None:
        """Count something that was no frame of this run, such as a damaged message."""
        self.ignored[why] += 1

    def note(self, text: str) -> None:
        """Keep one line for the terminal and the report."""
        self.notes.append(text)

    def finish(self, info: FrameInfo) -> None:
        """Take a frame whose slot is free again; one that was not taken in (state ``""``) has its row already."""
        if self.keep_rows and info.state:
            self.rows.append(info)

    @property
    def produced(self) -> int:
        """Frames that the camera's side is known to have produced."""
        return max(self._told, self.received + self.dropped.total() + self.lost.total())

    @property
    def unaccounted(self) -> int:
        """Frames without exactly one end; sinks whose own sum does not hold count as well."""
        came = abs(self.produced - self.received - self.dropped.total() - self.lost.total())
        went = abs(self.received - self.processed - self.raw_only.total())
        sinks = sum(abs(s["offered"] - s["written"] - s["skipped"] - s["lost"]) for s in self.sinks.values())
        return came + went + sinks

    @property
    def complete(self) -> bool:
        """Whether the camera's side has said its totals, as far as it has any to say."""
        return self._complete

    def cameras(self) -> dict[str, dict[str, Any]]:
        """Return the ``cameras`` part of ``report.json``: the same sums for each camera.

        Frames of which nobody knows whose they were stand under ``"unknown"``.
        """
        known: dict[str, list[Ends]] = {}
        for ends in list(self.streams.values()):
            known.setdefault(ends.camera or "unknown", []).append(ends)
        if len(known) == 2 and "unknown" in known:
            rest = known.pop("unknown")
            next(iter(known.values())).extend(rest)
        return {camera: Ends.total(some) for camera, some in known.items()}

    def frames(self) -> dict[str, Any]:
        """Return the ``frames`` part of ``report.json``."""
        return {
            "produced": self.produced,
            "received": self.received,
            "processed": self.processed,
            "raw_only": dict(self.raw_only),
            "recorded": self.recorded,
            "displayed": self.displayed,
            "dropped": dict(self.dropped),
            "lost": dict(self.lost),
            "not_recorded": Ends.total(list(self.streams.values()))["not_recorded"],
            "planes_not_recorded": dict(self.planes_not_recorded),
            "unaccounted": self.unaccounted,
            "totals_confirmed": self._complete,
        }
