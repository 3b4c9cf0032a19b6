"""Sender and receiver in one thread: who may, what is refused, what happens after breaks."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
import zmq

from pellucid.errors import WireError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import Spec, Stream
from pellucid.wire.keys import Curve, check_endpoint
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.receiver import Receiver
from pellucid.wire.sender import Feed, Sender


def test_marks_come_back_with_grants(pairs):
    pair = pairs()
    assert pair.send()
    pair.both(lambda: len(pair.sender.acks) == 1)
    (seq, stamp_ns) = pair.sender.acks[0]
    assert seq == 0
    assert stamp_ns >= pair.session.seen[0].received_ns
    assert pair.close()
    assert pair.session.ledger.unaccounted == 0


def test_marks_are_in_the_senders_numbers_when_it_began_late(pairs):
    pair = pairs()
    pair.sender.missing(0, 5, "lost", "camera")
    pair.next = 5
    pair.send()
    pair.both(lambda: pair.sender.acks)
    assert pair.sender.acks[0][0] == 5
    assert pair.session.ledger.lost == {"camera": 5}
    assert pair.close()
    assert pair.session.ledger.unaccounted == 0


def test_axes_and_numbers_arrive(pairs):
    pair = pairs()
    slot = pair.fill(pair.slot())
    slot.info.axes = {"t": 3, "z": 12}
    assert pair.sender.commit(slot)
    pair.both(lambda: pair.session.seen)
    info = pair.session.seen[0]
    assert info.axes == {"t": 3, "z": 12}
    assert info.camera_number == 1000


@pytest.mark.parametrize("shared", [True, False])
def test_several_feeds_and_planes(sessions, shared):
    """The receiver's slots may have planes that the sender lacks, and the sender planes that nobody wants."""
    raw, more, other = Spec((8, 16), "uint16"), Spec((8, 16), "float32"), Spec((4, 4, 4), "uint8")
    feeds = [
        Feed(Stream(raw, camera="a", details={"key": [1, "two"]}), {"raw": raw, "restored": more, "extra": raw}),
        Feed(Stream(other, camera="b", channel="GFP", exposure_ms=2.5), {"raw": other}),
    ]
    receiver = Receiver("tcp://127.0.0.1:*", planes=("raw", "restored"), heartbeat_s=0.1)
    sender = Sender(receiver.endpoint, feeds, shared=shared, heartbeat_s=0.1)
    thread = threading.Thread(target=sender.open, args=(30,))
    thread.start()
    hello = receiver.accept(30)
    assert [f.stream.camera for f in hello.feeds] == ["a", "b"]
    assert hello.feeds[0].stream.details == {"key": [1, "two"]}
    assert hello.feeds[1].stream.exposure_ms == 2.5
    layouts = [{"mask": other, "restored": more, "raw": raw}, {"raw": other, "restored": more}]
    memories = [SlotMemory.create(SlotLayout(planes, 3), shared=True) for planes in layouts]
    receiver.welcome(memories, Ledger())
    thread.join()
    assert sender.attached == shared
    receiver.grant(0, 2)
    receiver.grant(1, 1)
    while receiver.attached != shared or not all(r.held() for r in sender.rings):
        receiver.receive(0.01)
        sender.poll(0.01)
    wanted = {}
    for seq in range(2):
        slot = sender.free()
        slot.info.seq = seq
        for name in [n for n in ("raw", "restored") if n in slot.planes]:
            wanted[slot.feed, name] = np.random.default_rng(seq).integers(0, 200, slot.planes[name].shape)
            slot.planes[name][...] = wanted[slot.feed, name]
        assert sender.commit(slot)
    got = {}
    while len(got) < 2:
        arrival = receiver.receive(0.01)
        sender.poll(0)
        if arrival is not None:
            got[arrival.feed] = arrival
    assert (got[0].index, got[0].ready) == (2, ("raw", "restored"))
    assert (got[1].index, got[1].ready) == (1, ("raw",))
    for (feed, name), pixels in wanted.items():
        np.testing.assert_array_equal(memories[feed].views(got[feed].index)[name], pixels)
    slot = None
    sender.close(0)
    receiver.close()
    for memory in memories:
        memory.close()


