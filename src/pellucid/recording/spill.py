"""Where frames wait that neither slots nor memory have room for: a file on another disk, written and read in order.

Each piece tells what it is, so that recovery finds those that were still waiting when something died: 8 bytes of
magic, the length of a JSON text and of the pixels (two little-endian 64-bit numbers), the text, the pixels.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.recording.disk import Disk

__all__ = ["Spill", "read_spill"]

_MAGIC = b"pell\x01spl"
_HEAD = struct.Struct("<8sQQ")


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
        text = json.dumps(about, separators=(",", ":")).encode()
        nbytes = sum(plane.nbytes for plane in planes)
        if not self.waiting and self._file.length and self._safe == self._done:
            self._begin_again()
        if self._file.length + _HEAD.size + len(text) + nbytes > self._limit:
            return None
        at = self._file.append([_HEAD.pack(_MAGIC, len(text), nbytes), text, *planes])
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


def read_spill(path: Path) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    """Yield what a piece tells, and its bytes, of every piece that is whole.

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
            magic, text, nbytes = _HEAD.unpack(file.read(_HEAD.size))
            at += _HEAD.size + text + nbytes
            if magic != _MAGIC or at > size:
                return
            try:
                about = json.loads(file.read(text))
            except ValueError:
                return
            yield about, np.frombuffer(file.read(nbytes), np.uint8)
