"""How a network is used on frames of one shape: the sides of its tiles, how many at once, and what all of it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.errors import StageError
from pellucid.models.engine import Engine
from pellucid.models.model import Model, Port, Side
from pellucid.restoration.tiles import BLEND, Axis, lay

__all__ = ["Fit", "Task", "fit", "shape_of"]

_FLOAT = 4
_FULL = 2**22
"""Pixels (voxels) at once with which a GPU has enough to do; more only makes a frame later."""
_HALO = {2: 64, 3: 16}
"""Where a model's card has none: most published networks see no farther."""


@dataclass(frozen=True)
class Task:
    """What is to be restored.

    Parameters
    ----------
    pictures
        Of a frame: planes of a stack that a network of planes is given one by one, or colours.
    channels
        Given at once for each: the last frames, or the colours.
    space
        ``([z,] y, x)`` of a picture.
    dtype, output
        Of frames and of results.
    results
        Channels that come out.
    device
    """

    pictures: int
    channels: int
    space: tuple[int, ...]
    dtype: str
    output: str
    results: int
    device: str


@dataclass(frozen=True)
class Fit:
    """What was chosen.

    Parameters
    ----------
    axes
        Of each picture.
    batch
        Tiles in one call of the network.
    nbytes
        All that it takes beside the frame and its result.
    """

    axes: tuple[Axis, ...]
    batch: int
    nbytes: int

    @property
    def tile(self) -> tuple[int, ...]:
        """Sides of a tile."""
        return tuple(axis.side for axis in self.axes)

    @property
    def tiles(self) -> int:
        """Of each picture."""
        return math.prod(len(axis.starts) for axis in self.axes)


