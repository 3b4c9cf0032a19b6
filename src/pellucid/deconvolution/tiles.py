"""Windows of one shape that cover a picture, and the part of it that each one answers for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

__all__ = ["Tile", "cover"]


@dataclass(frozen=True)
class Tile:
    """One window.

    Parameters
    ----------
    window
        What is restored, within the picture.
    core
        What is kept of it, within the picture.
    within
        The same within the window.
    """

    window: tuple[slice, ...]
    core: tuple[slice, ...]
    within: tuple[slice, ...]


def cover(shape: Sequence[int], tile: Sequence[int], overlap: Sequence[int]) -> list[Tile]:
    """Cover a picture with windows of `tile`; neighbours share at least twice `overlap`, cores touch and never overlap.

    A side of the tile that is not below the picture's covers it at once. The windows are spread evenly, so that
    their overlaps are larger rather than one window smaller: one set of kernels serves all.

    Raises
    ------
    ValueError
        Where an overlap leaves nothing of the tile.
    """
    axes = []
    for n, most, shared in zip(shape, tile, overlap, strict=True):
        side = min(most, n)
        if side < n and side <= 2 * shared:
            raise ValueError(f"a tile of {side} with an overlap of {shared} on each side has no core")
        count = 1 if side == n else math.ceil((n - 2 * shared) / (side - 2 * shared))
        starts = [round(i * (n - side) / max(count - 1, 1)) for i in range(count)]
        edges = [0, *((b + a + side) // 2 for a, b in pairwise(starts)), n]
        axes.append(
            [
                (slice(s, s + side), slice(a, b), slice(a - s, b - s))
                for s, a, b in zip(starts, edges[:-1], edges[1:], strict=True)
            ]
        )
    return [Tile(*(tuple(parts) for parts in zip(*combination, strict=True))) for combination in product(*axes)]
