"""Files with pictures, as planes of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import ConfigError

__all__ = ["read_movie", "read_plane", "read_planes"]

Planes = np.ndarray[Any, Any]


def read_planes(path: Path) -> Planes:
    """Return all planes of a PNG or TIFF as float32 ``(n, y, x)``; colours are planes.

    Raises
    ------
    ConfigError
        One line: a file that cannot be read, NaN, or nothing but one grey value.
    """
    return _read(path)[0]


def read_plane(path: Path) -> Planes:
    """Return the first plane as float32 ``(y, x)``, of a colour picture the mean of its colours; see `read_planes`."""
    planes, colours, _ = _read(path)
    return np.asarray(planes.mean(0) if colours else planes[0])


def read_movie(path: Path) -> Planes:
    """Return the frames of a movie as float32 ``(t, y, x)``; see `read_planes`.

    Raises
    ------
    ConfigError
        Also where the file says that it has channels, planes or positions besides: they are no frames.
    """
    planes, _, axes = _read(path)
    beside = [axis for axis in axes if axis not in "YXTIQ"]
    if beside:
        raise ConfigError(f"{path}: has the axes {axes}; a movie of one channel and one plane is needed (TYX)")
    return planes


def _read(path: Path) -> tuple[Planes, bool, str]:
    """Return planes, whether they are the colours of one picture, and the axes longer than 1."""
    colours, axes = False, ""
    try:
        if path.suffix.lower() == ".png":
            from PIL import Image

            with Image.open(path) as picture:
                picture.load()
            # A palette's numbers are no brightness, and what is transparent is as bright as the rest.
            to = {"P": "RGB", "PA": "RGB", "LA": "L", "RGBA": "RGB", "1": "L"}.get(picture.mode)
            image = np.asarray(picture.convert(to) if to else picture)
            colours = image.ndim == 3
        else:
            import tifffile

            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                image = series.asarray()
                axes = "".join(a for a, n in zip(series.axes, series.shape, strict=True) if n > 1)
                colours = axes in ("YXS", "SYX")
        if image.ndim > 2 and image.shape[-1] in (3, 4) and image.shape[-1] < image.shape[0]:
            image = np.moveaxis(image[..., :3], -1, 0)
        if image.ndim < 2 or not image.size or image.dtype.kind not in "buif":
            raise ValueError(f"it holds {image.dtype} of shape {image.shape}")
        planes = np.ascontiguousarray(image.reshape(-1, *image.shape[-2:]), np.float32)
    except Exception as error:  # pictures are anybody's, and what readers raise is of all kinds
        told = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ConfigError(f"{path}: cannot be read as a picture: {told[0][:100]}") from None
    bad = int(planes.size - np.isfinite(planes).sum())
    if bad:
        raise ConfigError(f"{path}: {bad} of {planes.size} pixels are NaN or infinite. Leave it out, or mend it")
    if planes.min() == planes.max():
        raise ConfigError(f"{path}: is {planes.min():g} everywhere; there is nothing to learn from. Leave it out")
    return planes, colours, axes
