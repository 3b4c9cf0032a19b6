"""A live receiver that is fed rubbish, and a live sender, over real sockets."""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import zmq
from wire_parts import SPEC, picture

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.protocols import Spec, Stream
from pellucid.wire import codec, message
from pellucid.wire.berths import Berths
from pellucid.wire.handshake import Hello, Place, Welcome
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.message import BadMessage, Beat, Missing, Totals
from pellucid.wire.receiver import Arrival, Receiver
from pellucid.wire.sender import Feed, Sender


class Stranger:
    """A DEALER that says anything."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndhwm = 100_000
        self.socket.connect(endpoint)

    def say(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts, zmq.NOBLOCK)

    def hears(self) -> bytes:
        assert self.socket.poll(20_000)
        return self.socket.recv()

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.context.term()


def frame(session: int, slot: int, seq: int, feed: int = 0, mask: int = 1) -> bytes:
    return message.frame(session, feed, slot, mask, seq, -1, 0, 0, None)


def inject(receiver: Receiver, *parts: bytes) -> Arrival | None:
    """Say something by the connection that the sender has."""
    return receiver._take(receiver._seat.route, parts[0], [zmq.Frame(part) for part in parts[1:]], now_ns())


def rubbish(rng: random.Random, session: int) -> list[bytes]:
    """Anything from noise to a message that is right but for one thing."""
    some = rng.randbytes(rng.randrange(60))
    wrong = rng.choice([0, session ^ 1, rng.getrandbits(64)])
    kind = rng.randrange(1, 15)
    return rng.choice(
        [
            [some],
            [some, some, some],
            [b"", some],
            [message.pack(kind, wrong, some)],
            [message.pack(kind, 0, some), some],
            [frame(wrong, 0, 0)],
            [message.missing(wrong, Missing(0, 2**31, "lost", "x"))],
            [message.bye(wrong, Totals(1, 1, 1))],
            [message.beat(wrong, Beat(2**60, 1, 1, 1))],
            [message.pack(message.HELLO, 0, b"{}")],
            [message.head(kind, 0), *[b"x" * 100] * 40],
        ]
    )


def test_a_flood_of_rubbish_before_and_during_a_run(sessions, cameras):
    session = sessions(slots=4)
    rng = random.Random(7)
    with Stranger(session.receiver.endpoint) as stranger:
        for _ in range(300):
            stranger.say(*rubbish(rng, 1))
        cameras(session.receiver.endpoint, frames=10**9, fps=500)
        session.welcome()
        session.until(lambda: len(session.seen) > 10)
        known = session.receiver._seat.session
        before = psutil.Process().memory_info().rss
        said = 0
        while said < 4000:
            for _ in range(50):
                stranger.say(*rubbish(rng, known))
                said += 1
            session.take(0)
        for _ in range(30):
            stranger.say(b"\0" * 2**20)
            session.take(0)
        got = len(session.seen)
        session.until(lambda: len(session.seen) > got + 50)
        assert session.ledger.ignored.total() > 1000
        session.receiver.stop()
        session.to_the_end()
        assert psutil.Process().memory_info().rss - before < 64 * 2**20
    assert session.wrong == []
    assert [info.seq for info in session.seen] == list(range(len(session.seen)))
    assert session.ledger.lost == {}
    assert session.ledger.unaccounted == 0


def test_noise_on_the_bare_port(sessions, cameras):
    session = sessions()
    host, port = session.receiver.endpoint.removeprefix("tcp://").split(":")
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\xff\0\0\0\0\0\0\0\x01\x7f" + b"\3\0NULL" + bytes(48)):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(noise)
    cameras(session.receiver.endpoint, frames=20)
    session.welcome()
    session.to_the_end()
    assert len(session.seen) == 20


def test_messages_with_the_right_session_are_checked_as_well(pairs):
    """A sender that knows the session may still lie in every other number."""
    pair = pairs(shared=False)
    session, receiver = pair.session, pair.session.receiver
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    pair.both(lambda: len(receiver._run.landing.granted) == session.slots)
    known, good = receiver._seat.session, bytes(24 * 40 * 2)
    lies = {
        "slot not granted": [[frame(known, 4, 1), good], [frame(known, 2**32 - 1, 1), good], [frame(known, 0, 1, 9)]],
        "replayed": [[frame(known, 0, 0), good]],
        "absurd seq": [[frame(known, 0, 2**40), good]],
        "size of pixels": [[frame(known, 0, 1)], [frame(known, 0, 1), good[1:]], [frame(known, 0, 1), good + b"x"]],
        "planes": [[frame(known, 0, 1, mask=0), good], [frame(known, 0, 1, mask=2), good]],
        "seq": [[frame(known, 0, -1), good]],
        "parts": [[message.head(message.STOP, known), b""]],
        "kind": [[message.head(0, known)], [message.head(99, known)]],
        "version": [[b"PW\7" + frame(known, 0, 1)[3:], good]],
        "size": [[frame(known, 0, 1)[:-1], good], [b""], [b"x" * (message.MAX_CONTROL + 1)]],
    }
    for parts in [parts for many in lies.values() for parts in many]:
        inject(receiver, *parts)
    assert {why: session.ledger.ignored[why] for why in lies} == {why: len(many) for why, many in lies.items()}
    assert len(session.seen) == 1
    for _ in range(10):
        assert pair.send()
    assert pair.close()
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_who_knows_the_session_and_has_another_connection_must_say_hello(pairs):
    """It may be the sender after a break, so that what it said before may be lost; or a stranger."""
    pair = pairs()
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    known = session.receiver._seat.session
    said = [
        [frame(known, 0, 1)],
        [message.missing(known, Missing(0, 1, "lost", "x"))],
        [message.beat(known, Beat(2**50, 1, 0, 0))],
        [message.bye(known, Totals(9, 9, 9))],
        [message.head(message.WELCOME, known)],
    ]
    with Stranger(session.receiver.endpoint) as stranger:
        for parts in said:
            stranger.say(*parts)
        pair.both(lambda: session.ledger.ignored["route"] == len(said))
        for _ in said:
            assert message.read_head(stranger.hears()) == (message.STALE, known)
    assert session.receiver.state == "connected"
    for _ in range(9):
        assert pair.send()
    assert pair.close()
    assert session.ledger.unaccounted == 0


def test_pixels_in_band_where_memory_is_shared_are_refused(pairs):
    pair = pairs()
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.receiver._run.landing.granted) == session.slots)
    inject(session.receiver, frame(session.receiver._seat.session, 0, 5), bytes(24 * 40 * 2))
    assert session.ledger.ignored["parts"] == 1
    assert pair.close()


def test_a_frame_said_twice_counts_once(pairs):
    pair = pairs()
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    pair.both(lambda: len(session.receiver._run.landing.granted) == session.slots)
    for slot in range(session.slots):
        inject(session.receiver, frame(session.receiver._seat.session, slot, 0))
    assert session.ledger.ignored["replayed"] == session.slots
    for _ in range(10):
        pair.send()
    assert pair.close()
    assert len(session.seen) == 11
    assert session.ledger.unaccounted == 0


def test_a_sender_of_another_version_is_told(sessions):
    session = sessions()
    with Stranger(session.receiver.endpoint) as stranger:
        stranger.say(b"PW\7" + message.pack(message.HELLO, 0, b"{}")[3:])
        assert session.receiver.accept(1.0) is None
        answer = stranger.hears()
    assert message.read_head(answer)[0] == message.REFUSE
    assert "version 7" in message.read_text(answer)


def mutated(rng: random.Random, part: bytes) -> bytes:
    """Something that was a message: flipped, cut, stretched, with other numbers in its JSON."""
    bad = bytearray(part)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        what = rng.randrange(5)
        at = rng.randrange(len(bad)) if bad else 0
        if what == 0 and bad:
            bad[at] = rng.randrange(256)
        elif what == 1:
            del bad[at:]
        elif what == 2:
            bad[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif what == 3 and len(bad) >= 20:
            at = rng.randrange(12, len(bad) - 7)
            bad[at : at + 8] = struct.pack("<q", rng.choice([0, 1, -1, 2**62, -(2**63), 2**32, rng.getrandbits(40)]))
        elif bad[12:13] == b"{":
            numbers = list(re.finditer(rb"\d+", bytes(bad)))
            if numbers:
                found = rng.choice(numbers)
                bad[found.start() : found.end()] = rng.choice(
                    [b"0", b"1", b"-1", b"99999999999", b"1e9", b'"x"', b"null"]
                )
    return bytes(bad)


@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_mutated_messages_to_a_receiver(sessions, pairs, seed):
    """By the sender's own connection and with the session's number: the worst that can come."""
    rng = random.Random(seed)
    session = sessions(turns=True)
    pair = pairs(session, shared=False, compress=rng.choice(["", "lz4", "zstd"]))
    pair.send()
    pair.both(lambda: session.seen)
    session.patient = False  # nobody makes memory for what rubbish asks for
    receiver, feed = session.receiver, Feed(Stream(Spec((8, 8), "uint8"), index=1, replaces=0), {"raw": SPEC})
    known, good = receiver._seat.session, codec.pack(picture(1), "lz4") if pair.sender.codec else bytes(24 * 40 * 2)
    hello = Hello(pair.sender._uid, 5, "", 1, 1.0, "live", 3, pair.sender.feeds, pair.sender._run, ((0, 1),), "lz4")
    said = [
        [frame(known, 0, 1), good],
        [frame(known, 1, 2), good],
        [message.frame(known, 0, 2, 1, 3, 1, 1, 1, {"t": 1, "z": 2}), good],
        [message.missing(known, Missing(3, 2, "dropped", "sender", 0))],
        [message.beat(known, Beat(5, 1, 1, 1))],
        [message.bye(known, Totals(9, 9, 0))],
        [hello.pack()],
        [replace(hello, attempt=6, feeds=(*hello.feeds, feed)).pack()],
        [replace(hello, uid="f" * 32, feeds=(feed,)).pack()],
        [message.head(message.INBAND, known)],
    ]
    before = psutil.Process().memory_info().rss
    came = len(session.seen)
    for _ in range(1000):
        parts = [mutated(rng, part) for part in rng.choice(said)]
        came += inject(receiver, *parts) is not None
        while receiver.released():
            pass
        if receiver.state == "ended" and rng.random() < 0.2:
            receiver.state = "connected"  # go on
    assert psutil.Process().memory_info().rss - before < 64 * 2**20
    receiver.state = "gone"
    receiver.settle()
    assert session.ledger._told <= came + session.ledger.dropped.total() + session.ledger.lost.total()
    assert session.ledger.ignored.total() > 100


@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_mutated_messages_to_a_sender(sessions, pairs, seed):
    """Whatever the receiver says, the sender goes on, or ends with one line."""
    rng = random.Random(seed)
    session = sessions(turns=True)
    pair = pairs(
        session, shared=rng.random() < 0.5, compress=rng.choice(["", "lz4"]), mode=rng.choice(["live", "lossless"])
    )
    sender = pair.sender
    for _ in range(3):
        pair.send()
    before = psutil.Process().memory_info().rss
    for _ in range(1000):
        known = sender._session
        sender.stop_requested = True  # a lossless one would wait for a receiver that does not exist
        welcome = Welcome(
            sender._attempt,
            rng.getrandbits(60),
            rng.choice([sender._run, "a" * 32, "b" * 32]),
            (Place("", b"", 4, 4096, {"raw": 0}),),
            ((0, 1),),
            rng.choice([0, 3, sender._next_seq]),
            rng.choice(["", "lz4"]),
        )
        part = rng.choice(
            [
                welcome.pack(),
                message.pack(
                    message.GRANT, known, message.GRANT_BODY.pack(0, rng.randrange(5), -1, 0) * rng.randrange(1, 3)
                ),
                message.beat(known, Beat(rng.randrange(9), 1, 1, 1)),
                message.head(rng.choice([message.WAIT, message.STALE]), known),
                message.pack(message.REFUSE, 0, b"no"),
            ]
        )
        try:
            sender._take(mutated(rng, part))
        except BadMessage as bad:
            assert 0 < len(str(bad)) < 40  # noqa: PT017
        sender.connected = sender.connected and sender._session != 0
        if rng.random() < 0.2:
            slot = sender.free()
            if slot is not None:
                pair.next = max(pair.next, sender._next_seq)
                sender.commit(pair.fill(slot))
        if rng.random() < 0.02:
            sender.extend(
                [Feed(replace(sender.feeds[0].stream, replaces=len(sender._positions) - 1), sender.feeds[0].planes)]
            )
    assert psutil.Process().memory_info().rss - before < 64 * 2**20


def test_a_claim_of_a_hundred_gigabytes(sessions):
    """It is believed as far as it is possible, and nothing is allocated for it on the wire's side."""
    session = sessions(turns=True)
    huge = Spec((2**15, 2**14), "uint16")
    feeds = [Feed(Stream(huge, index=i, exposure_ms=1e-9, frames=2**50), {"raw": huge}) for i in range(64)]
    sender = Sender(session.receiver.endpoint, feeds, heartbeat_s=0.05)
    error: list[str] = []

    def knock() -> None:
        with pytest.raises(WireError) as caught:
            sender.open(20)
        error.append(str(caught.value))

    before = psutil.Process().memory_info().rss
    thread = threading.Thread(target=knock)
    thread.start()
    hello = session.receiver.accept(20)
    assert sum(feed.stream.spec.nbytes for feed in hello.feeds) == 64 * 2**30
    with pytest.raises(WireError, match=r"cannot get .* of shared memory"):
        SlotMemory.create(SlotLayout(hello.feeds[0].planes, 4000), shared=True)
    session.receiver.refuse("the session cannot take these frames; it says why in its own terminal")
    thread.join()
    assert "refuses this sender" in error[0]
    assert psutil.Process().memory_info().rss - before < 64 * 2**20


