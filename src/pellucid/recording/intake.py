"""From a frame in its slot to planes that wait for the disk, and from there to the journal.

A frame is taken once: its checksum is made and its place in the images is given before anything else can happen to it.
What waits then (see `backlog`) holds the pixels; this file says what is done with them at last, or what is noted where
they cannot be written.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Slot
from pellucid.recording.backlog import Backlog, Full, Piece
from pellucid.recording.commit import Committer
from pellucid.recording.image import At, Stamp
from pellucid.recording.journal import Journal, checksum, frame_line, plane_line
from pellucid.recording.part import Part, Target
from pellucid.recording.rows import FrameRows, frame_row

__all__ = ["FAILED", "Intake", "cut"]

Job = tuple[Target, At, int]
"""A plane that waits: its image, its place, its checksum."""
FAILED = "the recorder had failed"
"""Why planes that came then are not recorded."""


class Intake:
    """Takes frames into a part's images.

    Parameters
    ----------
    ledger, rows, journal, committer, backlog
    hold
        Keeps a slot as it is until the backlog lets go of it; None where there is no session: pixels are copied then.
    keep
        So many slots of a stream may wait.

    Attributes
    ----------
    unrecorded : collections.Counter
        Frames that came and are not recorded, by why.
    planes_unrecorded : collections.Counter
        The same for each plane.
    """

    def __init__(
        self,
        ledger: Ledger,
        rows: FrameRows,
        journal: Journal,
        committer: Committer,
        backlog: Backlog,
        hold: Callable[[Slot], None] | None,
        keep: int,
    ) -> None:
        self._ledger, self._rows, self._journal = ledger, rows, journal
        self._committer, self._backlog, self._hold, self._keep = committer, backlog, hold, keep
        ledger.expect("disk")
        ledger.expect("disk_raw")
        self._counting = threading.Lock()
        self.unrecorded: Counter[str] = Counter()
        self.planes_unrecorded: Counter[str] = Counter()

    def take(
        self,
        part: Part,
        slot: Slot,
        info: FrameInfo,
        names: tuple[str, ...],
        kept: Piece | None = None,
    ) -> bool:
        """Hot: take planes of a frame; the raw one gives it its place, the others follow to the same.

        Parameters
        ----------
        part
            Where the frame goes, or went.
        slot
            Not read where `kept` is given.
        info
        names
            Of the planes.
        kept
            Pixels of the frame that were copied out of the slot.

        Returns
        -------
        bool
            False where there was no room to wait, and frames are left out then.

        Raises
        ------
        pellucid.recording.backlog.Full
        """
        targets = part.of[info.stream]
        first = RAW in names
        arrays = kept.arrays if kept is not None else [a for name in names for a in cut(slot.planes[name], info)]
        if first:
            at = targets[RAW].places.place(info)
            info.place, info.part, info.index = tuple(at), part.number, at.t
            part.began_ns = part.began_ns or now_ns()
            part.under_way.append(info)
        at = At(*info.place)
        jobs: list[Job] = []
        sums = iter([checksum(array) for array in arrays])
        told = dict(info.sums or {})
        for name in names:
            mine = [(targets[name], place, next(sums)) for place in _places(targets[name], at, info)]
            told[name] = [f"{total:016x}" for _, _, total in mine] if len(mine) != 1 else f"{mine[0][2]:016x}"
            jobs += mine
        info.sums = told
        with self._counting:
            info.pending += 1
            part.pending += 1
        piece = kept or Piece(arrays)
        piece.work = partial(self._work, info, names, jobs, part, kept is not None)
        piece.dropped = partial(self._dropped, info, names, part)
        piece.about = partial(self._about, info, first, jobs)
        if kept is None:
            if self._hold is None:
                piece.arrays = [array.copy() for array in arrays]
            else:
                piece.slot = slot
                self._hold(slot)
        nbytes = piece.nbytes
        taken, why = False, "disk too slow"
        try:
            taken = self._backlog.put(piece, self._keep)
        except Full:
            raise
        except BaseException:
            why = FAILED
            raise
        finally:
            if not taken:
                if first:
                    targets[RAW].places.take_back(at)
                self._dropped(info, names, part, why)
        if taken:
            part.frames += info.count if first else 0
            part.nbytes += nbytes
        return taken

    def _dropped(self, info: FrameInfo, names: tuple[str, ...], part: Part, why: str) -> None:
        with self._counting:
            info.pending -= 1
            part.pending -= 1
        self.missed(info, names, why)

    def missed(self, info: FrameInfo, names: tuple[str, ...], why: str) -> None:
        """Note in a frame's row which planes of it are not recorded, and why."""
        with self._counting:
            if RAW in names:
                info.place, info.index = (), -1
                self.unrecorded[why] += info.count
            self._ledger.unrecorded(info, why, names)
            self.planes_unrecorded.update(dict.fromkeys(names, info.count))
            info.unrecorded = "; ".join(filter(None, (info.unrecorded, f"{', '.join(names)}: {why}")))
            info.sums = {name: total for name, total in (info.sums or {}).items() if name not in names}

    def _work(
        self,
        info: FrameInfo,
        names: tuple[str, ...],
        jobs: Sequence[Job],
        part: Part,
        was_held: bool,
        arrays: Sequence[NDArray[Any]],
    ) -> None:
        """Write the planes of a frame, then the journal's lines of them; in a writer's thread."""
        first = RAW in names
        lines = [frame_line(frame_row(info, self._rows.wall_s))] if first else []
        for (target, at, total), array in zip(jobs, arrays, strict=True):
            where = target.image.put(at, array, (info.camera_ns - target.places.first_ns) * 1e-9)
            lines.append(plane_line(target.plan.name, at, where, total, info.seq))
        self._journal.add(*lines)
        now = now_ns()
        with self._counting:
            for target, at, _ in jobs:
                taken_s = (info.camera_ns - target.places.first_ns) * 1e-9
                target.written.add(Stamp(at, taken_s, info.seq))
            info.recorded_ns = now
            info.pending -= 1
            part.pending -= 1
            if first:
                self._ledger.recorded += info.count
                if not was_held:  # what waited for somebody to press the button says nothing of the disk
                    self._ledger.marks_of(info.stream).disk_raw.add(now - info.camera_ns)
            if not was_held and (not first or len(names) == len(part.of[info.stream])):
                self._ledger.marks_of(info.stream).disk.add(now - info.camera_ns)
        self._committer.wrote(info.count if first else 0)

    def _about(self, info: FrameInfo, first: bool, jobs: Sequence[Job]) -> dict[str, Any]:
        """Return what a spill file says of planes, so that recovery can put them where they belong."""
        planes = [
            {"image": t.plan.name, "at": at, "xxh3": f"{total:016x}", "seq": info.seq, "bytes": t.plan.nbytes}
            for t, at, total in jobs
        ]
        return {"planes": planes} | ({"frame": frame_row(info, self._rows.wall_s)} if first else {})


def cut(plane: NDArray[Any], info: FrameInfo) -> list[NDArray[Any]]:
    """Return the (y, x) planes of a plane: of a stack those slices that came, of a colour picture its three."""
    if plane.ndim == 2:
        return [plane]
    missing = set(info.missing_z)
    return [plane[i] for i in range(len(plane)) if i not in missing]


def _places(target: Target, at: At, info: FrameInfo) -> list[At]:
    """Return the places of those planes."""
    if target.plan.is_colour:
        return [At(at.p, at.t, at.c * 3 + i, at.z) for i in range(3)]
    if not target.is_stack:
        return [at]
    missing = set(info.missing_z)
    return [At(at.p, at.t, at.c, z) for z in range(target.plan.depth or 0) if z not in missing]
