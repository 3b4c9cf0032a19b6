"""Good pictures made bad on purpose, step by step, so that a network can learn the way back.

Fang et al. 2021, "Deep learning-based point-scanning super-resolution imaging", Nature Methods 18, 406 (PSSR). The
clean planes are in units of about 0 to 1; every step takes and gives float32 ``(n, 1, y, x)``, and all its chance
comes from the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from pellucid.errors import ConfigError, did_you_mean
from pellucid.training.images import read_planes
from pellucid.training.noise import level_of_black
from pellucid.training.patches import Batch, cut

__all__ = [
    "Blur",
    "Crappified",
    "Crappifier",
    "LocalNoise",
    "Photons",
    "ReadNoise",
    "SaltAndPepper",
    "crappifier",
    "gaussian",
]

Bounds: TypeAlias = tuple[float, float]
Step: TypeAlias = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def gaussian(planes: torch.Tensor, sigma_px: torch.Tensor) -> torch.Tensor:
    """Blur each of ``(n, 1, y, x)`` by a sigma of its own, ``(n,)``; edges are continued by their last pixel."""
    count, reach = len(planes), max(1, int(3 * float(sigma_px.max()) + 0.5))
    at = torch.arange(-reach, reach + 1, dtype=planes.dtype)
    kernel = torch.exp(-0.5 * (at / sigma_px.view(-1, 1).clamp_min(1e-3)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    flat = planes.view(1, count, *planes.shape[2:])
    flat = functional.pad(flat, (reach, reach, reach, reach), mode="replicate")
    flat = functional.conv2d(flat, kernel.view(count, 1, -1, 1), groups=count)
    return functional.conv2d(flat, kernel.view(count, 1, 1, -1), groups=count).view(planes.shape)


def _between(bounds: Bounds, count: int, chance: torch.Generator, *, log: bool = False) -> torch.Tensor:
    low, high = bounds
    part = torch.rand((count, 1, 1, 1), generator=chance)
    return low * (high / low) ** part if log else low + (high - low) * part


@dataclass(frozen=True)
class LocalNoise:
    """Add ``N(0, strength * (G x))``: the second figure is a variance, the blurred brightness times `strength`.

    Parameters
    ----------
    strength
        0.05 for electron microscopy, 0.5 for fluorescence (PSSR).
    sigma_px
        Of the blur ``G``.
    """

    strength: float
    sigma_px: float = 5.0

    def __call__(self, planes: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Return the planes with noise."""
        light = gaussian(planes, torch.full((len(planes),), self.sigma_px)).clamp_min(0)
        return planes + (self.strength * light).sqrt() * torch.randn(planes.shape, generator=chance)


