"""How much a solver takes, and the tiles with which it takes no more than it may.

Measured on the CPU (torch with MKL, arrays above the 32 MB to which glibc may hold on): making the kernels takes 36
bytes a voxel of the padded grid; running, what lasts and three arrays beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pellucid.deconvolution.grid import Grid
from pellucid.deconvolution.recipe import Recipe
from pellucid.optics.projectors import fast_size

__all__ = [
    "Needed",
    "choose_tile",
    "given_limits",
    "keep_large_blocks",
    "limit_bytes",
    "needed",
    "overlap_for",
    "peak_bytes",
]

_NUMBER = 4
_LEAST_CORE = 16
_OF_A_COMPUTER = 0.75
_OF_A_GPU = 0.8
_LEAST = 0.1
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


@dataclass(frozen=True)
class Needed:
    """Bytes that a deconvolver takes beside the picture and its result: always, while it restores, and at most."""

    lasting: int
    running: int
    peak: int


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
        whole, part = min(psutil.virtual_memory().total, *given_limits()), _OF_A_COMPUTER
    return int(max(whole * part - beside, whole * _LEAST))


def given_limits() -> list[int]:
    """Return the limits that somebody has set on this process; none is a very large one."""
    limits = [sys.maxsize]
    if sys.platform != "win32":
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft = resource.getrlimit(kind)[0]
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
    for file in _of_groups():
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # no container, or no limit in it
            continue
    return limits


def _of_groups() -> Iterator[Path]:
    """Give the files in which Linux has the limits of this process's group and of those around it."""
    root = Path("/sys/fs/cgroup")
    yield root / "memory.max"
    yield root / "memory/memory.limit_in_bytes"
    try:
        own = Path("/proc/self/cgroup").read_text()
    except OSError:
        return
    for line in own.splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            at = root / kinds / path.lstrip("/")
            for folder in (at, *at.parents):
                if folder == root:
                    break
                yield folder / ("memory.max" if not kinds else "memory.limit_in_bytes")


def keep_large_blocks() -> None:
    """Let glibc hold on to large blocks, for programs that restore one stack after the other in their main thread.

    There it gives each transform's result of more than 32 MB back to the system and fetches the next one anew, page by
    page: a quarter of the time of a stack. A session's threads have memory of their own, for which this is not so.
    Other systems have nothing of the kind. What is held is at most what was needed at once.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            change = ctypes.CDLL(None).mallopt
            for parameter, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**30)):
                change(parameter, value)


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
