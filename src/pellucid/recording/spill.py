"""Where frames wait that neither slots nor memory have room for: a file on another disk, written and read in order.

Each piece tells what it is, so that recovery finds those that were still waiting when something died: 8 bytes of
magic, the length of a JSON text and of the pixels (two little-endian 64-bit numbers), the CRC-32 of these and of the
text, the text, the pixels. The text names the file, so that a file of another recording is told apart, and has a
checksum of the pixels of each plane.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pellucid.recording.disk import Disk

__all__ = ["Spill", "read_spill"]

_MAGIC = b"pell\x01spl"
_HEAD = struct.Struct("<8sQQI")
_LENGTHS = struct.Struct("<QQ")
_CHUNK = 1 << 20


class Spill:
    """A spill file.

    Parameters
    ----------
    path
        Of the file to make.
    disk
        Of the place where it lies: it is committed with the recording.
    limit_bytes
        It is never longer; what has been read is room again once all has been.

    Attributes
    ----------
    waiting : int
        Pieces in it.
    """

    def __init__(self, path: Path, disk: Disk, limit_bytes: int) -> None:
        self.path, self._disk, self._limit = path, disk, limit_bytes
        self._file = disk.grow(path)
        self._read: Any = open(path, "rb", buffering=0)  # noqa: SIM115
        self.waiting = 0
        self._done = self._marked = self._safe = 0

    def put(self, about: dict[str, Any], planes: Sequence[NDArray[Any]]) -> int | None:
        """Write a piece; return where its pixels begin, None where there is no room for it; raises OSError."""
        text = json.dumps({**about, "spill": self.path.name}, separators=(",", ":")).encode()
        nbytes = sum(plane.nbytes for plane in planes)
        if not self.waiting and self._file.length and self._safe == self._done:
            self._begin_again()
        if self._file.length + _HEAD.size + len(text) + nbytes > self._limit:
            return None
        at = self._file.append([_head(text, nbytes), text, *planes])
        self.waiting += 1
        return at + _HEAD.size + len(text)

    def take(self, at: int, planes: Sequence[NDArray[Any]]) -> None:
        """Read a piece into `planes`; raises OSError."""
        self._read.seek(at)
        for plane in planes:
            rest = memoryview(plane.data).cast("B")
            while rest:
                count = self._read.readinto(rest)
                if not count:
                    raise OSError(f"{self.path} is cut short")
                rest = rest[count:]

    def done(self) -> None:
        """Note that a piece that was taken is where it belongs."""
        self.waiting -= 1
        self._done += 1

    def committing(self) -> None:
        """Before a commit: what is where it belongs by now will be on the disk after it."""
        self._marked = self._done

    def committed(self) -> None:
        """After a commit: room is used again only when nothing needs what was there."""
        self._safe = self._marked

    def _begin_again(self) -> None:
        self._file.close()
        self._file = self._disk.grow(self.path, at=0)

    def close(self) -> None:
        """Close and remove the file."""
        self._file.close()
        self._read.close()
        if not self.waiting:
            self._disk.remove(self.path)


def _head(text: bytes, nbytes: int) -> bytes:
    return _HEAD.pack(_MAGIC, len(text), nbytes, zlib.crc32(text, zlib.crc32(_LENGTHS.pack(len(text), nbytes))))


def read_spill(
    path: Path, damaged: Callable[[], None] = lambda: None
) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    """Yield what a piece tells, and its bytes, of every piece that is whole; whether its pixels are, its text can tell.

    Parameters
    ----------
    path
    damaged
        Called for each stretch that is no piece, and after which there is another. What was being written when
        something died, at the end, is not damage.

    Raises
    ------
    OSError
        Where the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at + _HEAD.size <= size:
            file.seek(at)
            found = _piece(file, size - at)
            if found is None:
                after = _next_magic(file, at + 1)
                if after is None:
                    return
                damaged()
                at = after
                continue
            about, nbytes, length = found
            yield about, np.frombuffer(file.read(nbytes), np.uint8)
            at += length


def _piece(file: BinaryIO, room: int) -> tuple[dict[str, Any], int, int] | None:
    """Return what the piece that begins here tells, the bytes of its pixels, and its own; None where there is none."""
    magic, text_bytes, nbytes, total = _HEAD.unpack(file.read(_HEAD.size))
    length = _HEAD.size + text_bytes + nbytes
    if magic != _MAGIC or length > room:
        return None
    text = file.read(text_bytes)
    if zlib.crc32(text, zlib.crc32(_LENGTHS.pack(text_bytes, nbytes))) != total:
        return None
    try:
        about = json.loads(text)
    except ValueError:
        return None
    return (about, nbytes, length) if isinstance(about, dict) else None


def _next_magic(file: BinaryIO, at: int) -> int | None:
    """Return where the next piece may begin."""
    file.seek(at)
    before = b""
    while chunk := file.read(_CHUNK):
        found = (before + chunk).find(_MAGIC)
        if found >= 0:
            return at - len(before) + found
        before = chunk[-len(_MAGIC) + 1 :]
        at += len(chunk)
    return None
