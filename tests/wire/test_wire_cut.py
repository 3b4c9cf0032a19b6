"""The cable is pulled in the middle: lossless loses nothing, live loses what was on its way and says so."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
from cable import Cable
from wire_parts import LONG_S, SPEC, Pair, Session

from pellucid.protocols import Spec, Stream

WIDE = Spec((64, 64), "uint16")


@pytest.fixture
def cables() -> Iterator[Callable[[str], Cable]]:
    made: list[Cable] = []

    def make(endpoint: str) -> Cable:
        made.append(Cable(endpoint))
        return made[-1]

    yield make
    for cable in made:
        cable.close()


@pytest.fixture(params=[True, False], ids=["shared", "in band"])
def shared(request) -> bool:
    return request.param


def fill_all(pair: Pair, cable: Cable) -> int:
    """Send as much as there are slots for, to nowhere."""
    pair.both(lambda: len(pair.sender.rings[0]._grants) == pair.session.slots)
    cable.clog()
    sent = 0
    while (slot := pair.sender.free()) is not None:
        assert pair.sender.commit(pair.fill(slot))
        sent += 1
    return sent


def test_lossless_sends_again_what_was_on_its_way(sessions, pairs, cables, shared):
    session = sessions()
    cable = cables(session.receiver.endpoint)
    pair = pairs(session, endpoint=cable.endpoint, mode="lossless", shared=shared)
    for _ in range(3):
        pair.send()
    pair.both(lambda: len(session.seen) == 3)
    assert fill_all(pair, cable) == session.slots
    pair.sender.missing(pair.next, 2, "lost", "camera", 0)
    pair.next += 2
    pair.sender.poll(0)
    time.sleep(0.05)
    cable.pull()
    while pair.sender.connected:
        pair.sender.poll(0.02)
    cable.plug()
    for _ in range(10):
        pair.send()
    assert pair.close()
    assert [info.seq for info in session.seen] == [*range(7), *range(9, 19)]
    assert session.wrong == []
    assert session.ledger.lost == {"camera": 2}
    assert session.ledger.unaccounted == 0
    assert session.ledger.frames()["totals_confirmed"]
    assert pair.sender.sent == 17


def test_live_says_what_was_on_its_way(sessions, pairs, cables, shared):
    session = sessions()
    cable = cables(session.receiver.endpoint)
    pair = pairs(session, endpoint=cable.endpoint, shared=shared)
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    assert fill_all(pair, cable) == session.slots
    pair.sender.missing(pair.next, 5, "dropped", "ring", 0)
    pair.next += 5
    pair.sender.poll(0)
    time.sleep(0.05)
    cable.pull()
    while pair.sender.connected:
        pair.sender.poll(0.02)
    cable.plug()
    for _ in range(10):
        pair.send()
    assert pair.close()
    # Frames are gone; what the sender had said of others is said again.
    assert session.ledger.lost == {"wire": session.slots}
    assert session.ledger.dropped == {"sender": 5}
    assert len(session.seen) == 11
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


@pytest.mark.parametrize("mode", ["lossless", "live"])
def test_a_cable_that_is_pulled_again_and_again(sessions, cameras, cables, shared, mode):
    session = sessions(slots=6)
    cable = cables(session.receiver.endpoint)
    frames = 400
    camera = cameras(
        cable.endpoint, frames=frames, mode=mode, live=mode == "live", fps=400, shared=shared, shape=(64, 64)
    )
    session.welcome()
    for at in (20, 60, 110, 170):
        session.until(lambda at=at: session.ledger.produced > at and session.receiver.state == "connected")
        cable.clog()
        end = time.monotonic() + 0.02
        session.until(lambda end=end: time.monotonic() > end)
        cable.pull()
        end = time.monotonic() + 0.05
        session.until(lambda end=end: time.monotonic() > end)
        cable.plug()
    session.to_the_end()
    result = camera.result()
    assert result["acked"]
    assert result["produced"] == session.ledger.produced == frames
    assert session.wrong == []
    assert session.ledger.unaccounted == 0
    assert session.ledger.frames()["totals_confirmed"]
    if mode == "lossless":
        assert [info.seq for info in session.seen] == list(range(frames))
        assert session.ledger.lost == session.ledger.dropped == {}
    else:
        assert set(session.ledger.lost) <= {"wire"}
        assert set(session.ledger.dropped) <= {"sender"}
        assert session.ledger.dropped["sender"] == result["dropped"]


@pytest.mark.parametrize("moment", range(4))
def test_a_cable_that_is_pulled_in_the_middle_of_a_turn(sessions, pairs, cables, shared, moment):
    session: Session = sessions(turns=True)
    cable = cables(session.receiver.endpoint)
    pair: Pair = pairs(session, endpoint=cable.endpoint, mode="lossless", shared=shared)
    moments = itertools.count()

    def pull_if_now() -> None:
        if next(moments) == moment:
            cable.pull()
            for _ in range(3):
                pair.sender.poll(0.01)
                session.take(0.01)
            cable.plug()

    for index, spec in enumerate([WIDE, SPEC, WIDE], 1):
        for _ in range(5):
            assert pair.send()
        pull_if_now()
        # In lossless mode this waits until what was sent has arrived, so the other side has to run.
        pair.both(lambda: not pair.sender._is_unsure(pair.sender.rings[0]))
        pair.extend(Stream(spec, camera="test", index=index, replaces=index - 1), wait=False)
        session.patient = False
        pull_if_now()
        session.take(0.05)
        session.patient = True
        pull_if_now()
        pair.both(lambda: pair.sender.connected)
    for _ in range(5):
        assert pair.send()
    assert pair.close()
    assert [info.seq for info in session.seen] == list(range(20))
    assert [info.stream for info in session.seen] == [at for at in range(4) for _ in range(5)]
    assert session.wrong == []
    assert session.ledger.lost == session.ledger.dropped == {}
    assert session.ledger.unaccounted == 0


def test_a_cable_that_stays_out_ends_with_a_count(sessions, cameras, cables):
    session = sessions()
    cable = cables(session.receiver.endpoint)
    cameras(cable.endpoint, frames=10**9, live=True, fps=300, shared=False)
    session.welcome()
    session.until(lambda: len(session.seen) > 10)
    cable.pull()
    session.until(lambda: session.receiver.state == "gone", LONG_S)
    session.receiver.settle()
    assert session.ledger.unaccounted == 0
    assert not session.ledger.frames()["totals_confirmed"]
