"""What excitation and a pinhole make of a PSF, along the radius: confocal and light-sheet microscopes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["gaussian_sheet", "sheet_fwhm_um", "through_pinhole"]

Array = np.ndarray[Any, Any]
ROWS = 256
"""Radii at once: bounds the memory to some 100 MB."""


def through_pinhole(profile: Array, step_um: float, radius_um: float, count: int) -> Array:
    """Return what a round detector receives whose centre lies at each radius: the light times a disc, summed.

    Parameters
    ----------
    profile
        ``(z, r)`` at radii 0, `step_um`, ...; long enough to reach `radius_um` beyond radius ``count - 1``.
    radius_um
        Of the pinhole, in the specimen; 0: a point.
    count
        Of the radii of the result.

    Returns
    -------
    numpy.ndarray
        ``(z, count)``, the mean over the disc.
    """
    if radius_um == 0:
        return profile[:, :count]
    # Nodes on the disc: fine enough for light that changes within 40 steps of the radius.
    rings = math.ceil(radius_um / step_um / 40) + 4
    spokes = 2 * rings + 8
    node, weight = np.polynomial.legendre.leggauss(rings)
    rho = radius_um * (node + 1) / 2
    share = weight * rho / (weight * rho).sum() / spokes
    cosine = np.cos(np.pi * (np.arange(spokes) + 0.5) / spokes)
    out = np.empty((profile.shape[0], count))
    for start in range(0, count, ROWS):
        r = np.arange(start, min(count, start + ROWS)) * step_um
        # The disc as a matrix, with linear interpolation of the finely sampled profile.
        distance = np.sqrt(
            np.maximum(r[:, None, None] ** 2 + rho[:, None] ** 2 + 2 * r[:, None, None] * rho[:, None] * cosine, 0)
        )
        distance /= step_um
        i = np.minimum(distance.astype(np.int64), profile.shape[1] - 2)
        t = np.minimum(distance - i, 1.0)
        i += np.arange(r.size)[:, None, None] * profile.shape[1]
        size, part = r.size * profile.shape[1], share[:, None]
        disc = np.bincount(i.ravel(), ((1 - t) * part).ravel(), size)
        disc += np.bincount(i.ravel() + 1, (t * part).ravel(), size)
        out[:, start : start + r.size] = profile @ disc.reshape(r.size, -1).T
    return out


def sheet_fwhm_um(na: float, wavelength_um: float) -> float:
    """Return the thickness (FWHM) of a Gaussian sheet at its waist: ``sqrt(2 ln 2) wavelength / (pi na)``.

    `na` is the sine of the half-angle at ``1 / e^2`` of the intensity, times the index.
    """
    return math.sqrt(2 * math.log(2)) * wavelength_um / (math.pi * na)


def gaussian_sheet(z_um: Array, fwhm_um: float) -> Array:
    """Return the brightness of a light sheet at distances from its middle: 1 there; it is taken as even across it."""
    return np.asarray(np.exp(-4 * math.log(2) * (np.asarray(z_um) / fwhm_um) ** 2))
