"""How fast a lossless codec is on this computer, and how much it saves, on a picture like a camera's."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid.metrics import now_ns
from pellucid.recording.disk import Disk
from pellucid.recording.image import Plan
from pellucid.recording.zarr_image import ZarrImage

__all__ = ["PHOTONS", "CodecRate", "measure_codec"]

PHOTONS = 100.0
"""A pixel, on an offset of as many counts: what noise leaves of a picture cannot be compressed, and is most of it."""
_SECONDS = 0.4


@dataclass(frozen=True)
class CodecRate:
    """What a codec does.

    Parameters
    ----------
    bytes_s
        Of pixels, before they are compressed, in all threads together.
    share
        Of the bytes that is left.
    threads
    """

    bytes_s: float
    share: float
    threads: int


def measure_codec(compression: str, dtype: str, size: tuple[int, int], threads: int) -> CodecRate:
    """Compress noisy pictures for a moment, as the recorder's threads would.

    Parameters
    ----------
    compression
        As in the recorder's config.
    dtype, size
        Of a plane: name of a numpy type; ``(y, x)`` in pixels.
    threads
    """
    with tempfile.TemporaryDirectory(prefix="pellucid-") as folder:
        image = ZarrImage(Path(folder), Plan("raw", "raw", dtype, size, ("c",), compression=compression), Disk())
        image.create()
        codec = image.codec
        image.abandon()
    plane = _picture(dtype, size)
    left = len(codec.encode(plane))
    begun = now_ns()
    ends = begun + round(_SECONDS * 1e9)

    def work() -> int:
        count = 0
        while now_ns() < ends:
            codec.encode(plane)
            count += 1
        return count

    with ThreadPoolExecutor(threads, "pellucid codec") as pool:
        count = sum(one.result() for one in [pool.submit(work) for _ in range(threads)])
    took_s = (now_ns() - begun) * 1e-9
    return CodecRate(count * plane.nbytes / took_s, left / plane.nbytes, threads)


def _picture(dtype: str, size: tuple[int, int]) -> NDArray[np.generic]:
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(*(np.linspace(0, 6 * np.pi, n) for n in size), indexing="ij")
    light = PHOTONS * (1 + np.sin(y) * np.cos(x))
    picture = rng.poisson(light) + 100.0
    if dtype.startswith("float"):
        picture = light + rng.normal(0, 3, size)  # restored: smoother, with digits that mean little
    return np.ascontiguousarray(picture.clip(0, np.iinfo(dtype).max) if dtype[0] in "ui" else picture).astype(dtype)
