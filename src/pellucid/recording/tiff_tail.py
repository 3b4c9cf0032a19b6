"""The directories of a TIFF whose planes are written already, as bytes: a classic TIFF, or a BigTIFF.

A classic TIFF reaches 4 GiB and is read by everything; a BigTIFF has no such end, and programs such as ImageJ without
Bio-Formats do not know it. Which one a file is stands in its header, which is written last, so it is chosen last.

Facts are those of TIFF 6.0, of its extension to 64 bits, and of the table of compression schemes that libtiff keeps.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from pellucid.recording.image import Plan

__all__ = ["EMPTY", "PAGE", "header", "is_big", "tail"]

PAGE = 4096
"""Planes begin at whole pages: they can be mapped into memory, and what a commit has covered is not touched again."""

EMPTY = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0)
"""A header without a directory yet: no reader mistakes it for a picture."""

_ASCII, _SHORT, _LONG, _RATIONAL, _LONG8 = 2, 3, 4, 5, 16
_STRIP, _STRIP_BYTES = 273, 279
_FORMATS = {"u": 1, "i": 2, "f": 3}
_COMPRESSIONS = {"none": 1, "zstd": 50000}
_CLASSIC_END = 1 << 32


def is_big(length: int, planes: int, text: bytes) -> bool:
    """Tell whether a file of so many bytes needs a BigTIFF, once directories and text come after them."""
    return length + planes * 256 + len(text) + 2 * PAGE >= _CLASSIC_END


def header(first: int, big: bool) -> bytes:
    """Return a header that points to the first directory; 16 bytes."""
    if big:
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first)
    return struct.pack("<2sHIQ", b"II", 42, first, 0)


def tail(plan: Plan, strips: NDArray[np.int64], text: bytes, at: int, big: bool) -> tuple[bytes, int]:
    """Return what ends a file, and where in the file its first directory is.

    Parameters
    ----------
    plan
    strips
        (planes, 2): offset and count of the bytes of each plane, in the order of the directories.
    text
        OME-XML; the first directory has it.
    at
        Where in the file this will lie; even.
    big
        Whether it becomes a BigTIFF.
    """
    software = f"pellucid {plan.facts.get('version', '')}".encode() + b"\0"
    per_cm = round(1e7 / plan.pixel_um) if plan.pixel_um else 0
    known = 0 < per_cm < 1 << 32
    resolution = struct.pack("<II", per_cm if known else 1, 1000 if known else 1)
    shared = resolution + software + text + b"\0"
    shared += bytes(-len(shared) % 16)
    software_at = at + len(resolution)
    text_at = software_at + len(software)
    rational = struct.unpack("<Q", resolution)[0] if big else at  # a BigTIFF has room for it in the entry
    long = _LONG8 if big else _LONG
    kind = np.dtype(plan.dtype)
    tags = [
        (254, _LONG, 1, 0),
        (256, _LONG, 1, plan.size[1]),
        (257, _LONG, 1, plan.size[0]),
        (258, _SHORT, 1, kind.itemsize * 8),
        (259, _SHORT, 1, _COMPRESSIONS[plan.compression]),
        (262, _SHORT, 1, 1),
        (_STRIP, long, 1, 0),
        (277, _SHORT, 1, 1),
        (278, _LONG, 1, plan.size[0]),
        (_STRIP_BYTES, long, 1, 0),
        (282, _RATIONAL, 1, rational),
        (283, _RATIONAL, 1, rational),
        (296, _SHORT, 1, 3 if known else 1),
        (339, _SHORT, 1, _FORMATS[kind.kind]),
    ]
    told = [(270, _ASCII, len(text) + 1, text_at), (305, _ASCII, len(software), software_at)]
    begin = at + len(shared)
    one = _directories(sorted([*tags, *told]), strips[:1], begin, big, ends=len(strips) == 1)
    rest = _directories(tags, strips[1:], begin + len(one), big, ends=True)
    return shared + one + rest, begin


def _directories(
    tags: list[tuple[int, int, int, int]], strips: NDArray[np.int64], at: int, big: bool, *, ends: bool
) -> bytes:
    """Return directories that differ in their strip alone, one after the other."""
    number, head = ("<u8", "<u8") if big else ("<u4", "<u2")
    entry = np.dtype([("tag", "<u2"), ("type", "<u2"), ("count", number), ("value", number)])
    directory = np.dtype([("count", head), ("entries", entry, (len(tags),)), ("next", number)])
    table = np.zeros(len(strips), directory)
    table["count"] = len(tags)
    for i, (tag, kind, count, value) in enumerate(tags):
        column = table["entries"][:, i]
        column["tag"], column["type"], column["count"], column["value"] = tag, kind, count, value
        if tag in (_STRIP, _STRIP_BYTES):
            column["value"] = strips[:, int(tag == _STRIP_BYTES)]
    table["next"] = at + directory.itemsize * np.arange(1, len(strips) + 1, dtype=np.int64)
    if ends and len(strips):
        table["next"][-1] = 0
    return table.tobytes()
