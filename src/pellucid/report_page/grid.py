"""A time axis of bounded memory for a run of unknown length, and what is counted along it.

The bins are a millisecond wide at first; where a time lies behind the last of them, each two become one. A run of a
second and one of a month take the same memory, and their pictures the same number of points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "Along", "Grid"]

BINS = 512
_FIRST_S = 1e-3


class Grid:
    """Bins of equal width that begin at 0.

    Attributes
    ----------
    width_s : float
        Of a bin.
    last_s : float
        The largest time that was seen.
    """

    def __init__(self) -> None:
        self.width_s = _FIRST_S
        self.last_s = 0.0
        self._along: list[Along] = []

    def counts(self, *rest: int) -> Along:
        """Return an array of zeros whose values are added where bins become one."""
        return self._follow(Along(np.zeros((BINS, *rest), np.int64 if not rest else np.int32), np.add))

    def largest(self) -> Along:
        """Return an array of -inf of which the larger is kept."""
        return self._follow(Along(np.full(BINS, -np.inf), np.maximum))

    def _follow(self, along: Along) -> Along:
        self._along.append(along)
        return along

    def reach(self, time_s: float) -> None:
        """Make bins wide enough for a time."""
        self.last_s = max(self.last_s, time_s)
        while self.last_s >= self.width_s * BINS:
            self.halve()

    def halve(self) -> None:
        """Make one bin of each two."""
        self.width_s *= 2
        for along in self._along:
            along.fold()

    @property
    def used(self) -> int:
        """Bins up to the last time."""
        return min(int(self.last_s / self.width_s) + 1, BINS)

    def at(self, times_s: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the bins of times."""
        return np.clip(times_s / self.width_s, 0, BINS - 1).astype(np.intp)


class Along:
    """An array whose first axis is that of a grid.

    Attributes
    ----------
    values : numpy.ndarray
        ``(BINS, ...)``.
    """

    def __init__(self, values: NDArray[np.generic], join: np.ufunc) -> None:
        self.values = values
        self._join = join
        self._empty = values.flat[0]

    def fold(self) -> None:
        """Make one bin of each two."""
        half = BINS // 2
        self.values[:half] = self._join(self.values[0::2], self.values[1::2])
        self.values[half:] = self._empty

    def put(self, at: Any, values: Any) -> None:
        """Add, or keep the larger; places may come more than once."""
        self._join.at(self.values, at, values)
