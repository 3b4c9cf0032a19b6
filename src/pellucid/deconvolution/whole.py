"""One picture in, one out, whatever its size: light, noise, tiles and the scale of the result.

**Light.** Richardson-Lucy keeps the sum of the picture. The Wiener-Butterworth kernel has negative lobes, and what
they push below zero is cut off, so the published algorithm gains 15 to 460% of light, and the faster the noise the
more. A step does not care about the scale of its estimate (twice the estimate halves the ratio), so dividing by the
gain once at the end does what dividing in each step would, and costs one sum.

**Units.** All within is in units of the picture's mean, so that every constant means the same for all pictures and
twice the counts give twice the result.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch

from pellucid.deconvolution.noise import NoiseGauge
from pellucid.deconvolution.recipe import Recipe
from pellucid.deconvolution.solver import Solver
from pellucid.deconvolution.tiles import cover
from pellucid.optics.projectors import Image

__all__ = ["Deconvolver"]


class Deconvolver:
    """Deconvolve pictures or stacks of one shape and type.

    Parameters
    ----------
    shape
        ``(y, x)`` or ``(z, y, x)``.
    dtype
        Of the pictures, as numpy names it.
    psf
        As many axes, odd sides, sum 1.
    recipe
    device
    background
        Counts without light, taken off each pixel. What is then below 0 is noise and counts as such.
    conserve
        The result's sum is made that of the picture without its background.
    output
        ``"float32"``: counts. ``"uint16"``: counts times `scale`, rounded, clipped at 0 and 65535.
    scale
        Grey values a count, for ``"uint16"``.
    tile, overlap
        Largest window to be restored at once and what it shares with its neighbours on each side; None: the whole.

    Attributes
    ----------
    light : torch.Tensor
        After a call: the sum of the result before it was rounded; not finite if any pixel was not.
    iterations : float
        Of the last call.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        psf: Image,
        recipe: Recipe,
        device: str,
        *,
        background: float = 0.0,
        conserve: bool = True,
        output: Literal["float32", "uint16"] = "float32",
        scale: float = 1.0,
        tile: tuple[int, ...] | None = None,
        overlap: tuple[int, ...] | None = None,
    ) -> None:
        self._recipe = recipe
        self._tiles = cover(shape, tile or shape, overlap or (0,) * len(shape))
        window = tuple(s.stop - s.start for s in self._tiles[0].window)
        with torch.inference_mode(False):
            self._solver = Solver(window, psf, recipe, device)
            self._gauge = NoiseGauge(shape, psf, recipe, device) if recipe.looks_at_noise else None
            self.light = torch.zeros((), device=device)
            # Grey values of tiles cannot be rounded before the sum of all is known.
            many = len(self._tiles) > 1
            self._whole = torch.zeros(shape, device=device) if many and output == "uint16" else None
        self._background = background
        self._may_be_nan = np.dtype(dtype).kind == "f"
        self._conserve, self._rounds, self._scale = conserve, output == "uint16", scale
        self._pixels = float(np.prod(shape))
        self.iterations = 0.0

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result` from `given`; the caller owns both."""
        solver, tiles = self._solver, self._tiles
        total = self._total(given).clamp_(min=0)
        mean = total / self._pixels
        per_count = torch.where(mean > 0, mean.reciprocal(), 0.0)  # a black picture stays one
        constant, iterations = self._decide(given, per_count)
        many = len(tiles) > 1
        target = result if not self._rounds else self._whole
        light = torch.zeros_like(self.light)
        for tile in tiles:
            if many:
                self._load(given, tile.window)
            solver.frame.mul_(per_count)
            restored = solver(constant, iterations)[tile.within]
            light += restored.sum()
            if many:
                assert target is not None
                target[tile.core].copy_(restored)
        self.iterations = solver.iterations
        per_unit = torch.where(light > 0, total / light, mean) if self._conserve else mean
        torch.mul(light, per_unit, out=self.light)
        if not many:
            if not self._rounds:
                torch.mul(restored, per_unit, out=result)
                return
            self._round(restored, per_unit, result)
        elif self._rounds:
            assert target is not None
            self._round(target, per_unit, result)
        else:
            result.mul_(per_unit)

    def _round(self, restored: torch.Tensor, per_unit: torch.Tensor, result: torch.Tensor) -> None:
        restored.mul_(per_unit * self._scale).round_().clamp_(0, 65535)
        if self._may_be_nan:
            restored.nan_to_num_(0.0)
        result.copy_(restored)

    def _total(self, given: torch.Tensor) -> torch.Tensor:
        """Return the light of the picture without its background; leaves the picture in the solver if it is whole."""
        total = torch.zeros_like(self.light)
        for tile in self._tiles:
            self._load(given, tile.window)
            total += self._solver.frame[tile.within].sum()
        return total

    def _load(self, given: torch.Tensor, window: tuple[slice, ...]) -> None:
        frame = self._solver.frame
        frame.copy_(given[window])
        # Noise below the background stays negative here: cut pixel by pixel it would be light that was never there,
        # as much as the specimen's where that is dim.
        if self._background:
            frame.sub_(self._background)

    def _decide(self, given: torch.Tensor, per_count: torch.Tensor) -> tuple[torch.Tensor | float, float]:
        """Return the constant and the number of iterations for this picture."""
        recipe = self._recipe
        if self._gauge is None:
            return 0.0, recipe.iterations or 0.0
        windows = []
        for at in self._gauge.windows:
            window = given[at].to(torch.float32, copy=True)
            if self._background:
                window.sub_(self._background)
            windows.append(window.mul_(per_count))
        noise, clarity = self._gauge(windows)
        if recipe.follows_noise:
            self._solver.tune(0.0 if math.isnan(clarity) else clarity)  # the result of NaN is NaN in any case
        iterations = recipe.iterations
        if iterations is None:
            factor, power, least, most = recipe.auto
            # A picture that is NaN, black or flat gets the least; it is told as what it is elsewhere.
            wanted = factor * clarity**power if clarity > 0 else least
            iterations = least if math.isnan(wanted) else min(max(wanted, least), most)
        return noise * recipe.noise_constant, iterations
