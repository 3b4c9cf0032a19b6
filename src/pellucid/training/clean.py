"""Clean planes, simulated or pictures with little noise, spoiled by a simulated camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.training.images import read_planes
from pellucid.training.noise import Camera, level_of_black
from pellucid.training.patches import Batch, cut
from pellucid.training.specimens import draw_plane

__all__ = ["Clean"]


class Clean:
    """Patches of clean planes; what is given is a simulated exposure of them.

    Parameters
    ----------
    planes
        Each ``(y, x)``, scaled so that bright structures are at about 1.
    camera
    zoom
        See `pellucid.training.patches.cut`.
    scale
        What is given is binned by this factor before it is exposed: 2 or 4 for super-resolution.
    """

    def __init__(
        self,
        planes: Sequence[np.ndarray[Any, Any]],
        camera: Camera,
        *,
        zoom: tuple[float, float] = (0.6, 1.6),
        scale: int = 1,
    ) -> None:
        self._planes = [torch.from_numpy(np.ascontiguousarray(p, np.float32))[None] for p in planes]
        self._camera, self._zoom, self._scale = camera, zoom, scale

    @classmethod
    def simulated(cls, count: int, side: int, seed: int, camera: Camera, **keys: Any) -> Clean:
        """Draw `count` planes; see `pellucid.training.specimens`."""
        rng = np.random.default_rng(seed)
        return cls([draw_plane(side, rng) for _ in range(count)], camera, **keys)

    @classmethod
    def read(cls, files: Sequence[Path], camera: Camera, *, reduce: int = 2, **keys: Any) -> Clean:
        """Read pictures and bin them by `reduce`, which takes what noise they have down to a part of it."""
        planes = []
        for file in files:
            for plane in read_planes(file):
                y, x = (n // reduce * reduce for n in plane.shape)
                small = plane[:y, :x].reshape(y // reduce, reduce, x // reduce, reduce).mean((1, 3))
                low, high = np.percentile(small, (0.1, 99.9))
                if high > low:
                    planes.append((small - low) / (high - low))
        return cls(planes, camera, **keys)

    def draw(self, count: int, side: int, chance: torch.Generator) -> Batch:
        """Return patches; see `pellucid.training.patches.Patches`."""
        patches = []
        for _ in range(count):
            plane = self._planes[int(torch.randint(len(self._planes), (), generator=chance))]
            patches.append(cut(plane, side * self._scale, chance, self._zoom))
        clean = torch.stack(patches)
        if self._scale == 1:
            given, target = self._camera.expose(clean, chance)
            residual = given - target
        else:
            # Binning gathers the light of the pixels; the range of grey values stays.
            state = chance.get_state()
            given, low = self._camera.expose(torch.nn.functional.avg_pool2d(clean, self._scale), chance)
            chance_again = torch.Generator().manual_seed(0)
            chance_again.set_state(state)
            target = self._camera.light(clean, chance_again)
            residual = given - low
        black = level_of_black(given, chance)
        return Batch(given - black, target - black, residual.square().mean((1, 2, 3)))
