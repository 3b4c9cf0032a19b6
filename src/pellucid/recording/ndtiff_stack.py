"""One file of an NDTiff, laid out by ndstorage as parts in memory: what is written, where and when is decided here."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ndstorage.ndtiff_file import SingleNDTiffWriter
from ndstorage.ndtiff_index import NDTiffIndexEntry
from numpy.typing import NDArray

__all__ = ["Layout"]

_BITS_TAG = 258
_SHOWN_BITS = (10, 11, 12, 14, 16)
_BIT_DEPTHS = {
    8: NDTiffIndexEntry.EIGHT_BIT,
    10: NDTiffIndexEntry.TEN_BIT,
    11: NDTiffIndexEntry.ELEVEN_BIT,
    12: NDTiffIndexEntry.TWELVE_BIT,
    14: NDTiffIndexEntry.FOURTEEN_BIT,
    16: NDTiffIndexEntry.SIXTEEN_BIT,
}


class Layout(SingleNDTiffWriter):  # type: ignore[misc]
    """ndstorage's writer of one file, without a file.

    Parameters
    ----------
    size
        (y, x) of a plane.
    dtype
        ``"uint8"`` or ``"uint16"``.
    bit_depth
        Of the camera, for displays; None where unknown.
    pixel_um
        None where unknown.
    """

    def __init__(self, size: tuple[int, int], dtype: str, bit_depth: int | None, pixel_um: float | None) -> None:
        # That of ndstorage would make a file, 4 GB large, and open it twice.
        self._size, self._dtype = size, np.dtype(dtype)
        self._stored_bits = self._dtype.itemsize * 8
        self._shown_bits = bit_depth if bit_depth in _SHOWN_BITS and self._stored_bits == 16 else self._stored_bits
        self._room = 0
        per_cm = round(1e7 / pixel_um) if pixel_um else 0
        known = 0 < per_cm < 1 << 32
        self.res_numerator, self.res_denominator = (per_cm, 1000) if known else (1, 1)
        self.filename = ""
        self.index_map: dict[Any, Any] = {}
        self.next_ifd_offset_location = -1
        self.buffers: deque[Any] = deque()
        self.first_ifd = True
        self.file: Any = None

    def header(self, summary: Mapping[str, Any], room: int) -> bytes:
        """Return what a file begins with: `summary` in `room` bytes, an even number."""
        self._room = room
        self.file = _Parts(0)
        self._write_mm_header_and_summary_md(summary)
        data: bytes = self.file.joined()
        return data

    def _get_bytes_from_string(self, s: str) -> bytes:
        return s.encode().ljust(self._room)

    def image(
        self, file: str, at: int, axes: Sequence[tuple[str, int]], plane: NDArray[Any], metadata: bytes
    ) -> tuple[list[Any], bytes, int]:
        """Hot: return the parts to write at `at`, the row of the index, and where the pixels will be."""
        self.filename, self.file = file, _Parts(at)
        entry = self.write_image(tuple(axes), plane, metadata, self._shown_bits)
        self.index_map.clear()  # it would keep a row of each plane
        parts, self.file = self.file.parts, None
        return parts, entry.as_byte_buffer().getvalue(), entry.pix_offset

    def head(self, at: int, metadata: bytes) -> bytes:
        """Return the directory that lies at `at` before a plane and its metadata."""
        empty = np.broadcast_to(np.zeros((), self._dtype), self._size)
        self.file = _Parts(at)
        self._write_ifd((), empty, metadata, False, *self._size, self._shown_bits)
        data = bytes(self.buffers[0])
        self.buffers.clear()
        return data

    def row(self, file: str, axes: Sequence[tuple[str, int]], offset: int, metadata_at: int, count: int) -> bytes:
        """Return the row of the index of a plane that is there."""
        height, width = self._size
        kind = _BIT_DEPTHS[self._shown_bits]
        entry = NDTiffIndexEntry(tuple(axes), kind, offset, width, height, metadata_at, count, file)
        data: bytes = entry.as_byte_buffer().getvalue()
        return data

    def fits(self, length: int, plane: NDArray[Any], metadata: bytes) -> bool:
        """Tell whether another plane fits into a file of `length` bytes."""
        self.file = _Parts(length)
        return bool(self.has_space_to_write(plane, metadata))

    def _write_ifd_entry(
        self, buffer: bytearray, tag: int, dtype: int, count: int, value: int, buffer_position: int
    ) -> int:
        # ndstorage 0.1.18 says of every array that it has 16 bits.
        value = self._stored_bits if tag == _BITS_TAG else value
        count_of_bytes: int = super()._write_ifd_entry(buffer, tag, dtype, count, value, buffer_position)
        return count_of_bytes


class _Parts:
    """What ndstorage takes for a file: keeps what is written to it, from `at` on."""

    def __init__(self, at: int) -> None:
        self.parts: list[Any] = []
        self._at = at

    def tell(self) -> int:
        return self._at

    def seek(self, at: int) -> None:
        if at < self._at:
            raise io.UnsupportedOperation("it is written from its beginning on")
        self.write(bytes(at - self._at))

    def write(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        if view:
            self.parts.append(view)
            self._at += view.nbytes

    def flush(self) -> None:
        """Nothing waits here."""

    def joined(self) -> bytes:
        return b"".join(self.parts)