def shape_of(port: Port, batch: int, channels: int, space: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a tensor in the axes of a port."""
    sizes: Mapping[str, int] = {"b": batch, "c": channels, **dict(zip("zyx"[3 - len(space) :], space, strict=True))}
    return tuple(sizes[axis] for axis in port.axes)


def fit(
    model: Model,
    engine: Engine,
    task: Task,
    allowed: int,
    *,
    tile: Sequence[int] | None = None,
    batch: int | None = None,
) -> Fit:
    """Choose tiles and batch.

    Whole pictures where the network takes such sides and the memory suffices; else the longest side is cut first. On a
    CPU one tile at once; on a GPU as many as fit, up to 4 million pixels.

    Parameters
    ----------
    model, engine, task
    allowed
        Bytes.
    tile, batch
        As wished; None: chosen.

    Raises
    ------
    StageError
        Where a tile was wished for that the network does not take, or nothing fits.
    """
    sides = model.given.sides
    halo = model.halo or (_HALO[len(sides)],) * len(sides)
    if "b" not in model.given.axes:
        batch = 1
    if tile is not None:
        wished = tuple(tile)
        least = [_least(side, h if model.halo else 0) for side, h in zip(sides, halo, strict=True)]
        best = tuple(side.up(min(n, max(w, m))) for side, n, w, m in zip(sides, task.space, wished, least, strict=True))
        taken = tuple(b if w >= n else w for b, n, w in zip(best, task.space, wished, strict=True))
        if not all(side.takes(w) and w >= min(b, m) for side, w, b, m in zip(sides, taken, best, least, strict=True)):
            why = f" (it looks {max(halo)} px around, on both sides)" if model.halo else ""
            raise StageError(
                f'tile = {list(wished)}: model "{model.name}" does not take such sides{why}; '
                f"give {list(best)}, or leave it out"
            )
        return _batched(model, engine, task, allowed, taken, halo, batch, must=True)
    counts = [1] * len(sides)
    while True:
        taken = tuple(
            side.up(n if count == 1 else -(-(n + (count - 1) * (2 * h + BLEND)) // count))
            for side, n, count, h in zip(sides, task.space, counts, halo, strict=True)
        )
        found = _batched(model, engine, task, allowed, taken, halo, batch, must=False)
        if found.nbytes <= allowed:
            return found
        # Where a tile is hardly more than its halo, smaller ones would only multiply the work.
        free = [
            i
            for i, (side, h) in enumerate(zip(taken, halo, strict=True))
            if sides[i].step and side > sides[i].up(max(2 * h + BLEND + max(h // 2, sides[i].step), sides[i].least + 1))
        ]
        if not free:
            raise StageError(
                f"{'x'.join(map(str, task.space))} needs {found.nbytes / 1e9:.2g} GB even in tiles of "
                f"{'x'.join(map(str, taken))}, and {allowed / 1e9:.2g} GB may be taken. Give memory_gb a larger number"
            )
        counts[max(free, key=lambda i: taken[i])] += 1


def _least(side: Side, halo: int) -> int:
    """Return the least side of a tile of which something is left between its halos."""
    return side.up(2 * halo + 2 * side.step) if side.step and halo else side.step


def _batched(
    model: Model,
    engine: Engine,
    task: Task,
    allowed: int,
    side: tuple[int, ...],
    halo: Sequence[int],
    batch: int | None,
    *,
    must: bool,
) -> Fit:
    """Lay the tiles, and take as many at once as is wished or as fit."""
    axes = tuple(lay(n, s, a, h) for n, s, a, h in zip(task.space, side, model.given.sides, halo, strict=True))
    total = math.prod(len(axis.starts) for axis in axes) * task.pictures
    most = 1 if task.device == "cpu" else max(1, _FULL // math.prod(side))
    if batch is not None:
        most = batch
    number = min(total, most)
    while True:
        number = -(-total // -(-total // number))  # no smaller for as many calls
        found = Fit(axes, number, _nbytes(model, engine, task, axes, number))
        if found.nbytes <= allowed or number == 1 or batch is not None:
            if must and found.nbytes > allowed:
                raise StageError(
                    f"tiles of {'x'.join(map(str, side))}, {number} at once, need {found.nbytes / 1e9:.2g} GB, and "
                    f"{allowed / 1e9:.2g} GB may be taken. Leave out tile and batch, or give memory_gb a larger number"
                )
            return found
        number = max(1, number // 2)


def _nbytes(model: Model, engine: Engine, task: Task, axes: Sequence[Axis], batch: int) -> int:
    """Return what `pellucid.restoration.network.Restoration` allocates, and its engine."""
    n, c = task.pictures, task.channels
    side = [axis.side for axis in axes]
    scale = model.scale**2
    goes_in, comes_out = batch * c * math.prod(side), batch * task.results * math.prod(side) * scale
    shape = shape_of(model.given, batch, c, side)
    total = (
        engine.needed(model, shape, task.device)
        + goes_in * np.dtype(model.given.dtype).itemsize
        + comes_out * np.dtype(model.result.dtype).itemsize
    )
    pixels = n * math.prod(task.space)
    padded = any(axis.padded > axis.length for axis in axes)
    split = any(len(axis.starts) > 1 for axis in axes)
    direct = is_direct(model.given, axes, batch, n)
    numbers = 0 if direct else pixels * c
    numbers += pixels * (c + 1) if model.frames > 1 or c > 1 else 0
    numbers += n * c * math.prod(axis.padded for axis in axes) if padded else 0
    numbers += pixels * task.results * scale if task.output != "float32" and not _direct_out(model, direct) else 0
    numbers += comes_out // batch if split else 0
    numbers += pixels if np.dtype(task.dtype).kind == "f" else 0
    return total + _FLOAT * numbers


def is_direct(port: Port, axes: Sequence[Axis], batch: int, pictures: int) -> bool:
    """Tell whether the network's own tensor holds the frame: no tiles, nothing mirrored, all pictures at once."""
    whole = all(axis.padded == axis.length and len(axis.starts) == 1 for axis in axes)
    usual = port.axes.replace("b", "").replace("c", "") == "zyx"[3 - port.ndim :]
    first = port.axes.startswith("bc") or (port.axes[:1] in "bc" and len(port.axes) == port.ndim + 1)
    return whole and batch == pictures and port.dtype == "float32" and usual and (first or len(port.axes) == port.ndim)


def _direct_out(model: Model, direct: bool) -> bool:
    return direct and model.result.dtype == "float32"
