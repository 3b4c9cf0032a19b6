"""Percentiles are found off the thread that draws, and what is found late is of no picture that is gone."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("PySide6")

from PySide6.QtCore import QThreadPool

from pellucid.viewer.aim import Aim
from pellucid.viewer.contrast import Contrast

S = 1_000_000_000
RAMP = np.linspace(0, 1000, 10_001, dtype=np.float32)


class Slow(Contrast):
    """Says in which thread it was asked, and waits to be let go."""

    def __init__(self):
        super().__init__("auto")
        self.asked: list[int] = []
        self.go = threading.Event()

    def aim(self, sample):
        self.asked.append(threading.get_ident())
        if threading.current_thread() is not threading.main_thread():
            self.go.wait(20)
        return super().aim(sample)


def done():
    assert QThreadPool.globalInstance().waitForDone(20_000)


@pytest.fixture
def slow():
    contrast = Slow()
    assert not contrast.settled
    contrast.learn(RAMP, 1 * S)
    assert contrast.settled
    yield contrast
    contrast.go.set()
    done()


def test_the_first_picture_is_taken_at_once_and_the_next_in_another_thread(slow):
    assert slow.asked == [threading.get_ident()]
    before = slow.limits
    aim = Aim(slow)
    aim.look(RAMP + 1000)
    assert aim.busy
    assert not aim.take(2 * S)  # nobody waited for it
    assert slow.limits == before
    assert slow.sample[0] == 1000  # a histogram shows the newest at once
    slow.go.set()
    done()
    assert slow.asked[1] != threading.get_ident()
    assert not aim.busy
    assert aim.take(2 * S)
    part = 1 - np.exp(-1 / 1.5)
    assert slow.limits == pytest.approx((before[0] + 1000 * part, before[1] + 1000 * part), abs=2)
    assert not aim.take(3 * S)  # once


def test_what_is_not_seen_any_more_does_not_count(slow):
    aim = Aim(slow)
    aim.look(RAMP + 5000)
    aim.forget()
    slow.go.set()
    done()
    assert not aim.take(2 * S)
    assert slow.limits == pytest.approx((1, 999), abs=1)
    assert not aim.busy


def test_limits_that_somebody_has_chosen_meanwhile_stay(slow):
    aim = Aim(slow)
    aim.look(RAMP + 5000)
    slow.hold(10, 20)
    slow.go.set()
    done()
    assert not aim.take(2 * S)
    assert slow.limits == (10, 20)
