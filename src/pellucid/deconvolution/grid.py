"""The padded grid of a transform, and how a picture lies in it.

A transform is periodic, so light would come back in at the other side. The picture is continued by its edge pixels
(measured: 0.2 dB better in the outer 5% than its mirror image, 0 dB behind a larger crop of the same field) and on to
a size that is fast to transform.
"""

from __future__ import annotations

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

    def borders(self, padded: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return pairs of views ``(border, its edge pixels)``, to be copied in this order once the inside is filled."""
        pairs = []
        # The last axis first, within the lines that the picture fills; the next ones take what is there by then.
        for axis in reversed(range(len(self.shape))):
            lines = padded[tuple(self.inside[a] if a < axis else slice(None) for a in range(len(self.shape)))]
            first, last = self.inside[axis].start, self.inside[axis].stop
            for start, stop, edge in ((0, first, first), (last, self.shape[axis], last - 1)):
                if stop > start:
                    border = lines.narrow(axis, start, stop - start)
                    pairs.append((border, lines.narrow(axis, edge, 1).expand_as(border)))
        return pairs
