"""A residual U-Net without biases, folded: it works on a grid two or four times coarser than the frame.

Without biases a network of convolutions and rectifiers is homogeneous: twice the counts give exactly twice the
result, and it does well at noise levels that it was not trained on (Mohan et al. 2020, "Robust and interpretable
blind image denoising via bias-free convolutional neural networks", ICLR). Folding (Shi et al. 2016, CVPR, pixel
shuffle; Zhang et al. 2018, FFDNet) costs hundredths of a dB and makes it four times faster, since no layer with many
channels sees the full grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

__all__ = ["UNet"]


class _Convolutions(nn.Sequential):
    """Two convolutions 3x3, each rectified."""

    def __init__(self, given: int, made: int, bias: bool) -> None:
        super().__init__(
            nn.Conv2d(given, made, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
            nn.Conv2d(made, made, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Restore planes: ``(n, frames, y, x)`` to ``(n, 1, scale * y, scale * x)``, sides a multiple of `multiple`.

    Parameters
    ----------
    channels
        At each level, the finest first; every further level works on half the grid.
    scale
        Pixels of the result for one given, along an axis: 1, 2 or 4.
    fold
        The finest level works on a grid so much coarser than what is given: 1, 2 or 4.
    frames
        Neighbours in time or z that it is given as channels; the newest, or the middle one, is what it restores.
    restored
        Which of them the result is added to; negative counts from the last.
    bias
        Give the convolutions biases; then the network is not homogeneous.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 96, 128),
        *,
        scale: int = 1,
        fold: int = 2,
        frames: int = 1,
        restored: int = -1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.scale, self.frames, self.restored = scale, frames, restored % frames
        self.multiple = fold * 2 ** (len(channels) - 1)
        first = channels[0]
        # The same as folding the pixels into channels and a convolution 3x3, in one operator that every engine has.
        self.stem = nn.Conv2d(frames, first, 3 * fold, stride=fold, padding=fold, bias=bias)
        self.finest = nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv2d(first, first, 3, padding=1, bias=bias), nn.ReLU(inplace=True)
        )
        self.down = nn.ModuleList(_Convolutions(a, b, bias) for a, b in pairwise(channels))
        self.up = nn.ModuleList(
            _Convolutions(a + b, a, bias) for a, b in zip(channels[-2::-1], channels[:0:-1], strict=True)
        )
        out = fold * scale
        self.head = nn.Conv2d(first, out * out, 3, padding=1, bias=bias)
        self.shuffle = nn.PixelShuffle(out) if out > 1 else nn.Identity()
        self._begin()

    def _begin(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # It begins as what it is given, so that no step is spent on learning to copy. All pixels of a folded group
        # begin alike (ICNR, Aitken et al. 2017), which keeps the checkerboard away.
        nn.init.zeros_(self.head.weight)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the restored plane."""
        fine = self.finest(self.stem(given))
        kept = [fine]
        for block in self.down:
            fine = block(nn.functional.avg_pool2d(fine, 2))
            kept.append(fine)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            fine = nn.functional.interpolate(fine, scale_factor=2.0, mode="nearest")
            fine = block(torch.cat([fine, beside], 1))
        base = given[:, self.restored : self.restored + 1]
        if self.scale > 1:
            base = nn.functional.interpolate(base, scale_factor=float(self.scale), mode="bilinear")
        restored: torch.Tensor = base + self.shuffle(self.head(fine))
        return restored
