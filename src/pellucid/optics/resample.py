"""PSFs on other grids: found centre, band-limited resampling, circles averaged, cut with a soft edge, made positive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.optics.levels import peak_pixel
from pellucid.optics.projectors import fast_size

__all__ = ["centre_px", "cut", "nearest_positive", "radial_mean", "resampled"]

Image = np.ndarray[Any, Any]

MARGIN_PX = 16
"""Outside its borders a picture is continued by its mirror image, which fades over so many pixels."""

KNOT_PX = 0.7
NEAR_PX = 32


def centre_px(psf: Image) -> tuple[float, ...]:
    """Return the point about which a PSF is most like its own mirror image, in pixels along each axis.

    It is half the place of the largest value of the PSF convolved with itself, found between pixels by a parabola
    through the logarithms. All pixels near the peak count by their brightness squared, so that noise and a second,
    fainter bead at the border hardly do.

    Parameters
    ----------
    psf
        Any number of axes, without background.
    """
    start = [max(0, p - NEAR_PX) for p in peak_pixel(psf)]
    psf = psf[tuple(slice(s, s + 2 * NEAR_PX + 1) for s in start)]
    full = [fast_size(2 * n - 1) for n in psf.shape]
    axes = tuple(range(psf.ndim))
    spectrum = np.fft.rfftn(psf, full, axes)
    twice = np.fft.irfftn(spectrum * spectrum, full, axes)
    peak = np.unravel_index(int(np.argmax(twice)), twice.shape)
    out = []
    for axis, at in enumerate(peak):
        line = [twice[(*peak[:axis], (at + d) % full[axis], *peak[axis + 1 :])] for d in (-1, 0, 1)]
        if min(line) > 0:
            line = [math.log(v) for v in line]
        bend = line[0] - 2 * line[1] + line[2]
        shift = 0.5 * (line[0] - line[2]) / bend if bend < 0 else 0.0
        out.append(start[axis] + (float(at) + float(np.clip(shift, -0.5, 0.5))) / 2)
    return tuple(out)


def resampled(
    psf: Image,
    centre: Sequence[float],
    sizes: Sequence[int],
    ratios: Sequence[float],
    areas: Sequence[bool],
) -> Image:
    """Return a PSF on another grid with `centre` in its middle pixel, by the waves that its pixels can hold.

    Parameters
    ----------
    psf
        Any number of axes.
    centre
        In pixels of `psf`.
    sizes
        Of the result along each axis, odd.
    ratios
        Pixel of the result over that of `psf`, for each axis.
    areas
        For each axis: a pixel collects the light over its length (those of a camera), or takes it at a point (planes).
        With areas the old pixel's length is taken out and the new one's put in, wave by wave: pixels twice as
        long come out as the exact sum of two old ones.

    Returns
    -------
    numpy.ndarray
        float64 of `sizes`; values between those of `psf`, or a little beyond where it is too coarsely sampled.
    """
    out = np.asarray(psf, np.float64)
    for axis, (at, size, ratio, area) in enumerate(zip(centre, sizes, ratios, areas, strict=True)):
        matrix = _axis_matrix(psf.shape[axis], at, size, ratio, area)
        out = np.moveaxis(np.tensordot(matrix, out, (1, axis)), 0, axis)
    return out


def _axis_matrix(n: int, centre: float, size: int, ratio: float, area: bool) -> Image:
    x = centre + (np.arange(size) - size // 2) * ratio
    if ratio == 1 and abs(centre - round(centre)) < 1e-9:
        return np.asarray(x[:, None] == np.arange(n), np.float64)
    margin = min(MARGIN_PX, n)
    period = 2 * (n + 2 * margin) + 1  # odd: no wave at the limit that has no phase
    frequency = np.fft.rfftfreq(period)
    gain = np.where(frequency > 0, 2.0, 1.0) / period
    if area:
        gain *= np.sinc(frequency * ratio) / np.sinc(frequency)
    given = np.arange(-margin, n + margin)
    turn = 2 * np.pi * frequency
    matrix = (np.cos(np.outer(x, turn)) * gain) @ np.cos(np.outer(turn, given))
    matrix += (np.sin(np.outer(x, turn)) * gain) @ np.sin(np.outer(turn, given))
    # What lies in the margins is a mirror image that fades.
    fade = 0.5 + 0.5 * np.cos(np.pi * (np.arange(margin) + 1) / (margin + 1))
    inner = matrix[:, margin : margin + n]
    inner[:, :margin] += (matrix[:, :margin] * fade[::-1])[:, ::-1]
    inner[:, n - margin :] += (matrix[:, margin + n :] * fade)[:, ::-1]
    inner[(x < -0.5) | (x > n - 0.5)] = 0
    return inner


def radial_mean(psf: Image) -> Image:
    """Average a PSF along the circles round its middle, in each plane.

    The light along the radius is the smooth curve (cubic spline, a knot each 0.7 px) that is nearest to all pixels:
    mere rings would make the peak wider, and knots 1 px apart are 1% off in the width of the finest PSFs.

    Parameters
    ----------
    psf
        ``(y, x)`` or ``(z, y, x)``, odd sides, centred.

    Returns
    -------
    numpy.ndarray
        float64 of the same shape.
    """
    h, w = psf.shape[-2:]
    y, x = np.arange(h) - h // 2, np.arange(w) - w // 2
    r = np.sqrt(y[:, None] ** 2 + x**2).ravel() / KNOT_PX
    knot = r.astype(np.int64)
    t = r - knot
    basis = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    basis = tuple(b / 6 for b in basis)
    indices = tuple(abs(knot + n) for n in (-1, 0, 1, 2))  # the curve is even: knot -1 is knot 1
    knots = int(knot.max()) + 3
    bend = np.diff(np.eye(knots), 2, axis=0)
    normal = 1e-6 * bend.T @ bend  # straight where no pixel lies
    for b, i in zip(basis, indices, strict=True):
        for c, j in zip(basis, indices, strict=True):
            normal += np.bincount(i * knots + j, b * c, knots * knots).reshape(knots, knots)
    flat = np.asarray(psf, np.float64).reshape(-1, h * w)
    sums = np.zeros((knots, flat.shape[0]))
    for b, i in zip(basis, indices, strict=True):
        for plane in range(flat.shape[0]):
            sums[:, plane] += np.bincount(i, b * flat[plane], knots)
    curve = np.linalg.solve(normal, sums)
    out = np.empty_like(flat)
    for plane in range(flat.shape[0]):
        out[plane] = sum(b * curve[i, plane] for b, i in zip(basis, indices, strict=True))
    return out.reshape(psf.shape)


def cut(psf: Image, reach: Sequence[int], soft: Sequence[bool]) -> Image:
    """Cut a PSF to so many pixels on each side of its middle; soft edges fall to 0 over the outer eighth.

    A hard edge in a PSF is a square that deconvolution looks for in the picture.
    """
    for axis, (n, fade) in enumerate(zip(reach, soft, strict=True)):
        middle = psf.shape[axis] // 2
        keep = min(n, middle)
        psf = psf[(slice(None),) * axis + (slice(middle - keep, middle + keep + 1),)]
        if fade and keep >= 8:
            width = keep // 8
            depth = np.clip(keep + 1 - abs(np.arange(-keep, keep + 1)), 0, width + 1) / (width + 1)
            window = 0.5 - 0.5 * np.cos(np.pi * depth)
            psf = psf * window.reshape((-1,) + (1,) * (psf.ndim - axis - 1))
    return psf


def nearest_positive(psf: Image) -> Image:
    """Return the picture without negative values and with the same sum that is nearest to `psf`.

    It is ``max(psf - level, 0)`` with one level for all (Michelot 1986, J. Optim. Theory Appl. 50, 195). To set what is
    negative to 0 would keep the upper half of all noise: on 10^6 voxels of a measured stack more light than the bead.
    """
    total = float(psf.sum())
    if psf.min() >= 0 or total <= 0:
        return np.maximum(psf, 0)
    values = np.sort(psf, axis=None)[::-1]
    excess = (np.cumsum(values) - total) / np.arange(1, values.size + 1)
    last = int(np.flatnonzero(values > excess)[-1])
    return np.asarray(np.maximum(psf - excess[last], 0))
