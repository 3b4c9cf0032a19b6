"""The padded grid of a transform, and how a picture lies in it.

A transform is periodic, so light would come back in at the other side. The picture is continued by its edge pixels
(measured in planes: 0.2 dB better in the outer 5% than its mirror image, 0 dB behind a larger crop of the same field)
and on to a size that is fast to transform. In stacks they fade into the mean (1 dB better there than without: the cone
of light of what lies outside reaches far).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pellucid.optics.projectors import fast_size

__all__ = ["Grid"]


class Grid:
    """Where a picture of `shape` lies within its padding.

    Parameters
    ----------
    shape
        ``(y, x)`` or ``(z, y, x)``.
    pads
        Least number of pixels on each side, for each axis.

    Attributes
    ----------
    shape : tuple of int
        Of the grid.
    inside : tuple of slice
        Of the picture within it.
    """

    def __init__(self, shape: Sequence[int], pads: Sequence[int]) -> None:
        self.shape = tuple(fast_size(n + 2 * pad) for n, pad in zip(shape, pads, strict=True))
        before = [(whole - n) // 2 for whole, n in zip(self.shape, shape, strict=True)]
        self.inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))

    def borders(self, padded: torch.Tensor, *, fades: bool) -> list[Border]:
        """Return what continues the picture, to be called in this order once the inside is filled."""
        found = []
        ndim = len(self.shape)
        # The last axis first, within the lines that the picture fills; the next ones take what is there by then.
        for axis in reversed(range(ndim)):
            lines = padded[tuple(self.inside[a] if a < axis else slice(None) for a in range(ndim))]
            first, last, n = self.inside[axis].start, self.inside[axis].stop, self.shape[axis]
            for start, stop, edge in ((0, first, first), (last, n, last - 1)):
                if stop > start:
                    far = torch.arange(1, stop - start + 1, device=padded.device)
                    weight = 0.5 * (1 + torch.cos(math.pi * far / (stop - start + 1)))
                    weight = (weight.flip(0) if start == 0 else weight).reshape(
                        [-1 if a == axis else 1 for a in range(ndim)]
                    )
                    border = lines.narrow(axis, start, stop - start)
                    found.append(Border(border, lines.narrow(axis, edge, 1), weight if fades else None))
        return found


class Border:
    """One side of the padding: repeats the edge, and goes over into 1, the mean, where it has a weight."""

    def __init__(self, border: torch.Tensor, edge: torch.Tensor, weight: torch.Tensor | None) -> None:
        self._border, self._edge, self._weight = border, edge, weight

    def __call__(self) -> None:
        """Hot: fill the border."""
        if self._weight is None:
            self._border.copy_(self._edge)
        else:
            self._border.copy_(self._edge).sub_(1.0).mul_(self._weight).add_(1.0)
