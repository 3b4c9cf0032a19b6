"""``frames.jsonl``: a row for every frame that was ever known of, in order of their numbers."""

from __future__ import annotations

import heapq
import itertools
import json
import time
from pathlib import Path
from typing import Any

from pellucid.ledger import Ledger
from pellucid.marks import WAY
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo
from pellucid.recording.disk import Disk

__all__ = ["NAME", "FrameRows", "frame_row", "stage_mark"]

NAME = "frames.jsonl"

_HOLD_NS = 1_000_000_000
"""A row waits so long for late marks (the window draws after the disk has the frame)."""
_TAKEN = WAY | {"camera", "sent", "recorded", "displayed", "began", "read", "stages", "write"}
"""Names of ``*_ms`` that are no stage's, also in rows of `pellucid process` and of stacks."""
_ROWS_HELD = 10_000
"""So many rows wait for one with a smaller number; then they are written without it."""


class FrameRows:
    """Takes finished frames from the ledger and writes their rows.

    Frames are let go in another order than they came (one that skips the stages overtakes those in them), but
    every number gets its row, so the next one can be waited for. A frame that still waits for the disk has none yet.

    Parameters
    ----------
    path
        Of the file to make.
    ledger
    disk

    Attributes
    ----------
    wall_s : float
        What is to be added to the clock of `pellucid.metrics.now_ns`, in seconds, for the time of the day.
    """

    def __init__(self, path: Path, ledger: Ledger, disk: Disk) -> None:
        self._file = disk.grow(path)
        self._ledger = ledger
        ledger.keep_rows = True
        self._next_seq = 0
        self._held: list[tuple[int, int, FrameInfo | dict[str, Any]]] = []
        self._tie = itertools.count()
        self.wall_s = time.time() - now_ns() * 1e-9

    def write(self, *, all_of_them: bool = False) -> None:
        """Write the rows whose turn it is, or all that there are."""
        before_ns = now_ns() - _HOLD_NS
        rows, held = self._ledger.rows, self._held
        while rows:
            row = rows.popleft()
            heapq.heappush(held, (row.seq if isinstance(row, FrameInfo) else row["seq"], next(self._tie), row))
        lines = []
        while held:
            seq, _, row = held[0]
            if not all_of_them:
                if isinstance(row, FrameInfo) and row.pending:
                    break
                young = isinstance(row, FrameInfo) and row.received_ns > before_ns
                if young or (seq > self._next_seq and len(held) < _ROWS_HELD):
                    break
            heapq.heappop(held)
            if isinstance(row, FrameInfo):
                row = frame_row(row, self.wall_s)
            self._next_seq = max(self._next_seq, row.get("to_seq", seq) + 1)
            lines.append(json.dumps(row))
        if lines:
            self._file.append([("\n".join(lines) + "\n").encode()])

    def close(self) -> None:
        """Close the file; safe more than once."""
        self._file.close()


def frame_row(info: FrameInfo, wall_s: float) -> dict[str, Any]:
    """Return what is known of a frame by now."""
    row: dict[str, Any] = {
        "seq": info.seq,
        "camera_number": info.camera_number,
        "stream": info.stream,
        "state": info.state,
        "index": info.index if info.index >= 0 else None,
        "camera_time": round(wall_s + info.camera_ns * 1e-9, 6),
    }
    if info.planes:
        # Between its first and its last plane those of other channels may lie, and those that did not come.
        row |= {"to_seq": info.last_seq, "planes": info.count}
        row["began_ms"] = round((info.began_ns - info.camera_ns) * 1e-6, 3)
        if info.missing_z:
            row["missing_z"] = list(info.missing_z)
    if info.place:
        row["at"] = list(info.place)
        if info.part:
            row["part"] = info.part
    if info.sums:
        row["xxh3"] = dict(info.sums)
    if info.unrecorded:
        row["not_recorded"] = info.unrecorded
    if info.where:
        row["where"] = info.where
    if info.axes:
        row["axes"] = dict(info.axes)
    if info.notes:
        row["notes"] = {stage: dict(notes) for stage, notes in info.notes.items()}
    if info.unsure_ns:
        row["clock_unsure_us"] = round(info.unsure_ns * 1e-3, 1)
    # In the order of the way, by which whoever reads them knows what lies between two.
    marks = [("sent", info.sent_ns), ("received", info.received_ns), ("uploaded", info.uploaded_ns)]
    marks += [(stage_mark(name), ns) for name, ns in zip(info.stages, info.stages_ns, strict=True)]
    marks += [(mark, getattr(info, f"{mark}_ns")) for mark in ("downloaded", "processed", "recorded", "displayed")]
    row |= {f"{mark}_ms": round((ns - info.camera_ns) * 1e-6, 3) for mark, ns in marks if ns}
    return row


def stage_mark(name: str) -> str:
    """Return what a stage's mark is called: by its name, where that is no mark already."""
    return f"{name} stage" if name in _TAKEN else name
