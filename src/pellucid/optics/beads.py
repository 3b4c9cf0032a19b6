"""Beads in a picture or stack: found, and those left out that would spoil a PSF."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pellucid.optics.measured import saturated
from pellucid.optics.widths import line_fwhm

__all__ = ["Beads", "find_beads"]

Image = np.ndarray[Any, Any]

MOST = 150
"""Beads that are averaged: the noise of more no longer matters."""
NOISES = 8.0
"""A bead is at least so many times brighter than the noise of the smoothed picture."""
FAINTEST = 0.1
"""Of the usual bead: what is fainter is dirt."""
BRIGHTEST = 2.5
"""Likewise: what is brighter is two beads."""
RING = 0.05
"""Of a bead's brightness: a fainter maximum near it is one of its rings."""
RING_PX = 32


@dataclass
class Beads:
    """What was found.

    Parameters
    ----------
    places
        ``(n, ndim)``, brightest pixels.
    half
        How far a window round a bead reaches, along each axis.
    fwhm_px
        Widths of the usual bead, along each axis.
    left_out
        How many beads were not used, by the reason.
    level
        Background of each plane, ``(z, 1, 1)`` or a number.
    """

    places: Image
    half: tuple[int, ...]
    fwhm_px: tuple[float, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    level: Any = 0.0


def find_beads(image: Image, size_px: int | None = None, planes: int | None = None) -> Beads:
    """Find beads that are alone, whole and not saturated.

    Parameters
    ----------
    image
        ``(y, x)`` or ``(z, y, x)``, as the camera gave it.
    size_px, planes
        Odd sides of the window round a bead; None: 12 FWHM, and up to 24 as long as 10 beads are alone in it; along
        z 8, or as much as the stack allows.

    Returns
    -------
    Beads
        With at most `MOST` places, the brightest first.
    """
    level = _level(image)
    flat = np.asarray(image[0] - level[0] if image.ndim == 3 else image - level, np.float64)
    for plane, dark in zip(image[1:], level[1:], strict=True) if image.ndim == 3 else ():
        np.maximum(flat, plane - dark, out=flat)
    smooth = _smoothed(flat)
    noise = 1.4826 * float(np.median(abs(smooth - np.median(smooth))))
    y, x, value = _peaks(smooth - np.median(smooth), NOISES * noise)
    if not value.size:
        return Beads(np.zeros((0, image.ndim), int), (1,) * image.ndim, (math.nan,) * image.ndim, level=level)
    # Noise can split the peak of a bead: of maxima within 3 px the brightest is it.
    y, x, value = _merged(y, x, value)
    ring = _rings(np.stack([y, x], 1), value)
    y, x, value = y[~ring], x[~ring], value[~ring]
    z = _depths(image, level, y, x) if image.ndim == 3 else np.zeros(y.size, int)
    places = np.stack([z, y, x], 1)[:, -image.ndim :]
    bead = np.array([not _is_hot_pixel(image, level, p) for p in places])
    places, value = places[bead], value[bead]
    if not value.size:
        return Beads(places, (1,) * image.ndim, (math.nan,) * image.ndim, level=level)
    cut_off = np.array([_is_cut_off(image, p) for p in places])
    usual = _usual(value[~cut_off] if not cut_off.all() else value)
    left_out: Counter[str] = Counter()
    faint = value < FAINTEST * usual
    left_out["fainter than a tenth of the others"] += int(np.count_nonzero(faint))
    places, value, cut_off = places[~faint], value[~faint], cut_off[~faint]
    whole = places if cut_off.all() else places[~cut_off]
    widths = _usual_widths(image, level, whole)
    half = _windows(image.shape, whole, widths, size_px, planes)
    if not size_px and image.ndim == 3:
        half = _roomy(image.shape, places, half, widths)

    used = np.ones(len(places), bool)

    def leave(bad: Image, why: str) -> None:
        left_out[why] += int(np.count_nonzero(used & bad))
        used[bad] = False

    leave(cut_off, "saturated")
    lateral = places[:, -2:].astype(float)
    leave(_outside(lateral, half[-2:], image.shape[-2:]), "too close to the border")
    if image.ndim == 3:
        leave(_outside(places[:, :1], half[:1], image.shape[:1]), "too close to the first or last plane")
    gap = np.hypot(*(lateral[:, None] - lateral).transpose(2, 0, 1))
    np.fill_diagonal(gap, np.inf)
    leave((gap < half[-1] + 2 * widths[-1]).any(1), "too close to another bead")
    usual = float(np.median(value[used])) if used.any() else usual
    leave(value > BRIGHTEST * usual, "too bright: several in one place")
    chosen = np.flatnonzero(used)[:MOST]
    if (more := np.count_nonzero(used) - chosen.size) > 0:
        left_out[f"more than {MOST}"] = int(more)
    return Beads(places[chosen], half, widths, +left_out, level)


def _level(image: Image) -> Image:
    """Return the level of each plane where it is dark, ``(z, 1, 1)`` or ``(1, 1)``.

    It is the 10th percentile of the means over 8 x 8 px: lamps and cameras drift during a stack, and the median of a
    plane out of focus would be that of the beads' blur.
    """
    planes = image if image.ndim == 3 else image[None]
    h, w = (n // 8 * 8 for n in image.shape[-2:])
    levels = []
    for plane in planes:
        tiles = plane[:h, :w].reshape(h // 8, 8, w // 8, 8).mean((1, 3)) if h and w else plane
        levels.append(np.percentile(tiles, 10))
    return np.array(levels).reshape(*image.shape[:-2], 1, 1)


def _smoothed(plane: Image) -> Image:
    """Smooth with a Gaussian of 1 px; borders are continued."""
    taps = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    taps /= taps.sum()
    for axis in (0, 1):
        padded = np.pad(plane, [(3, 3) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        n = plane.shape[axis]
        plane = sum(t * padded.take(range(i, i + n), axis) for i, t in enumerate(taps))
    return plane


def _peaks(smooth: Image, least: float) -> tuple[Image, Image, Image]:
    """Return the places and values of maxima above `least`, the brightest first."""
    padded = np.pad(smooth, 1, constant_values=-np.inf)
    h, w = smooth.shape
    top = smooth > max(least, 0.0)
    for dy in range(3):
        for dx in range(3):
            if (dy, dx) != (1, 1):
                other = padded[dy : dy + h, dx : dx + w]
                top &= smooth >= other if (dy, dx) < (1, 1) else smooth > other
    y, x = np.nonzero(top)
    order = np.argsort(-smooth[y, x], kind="stable")[:2000]
    return y[order], x[order], smooth[y, x][order]


def _merged(y: Image, x: Image, value: Image) -> tuple[Image, Image, Image]:
    keep: list[int] = []
    for i in range(y.size):
        if not keep or np.min((y[keep] - y[i]) ** 2 + (x[keep] - x[i]) ** 2) > 9:
            keep.append(i)
    return y[keep], x[keep], value[keep]


def _rings(places: Image, value: Image) -> Image:
    """Return which maxima are but the rings of a bead so much brighter."""
    near = np.abs(places[:, None] - places).max(2) <= RING_PX
    return np.asarray((near & (value[:, None] < RING * value)).any(1))


def _usual(value: Image) -> float:
    """Return the brightness of most beads: half of all, counted by the root of their light, are brighter.

    The root, so that neither a lot of dirt nor a cluster of beads decides.
    """
    order = np.argsort(value)
    light = np.cumsum(np.sqrt(value[order]))
    return float(value[order][np.searchsorted(light, light[-1] / 2)])


def _is_cut_off(image: Image, place: Image) -> bool:
    """Whether the peak is flat at the end of the camera's range, or at the greatest value of all, wherever that is."""
    core = image[tuple(slice(max(0, int(p) - 1), int(p) + 2) for p in place)]
    if image.dtype.kind not in "ui":
        return False
    top = int(image.max())
    return bool(saturated(core)) or (top >= 200 and int(np.count_nonzero(core == top)) > 2)


def _is_hot_pixel(image: Image, level: Any, place: Image) -> bool:
    """Whether the brightest pixel stands alone: even the finest bead lights its neighbours."""
    plane = image[place[0]] - level[place[0]] if image.ndim == 3 else image - level
    near = np.pad(plane[tuple(slice(max(0, p - 1), p + 2) for p in place[-2:])], 1)
    y, x = np.unravel_index(int(np.argmax(near)), near.shape)
    beside = (near[y - 1, x] + near[y + 1, x] + near[y, x - 1] + near[y, x + 1]) / 4
    return bool(beside < 0.2 * near[y, x])


def _column(image: Image, level: Image, y: int, x: int) -> Image:
    """Return the light along z of 3x3 px, smoothed with (1, 2, 1) / 4."""
    box = (slice(None), slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2))
    line = np.pad((image[box] - level).mean((1, 2)), 1, mode="edge")
    return np.asarray((line[:-2] + 2 * line[1:-1] + line[2:]) / 4)


def _depths(image: Image, level: Image, y: Image, x: Image) -> Image:
    return np.array([np.argmax(_column(image, level, b, a)) for b, a in zip(y.tolist(), x.tolist(), strict=True)], int)


def _usual_widths(image: Image, level: Any, places: Image) -> tuple[float, ...]:
    """Return the median FWHM of the 20 brightest along each axis."""
    found: list[list[float]] = [[] for _ in range(image.ndim)]
    for place in places[:20]:
        at = [int(p) for p in place]
        plane = image[at[0]] - level[at[0]] if image.ndim == 3 else image - level
        lines = [(_column(image, level, at[1], at[2]), at[0])] if image.ndim == 3 else []
        lines += [(plane[:, at[-1]], at[-2]), (plane[at[-2]], at[-1])]
        for axis, (line, centre) in enumerate(lines):
            width = line_fwhm(np.asarray(line, np.float64), centre)
            if math.isfinite(width) and width < line.size / 2:
                found[axis].append(width)
    widths = [float(np.median(w)) if w else math.nan for w in found]
    lateral = float(np.nanmean(widths[-2:])) if np.isfinite(widths[-2:]).any() else 3.0
    along = widths[0] if image.ndim == 3 and math.isfinite(widths[0]) else max(3.0, image.shape[0] / 4)
    return (along, lateral, lateral)[-image.ndim :]


def _windows(
    shape: tuple[int, ...], places: Image, widths: tuple[float, ...], size_px: int | None, planes: int | None
) -> tuple[int, ...]:
    side = size_px // 2 if size_px else min(64, max(8, math.ceil(6 * widths[-1])), (min(shape[-2:]) - 1) // 2)
    if len(shape) == 2:
        return side, side
    if planes:
        return planes // 2, side, side
    # As deep as most beads allow, since they lie on a coverslip as a rule; the width says how deep it must be.
    room = int(np.percentile(np.minimum(places[:, 0], shape[0] - 1 - places[:, 0]), 25))
    deep = min(math.ceil(4 * widths[0]), max(room, math.ceil(1.5 * widths[0])), (shape[0] - 1) // 2)
    return max(1, deep), side, side


def _roomy(shape: tuple[int, ...], places: Image, half: tuple[int, ...], widths: tuple[float, ...]) -> tuple[int, ...]:
    """Return the largest of some windows in which 10 beads are alone: out of focus, light goes far."""
    lateral = places[:, -2:].astype(float)
    gap = np.hypot(*(lateral[:, None] - lateral).transpose(2, 0, 1))
    np.fill_diagonal(gap, np.inf)
    for share in (2.0, 1.5):
        side = min(64, round(share * half[-1]), (min(shape[-2:]) - 1) // 2)
        wide = (*half[:-2], side, side)
        alone = (gap > side + 2 * widths[-1]).all(1) & ~_outside(places, wide, shape)
        if np.count_nonzero(alone) >= 10:
            return wide
    return half


def _outside(places: Image, half: tuple[int, ...], shape: tuple[int, ...]) -> Image:
    low, high = np.array(half), np.array(shape) - 1 - np.array(half)
    return np.asarray(((places < low) | (places > high)).any(1))
