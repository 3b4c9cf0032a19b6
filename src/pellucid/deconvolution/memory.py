"""How much a solver takes, and the tiles with which it takes no more than it may.

Measured on the CPU (torch with MKL, arrays above the 32 MB to which glibc may hold on): making the kernels takes 36
bytes a voxel of the padded grid; running, what lasts and three arrays beside it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from pellucid.deconvolution.grid import Grid
from pellucid.deconvolution.recipe import Recipe
from pellucid.memory import Needed
from pellucid.optics.projectors import fast_size

__all__ = ["choose_tile", "needed", "overlap_for", "peak_bytes"]

_NUMBER = 4
_LEAST_CORE = 16


def needed(shape: Sequence[int], tile: Sequence[int], recipe: Recipe, output: str, device: str) -> Needed:
    """Return what a deconvolver of `shape` in tiles takes."""
    voxels = math.prod(Grid(tile, recipe.pads).shape)
    lasting = 3 if recipe.is_linear else 5
    lasting += recipe.acceleration == "biggs-andrews"
    passing = max(3, len(shape) + 4) if recipe.tv else 3
    if device != "cpu":
        passing += 1  # cuFFT's own room
    making = (7 if recipe.is_linear else 9) if device == "cpu" else 0
    whole = math.prod(shape) if output == "uint16" and tuple(tile) != tuple(shape) else 0
    return Needed(
        *(_NUMBER * (voxels * n + whole) for n in (lasting, lasting + passing, max(lasting + passing, making)))
    )


def peak_bytes(shape: Sequence[int], tile: Sequence[int], recipe: Recipe, output: str, device: str) -> int:
    """Return the most of it."""
    return needed(shape, tile, recipe, output, device).peak


def overlap_for(psf_shape: Sequence[int], recipe: Recipe) -> tuple[int, ...]:
    """Return how much of a tile is spoiled by its border, each axis by itself.

    A step carries it on by the PSF's sides, less and less of it; what remains after many goes on as by diffusion. In
    stacks 64 voxels are enough for the core of a PSF, and the more would multiply the work.
    """
    spread = math.sqrt(max(recipe.most_iterations / 8, 1.0))
    sides, most = (2, 64) if len(psf_shape) == 3 else (3, sys.maxsize)
    return tuple(
        min(math.ceil(sides * (n // 2) * spread), most) + pad for n, pad in zip(psf_shape, recipe.pads, strict=True)
    )


def choose_tile(
    shape: Sequence[int], psf_shape: Sequence[int], recipe: Recipe, output: str, device: str, allowed: int
) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Return the largest tile that stays within `allowed` bytes and its overlap; None where none does.

    The longest side is cut first, so that tiles are near to cubes and little is computed twice.
    """
    overlap = overlap_for(psf_shape, recipe)
    counts = [1] * len(shape)

    def sides() -> tuple[int, ...]:
        return tuple(
            n if count == 1 else min(n, fast_size(-(-(n - 2 * o) // count) + 2 * o + 2 * pad) - 2 * pad)
            for n, count, o, pad in zip(shape, counts, overlap, recipe.pads, strict=True)
        )

    while peak_bytes(shape, tile := sides(), recipe, output, device) > allowed:
        cores = [side - (2 * o if count > 1 else 0) for side, count, o in zip(tile, counts, overlap, strict=True)]
        free = [i for i, (n, o) in enumerate(zip(shape, overlap, strict=True)) if n > 2 * o + 2 * _LEAST_CORE]
        free = [i for i in free if cores[i] > _LEAST_CORE]
        if not free:
            return None, overlap
        counts[max(free, key=lambda i: cores[i])] += 1
    return tile, overlap
