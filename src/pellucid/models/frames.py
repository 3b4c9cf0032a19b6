"""A few real frames, with which an engine's results are compared with float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["real_frames"]

FOLDER = Path(__file__).parent / "frames"


def real_frames() -> list[np.ndarray[Any, Any]]:
    """Return captures of real microscopes with their real noise, in camera counts.

    Confocal, two-photon and wide-field; where they are from and under which licence is in ``frames/LICENSE``.

    Returns
    -------
    list of numpy.ndarray
        ``(256, 256)`` each, uint8 or uint16, by the names of their files.
    """
    frames = []
    for file in sorted(FOLDER.glob("*.png")):
        with Image.open(file) as picture:
            values = np.asarray(picture)
        frames.append(values if values.dtype == np.uint8 else values.astype(np.uint16))
    return frames
