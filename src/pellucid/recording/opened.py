"""The images of a recording as other programs see them: through zarr-python, tifffile and ndstorage.

Nothing of what wrote them is used here, so what is read is what any reader of the format gets.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError, require
from pellucid.recording.image import At, Plan

__all__ = ["Opened", "open_image", "shown_name"]

_ENDINGS = {"ome-zarr": ".ome.zarr", "ome-tiff": ".ome.tif", "ndtiff": ".ndtiff"}


class Opened(Protocol):
    """An image that is open for reading.

    Attributes
    ----------
    reader : str
        With its version.
    """

    reader: str

    def found(self) -> list[tuple[tuple[int, ...] | None, str]]:
        """Return for each position its shape along t, c, (z,) y, x and its type; None for one that is not told."""

    def pixel_um(self) -> list[float]:
        """Return the size of a pixel in micrometres, for each position that tells one."""

    def read(self, at: At) -> NDArray[Any]:
        """Return a (y, x) plane; raises SinkError where it is not there or cannot be read."""

    def close(self) -> None:
        """Close the files; safe more than once."""


def shown_name(plan: Plan, file_format: str) -> str:
    """Return the name of an image's folder or file, relative to the recording."""
    return plan.name + _ENDINGS[file_format]


def open_image(folder: Path, plan: Plan, file_format: str) -> Opened:
    """Open an image of a recording.

    Raises
    ------
    SinkError
        One line: what its reader says.
    """
    path = folder / shown_name(plan, file_format)
    kinds: dict[str, Callable[[Path, Plan], Opened]] = {"ome-zarr": _Zarr, "ome-tiff": _Tiff, "ndtiff": _NDTiff}
    try:
        if not path.exists():
            raise FileNotFoundError("it does not exist")
        return kinds[file_format](path, plan)
    except SinkError:
        raise
    except Exception as error:  # readers meet damage in many places and with many types of exception
        raise SinkError(f"cannot be opened: {_line(error)}") from None


class _Zarr:
    def __init__(self, path: Path, plan: Plan) -> None:
        zarr = require("zarr", "replay", f"the OME-Zarr {path}")
        self.reader = f"zarr-python {version('zarr')}"
        groups = [path / name for name in plan.positions] or [path]
        self._arrays: list[Any] = [zarr.open_array(str(group / "0"), mode="r") for group in groups]
        self._facts = [dict(zarr.open_group(str(group), mode="r").attrs) for group in groups]

    def found(self) -> list[tuple[tuple[int, ...] | None, str]]:
        return [(tuple(array.shape), str(array.dtype)) for array in self._arrays]

    def pixel_um(self) -> list[float]:
        out = []
        for facts in self._facts:
            image = facts["ome"]["multiscales"][0]
            if image["axes"][-1].get("unit") == "micrometer":
                out.append(float(image["datasets"][0]["coordinateTransformations"][0]["scale"][-1]))
        return out

    def read(self, at: At) -> NDArray[Any]:
        try:
            array = self._arrays[at.p]
            if at.t >= array.shape[0]:
                raise IndexError(f"it ends at t = {array.shape[0] - 1}")
            plane: NDArray[Any] = array[(at.t, at.c, at.z) if array.ndim == 5 else (at.t, at.c)]
        except Exception as error:
            raise SinkError(f"cannot be read: {_line(error)}") from None
        return plane

    def close(self) -> None:
        self._arrays = []


