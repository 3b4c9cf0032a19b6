"""The only clock, and percentiles in memory that does not grow with the run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Histogram", "Rate", "now_ns"]

now_ns = time.perf_counter_ns
"""Nanoseconds; monotonic, and the same for all processes of one computer (Linux, macOS and Windows)."""


class Histogram:
    """Durations from 1 us to about 1000 s in logarithmic bins of 1%, plus the exact largest.

    One thread adds; any thread may read. Memory is fixed (17 KiB), so a run can last for days.
    """

    _RATIO = math.log(1.01)
    _BINS = 2100

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS, np.int64)
        self.count = 0
        self.max_ns = 0
        self.sum_ns = 0

    def add(self, ns: int) -> None:
        """Count one duration; a negative one (clocks of two computers) counts as zero."""
        at = int(math.log(ns * 1e-3) / self._RATIO) if ns > 1000 else 0
        self._counts[min(at, self._BINS - 1)] += 1
        self.count += 1
        if ns > 0:
            self.sum_ns += ns
            self.max_ns = max(self.max_ns, ns)

    def merge(self, other: Histogram) -> None:
        """Count all that another one has counted, as well."""
        self._counts += other._counts
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantile_ms(self, q: float) -> float:
        """Return the duration below which the share `q` lies, in ms, within 1%; nan while empty."""
        if self.count == 0:
            return math.nan
        at = int(np.searchsorted(np.cumsum(self._counts), q * self.count, side="left"))
        return min(math.exp((at + 0.5) * self._RATIO) * 1e-3, self.max_ns * 1e-6)

    def cumulative(self, bounds_ms: Sequence[float]) -> list[int]:
        """Return how many durations lie below each bound, within 1% of it, and behind them how many there are."""
        sums = np.concatenate(([0], np.cumsum(self._counts)))
        ends = [int(math.log(bound * 1e3) / self._RATIO) for bound in bounds_ms]
        return [int(sums[min(max(end, 0), self._BINS)]) for end in ends] + [int(sums[-1])]

    def summary(self) -> dict[str, Any]:
        """Return ``{p50, p95, p99, max}`` in ms and the count ``n``."""
        keys = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
        row: dict[str, Any] = {k: round(self.quantile_ms(q), 4) for k, q in keys.items()} if self.count else {}
        return row | ({"max": round(self.max_ns * 1e-6, 4)} if self.count else {}) | {"n": self.count}


class Rate:
    """Events per second over the last second or so; one thread counts, any thread reads."""

    def __init__(self) -> None:
        self.count = 0
        self._seen = (now_ns(), 0)

    def per_s(self) -> float:
        """Rate since the last call."""
        now, count = now_ns(), self.count
        (before, had), self._seen = self._seen, (now, count)
        return (count - had) / max((now - before) * 1e-9, 1e-9)
