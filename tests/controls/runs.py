"""Real sessions whose parameters are changed while their frames flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

import pellucid

PARTS = Path(__file__).parents[1] / "parts.py"
OWN = Path(__file__).with_name("own_stages.py")
PSF = {"kind": "gaussian", "fwhm_px": 3.0}
SHAPE = (48, 64)


def movie(folder: Path, frames: int = 60) -> Path:
    """Frames that all differ, in a file."""
    path = folder / "movie.tif"
    if not path.exists():
        draw = np.random.default_rng(7)
        tifffile.imwrite(path, draw.poisson(200, (frames, *SHAPE)).astype(np.uint16) + 100)
    return path


def config(folder: Path, *stages: dict[str, Any], fps: float = 100.0, **more: Any) -> dict[str, Any]:
    return {
        "source": {"kind": "replay", "path": movie(folder).as_posix(), "fps": fps, "on_full": "wait"},
        "stages": [dict(stage) for stage in stages],
        # Few slots: while a change is made ready nobody takes frames, and so the run gets ahead by no more than these.
        "session": {"threads": 1, "restore": "every", "slots": 5},
        **more,
    }


def deconvolve(**keys: Any) -> dict[str, Any]:
    return {"kind": "deconvolve", "psf": PSF, "iterations": 2, "background": 100.0, **keys}


def plain(table: dict[str, Any]) -> dict[int, np.ndarray]:
    """What a whole run with one config makes of each frame."""
    with pellucid.open(table) as session:
        return {frame.info.seq: frame["restored"] for frame in session}
