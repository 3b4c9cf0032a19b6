"""The scalar pupil model: what a widefield objective makes of a point, in and out of focus."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["widefield"]

DEPTH_STEP_UM = 0.1
"""Distance of the planes that stand for a thick specimen; well below the depth of field of any dry lens."""
LARGEST_GRID = 8191
"""Side in px; the pupil then takes 1 GB and each depth some seconds."""


def widefield(
    size_px: int,
    pixel_um: float,
    *,
    na: float,
    wavelength_um: float,
    index: float,
    thickness_um: float = 0.0,
    defocus_um: float = 0.0,
) -> np.ndarray[Any, Any]:
    """Return the mean PSF over a specimen of some thickness.

    A uniform circular pupil of radius ``na / wavelength`` carries the defocus phase
    ``2 pi z (sqrt((index / wavelength)^2 - k^2) - index / wavelength)``; its Fourier transform is the field,
    the field's squared magnitude the PSF (Goodman, Introduction to Fourier Optics, ch. 6; scalar, without
    polarisation or apodisation: good to about NA 1).

    Parameters
    ----------
    size_px
        Odd side of the result.
    pixel_um
        Pixel in the specimen. Where it is too coarse for the light's intensity (``wavelength / 4 na``),
        the PSF is computed on a finer grid and summed over the pixel's area, as a camera does.
    na, wavelength_um, index
        Of the objective, the emitted light and the immersion.
    thickness_um
        Light comes from a slab of this thickness, 0 for a plane.
    defocus_um
        Distance of the slab's middle from the focal plane.

    Returns
    -------
    numpy.ndarray
        float64 ``(size_px, size_px)``, sum 1, symmetrical about its centre pixel.

    Raises
    ------
    ValueError
        Where the light spreads over so many pixels that the grid for it would not fit into memory.
    """
    fine = math.ceil(pixel_um * 4 * na / wavelength_um - 1e-9) | 1  # odd, so that the centre stays a centre
    step_um = pixel_um / fine
    planes = round(thickness_um / DEPTH_STEP_UM) | 1
    depth_um = (np.arange(planes) - planes // 2) * (thickness_um / planes) + defocus_um
    cone_px = abs(depth_um).max() * na / math.sqrt(index**2 - na**2) / step_um
    # Room for the defocused cone: the discrete transform would fold it back into the picture.
    n = max(4 * size_px * fine, 2 * math.ceil(cone_px) + size_px * fine) | 1
    if n > LARGEST_GRID:
        raise ValueError(f"the PSF needs a grid of {n}x{n} px to be computed, at most {LARGEST_GRID} is possible")
    f = np.fft.fftfreq(n, step_um)
    k2 = f[:, None] ** 2 + f**2
    pupil = k2 <= (na / wavelength_um) ** 2
    axial = 2 * np.pi * (np.sqrt(np.maximum((index / wavelength_um) ** 2 - k2, 0)) - index / wavelength_um)
    light = np.zeros((n, n))
    for z in depth_um:
        light += abs(np.fft.ifft2(pupil * np.exp(1j * axial * z))) ** 2
    reach, centre = size_px * fine // 2, n // 2
    near = slice(centre - reach, centre + reach + 1)
    psf = np.fft.fftshift(light)[near, near].reshape(size_px, fine, size_px, fine).sum((1, 3))
    return np.asarray(psf / psf.sum())
