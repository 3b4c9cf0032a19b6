"""What a picture tells of its own noise.

A lens passes nothing beyond its cut-off, and little shortly before it. What a picture holds there is noise: of a
camera that has no memory it is white, so that the squared magnitudes are exponentially distributed about the variance,
and their median over ``ln 2`` is that variance (a mean would follow the few that light has leaked into).
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import torch

from pellucid.deconvolution.recipe import Recipe
from pellucid.optics.projectors import Image, otf

__all__ = ["NoiseGauge"]

_SIDES = {2: (256, 256), 3: (32, 128, 128)}
_WINDOWS = {2: (3, 3), 3: (1, 2, 2)}
_LEAST_PASSED = 0.05
_BANDS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.1)
"""Of ``|H|``."""
_LEAST_IN_BAND = 50
_FEW, _OUTLIER = 0.001, 2.0
"""Pixels above twice the level that so few reach count as that level."""


class NoiseGauge:
    """Measures noise and light in some windows spread over a picture.

    Parameters
    ----------
    shape
        Of the picture.
    psf
        As many axes; odd sides.
    recipe
    device

    Notes
    -----
    The windows are the same whether the picture is restored as a whole or in tiles, so that both do the same.
    """

    def __init__(self, shape: tuple[int, ...], psf: Image, recipe: Recipe, device: str) -> None:
        ndim = len(shape)
        self._wants_clarity = recipe.decides
        sides = tuple(min(n, side) for n, side in zip(shape, _SIDES[ndim], strict=True))
        starts = [
            sorted(
                {round(i * (n - side) / max(count - 1, 1)) for i in range(count)} if count > 1 else {(n - side) // 2}
            )
            for n, side, count in zip(shape, sides, _WINDOWS[ndim], strict=True)
        ]
        self.windows = [tuple(slice(s, s + side) for s, side in zip(at, sides, strict=True)) for at in product(*starts)]
        taper = np.ones(())
        for axis, side in enumerate(sides):
            line = np.hanning(side + 2)[1:-1] if side > 4 else np.ones(side)
            taper = taper * line.reshape([-1 if a == axis else 1 for a in range(ndim)])
        cut = tuple(
            slice(max(0, (m - n + 1) // 2), m - max(0, (m - n + 1) // 2)) for m, n in zip(psf.shape, sides, strict=True)
        )
        passed = abs(otf(psf[cut], sides)).ravel()
        dark = np.flatnonzero(passed <= np.quantile(passed, _LEAST_PASSED))
        self._taper = torch.from_numpy(np.asarray(taper, np.float32)).to(device)
        self._dark = torch.from_numpy(dark).to(device)
        self._few = max(1, int(_FEW * taper.size))
        self._mean_unit = 1 / float((taper**2).sum())
        self._unit = self._mean_unit / math.log(2)
        self._bands: list[tuple[torch.Tensor, float]] = []
        if recipe.clarity == "bands":
            passed[0] = 2  # the sum is no signal to measure
            for high, low in pairwise(_BANDS):
                at = np.flatnonzero((passed < high) & (passed >= low))
                if at.size >= _LEAST_IN_BAND:
                    self._bands.append((torch.from_numpy(at).to(device), float((passed[at] ** 2).mean())))

    def __call__(self, windows: list[torch.Tensor]) -> tuple[torch.Tensor, float]:
        """Return the variance of the noise, 0-dimensional and on the device, and the clarity.

        Parameters
        ----------
        windows
            float32, the picture's, in any unit.

        Notes
        -----
        Clarity ``"contrast"``: the variance of the light over that of the noise. ``"bands"``: what the specimen
        sends through the lens over the noise, ``(P - N) / (N |H|^2)`` with the power ``P`` and the noise ``N`` in
        a band of like ``|H|``, in the poorest of the bands that the lens passes to more than a tenth. The former
        says how much there is to see, the latter how far the blur can be undone.
        """
        power = level = torch.zeros((), device=self._taper.device)
        floors = []
        bands = [torch.zeros_like(power) for _ in self._bands]
        for window in windows:
            # A hot pixel or a cosmic ray is white as noise is, and would be all of it.
            window = window.clamp(max=_OUTLIER * window.view(-1).topk(self._few).values[-1].clamp(min=0))  # noqa: PLW2901
            mean = window.mean()
            spectrum = torch.fft.rfftn((window - mean).mul_(self._taper)).reshape(-1)
            spectrum = spectrum.real.square().add_(spectrum.imag.square())
            floors.append(spectrum[self._dark].median())
            for i, (at, _) in enumerate(self._bands):
                bands[i] = bands[i] + spectrum[at].mean()
            power = power + window.square().mean()
            level = level + mean
        count = len(windows)
        variance = torch.stack(floors).median() * self._unit
        if not self._wants_clarity:
            return variance, 0.0
        if not math.isfinite(float(variance)):
            return variance, math.nan
        floor = max(float(variance), 1e-12)
        if not self._bands:
            light = float((power / count - (level / count).square() - variance).clamp_(min=0))
            return variance, light / floor
        clearest = 1e12
        for total, (_, passed) in zip(bands, self._bands, strict=True):
            signal = max(float(total) * self._mean_unit / count - floor, 1e-3 * floor)
            clearest = min(clearest, signal / (floor * passed))
        return variance, clearest
