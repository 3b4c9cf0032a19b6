"""Where the light of a measured PSF ends and its background begins."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["background", "middle_mean", "peak_pixel", "reach_px"]

Image = np.ndarray[Any, Any]

CONFINED = 3e-4
"""Of the peak: where no plane is so much brighter half-way to the border than at the border, its light ends before."""


def peak_pixel(psf: Image) -> tuple[int, ...]:
    """Return the brightest pixel after smoothing with (1, 2, 1) / 4 along each axis: one hot pixel does not win."""
    smooth = np.pad(psf, 1)
    for axis in range(psf.ndim):
        smooth = 2 * smooth + np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis)
    inner = smooth[(slice(1, -1),) * psf.ndim]
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(inner)), psf.shape))


def background(psf: Image) -> Image:
    """Return the level on which a PSF stands: a number, or one for each plane, ``(z, 1, 1)``.

    Each plane is divided into sixteen zones round the peak with equally many pixels; of a zone the mean of the middle
    half of its values counts, so that a neighbouring bead does no harm, and counts that are whole numbers give
    no whole number. Lamps and cameras drift during a stack. Where the light of all planes stays within the
    inner half of the frame (confocal, light sheet), each plane has its own level, that of its outer zones. Where it
    does not, as the cone of a widefield PSF, nobody can tell light from drift: all have the level of the darkest
    zone of the planes in focus.

    Returns
    -------
    numpy.ndarray
        float64, shape ``()`` or ``(z, 1, 1)``.
    """
    peak = peak_pixel(psf)
    y, x = (np.arange(n) - p for n, p in zip(psf.shape[-2:], peak[-2:], strict=True))
    order = np.argsort((y[:, None] ** 2 + x**2).ravel(), kind="stable")
    planes = psf.reshape(-1, order.size)[:, order]
    count = max(2, min(16, order.size // 24))
    near = planes if psf.ndim == 2 else planes[max(0, peak[0] - 1) : peak[0] + 2]
    darkest = min(float(middle_mean(zone.reshape(1, -1))[0]) for zone in np.array_split(near, count, axis=1))
    if psf.ndim == 3 and count == 16:
        middle, outer = (middle_mean(part) for part in np.split(planes, [order.size // 4, order.size // 2], axis=1)[1:])
        if (middle - outer).max() < CONFINED * (psf[peak] - darkest):
            return np.asarray(outer[:, None, None])
    return np.asarray(darkest)


def middle_mean(rows: Image) -> Image:
    """Return the mean of the middle half of each row's values."""
    n = rows.shape[1]
    return np.asarray(np.sort(rows, axis=1)[:, n // 4 : max(n // 4 + 1, n * 3 // 4)].mean(1))


def reach_px(psf: Image, energy: float) -> tuple[int, ...]:
    """Return how far from the middle of a PSF a box goes that holds the share `energy` of its light along each axis.

    The two axes of a plane have one reach. Light is counted ring by ring round the axis, each plane by itself, from the
    middle half of a ring's values: noise cancels in the sums, hot pixels are no light.

    Parameters
    ----------
    psf
        Centred, odd sides, without background.
    """
    h, w = psf.shape[-2:]
    y, x = np.arange(h) - h // 2, np.arange(w) - w // 2
    ring = np.rint(np.sqrt(y[:, None] ** 2 + x**2)).astype(int).ravel()
    order = np.argsort(ring, kind="stable")
    planes = psf.reshape(-1, h * w)[:, order]
    ends = np.cumsum(np.bincount(ring))
    light = np.zeros((planes.shape[0], ends.size))
    for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        part = planes[:, start:end]
        light[:, i] = (middle_mean(part) if end - start >= 24 else part.mean(1)) * (end - start)
    wanted = energy * light.sum()
    lateral = _first(np.arange(ends.size), light.sum(0), wanted)
    sides = min(lateral, h // 2), min(lateral, w // 2)
    if psf.ndim == 2:
        return sides
    middle = psf.shape[0] // 2
    return min(middle, _first(abs(np.arange(psf.shape[0]) - middle), light.sum(1), wanted)), *sides


def _first(distance: Image, light: Image, wanted: float) -> int:
    within = np.cumsum(np.bincount(distance, light))
    enough = np.flatnonzero(within >= wanted)
    return max(1, int(enough[0]) if enough.size else within.size - 1)
