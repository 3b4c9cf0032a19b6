"""TIFF files: plain, ImageJ, OME, Micro-Manager stacks; one plane at a time."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import SourceError, did_you_mean
from pellucid.protocols import COLOURS, Stream
from pellucid.sources._stored import Grid, plane_spec
from pellucid.sources._tiff_facts import pixel_and_channels, z_step_um

__all__ = ["StoredTiff", "complaints"]

"""Length units of ImageJ and OME, in micrometres; inches are left out, since they mean a printer."""

RGB = 2
"""What a TIFF says of red, green and blue (PhotometricInterpretation)."""
BROKEN = (
    "page offset",
    "offset to page",
    "circular reference",
    "corrupted",
    "failed to reshape",
    "shape does not match page shape",
)
"""Of what tifffile says and goes on after: where these words stand, pages are missing."""


class StoredTiff:
    """One series of a TIFF file (see `pellucid.sources._stored.Stored`).

    Where the pixels lie in one uncompressed run, they are read from the file straight into the slot; else
    tifffile decodes page by page. Axes that a file does not name are taken as time. A colour picture is three channels,
    R, G and B, as in a recording.
    """

    def __init__(self, path: Path, dataset: str | int | None) -> None:
        import tifffile

        self._what = str(path)
        # tifffile meets damage in many places and with many types of exception.
        with complaints() as found:
            try:
                self._file = tifffile.TiffFile(path)
            except Exception as error:
                raise SourceError(f"{path} cannot be read as TIFF: {_line(error)}") from None
            try:
                if len(self._file.series) > 1 and found:  # what is left of one image may look like several
                    raise SourceError(f"{path} is damaged or cut short: {_line(found[0])}")
                self._series = self._choose(dataset)
                self._open()
                if found:
                    raise SourceError(f"{path} is damaged or cut short: {_line(found[0])}")
            except (SourceError, KeyboardInterrupt):
                self._file.close()
                raise
            except Exception as error:
                self._file.close()
                raise SourceError(f"{path} is damaged: {_line(error)}") from None

    def _choose(self, dataset: str | int | None) -> Any:
        """Return the series that was asked for, or the only one."""
        series = self._file.series
        if not series:
            raise SourceError(f"{self._what} holds no image")
        names = [one.name for one in series]
        if dataset is None and len(series) > 1:
            held = [_told(i, one) for i, one in enumerate(series[:8])]
            raise SourceError(
                f"{self._what} holds several images: {', '.join(held)}{' ...' if len(series) > 8 else ''}. "
                "Say which one: dataset = 0"
            )
        if isinstance(dataset, str) and dataset in names:
            return series[names.index(dataset)]
        number = 0 if dataset is None else dataset
        if isinstance(number, str):
            hint = did_you_mean(number, names)
            raise SourceError(f'{self._what} has no series "{number}".{hint} Its series: {", ".join(names)}')
        if not 0 <= number < len(series):
            raise SourceError(f"{self._what} has no series {number}: it has {len(series)}, counted from 0")
        return series[number]

    def _open(self) -> None:
        series, what = self._series, self._what
        axes, shape = series.axes, series.shape
        keyframe = series.keyframe
        self._samples_at = axes.find("S")
        coloured = self._samples_at >= 0
        if coloured:
            if "C" in axes or shape[self._samples_at] not in (3, 4) or int(keyframe.photometric) != RGB:
                raise SourceError(
                    f"{what} is a picture of several samples a pixel ({axes} {shape}); grey planes are replayed, and"
                    " red, green and blue. If these are planes, save them as such: in Python with"
                    " tifffile.imwrite(..., photometric='minisblack')"
                )
            shape = shape[: self._samples_at] + shape[self._samples_at + 1 :]
            axes = axes.replace("S", "")
        elif int(keyframe.photometric) == RGB:
            raise SourceError(f"{what} is a colour picture without an axis of colours ({axes} {shape})")
        if axes[-2:] != "YX":
            raise SourceError(f"{what} has the axes {axes}; planes (YX) must come last")
        self.spec = plane_spec(shape[-2:], series.dtype, what)
        names, sizes = _name_axes(axes[:-2], shape[:-2])
        if coloured:
            names, sizes = [*names, "c"], [*sizes, len(COLOURS)]
        self._grid = Grid(names, sizes)
        self.count = self._grid.count
        self._plane_bytes = math.prod(shape[-2:]) * series.dtype.itemsize
        self._find_pixels()
        at = self._file.series.index(series)
        pixel_um, channels = pixel_and_channels(self._file, at)
        channels = list(COLOURS) if coloured else channels
        z_um = z_step_um(self._file, at) if "z" in names else None
        several = self._grid.channels > 1
        self.streams = tuple(
            Stream(
                spec=self.spec,
                camera=Path(what).stem,
                channel="".join(channels[i : i + 1]) or (f"channel{i}" if several else "channel"),
                index=i,
                pixel_um=pixel_um,
                z_um=z_um,
                bit_depth=8 * np.dtype(self.spec.dtype).itemsize if self.spec.dtype == "uint8" else None,
                frames=self.count // self._grid.channels,
                details={"file": what, "format": f"TIFF ({series.kind})", "stored_dtype": str(series.dtype)},
            )
            for i in range(self._grid.channels)
        )

    def _find_pixels(self) -> None:
        """Decide how planes are read, and make sure that the last one is in the file."""
        series = self._series
        size = self._file.filehandle.size
        coloured = self._samples_at >= 0
        self._offset: int | None = None if coloured else series.dataoffset
        self._page_at, self._page = -1, np.empty(0)
        if self._offset is not None:
            there = max(0, size - self._offset) // self._plane_bytes
            if there < self.count:
                raise SourceError(f"{self._what} is cut short: {there} of {self.count} planes are there")
            order = self._file.byteorder
            native = order == ("<" if sys.byteorder == "little" else ">") or series.dtype.itemsize == 1
            self._direct = native and series.dtype.name == self.spec.dtype
            self._scratch = np.empty(self.spec.shape, series.dtype.newbyteorder(order))
            return
        len(self._file.pages)  # goes through all pages, and complains where their chain is broken
        samples = len(COLOURS) if coloured else 1
        self._per_page = math.prod(series.keyframe.shape[: -3 if coloured else -2]) * samples
        if len(series.pages) * self._per_page < self.count:
            raise SourceError(f"{self._what} is cut short: {len(series.pages)} pages for {self.count} planes")
        for page in (series.pages[0], series.pages[len(series.pages) - 1]):
            # A series over several files has its pages elsewhere: they are found out when they are read.
            if page is not None and page.parent is self._file and page.dataoffsets:
                ends = max(a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True))
                if ends > size:
                    raise SourceError(f"{self._what} is cut short: {size} bytes, the pixels need {ends}")

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        """Return stream and axes of frame `at`."""
        return self._grid.locate(at)

    def read(self, at: int, plane: np.ndarray[Any, Any]) -> None:
        """Copy frame `at` into `plane`."""
        number = self._grid.stored(self._grid.locate(at)[1])
        try:
            if self._offset is not None:
                into = plane if self._direct and plane.flags.c_contiguous else self._scratch
                handle: Any = self._file.filehandle
                handle.seek(self._offset + number * self._plane_bytes)
                got = handle.readinto(into.reshape(-1).view(np.uint8))
                if got != self._plane_bytes:
                    raise ValueError(f"{got} of {self._plane_bytes} bytes")
            else:
                page, within = divmod(number, self._per_page)
                if page != self._page_at:
                    self._page = self._planes_of(self._series.pages[page].asarray())
                    self._page_at = page
                into = self._page[within]
        except Exception as error:
            raise SourceError(f"{self._what}: plane {number} cannot be read: {_line(error)}") from None
        if into is not plane:
            np.copyto(plane, into, casting="same_kind")

    def _planes_of(self, page: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the planes of a page one after the other; of a colour picture red, green, blue, without alpha."""
        if self._samples_at < 0:
            return page.reshape(-1, *self.spec.shape)
        last = page.shape[-1] in (3, 4) and page.shape[-3:-1] == self.spec.shape
        page = np.moveaxis(page, -1, -3) if last else page
        return page[..., : len(COLOURS), :, :].reshape(-1, *self.spec.shape)

    def close(self) -> None:
        """Close the file."""
        self._page = np.empty(0)
        self._file.close()


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect what tifffile logs of missing pages; it plays what is left, which would look like a whole file."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if any(words in text for words in BROKEN):
                found.append(text)

    logger, collect = logging.getLogger("tifffile"), Collect(logging.ERROR)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(collect)
    try:
        yield found
    finally:
        logger.removeHandler(collect)
        logger.propagate = propagates


def _name_axes(axes: str, shape: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return names among ``t p z c`` and sizes; what a file does not name is time, folded into one axis."""
    known = {"T": "t", "Z": "z", "C": "c", "P": "p", "R": "p"}
    names: list[str] = []
    sizes: list[int] = []
    for axis, size in zip(axes, shape, strict=True):
        name = known.get(axis, "t")
        if name in names:
            if names[-1] != name:
                raise SourceError(f"axes {axes}: which of them is time? Name them in the file (TZCYX)")
            sizes[-1] *= size
        else:
            names.append(name)
            sizes.append(size)
    return names, sizes


def _told(number: int, series: Any) -> str:
    name = f' "{series.name}"' if series.name else ""
    return f"{number}{name} ({series.axes} {'x'.join(map(str, series.shape))})"


def _line(error: BaseException | str) -> str:
    return " ".join(str(error).split()) or type(error).__name__
