"""Simulated specimens of known truth, and a camera that looks at them: for tests, benches and a source.

Everything here is simulation. Filaments and spots about 1.5 px wide, blurred by a PSF, then photon and read noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.optics.projectors import fast_size
from pellucid.optics.psf import Scalar

__all__ = ["case", "draw", "expose", "thin_lens", "thin_psf"]

Image = np.ndarray[Any, Any]


def draw(shape: tuple[int, int], rng: np.random.Generator) -> Image:
    """Draw curved filaments and spots.

    Parameters
    ----------
    shape
        ``(y, x)``; the density is one filament in 6000 and one spot in 1500 px.
    rng
        Where all chance comes from.

    Returns
    -------
    numpy.ndarray
        float32 of `shape`, 0 and above, arbitrary units.
    """
    area = shape[0] * shape[1]
    points: list[Image] = []
    weights: list[Image] = []
    for _ in range(max(1, area // 6000)):
        steps = 2 * int(rng.uniform(150, 500))
        turn = np.cumsum(rng.normal(0, 0.03, steps)) + rng.uniform(0, 2 * np.pi)
        path = rng.uniform(0, shape, 2) + 0.5 * np.cumsum(np.stack([np.sin(turn), np.cos(turn)], 1), axis=0)
        points.append(path)
        weights.append(np.full(steps, rng.uniform(0.5, 1.0)))
    spots = max(1, area // 1500)
    points.append(rng.uniform(0, shape, (spots, 2)))
    weights.append(rng.uniform(2, 8, spots))
    at, weight = np.concatenate(points), np.concatenate(weights)

    corner = np.floor(at).astype(np.int64)
    part = at - corner
    image = np.zeros(area)
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = corner[:, 0] + dy, corner[:, 1] + dx
            share = weight * abs(1 - dy - part[:, 0]) * abs(1 - dx - part[:, 1])
            inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
            image += np.bincount(y[inside] * shape[1] + x[inside], share[inside], area)
    taps = np.exp(-0.5 * (np.arange(-3, 4) / 0.7) ** 2)
    return np.asarray(_convolve(image.reshape(shape), np.outer(taps, taps) / taps.sum() ** 2), np.float32)


def thin_lens(size: int = 65) -> Scalar:
    """Describe the simulated microscope: NA 1.0 water lens, 520 nm, 0.1 um pixels, 2.5 um thick specimen."""
    return Scalar(na=1.0, wavelength_nm=520, index=1.33, pixel_um=0.1, thickness_um=2.5, size_px=size)


def thin_psf(size: int = 65) -> Image:
    """Return the PSF of `thin_lens`: float32 ``(size, size)``, sum 1."""
    return thin_lens(size).sample(None, "thin_psf")


def expose(image: Image, psf: Image, rng: np.random.Generator, photons: float = 100, read_noise: float = 2) -> Image:
    """Blur and take a picture: Poisson noise at `photons` in the brightest pixel, plus read noise; cut at 0.

    Outside the image there is no light: see `case` for pictures without dark borders.

    Parameters
    ----------
    image
        ``(y, x)``, 0 and above, any unit.
    psf
        ``(y, x)``, odd sides, sum 1.
    rng
        Where all chance comes from.
    photons
        Expected in the brightest pixel.
    read_noise
        Standard deviation in counts of one photon.

    Returns
    -------
    numpy.ndarray
        float32 of the image's shape, counts.
    """
    mean = np.maximum(_convolve(image, psf), 0)
    mean *= photons / max(float(mean.max()), 1e-30)
    return np.maximum(rng.poisson(mean) + rng.normal(0, read_noise, mean.shape), 0).astype(np.float32)


def case(
    shape: tuple[int, int],
    psf: Image,
    rng: np.random.Generator,
    photons: float = 100,
    read_noise: float = 2,
) -> tuple[Image, Image]:
    """Return a picture and its truth, cut out of a larger specimen: light from outside the field is there.

    Returns
    -------
    image, truth : numpy.ndarray
        float32 of `shape`.
    """
    my, mx = psf.shape[0] // 2, psf.shape[1] // 2
    truth = draw((shape[0] + 2 * my, shape[1] + 2 * mx), rng)
    field = (slice(my, my + shape[0]), slice(mx, mx + shape[1]))
    image = expose(truth, psf, rng, photons, read_noise)
    return np.ascontiguousarray(image[field]), np.ascontiguousarray(truth[field])


def _convolve(image: Image, kernel: Image) -> Image:
    """Convolve in full and keep the middle: nothing wraps round."""
    full = [fast_size(n + m - 1) for n, m in zip(image.shape, kernel.shape, strict=True)]
    spectrum = np.fft.rfft2(image, full) * np.fft.rfft2(kernel, full)
    top, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    return np.asarray(np.fft.irfft2(spectrum, full)[top : top + image.shape[0], left : left + image.shape[1]])
