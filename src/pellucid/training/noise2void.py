"""Denoising learnt from the noisy pictures alone, where the noise of each pixel is its own.

Krull et al. 2019, "Noise2Void: learning denoising from single noisy images", CVPR.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.errors import ConfigError
from pellucid.training.images import read_planes
from pellucid.training.noise import level_of_black
from pellucid.training.patches import Batch, cut

__all__ = ["MOST_SHARED", "Noise2Void", "blind", "shared_noise"]

MASKED = 0.015
REACH = 2
MOST_SHARED = 0.2
"""Correlation between neighbours above which the method learns the noise as well."""
_LEAST_SIDE = 18


def shared_noise(plane: np.ndarray[Any, Any]) -> float:
    """Return about how much of its noise a pixel shares with a neighbour: 0 for none, 1 for all.

    The correlation at a distance of one pixel, along x or along y, whichever is larger. Measured where structures are
    least: the second differences along the other axis take smooth structures away, and of 16 x 16 blocks the quarter
    with the least variance counts.

    Parameters
    ----------
    plane
        ``(y, x)``, both at least 18.

    Raises
    ------
    ConfigError
        For a plane that is smaller.
    """
    if plane.ndim != 2 or min(plane.shape) < _LEAST_SIDE:
        raise ConfigError(
            f"a picture of {'x'.join(map(str, plane.shape))}: Noise2Void measures its noise in planes of at least "
            f"{_LEAST_SIDE}x{_LEAST_SIDE}"
        )
    return max(_shared_along_x(plane), _shared_along_x(plane.T))


def _shared_along_x(plane: np.ndarray[Any, Any]) -> float:
    y, x = plane.shape[0], plane.shape[1] // 16 * 16
    values = plane[:, :x].astype(np.float64)
    rest = values[2:] - 2 * values[1:-1] + values[:-2]
    rest = rest[: (y - 2) // 16 * 16]
    blocks = rest.reshape(-1, 16, x // 16, 16).swapaxes(1, 2).reshape(-1, 16, 16)
    spread = blocks.var((1, 2))
    quiet = blocks[(spread <= np.quantile(spread, 0.25)) & (spread > 0)]
    if not len(quiet):
        return 0.0
    a, b = quiet[:, :, 1:].ravel(), quiet[:, :, :-1].ravel()
    return float(np.corrcoef(a, b)[0, 1])


def blind(planes: torch.Tensor, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace 1.5% of the pixels, spread evenly, by a neighbour; return that and where it was done.

    Parameters
    ----------
    planes
        ``(n, 1, y, x)``.

    Returns
    -------
    given, mask : torch.Tensor
        Of the same shape; the mask is 1 where a pixel was replaced.
    """
    n, _, height, width = planes.shape
    box = round(MASKED**-0.5)  # one pixel in each box of 8 x 8
    rows, columns = height // box, width // box
    where = torch.randint(box * box, (n, rows, columns), generator=chance)
    y = torch.arange(rows).view(1, -1, 1) * box + where // box
    x = torch.arange(columns).view(1, 1, -1) * box + where % box
    # One of the 24 neighbours within 5 x 5, never the pixel itself; at the border the one on the other side.
    step = torch.randint(24, where.shape, generator=chance)
    step = step + (step >= 12)
    from_y, from_x = _inside(y + step // 5 - REACH, y, height), _inside(x + step % 5 - REACH, x, width)
    at = torch.arange(n).view(-1, 1, 1)
    given, mask = planes.clone(), torch.zeros_like(planes)
    given[at, 0, y, x] = planes[at, 0, from_y, from_x]
    mask[at, 0, y, x] = 1
    return given, mask


def _inside(there: torch.Tensor, here: torch.Tensor, length: int) -> torch.Tensor:
    return torch.where((there < 0) | (there >= length), 2 * here - there, there)


class Noise2Void:
    """Patches of noisy pictures with blind spots; the loss is taken there.

    Parameters
    ----------
    planes
        Each ``(y, x)``, any real type.
    zoom
        Should stay (1, 1): enlarging makes neighbours share noise.

    Attributes
    ----------
    warning : str
        One line where neighbours share too much of their noise for the method; empty else.
    """

    def __init__(self, planes: Sequence[np.ndarray[Any, Any]], *, zoom: tuple[float, float] = (1.0, 1.0)) -> None:
        if not planes:
            raise ConfigError("a Noise2Void source got no pictures; at least one is needed")
        self._planes = []
        for plane in planes:
            low, high = np.percentile(plane, (0.1, 99.9))
            ranged = (plane.astype(np.float32) - low) / max(float(high - low), 1e-6)
            self._planes.append(torch.from_numpy(np.ascontiguousarray(ranged, np.float32))[None])
        self._zoom = zoom
        shared = float(np.median([shared_noise(np.asarray(plane)) for plane in planes]))
        self.warning = (
            f"neighbouring pixels share {shared:.2f} of their noise (at most {MOST_SHARED} are fine): Noise2Void would "
            'learn that noise as structure. Take repeated captures of one field instead (kind = "repeats")'
            if shared > MOST_SHARED
            else ""
        )

    @classmethod
    def read(cls, files: Sequence[Path], **keys: Any) -> Noise2Void:
        """Read pictures, all their planes."""
        return cls([plane for file in files for plane in read_planes(file)], **keys)

    def draw(self, count: int, side: int, chance: torch.Generator) -> Batch:
        """Return patches; see `pellucid.training.patches.Patches`."""
        patches = []
        for _ in range(count):
            plane = self._planes[int(torch.randint(len(self._planes), (), generator=chance))]
            if min(plane.shape[-2:]) < side:
                y, x = plane.shape[-2:]
                raise ConfigError(
                    f"a picture of {y}x{x} is smaller than training.side_px = {side}, and enlarged noise is not white. "
                    f"Type: --set training.side_px={max(min(y, x) // 16 * 16, 16)}"
                )
            patches.append(cut(plane, side, chance, self._zoom))
        noisy = torch.stack(patches)
        black = level_of_black(noisy, chance)
        given, mask = blind(noisy, chance)
        # The noise cannot be told from the structure here: half of what neighbours differ by bounds it.
        noise = 0.5 * (noisy[..., 1:] - noisy[..., :-1]).square().mean((1, 2, 3))
        return Batch(given - black, noisy - black, noise, mask)