def test_times_are_put_on_the_receivers_clock(pairs, monkeypatch):
    """A sender elsewhere, whose clock shows something else."""
    ahead = 10**15
    monkeypatch.setattr("pellucid.wire.landing.Writer.is_here", False)
    for side in ("sender", "link"):
        monkeypatch.setattr(f"pellucid.wire.{side}.now_ns", lambda: now_ns() + ahead)
    pair = pairs(shared=False)
    pair.both(lambda: pair.session.receiver._seat.clock.round_trip_ns >= 0)
    before = now_ns()
    slot = pair.fill(pair.slot())
    slot.info.camera_ns = before + ahead
    trip = pair.session.receiver._seat.clock.round_trip_ns  # a later sample may be better than the one in use
    assert pair.sender.commit(slot)
    pair.both(lambda: pair.session.seen)
    info = pair.session.seen[0]
    assert abs(info.camera_ns - before) <= trip
    assert before - trip <= info.sent_ns <= info.received_ns + trip


def test_only_ready_planes_are_sent(sessions):
    spec = Spec((8, 16), "uint16")
    receiver = Receiver("tcp://127.0.0.1:*", planes=("raw", "restored"), heartbeat_s=0.1)
    sender = Sender(receiver.endpoint, [Feed(Stream(spec), {"raw": spec, "restored": spec})], shared=False)
    thread = threading.Thread(target=sender.open, args=(30,))
    thread.start()
    hello = receiver.accept(30)
    memory = SlotMemory.create(SlotLayout(hello.feeds[0].planes, 2), shared=False)
    receiver.welcome([memory], Ledger())
    thread.join()
    receiver.grant(0, 0)
    while (slot := sender.free()) is None:
        receiver.receive(0.01)
        sender.poll(0.01)
    slot.info.seq, slot.ready = 0, ("restored",)
    slot.planes["restored"][...] = 7
    assert sender.commit(slot)
    while (arrival := receiver.receive(0.01)) is None:
        pass
    assert arrival.ready == ("restored",)
    views = memory.views(0)
    assert (views["restored"] == 7).all()
    assert (views["raw"] == 0).all()
    sender.close(0)
    receiver.close()
    memory.close()


def test_a_silent_receiver_then_back_in_the_same_run(pairs):
    """The receiver stalls; the sender counts what it drops, and all is told when it is back."""
    pair = pairs(timeout_s=0.3)
    for _ in range(3):
        pair.send()
    slot = pair.slot()  # the source holds one through it all
    while pair.sender.connected:
        pair.sender.poll(0.05)
    for _ in range(2):
        assert not pair.sender.commit(pair.fill(slot))
    pair.sender.missing(pair.next, 4, "dropped", "ring")
    pair.next += 4
    assert pair.sender.dropped == 6
    pair.both(lambda: pair.sender.connected)
    pair.both(lambda: pair.session.ledger.dropped["sender"] == 6)
    for _ in range(10):
        pair.send()
    assert pair.close()
    session = pair.session
    assert [info.seq for info in session.seen] == [0, 1, 2, *range(9, 19)]
    assert session.wrong == []
    assert session.ledger.unaccounted == 0
    assert session.ledger.lost == {}


@pytest.mark.parametrize("shared", [True, False])
def test_a_slot_held_by_the_source_outlives_the_receiver(sessions, pairs, shared):
    """Its pixels move to a slot of the next receiver."""
    first = sessions()
    endpoint = first.receiver.endpoint
    pair = pairs(first, shared=shared)
    pair.send()
    pair.both(lambda: len(first.seen) == 1)
    slot = pair.fill(pair.slot())
    view = slot.planes["raw"]
    first.close()
    while pair.sender.connected:
        pair.sender.poll(0.05)
    view[...] = view  # still there
    second = pair.session = sessions(endpoint)
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            pair.sender.poll(0.01)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    second.welcome()
    second.until(lambda: second.receiver._seat._lively or second.receiver.attached)
    second.until(lambda: any(ring.held() for ring in pair.sender.rings))
    stop.set()
    asking.join()
    assert pair.sender.commit(slot)
    pair.both(lambda: second.seen)
    assert second.wrong == []
    del view
    assert pair.close()
    assert second.ledger.unaccounted == 0


