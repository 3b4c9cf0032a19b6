"""Simulated specimens of known truth, and a camera that looks at them: for tests, benches and a source.

Everything here is simulation. Filaments and spots about 1.5 px wide and hollow shells, in planes and in stacks, blurred
by a PSF, then photon and read noise. The draws are those of the cases that this project's figures have always had.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pellucid.optics.projectors import fast_size
from pellucid.optics.psf import Confocal, LightSheet, Scalar

__all__ = ["case", "confocal_psf", "draw", "expose", "light_sheet_psf", "stack_psf", "thin_lens", "thin_psf"]

Image = np.ndarray[Any, Any]
Z_UM = 0.3
"""Distance of the planes of the simulated stacks; their pixel is 0.1 um."""
_FLATTER = 1 / 3
"""What is round in the specimen takes a third as many planes as pixels."""


def draw(shape: tuple[int, ...], rng: np.random.Generator, *, shells: bool = False) -> Image:
    """Draw curved filaments and spots.

    Parameters
    ----------
    shape
        ``(y, x)`` or ``(z, y, x)``; one filament in 6000 and one spot in 1500 px of the plane.
    rng
        Where all chance comes from.
    shells
        Hollow shells besides, one in 8000 px, as membranes and nuclei are. They are drawn last: the filaments and
        spots are the same with them and without.

    Returns
    -------
    numpy.ndarray
        float32 of `shape`, 0 and above, arbitrary units.
    """
    area, ndim = shape[-2] * shape[-1], len(shape)
    points: list[Image] = []
    weights: list[Image] = []
    for _ in range(max(1, area // 6000)):
        steps = 2 * int(rng.uniform(150, 500))
        turn = np.cumsum(rng.normal(0, 0.03, steps)) + rng.uniform(0, 2 * np.pi)
        move = [np.sin(turn), np.cos(turn)]
        if ndim == 3:
            move.insert(0, 0.25 * np.sin(np.cumsum(rng.normal(0, 0.02, steps)) + rng.uniform(0, 6)))
        points.append(rng.uniform(0, shape, ndim) + 0.5 * np.cumsum(np.stack(move, 1), axis=0))
        weights.append(np.full(steps, rng.uniform(0.5, 1.0)))
    spots = max(1, area // 1500)
    points.append(rng.uniform(0, shape, (spots, ndim)))
    weights.append(rng.uniform(2, 8, spots))
    for _ in range(max(1, area // 8000) if shells else 0):
        surface = _shell(rng.uniform(8, 24), ndim)
        points.append(rng.uniform(0, shape, ndim) + surface)
        weights.append(np.full(len(surface), rng.uniform(0.2, 0.5)))

    image: Image = _placed(np.concatenate(points), np.concatenate(weights), shape)
    kernel: Image = np.ones((1,) * ndim)
    for axis, sigma in enumerate((0.5, 0.7, 0.7)[-ndim:]):
        reach = int(4 * sigma + 0.5)
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        kernel = kernel * (line / line.sum()).reshape([-1 if a == axis else 1 for a in range(ndim)])
    return np.asarray(_convolve(image, kernel), np.float32)


def _shell(radius: float, ndim: int) -> Image:
    """Return points that cover a circle or a sphere evenly, about one a pixel."""
    if ndim == 2:
        angle = np.linspace(0, 2 * np.pi, math.ceil(2 * np.pi * radius), endpoint=False)
        return radius * np.stack([np.sin(angle), np.cos(angle)], 1)
    count = math.ceil(4 * np.pi * radius**2)
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * np.pi * (3 - math.sqrt(5))  # the golden angle: a spiral without seams
    wide = np.sqrt(1 - height**2)
    return radius * np.stack([_FLATTER * height, wide * np.sin(turn), wide * np.cos(turn)], 1)


def _placed(at: Image, weight: Image, shape: tuple[int, ...]) -> Image:
    """Return an image in which each point's weight is shared out among the pixels around it."""
    corner = np.floor(at).astype(np.int64)
    part = at - corner
    image: Image = np.zeros(math.prod(shape))
    for step in np.ndindex(*(2,) * len(shape)):
        share = weight * np.prod(abs(1 - np.array(step) - part), axis=1)
        pixel = corner + step
        inside = np.all((pixel >= 0) & (pixel < shape), axis=1)
        image += np.bincount(np.ravel_multi_index(tuple(pixel[inside].T), shape), share[inside], image.size)
    return image.reshape(shape)


