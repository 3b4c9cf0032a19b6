"""Queues of the ways of a frame: bursts are ridden out, and work that is always too slow gets new frames."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.runtime import fanout
from pellucid.runtime.fanout import Branch
from pellucid.testing.source import LocalRing

SLOTS = 16


class Way:
    """A branch of eight places whose work takes as long as it is let."""

    def __init__(self, depth: int = 8):
        self.ring = LocalRing(Stream(Spec((4, 4), "uint16")), SLOTS)
        self.free = list(self.ring.slots)
        self.done: list[int] = []
        self.skipped: list[int] = []
        self.go = threading.Semaphore(0)
        self.counts: Counter[str] = Counter()
        self.branch = Branch(
            "pellucid test", self.work, self.free.append, policy="latest", depth=depth,
            on_error=lambda name, error: self.skipped.append(-1),
            on_skip=lambda slot: self.skipped.append(slot.info.seq), counts=self.counts,
        )  # fmt: skip
        self.number = 0

    def work(self, slot, names):
        self.go.acquire()
        self.done.append(slot.info.seq)

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            slot = self.free.pop(0)
            slot.info = FrameInfo(self.number)
            self.number += 1
            self.branch.put(slot, ("raw",))

    def finish(self, count: int = 1) -> None:
        """Let some frames be worked off."""
        before = len(self.done)
        for _ in range(count):
            self.go.release()
        end = time.monotonic() + 20
        while (len(self.done) < before + count or self.branch.busy_since_ns == 0) and time.monotonic() < end:
            time.sleep(0.001)
            if not self.branch.waiting and len(self.done) >= before + count:
                break

    def end(self) -> None:
        for _ in range(100):
            self.go.release()
        assert self.branch.drain(20)
        self.ring.close()


@pytest.fixture
def way():
    made = Way()
    yield made
    made.end()
    assert len(made.free) == SLOTS
    assert made.counts["offered"] == made.counts["written"] + made.counts["skipped"] == made.number


def settled(way: Way, waiting: int) -> None:
    end = time.monotonic() + 20
    while way.branch.waiting != waiting and time.monotonic() < end:
        time.sleep(0.001)
    assert way.branch.waiting == waiting


def test_a_burst_is_ridden_out(way):
    way.put()
    settled(way, 0)
    way.put(8)
    assert way.branch.waiting == 8
    way.finish(9)
    assert way.done == list(range(9))
    assert not way.skipped


def test_a_full_queue_lets_the_oldest_go(way):
    way.put()
    settled(way, 0)
    way.put(10)
    assert way.skipped == [1, 2]
    assert way.branch.waiting == 8


def test_a_queue_that_stands_is_cut_to_the_newest(way, monkeypatch):
    monkeypatch.setattr(fanout, "STANDING_NS", 50_000_000)
    way.put()
    settled(way, 0)
    way.put(5)
    way.finish()  # one is done, the next begun, four wait: from here on the queue stands
    time.sleep(0.06)
    way.finish()
    assert not way.skipped
    way.put()  # the first that comes then takes the places of all
    assert way.skipped == [3, 4, 5]
    assert way.branch.waiting == 1
    way.put()
    assert way.skipped == [3, 4, 5, 6]
    assert way.branch.waiting == 1


def test_places_come_back_when_nothing_had_to_be_skipped_for_a_while(way, monkeypatch):
    monkeypatch.setattr(fanout, "STANDING_NS", 50_000_000)
    monkeypatch.setattr(fanout, "CALM_NS", 100_000_000)
    way.put()
    settled(way, 0)
    way.put(4)
    way.finish()
    time.sleep(0.06)
    way.finish()
    way.put()
    assert way.branch.waiting == 1
    way.finish(2)
    settled(way, 0)
    time.sleep(0.12)
    gone = len(way.skipped)
    way.put()
    settled(way, 0)
    way.put(5)
    assert way.branch.waiting == 5
    assert len(way.skipped) == gone


def test_one_place_is_one_place():
    way = Way(depth=1)
    way.put()
    settled(way, 0)
    way.put(3)
    assert way.skipped == [1, 2]
    way.end()
