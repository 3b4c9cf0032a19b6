"""Pictures of the same field taken twice on purpose: quickly and well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.errors import ConfigError
from pellucid.training.images import read_planes
from pellucid.training.noise import level_of_black
from pellucid.training.patches import Batch

__all__ = ["Pairs"]


class Pairs:
    """Patches of pairs: a bad picture and a good one of the same field, in the same place.

    Parameters
    ----------
    pairs
        ``(given, target)``, each ``(y, x)``; the target is `scale` times larger along each axis.
    scale
    """

    def __init__(self, pairs: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]], *, scale: int = 1) -> None:
        self._pairs, self._scale = [], scale
        for given, target in pairs:
            low, high = np.percentile(given, (0.1, 99.9))
            x = (given.astype(np.float32) - low) / max(float(high - low), 1e-6)
            # The good one in the units of the bad one: another exposure is no matter of the network's.
            small = target.reshape(given.shape[0], scale, given.shape[1], scale).mean((1, 3))
            gain = float(small.std()) and float(np.cov(small.ravel(), x.ravel())[0, 1] / small.var())
            t = (target.astype(np.float32) - float(small.mean())) * gain + float(x.mean())
            self._pairs.append((torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(t, np.float32))))

    @classmethod
    def read(cls, given: Path, target: Path, *, scale: int = 1) -> Pairs:
        """Read two folders with files of the same names.

        Raises
        ------
        ConfigError
            One line: a folder without pictures, a name that the other has not, sizes that do not fit.
        """
        ends = (".png", ".tif", ".tiff")
        for folder in (given, target):
            if not folder.is_dir():
                raise ConfigError(f"{folder} is no folder")
        here, there = ({p.name: p for p in sorted(f.iterdir()) if p.suffix.lower() in ends} for f in (given, target))
        if not here:
            raise ConfigError(f"{given}: no PNG or TIFF in it")
        missing = sorted(set(here) - set(there))
        if missing:
            raise ConfigError(f"{target}: has no {missing[0]}, which {given} has; give both folders the same names")
        pairs = []
        for name, file in here.items():
            bad, good = read_planes(file), read_planes(there[name])
            if len(bad) != len(good):
                raise ConfigError(
                    f"{name}: {len(bad)} planes in {given} and {len(good)} in {target}; as many are needed"
                )
            for a, b in zip(bad, good, strict=True):
                if b.shape != tuple(n * scale for n in a.shape):
                    told = f"{'x'.join(map(str, a.shape))} in {given} and {'x'.join(map(str, b.shape))} in {target}"
                    raise ConfigError(f"{name}: {told}; scale = {scale} needs {scale} pixels for one along each axis")
                pairs.append((a, b))
        return cls(pairs, scale=scale)

    def draw(self, count: int, side: int, chance: torch.Generator) -> Batch:
        """Return patches; see `pellucid.training.patches.Patches`."""
        s = self._scale
        bad, good = [], []
        for _ in range(count):
            x, t = self._pairs[int(torch.randint(len(self._pairs), (), generator=chance))]
            if min(x.shape) < side:
                raise ConfigError(f"a picture of {x.shape[0]}x{x.shape[1]} is smaller than side_px = {side}")
            top, left = (int(torch.randint(n - side + 1, (), generator=chance)) for n in x.shape)
            turn = int(torch.randint(8, (), generator=chance))
            a = x[top : top + side, left : left + side]
            b = t[top * s : (top + side) * s, left * s : (left + side) * s]
            if turn & 4:
                a, b = a.flip(-1), b.flip(-1)
            bad.append(torch.rot90(a, turn & 3))
            good.append(torch.rot90(b, turn & 3))
        given, target = torch.stack(bad)[:, None], torch.stack(good)[:, None]
        small = torch.nn.functional.avg_pool2d(target, s) if s > 1 else target
        black = level_of_black(given, chance)
        return Batch(given - black, target - black, (given - small).square().mean((1, 2, 3)))