def test_lossless_commit_waits_through_a_restart(sessions, pairs):
    first = sessions()
    endpoint = first.receiver.endpoint
    pair = pairs(first, mode="lossless")
    pair.send()
    pair.both(lambda: len(first.seen) == 1)
    slot = pair.fill(pair.slot())
    first.close()
    while pair.sender.connected:
        pair.sender.poll(0.05)
    second = pair.session = sessions(endpoint)
    sent = []
    waiting = threading.Thread(target=lambda: sent.append(pair.sender.commit(slot)))
    waiting.start()
    second.welcome()
    second.until(lambda: second.seen)
    waiting.join()
    assert sent == [True]
    assert second.first == 1
    assert second.seen[0].seq == 0
    assert second.wrong == []
    assert pair.close()
    assert second.ledger.frames()["dropped"] == {}
    assert second.ledger.unaccounted == 0


def test_lossless_commit_ends_when_the_receiver_wants_no_more(pairs):
    pair = pairs(mode="lossless", timeout_s=0.3)
    slot = pair.fill(pair.slot())
    pair.session.receiver.stop()
    pair.both(lambda: pair.sender.stop_requested)
    while pair.sender.connected:
        pair.sender.poll(0.05)
    assert pair.sender.commit(slot) is False
    assert pair.sender.dropped == 1


def test_stop_is_heard_and_frames_under_way_arrive(pairs):
    pair = pairs()
    slots = [pair.slot() for _ in range(3)]
    pair.session.receiver.stop()
    pair.both(lambda: pair.sender.stop_requested)
    for slot in slots:
        assert pair.sender.commit(pair.fill(slot))
    assert pair.close()
    assert len(pair.session.seen) == 3
    assert pair.session.receiver.state == "ended"
    assert pair.session.receiver.totals == (3, 3, 0)


def test_what_the_camera_told_and_never_gave_is_lost_there(pairs):
    pair = pairs()
    pair.send()
    pair.sender.told(10)
    assert pair.close()
    assert pair.session.ledger.lost == {"camera": 9}
    assert pair.session.ledger.produced == 10
    assert pair.session.ledger.unaccounted == 0


def test_a_number_that_goes_back_is_not_sent(pairs):
    pair = pairs()
    pair.send()
    slot = pair.fill(pair.slot())
    slot.info.seq = 0
    assert not pair.sender.commit(slot)
    assert pair.sender.ignored["replayed"] == 1
    pair.next = 1
    for _ in range(8):
        assert pair.send()
    assert pair.close()
    assert len(pair.session.seen) == 9


def test_a_second_sender_is_refused_by_name(pairs):
    pair = pairs(name="first")
    spec = Spec((24, 40), "uint16")
    second = Sender(pair.session.receiver.endpoint, [Feed(Stream(spec), {"raw": spec})], heartbeat_s=0.1)
    error: list[WireError] = []

    def knock() -> None:
        try:
            second.open(30)
        except WireError as caught:
            error.append(caught)

    thread = threading.Thread(target=knock)
    thread.start()
    pair.both(lambda: not thread.is_alive())
    thread.join()
    assert 'another sender ("first"' in str(error[0])
    assert pair.send()
    assert pair.close()


