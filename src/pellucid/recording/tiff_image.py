"""OME-TIFF: planes one after the other, and at the end what makes a TIFF of them.

A TIFF's directories may lie anywhere, so they are written last: while a recording runs the file is a header, whose
pointer to the first directory is 0, and planes. That is a plain sequential file, and nothing in it is lost with what
was not written. (tifffile, which ome-writers uses, writes directories at first and mends them at the end: after a kill
one plane of 150 can be read. Upstream would need a way to write directories for planes that are there already.) The
pointer is written when the directories are on the disk.

All positions are in one file, a series each: readers that take no set of files for one image (bioio-ome-tiff) open it
too, and it is one sequential file to the disk. A plane that was never written has its directory all the same, which
points to a plane of zeros that all of those share: so the planes are in the order of the experiment for programs that
do not read OME-XML, and every reader finds zeros. Which planes are real is what the ``Plane`` elements name.

Facts are those of TIFF 6.0, of BigTIFF, and of the OME data model of 2016-06.
"""

from __future__ import annotations

import errno
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError
from pellucid.recording.disk import Disk, Growing
from pellucid.recording.image import At, Ending, Plan, Where
from pellucid.recording.ome_xml import PIXEL_TYPES, ome_xml
from pellucid.recording.tiff_tail import EMPTY, PAGE, header, is_big, tail
from pellucid.recording.zarr_codec import Codec

__all__ = ["TiffImage"]

_LEVEL = 1
"""Of zstd: noise is not compressed any better by a higher one."""


class TiffImage:
    """One image (see `pellucid.recording.image.Image`): the file ``<name>.ome.tif``, a series for each position.

    It becomes a classic TIFF where it fits into 4 GiB, which every program reads, and a BigTIFF where it does not.

    Parameters
    ----------
    folder
        The recording's.
    plan
        With ``compression`` ``"none"`` or ``"zstd"`` (each plane a strip; TIFF's number 50000).
    disk

    Raises
    ------
    SinkError
        Where a TIFF cannot hold such pixels.
    """

    def __init__(self, folder: Path, plan: Plan, disk: Disk) -> None:
        if plan.compression not in ("none", "zstd"):
            raise SinkError(
                f'{plan.name}: no reader of TIFF knows the compression "{plan.compression}". Allowed: "none", "zstd"; '
                'or use format = "ome-zarr"'
            )
        if plan.dtype not in PIXEL_TYPES:
            raise SinkError(
                f"{plan.name}: an OME-TIFF cannot hold {plan.dtype}. Allowed: {', '.join(PIXEL_TYPES)}; "
                'or use format = "ome-zarr"'
            )
        self._plan, self._disk = plan, disk
        self._key = f"{plan.name}.ome.tif"
        self.path = folder / self._key
        zstd = [{"name": "zstd", "configuration": {"level": _LEVEL}}]
        self._codec = Codec(zstd if plan.compression == "zstd" else [])
        self._file: Growing | None = None
        self._closed = False
        self._planes = array("q")
        """Of each plane p, t, c, z, offset, bytes."""
        self._lock = threading.Lock()

    def create(self) -> None:
        """Make the file; raises OSError."""
        with self._lock:
            self._file = self._disk.grow(self.path)
            self._file.append([EMPTY.ljust(PAGE, b"\0")])

    # ---------------------------------------------------------------- planes

    def put(self, at: At, plane: NDArray[Any], camera_s: float) -> Where:
        """Hot: write a plane at a place that was never written; say where its bytes are."""
        data = memoryview(self._codec.encode(plane)).cast("B")
        with self._lock:
            offset = self._append(data)
            self._planes.extend((*at, offset, data.nbytes))
        return Where(self._key, offset, data.nbytes)

    def _append(self, data: memoryview) -> int:
        """Write behind all else, at a whole page; return where."""
        file = self._opened()
        gap = -file.length % PAGE
        return file.append([bytes(gap), data] if gap else [data]) + gap

    def _opened(self) -> Growing:
        if self._closed:
            raise OSError(errno.EBADF, "the image has been closed", str(self.path))
        if self._file is None:  # after a fault
            if self.path.is_file():
                # Bytes of which no journal knows stay where they are, and a file that was ended before stays readable
                # until its new directories are there.
                self._file = self._disk.grow(self.path, at=max(self.path.stat().st_size, PAGE))
            else:
                self._file = self._disk.grow(self.path)
                self._file.append([EMPTY.ljust(PAGE, b"\0")])
        return self._file

    def grow(self, lengths: Sequence[int]) -> None:
        """Nothing can be seen before the end."""

    # ---------------------------------------------------------------- end

    def finish(self, ending: Ending) -> None:
        """Write the directories and the metadata, and when they are on the disk the pointer to them."""
        with self._lock:
            file = self._opened()
            rows = np.frombuffer(self._planes, np.int64).reshape(-1, 6)
            sizes = self._sizes(rows, ending)
            strips = np.concatenate([_strips(rows[rows[:, 0] == p], size) for p, size in enumerate(sizes)])
            never = strips[:, 1] == 0
            if never.any():
                zeros = np.zeros(self._plan.size, self._plan.dtype)
                data = memoryview(self._codec.encode(zeros)).cast("B")
                strips[never] = self._append(data), data.nbytes
            text = ome_xml(self._plan, ending, sizes)
            big = is_big(file.length, len(strips), text)
            file.append([bytes(-file.length % PAGE)])
            data_of_tail, first = tail(self._plan, strips, text, file.length, big)
            file.append([data_of_tail])
            self._disk.commit()
            file.patch(0, header(first, big))
            file.close()
            self._closed = True

    def _sizes(self, rows: NDArray[np.int64], ending: Ending) -> list[tuple[int, int, int]]:
        """Return how many there are along t, c, z of each position."""
        plan = self._plan
        c, z = len(plan.channels), plan.depth or 1
        if len(rows):
            c, z = max(c, int(rows[:, 2].max()) + 1), max(z, int(rows[:, 3].max()) + 1)
        out = []
        for p in range(max(len(plan.positions), 1)):
            told = ending.lengths[p] if p < len(ending.lengths) else 1
            seen = rows[rows[:, 0] == p, 1]
            out.append((max(told, 1, int(seen.max()) + 1 if len(seen) else 1), c, z))
        return out

    def abandon(self) -> None:
        """Close what is open; write nothing."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    # ---------------------------------------------------------------- recovery

    def reopen(self) -> None:
        """Find what a recorder left that died; nothing has to be known before its planes are."""

    def read(self, at: At, where: Where) -> NDArray[Any] | None:
        """Return a plane that a journal says was written; None where its bytes are not all there."""
        try:
            with open(self.path, "rb") as file:
                file.seek(where.offset)
                data = file.read(where.nbytes)
        except OSError:
            return None
        if len(data) != where.nbytes or not data:
            return None
        return self._codec.decode(data, self._plan.dtype, self._plan.size)

    def keep(self, planes: Sequence[tuple[At, Where]]) -> None:
        """After `reopen`: these planes are good; what else there is has no directory, and is not deleted."""
        for at, where in planes:
            self._planes.extend((*at, where.offset, where.nbytes))


def _strips(rows: NDArray[np.int64], size: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return offset and bytes of the planes of a position, along t, c, z; 0, 0 for those that were never written."""
    out = np.zeros((*size, 2), np.int64)
    out[rows[:, 1], rows[:, 2], rows[:, 3]] = rows[:, 4:]
    return out.reshape(-1, 2)
