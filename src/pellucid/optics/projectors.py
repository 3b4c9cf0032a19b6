"""OTFs and back projectors on the padded grid of an FFT, for planes and for stacks alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

__all__ = [
    "butterworth",
    "butterworth_epsilon2",
    "fast_size",
    "flipped",
    "fwhm_px",
    "gaussian",
    "otf",
    "response",
    "wiener",
    "wiener_butterworth",
]

Image = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def fast_size(n: int) -> int:
    """Return the least even number of the form 2^a 3^b 5^c 7^d that is not below `n`.

    FFT libraries have kernels for these primes; 1088 = 2^6 17 takes 2.5 times as long as 1120. Even, since
    transforms of real data halve their last axis: 1125 takes twice as long as 1120 (MKL).
    """
    n = max(2, n + n % 2)
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


def otf(psf: Image, shape: Shape) -> Image:
    """Return the transform of `psf` with its centre at pixel 0 of a grid of `shape`.

    Parameters
    ----------
    psf
        ``(y, x)`` or ``(z, y, x)``, odd sides, sum 1; at most as large as `shape`.
    shape
        Of the padded picture or stack.

    Returns
    -------
    numpy.ndarray
        complex64 ``(..., x // 2 + 1)``, as ``rfftn`` lays it out.
    """
    grid = np.zeros(shape)
    grid[tuple(slice(n) for n in psf.shape)] = psf
    grid = np.roll(grid, [-(n // 2) for n in psf.shape], range(psf.ndim))
    return np.asarray(np.fft.rfftn(grid), np.complex64)


def flipped(forward: Image) -> Image:
    """Return the traditional back projector, the OTF of the PSF turned round (Richardson 1972, Lucy 1974)."""
    return np.asarray(np.conj(forward))


def fwhm_px(psf: Image) -> tuple[float, ...]:
    """Return the full width at half maximum of the lines through the centre, one for each axis, in px.

    Crossings are interpolated linearly. A line that stays above half to its end counts as wide as the PSF.
    """
    centre = [n // 2 for n in psf.shape]
    widths = []
    for axis in range(psf.ndim):
        line = np.asarray(psf[tuple(slice(None) if a == axis else c for a, c in enumerate(centre))], np.float64)
        half, total = line[centre[axis]] / 2, 0.0
        for side in (line[centre[axis] :], line[centre[axis] :: -1]):
            below = np.flatnonzero(side < half)
            if not below.size:
                total += side.size - 0.5
                continue
            i = int(below[0])
            total += i - 1 + float((side[i - 1] - half) / (side[i - 1] - side[i]))
        widths.append(total)
    return tuple(widths)


def response(psf: Image, frequency: Sequence[float]) -> float:
    """Return ``|O|`` at one frequency in cycles/px, by the sum itself, whatever the grid; 1 at 0."""
    at = np.asarray(psf, np.float64)
    for axis, k in enumerate(frequency):
        wave = np.exp(-2j * np.pi * k * np.arange(psf.shape[axis]))
        at = at * _along(wave, axis, psf.ndim)
    return float(abs(at.sum()) / np.sum(psf, dtype=np.float64))


def butterworth_epsilon2(gain: float, beta: float, epsilon: Literal["theory", "authors"]) -> float:
    """Return the Butterworth filter's epsilon squared, for a Wiener filter of `gain` at the cut-off.

    ``"theory"``: ``(gain / beta)^2 - 1``, which makes the product at the cut-off `beta`, as the paper derives it.
    ``"authors"``: ``gain / beta^2 - 1``, as in their published program. Never below 0: where the Wiener filter
    is below `beta` already, nothing is left to damp.
    """
    return max((gain / beta) ** 2 - 1 if epsilon == "theory" else gain / beta**2 - 1, 0.0)


def wiener(psf: Image, shape: Shape, *, alpha: float, smooth_px: float = 0.0) -> Image:
    """Return Wiener's inverse filter ``conj(O) / (|O|^2 + alpha)``, its sum made 1.

    Parameters
    ----------
    psf, shape
        As for `otf`.
    alpha
        Power of the noise over that of the specimen.
    smooth_px
        Standard deviation of a Gaussian on top of it.

    Returns
    -------
    numpy.ndarray
        complex64 ``(..., x // 2 + 1)``.
    """
    o = np.conj(otf(psf, shape).astype(np.complex128))
    kernel = o / (abs(o) ** 2 + alpha)
    if smooth_px:
        kernel *= np.exp(-2 * (np.pi * smooth_px) ** 2 * _squares(shape, [1.0] * len(shape)))
    return _unit(kernel)


def wiener_butterworth(
    psf: Image,
    shape: Shape,
    *,
    alpha: float = 0.01,
    beta: float | Literal["auto"] = "auto",
    order: int = 4,
    epsilon: Literal["theory", "authors"] = "theory",
    resolution_px: float | None = None,
    smooth_px: float = 0.0,
) -> Image:
    """Return the Wiener-Butterworth back projector (Guo et al. 2020, Nature Biotechnology 38, 1337).

    With ``O`` the flipped PSF's transform over its largest magnitude: Wiener ``W = O / (|O|^2 + alpha)``,
    damped beyond the resolution limit by ``1 / sqrt(1 + epsilon2 r^(2 order))``, where ``r`` is the frequency
    over the cut-off ``1 / resolution``, each axis by its own. Scaled so that the kernel's sum is 1.

    Parameters
    ----------
    psf
        ``(y, x)`` or ``(z, y, x)``, odd sides, sum 1.
    shape
        Of the padded picture or stack.
    alpha
        Wiener's constant; the larger, the less noise. Useful from 1e-4 to 0.1.
    beta
        Gain at the cut-off, before the sum is scaled; ``"auto"``: ``|O|`` there, mean over the axes.
    order
        Of the Butterworth filter (`n` in the paper); the higher, the steeper. 0: without it.
    epsilon
        See `butterworth_epsilon2`.
    resolution_px
        The finest period that the picture holds, along all axes; None: the PSF's FWHM, each axis its own. Not below
        2, the period of the finest wave that pixels can hold.
    smooth_px
        Standard deviation of a Gaussian on top of it.

    Returns
    -------
    numpy.ndarray
        complex64 ``(..., x // 2 + 1)``.
    """
    kernel = wiener(psf, shape, alpha=alpha, smooth_px=smooth_px).astype(np.complex128)
    if order:
        cuts, at_cut = _cut_offs(psf, resolution_px)
        gain = float(np.mean(at_cut / (at_cut**2 + alpha)))
        # A PSF can have a zero right at its cut-off; a beta of 0 would ask for infinite damping.
        wanted = max(float(at_cut.mean()), 1e-3) if beta == "auto" else beta
        kernel /= np.sqrt(1 + butterworth_epsilon2(gain, wanted, epsilon) * _squares(shape, cuts) ** order)
    return _unit(kernel)


def butterworth(
    psf: Image,
    shape: Shape,
    *,
    beta: float | Literal["auto"] = "auto",
    order: int = 4,
    resolution_px: float | None = None,
) -> Image:
    """Return the Butterworth back projector of the same paper, ``1 / sqrt(1 + epsilon2 r^(2 order))``.

    Flat up to the resolution limit, `beta` there; real, since a filter without direction has no phase.
    Arguments as for `wiener_butterworth`.
    """
    cuts, at_cut = _cut_offs(psf, resolution_px)
    wanted = min(max(float(at_cut.mean()), 1e-3), 1.0) if beta == "auto" else beta
    kernel = 1 / np.sqrt(1 + butterworth_epsilon2(1.0, wanted, "theory") * _squares(shape, cuts) ** order)
    return _unit(kernel.astype(np.complex128))


def gaussian(psf: Image, shape: Shape, *, resolution_px: float | None = None) -> Image:
    """Return the Gaussian back projector of the same paper: one as wide as the PSF, FWHM for FWHM.

    Arguments as for `wiener_butterworth`.
    """
    sigmas = [1 / (cut * np.sqrt(8 * np.log(2))) for cut in _cut_offs(psf, resolution_px)[0]]
    squares = _squares(shape, [1 / sigma for sigma in sigmas])
    return _unit(np.exp(-2 * np.pi**2 * squares).astype(np.complex128))


def _cut_offs(psf: Image, resolution_px: float | None) -> tuple[list[float], Image]:
    """Return the cut-off along each axis in cycles/px, and ``|O|`` there.

    An axis of one plane has no frequencies, and none of the second.
    """
    limits = fwhm_px(psf) if resolution_px is None else (resolution_px,) * psf.ndim
    cuts = [1 / max(limit, 2.0) for limit in limits]
    at = [
        response(psf, [cut if a == axis else 0.0 for a in range(psf.ndim)])
        for axis, cut in enumerate(cuts)
        if psf.shape[axis] > 1
    ]
    return cuts, np.array(at or [1.0])


def _squares(shape: Shape, cuts: Sequence[float]) -> Image:
    """Return ``sum of (frequency / cut)^2`` over the axes, as ``rfftn`` lays them out."""
    frequencies = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    total = np.zeros(())
    for axis, (k, cut) in enumerate(zip(frequencies, cuts, strict=True)):
        total = total + _along((k / cut) ** 2, axis, len(shape))
    return np.asarray(total)


def _along(line: Image, axis: int, ndim: int) -> Image:
    return line.reshape([-1 if a == axis else 1 for a in range(ndim)])


def _unit(kernel: Image) -> Image:
    return np.asarray(kernel / kernel.flat[0].real, np.complex64)