@dataclass(frozen=True)
class SaltAndPepper:
    """Set a part `salt` of the pixels to 1 and a part `pepper` to 0: hot and dead pixels, lost samples."""

    salt: float = 0.005
    pepper: float = 0.005

    def __call__(self, planes: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Return the planes with single pixels replaced."""
        drawn = torch.rand(planes.shape, generator=chance)
        planes = torch.where(drawn < self.salt, torch.ones(()), planes)
        return torch.where(drawn > 1 - self.pepper, torch.zeros(()), planes)


@dataclass(frozen=True)
class Photons:
    """Shot noise: counts of a Poisson distribution, `peak` bounds the photons at a brightness of 1."""

    peak: Bounds = (10.0, 1000.0)

    def __call__(self, planes: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Return the planes as counted."""
        photons = _between(self.peak, len(planes), chance, log=True)
        return torch.poisson(planes.clamp_min(0) * photons, generator=chance) / photons


@dataclass(frozen=True)
class ReadNoise:
    """Add white noise whose standard deviation is drawn between bounds, as part of the range."""

    deviation: Bounds = (0.0, 0.05)

    def __call__(self, planes: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Return the planes as read out."""
        return planes + _between(self.deviation, len(planes), chance) * torch.randn(planes.shape, generator=chance)


@dataclass(frozen=True)
class Blur:
    """Blur by a Gaussian whose sigma is drawn between bounds, in pixels of the clean plane."""

    sigma_px: Bounds = (0.5, 2.0)

    def __call__(self, planes: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Return the planes out of focus."""
        return gaussian(planes, _between(self.sigma_px, len(planes), chance).flatten())


@dataclass(frozen=True)
class Crappifier:
    """Steps one after the other, then fewer pixels.

    Parameters
    ----------
    steps
        Each ``(planes, generator) -> planes``; the order is the order of what happens to the light.
    scale
        What is given has so many times fewer pixels along an axis: 1, 2 or 4.
    keep_maximum
        Bring each plane to a maximum of 1 before the steps and back after them, as PSSR does for fluorescence.
    clip
        Cut off below 0 and above 1 after each step, as pictures of few bits are.
    reduce
        ``"sampled"``: interpolated without a filter, as a scanned probe that takes wider strides, so that the noise
        of a pixel stays as strong (PSSR); ``"binned"``: mean of the pixels, as a camera bins.
    """

    steps: Sequence[Step]
    scale: int = 1
    keep_maximum: bool = False
    clip: bool = True
    reduce: Literal["sampled", "binned"] = "sampled"

    def __post_init__(self) -> None:
        if self.scale not in (1, 2, 4):
            raise ConfigError(f"scale = {self.scale}: a crappifier reduces by 1, 2 or 4. Type one of them.")

    def __call__(self, clean: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Return what a network is given, float32 ``(n, 1, y / scale, x / scale)``."""
        top = clean.amax((1, 2, 3), keepdim=True).clamp_min(1e-6) if self.keep_maximum else torch.ones(())
        planes = clean / top
        for step in self.steps:
            planes = step(planes, chance)
            if self.clip:
                planes = planes.clamp(0, 1)
        return self.smaller(planes * top)

    def smaller(self, planes: torch.Tensor) -> torch.Tensor:
        """Return the planes with fewer pixels, nothing else."""
        if self.scale == 1:
            return planes
        if self.reduce == "binned":
            return functional.avg_pool2d(planes, self.scale)
        return functional.interpolate(planes, scale_factor=1 / self.scale, mode="bilinear", align_corners=False)


def crappifier(name: str, scale: int = 1) -> Crappifier:
    """Return a crappifier of PSSR by its name, ``"em"`` or ``"fluorescence"``.

    Raises
    ------
    ConfigError
        With another name or scale.
    """
    if name == "em":
        return Crappifier((LocalNoise(0.05),), scale)
    if name == "fluorescence":
        return Crappifier((LocalNoise(0.5), SaltAndPepper()), scale, keep_maximum=True)
    raise ConfigError(
        f'crappifier = "{name}": no such crappifier.{did_you_mean(name, ("em", "fluorescence"))} '
        'Type "em" or "fluorescence".'
    )


class Crappified:
    """Patches of good planes; what is given is a crappified one.

    Parameters
    ----------
    planes
        Each ``(y, x)``, scaled so that bright structures are at about 1.
    crappify
    zoom
        See `pellucid.training.patches.cut`.
    """

    def __init__(
        self,
        planes: Sequence[np.ndarray[Any, Any]],
        crappify: Crappifier,
        *,
        zoom: tuple[float, float] = (0.6, 1.6),
    ) -> None:
        if not planes:
            raise ConfigError("a crappified source got no planes; at least one picture is needed")
        self._planes = [torch.from_numpy(np.ascontiguousarray(p, np.float32))[None] for p in planes]
        self._crappify, self._zoom = crappify, zoom

    @classmethod
    def read(cls, files: Sequence[Path], crappify: Crappifier, **keys: Any) -> Crappified:
        """Read pictures, all their planes, and bring their 0.1st and 99.9th percentiles to 0 and 1."""
        planes = []
        for file in files:
            for plane in read_planes(file):
                low, high = np.percentile(plane, (0.1, 99.9))
                if high > low:
                    planes.append((plane - low) / (high - low))
        if not planes:
            raise ConfigError(f"no picture with any contrast among the {len(files)} files of a crappified source")
        return cls(planes, crappify, **keys)

    def draw(self, count: int, side: int, chance: torch.Generator) -> Batch:
        """Return patches; see `pellucid.training.patches.Patches`."""
        patches = []
        for _ in range(count):
            plane = self._planes[int(torch.randint(len(self._planes), (), generator=chance))]
            patches.append(cut(plane, side * self._crappify.scale, chance, self._zoom))
        clean = torch.stack(patches)
        given = self._crappify(clean, chance)
        residual = given - self._crappify.smaller(clean)
        black = level_of_black(given, chance)
        return Batch(given - black, clean - black, residual.square().mean((1, 2, 3)))