@pytest.mark.parametrize("mode", ["live", "lossless"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_sender_that_was_held_for_gone_may_speak_with_a_frame(pairs, monkeypatch, mode, shared):
    """Which of its words comes first after a sleep is chance."""
    monkeypatch.setattr("pellucid.wire.seat.STARTING_NS", 0)
    pair = pairs(mode=mode, shared=shared)
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    held = [pair.slot() for _ in range(session.slots)]
    session.until(lambda: session.receiver.state == "gone")  # nobody polls it
    for slot in held:
        assert pair.sender.commit(pair.fill(slot))  # all its slots, before it reads a word
    session.until(lambda: len(session.seen) == 1 + session.slots)
    assert session.receiver.state == "connected"
    for _ in range(5):
        pair.send()
    assert pair.close()
    session.to_the_end()
    assert session.wrong == []
    assert session.ledger.unaccounted == 0
    assert session.ledger.lost.total() == 0


def test_other_frames_are_refused_by_a_receiver_that_cannot_turn(pairs, monkeypatch):
    monkeypatch.setattr("pellucid.wire.seat.STARTING_NS", 0)
    pair = pairs(name="first")
    spec = Spec((24, 41), "uint16")
    second = Sender(pair.session.receiver.endpoint, [Feed(Stream(spec), {"raw": spec})], heartbeat_s=0.1)
    error: list[WireError] = []

    def knock() -> None:
        try:
            second.open(30)
        except WireError as caught:
            error.append(caught)

    pair.session.until(lambda: pair.session.receiver.state == "gone")  # nobody polls the first one
    thread = threading.Thread(target=knock)
    thread.start()
    pair.session.until(lambda: not thread.is_alive())
    thread.join()
    assert "24x40 uint16" in str(error[0])
    assert "24x41 uint16" in str(error[0])


def test_the_receiver_can_refuse(sessions):
    session = sessions()
    spec = Spec((8, 8), "uint8")
    sender = Sender(session.receiver.endpoint, [Feed(Stream(spec), {"raw": spec})], heartbeat_s=0.1)
    error: list[WireError] = []

    def knock() -> None:
        try:
            sender.open(30)
        except WireError as caught:
            error.append(caught)

    thread = threading.Thread(target=knock)
    thread.start()
    assert session.receiver.accept(30) is not None
    session.receiver.refuse("not today")
    thread.join(30)
    assert "not today" in str(error[0])


def test_nobody_answers():
    spec = Spec((8, 8), "uint8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sender = Sender(f"tcp://127.0.0.1:{taken.getsockname()[1]}", [Feed(Stream(spec), {"raw": spec})])
        with pytest.raises(WireError, match=r"nobody answers at tcp://127\.0\.0\.1") as caught:
            sender.open(0.2)
    assert "\n" not in str(caught.value)
    assert sender.close(0) is False


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.7", "rig.example.org", "[::]", "eth0"])
def test_a_bind_for_others_needs_keys(host):
    with pytest.raises(WireError, match="needs keys"):
        Receiver(f"tcp://{host}:5599")


@pytest.mark.parametrize("host", ["192.168.1.7", "rig.example.org"])
def test_another_computer_needs_keys(host):
    with pytest.raises(WireError, match="needs keys"):
        Sender(f"tcp://{host}:5599", [])


@pytest.mark.parametrize(
    "text",
    ["", "5599", "tcp://127.0.0.1", "ipc:///tmp/x", "tcp://127.0.0.1:70000", "tcp://a b:1", "tcp://127.0.0.1:5599\n"],
)
def test_an_endpoint_that_is_none(text):
    with pytest.raises(ValueError, match="tcp://HOST:PORT"):
        check_endpoint(text, bind=True)
    with pytest.raises(WireError):
        Receiver(text)
    with pytest.raises(WireError):
        Sender(text, [])


def test_localhost_is_loopback():
    receiver = Receiver("tcp://localhost:0")
    assert receiver.endpoint.startswith("tcp://127.0.0.1:")
    receiver.close()
    receiver.close()


def test_a_busy_port_is_named():
    first = Receiver("tcp://127.0.0.1:*")
    with pytest.raises(WireError, match="is taken") as caught:
        Receiver(first.endpoint)
    assert first.endpoint in str(caught.value)
    first.close()


def test_keys_are_checked(tmp_path):
    curve = Curve.make(tmp_path / "session.toml")
    assert Curve.load(tmp_path / "session.toml") == curve
    with pytest.raises(WireError, match="cannot be written"):
        Curve.make(tmp_path / "session.toml")
    with pytest.raises(WireError, match="cannot be read"):
        Curve.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("public = 3")
    with pytest.raises(WireError, match="holds no keys"):
        Curve.load(tmp_path / "bad.toml")
    with pytest.raises(WireError, match="no pair"):
        Curve(curve.public, zmq.curve_keypair()[1].decode())
    for wrong in ("short", "#" * 40, "é" * 40):
        with pytest.raises(WireError, match="allowed key"):
            Curve(curve.public, curve.secret, allowed=(wrong,))
    with pytest.raises(WireError, match=r"pellucid keys camera\.keys --session"):
        Sender("tcp://127.0.0.1:5599", [], curve=curve).open(0.1)
