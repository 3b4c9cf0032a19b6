"""How far another computer's clock is from this one."""

from __future__ import annotations

from collections import deque

__all__ = ["ClockOffset"]


class ClockOffset:
    """The offset of the sample with the shortest way there and back, of the last 32 (as NTP's clock filter).

    A sample is off by at most half its round trip, and it waits in queues more often than not, so the
    shortest one is worth more than any mean. Old ones go, so that a drift is followed.

    Attributes
    ----------
    offset_ns : int
        The other clock less this one.
    round_trip_ns : int
        Of the sample in use; -1 while there is none.
    """

    def __init__(self) -> None:
        self.offset_ns = 0
        self.round_trip_ns = -1
        self._samples: deque[tuple[int, int]] = deque(maxlen=32)

    def add(self, asked_ns: int, heard_ns: int, answered_ns: int, now_ns: int) -> None:
        """Take one sample.

        Parameters
        ----------
        asked_ns, now_ns
            When the question left and the answer came, on this clock.
        heard_ns, answered_ns
            When the question came and the answer left, on the other clock.
        """
        trip = (now_ns - asked_ns) - (answered_ns - heard_ns)
        if trip < 0 or now_ns < asked_ns:
            return
        self._samples.append((trip, (heard_ns - asked_ns + answered_ns - now_ns) // 2))
        self.round_trip_ns, self.offset_ns = min(self._samples)
