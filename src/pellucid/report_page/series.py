"""Many durations, kept as their distribution: as a whole, and for each bin of time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pellucid.report_page.grid import Grid

__all__ = ["Series", "edges_ms", "quantiles"]

_RATIO = math.log(1.01)
_FINE, _COARSE = 2100, 525
"""Logarithmic bins of 1% from 1 us to about 1000 s as a whole, of 4% along time."""
_BUFFER = 4096


class Series:
    """Durations in ms, at times in seconds.

    Parameters
    ----------
    grid
        None where they are wanted as a whole only.

    Attributes
    ----------
    count : int
    sum_ms, max_ms : float
        `max_ms` is exact, and nan while there is none.
    """

    def __init__(self, grid: Grid | None = None) -> None:
        self.count = 0
        self.sum_ms = 0.0
        self.max_ms = math.nan
        self._grid = grid
        self._fine = np.zeros(_FINE, np.int64)
        self._along = grid.counts(_COARSE) if grid is not None else None
        self._largest = grid.largest() if grid is not None else None
        self._times: list[float] = []
        self._values: list[float] = []

    def add(self, time_s: float, ms: float) -> None:
        """Note one; a negative one (clocks of two computers) counts as the shortest."""
        self._times.append(time_s)
        self._values.append(ms)
        if len(self._values) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Count what was noted."""
        if not self._values:
            return
        ms = np.array(self._values)
        bins = np.clip(np.log(np.maximum(ms * 1e3, 1.0)) / _RATIO, 0, _FINE - 1).astype(np.intp)
        self._fine += np.bincount(bins, minlength=_FINE)
        self.count += ms.size
        self.sum_ms += float(ms.sum())
        self.max_ms = float(np.fmax(self.max_ms, ms.max()))
        if self._grid is not None and self._along is not None and self._largest is not None:
            at = self._grid.at(np.array(self._times))
            self._along.put((at, bins * _COARSE // _FINE), 1)
            self._largest.put(at, ms)
        self._times.clear()
        self._values.clear()

    @property
    def mean_ms(self) -> float:
        """Of all; nan while there is none."""
        return self.sum_ms / self.count if self.count else math.nan

    def quantile_ms(self, q: float) -> float:
        """Return the duration below which the share `q` lies, within 1%; nan while there is none."""
        found = quantiles(self._fine[None], (q,), _RATIO)[0, 0]
        return float(min(found, self.max_ms))

    def along(self, qs: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return quantiles in each bin of time, within 4%.

        Returns
        -------
        quantiles_ms : (bins, len(qs))
            nan where a bin is empty.
        largest_ms, counts : (bins,)
        """
        assert self._grid is not None
        assert self._along is not None
        assert self._largest is not None
        used = self._grid.used
        counts, largest = self._along.values[:used].astype(np.int64), self._largest.values[:used].astype(np.float64)
        found = quantiles(counts, qs, _RATIO * _FINE / _COARSE)
        return np.minimum(found, largest[:, None]), largest, counts.sum(1)

    def shape(self, bins: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the distribution: `bins` + 1 edges in ms at equal ratios over what there is, and counts."""
        there = np.flatnonzero(self._fine)
        if not there.size:
            return np.array([1.0, 2.0]), np.zeros(1, np.int64)
        step = max(1, math.ceil((there[-1] - there[0] + 1) / bins))
        first = there[0] // step * step
        count = (there[-1] - first) // step + 1
        padded = np.zeros(count * step, np.int64)
        some = self._fine[first : first + count * step]
        padded[: some.size] = some
        return edges_ms(int(first), int(step), int(count)), padded.reshape(count, step).sum(1)


def edges_ms(first: int, step: int, count: int) -> NDArray[np.float64]:
    """Return the edges of `count` runs of `step` fine bins, in ms."""
    return np.asarray(np.exp((first + step * np.arange(count + 1)) * _RATIO) * 1e-3)


def quantiles(counts: NDArray[np.int64], qs: Sequence[float], ratio: float) -> NDArray[np.float64]:
    """Return quantiles of durations that are counted in logarithmic bins.

    Parameters
    ----------
    counts
        ``(rows, bins)``.
    qs
        Shares between 0 and 1.
    ratio
        Natural logarithm of the ratio of two bins; the first begins at 1 us.

    Returns
    -------
    numpy.ndarray
        ``(rows, len(qs))`` in ms, the middle of the bin; nan in a row without counts.
    """
    sums = counts.cumsum(1)
    total = sums[:, -1]
    out = np.full((len(counts), len(qs)), np.nan)
    for i, q in enumerate(qs):
        at = (sums < q * total[:, None]).sum(1)
        out[:, i] = np.where(total > 0, np.exp((at + 0.5) * ratio) * 1e-3, np.nan)
    return out
