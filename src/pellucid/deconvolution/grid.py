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
    outside : list of tuple of slice
        The padding, in pieces that do not overlap: the last axis first, within the lines that the picture fills.
    """

    def __init__(self, shape: Sequence[int], pads: Sequence[int]) -> None:
        self.shape = tuple(fast_size(n + 2 * pad) for n, pad in zip(shape, pads, strict=True))
        before = [(whole - n) // 2 for whole, n in zip(self.shape, shape, strict=True)]
        self.inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))

        self.outside: list[tuple[slice, ...]] = []
        for axis in reversed(range(len(shape))):
            for side in (slice(0, self.inside[axis].start), slice(self.inside[axis].stop, self.shape[axis])):
                if side.stop > side.start:
                    after = (slice(None),) * (len(shape) - axis - 1)
                    self.outside.append((*self.inside[:axis], side, *after))

    def borders(self, padded: torch.Tensor, *, fades: bool) -> list[Border]:
        """Return what continues the picture, to be called in this order once the inside is filled."""
        found = []
        for around in self.outside:
            axis = max(a for a, part in enumerate(around) if part != slice(None))
            side, inside = around[axis], self.inside[axis]
            n = side.stop - side.start
            first = side.start == 0
            far = torch.arange(1, n + 1, device=padded.device)
            weight = 0.5 * (1 + torch.cos(math.pi * far / (n + 1)))
            weight = (weight.flip(0) if first else weight).reshape([-1 if a == axis else 1 for a in range(padded.ndim)])
            edge = slice(inside.start, inside.start + 1) if first else slice(inside.stop - 1, inside.stop)
            nearest = padded[(*around[:axis], edge, *around[axis + 1 :])]
            found.append(Border(padded[around], nearest, weight if fades else None))
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
