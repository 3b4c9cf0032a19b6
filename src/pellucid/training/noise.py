"""Cameras that spoil a plane: photons, readout, neighbours that share noise, few grey values."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Camera", "level_of_black"]


def _between(bounds: tuple[float, float], count: int, chance: torch.Generator, *, log: bool = False) -> torch.Tensor:
    low, high = bounds
    part = torch.rand((count, 1, 1, 1), generator=chance)
    return low * (high / low) ** part if log else low + (high - low) * part


@dataclass(frozen=True)
class Camera:
    """Noise of a camera or a scanned detector, drawn anew for each patch.

    Parameters
    ----------
    photons
        Bounds of the photons in the brightest structures (1 in the clean plane), drawn in the logarithm.
    read
        Bounds of the read noise, as part of the range.
    background
        Bounds of the light that lies under everything.
    gamma
        Bounds of an exponent for the clean plane: dim structures beside bright ones, or evenly bright ones.
    correlated
        Part of the patches whose noise is shared by neighbouring pixels: interpolated or binned cameras, sampling
        finer than the lens (wide-field pictures of `fmd` have a correlation of 0.58 between neighbours).
    reach_px
        Bounds of the width (sigma) by which it is shared.
    grey_values
        Part of the patches that are rounded to 8 bits and cut off at their ends.
    """

    photons: tuple[float, float] = (3.0, 2000.0)
    read: tuple[float, float] = (0.001, 0.05)
    background: tuple[float, float] = (0.0, 0.25)
    gamma: tuple[float, float] = (0.6, 1.6)
    correlated: float = 0.25
    reach_px: tuple[float, float] = (0.3, 0.9)
    grey_values: float = 0.5

    def expose(self, clean: torch.Tensor, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the camera gives and what it should have given.

        Parameters
        ----------
        clean
            float32 ``(n, 1, y, x)``, 0 and above, bright structures at about 1.

        Returns
        -------
        given, wanted : torch.Tensor
            float32 of the same shape and unit.
        """
        count = len(clean)
        wanted = self.light(clean, chance)
        photons = _between(self.photons, count, chance, log=True)
        read = _between(self.read, count, chance, log=True)
        shot = torch.poisson(wanted * photons, generator=chance) / photons - wanted
        shot += read * torch.randn(wanted.shape, generator=chance)
        shared = torch.rand((count, 1, 1, 1), generator=chance) < self.correlated
        given = wanted + torch.where(shared, self._share(shot, chance), shot)
        steps = 1 / (255 * _between((0.5, 1.0), count, chance))
        rounded = (torch.round(given / steps) * steps).clamp(0).minimum(255 * steps)
        few = torch.rand((count, 1, 1, 1), generator=chance) < self.grey_values
        return torch.where(few, rounded, given), wanted

    def light(self, clean: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Return the light that `expose` takes its picture of, the first that it draws from `chance`."""
        count = len(clean)
        clean = clean.clamp_min(0) ** _between(self.gamma, count, chance)
        ground = _between(self.background, count, chance)
        return ground + (1 - ground) * clean

    def _share(self, noise: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Blur the noise, each axis by a width of its own, and give it its strength back in part."""
        count = len(noise)
        at = torch.arange(-3, 4, dtype=noise.dtype)
        for axis in (2, 3):
            kernel = torch.exp(-0.5 * (at / _between(self.reach_px, count, chance).view(-1, 1)) ** 2)
            kernel = kernel / kernel.sum(1, keepdim=True)
            shape = [count, 1, 1, 1]
            shape[axis] = 7
            pad = (0, 0, 3, 3) if axis == 2 else (3, 3, 0, 0)
            flat = torch.nn.functional.pad(noise.view(1, count, *noise.shape[2:]), pad, mode="reflect")
            noise = torch.nn.functional.conv2d(flat, kernel.view(shape), groups=count).view(noise.shape)
        return noise * _between((1.0, 1.8), count, chance)


def level_of_black(given: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Return what is subtracted before the network, ``(n, 1, 1, 1)``: about the lowest percentile of each patch.

    A whole frame has darker places than most of its patches, so it is moved at random, mostly downwards.
    """
    lowest = torch.quantile(given.flatten(1), 0.002, dim=1).view(-1, 1, 1, 1)
    return lowest - 0.15 * torch.rand(lowest.shape, generator=chance) ** 2 + 0.01
