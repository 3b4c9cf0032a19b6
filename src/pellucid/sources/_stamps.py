"""Wall-clock stamps of a camera's side, put on the clock of this process."""

from __future__ import annotations

import time
from datetime import datetime

from pellucid.metrics import now_ns

__all__ = ["Stamps"]

KEEP_NS = 10_000_000_000
STEP_NS = 1_000_000_000


class Stamps:
    """Follows the offset between the wall clock, with which Micro-Manager stamps frames, and `now_ns`.

    A single look at both clocks is off by however long this thread was interrupted between them and, on
    Windows before Python 3.13, by up to the 16 ms in which ``time.time`` ticks. Both make the offset too
    large, never too small, so the smallest one of the last 10 to 20 s is used: it is steady, and it follows
    a wall clock that drifts. Where the wall clock is set, the offset is taken anew at once.
    """

    def __init__(self) -> None:
        now = now_ns()
        self._best = self._coming = now - time.time_ns()
        self._turn = now + KEEP_NS

    def look(self) -> int:
        """Compare the clocks once more, and return the time now."""
        now = now_ns()
        offset = now - time.time_ns()
        if offset - self._best > STEP_NS:
            self._best = self._coming = offset
            self._turn = now + KEEP_NS
        self._best = min(self._best, offset)
        self._coming = min(self._coming, offset)
        if now >= self._turn:
            self._best, self._coming = self._coming, offset
            self._turn = now + KEEP_NS
        return now

    def to_now_ns(self, text: str) -> int:
        """Put a local time (``2026-11-22 19:43:07.327396``) on the clock of `now_ns`; never in the future.

        An empty text, of a core that does not stamp, gives the present. A stamp from before the wall clock was
        set is off by as much.
        """
        now = self.look()
        if not text:
            return now
        return min(max(1, self._best + round(datetime.fromisoformat(text).timestamp() * 1e9)), now)
