"""When the frames of one stream reach each mark on their way, as histograms from the camera's time stamp on.

The way is: received, uploaded, each stage, downloaded, processed (looked at for NaN), and then, at the same time, the
disk (`disk_raw`: its raw plane; `disk`: its last) and the screen (`display`: drawn). On a CPU *uploaded* is the copy
into the stages' own memory, and *downloaded* is when the last result lies in the slot, which is where the last stage
writes it. On a GPU the marks within it are taken by its own clock and told from the moment at which the host knew that
the results were there; of several stages in one captured graph only the last has one.

A frame carries its marks (`pellucid.protocols.FrameInfo`), and its row in ``frames.jsonl`` has them. A frame is drawn
after its results may have gone: its time comes back from the window and is noted in the frame as long as its row waits
(a second), and in any case here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from pellucid.metrics import Histogram
from pellucid.protocols import FrameInfo

__all__ = ["WAY", "Marks", "free_name", "latency_of", "together"]

_BEFORE = ("received", "uploaded")
_BEHIND = ("downloaded", "processed", "disk_raw", "disk", "display")
WAY = frozenset(_BEFORE + _BEHIND)
"""All marks that are no stage's."""


class Marks:
    """Latencies of one stream.

    Parameters
    ----------
    stages
        Their names, in order; empty where nothing is restored.

    Attributes
    ----------
    received, uploaded, downloaded, processed, disk_raw, disk, display : Histogram
        From the camera until each mark. Each is added to in one thread at a time.
    stages, durations : list of Histogram
        Of each stage: from the camera until its end, and the time within it.
    unsure : Histogram
        To how much the clock of the camera's computer was known, for each frame; empty where it is this one's own.
    unsure_ns : int
        The same of the newest frame.
    """

    def __init__(self, stages: Sequence[str] = ()) -> None:
        self.names = tuple(stages)
        self.received, self.uploaded = Histogram(), Histogram()
        self.stages = [Histogram() for _ in stages]
        self.durations = [Histogram() for _ in stages]
        self.downloaded, self.processed = Histogram(), Histogram()
        self.disk_raw, self.disk, self.display = Histogram(), Histogram(), Histogram()
        self.unsure, self.unsure_ns = Histogram(), 0

    def arrived(self, info: FrameInfo) -> None:
        """Hot: take the first mark of a frame."""
        self.received.add(info.received_ns - info.camera_ns)
        if info.unsure_ns:
            self.unsure.add(info.unsure_ns)
            self.unsure_ns = info.unsure_ns

    def restored(self, info: FrameInfo) -> None:
        """Hot: take the marks of a frame that went through all stages."""
        began, before = info.camera_ns, info.uploaded_ns
        self.uploaded.add(before - began)
        for until, within, ns in zip(self.stages, self.durations, info.stages_ns, strict=True):
            if ns:
                until.add(ns - began)
                within.add(ns - before)
                before = ns
        self.downloaded.add(info.downloaded_ns - began)
        self.processed.add(info.processed_ns - began)

    def named(self) -> list[tuple[str, Histogram]]:
        """Return all marks with what they are called in the report, in the order of the way."""
        before = [(name, getattr(self, name)) for name in _BEFORE]
        behind = [(name, getattr(self, name)) for name in _BEHIND]
        return before + list(zip(self.names, self.stages, strict=True)) + behind

    def describe(self) -> dict[str, Any]:
        """Return what the report says of a stream: percentiles in ms of those marks that frames reached."""
        told: dict[str, Any] = {
            "latency_ms": {name: h.summary() for name, h in self.named() if h.count},
            "duration_ms": {name: h.summary() for name, h in zip(self.names, self.durations, strict=True) if h.count},
        }
        if self.unsure.count:
            told["clock_unsure_ms"] = self.unsure.summary()
        return told


def together(some: Iterable[Histogram]) -> Histogram:
    """Return one histogram of all; the one itself where there is but one."""
    found = [h for h in some if h.count]
    if len(found) == 1:
        return found[0]
    total = Histogram()
    for h in found:
        total.merge(h)
    return total


def free_name(name: str, stream: int, taken: Container[str]) -> str:
    """Return what a stage is called among those of all streams: from the second on with the stream's number."""
    # A stream's own second stage of a kind has its place in the config behind its name, which may be the same.
    return next(n for n in (name, f"{name} {stream}", f"{name} (stream {stream})") if n not in taken)


def latency_of(some: Sequence[tuple[int, Marks]], expected: Callable[[str], bool]) -> dict[str, Histogram]:
    """Return the latencies of a run: each mark over all streams, and each stage of each stream by itself.

    Parameters
    ----------
    some
        By the streams' index.
    expected
        Whether a mark has a place also while no frame has reached it.
    """
    found: dict[str, Histogram] = {}

    def over_all(names: Iterable[str]) -> None:
        for name in names:
            total = together(getattr(marks, name) for _, marks in some)
            if total.count or expected(name):
                found[name] = total

    over_all(_BEFORE)
    for index, marks in some:
        for name, until in zip(marks.names, marks.stages, strict=True):
            found[free_name(name, index, found)] = until
    over_all(_BEHIND)
    return found
