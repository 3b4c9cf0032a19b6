"""Frames through the recorder, handed to it as a session does: slots, a branch with its thread, hold and release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Spec, Stream
from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Where
from pellucid.recording.journal import Journal, checksum, frame_line, plane_line
from pellucid.recording.rows import frame_row
from pellucid.runtime.fanout import Branch
from pellucid.runtime.ring import SlotRing
from pellucid.sinks.recorder import Recorder

__all__ = ["Feed", "frame_cost"]

_WAIT_S = 0.05
_PATIENCE_S = 60.0


class Feed:
    """Slots that hold their frames already: what a source costs is not measured.

    Parameters
    ----------
    frames
        One for each slot, uint16 ``(y, x)``.
    results
        Further planes of each slot, by name.

    Attributes
    ----------
    frames : list of numpy.ndarray
        As they lie in the slots.
    ledger : Ledger
        Of the latest recording.
    """

    def __init__(
        self, frames: Sequence[NDArray[np.uint16]], results: Mapping[str, Sequence[NDArray[Any]]] | None = None
    ) -> None:
        planes = {RAW: frames, **(results or {})}
        self._specs = {name: Spec(given[0].shape, given[0].dtype.name) for name, given in planes.items()}
        self._results = tuple(name for name in planes if name != RAW)
        self._stream = Stream(self._specs[RAW], pixel_um=0.1, exposure_ms=5.0)
        self.ledger = Ledger()
        self._error: BaseException | None = None
        self._ring = SlotRing(
            self._stream,
            self._specs,
            len(frames),
            shared=False,
            pinned=False,
            on_free=self._freed,
        )
        for slot in self._ring.slots:
            for name, given in planes.items():
                slot.planes[name][...] = given[slot.index]
        self.frames = [slot.planes[RAW] for slot in self._ring.slots]

    def begin(self, recorder: Recorder) -> Branch:
        """Open a recorder; return the branch through which it gets its frames."""
        self.ledger = Ledger()
        self.ledger.follow(self._stream)
        run = {
            "ledger": self.ledger,
            "live": False,
            "slots": len(self._ring.slots),
            "hold": self._ring.hold,
            "release": self._ring.release,
            "config": "",
        }
        recorder.open([self._stream], [self._specs], run)
        return Branch("recorder", recorder.write, self._ring.release, policy="block", on_error=self._failed)

    def _freed(self, info: FrameInfo) -> None:
        self.ledger.finish(info)

    def _failed(self, _: str, error: BaseException) -> None:
        self._error = error

    def give(self, branch: Branch, count: int) -> None:
        """Send so many frames, waiting for slots as a source does that may wait; until the sink has taken the last.

        Raises
        ------
        SinkError
            Where it did not take them.
        """
        ring, ledger = self._ring, self.ledger
        self._error = None
        for i in range(count):
            while (slot := ring.take()) is None:
                ring.wait(_WAIT_S)
            now = now_ns()
            slot.info = FrameInfo(i, camera_number=i, camera_ns=now, received_ns=now)
            slot.holders = 1
            ledger.arrived(slot.info, self._specs[RAW].nbytes)
            ring.hold(slot)
            branch.put(slot, (RAW,))
            ledger.ended(slot.info, "processed")
            if self._results:
                ring.hold(slot)
                branch.put(slot, self._results)
            ring.release(slot)
        if not branch.drain(_PATIENCE_S) or self._error is not None:
            raise SinkError(f"the recorder did not take the frames: {self._error or 'it stands still'}")

    def record(self, path: Path, count: int, **options: Any) -> tuple[float, Recorder]:
        """Record so many frames.

        Parameters
        ----------
        path
        count
        options
            Of the recorder.

        Returns
        -------
        tuple
            Seconds until ``finish`` had returned, with all on the disk; and the recorder, closed.

        Raises
        ------
        SinkError
            Where a frame is missing.
        """
        recorder = Recorder(path=str(path), **options)
        branch = self.begin(recorder)
        try:
            before = now_ns()
            self.give(branch, count)
            recorder.finish()
            seconds = (now_ns() - before) * 1e-9
        finally:
            recorder.close({})
        if self.ledger.recorded != count:
            raise SinkError(f"{self.ledger.recorded} of {count} frames were recorded")
        return seconds, recorder

    def close(self) -> None:
        """Give the memory back."""
        self.frames = []
        self._ring.close()


def frame_cost(path: Path, frame: NDArray[np.uint16], times: int = 300) -> tuple[float, float]:
    """Return what the journal's lines of a frame and its checksum take, in microseconds; medians."""
    journal = Journal(path, Disk())
    lines: list[int] = []
    sums: list[int] = []
    for i in range(times):
        begun = now_ns()
        total = checksum(frame)
        summed = now_ns()
        info = FrameInfo(i, camera_number=i, camera_ns=begun, received_ns=begun, index=i, place=(0, i, 0, 0))
        info.sums = {"raw": f"{total:016x}"}
        where = Where("raw.ome.zarr/0/c/0/0/0/0", i * frame.nbytes, frame.nbytes)
        journal.add(frame_line(frame_row(info, 0.0)), plane_line("raw", At(0, i, 0), where, total, i))
        lines.append(now_ns() - summed)
        sums.append(summed - begun)
    journal.close()
    return median(lines) * 1e-3, median(sums) * 1e-3
