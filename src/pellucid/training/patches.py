"""Cuts of planes: turned, enlarged or reduced, and what a batch of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["Batch", "Patches", "cut"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a network is trained on in one step.

    Parameters
    ----------
    given
        float32 ``(n, frames, y, x)``, scaled to about 0 to 1 as a frame is before the network.
    target
        float32 ``(n, 1, scale * y, scale * x)`` in the same units.
    mask
        Where the loss is taken, of the shape of `target`; None: everywhere.
    noise
        ``(n,)``: mean square of what the network has to take away, about, by which losses are weighed.
    """

    given: torch.Tensor
    target: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor | None = None


class Patches(Protocol):
    """Where batches come from; all chance from the generator that is given."""

    def draw(self, count: int, side: int, chance: torch.Generator) -> Batch:
        """Return `count` patches of `side` pixels, as they are given to the network."""


def cut(
    planes: torch.Tensor, side: int, chance: torch.Generator, zoom: tuple[float, float] = (1.0, 1.0)
) -> torch.Tensor:
    """Cut the same square out of all planes, flip and turn it, and make it larger or smaller.

    Parameters
    ----------
    planes
        float32 ``(k, y, x)``.
    side
        Of the result.
    chance
    zoom
        Bounds of the magnification, drawn evenly in its logarithm; above 1 the structures grow. Noise of enlarged
        planes is correlated between pixels, that of reduced ones is less. Both stay independent between repeats.

    Returns
    -------
    torch.Tensor
        float32 ``(k, side, side)``.
    """
    low, high = zoom
    by = low * (high / low) ** _uniform(chance)
    if abs(by - 1) < 0.05:
        by = 1.0
    need = min(round(side / by), *planes.shape[-2:])
    top, left = (int(_uniform(chance) * (n - need + 1)) for n in planes.shape[-2:])
    patch = planes[:, top : top + need, left : left + need]
    if need != side:
        patch = torch.nn.functional.interpolate(
            patch[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )[0]
    turn = int(_uniform(chance) * 8)
    if turn & 4:
        patch = patch.flip(-1)
    return torch.rot90(patch, turn & 3, (-2, -1))


def _uniform(chance: torch.Generator) -> float:
    return float(torch.rand((), generator=chance))
