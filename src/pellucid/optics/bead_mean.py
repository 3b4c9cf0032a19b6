"""One PSF from many beads: each moved to its own centre, compared with all, averaged without outliers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.optics.beads import Beads
from pellucid.optics.levels import background
from pellucid.optics.resample import centre_px, cut, nearest_positive, radial_mean, resampled

__all__ = ["MeanBead", "mean_bead"]

Image = np.ndarray[Any, Any]

ROUNDS = 4
ALIKE = 0.8
"""Correlation with the mean bead below which one is no single bead, once its noise is allowed for."""
EXTRA = 8
"""Pixels round a window that help to move it by a part of a pixel."""


@dataclass
class MeanBead:
    """The PSF, and what it was made from.

    Parameters
    ----------
    psf
        float32 ``(y, x)`` or ``(z, y, x)``, odd sides, centred, sum 1.
    used
        Number of beads.
    left_out
        How many were not used, by the reason.
    scatter_px
        How far the last round moved the beads, root mean square along each axis: what is left of misalignment.
    noise
        Of the mean before circles were averaged, over its peak: from the difference of two halves of the beads; nan
        with fewer than 4.
    """

    psf: Image
    used: int
    left_out: Counter[str]
    scatter_px: tuple[float, ...]
    noise: float


def mean_bead(image: Image, beads: Beads, *, radial: bool) -> MeanBead:
    """Average beads.

    Each is moved by its waves (`pellucid.optics.resample.resampled`), first to its point of symmetry, then by least
    squares onto the mean of all, with its own brightness and background. The mean leaves out what is far from the
    median of all beads in a pixel: neighbours, hot pixels.

    Parameters
    ----------
    image
        ``(y, x)`` or ``(z, y, x)``, as the camera gave it.
    beads
        From `pellucid.optics.beads.find_beads`; at least one.
    radial
        Average along the circles round the axis.
    """
    boxes, centres = _boxes(image, beads)
    core = tuple(min(h, max(2, round(1.5 * w))) for h, w in zip(beads.half, beads.fwhm_px, strict=True))
    left_out = Counter(beads.left_out)
    moves = np.zeros_like(centres)
    mean = None
    for _ in range(ROUNDS):
        cores = _moved(boxes, centres, core)
        mean = _robust_mean(_scaled(cores, cores.mean(0) if mean is None else mean)[0])
        # The mean may drift as a whole: its own centre is taken off.
        drift = np.array(centre_px(mean - background(mean))) - np.array(core)
        moves = np.array([_step(bead, mean) for bead in cores]) + drift
        centres = centres + np.clip(moves, -1, 1)
    cores = _moved(boxes, centres, core)
    assert mean is not None
    alike = _likeness(cores, mean)
    good = alike >= min(ALIKE, 0.9 * float(np.median(alike)))
    if (bad := int(np.count_nonzero(~good))) and len(cores) > 2:
        left_out["unlike the others: several in one place, or moving"] += bad
    else:
        good[:] = True
    boxes, centres, moves = [b for b, g in zip(boxes, good, strict=True) if g], centres[good], moves[good]
    whole = _moved(boxes, centres, beads.half)
    middle = tuple(slice(h - c, h + c + 1) for h, c in zip(beads.half, core, strict=True))
    _, gains, levels = _scaled(whole[(slice(None), *middle)], mean)
    lift = (-1,) + (1,) * image.ndim
    whole = (whole - levels.reshape(lift)) / gains.reshape(lift)
    psf = _robust_mean(whole, gains**2)
    noise = float("nan")
    if len(whole) >= 4:
        odd, even = (_robust_mean(whole[i::2], gains[i::2] ** 2) for i in (0, 1))
        noise = float(np.std(odd - even) / 2 / psf.max())
    psf = psf - background(psf)
    if radial:
        psf = radial_mean(psf)
        psf = psf - background(psf)
    psf = nearest_positive(cut(psf, beads.half, [image.ndim == 2 or axis > 0 for axis in range(image.ndim)]))
    scatter = tuple(float(s) for s in np.sqrt((moves**2).mean(0)))
    return MeanBead(np.asarray(psf / psf.sum(), np.float32), len(whole), +left_out, scatter, noise)


def _boxes(image: Image, beads: Beads) -> tuple[list[Image], Image]:
    """Cut out the beads with some pixels round them, less their plane's level; and say where their centres are."""
    boxes, centres = [], []
    for place in beads.places:
        low = [max(0, int(p) - h - EXTRA) for p, h in zip(place, beads.half, strict=True)]
        cut_out = tuple(slice(a, int(p) + h + EXTRA + 1) for a, p, h in zip(low, place, beads.half, strict=True))
        level = beads.level[cut_out[0]] if image.ndim == 3 else beads.level
        box = np.asarray(image[cut_out] - level, np.float64)
        peak = [int(p) - a for p, a in zip(place, low, strict=True)]
        near = tuple(
            slice(max(0, p - min(h, round(2 * w) + 1)), p + min(h, round(2 * w) + 1) + 1)
            for p, h, w in zip(peak, beads.half, beads.fwhm_px, strict=True)
        )
        core = box[near] - np.percentile(box[near], 10)
        exact = np.array(centre_px(core)) + [s.start for s in near]
        boxes.append(box)
        centres.append(np.where(abs(exact - peak) < 2, exact, peak))
    return boxes, np.array(centres)


