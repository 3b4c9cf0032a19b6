"""Total variation, which asks for few edges."""

from __future__ import annotations

import torch

__all__ = ["curvature"]

_FLAT = 1e-3
"""Slopes below it, in units of the mean a pixel, count as none: their direction is noise."""


def curvature(image: torch.Tensor) -> torch.Tensor:
    """Return ``div(grad image / |grad image|)``, the derivative of the total variation with its sign turned.

    Rudin, Osher and Fatemi 1992; Dey et al. 2006 for its use in Richardson-Lucy. Forward differences, then backward
    ones, periodic, all axes alike.

    Parameters
    ----------
    image
        float32, any number of axes, in units of its mean.

    Returns
    -------
    torch.Tensor
        float32, the same shape, between ``-2 ndim`` and ``2 ndim``.
    """
    slopes = [torch.roll(image, -1, axis).sub_(image) for axis in range(image.ndim)]
    length = torch.full_like(image, _FLAT**2)
    for slope in slopes:
        length.addcmul_(slope, slope)
    length.sqrt_()
    total = torch.zeros_like(image)
    for axis, slope in enumerate(slopes):
        slope.div_(length)
        total.add_(slope).sub_(torch.roll(slope, 1, axis))
    return total
