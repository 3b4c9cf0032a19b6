"""Other frames in the middle of a run: the sender announces them, the receiver makes memory, nothing is lost."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from wire_parts import LONG_S, SPEC

from pellucid.errors import WireError
from pellucid.protocols import Spec, Stream
from pellucid.wire import message
from pellucid.wire.sender import Feed, Sender

WIDE = Spec((24, 64), "uint16")
SMALL = Spec((8, 8), "uint8")
FLOAT = Spec((5, 6, 7), "float32")


@pytest.fixture(params=[True, False], ids=["shared", "in band"])
def pair(request, sessions, pairs):
    return pairs(sessions(turns=True), shared=request.param)


def test_a_feed_takes_the_place_of_another(pair):
    session = pair.session
    for _ in range(5):
        pair.send()
    (ring,) = pair.extend(Stream(WIDE, camera="test", index=1, replaces=0))
    assert ring is pair.sender.rings[0]
    assert len(pair.sender.feeds) == 1
    for _ in range(9):
        pair.send()
    (ring,) = pair.extend(Stream(SPEC, camera="test", index=2, replaces=1))
    for _ in range(9):
        pair.send()
    assert pair.close()
    assert [info.stream for info in session.seen] == [0] * 5 + [1] * 9 + [2] * 9
    assert [info.seq for info in session.seen] == list(range(23))
    assert session.wrong == []
    assert session.ledger.unaccounted == 0
    assert session.ledger.lost == session.ledger.dropped == {}


def test_a_feed_comes_beside_the_others(pair):
    session = pair.session
    pair.send()
    pair.extend(Stream(SMALL, camera="other", index=1), Stream(FLOAT, camera="test", channel="c", index=2))
    for feed in [0, 1, 2, 0, 2, 1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]:
        assert pair.send(feed)
    assert pair.close()
    assert [info.stream for info in session.seen] == [0, 0, 1, 2, 0, 2, 1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_a_slot_that_the_source_holds_of_another_feed_stays(pair):
    """A camera writes into it all the time."""
    pair.extend(Stream(SMALL, camera="other", index=1))
    slot = pair.fill(pair.slot(0))
    view = slot.planes["raw"]
    pair.extend(Stream(WIDE, camera="other", index=2, replaces=1))
    assert slot.planes["raw"] is view
    assert pair.sender.commit(slot)
    pair.both(lambda: pair.session.seen)
    for _ in range(6):
        pair.send(0)
        pair.send(1)
    assert pair.close()
    assert pair.session.wrong == []
    assert {info.stream for info in pair.session.seen} == {0, 2}
    assert pair.session.ledger.unaccounted == 0


def test_the_sender_lets_go_of_the_memory_that_it_left(pair):
    pair.send()
    slot = pair.slot()
    memory = weakref.ref(pair.sender.rings[0].memory)
    assert pair.sender.lent == 1
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0))
    assert pair.sender.lent == 0
    assert slot.planes == {}
    slot = None
    gc.collect()
    assert memory() is None


def test_a_slot_of_a_feed_that_is_no_more_is_dropped_with_a_count(pair):
    slot = pair.fill(pair.slot())
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0))
    assert pair.sender.ring_of(0) is None
    assert pair.sender.ring_of(1) is pair.sender.rings[0]
    assert not pair.sender.commit(slot)
    assert pair.send()
    assert pair.close()
    assert pair.session.ledger.dropped == {"sender": 1}
    assert pair.session.ledger.unaccounted == 0


def test_frames_said_before_arrive_before(pair):
    """They lie in the socket when the announcement comes."""
    session = pair.session
    pair.both(lambda: len(pair.sender.rings[0].held()) == session.slots)
    sent = 0
    while (slot := pair.sender.free()) is not None:
        assert pair.sender.commit(pair.fill(slot))
        sent += 1
    assert sent == session.slots
    pair.sender.missing(pair.next, 3, "lost", "camera", 0)
    pair.next += 3
    session.patient = False
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0), wait=False)
    assert pair.sender.turning
    session.until(lambda: session.receiver.turn is not None)
    assert len(session.seen) == sent
    assert session.ledger.lost == {"camera": 3}
    assert session.receiver.state == "turning"
    for _ in range(3):
        session.take()
        pair.sender.poll(0.01)
    assert pair.sender.turning
    session.patient = True
    for _ in range(5):
        assert pair.send()
    assert not pair.sender.turning
    assert pair.close()
    assert session.wrong == []
    assert [info.seq for info in session.seen] == [*range(sent), *range(sent + 3, sent + 8)]
    assert session.ledger.unaccounted == 0


def test_losses_are_told_for_their_stream(pair):
    ledger = pair.session.ledger
    pair.extend(Stream(SMALL, camera="other", index=1))
    pair.sender.missing(0, 2, "dropped", "ring", 0)
    pair.sender.missing(2, 3, "dropped", "ring", 1)
    pair.sender.missing(5, 4, "lost", "camera", 1)
    pair.sender.missing(9, 1, "lost", "camera")
    pair.both(lambda: ledger.lost == {"camera": 5})
    pair.extend(Stream(WIDE, camera="other", index=2, replaces=1))
    pair.sender.missing(10, 1, "lost", "camera", 2)
    pair.both(lambda: ledger.lost == {"camera": 6})
    assert ledger.streams[0].dropped == {"sender": 2}
    assert ledger.streams[1].dropped == {"sender": 3}
    assert ledger.streams[1].lost == {"camera": 4}
    assert ledger.streams[2].lost == {"camera": 1}
    assert ledger.streams[-1].lost == {"camera": 1}
    pair.next = 14
    pair.send()
    pair.both(lambda: pair.session.seen)
    assert ledger.streams[-1].lost == {"camera": 1, "wire": 3}


@pytest.mark.parametrize("told", [True, False], ids=["while it waits", "after the answer"])
def test_the_receiver_goes_in_the_middle_of_a_turn(sessions, pair, told):
    first = pair.session
    endpoint = first.receiver.endpoint
    pair.send()
    pair.both(lambda: len(first.seen) == 1)
    first.patient = not told
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0), wait=False)
    first.until(lambda: first.receiver.turn is not None or first.turns)
    pair.sender.poll(0.01)
    first.close()
    while pair.sender.connected or pair.sender.turning:
        pair.sender.poll(0.02)
    second = pair.session = sessions(endpoint, turns=True)
    shaking = threading.Thread(target=second.welcome)
    shaking.start()
    while shaking.is_alive() or not pair.sender.connected:
        pair.sender.poll(0.01)
    shaking.join()
    for _ in range(7):
        assert pair.send()
    assert pair.close()
    assert [info.seq for info in second.seen] == list(range(7))
    assert second.wrong == []
    assert second.ledger.unaccounted == 0


def test_the_sender_stands_still_in_the_middle_of_a_turn(pair):
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    session.patient = False
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0), wait=False)
    session.until(lambda: session.receiver.turn is not None)
    pair.sender._disconnect()  # as after a break: another attempt, the same feeds
    pair.sender.poll(0)
    session.until(lambda: session.receiver.turn.hello.attempt == pair.sender._attempt)
    session.patient = True
    for _ in range(9):
        assert pair.send()
    assert pair.close()
    assert session.turns == 1
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_feeds_change_again_before_there_is_memory(pair):
    session = pair.session
    pair.send()
    session.patient = False
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0), wait=False)
    session.until(lambda: session.receiver.turn is not None)
    pair.extend(Stream(SMALL, camera="test", index=2, replaces=1), Stream(FLOAT, camera="b", index=3), wait=False)
    session.until(lambda: session.receiver.turn.positions == (0, 1))
    session.patient = True
    for feed in [0, 1, 1, 0, 0, 0, 1, 1, 1]:
        assert pair.send(feed)
    assert pair.close()
    assert session.turns == 1
    assert [info.stream for info in session.seen] == [0, 1, 2, 2, 1, 1, 1, 2, 2, 2]
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_a_successor_with_other_frames_takes_the_seat(sessions, pairs, monkeypatch):
    monkeypatch.setattr("pellucid.wire.seat.STARTING_NS", 0)
    session = sessions(turns=True)
    first = pairs(session, timeout_s=60)
    first.send()
    session.until(lambda: session.receiver.state == "gone")  # nobody polls it
    feeds = [Feed(Stream(WIDE, camera="test"), {"raw": WIDE}), Feed(Stream(SMALL, camera="b"), {"raw": SMALL})]
    second = Sender(session.receiver.endpoint, feeds, heartbeat_s=0.1, timeout_s=1.0)
    opening = threading.Thread(target=second.open, args=(LONG_S,))
    opening.start()
    session.until(lambda: not opening.is_alive())
    first.sender, mine = second, first.sender
    first.next, session.first = 0, -1  # its numbers begin anew
    for feed in [0, 1, 0, 1, 0, 0]:
        assert first.send(feed)
    assert first.close()
    mine.close(0)
    assert [info.stream for info in session.seen] == [0, 1, 2, 1, 2, 1, 1]
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_a_receiver_that_cannot_turn_says_so(pairs):
    pair = pairs()
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0), wait=False)
    pair.both(lambda: pair.sender.refused)
    assert "24x40 uint16" in pair.sender.refused
    assert "24x64 uint16" in pair.sender.refused
    assert not pair.sender.turning


def test_more_feeds_than_can_be(pair):
    many = [Stream(SMALL, camera=f"camera {i}", index=i) for i in range(1, 70)]
    with pytest.raises(WireError, match="64 streams"):
        pair.extend(*many)


def test_frames_that_no_receiver_takes_are_refused_here(pair):
    with pytest.raises(WireError, match="float64") as caught:
        pair.extend(Stream(Spec((8, 8), "float64"), index=1, replaces=0))
    assert "\n" not in str(caught.value)


def test_a_stranger_in_the_middle_of_a_turn(pair):
    """What carries the session's number while the sender waits is from before, or from nobody."""
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    known, slot = session.receiver._seat.session, pair.slot()
    session.patient = False
    pair.extend(Stream(WIDE, camera="test", index=1, replaces=0), wait=False)
    session.until(lambda: session.receiver.turn is not None)
    route = session.receiver.turn.route
    for part in (
        message.frame(known, 0, slot.grant if slot.grant >= 0 else 0, 1, 1, -1, 0, 0, None),
        message.missing(known, message.Missing(1, 1, "lost", "x")),
        message.bye(known, message.Totals(9, 9, 0)),
        message.beat(known, message.Beat(9, 1, 0, 0)),
    ):
        assert session.receiver._take(route, part, [], 1) is None
    assert session.receiver.state == "turning"
    assert session.ledger.ignored["no session"] == 4
    session.patient = True
    for _ in range(5):
        assert pair.send()
    assert pair.close()
    assert session.ledger.unaccounted == 0