def test_a_receiver_that_claims_more_than_there_is(monkeypatch):
    """A sender needs memory for its own slots where pixels go in band: it takes few, or says that it has none."""
    spec = Spec((2**14, 2**14), "uint16")
    ring = Berths(0, Feed(Stream(spec), {"raw": spec}))
    monkeypatch.setattr("pellucid.wire.berths.psutil.virtual_memory", lambda: SimpleNamespace(available=2**30))
    with pytest.raises(WireError, match="1074 MB on this side") as caught:
        ring.place(Place("", b"", 4096, 2**40, {"raw": 0}), "a" * 32, shared=True)
    assert "\n" not in str(caught.value)
    small = Spec((512, 512), "uint16")
    ring = Berths(0, Feed(Stream(small), {"raw": small}))
    monkeypatch.setattr("pellucid.wire.berths.psutil.virtual_memory", lambda: SimpleNamespace(available=2**24))
    ring.place(Place("", b"", 4096, 2**40, {"raw": 0}), "a" * 32, shared=True)
    assert len(ring.slots) == 16
    for index in range(20):
        ring.granted(index)
    assert sum(ring.take() is not None for _ in range(20)) == 16
    ring.close()


def test_a_sender_survives_a_false_receiver():
    """Whatever answers, `open` ends in one error, and nothing is allocated for it."""
    context = zmq.Context()
    false = context.socket(zmq.ROUTER)
    false.linger = 0
    port = false.bind_to_random_port("tcp://127.0.0.1")
    spec = Spec((24, 40), "uint16")
    sender = Sender(f"tcp://127.0.0.1:{port}", [Feed(Stream(spec), {"raw": spec})], heartbeat_s=0.05)
    rng = random.Random(3)
    error: list[WireError] = []

    def knock() -> None:
        with pytest.raises(WireError) as caught:
            sender.open(0.5)
        error.append(caught.value)

    thread = threading.Thread(target=knock)
    thread.start()
    while thread.is_alive():
        if false.poll(20):
            route = false.recv_multipart()[0]
            for _ in range(20):
                false.send_multipart([route, *rubbish(rng, 1)])
            place = '[{"name": "psm_x", "nonce": "", "slots": 4096, "stride": 1, "offsets": [["raw", 0]]}]'
            body = f'{{"attempt": 1, "run": "{"0" * 32}", "places": {place}, "kept": []}}'
            false.send_multipart([route, message.pack(message.WELCOME, 5, body.encode())])
    thread.join()
    assert "nobody answers" in str(error[0]) or "refuses" in str(error[0])
    assert sender.ignored.total() > 10
    false.close()
    context.term()
