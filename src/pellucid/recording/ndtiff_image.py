"""NDTiff, Micro-Manager's own format, laid out by ndstorage; its files are written here.

ndstorage (0.1.18) knows where everything goes, and how its files are made is not what an experiment can rest on: each
is made 4 GB large and cut when it ends, the rows of the index wait in a buffer until then, nothing is ever synced, a
write that fails leaves its own count of bytes wrong, and a folder that a kill left can be neither gone on with nor,
where a row of the index was cut, opened. Also 8-bit pictures are said to have 16 bits, the resolution is always 1, and
colour pictures cannot be written (the code asks an array of three axes for two): they are three channels here. Upstream
would need a writer that takes a file to write to, or returns the bytes, and an index that is flushed with each image.

Each plane is its directory, its pixels, its metadata; so the index can be made again from where the pixels are.
"""

from __future__ import annotations

import errno
import json
import re
import struct
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError, require
from pellucid.recording.disk import Disk, Growing
from pellucid.recording.image import At, Ending, Plan, Where
from pellucid.recording.ndtiff_facts import axes_of, metadata_of, summary_of

__all__ = ["NDTiffImage"]

INDEX = "NDTiff.index"
_STACK = re.compile(r"NDTiffStack(?:_(\d+))?\.tif")
_SPARE = 4096
"""Bytes of a header for what is known only in the end."""
_FIRST_AT, _FIRST = 4, 8
"""Where a header has the offset of the first directory, and where that ends."""
_ROOM_AT, _SUMMARY = 24, 28
"""Where a header says how long the summary is, and where that begins."""
_ENTRIES = 13
_FROM_NEXT = 4 + 16
"""Bytes from where a directory has the offset of the next one to the pixels; two resolutions are between."""
_HEAD = 2 + _ENTRIES * 12 + _FROM_NEXT
_METADATA_TAG = 51123


