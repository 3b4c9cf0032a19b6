"""From the wire to the window, without a screen: the real receiver and the real sender in one thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.sinks import window as sink
from pellucid.viewer import newest as room
from pellucid.viewer.newest import SLOTS, WHY, Newest
from pellucid.wire.receiver import Receiver
from pellucid.wire.sender import Feed, Sender

RAW = Spec((8, 6), "uint16")
PLANES = {"raw": RAW, "restored": Spec((8, 6), "float32"), WHY: Spec((1, 256), "uint8")}


class Both:
    """Both ends, called in turn."""

    def __init__(self, streams: int = 1) -> None:
        self.receiver = Receiver("tcp://127.0.0.1:*", planes=tuple(PLANES), heartbeat_s=0.1, timeout_s=1.0, turns=True)
        self.sender = Sender(self.receiver.endpoint, [Feed(Stream(RAW, index=i), PLANES) for i in range(streams)])
        self.shown: list[tuple[int, dict[str, float], FrameInfo]] = []
        self.next = 0
        # The sender opens in a thread, since both ends wait for each other; after that this thread has both.
        opening = threading.Thread(target=self.sender.open, args=(20.0,))
        opening.start()
        hello = self.receiver.accept(20.0)
        assert hello is not None
        self.turns: list[tuple[int, ...]] = []
        self.newest = Newest(self.receiver, hello, self.turns.append)
        while opening.is_alive():
            self.newest.look(lambda *_: None)
        self.until(lambda: self.free() == streams * SLOTS)

    def free(self) -> int:
        slots = []
        while (slot := self.sender.free()) is not None:
            slots.append(slot)
        for slot in slots:
            self.sender.rings[slot.feed].back(slot, spent=False)
        return len(slots)

    def look(self) -> None:
        self.newest.look(
            lambda feed, planes, info: self.shown.append((feed, {n: float(p.flat[0]) for n, p in planes.items()}, info))
        )
        self.sender.poll(0.005)

    def send(self, names: tuple[str, ...] = ("raw", "restored"), stream: int = 0, why: str = "") -> bool:
        slot = self.sender.rings[stream].take()
        if slot is None:
            return False
        for name in names:
            slot.planes[name].fill(self.next)
        if why:
            slot.planes[WHY][0, : len(why)] = np.frombuffer(why.encode(), np.uint8)
            slot.planes[WHY][0, len(why)] = 0
            names = (*names, WHY)
        slot.ready = names
        slot.info = FrameInfo(self.next, stream, self.next, now_ns())
        self.next += 1
        return self.sender.commit(slot)

    def until(self, condition) -> None:
        end = now_ns() + 20 * 10**9
        while not condition():
            assert now_ns() < end, "it did not happen in time"
            self.look()

    def close(self) -> None:
        self.newest.close()
        self.sender.close(0.5)


@pytest.fixture
def both():
    pair = Both()
    yield pair
    pair.close()


def test_two_ends_agree_on_the_name_of_the_reason():
    assert sink.WHY == room.WHY


def test_of_many_only_the_newest_is_shown_and_every_slot_comes_back(both):
    for _ in range(SLOTS):
        assert both.send()
    assert not both.send()  # no room: the sender is told at once, and does not wait
    both.until(lambda: both.shown and both.shown[-1][2].seq == SLOTS - 1)
    both.newest.drawn(12345)
    both.until(lambda: both.free() == SLOTS)
    stamps = [ack for ack in both.sender.acks if ack[1]]
    assert stamps == [(SLOTS - 1, 12345)]


def test_a_frame_that_was_replaced_before_it_was_drawn_has_no_time(both):
    both.send()
    both.until(lambda: len(both.shown) == 1)
    both.send()
    both.until(lambda: len(both.shown) == 2)
    both.newest.drawn(777)
    both.until(lambda: both.free() == SLOTS)
    assert [ack for ack in both.sender.acks if ack[1]] == [(1, 777)]


def test_pixels_that_a_pane_still_waits_for_are_not_given_back(both):
    both.send()
    both.until(lambda: len(both.shown) == 1)
    both.send(("raw",), why="stage failed")
    both.until(lambda: len(both.shown) == 2)
    for _ in range(5):
        both.look()
    # The restored pane has not drawn frame 0 yet, and frame 1 brings it nothing newer.
    assert both.free() == SLOTS - 2
    both.newest.drawn(5)
    both.until(lambda: both.free() == SLOTS)


def test_a_plane_that_the_next_frame_lacks_is_shown_beside_it(both):
    both.send()
    both.send(("raw",), why="chain busy")
    both.until(lambda: both.shown and both.shown[-1][2].seq == 1)
    panes = {}
    for _, planes, _ in both.shown:
        panes |= planes
    assert panes == {"raw": 1, "restored": 0}
    both.newest.drawn(5)
    both.until(lambda: both.free() == SLOTS)


def test_frames_that_are_replaced_pane_by_pane_go_back(both):
    for at, names in enumerate([("raw", "restored"), ("raw",), ("restored",)]):
        assert both.send(names)
        both.until(lambda at=at: both.shown and both.shown[-1][2].seq == at)
    both.until(lambda: both.free() == SLOTS - 2)  # nothing of the first is left
    both.newest.drawn(6)
    both.until(lambda: both.free() == SLOTS)
    assert {ack for ack in both.sender.acks if ack[1]} == {(1, 6), (2, 6)}


def test_a_session_that_is_silent_but_alive_may_come_back(both):
    both.until(lambda: both.receiver._seat._lively)  # before its first beat a camera may take a minute to start
    end = now_ns() + 20 * 10**9
    while not both.newest.over:
        assert now_ns() < end
        both.newest.look(lambda *_: None)  # and nobody polls the sender
    assert both.newest.over == "the session does not answer"
    both.until(lambda: not both.newest.over)


def test_the_reason_for_a_missing_plane_arrives(both):
    both.send(("raw",), why="stages[0] failed")
    both.until(lambda: both.shown)
    _, planes, info = both.shown[-1]
    assert set(planes) == {"raw"}
    assert info.where == "stages[0] failed"
    assert WHY not in both.newest.planes[0]


def test_each_stream_keeps_its_own_newest():
    pair = Both(streams=2)
    try:
        assert [stream.index for stream in pair.newest.streams] == [0, 1]
        pair.send(stream=0)
        pair.send(stream=1)
        pair.until(lambda: {feed for feed, _, _ in pair.shown} == {0, 1})
        pair.newest.drawn(9)
        pair.until(lambda: pair.free() == 2 * SLOTS)
        assert {ack for ack in pair.sender.acks if ack[1]} == {(0, 9), (1, 9)}
    finally:
        pair.close()


def test_the_end_of_the_session_is_told(both):
    assert both.newest.over == ""
    both.send()
    both.until(lambda: both.shown)
    closing = threading.Thread(target=both.sender.close, args=(20.0,))
    closing.start()
    while closing.is_alive():
        both.newest.look(lambda *_: None)
    assert both.newest.over == "the run has ended"


def test_streams_that_begin_and_change(both):
    """A place is kept: what is shown there is another stream from then on."""
    both.send()
    both.until(lambda: len(both.shown) == 1)
    old = both.newest._memories[0]
    wide = {"raw": Spec((9, 12), "uint8"), "restored": Spec((9, 12), "float32"), WHY: PLANES[WHY]}
    both.send()  # on its way when the change comes
    both.sender.extend(
        [
            Feed(Stream(wide["raw"], channel="wide", index=1, replaces=0), wide),
            Feed(Stream(RAW, channel="new", index=2), PLANES),
        ]
    )
    both.until(lambda: both.sender.connected and both.free() == 2 * SLOTS)
    assert both.turns == [(0, 1)]
    assert [(stream.index, stream.channel) for stream in both.newest.streams] == [(0, "wide"), (1, "new")]
    assert [str(planes["raw"]) for planes in both.newest.planes] == ["9x12 uint8", "8x6 uint16"]
    assert len(both.shown) == 2
    assert old.buffer is not None  # nothing of it has been drawn yet
    both.newest.drawn(5)
    assert old.buffer is None
    assert both.send(stream=0)
    assert both.send(stream=1)
    both.until(lambda: len(both.shown) == 4)
    assert [(feed, planes["raw"], info.stream) for feed, planes, info in both.shown[2:]] == [(0, 2, 0), (1, 3, 1)]
    both.newest.drawn(6)
    both.until(lambda: both.free() == 2 * SLOTS)
    assert {ack for ack in both.sender.acks if ack[1] == 6} == {(2, 6), (3, 6)}
