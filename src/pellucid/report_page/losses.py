"""What did not arrive, was not restored or not recorded: how many, why, and when."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pellucid.report_page.grid import BINS, Along, Grid

__all__ = ["Loss", "Losses"]

_MOST = 24
"""Reasons that are told apart; what comes behind them is counted together."""
_WAITING = 1000
_POINTS = 256


@dataclass
class Loss:
    """One state and reason.

    Parameters
    ----------
    state
        ``"dropped"``, ``"lost"``, ``"raw_only"``, ``"not_recorded"``, ``"unfinished"``, ``"unknown"``.
    reason
        The place, as the ledger has it.
    along
        Frames in each bin of time.
    frames
    first_s, last_s
        Since the first frame.
    first, last
        Numbers of frames.
    streams
    """

    state: str
    reason: str
    along: Along
    frames: int = 0
    first_s: float = np.inf
    last_s: float = -np.inf
    first: int = -1
    last: int = -1
    streams: set[int] = field(default_factory=set)


class Losses:
    """Counts losses along the time axis.

    A frame that did not arrive has no time: it gets its share of the time between those before and behind it.
    """

    def __init__(self, grid: Grid) -> None:
        self.all: dict[tuple[str, str], Loss] = {}
        self._grid = grid
        self._waiting: list[tuple[str, str, int, int, int]] = []
        self._before_s = 0.0

    def timed(self, time_s: float, state: str, reason: str, first: int, count: int, stream: int) -> None:
        """Count frames whose time is known."""
        self._count(state, reason, first, first + count - 1, count, stream, time_s, time_s)

    def untimed(self, state: str, reason: str, first: int, last: int, stream: int) -> None:
        """Count frames whose time is that of what comes next."""
        if self._waiting:
            state0, reason0, first0, last0, stream0 = self._waiting[-1]
            if (state0, reason0, stream0, last0 + 1) == (state, reason, stream, first):
                self._waiting[-1] = (state, reason, first0, last, stream)
                return
        self._waiting.append((state, reason, first, last, stream))
        if len(self._waiting) >= _WAITING:
            self.passed(self._before_s)

    def passed(self, time_s: float) -> None:
        """Note a frame whose time is known, in the order of the numbers."""
        if self._waiting:
            after_s = max(time_s, self._before_s)
            total = sum(last - first + 1 for _, _, first, last, _ in self._waiting)
            step_s = (after_s - self._before_s) / (total + 1)
            done = 0
            for state, reason, first, last, stream in self._waiting:
                count = last - first + 1
                begin_s = self._before_s + (done + 1) * step_s
                self._count(state, reason, first, last, count, stream, begin_s, begin_s + (count - 1) * step_s)
                done += count
            self._waiting.clear()
        self._before_s = time_s

    def end(self) -> None:
        """Count what came behind the last frame whose time is known, at that one's."""
        self.passed(self._before_s)

    def _count(
        self, state: str, reason: str, first: int, last: int, count: int, stream: int, begin_s: float, end_s: float
    ) -> None:
        loss = self._of(state, reason)
        loss.frames += count
        loss.first_s, loss.last_s = min(loss.first_s, begin_s), max(loss.last_s, end_s)
        loss.first = first if loss.first < 0 else min(loss.first, first)
        loss.last = max(loss.last, last)
        loss.streams.add(stream)
        if begin_s == end_s:
            loss.along.values[min(int(begin_s / self._grid.width_s), BINS - 1)] += count
            return
        points = min(count, _POINTS)
        shares = np.diff(np.linspace(0, count, points + 1).round().astype(np.int64))
        loss.along.put(self._grid.at(np.linspace(begin_s, end_s, points)), shares)

    def _of(self, state: str, reason: str) -> Loss:
        if (state, reason) not in self.all and len(self.all) >= _MOST:
            reason = "other reasons"
        key = state, reason
        if key not in self.all:
            self.all[key] = Loss(state, reason, self._grid.counts())
        return self.all[key]
