"""A few frames of a recording, raw and restored, read as other programs do and held against their checksums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import PellucidError, SinkError
from pellucid.protocols import RAW, RESTORED
from pellucid.recording.contents import Contents
from pellucid.recording.image import At
from pellucid.recording.journal import checksum
from pellucid.recording.opened import Opened, open_image
from pellucid.report_page.tally import Tally
from pellucid.report_page.unfinished import Unfinished

__all__ = ["Pair", "pairs"]

_OF_A_STREAM, _ALL = 3, 6
_TRIES = 12

Picture = NDArray[Any]


@dataclass
class Pair:
    """One frame.

    Parameters
    ----------
    row
        Of ``frames.jsonl``.
    raw, restored
        ``(y, x)``, or ``(y, x, 3)`` of a colour picture; of a stack the brightest along z. `restored` is None where
        the frame has none.
    plane
        Name of the restored plane.
    pixel_um
        Of raw and restored; None where unknown.
    slices
        Of a stack.
    """

    row: dict[str, Any]
    raw: Picture
    restored: Picture | None
    plane: str
    pixel_um: tuple[float | None, float | None]
    slices: int


def pairs(contents: Contents, tally: Tally) -> tuple[dict[int, list[Pair]], list[str]]:
    """Read the first, the middle and the last frame of each stream, as far as they are there.

    Returns
    -------
    dict of int to list of Pair
        By stream.
    list of str
        What is to be said of those that could not be read.
    """
    images = _Images(contents)
    if not contents.ended:
        rows = [row for stream in tally.streams.values() for row in (*stream.both.rows, *stream.raw.rows)]
        try:
            images.unfinished = Unfinished(contents, _places(contents, rows))
        except SinkError as error:
            return {}, [f"no picture {error}"]
    out: dict[int, list[Pair]] = {}
    remarks: list[str] = []
    try:
        for index, stream in sorted(tally.streams.items()):
            if index < 0 or sum(map(len, out.values())) >= _ALL:
                continue
            found, faults = images.some(stream.both.rows or stream.raw.rows)
            if found:
                out[index] = found
            remarks += faults
    finally:
        images.close()
    return out, list(dict.fromkeys(remarks))[:5]


def _places(contents: Contents, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, At]]:
    """Yield where all planes of frames are."""
    for row in rows:
        for name in contents.images(row).values():
            for at in contents.places(row, name):
                yield name, at


class _Images:
    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._open: dict[str, Opened] = {}
        self.unfinished: Unfinished | None = None

    def some(self, rows: Sequence[dict[str, Any]]) -> tuple[list[Pair], list[str]]:
        """Return up to three frames, and what was wrong with those that were tried in their place."""
        found: dict[int, Pair] = {}
        faults: list[str] = []
        tries = 0
        for wanted in range(min(_OF_A_STREAM, len(rows))):
            for at in _from(wanted, min(_OF_A_STREAM, len(rows)), len(rows)):
                if at in found:
                    continue
                if (tries := tries + 1) > _TRIES:
                    break
                try:
                    found[at] = self._pair(rows[at])
                    break
                except PellucidError as error:
                    faults.append(f"the picture of frame {rows[at]['seq']} {error}")
        return [found[at] for at in sorted(found)], faults

    def _pair(self, row: dict[str, Any]) -> Pair:
        names = self._contents.images(row)
        if RAW not in names:
            raise PellucidError("is in a part that recording.json does not know yet")
        plane = RESTORED if RESTORED in names else next((n for n in reversed(list(names)) if n != RAW), "")
        there = plane in row["xxh3"]
        plans = [self._contents.plans[names[name]] for name in (RAW, plane) if name in names]
        return Pair(
            row,
            self._read(row, RAW, names[RAW]),
            self._read(row, plane, names[plane]) if there else None,
            plane,
            (plans[0].pixel_um, plans[-1].pixel_um),
            len(self._contents.places(row, names[RAW])) if not plans[0].is_colour else 1,
        )

    def _read(self, row: dict[str, Any], plane: str, name: str) -> Picture:
        """Read a plane and compare it with its checksum."""
        plan = self._contents.plans[name]
        if name not in self._open and self.unfinished is None:
            self._open[name] = open_image(self._contents.folder, plan, self._contents.about.file_format)
        total = row["xxh3"][plane]
        sums = [total] if isinstance(total, str) else list(total)
        out: list[Picture] = []
        brightest: Picture | None = None
        for at, told in zip(self._contents.places(row, name), sums, strict=False):
            pixels = self._open[name].read(at) if self.unfinished is None else self.unfinished.read(name, at)
            if f"{checksum(pixels):016x}" != told:
                raise PellucidError(f"({plane}) is not what arrived: its checksum differs")
            if plan.is_colour:
                out.append(pixels)
            else:
                brightest = pixels if brightest is None else np.maximum(brightest, pixels)
        if brightest is not None:
            return brightest
        if len(out) != 3:
            raise PellucidError(f"({plane}) lacks a colour")
        return np.stack(out, -1)

    def close(self) -> None:
        for image in self._open.values():
            image.close()


def _from(wanted: int, of: int, count: int) -> Iterator[int]:
    """Yield the place of one of `of` frames among `count`, and those near it, going to the middle."""
    first = round(wanted * (count - 1) / max(of - 1, 1))
    step = -1 if first > count // 2 else 1
    yield from range(first, count if step > 0 else -1, step)