class _Tiff:
    def __init__(self, path: Path, plan: Plan) -> None:
        import tifffile

        self.reader = f"tifffile {version('tifffile')}"
        said = _Said()
        with _complaints(said):
            self._file: Any = tifffile.TiffFile(path)
        try:
            said.raise_first()
            with _complaints():
                self._series = list(self._file.series)
                self._axes = [series.get_axes(squeeze=False) for series in self._series]
                self._shapes = [series.get_shape(squeeze=False) for series in self._series]
        except BaseException:
            self._file.close()
            raise
        self._depth = plan.depth

    def found(self) -> list[tuple[tuple[int, ...] | None, str]]:
        out: list[tuple[tuple[int, ...] | None, str]] = []
        for axes, shape, series in zip(self._axes, self._shapes, self._series, strict=True):
            sizes = dict(zip(axes, shape, strict=True))
            wanted = "TCYX" if self._depth is None else "TCZYX"
            out.append((tuple(sizes.get(axis, 1) for axis in wanted), series.dtype.name))
        return out

    def pixel_um(self) -> list[float]:
        text = self._file.ome_metadata
        pixels = ElementTree.fromstring(text).iter() if text else ()
        told = [each.attrib for each in pixels if each.tag.endswith("}Pixels")]
        units = {"PhysicalSizeXUnit": "µm"}
        return [
            float(one["PhysicalSizeX"])
            for one in told
            if "PhysicalSizeX" in one and (units | one)["PhysicalSizeXUnit"] == "µm"
        ]

    def read(self, at: At) -> NDArray[Any]:
        try:
            axes, shape = self._axes[at.p], self._shapes[at.p]
            place = {"T": at.t, "C": at.c, "Z": at.z}
            number = 0
            for axis, size in zip(axes, shape, strict=True):
                if axis in "YXS":
                    continue
                if place.get(axis, 0) >= size:
                    raise IndexError(f"it ends at {axis.lower()} = {size - 1}")
                number = number * size + place.get(axis, 0)
            with _complaints():
                page = self._series[at.p].pages[number]
                if page is None:
                    raise IndexError("it has no such page")
                plane: NDArray[Any] = page.asarray()
        except Exception as error:
            raise SinkError(f"cannot be read: {_line(error)}") from None
        return plane

    def close(self) -> None:
        self._file.close()


class _NDTiff:
    def __init__(self, path: Path, plan: Plan) -> None:
        ndstorage = require("ndstorage", "replay", f"the NDTiff {path}")
        self.reader = f"ndstorage {version('ndstorage')}"
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
            self._data: Any = ndstorage.NDTiffDataset(str(path))
        self._plan = plan
        self._keys: dict[At, dict[str, Any]] = {}
        for key in self._data.index:
            axes = dict(key)
            self._keys[self._at(axes)] = axes

    def _at(self, axes: dict[str, Any]) -> At:
        channel, position = axes.get("channel", 0), axes.get("position", 0)
        c = self._plan.channels.index(channel) if isinstance(channel, str) else channel
        p = self._plan.positions.index(position) if isinstance(position, str) else position
        return At(p, axes.get("time", 0), c, axes.get("z", 0))

    def found(self) -> list[tuple[tuple[int, ...] | None, str]]:
        """Return no shape: what is there is what its index names."""
        return [(None, self._plan.dtype)] * max(len(self._plan.positions), 1)

    def pixel_um(self) -> list[float]:
        um = (self._data.summary_metadata or {}).get("PixelSize_um")
        return [] if um is None else [float(um)]

    def read(self, at: At) -> NDArray[Any]:
        if at not in self._keys:
            raise SinkError("is not there: its index has no such picture")
        try:
            plane: NDArray[Any] = self._data.read_image(**self._keys[at])
            self._data.read_metadata(**self._keys[at])
        except Exception as error:
            raise SinkError(f"cannot be read: {_line(error)}") from None
        return np.asarray(plane)

    def close(self) -> None:
        self._data.close()


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def raise_first(self) -> None:
        if self.lines:
            raise ValueError(self.lines[0])


@contextlib.contextmanager
def _complaints(keep: _Said | None = None) -> Iterator[None]:
    """Raise, or `keep`, what tifffile only logs: it goes on with what it can make of a damaged file."""
    logger, said = logging.getLogger("tifffile"), keep or _Said()
    logger.addHandler(said)
    try:
        yield
    finally:
        logger.removeHandler(said)
    if keep is None:
        said.raise_first()


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:200] + " ..."
