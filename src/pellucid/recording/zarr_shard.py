"""A shard of Zarr 3 (``sharding_indexed``): planes one after the other, then where each begins and how long it is.

The index holds two little-endian unsigned 64-bit numbers for each place, offset and bytes, both 2**64 - 1 where there
is no plane, and ends with the CRC-32C of itself (Zarr enhancement proposal 2).
"""

from __future__ import annotations

import os
from pathlib import Path

import google_crc32c
import numpy as np

from pellucid.recording.disk import Growing

__all__ = ["Shard", "read_index"]

_ABSENT = 2**64 - 1
_CHECK_BYTES = 4


class Shard:
    """What a shard holds so far.

    Parameters
    ----------
    places
        For planes.

    Attributes
    ----------
    entries : dict of int to tuple
        Place -> offset and bytes.
    end : int
        Of the last plane, in bytes.
    file : Growing or None
        While it is open.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.entries: dict[int, tuple[int, int]] = {}
        self.end = 0
        self.file: Growing | None = None

    @property
    def full(self) -> bool:
        """Every place has its plane."""
        return len(self.entries) == self.places

    def add(self, inner: int, offset: int, nbytes: int) -> None:
        """Note a plane."""
        self.entries[inner] = (offset, nbytes)
        self.end = max(self.end, offset + nbytes)

    def index(self) -> bytes:
        """Return what the file ends with."""
        table = np.full((self.places, 2), _ABSENT, "<u8")
        for inner, entry in self.entries.items():
            table[inner] = entry
        data = table.tobytes()
        return data + int(google_crc32c.value(data)).to_bytes(_CHECK_BYTES, "little")

    def close(self) -> None:
        """Close its file."""
        if self.file is not None:
            self.file.close()
            self.file = None


def read_index(path: Path, places: int) -> dict[int, tuple[int, int]] | None:
    """Return the entries of a shard's index; None where it has none that is whole."""
    length = places * 16 + _CHECK_BYTES
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < length:
                return None
            file.seek(size - length)
            data = file.read(length)
    except OSError:
        return None
    if int(google_crc32c.value(data[:-_CHECK_BYTES])).to_bytes(_CHECK_BYTES, "little") != data[-_CHECK_BYTES:]:
        return None
    table = np.frombuffer(data[:-_CHECK_BYTES], "<u8").reshape(places, 2)
    return {i: (int(a), int(b)) for i, (a, b) in enumerate(table) if a != _ABSENT}
