"""The two ends of a session that restores a recording again: a source from the disk, a sink that compares."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import PellucidError, SinkError, SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, Account, FrameInfo, Ring, Slot, Spec, Stream
from pellucid.recording.contents import Contents
from pellucid.recording.intake import cut
from pellucid.recording.journal import checksum
from pellucid.recording.opened import Opened, open_image
from pellucid.reproduce.told import Reproduced
from pellucid.reproduce.ways import results

__all__ = ["Compare", "RecordedFrames"]


class RecordedFrames:
    """A source of the frames that one chain was given (see `pellucid.protocols.Source`).

    Parameters
    ----------
    contents
    stream
        As it was; it is the only one here.
    rows
        In order.

    Attributes
    ----------
    error : PellucidError or None
        Why a frame could not be given.
    """

    def __init__(self, contents: Contents, stream: Stream, rows: Sequence[dict[str, Any]]) -> None:
        self._contents, self._rows = contents, rows
        self._stream = replace(stream, index=0, replaces=None)
        self.shares_memory = self.live = False
        self._images: dict[str, Opened] = {}
        self._free: deque[Slot] = deque()
        self._next = 0
        self.finished = not rows
        self.error: PellucidError | None = None

    def open(self) -> tuple[Stream, ...]:
        """Return the stream."""
        return (self._stream,)

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Note whom to tell."""
        self._account = account

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        self._free.append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame; raises SourceError where it is not as it was recorded."""
        if self.finished or not self._free:
            return None
        row = self._rows[self._next]
        slot = self._free.popleft()
        try:
            self._fill(slot.planes[RAW], row)
        except PellucidError as error:
            self.error = error
            raise
        now = now_ns()
        axes = row.get("axes")
        planes = _numbers(row, self._stream)
        slot.info = FrameInfo(
            row["seq"], 0, row.get("camera_number", -1), now, 0, now, axes=axes, planes=planes, began_ns=now
        )
        self._next += 1
        self.finished = self._next == len(self._rows)
        return slot

    def _fill(self, raw: NDArray[Any], row: dict[str, Any]) -> None:
        """Copy the raw frame, and see that it is the one that came."""
        name = self._contents.images(row)[RAW]
        if name not in self._images:
            plan = self._contents.plans[name]
            self._images[name] = open_image(self._contents.folder, plan, self._contents.about.file_format)
        places, sums = self._contents.places(row, name), row["xxh3"][RAW]
        into = [raw] if raw.ndim == 2 else list(raw)
        for plane, at, total in zip(into, places, [sums] if isinstance(sums, str) else sums, strict=True):
            try:
                np.copyto(plane, self._images[name].read(at), casting="no")
                wrong = f"{checksum(plane):016x}" != total
            except (SinkError, TypeError, ValueError):
                wrong = True
            if wrong:
                folder = self._contents.folder
                raise SourceError(
                    f"raw frame {row['seq']} is not there as it was recorded. Type: pellucid verify {folder}"
                )

    def stop(self) -> None:
        """Give no further frame."""
        self.finished = True

    def close(self) -> None:
        """Close the images."""
        for image in self._images.values():
            image.close()
        self._images = {}


def _numbers(row: Mapping[str, Any], stream: Stream) -> tuple[int, ...]:
    """Return the numbers of a stack's planes; between them may be those of other channels, evenly as far as known."""
    if not row.get("planes") or stream.spec.axes != "zyx":
        return ()
    return tuple(np.linspace(row["seq"], row["to_seq"], stream.spec.shape[0]).astype(int).tolist())


class Compare:
    """A sink that compares what comes out with what was recorded (see `pellucid.protocols.Sink`).

    Parameters
    ----------
    contents, rows
    found
        Kept up to date.
    advance
        Called for each frame that came out.

    Attributes
    ----------
    told : callable
        Whether anything can be told of a frame, by its place among `rows`.
    error : PellucidError or None
        Why a frame could not be compared.
    """

    def __init__(
        self, contents: Contents, rows: Sequence[dict[str, Any]], found: Reproduced, advance: Callable[[], None]
    ) -> None:
        self.policy, self.early = "block", False
        self._contents, self._found, self._advance = contents, found, advance
        self._rows = {row["seq"]: row for row in rows}
        self.told: Callable[[int], bool] = lambda at: True
        self.error: PellucidError | None = None
        self._at = 0

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Need nothing."""

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Compare a frame."""
        row = self._rows[slot.info.seq]
        at, self._at = self._at, self._at + 1
        wanted = results(row)
        if not wanted or names == (RAW,):  # the stages broke off: the session says so at its end
            return
        self._advance()
        found = self._found
        if not self.told(at):
            found.untold += 1
            if found.first_untold < 0 or row["seq"] < found.first_untold:
                found.first_untold = row["seq"]
            return
        found.frames += 1
        try:
            self._compare(row, slot, wanted)
        except PellucidError as error:
            self.error = error
            raise

    def _compare(self, row: dict[str, Any], slot: Slot, wanted: Mapping[str, list[str]]) -> None:
        found = self._found
        for name, sums in wanted.items():
            if name not in slot.planes:
                raise SinkError(f"frame {row['seq']}: the stages give no {name} here")
            mine = [f"{checksum(plane):016x}" for plane in cut(slot.planes[name], slot.info)]
            if mine != sums:
                if not found.different:
                    found.largest = self._difference(row, name, slot.planes[name])
                found.different.append(row["seq"])
                return

    def _difference(self, row: dict[str, Any], name: str, here: NDArray[Any]) -> float:
        """Return the largest difference from what was recorded, relative to its range."""
        image_name = self._contents.images(row)[name]
        image = open_image(self._contents.folder, self._contents.plans[image_name], self._contents.about.file_format)
        try:
            then = np.stack([image.read(at) for at in self._contents.places(row, image_name)]).astype(np.float64)
        finally:
            image.close()
        now = here.astype(np.float64)
        if then.size != now.size:
            raise SinkError(f"frame {row['seq']}: {name} has other pixels here, {here.shape}")
        span = float(np.ptp(then)) or 1.0
        return float(np.abs(now.reshape(then.shape) - then).max()) / span

    def finish(self) -> None:
        """Need nothing: each frame was compared when it came."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Hold nothing."""
