"""Files with pictures, as planes of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_plane", "read_planes"]


def read_planes(path: Path) -> np.ndarray[Any, Any]:
    """Return all planes of a PNG or TIFF as float32 ``(n, y, x)``; colours are planes."""
    if path.suffix.lower() == ".png":
        from PIL import Image

        image = np.asarray(Image.open(path))
    else:
        import tifffile

        image = tifffile.imread(path)
    if image.ndim > 2 and image.shape[-1] in (3, 4) and image.shape[-1] < image.shape[0]:
        image = np.moveaxis(image, -1, 0)
    return np.ascontiguousarray(image.reshape(-1, *image.shape[-2:]), np.float32)


def read_plane(path: Path) -> np.ndarray[Any, Any]:
    """Return the first plane as float32 ``(y, x)``."""
    return np.asarray(read_planes(path)[0])
