"""OME-Zarr folders, version 0.4 (Zarr 2) and 0.5 (Zarr 3), and plain Zarr arrays.

The metadata is small JSON and is read here; the chunks are read by tensorstore, which keeps the last ones
decoded, so that chunks of many planes are not decoded once for each plane.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import SourceError, did_you_mean, require
from pellucid.protocols import Stream
from pellucid.sources._stored import Grid, plane_spec

__all__ = ["StoredZarr"]

CACHE_BYTES = 256 * 2**20
UNITS_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3}


class StoredZarr:
    """The finest level of one image (see `pellucid.sources._stored.Stored`)."""

    def __init__(self, path: Path, dataset: str | int | None) -> None:
        ts = require("tensorstore", "replay", f'source "replay" with the Zarr {path}')
        image = _choose(path, dataset)
        self._what = str(image)
        attributes = _ome(image)
        names, scale, z_um, folder = _levels(image, attributes)
        driver = "zarr3" if (folder / "zarr.json").is_file() else "zarr"
        store = {"driver": "file", "path": f"{folder}/"}
        spec = {"driver": driver, "kvstore": store, "recheck_cached_data": "open"}
        try:
            context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
            self._array: Any = ts.open(spec, context=context, open=True, read=True).result()
            dtype = np.dtype(self._array.dtype.numpy_dtype)
        except Exception as error:
            raise SourceError(f"{folder} cannot be read as Zarr: {_line(error)}") from None
        shape = tuple(self._array.shape)
        names = names or list("tczyx"[-len(shape) :])
        if len(names) != len(shape) or names[-2:] != ["y", "x"]:
            raise SourceError(f"{image} has the axes {','.join(names)} for the shape {shape}; y, x come last")
        strange = sorted(set(names[:-2]) - set(Grid.ORDER))
        if strange:
            raise SourceError(f"{image} has the axis {strange[0]}. Allowed: t, p, c, z, y, x")
        self._grid = Grid(names[:-2], shape[:-2])
        self.count = self._grid.count
        if self.count == 0:
            raise SourceError(f"{image} holds no image: its shape is {shape}")
        channels = [str(c.get("label") or "") for c in attributes.get("omero", {}).get("channels", [])]
        several = self._grid.channels > 1
        self.streams = tuple(
            Stream(
                spec=plane_spec(shape[-2:], dtype, self._what),
                camera=path.name.split(".")[0],
                channel="".join(channels[i : i + 1]) or (f"channel{i}" if several else "channel"),
                index=i,
                pixel_um=scale,
                z_um=z_um,
                frames=self.count // self._grid.channels,
                details={"file": self._what, "format": f"OME-Zarr ({driver})", "stored_dtype": str(dtype)},
            )
            for i in range(self._grid.channels)
        )

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        """Return stream and axes of frame `at`."""
        return self._grid.locate(at)

    def read(self, at: int, plane: np.ndarray[Any, Any]) -> None:
        """Copy frame `at` into `plane`; a chunk that was never written reads as its fill value."""
        axes = self._grid.locate(at)[1]
        try:
            image = self._array[tuple(axes[name] for name in self._grid.axes)].read().result()
        except Exception as error:
            raise SourceError(f"{self._what}: frame {at} ({axes}) cannot be read: {_line(error)}") from None
        np.copyto(plane, image, casting="same_kind")

    def close(self) -> None:
        """Let go of the array."""
        self._array = None


def _choose(path: Path, dataset: str | int | None) -> Path:
    """Return the folder of the image that was asked for, or of the only one."""
    if dataset is not None:
        image = path / str(dataset)
        if image.is_dir() and (_ome(image).get("multiscales") or _is_array(image)):
            return image
        names = [p.relative_to(path).as_posix() for p in _images(path)]
        hint = did_you_mean(str(dataset), names)
        raise SourceError(f'{path} has no image "{dataset}".{hint} Its images: {", ".join(names) or "none"}')
    if _ome(path).get("multiscales") or _is_array(path):
        return path
    images = list(_images(path))
    if not images:
        raise SourceError(f"{path} holds no image: no multiscales in its metadata or in a folder below")
    if len(images) > 1:
        names = [p.relative_to(path).as_posix() for p in images[:8]]
        raise SourceError(
            f"{path} holds several images: {', '.join(names)}{' ...' if len(images) > 8 else ''}. "
            f'Say which one: dataset = "{names[0]}"'
        )
    return images[0]


def _images(path: Path, depth: int = 3) -> Iterator[Path]:
    """Find images below: positions of a series, wells of a plate."""
    for child in sorted(p for p in path.iterdir() if p.is_dir()):
        if _ome(child).get("multiscales"):
            yield child
        elif depth > 1 and not _is_array(child):
            yield from _images(child, depth - 1)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} is damaged: {_line(error)}") from None
    return found if isinstance(found, dict) else {}


def _is_array(folder: Path) -> bool:
    return (folder / ".zarray").is_file() or _json(folder / "zarr.json").get("node_type") == "array"


def _ome(folder: Path) -> dict[str, Any]:
    """Return the OME attributes of a group, of either version."""
    attributes = _json(folder / "zarr.json").get("attributes") or {}
    ome = attributes.get("ome", attributes) if isinstance(attributes, dict) else None
    if not isinstance(ome, dict):
        raise SourceError(f"{folder / 'zarr.json'} is damaged: its attributes are no table")
    return ome or _json(folder / ".zattrs")


def _levels(image: Path, attributes: dict[str, Any]) -> tuple[list[str], float | None, float | None, Path]:
    """Return names of the axes (none for a plain array), pixel size and z step in um, folder of the finest level."""
    if not attributes.get("multiscales"):
        return [], None, None, image
    try:
        scales = attributes["multiscales"][0]
        axes = [a if isinstance(a, dict) else {"name": a} for a in scales.get("axes", [])]
        level = scales["datasets"][0]
        moves = level.get("coordinateTransformations", [])
        scale = next((move["scale"] for move in moves if move["type"] == "scale"), None)
        names = [str(a["name"]) for a in axes]
        pixel_um, z_um = (_um(axes, scale, names.index(n)) if n in names else None for n in "xz")
        return names, pixel_um, z_um, image / str(level["path"])
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise SourceError(f"{image} has damaged multiscales metadata: {error!r}") from None


def _um(axes: list[dict[str, Any]], scale: list[float] | None, at: int) -> float | None:
    unit = UNITS_UM.get(axes[at].get("unit", ""))
    return float(scale[at]) * unit if scale and unit else None


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:300] + " ..."
