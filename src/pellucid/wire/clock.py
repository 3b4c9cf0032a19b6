"""How far another computer's clock is from this one, and how well that is known.

Both are monotonic clocks that count from anywhere. A question that leaves at t0 (this clock), comes at t1 and is
answered at t2 (the other clock), whose answer comes at t3, says that the other clock was ahead by

    ((t1 - t0) + (t2 - t3)) / 2, give or take ((t3 - t0) - (t2 - t1)) / 2

half the round trip, and that is all that can be known of it: the ways there and back may differ, up to one that takes
no time at all (RFC 5905, section 8). So each exchange is kept as an interval that holds the truth, and not as a value.
It grows with its age by as much as the two clocks may run apart, and what all intervals of the last exchanges have in
common is what is told: its middle, and half its width as the uncertainty. An exchange that had to wait in a queue has a
wide interval and changes nothing; the shortest one of each direction counts.

How fast the clocks run apart is measured in the same way, by the interval of now less that of a while ago over the
time between, give or take two millionths for the temperature. Until then, and as a bound to what is measured, two
clocks are taken to run apart by 500 millionths at most: that is as much as NTP steers a clock by, crystals differ by
less than 100. Where the intervals have nothing in common one of the clocks has jumped (a computer that slept) or is
steered anew, and all begins from there; until that shows, a few exchanges later, more may be wrong than is told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["APART", "ClockOffset"]

APART = 500e-6
"""By how much two clocks run apart at most."""
WANDER = 2e-6
"""By how much that changes, with the temperature, while it is in use."""
_KEPT = 64
_ANCHOR_NS = 5_000_000_000
"""Between two marks of which the rate is measured, at first."""
_ANCHOR_MOST_NS = 80_000_000_000
_ANCHORS = 24


@dataclass(frozen=True, slots=True)
class _Interval:
    """The other clock was ahead by `low_ns` at least and `high_ns` at most, beyond a base, at `at_ns` of this one."""

    at_ns: int
    low_ns: float
    high_ns: float


class ClockOffset:
    """What is known of another clock.

    Attributes
    ----------
    offset_ns : int
        The other clock less this one, at the last exchange.
    unsure_ns : int
        It is off by as much at most; -1 while nothing is known.
    round_trip_ns : int
        The shortest so far; -1 while there is none.
    samples, jumps : int
        Exchanges that were taken, and how often all began anew.
    """

    def __init__(self) -> None:
        self.offset_ns = 0
        self.unsure_ns = self.round_trip_ns = -1
        self.samples = self.jumps = 0
        self._rate, self._rate_unsure = 0.0, APART
        self._at_ns = self._base_ns = 0
        self._last: deque[_Interval] = deque(maxlen=_KEPT)
        self._anchors: list[_Interval] = []
        self._apart_ns = _ANCHOR_NS

    def add(self, asked_ns: int, heard_ns: int, answered_ns: int, now_ns: int) -> None:
        """Take one exchange; one that took less than no time is none.

        Parameters
        ----------
        asked_ns, now_ns
            When the question left and the answer came, on this clock.
        heard_ns, answered_ns
            When the question came and the answer left, on the other clock.
        """
        trip = (now_ns - asked_ns) - (answered_ns - heard_ns)
        if trip < 0 or now_ns < asked_ns or answered_ns < heard_ns or now_ns < self._at_ns:
            return
        self.samples += 1
        self.round_trip_ns = trip if self.round_trip_ns < 0 else min(self.round_trip_ns, trip)
        if self.samples == 1:
            self._base_ns = answered_ns - now_ns  # what is left are small numbers, which a float holds to the ns
        # The upper end was true when the question left; since then the clocks may have run apart a little more.
        slack_ns = APART * (now_ns - asked_ns)
        new = _Interval(now_ns, answered_ns - now_ns - self._base_ns, heard_ns - asked_ns - self._base_ns + slack_ns)
        self._last.append(new)
        self._at_ns = now_ns
        low, high = self._common(now_ns)
        if low > high:
            self._begin_anew(new)
            low, high = new.low_ns, new.high_ns
        self.offset_ns = self._base_ns + round((low + high) / 2)
        self.unsure_ns = max(round((high - low) / 2), 1)
        self._measure_rate(_Interval(now_ns, low, high))

    def at(self, now_ns: int) -> tuple[int, int]:
        """Return `offset_ns` and `unsure_ns` as they are by now. Hot."""
        age_ns = max(now_ns - self._at_ns, 0)
        return self.offset_ns + round(self._rate * age_ns), self.unsure_ns + round(self._rate_unsure * age_ns)

    def describe(self) -> dict[str, Any]:
        """Return what the report says: ms, and millionths."""
        return {
            "offset_ms": round(self.offset_ns * 1e-6, 6),
            "unsure_ms": round(self.unsure_ns * 1e-6, 6),
            "round_trip_ms": round(self.round_trip_ns * 1e-6, 6),
            "drift_ppm": round(self._rate * 1e6, 3),
            "drift_unsure_ppm": round(self._rate_unsure * 1e6, 3),
            "exchanges": self.samples,
            "jumps": self.jumps,
        }

    def _common(self, now_ns: int) -> tuple[float, float]:
        """Return what all intervals have in common at that time; the lower end above the upper where nothing."""
        slowest, fastest = self._rate - self._rate_unsure, self._rate + self._rate_unsure
        return (
            max(one.low_ns + slowest * (now_ns - one.at_ns) for one in self._last),
            min(one.high_ns + fastest * (now_ns - one.at_ns) for one in self._last),
        )

    def _measure_rate(self, now: _Interval) -> None:
        """Narrow the rate down by all marks of before; each bounds it from both sides."""
        least, most = -APART, APART
        for then in self._anchors:
            age_ns = now.at_ns - then.at_ns
            if age_ns > 0:
                least = max(least, (now.low_ns - then.high_ns) / age_ns - WANDER)
                most = min(most, (now.high_ns - then.low_ns) / age_ns + WANDER)
        if least <= most:
            self._rate, self._rate_unsure = (least + most) / 2, max((most - least) / 2, WANDER)
        else:  # it has changed by more than a clock wanders
            self._forget_rate()
        if not self._anchors or now.at_ns - self._anchors[-1].at_ns > self._apart_ns:
            self._anchors.append(now)
        if len(self._anchors) > _ANCHORS:
            # The longer ago, the better is the rate known; not so long that it may have been another one.
            thin = self._apart_ns < _ANCHOR_MOST_NS
            self._apart_ns *= 1 + thin
            del self._anchors[: None if thin else 1 : 2 if thin else 1]

    def _begin_anew(self, new: _Interval) -> None:
        self.jumps += 1
        self._last.clear()
        self._last.append(new)
        self._forget_rate()

    def _forget_rate(self) -> None:
        self._anchors.clear()
        self._apart_ns = _ANCHOR_NS
        self._rate, self._rate_unsure = 0.0, APART
