"""When the next frame is due, and which slot it may take: what replayed and simulated frames have in common.

Two policies. A source that *waits* gives every frame, as fast as slots come free or at most `fps`; when
there is no slot the clock stands still, so a pause is not followed by a burst. A source that *drops* behaves
as a camera without a buffer: frame k is due at ``k / fps`` after the first ``read``, and if no slot had been
offered by then it is gone. The moment of the offer decides, not that of the ``read``, so a reader that comes
late neither saves nor loses frames.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pellucid.metrics import now_ns
from pellucid.protocols import Account, Slot

__all__ = ["Due", "Pace"]

LOOK_S = 0.0005
"""Between two looks for a free slot: short beside a frame, long beside the look."""


class Due(NamedTuple):
    """A frame to be filled now."""

    seq: int
    slot: Slot
    camera_ns: int


class Pace:
    """Decides which frame is next.

    Parameters
    ----------
    fps
        Frames each second over all streams; None for as fast as slots are offered.
    drops
        Leave a frame out when no slot is free at its time; needs `fps`.
    total
        Number of frames; None for no end.
    stream_of
        From sequence number to stream.
    """

    def __init__(self, fps: float | None, drops: bool, total: int | None, stream_of: Callable[[int], int]) -> None:
        self._period_ns = 0.0 if fps is None else 1e9 / fps
        self._drops = drops
        self._total = total
        self._stream_of = stream_of
        self._free: tuple[deque[tuple[int, Slot]], ...] = ()
        self._account: Account | None = None
        self._next = 0
        self._zero_ns = 0.0
        self._stopped = False
        self._told = False

    def start(self, streams: int, account: Account) -> None:
        """Begin; the clock starts with the first `take`."""
        self._free = tuple(deque() for _ in range(streams))
        self._account = account

    def offer(self, slot: Slot) -> None:
        """Note a free slot and when it became free."""
        self._free[slot.stream.index].append((now_ns(), slot))

    def stop(self) -> None:
        """Let no further frame become due."""
        self._stopped = True
        self._tell()

    @property
    def finished(self) -> bool:
        """Whether the last frame was given away (or left out), or `stop` was called."""
        return self._stopped or (self._total is not None and self._next >= self._total)

    def take(self, timeout_s: float) -> Due | None:
        """Return the next frame with its slot; None at the end, or when the time is over."""
        now = now_ns()
        deadline = now + int(timeout_s * 1e9)
        if not self._zero_ns:
            self._zero_ns = float(now)
        while not self.finished:
            if self._drops:
                self._leave_out(now)
                if self.finished:
                    break
            due = int(self._zero_ns + self._next * self._period_ns)
            free = self._free[self._stream_of(self._next)]
            if now >= due and free:
                return self._give(free.popleft()[1], due, now)
            if now >= deadline:
                return None
            wait_s = (min(deadline, due) - now) * 1e-9 if due > now else LOOK_S
            time.sleep(min(wait_s, max(deadline - now, 0) * 1e-9))
            now = now_ns()
        self._tell()
        return None

    def _give(self, slot: Slot, due: int, now: int) -> Due:
        if not self._drops and self._period_ns and now - due > self._period_ns:
            self._zero_ns += now - due
        due = due if self._drops else now
        seq = self._next
        self._next += 1
        if self.finished:
            self._tell()
        return Due(seq, slot, due)

    def _leave_out(self, now: int) -> None:
        """Pass over the frames whose time came while there was no slot for them, and say so."""
        first = self._next
        while self._total is None or self._next < self._total:
            due = self._zero_ns + self._next * self._period_ns
            free = self._free[self._stream_of(self._next)]
            if due > now or (free and free[0][0] <= due):
                break
            self._next += 1
        if self._next > first and self._account is not None:
            self._account.missing(first, self._next - first, "dropped", "ring")

    def _tell(self) -> None:
        if not self._told and self._account is not None:
            self._told = True
            self._account.told(self._next)
