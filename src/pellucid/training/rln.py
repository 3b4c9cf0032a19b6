"""The Richardson-Lucy network: a few steps of deconvolution whose projectors are learnt.

Li et al. 2022, "Incorporating the image formation process into deep learning improves network performance", Nature
Methods 19, 1427. As there: one branch works on half the grid (wide blur for few weights), the next one on the full
grid, and a last one puts both together; each branch divides the picture by what its forward projection makes of an
estimate, and back-projects that ratio into an update. Planes here; the authors' stacks have the same parts in 3D.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["RLN"]

_LEAST = 1e-3


def _block(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, made, 3, padding=1), nn.Softplus())


class _Branch(nn.Module):
    """One step: project the estimate, compare with the picture, project the ratio back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.forward_projection = nn.Sequential(
            _block(1, width), _block(width, width), nn.Conv2d(width, 1, 3, padding=1)
        )
        self.back_projection = nn.Sequential(_block(1, width), _block(width, width), nn.Conv2d(width, 1, 3, padding=1))
        self.positive = nn.Softplus()

    def forward(self, picture: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
        blurred = self.positive(self.forward_projection(estimate)) + _LEAST
        ratio = (picture + _LEAST) / blurred
        updated: torch.Tensor = estimate * self.positive(self.back_projection(ratio))
        return updated


class RLN(nn.Module):
    """Deblur planes: ``(n, 1, y, x)`` to the same shape, sides even; about 16,000 parameters.

    Parameters
    ----------
    width
        Channels of the projectors.
    """

    def __init__(self, width: int = 19) -> None:
        super().__init__()
        self.scale, self.frames, self.multiple = 1, 1, 2
        self.coarse = _Branch(width)
        self.fine = _Branch(width)
        self.merge = nn.Sequential(_block(3, width), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the restored plane."""
        picture = nn.functional.relu(given)
        small = nn.functional.avg_pool2d(picture, 2)
        coarse = nn.functional.interpolate(self.coarse(small, small), scale_factor=2.0, mode="bilinear")
        fine = self.fine(picture, picture)
        restored: torch.Tensor = picture + self.merge(torch.cat([picture, coarse, fine], 1))
        return restored
