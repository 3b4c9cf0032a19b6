"""Several captures of one field: each is the others' target, and no clean picture is needed.

Lehtinen et al. 2018, "Noise2Noise: learning image restoration without clean data", ICML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from pellucid.errors import ConfigError
from pellucid.training.noise import level_of_black
from pellucid.training.patches import Batch, cut

__all__ = ["Repeats", "align_brightness"]


def align_brightness(captures: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return for each capture the gain and the offset that bring it to the brightness of their mean.

    Lamps drift and dyes bleach: a target of another brightness would teach the network to change it.

    Parameters
    ----------
    captures
        ``(k, y, x)``.

    Returns
    -------
    gain, offset : numpy.ndarray
        float64 ``(k,)``: ``gain * capture + offset``.
    """
    smooth = np.stack([ndimage.gaussian_filter(c.astype(np.float64), 3) for c in captures])
    mean = smooth.mean(0)
    gain = np.empty(len(captures))
    offset = np.empty(len(captures))
    for i, capture in enumerate(smooth):
        # The slope of the principal axis, as both sides have noise left.
        gain[i] = mean.std() / max(capture.std(), 1e-12)
        offset[i] = mean.mean() - gain[i] * capture.mean()
    return gain, offset


class Repeats:
    """Patches of repeated captures: one is given, the mean of the others is the target.

    Parameters
    ----------
    fields
        Each ``(k, y, x)`` with ``k >= 2`` captures of one field, any real type.
    zoom
        See `pellucid.training.patches.cut`.
    mean_of_two
        Part of the patches where two captures are averaged into what is given, for less noise.
    more_noise
        Part of the patches to which noise is added; the target stays as it is.
    scale
        What is given is binned by this factor, and the target is not: 2 or 4 for super-resolution.
    """

    def __init__(
        self,
        fields: Sequence[np.ndarray[Any, Any]],
        *,
        zoom: tuple[float, float] = (0.5, 1.7),
        mean_of_two: float = 0.15,
        more_noise: float = 0.5,
        scale: int = 1,
    ) -> None:
        self._fields: list[torch.Tensor] = []
        for field in fields:
            gain, offset = align_brightness(field)
            planes = gain[:, None, None] * field + offset[:, None, None]
            low, high = np.percentile(planes, (0.1, 99.9))
            self._fields.append(torch.from_numpy(((planes - low) / max(high - low, 1e-6)).astype(np.float32)))
        self._zoom, self._mean_of_two, self._more_noise, self._scale = zoom, mean_of_two, more_noise, scale

    @classmethod
    def read(cls, folder: Path, *, leave_out: Sequence[str] = (), **keys: Any) -> Repeats:
        """Read files named ``FIELD_NUMBER.png`` or ``.tif``; those in `leave_out` stay away."""
        from pellucid.training.images import read_plane

        groups: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            match = re.fullmatch(r"(.+)_\d+\.(png|tiff?)", path.name, re.IGNORECASE)
            if match and not any(match[1].startswith(name) for name in leave_out):
                groups.setdefault(match[1], []).append(path)
        fields = []
        for paths in groups.values():
            if len(paths) > 1:
                planes = [read_plane(p) for p in paths]
                for path, plane in zip(paths, planes, strict=True):
                    if plane.shape != planes[0].shape:
                        here, there = ("x".join(map(str, p.shape)) for p in (plane, planes[0]))
                        raise ConfigError(f"{path}: is {here}, and {paths[0].name} is {there}; repeats are of one size")
                fields.append(np.stack(planes))
        return cls(fields, **keys)

    def __len__(self) -> int:
        """Count the fields."""
        return len(self._fields)

    def draw(self, count: int, side: int, chance: torch.Generator) -> Batch:
        """Return patches; see `pellucid.training.patches.Patches`."""
        given, target = [], []
        for _ in range(count):
            planes = self._fields[int(torch.randint(len(self._fields), (), generator=chance))]
            order = torch.randperm(len(planes), generator=chance)
            patch = cut(planes[order], side * self._scale, chance, self._zoom)
            of = 2 if len(planes) > 2 and torch.rand((), generator=chance) < self._mean_of_two else 1
            given.append(patch[:of].mean(0))
            target.append(patch[of:].mean(0))
        x, t = torch.stack(given)[:, None], torch.stack(target)[:, None]
        if self._scale > 1:
            x = torch.nn.functional.avg_pool2d(x, self._scale)
            residual = x - torch.nn.functional.avg_pool2d(t, self._scale)
        else:
            residual = x - t
        noise = residual.square().mean((1, 2, 3))
        wanted = torch.rand((count, 1, 1, 1), generator=chance) < self._more_noise
        strength = torch.rand((count, 1, 1, 1), generator=chance) ** 2
        # Its variance grows with the light, and with the light of this capture only: independent of the target.
        light = torch.nn.functional.avg_pool2d(
            torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect"), 5, stride=1
        ).clamp_min(0)
        added = strength * (0.01 + 0.15 * light).sqrt() * 0.6 * torch.randn(x.shape, generator=chance)
        added = torch.where(wanted, added, torch.zeros(()))
        x = x + added
        noise = noise + added.square().mean((1, 2, 3))
        black = level_of_black(x, chance)
        return Batch(x - black, t - black, noise)
