"""What is measured of a frame before it is scaled: percentiles, or mean and spread; of the whole, never of a tile.

Nothing here waits for a result, so all of it can be captured in a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["Groups", "Moments", "Percentiles", "Slowly", "Statistic"]

SAMPLE = 65_536
"""Pixels of which percentiles are taken: the 0.1% at an end are 65 of them."""
_JUMP = 8.0
"""Times the width from one frame to the next, which no bleaching and no moving specimen make."""
_GOLDEN = (math.sqrt(5) - 1) / 2


class Groups:
    """Which numbers of a tensor ``(n, c, ...)`` have a statistic in common.

    Parameters
    ----------
    shape
    shared
        All `n` pictures: they are the planes of one stack.
    each_channel
        Every channel by itself.

    Attributes
    ----------
    shape : tuple of int
        Of a statistic: as many axes as the tensor, so that the two can be combined.
    count, size : int
        How many groups there are, and of how many numbers.
    """

    def __init__(self, shape: Sequence[int], *, shared: bool, each_channel: bool) -> None:
        n, c, *space = shape
        self._turned = shared and each_channel and n > 1 and c > 1
        self.shape = (1 if shared else n, c if each_channel else 1, *(1 for _ in space))
        self.count = math.prod(self.shape)
        self.size = math.prod(shape) // self.count

    def flat(self, x: torch.Tensor) -> torch.Tensor:
        """Return the numbers of `x` as ``(count, size)``."""
        return (x.transpose(0, 1) if self._turned else x).reshape(self.count, self.size)


class Slowly:
    """A statistic that follows the frames: their mean at first, later an exponential mean.

    Where the light jumps it begins anew: see `jumped`.

    Parameters
    ----------
    shape
        Of the statistic.
    frames
        Time constant in frames; 0: it is that of the last frame.
    device
    """

    def __init__(self, shape: Sequence[int], frames: float, device: str) -> None:
        self._frames = frames
        self._least = 1 - math.exp(-1 / frames) if frames else 1.0
        with torch.inference_mode(False):
            self._mean = torch.zeros(tuple(shape), device=device)
            self._seen = torch.zeros((), device=device)

    def __call__(self, now: torch.Tensor) -> torch.Tensor:
        """Hot: take the statistic of one more frame, return the one to be used for it."""
        if not self._frames:
            return now
        # 0 where any group has jumped; as a product, since a graph on a GPU cannot branch.
        self._seen.mul_(self.jumped(now).logical_not()).add_(1)
        self._mean.lerp_(now, self._seen.reciprocal().clamp_(min=self._least))
        return self._mean

    def jumped(self, now: torch.Tensor) -> torch.Tensor:
        """Tell whether a frame has nothing to do with those before it, as a bool of no axes.

        Its offset has moved by more than the whole width, or its width is more than eight times another one: a lamp
        or a filter was changed. To follow that slowly would show a hundred frames wrongly.
        """
        offset, width = self._mean[0], self._mean[1]
        moved = (now[0] - offset).abs() > torch.maximum(width, now[1])
        other = torch.maximum(width, now[1]) > _JUMP * torch.minimum(width, now[1])
        return (moved | other).any()

    def forget(self) -> None:
        """Begin anew."""
        self._seen.zero_()
        self._mean.zero_()


class Statistic:
    """Offset and width of a tensor: ``(x - offset) / width`` is what the network was trained with.

    Parameters
    ----------
    groups
    eps
        Added to the width, so that a frame of one value gives zeros.
    frames
        See `Slowly`.
    device
    limit
        The width is at least such that no number of the frame becomes larger than this; None: whatever they become.
    """

    def __init__(self, groups: Groups, eps: float, frames: float, device: str, limit: float | None = None) -> None:
        self._groups, self._eps, self._limit = groups, eps, limit
        self._slowly = Slowly((2, *groups.shape), frames, device)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hot: return offset and width for `x`, each of the shape of the groups."""
        flat = self._groups.flat(x)
        low, width = self._slowly(self._measure(flat).view(2, *self._groups.shape))
        if self._limit is not None:
            highest = flat.amax(dim=1).view(self._groups.shape)
            width = torch.maximum(width, (highest - low) / self._limit)
        return low, width + self._eps

    def _measure(self, flat: torch.Tensor) -> torch.Tensor:
        """Return ``(2, count)``: offset and width."""
        raise NotImplementedError

    def forget(self) -> None:
        """Begin anew."""
        self._slowly.forget()


class Percentiles(Statistic):
    """Offset at a low percentile, width up to a high one.

    Where both are the same number, as in a dark frame with a few bright spots, the width is that of all pixels. The
    percentiles are those of at most 65,536 pixels that lie evenly spread over the frame, whatever its rows and columns
    are like (the places are multiples of the golden ratio); lowest and highest value themselves (0 and 100) are those
    of all pixels.
    """

    def __init__(
        self,
        groups: Groups,
        low: float,
        high: float,
        eps: float,
        frames: float,
        device: str,
        limit: float | None = None,
    ) -> None:
        super().__init__(groups, eps, frames, device, limit)
        self._at = (low, high)
        size = groups.size
        self._ranks = sorted({rank for at in self._at for rank in self._between(at, min(size, SAMPLE))[:2]})
        self._places: torch.Tensor | None = None
        if size > SAMPLE:
            even = torch.arange(SAMPLE, dtype=torch.float64).mul_(_GOLDEN).remainder_(1.0).mul_(size)
            with torch.inference_mode(False):
                self._places = even.long().clamp_(max=size - 1).sort().values.to(device)

    def _measure(self, flat: torch.Tensor) -> torch.Tensor:
        some = flat if self._places is None else flat.index_select(1, self._places)
        if any(0 < at < 100 for at in self._at):
            some = self._ordered(some)
        low, high = (self._of(flat, some, at) for at in self._at)
        high = torch.where(high > low, high, flat.amax(dim=1))
        return torch.stack((low, high - low))

    def _ordered(self, some: torch.Tensor) -> torch.Tensor:
        """Return the numbers with those of the wanted ranks in their places.

        A GPU sorts, without a wait; on a CPU finding four ranks takes a tenth of the time of sorting.
        """
        if some.is_cuda:
            return some.sort(dim=1).values
        return torch.from_numpy(np.partition(some.numpy(), self._ranks, axis=1))

    @staticmethod
    def _between(at: float, count: int) -> tuple[int, int, float]:
        """Return the two ranks between which a percentile lies, and where."""
        whole, part = divmod(at / 100 * (count - 1), 1.0)
        return int(whole), min(int(whole) + 1, count - 1), part

    def _of(self, flat: torch.Tensor, some: torch.Tensor, at: float) -> torch.Tensor:
        if at in (0, 100):
            return flat.amin(dim=1) if at == 0 else flat.amax(dim=1)
        below, above, part = self._between(at, some.shape[1])
        return torch.lerp(some[:, below], some[:, above], part)


class Moments(Statistic):
    """Offset at the mean, width the standard deviation, of all pixels."""

    def _measure(self, flat: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(flat, dim=1, correction=0)
        return torch.stack((mean, variance.sqrt()))
