"""A picture in tiles, as a network takes them, and put together again without a seam.

The border of a tile is spoiled by what the network does not see beyond it, as far as `pellucid.models.model.Model.halo`
says. Neighbours overlap by twice that and by a little more, over which one fades into the other. Networks that halve
their input see a difference between a tile that begins at an even pixel and one that begins at an odd one: so tiles
begin only where the network's own step would have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import torch

from pellucid.models.model import Side

__all__ = ["Axis", "Tiling", "lay", "mirrored"]

FIXED_STEP = 16
"""Of networks with one fixed side nobody knows how often they halve it; four times is usual."""
BLEND = 16
"""Pixels over which a tile fades into the next, where there is room."""


@dataclass(frozen=True)
class Axis:
    """One axis of a picture in tiles.

    Parameters
    ----------
    length
        Of the picture.
    padded
        With what is mirrored beyond its end, so that tiles of `side` cover it.
    side
        Of a tile.
    starts
        Of the tiles, within the padded picture.
    halo
        What is left out of a tile at a border that is none of the picture.
    blend
        Over how much of the overlap a tile fades into the next.
    """

    length: int
    padded: int
    side: int
    starts: tuple[int, ...]
    halo: int
    blend: int

    def weights(self, scale: int) -> list[torch.Tensor]:
        """Return for each tile what its result counts along this axis; they add up to 1 everywhere."""
        first = torch.ones(self.side * scale)
        rows = [first.clone() for _ in self.starts]
        place = (torch.arange(self.side * scale) + 0.5) / scale
        for i, (a, b) in enumerate(pairwise(self.starts)):
            middle = (b + a + self.side) / 2
            for row, start, sign in ((rows[i], a, 1), (rows[i + 1], b, -1)):
                way = ((place + start - middle) / max(self.blend, 1 / scale) + 0.5).clamp_(0, 1)
                rising = way * way * (3 - 2 * way)
                row.mul_(1 - rising if sign > 0 else rising)
        return rows


def lay(length: int, side: int, allowed: Side, halo: int) -> Axis:
    """Lay tiles of one side along an axis.

    Parameters
    ----------
    length
        Of the picture.
    side
        Of a tile; a length that is allowed, and not below the network's step where it does not cover the picture.
    allowed
        Of the network.
    halo
        Of the network; less is used where the tile is too small for it.

    Returns
    -------
    Axis
        Of one tile, where that covers the picture.
    """
    if side >= length:
        return Axis(length, side, side, (0,), 0, 0)
    step = allowed.step or FIXED_STEP
    # At least a quarter of each tile is kept, whatever the halo, where a network with a small fixed side has no more.
    kept = step if allowed.step else max(side // 4, step)
    halo = max(min(halo, (side - kept) // 2), 0)
    blend = max(0, min(BLEND, (side - 2 * halo) // 4))
    advance = max((side - 2 * halo - blend) // step, 1)
    span = -(-(length - side) // step)
    count = 1 + -(-span // advance)
    starts = tuple(i * span // (count - 1) * step for i in range(count))
    gaps = [b - a for a, b in pairwise(starts)]
    blend = max(min(blend, *gaps, side - max(gaps) - 2 * halo), 0)
    return Axis(length, side + span * step, side, starts, halo, blend)


def mirrored(length: int, padded: int) -> list[int]:
    """Return for each place of a padded axis the one that it mirrors; the last pixel is not repeated."""
    period = max(2 * (length - 1), 1)
    return [min(i % period, period - i % period) if length > 1 else 0 for i in range(padded)]


class Tiling:
    """Cuts pictures into tiles, and puts the results together.

    Parameters
    ----------
    axes
        Of the picture, in order.
    pictures
        How many there are; their tiles follow one another.
    batch
        Tiles that the network is given at once.
    scale
        Pixels of the result for one given; along z always 1.
    device

    Attributes
    ----------
    whole : bool
        One tile is the picture itself, with nothing to be mirrored.
    rounds : int
        Calls of the network for all pictures.
    scales : tuple of int
        Along each axis.
    """

    def __init__(self, axes: Sequence[Axis], pictures: int, batch: int, scale: int, device: str) -> None:
        self._axes = tuple(axes)
        self._batch = batch
        self.scales = tuple(1 if len(axes) == 3 and i == 0 else scale for i in range(len(axes)))
        self.whole = all(a.padded == a.length and len(a.starts) == 1 for a in axes)
        self._pads = any(a.padded > a.length for a in axes)
        self._blends = any(len(a.starts) > 1 for a in axes)
        corners = [(n, at) for n in range(pictures) for at in product(*(range(len(a.starts)) for a in axes))]
        self.rounds = math.ceil(len(corners) / batch)
        corners += [corners[-1]] * (self.rounds * batch - len(corners))  # the network's batch never changes
        self._given = [(n, self._window(at)) for n, at in corners]
        self._where = [(n, *self._result(at)) for n, at in corners]
        self._own = math.prod(len(a.starts) for a in axes) * pictures
        self._core: tuple[Any, ...] = (..., *(slice(0, a.length) for a in axes))
        self._mirrors: list[tuple[int, int, torch.Tensor]] = []
        self._weights: list[list[torch.Tensor]] = []
        with torch.inference_mode(False):
            for i, axis in enumerate(axes):
                if axis.padded > axis.length:
                    rest = torch.tensor(mirrored(axis.length, axis.padded)[axis.length :], device=device)
                    self._mirrors.append((i - len(axes), axis.length, rest))
            if self._blends:
                shaped = [
                    [w.to(device).reshape([-1 if j == i else 1 for j in range(len(axes))]) for w in axis.weights(s)]
                    for i, (axis, s) in enumerate(zip(axes, self.scales, strict=True))
                ]
                self._weights = [[shaped[i][k] for i, k in enumerate(at)] for _, at in corners]

    @property
    def padded(self) -> tuple[int, ...] | None:
        """Sides of the picture with what is mirrored; None where nothing is."""
        return tuple(a.padded for a in self._axes) if self._pads else None

    @property
    def blends(self) -> bool:
        """There are several tiles to a picture."""
        return self._blends

    def _window(self, at: tuple[int, ...]) -> tuple[Any, ...]:
        return tuple(slice(a.starts[i], a.starts[i] + a.side) for a, i in zip(self._axes, at, strict=True))

    def _result(self, at: tuple[int, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return where a tile's result belongs, and what of it lies within the picture."""
        where, of_it = [], []
        for axis, i, s in zip(self._axes, at, self.scales, strict=True):
            start = axis.starts[i]
            stop = min(start + axis.side, axis.length)
            where.append(slice(start * s, stop * s))
            of_it.append(slice(0, (stop - start) * s))
        return tuple(where), tuple(of_it)

    def pad(self, picture: torch.Tensor, padded: torch.Tensor) -> None:
        """Hot: copy `picture` ``(n, c, ...)`` into `padded`, and mirror it beyond its ends."""
        padded[self._core].copy_(picture)
        for axis, length, rest in self._mirrors:
            padded.narrow(axis, length, rest.numel()).copy_(padded.index_select(axis, rest))

    def cut(self, picture: torch.Tensor, turn: int, tiles: torch.Tensor) -> None:
        """Hot: fill `tiles` ``(batch, c, ...)`` for one call of the network from the padded `picture`."""
        for i, (n, window) in enumerate(self._given[turn * self._batch : (turn + 1) * self._batch]):
            tiles[i].copy_(picture[(n, slice(None), *window)])

    def put(self, tiles: torch.Tensor, turn: int, result: torch.Tensor) -> None:
        """Hot: add the network's `tiles` to `result` ``(n, c, ...)``, which was zero before the first turn."""
        first = turn * self._batch
        for i in range(min(self._batch, self._own - first)):
            n, where, of_it = self._where[first + i]
            there = result[(n, slice(None), *where)]
            if not self._blends:
                there.copy_(tiles[(i, slice(None), *of_it)])
                continue
            tile = tiles[i] * self._weights[first + i][0]
            for weight in self._weights[first + i][1:]:
                tile.mul_(weight)
            there.add_(tile[(slice(None), *of_it)])
