"""The last frames, for networks that are given several: on the device, causal, without a wait for later ones.

Published networks of this kind take frames from both sides of the one that they restore, or whole blocks of them, and
so are late by half of them (PSSR-MF, Fang et al. 2021; DeepCAD-RT, Li et al. 2023). Here the newest frame is the last
one given, and its result is there when it would be with one frame alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["History"]


class History:
    """Keeps the last `frames` frames and gives them in order, the newest last.

    Where fewer have come, the first stands for those before it. Which ones are given is counted on the device, so
    that both verbs can be captured in a CUDA graph.

    Parameters
    ----------
    frames
        At least 2.
    shape
        Of a frame: ``(n, [z,] y, x)``.
    device
    """

    def __init__(self, frames: int, shape: Sequence[int], device: str) -> None:
        self._frames = frames
        with torch.inference_mode(False):
            self.newest = torch.zeros(tuple(shape), device=device)
            self._ring = torch.zeros((shape[0], frames, *shape[1:]), device=device)
            self._ages = torch.arange(frames - 1, -1, -1, device=device)
            self._at = torch.zeros(1, dtype=torch.long, device=device)
            self._seen = torch.zeros_like(self._at)

    def __call__(self, out: torch.Tensor) -> None:
        """Hot: take the frame in `newest`; fill `out`, ``(n, frames, [z,] y, x)``."""
        self._ring.index_copy_(1, self._at, self.newest.unsqueeze(1))
        order = (self._at - torch.minimum(self._ages, self._seen)).remainder_(self._frames)
        torch.index_select(self._ring, 1, order, out=out)
        self._at.add_(1).remainder_(self._frames)
        self._seen.add_(1).clamp_(max=self._frames)

    def forget(self) -> None:
        """Begin anew: the next frame is the first."""
        self._seen.zero_()
        self._at.zero_()
