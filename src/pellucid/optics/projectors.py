"""OTFs and back projectors on the padded grid of an FFT."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

__all__ = ["butterworth_epsilon2", "fast_size", "flipped", "fwhm_px", "otf", "response", "wiener_butterworth"]

Image = np.ndarray[Any, Any]


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


def otf(psf: Image, shape: tuple[int, int]) -> Image:
    """Return the transform of `psf` with its centre at pixel (0, 0) of a grid of `shape`.

    Parameters
    ----------
    psf
        ``(y, x)``, odd sides, sum 1; at most as large as `shape`.
    shape
        Of the padded picture.

    Returns
    -------
    numpy.ndarray
        complex64 ``(y, x // 2 + 1)``, as ``rfft2`` lays it out.
    """
    grid = np.zeros(shape)
    grid[: psf.shape[0], : psf.shape[1]] = psf
    grid = np.roll(grid, (-(psf.shape[0] // 2), -(psf.shape[1] // 2)), (0, 1))
    return np.asarray(np.fft.rfft2(grid), np.complex64)


def flipped(forward: Image) -> Image:
    """Return the traditional back projector, the OTF of the PSF turned round (Richardson 1972, Lucy 1974)."""
    return np.asarray(np.conj(forward))


def fwhm_px(psf: Image) -> tuple[float, float]:
    """Return the full width at half maximum of the lines through the centre, (y, x) in px.

    Crossings are interpolated linearly. A line that stays above half to its end counts as wide as the PSF.
    """
    cy, cx = psf.shape[0] // 2, psf.shape[1] // 2

    def width(line: Image, centre: int) -> float:
        total = 0.0
        for side in (line[centre:], line[centre::-1]):
            below = np.flatnonzero(side < line[centre] / 2)
            if not below.size:
                total += side.size - 0.5
                continue
            i = int(below[0])
            total += i - 1 + float((side[i - 1] - line[centre] / 2) / (side[i - 1] - side[i]))
        return total

    line_y, line_x = (np.asarray(v, np.float64) for v in (psf[:, cx], psf[cy]))
    return width(line_y, cy), width(line_x, cx)


def response(psf: Image, frequency: tuple[float, float]) -> float:
    """Return ``|O|`` at one frequency in cycles/px, by the sum itself, whatever the grid; 1 at 0."""
    at = np.asarray(psf, np.float64)
    for axis, k in enumerate(frequency):
        wave = np.exp(-2j * np.pi * k * np.arange(psf.shape[axis])).reshape((-1, 1) if axis == 0 else (1, -1))
        at = at * wave
    return float(abs(at.sum()) / np.sum(psf, dtype=np.float64))


def butterworth_epsilon2(gain: float, beta: float, epsilon: Literal["theory", "authors"]) -> float:
    """Return the Butterworth filter's epsilon squared, for a Wiener filter of `gain` at the cut-off.

    ``"theory"``: ``(gain / beta)^2 - 1``, which makes the product at the cut-off `beta`, as the paper derives it.
    ``"authors"``: ``gain / beta^2 - 1``, as in their published program. Never below 0: where the Wiener filter
    is below `beta` already, nothing is left to damp.
    """
    return max((gain / beta) ** 2 - 1 if epsilon == "theory" else gain / beta**2 - 1, 0.0)


def wiener_butterworth(
    psf: Image,
    shape: tuple[int, int],
    *,
    alpha: float = 0.05,
    beta: float | Literal["auto"] = "auto",
    order: int = 4,
    epsilon: Literal["theory", "authors"] = "theory",
    resolution_px: float | None = None,
) -> Image:
    """Return the Wiener-Butterworth back projector (Guo et al. 2020, Nature Biotechnology 38, 1337).

    With ``O`` the flipped PSF's transform over its largest magnitude: Wiener ``W = O / (|O|^2 + alpha)``,
    damped beyond the resolution limit by ``1 / sqrt(1 + epsilon2 r^(2 order))``, where ``r`` is the frequency
    over the cut-off ``1 / resolution``, each axis by its own. Scaled so that the kernel's sum is 1.

    Parameters
    ----------
    psf
        ``(y, x)``, odd sides, sum 1.
    shape
        Of the padded picture.
    alpha
        Wiener's constant; the larger, the less noise. Useful from 1e-4 to 0.1.
    beta
        Gain at the cut-off, before the sum is scaled; ``"auto"``: ``|O|`` there, mean over the axes.
    order
        Of the Butterworth filter (`n` in the paper); the higher, the steeper.
    epsilon
        See `butterworth_epsilon2`.
    resolution_px
        The finest period that the picture holds; None: the PSF's FWHM, each axis its own. Not below 2, the
        period of the finest wave that pixels can hold.

    Returns
    -------
    numpy.ndarray
        complex64 ``(y, x // 2 + 1)``.
    """
    limits = (resolution_px, resolution_px) if resolution_px is not None else fwhm_px(psf)
    cut_y, cut_x = (1 / max(limit, 2.0) for limit in limits)
    at_cut = np.array([response(psf, (cut_y, 0.0)), response(psf, (0.0, cut_x))])
    gain = float(np.mean(at_cut / (at_cut**2 + alpha)))
    # A PSF can have a zero right at its cut-off; a beta of 0 would ask for infinite damping.
    wanted = max(float(at_cut.mean()), 1e-3) if beta == "auto" else beta
    epsilon2 = butterworth_epsilon2(gain, wanted, epsilon)
    o = np.conj(otf(psf, shape).astype(np.complex128))
    o /= abs(o).max()
    r2 = (np.fft.fftfreq(shape[0])[:, None] / cut_y) ** 2 + (np.fft.rfftfreq(shape[1]) / cut_x) ** 2
    kernel = o / (abs(o) ** 2 + alpha) / np.sqrt(1 + epsilon2 * r2**order)
    return np.asarray(kernel / kernel[0, 0].real, np.complex64)