def thin_lens(size: int = 65) -> Scalar:
    """Describe the simulated microscope: NA 1.0 water lens, 520 nm, 0.1 um pixels, 2.5 um thick specimen."""
    return Scalar(na=1.0, wavelength_nm=520, index=1.33, pixel_um=0.1, thickness_um=2.5, size_px=size)


def thin_psf(size: int = 65) -> Image:
    """Return the PSF of `thin_lens`: float32 ``(size, size)``, sum 1."""
    return thin_lens(size).sample(None, "thin_psf")


def stack_psf(planes: int = 33, size: int = 97) -> Image:
    """Return the widefield PSF of `thin_lens` along z: float32, at most ``(planes, size, size)``, sum 1."""
    # The model ends where its cone of light leaves the sides; a cut of a larger one has the planes beyond as well.
    lens = Scalar(na=1.0, wavelength_nm=520, index=1.33, pixel_um=0.1, size_px=size + 12)
    return _middle(lens.sample(None, "stack_psf", Z_UM, planes), size)


def light_sheet_psf(planes: int = 33, size: int = 65) -> Image:
    """Return the PSF of the same lens over a light sheet 1.5 um thick; see `stack_psf`."""
    lens = LightSheet(na=1.0, wavelength_nm=520, index=1.33, pixel_um=0.1, sheet_um=1.5, model="scalar", size_px=size)
    return lens.sample(None, "light_sheet_psf", Z_UM, planes)


def confocal_psf(planes: int = 33, size: int = 33) -> Image:
    """Return the PSF of a confocal microscope: NA 1.2 water lens, 488 and 520 nm, pinhole 1 Airy unit."""
    lens = Confocal(
        na=1.2, wavelength_nm=520, excitation_nm=488, index=1.33, pixel_um=0.1, model="scalar", size_px=size
    )
    return lens.sample(None, "confocal_psf", Z_UM, planes)


def _middle(psf: Image, size: int) -> Image:
    cut = (psf.shape[-1] - size) // 2
    psf = psf[:, cut : cut + size, cut : cut + size]
    return np.asarray(psf / psf.sum(dtype=np.float64), np.float32)


def expose(image: Image, psf: Image, rng: np.random.Generator, photons: float = 100, read_noise: float = 2) -> Image:
    """Blur and take a picture: Poisson noise at `photons` in the brightest pixel, plus read noise; cut at 0.

    Outside the image there is no light: see `case` for pictures without dark borders.

    Parameters
    ----------
    image
        ``(y, x)`` or ``(z, y, x)``, 0 and above, any unit.
    psf
        As many axes, odd sides, sum 1.
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
    return _seen(np.maximum(_convolve(image, psf), 0), rng, photons, read_noise)


def _seen(blurred: Image, rng: np.random.Generator, photons: float, read_noise: float) -> Image:
    mean = blurred * (photons / max(float(blurred.max()), 1e-30))
    return np.maximum(rng.poisson(mean) + rng.normal(0, read_noise, mean.shape), 0).astype(np.float32)


def case(
    shape: tuple[int, ...],
    psf: Image,
    rng: np.random.Generator,
    photons: float = 100,
    read_noise: float = 2,
    *,
    shells: bool = False,
) -> tuple[Image, Image]:
    """Return a picture and its truth, cut out of a larger specimen: light from outside the field is there.

    The parameters are those of `draw` and `expose`; `photons` are those of the brightest pixel of the larger one in
    planes, of the field in stacks.

    Returns
    -------
    image, truth : numpy.ndarray
        float32 of `shape`.
    """
    margins = [n // 2 for n in psf.shape]
    truth = draw(tuple(n + 2 * m for n, m in zip(shape, margins, strict=True)), rng, shells=shells)
    field = tuple(slice(m, m + n) for n, m in zip(shape, margins, strict=True))
    if len(shape) == 2:
        image = expose(truth, psf, rng, photons, read_noise)[field]
    else:
        image = _seen(np.maximum(_convolve(truth, psf)[field], 0), rng, photons, read_noise)
    return np.ascontiguousarray(image), np.ascontiguousarray(truth[field])


def _convolve(image: Image, kernel: Image) -> Image:
    """Convolve in full and keep the middle: nothing wraps round."""
    full = [fast_size(n + m - 1) for n, m in zip(image.shape, kernel.shape, strict=True)]
    axes = tuple(range(image.ndim))
    spectrum = np.fft.rfftn(image, full, axes) * np.fft.rfftn(kernel, full, axes)
    middle = tuple(slice(m // 2, m // 2 + n) for n, m in zip(image.shape, kernel.shape, strict=True))
    return np.asarray(np.fft.irfftn(spectrum, full, axes)[middle])
