"""A line for every plane that was written, as it was written: what recovery believes.

Each line begins with the CRC-32 of the rest, so that a line which was cut, or which a power cut filled with something
else, is told apart. Lines are JSON objects of four kinds::

    {"frame": {a row of frames.jsonl, as far as it was known then}}
    {"image": "raw", "at": [p, t, c, z], "in": [file, offset, bytes], "xxh3": "0123456789abcdef", "seq": 7, "part": 0}
    {"part": {a part of recording.json, as it begins}}
    {"commit": 31}        all lines before the 31st before this one were on the disk

The checksum is XXH3-64 of the pixels as they were taken, little-endian, before any compression.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Where
from pellucid.recording.schema import journal_line_of

__all__ = ["NAME", "Journal", "checksum", "frame_line", "plane_line", "read_journal"]

NAME = "journal"
"""Of the file, while a recording runs; a recording that was ended has none."""


def checksum(plane: NDArray[Any]) -> int:
    """Hot: return the XXH3-64 of a plane's pixels; it does not hold the interpreter's lock."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(plane).data)


def plane_line(image: str, at: At, where: Where, total: int, seq: int) -> dict[str, Any]:
    """Return what a journal says of a plane."""
    return {"image": image, "at": at, "in": where, "xxh3": f"{total:016x}", "seq": seq}


def frame_line(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a journal says of a frame."""
    return {"frame": row}


class Journal:
    """Writes the lines; safe from several threads.

    Parameters
    ----------
    path
        Of the file to make.
    disk
    again
        Go on with one that is there.

    Attributes
    ----------
    lines : int
        So far.
    """

    def __init__(self, path: Path, disk: Disk, *, again: bool = False) -> None:
        self._file = disk.grow(path, at=path.stat().st_size if again and path.exists() else None)
        self._lock = threading.Lock()
        self.lines = 0

    def add(self, *rows: dict[str, Any]) -> None:
        """Write lines, at once and together; raises OSError."""
        data = b"".join(map(_line, rows))
        with self._lock:
            self._file.append([data])
            self.lines += len(rows)

    def close(self) -> None:
        """Close the file; safe more than once."""
        with self._lock:
            self._file.close()


def read_journal(path: Path, damaged: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal that are whole; what is damaged is passed over.

    Parameters
    ----------
    path
    damaged
        Called for each line that is none. One at the end that was being written when the power went is not damage.

    Raises
    ------
    OSError
        Where the file cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            total, _, rest = line.partition(b" ")
            row = _row(rest) if rest.endswith(b"\n") and total == _sum(rest[:-1]) else None
            if row is not None:
                yield row
            elif line.endswith(b"\n"):
                damaged()


def _row(text: bytes) -> dict[str, Any] | None:
    """Return a line of a kind that is known; another version may have written one that is not."""
    try:
        row = json.loads(text)
        journal_line_of(text, next((kind for kind in ("frame", "image", "part", "commit") if kind in row), ""))
    except (ValueError, TypeError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _sum(data: bytes) -> bytes:
    return b"%08x" % zlib.crc32(data)


def _line(row: dict[str, Any]) -> bytes:
    data = json.dumps(row, separators=(",", ":")).encode()
    return b"%s %s\n" % (_sum(data), data)
