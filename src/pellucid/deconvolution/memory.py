"""How much a solver takes, and the tiles with which it takes no more than it may.

Measured on the CPU (torch with MKL, arrays above the 32 MB to which glibc may hold on): making the kernels takes 36
bytes a voxel of the padded grid; running, what lasts and three arrays beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path

import psutil
import torch

from pellucid.deconvolution.grid import Grid
from pellucid.deconvolution.recipe import Recipe
from pellucid.optics.projectors import fast_size

__all__ = ["choose_tile", "limit_bytes", "overlap_for", "peak_bytes"]

_NUMBER = 4
_LEAST_CORE = 16
_OF_A_COMPUTER = 0.75
_OF_A_GPU = 0.8
_LEAST = 0.1


def peak_bytes(shape: Sequence[int], tile: Sequence[int], recipe: Recipe, output: str, device: str) -> int:
    """Return the most memory that a deconvolver of `shape` in tiles takes beside the picture and its result."""
    voxels = prod(Grid(tile, recipe.pads).shape)
    lasting = 3 if recipe.is_linear else 5
    lasting += recipe.acceleration == "biggs-andrews"
    passing = max(3, len(shape) + 4) if recipe.tv else 3
    if device != "cpu":
        passing += 1  # cuFFT's own room
    making = (7 if recipe.is_linear else 9) if device == "cpu" else 0
    whole = prod(shape) if output == "uint16" and tuple(tile) != tuple(shape) else 0
    return _NUMBER * (voxels * max(lasting + passing, making) + whole)


def limit_bytes(device: str, beside: int = 0) -> int:
    """Return what a deconvolution may take here: a part of all there is, whatever is free at the moment.

    What is free changes from minute to minute; tiles that followed it would change the result in its last digits.

    Parameters
    ----------
    device
    beside
        Bytes that the pictures themselves take.
    """
    if device != "cpu":
        whole, part = torch.cuda.get_device_properties(device).total_memory, _OF_A_GPU
    else:
        whole, part = min(psutil.virtual_memory().total, *_given_limits()), _OF_A_COMPUTER
    return int(max(whole * part - beside, whole * _LEAST))


def _given_limits() -> list[int]:
    """Return the limits that somebody has set on this process; none is a very large one."""
    limits = [sys.maxsize]
    if sys.platform != "win32":
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft = resource.getrlimit(kind)[0]
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # no container, or no limit in it
            continue
    return limits


def overlap_for(psf_shape: Sequence[int], recipe: Recipe) -> tuple[int, ...]:
    """Return how much of a tile is spoiled by its border, each axis by itself."""
    return tuple(min(2 * (n // 2), 64) + pad for n, pad in zip(psf_shape, recipe.pads, strict=True))


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
