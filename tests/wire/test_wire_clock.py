"""Another computer's clock, simulated: whatever the network does, the truth lies within what is told."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pellucid.wire.clock import APART, ClockOffset

MS = 1_000_000
S = 1_000 * MS
AHEAD = -123_456_789_012_345
Delay = Callable[[float], float]


class Far:
    """Another computer: its clock at a time of this one's, and exchanges with it.

    Parameters
    ----------
    rate
        By how much its clock runs faster, at a time in seconds.
    there, back
        The ways' delays in ns, at a time in seconds.
    """

    def __init__(self, rate: Delay, there: Delay, back: Delay) -> None:
        self.rate, self.there, self.back = rate, there, back
        self.ahead, self.now = float(AHEAD), 77 * S
        self.clock = ClockOffset()

    def pass_by(self, ns: float) -> None:
        for _ in range(10):
            self.ahead += self.rate(self.now / S) * ns / 10
            self.now += round(ns / 10)

    def exchange(self) -> None:
        asked = self.now
        self.pass_by(self.there(asked / S))
        heard = round(self.now + self.ahead)
        self.pass_by(0.02 * MS)
        answered = round(self.now + self.ahead)
        self.pass_by(self.back(asked / S))
        self.clock.add(asked, heard, answered, self.now)

    @property
    def error(self) -> float:
        return abs(self.clock.at(self.now)[0] - self.ahead)

    @property
    def unsure(self) -> int:
        return self.clock.at(self.now)[1]


def minutes(far: Far, count: float) -> list[tuple[float, int]]:
    """Exchange twice a second; return errors and what was told of them, just before each exchange."""
    found = []
    for _ in range(round(120 * count)):
        far.exchange()
        far.pass_by(S / 2)
        found.append((far.error, far.unsure))
    return found


def queues(rng: random.Random, shortest_ms: float, mean_ms: float) -> Delay:
    return lambda _: MS * (shortest_ms + rng.expovariate(1 / mean_ms))


@pytest.mark.parametrize("rate", [0.0, 80e-6, -490e-6])
@pytest.mark.parametrize("there_ms", [0.1, 30.0], ids=["symmetric", "lopsided"])
def test_the_truth_lies_within_what_is_told(rate, there_ms):
    rng = random.Random(5)
    far = Far(lambda _: rate, queues(rng, there_ms, 4.0), queues(rng, 0.1, 2.0))
    found = minutes(far, 3)
    assert all(error <= unsure for error, unsure in found)
    late = found[-100:]
    # What cannot be known is half the shortest round trip; all else is filtered away, the drift as well.
    least = (there_ms + 0.1) / 2 * MS
    assert max(unsure for _, unsure in late) < least + (2.5 if there_ms > 1 else 0.8) * MS
    assert min(unsure for _, unsure in late) >= least * 0.99
    told = far.clock.describe()
    assert abs(told["drift_ppm"] - rate * 1e6) <= told["drift_unsure_ppm"] < 30 + 300 * (there_ms > 1)
    assert told["jumps"] == 0
    if there_ms > 1:  # and it is needed: the error is nearly all of it, since the ways differ so much
        assert max(error for error, _ in late) > 0.8 * least


def test_one_exchange_tells_half_its_round_trip():
    clock = ClockOffset()
    clock.add(1000, 1000 + 900 + AHEAD, 2000 + AHEAD, 2000 + 100)
    assert (clock.offset_ns, clock.unsure_ns) == (AHEAD + 400, 500)
    for there, back in ((10, 12), (50, 400)):  # the shortest of each direction counts
        clock.add(3000, 3000 + there + AHEAD, 4000 + AHEAD, 4000 + back)
    assert (clock.round_trip_ns, clock.samples) == (22, 3)
    assert clock.offset_ns == AHEAD - 1
    assert clock.unsure_ns == 11


def test_nothing_is_learnt_from_what_cannot_be():
    clock = ClockOffset()
    clock.add(1000, 1000, 900_000, 2000)  # a way shorter than none
    clock.add(2000, 0, 0, 1000)  # an answer before its question
    clock.add(1000, 1500, 1400, 2000)  # and one before it was heard
    assert (clock.samples, clock.unsure_ns, clock.round_trip_ns) == (0, -1, -1)
    clock.add(1000, -(2**63), 2**63 - 1, 2**63 - 1)
    clock.add(1000, -(2**63), -(2**63), 2**63 - 1)
    assert clock.samples == 1


def test_it_is_less_sure_the_longer_it_hears_nothing():
    far = Far(lambda _: APART * 0.9, lambda _: 0.1 * MS, lambda _: 0.1 * MS)
    far.exchange()
    before = far.unsure
    for _ in range(60):
        far.pass_by(S)
        assert far.error <= far.unsure
    assert far.unsure - before == pytest.approx(60 * S * APART, rel=0.01)


def test_a_clock_that_jumps_is_noticed():
    rng = random.Random(7)
    far = Far(lambda _: 20e-6, queues(rng, 0.2, 1.0), queues(rng, 0.2, 1.0))
    minutes(far, 1)
    far.ahead += 3600 * S  # that computer slept, or this one
    far.exchange()
    assert far.clock.jumps == 1
    assert far.error <= far.unsure < 20 * MS
    assert all(error <= unsure for error, unsure in minutes(far, 1))


def test_a_clock_that_is_steered_anew_is_noticed():
    """NTP begins to pull: the rate that was measured holds no more, and is measured again."""
    rng = random.Random(11)
    far = Far(lambda s: 5e-6 if s < 200 else -450e-6, queues(rng, 0.2, 1.0), queues(rng, 0.2, 1.0))
    found = minutes(far, 6)
    assert far.clock.jumps <= 3
    # Until it shows the truth is missed by as little as it takes to show.
    assert sum(error > unsure for error, unsure in found) < 10
    assert all(error <= unsure + 2 * MS for error, unsure in found)
    assert all(error <= unsure for error, unsure in found[-100:])
    assert far.clock.describe()["drift_ppm"] == pytest.approx(-450, abs=30)
