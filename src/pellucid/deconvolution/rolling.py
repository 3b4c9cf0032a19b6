"""A volume that every new plane updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from pellucid.deconvolution.whole import Deconvolver

__all__ = ["Rolling"]


class Rolling:
    """Restore a plane among those that were seen last at the other depths.

    Planes never seen yet are taken to look like the nearest one that was. Where the position changes the volume
    begins anew. Nothing else is carried from one plane to the next: the result follows from the last planes alone.

    Parameters
    ----------
    deconvolver
        Of the whole volume.
    shape
        ``(z, y, x)``.
    dtype, output
        Of planes and of results.
    device
    """

    def __init__(
        self,
        deconvolver: Deconvolver,
        shape: tuple[int, ...],
        dtype: str,
        output: Literal["float32", "uint16"],
        device: str,
    ) -> None:
        self._deconvolver = deconvolver
        with torch.inference_mode(False):
            self._volume = torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
            self._restored = torch.zeros(shape, dtype=getattr(torch, output), device=device)
        self._z = 0
        self._place: tuple[int, int] | None = None
        self._seen: set[int] = set()

    def at(self, axes: Mapping[str, int]) -> None:
        """Say where the next plane belongs."""
        place = axes.get("p", 0), axes.get("g", 0)
        if place != self._place:
            self._place = place
            self._seen.clear()
        self._z = min(axes.get("z", 0), self._volume.shape[0] - 1)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: put the plane `given` into the volume, restore that, fill `result` with the plane."""
        volume, z, seen = self._volume, self._z, self._seen
        if given.is_floating_point():  # a bad pixel stays what it was: it would spoil all planes until z comes again
            torch.where(given.isfinite(), given, volume[z], out=volume[z])
        else:
            volume[z].copy_(given)
        seen.add(z)
        if len(seen) < volume.shape[0]:
            for other in set(range(volume.shape[0])) - seen:
                volume[other].copy_(volume[min(seen, key=lambda s: (abs(s - other), s))])
        self._deconvolver(volume, self._restored)
        result.copy_(self._restored[z])
