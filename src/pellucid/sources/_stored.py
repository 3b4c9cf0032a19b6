"""What a file of frames looks like to a replay, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pellucid.errors import SourceError
from pellucid.protocols import Spec, Stream

__all__ = ["DTYPES", "Grid", "Stored", "open_stored", "plane_spec"]

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Types that are read; float64 becomes float32, big-endian numbers become native ones."""


class Stored(Protocol):
    """An open file.

    Attributes
    ----------
    streams : tuple of Stream
        One for each channel, in order.
    count : int
        Frames of all streams together.
    """

    streams: tuple[Stream, ...]
    count: int

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        """Return stream and axes (of ``t``, ``p``, ``z``, ``c``) of frame `at`."""

    def read(self, at: int, plane: np.ndarray[Any, Any]) -> None:
        """Copy frame `at` into `plane`; raises SourceError when the file cannot give it."""

    def close(self) -> None:
        """Close the file."""


class Grid:
    """Frames in the order of an experiment: time outermost, then position, depth, channel.

    Parameters
    ----------
    axes
        Names as stored, outermost first; any of ``t p z c``.
    sizes
        Of each axis.
    """

    ORDER = "tpzc"

    def __init__(self, axes: Sequence[str], sizes: Sequence[int]) -> None:
        self.axes = tuple(axes)
        self.sizes = tuple(sizes)
        by_name = dict(zip(self.axes, self.sizes, strict=True))
        self._walk = [(name, by_name[name]) for name in self.ORDER if name in by_name]
        self.count = math.prod(self.sizes)
        self.channels = by_name.get("c", 1)

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        """Return stream and axes of frame `at` in the order of the experiment."""
        axes: dict[str, int] = {}
        for name, size in reversed(self._walk):
            at, axes[name] = divmod(at, size)
        return axes.get("c", 0), axes

    def stored(self, axes: Mapping[str, int]) -> int:
        """Return the number of a plane in the order in which the file holds them."""
        number = 0
        for name, size in zip(self.axes, self.sizes, strict=True):
            number = number * size + axes[name]
        return number


def plane_spec(shape: Sequence[int], dtype: np.dtype[Any] | str, what: str) -> Spec:
    """Return the Spec of planes that can be replayed.

    Raises
    ------
    SourceError
        Where their type cannot.
    """
    name = np.dtype(dtype).newbyteorder("=").name
    if name not in DTYPES:
        raise SourceError(f"{what} holds {name}, which cannot be replayed. Allowed: {', '.join(DTYPES)}")
    if min(shape) < 1:
        raise SourceError(f"{what} holds planes without pixels: {'x'.join(map(str, shape))}")
    return Spec(tuple(int(n) for n in shape), "float32" if name == "float64" else name)


def open_stored(path: Path, dataset: str | int | None, *, planes: bool = False) -> Stored:
    """Open a file or folder by what lies there.

    Parameters
    ----------
    path
        A TIFF; a PNG; a folder of such pictures; the folder of an OME-Zarr, an NDTiff, a recording of pellucid or a
        part of one.
    dataset
        Which of several images: number or name of a TIFF series, path within a Zarr.
    planes
        Of a recording give the colours of a picture as three streams; of all else they are.

    Raises
    ------
    SourceError
        Where nothing there can be replayed.
    """
    if path.is_file() and path.suffix.lower() in {".tif", ".tiff", ".btf", ".tf8", ".tf2"}:
        from pellucid.sources._tiff import StoredTiff

        return StoredTiff(path, dataset)
    if path.is_dir() and (path / "NDTiff.index").is_file():
        if dataset is not None:
            raise SourceError(f"{path} is one NDTiff dataset: leave out the key dataset, given {dataset!r}")
        from pellucid.sources._ndtiff import StoredNDTiff

        return StoredNDTiff(path)
    if path.is_dir():
        from pellucid.sources._recording import StoredRecording, recording_of

        if dataset is None and (found := recording_of(path)) is not None:
            return StoredRecording(*found, planes=planes)
        if (path / "journal").is_file():
            raise SourceError(
                f"{path} was not ended and has lost its recording.json, so nobody knows which planes are whole. "
                "To play what there is give one of its images, such as raw.ome.zarr in it"
            )
        if (path / "raw.ome.tif").is_file() or (path / "raw.ndtiff").is_dir():
            return open_stored(path / ("raw.ome.tif" if (path / "raw.ome.tif").is_file() else "raw.ndtiff"), dataset)
        if (path / "raw.ome.zarr").is_dir():
            path = path / "raw.ome.zarr"
        if any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs")):
            from pellucid.sources._omezarr import StoredZarr

            return StoredZarr(path, dataset)
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    from pellucid.sources._pictures import StoredPictures, pictures_in

    if files := pictures_in(path):
        if dataset is not None:
            raise SourceError(f"{path} is one series of pictures: leave out the key dataset, given {dataset!r}")
        return StoredPictures(path, files)
    raise SourceError(
        f"{path} is none of what can be replayed: a TIFF file (.tif, .tiff), a PNG, a folder of either, the folder of "
        "an OME-Zarr (zarr.json or .zattrs in it), of an NDTiff (NDTiff.index) or of a recording (raw.ome.zarr)"
    )
