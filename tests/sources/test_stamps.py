"""Wall-clock stamps on the clock of the process, while the wall clock misbehaves."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from pellucid.sources import _stamps
from pellucid.sources._stamps import Stamps

S = 1_000_000_000
NOON = datetime(2026, 6, 1, 12).timestamp()


class Clocks:
    """A wall clock and a monotonic one, moved by hand."""

    def __init__(self, monkeypatch) -> None:
        self.now = 500 * S
        self.wall_ns = round(NOON * S)
        monkeypatch.setattr(_stamps, "now_ns", lambda: self.now)
        monkeypatch.setattr(time, "time_ns", lambda: self.wall_ns)

    def pass_by(self, ns: int, wall_ns: int | None = None) -> None:
        self.now += ns
        self.wall_ns += ns if wall_ns is None else wall_ns

    def text(self) -> str:
        return datetime.fromtimestamp(self.wall_ns / S).strftime("%Y-%m-%d %H:%M:%S.%f")


@pytest.fixture
def clocks(monkeypatch) -> Clocks:
    return Clocks(monkeypatch)


def test_a_stamp_is_as_old_as_it_is(clocks):
    stamps, text = Stamps(), clocks.text()
    clocks.pass_by(2 * S)
    assert stamps.to_now_ns(text) == pytest.approx(500 * S, abs=1000)


def test_a_coarse_wall_clock_does_not_make_frames_older_or_younger(clocks):
    true_wall, tick = clocks.wall_ns, 15_625_000
    start, errors = clocks.now, []
    clocks.wall_ns = true_wall // tick * tick
    stamps = Stamps()
    for i in range(200):
        clocks.now += 10_100_000
        at = true_wall + clocks.now - start
        clocks.wall_ns = at // tick * tick
        text = datetime.fromtimestamp((at - 5_000_000) / S).strftime("%Y-%m-%d %H:%M:%S.%f")
        if i > 100:
            errors.append(stamps.to_now_ns(text) - (clocks.now - 5_000_000))
        else:
            stamps.to_now_ns(text)
    assert max(errors) - min(errors) < 200_000
    assert abs(errors[0]) < 500_000


def test_a_drift_of_the_wall_clock_is_followed(clocks):
    stamps = Stamps()
    for _ in range(3600):
        clocks.pass_by(S, S - 50_000)  # 50 ppm: 180 ms in an hour
        found = stamps.to_now_ns(clocks.text())
    assert clocks.now - found < 2_000_000


@pytest.mark.parametrize("step", [-3600 * S, 3600 * S])
def test_a_wall_clock_that_is_set_does_not_stay_wrong(clocks, step):
    stamps = Stamps()
    clocks.pass_by(S)
    clocks.pass_by(0, step)
    stamps.look()
    clocks.pass_by(S)
    text = clocks.text()
    clocks.pass_by(S // 100)
    assert stamps.to_now_ns(text) == pytest.approx(clocks.now - S // 100, abs=1000)


def test_never_in_the_future_and_never_nothing(clocks):
    stamps = Stamps()
    assert stamps.to_now_ns("2026-06-01 12:00:09.000000") == clocks.now
    assert stamps.to_now_ns("") == clocks.now
    assert stamps.to_now_ns("1999-01-01 00:00:00.000000") == 1