def _moved(boxes: list[Image], centres: Image, half: tuple[int, ...]) -> Image:
    """Return windows of `half` on each side round the exact centres, ``(bead, ...)``."""
    same, points = (1.0,) * len(half), (False,) * len(half)
    sizes = tuple(2 * h + 1 for h in half)
    # Exactly on a pixel nothing would be interpolated, and its noise would be another than that of the others.
    return np.stack([resampled(b, c + 1e-6, sizes, same, points) for b, c in zip(boxes, centres, strict=True)])


def _scaled(windows: Image, mean: Image) -> tuple[Image, Image, Image]:
    """Fit ``gain * mean + level`` to each window; return the windows on the mean's scale, the gains and the levels."""
    flat = windows.reshape(len(windows), -1)
    shape = (mean - mean.mean()).ravel()
    gains = np.maximum(flat @ shape / (shape @ shape), 1e-9 * abs(flat).max() + 1e-30)
    levels = flat.mean(1) - gains * mean.mean()
    scaled = (flat - levels[:, None]) / gains[:, None]
    return scaled.reshape(windows.shape), gains, levels


def _robust_mean(windows: Image, weights: Image | None = None) -> Image:
    """Return the mean of the beads in each pixel, without those far from the median there."""
    if len(windows) < 4:
        return np.asarray(np.average(windows, axis=0, weights=weights))
    middle = np.median(windows, axis=0)
    away = abs(windows - middle)
    spread = 1.4826 * np.median(away, axis=0) + 1e-3 * abs(middle).max()
    keep = (away <= 4 * spread).astype(np.float64)
    if weights is not None:
        keep *= weights.reshape((-1,) + (1,) * (windows.ndim - 1))
    return np.asarray((windows * keep).sum(0) / np.maximum(keep.sum(0), 1e-30))


def _step(bead: Image, mean: Image) -> Image:
    """Return how far `bead` lies from `mean`, by least squares with its brightness and background (Gauss-Newton)."""
    slopes = [np.gradient(mean, axis=axis).ravel() for axis in range(mean.ndim)]
    columns = np.stack([mean.ravel(), np.ones(mean.size), *(-s for s in slopes)], 1)
    found = np.linalg.lstsq(columns, bead.ravel(), rcond=None)[0]
    return np.asarray(found[2:] / found[0]) if found[0] > 0 else np.zeros(mean.ndim)


def _likeness(windows: Image, mean: Image) -> Image:
    shape = (mean - mean.mean()).ravel()
    flat = windows.reshape(len(windows), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return np.asarray(flat @ shape / np.sqrt((flat**2).sum(1) * (shape @ shape) + 1e-30))