class NDTiffImage:
    """One image (see `pellucid.recording.image.Image`): the folder ``<name>.ndtiff``.

    ``ndstorage.Dataset`` opens it at any time, while it grows as well: a row of its index is written behind its plane.

    Parameters
    ----------
    folder
        The recording's.
    plan
        Of uint8 or uint16 planes, uncompressed.
    disk

    Raises
    ------
    SinkError
        Where an NDTiff cannot hold such pixels.
    """

    def __init__(self, folder: Path, plan: Plan, disk: Disk) -> None:
        if plan.dtype not in ("uint8", "uint16"):
            raise SinkError(
                f"{plan.name}: an NDTiff holds uint8 or uint16, these planes are {plan.dtype}. Give the stage "
                'output = "uint16", or the recorder format = "ome-zarr"'
            )
        if plan.compression != "none":
            raise SinkError(
                f'{plan.name}: an NDTiff is not compressed, given "{plan.compression}". Leave out compression, '
                'or use format = "ome-zarr"'
            )
        if plan.nbytes >= 1 << 31:
            raise SinkError(f"{plan.name}: an NDTiff holds planes below 2 GiB, these have {plan.nbytes} bytes")
        self._folder, self._plan, self._disk = folder, plan, disk
        self.path = folder / f"{plan.name}.ndtiff"
        self._layout: Any = None
        self._file: Growing | None = None
        self._index: Growing | None = None
        self._number = 0
        """Of the file that grows."""
        self._next_at = _FIRST_AT
        """Where in it the offset of a directory stands that is not there yet."""
        self._room = 0
        self._closed = False
        self._lock = threading.Lock()

    # ---------------------------------------------------------------- begin

    def create(self) -> None:
        """Make the folder, the index and the first file; raises OSError, MissingExtra."""
        self._lay_out()
        with self._lock:
            self._index = self._disk.grow(self.path / INDEX)
            self._begin(0)

    def _lay_out(self) -> None:
        require("ndstorage", "replay", 'format = "ndtiff"')
        from pellucid.recording.ndtiff_stack import Layout

        plan = self._plan
        bits = plan.facts.get("bit_depth") if plan.plane == "raw" else None
        self._layout = Layout(plan.size, plan.dtype, bits, plan.pixel_um)
        # The same for all who begin with the same plan: a recovery writes it again.
        self._room = -(-2 * len(json.dumps(summary_of(plan))) // 2) * 2 + _SPARE

    def _begin(self, number: int) -> None:
        self._file = self._disk.grow(self.path / _stack(number))
        self._number, self._next_at = number, _FIRST_AT
        self._file.append([self._header(self._room)])

    def _header(self, room: int, ending: Ending | None = None) -> bytes:
        """Return the header of a file with so much room for the summary; what has no place in it is left out."""
        summary = summary_of(self._plan, ending)
        short = {key: value for key, value in summary.items() if key != "pellucid"}
        choice = [told for told in (summary, summary_of(self._plan), short, {}) if len(json.dumps(told)) <= room]
        data: bytes = self._layout.header(choice[0], room)
        return data

    # ---------------------------------------------------------------- planes

    def put(self, at: At, plane: NDArray[Any], camera_s: float) -> Where:
        """Hot: write a plane at a place that was never written; say where its bytes are."""
        axes = axes_of(self._plan, at)
        metadata = metadata_of(self._plan, at, camera_s)
        with self._lock:
            file = self._opened(plane, metadata)
            name = _stack(self._number)
            parts, row, offset = self._layout.image(name, file.length, axes, plane, metadata)
            file.append(parts)
            self._next_at = offset - _FROM_NEXT
            assert self._index is not None
            self._index.append([row])
        return Where(f"{self._plan.name}.ndtiff/{name}", offset, plane.nbytes)

    def _opened(self, plane: NDArray[Any], metadata: bytes) -> Growing:
        """Return the file that takes a plane: the one that grows, or the next."""
        if self._closed or self._file is None:
            raise OSError(errno.EBADF, "the image has been closed", str(self.path))
        if not self._layout.fits(self._file.length, plane, metadata):
            self._end_file()
            self._begin(self._number + 1)
        return self._file

    def _end_file(self) -> None:
        """Say that no directory follows the last one."""
        assert self._file is not None
        self._file.patch(self._next_at, bytes(4))
        self._file.close()

    def grow(self, lengths: Sequence[int]) -> None:
        """Readers see what the index says already."""

    # ---------------------------------------------------------------- end

    def finish(self, ending: Ending) -> None:
        """End the last file, and say in each what has become known."""
        with self._lock:
            if self._closed or self._file is None or self._index is None:
                raise OSError(errno.EBADF, "the image has been closed", str(self.path))
            self._end_file()
            self._index.close()
            self._closed = True
            for number in _numbers(self.path):
                path = self.path / _stack(number)
                file = self._disk.grow(path, at=path.stat().st_size)
                file.patch(_FIRST, self._header(_room_in(path, self._room), ending)[_FIRST:])
                file.close()

    def abandon(self) -> None:
        """Close what is open; write nothing."""
        with self._lock:
            self._closed = True
            for file in (self._file, self._index):
                if file is not None:
                    file.close()

    # ---------------------------------------------------------------- recovery

    def reopen(self) -> None:
        """Find what a recorder left that died; raises MissingExtra."""
        self._lay_out()

    def read(self, at: At, where: Where) -> NDArray[Any] | None:
        """Return a plane that a journal says was written; None where its bytes are not all there."""
        try:
            with open(self._folder / where.file, "rb") as file:
                file.seek(where.offset)
                data = file.read(where.nbytes)
        except OSError:
            return None
        if len(data) != self._plan.nbytes:
            return None
        return np.frombuffer(data, np.dtype(self._plan.dtype).newbyteorder("<")).reshape(self._plan.size)

    def keep(self, planes: Sequence[tuple[At, Where]]) -> None:
        """After `reopen`: these planes are good; index and directories name them alone, and nothing is deleted.

        What is torn of a good plane's directory or metadata is written again, then without its time.
        """
        of: defaultdict[int, list[tuple[At, Where]]] = defaultdict(list)
        for at, where in planes:
            of[_number(Path(where.file).name)].append((at, where))
        rows: list[bytes] = []
        for number in sorted({*of, *_numbers(self.path)}):
            rows += self._mend(number, sorted(of[number], key=lambda plane: plane[1].offset))
        self._disk.replace(self.path / INDEX, b"".join(rows))
        if self._file is None:
            self._begin(0)
        self._index = self._disk.grow(self.path / INDEX, at=sum(map(len, rows)))

    def _mend(self, number: int, planes: Sequence[tuple[At, Where]]) -> list[bytes]:
        """Make of a file one of these planes alone; it becomes the one that grows. Return the rows of its index."""
        path, name = self.path / _stack(number), _stack(number)
        found = [(at, where, *self._metadata(path, at, where)) for at, where in planes]
        room = _room_in(path, planes[0][1].offset - _HEAD - _SUMMARY if planes else self._room)
        ends = [where.offset + where.nbytes + len(text) for _, where, text, _ in found]
        if self._file is not None:
            self._end_file()
        self._file = self._disk.grow(path, at=max([path.stat().st_size, _SUMMARY + room, *ends]))
        self._number, self._next_at = number, _FIRST_AT
        self._patch(path, 0, self._header(room))
        rows = []
        for at, where, text, whole in found:
            begin, end = where.offset - _HEAD, where.offset + where.nbytes
            if not whole:
                self._patch(path, begin, self._layout.head(begin, text))
                self._patch(path, end, text)
            self._patch(path, self._next_at, struct.pack("<I", begin))
            self._next_at = where.offset - _FROM_NEXT
            rows.append(self._layout.row(name, axes_of(self._plan, at), where.offset, end, len(text)))
        end = self._file.length
        self._patch(path, self._next_at, struct.pack("<I", end + end % 2))
        return rows

    def _metadata(self, path: Path, at: At, where: Where) -> tuple[bytes, bool]:
        """Return the metadata of a plane, and whether it and the directory are whole."""
        begin = where.offset - _HEAD
        with open(path, "rb") as file:
            file.seek(begin)
            head = file.read(_HEAD)
            file.seek(where.offset + where.nbytes)
            text = file.read(_length_in(head))
        if _is_table(text):
            made, past = self._layout.head(begin, text), _HEAD - _FROM_NEXT + 4
            if head[: past - 4] == made[: past - 4] and head[past:] == made[past:]:
                return text, True
        return metadata_of(self._plan, at, None), False

    def _patch(self, path: Path, at: int, data: bytes) -> None:
        """Write what is not there already."""
        assert self._file is not None
        with open(path, "rb") as file:
            file.seek(at)
            if file.read(len(data)) != data:
                self._file.patch(at, data)


def _stack(number: int) -> str:
    """Return the name of a file, as ndstorage gives them."""
    return f"NDTiffStack_{number}.tif" if number else "NDTiffStack.tif"


def _number(name: str) -> int:
    found = _STACK.fullmatch(name)
    return int(found[1] or 0) if found else -1


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of the files that are there."""
    return sorted(number for path in folder.glob("*.tif") if (number := _number(path.name)) >= 0)


def _room_in(path: Path, most: int) -> int:
    """Return how much room a file's header has for the summary; `most` where it does not say."""
    with open(path, "rb") as file:
        head = file.read(_SUMMARY)
    told = struct.unpack_from("<I", head, _ROOM_AT)[0] if len(head) == _SUMMARY and head[:2] == b"II" else 0
    return told if 0 < told <= most else most


def _length_in(head: bytes) -> int:
    """Return how long the metadata of a plane is by its directory; 0 where that does not say."""
    if len(head) == _HEAD:
        for i in range(_ENTRIES):
            tag, _, count, _ = struct.unpack_from("<HHII", head, 2 + i * 12)
            if tag == _METADATA_TAG and count < 1 << 20:
                return int(count)
    return 0


def _is_table(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False
