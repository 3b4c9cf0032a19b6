"""How wide a PSF is, and how wide theory says it should be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["airy_fwhm_um", "axial_fwhm_um", "bead_free_um", "fwhm", "line_fwhm"]

Image = np.ndarray[Any, Any]
FINER = 8


def line_fwhm(line: Image, centre: float | None = None) -> float:
    """Return the full width at half maximum of a line in samples; nan where it does not fall to half on both sides.

    The line is interpolated by its waves, eight times finer; the maximum is that within a sample of `centre` (None: the
    middle).
    """
    n = line.size
    if n < 3:
        return math.nan
    # Mirrored, so that different ends make no step.
    doubled = np.fft.rfft(np.concatenate([line, line[::-1]]))
    shift = np.arange(FINER)[:, None] / FINER
    waves = np.exp(2j * np.pi * np.fft.rfftfreq(2 * n) * shift)
    waves[:, -1] = waves[:, -1].real
    fine = np.fft.irfft(doubled * waves, 2 * n, axis=1)[:, :n].T.ravel()[: (n - 1) * FINER + 1]
    at = round((n // 2 if centre is None else centre) * FINER)
    start = max(0, at - FINER)
    peak = start + int(np.argmax(fine[start : at + FINER + 1]))
    half = fine[peak] / 2
    total = 0.0
    for side in (fine[peak:], fine[peak::-1]):
        below = np.flatnonzero(side < half)
        if not below.size:
            return math.nan
        i = int(below[0])
        total += i - 1 + float((side[i - 1] - half) / (side[i - 1] - side[i]))
    return total / FINER


def fwhm(psf: Image) -> tuple[float, ...]:
    """Return the full width at half maximum along each axis, through the middle of a centred PSF, in pixels."""
    middle = tuple(n // 2 for n in psf.shape)
    return tuple(
        line_fwhm(np.asarray(psf[(*middle[:axis], slice(None), *middle[axis + 1 :])], np.float64))
        for axis in range(psf.ndim)
    )


def airy_fwhm_um(na: float, wavelength_nm: float) -> float:
    """Return the width of the Airy pattern, ``0.5145 wavelength / na``."""
    return 0.5145 * wavelength_nm * 1e-3 / na


def axial_fwhm_um(na: float, wavelength_nm: float, index: float) -> float:
    """Return the width along z, ``0.886 wavelength / (n - sqrt(n^2 - na^2))``: of a scalar PSF without aberration."""
    return 0.886 * wavelength_nm * 1e-3 / (index - math.sqrt(index**2 - na**2))


def bead_free_um(width_um: float, bead_um: float) -> float:
    """Return the width without the bead's own size: a ball of diameter d has the variance ``d^2 / 20``."""
    own = math.sqrt(8 * math.log(2) / 20) * bead_um
    return math.sqrt(max(0.0, width_um**2 - own**2))
