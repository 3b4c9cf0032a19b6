"""The parts of a recording, one after the other, and what ``recording.json`` says of them.

Usually there is one, and its images lie in the recording's folder. Where the user asks for parts of a certain length,
or for takes that are started and stopped, each is a folder of its own, ``part-0001`` and so on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Spec, Stream
from pellucid.recording.about import NAME, About, stream_row
from pellucid.recording.disk import Disk
from pellucid.recording.journal import Journal
from pellucid.recording.part import Part

__all__ = ["Length", "Parts"]


@dataclass(frozen=True)
class Length:
    """When a part is long enough; None: never."""

    frames: int | None = None
    gb: float | None = None
    minutes: float | None = None

    def reached(self, part: Part) -> bool:
        """Tell whether a part is."""
        return (
            (self.frames is not None and part.frames >= self.frames)
            or (self.gb is not None and part.nbytes >= self.gb * 1e9)
            or (self.minutes is not None and bool(part.began_ns) and now_ns() - part.began_ns >= self.minutes * 60e9)
        )


class Parts:
    """All parts of a recording.

    Parameters
    ----------
    folder
    about
        Kept up to date, and written.
    length
    takes
        Parts are takes: none is there before `begin`.
    compression
    shard
        Says for a Spec how many planes a file takes.
    disk
    run
        As a sink's ``open`` gets it.
    journal
        Is told of each part as it begins, before ``recording.json`` is written, which takes a sync.

    Attributes
    ----------
    now : Part or None
        Where raw planes go.
    """

    def __init__(
        self,
        folder: Path,
        about: About,
        length: Length,
        takes: bool,
        compression: str,
        shard: Callable[[Spec], int],
        disk: Disk,
        run: Mapping[str, Any],
        journal: Journal,
    ) -> None:
        self._journal = journal
        self._making = threading.Lock()
        self._next: Part | None = None
        self._untold = False
        self._folder, self._about, self._length = folder, about, length
        self._several = takes or length != Length()
        self._rotates = length != Length()
        self._compression, self._shard, self._disk, self._run = compression, shard, disk, run
        self._streams: list[Stream] = []
        self._specs: list[Mapping[str, Spec]] = []
        self._all: list[Part] = []
        self.now: Part | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Part]:
        return iter(list(self._all))

    def open(self, streams: Sequence[Stream], specs: Sequence[Mapping[str, Spec]]) -> None:
        """Note what will be recorded."""
        self._streams, self._specs = list(streams), list(specs)

    def extend(self, stream: Stream, specs: Mapping[str, Spec]) -> None:
        """Take in a stream that begins during the run."""
        self._streams.append(stream)
        self._specs.append(specs)
        if self.now is not None:
            self.now.take_in(stream, specs, [stream])
        self.write_about()

    def begin(self) -> Part:
        """Make new images; what comes from now on goes there. Raises OSError, SinkError."""
        return self.go_on_in(self._make())

    def make_take(self, name: str) -> Part:
        """Make the images of a take, which takes its time: nothing goes there yet. Raises OSError, SinkError."""
        self.forget_next()  # it would have been of the take before
        return self._make(name, 1 + max((part.take for part in self._all), default=0))

    def _make(self, name: str = "", take: int = 0) -> Part:
        number = len(self._all) + 1 if self._several else 0
        part = Part(
            self._folder,
            number,
            self._about.file_format,
            self._compression,
            self._shard,
            self._disk,
            self._run,
            name,
            take,
        )
        gone = {stream.replaces for stream in self._streams}
        for stream, specs in zip(self._streams, self._specs, strict=True):
            if stream.index not in gone:
                part.take_in(stream, specs, self._streams)
        return part

    def go_on_in(self, part: Part) -> Part:
        """Have what comes from now on go to a part that was made; raises OSError."""
        for stream, specs in zip(self._streams, self._specs, strict=True):
            if stream.index not in part.of and stream.index not in {s.replaces for s in self._streams}:
                part.take_in(stream, specs, self._streams)  # it began meanwhile
        self.end()
        self._all.append(part)
        self.now = part
        self._journal.add({"part": part.row()})
        self._untold = True
        return part

    def end(self) -> None:
        """Nothing more begins in the part that is now."""
        if self.now is not None:
            self.now.over_ns = now_ns()
        self.now = None

    def rotate(self, info: FrameInfo) -> None:
        """Hot: before a frame, begin the next part where this one is long enough."""
        part = self.now
        if part is None or not part.frames or self._length == Length() or info.stream not in part.of:
            return
        places = part.of[info.stream][RAW].places
        if places.must_end_before(info) or (self._length.reached(part) and places.may_end_before(info)):
            with self._making:
                made, self._next = self._next, None
                self.go_on_in(made or self._make(part.name, part.take))

    def amount_of(self, take: int) -> tuple[int, int]:
        """Return frames and bytes of a take, or of all that is recorded where there are none (0)."""
        mine = [part for part in self._all if part.take == take]
        return sum(part.frames for part in mine), sum(part.nbytes for part in mine)

    def of(self, info: FrameInfo) -> Part | None:
        """Return the part in which a frame has its place."""
        return next((part for part in self._all if part.number == info.part and info.stream in part.of), None)

    def grow(self, wall_s: float) -> None:
        """Before a commit: let readers see how long the images are, and end those of parts that are over.

        Raises
        ------
        OSError, SinkError
        """
        if self._untold:
            self._untold = False
            self.write_about()
        with self._making:
            if self._rotates and self._next is None and self.now is not None and self.now.frames:
                self._next = self._make(
                    self.now.name, self.now.take
                )  # ahead of need: it takes syncs, and frames go on coming
        for part in list(self._all):
            if part.ended:
                continue
            part.grow()
            if part.is_done():
                for fault in part.finish(wall_s):
                    raise fault

    def finish(self, wall_s: float) -> list[Exception]:
        """End all images; return what went wrong."""
        self.forget_next()
        return [fault for part in self._all if not part.ended for fault in part.finish(wall_s)]

    def forget_next(self) -> None:
        """Remove the part that was made ahead of need: it will not be needed."""
        with self._making:
            part, self._next = self._next, None
        if part is not None:
            part.abandon()
            self._disk.remove_folder(self._folder / part.prefix)

    def abandon(self) -> None:
        """Close what is open; write nothing."""
        for part in [*self._all, *([self._next] if self._next is not None else [])]:
            part.abandon()

    def write_about(self) -> None:
        """Write ``recording.json``; raises OSError."""
        about = self._about
        about.streams = [stream_row(stream) for stream in self._streams]
        about.parts = [part.row() for part in self._all]
        if "stages" in self._run:
            about.hashes["stages"] = self._run["stages"]()
        self._disk.replace(self._folder / NAME, about.text())
