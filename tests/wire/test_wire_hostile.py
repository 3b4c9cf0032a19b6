"""A live receiver that is fed rubbish, and a live sender, over real sockets."""

from __future__ import annotations

import random
import socket
import threading

import psutil
import pytest
import zmq

from pellucid.errors import WireError
from pellucid.protocols import Spec, Stream
from pellucid.wire import message
from pellucid.wire.message import Beat, Missing, Totals
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
        # Word of the sender's own state is taken from its connection only.
        "route": [
            [message.missing(known, Missing(0, 1, "lost", "x"))],
            [message.missing(known, Missing(2**50, 1, "lost", "x"))],
            [message.beat(known, Beat(2**50, 1, 0, 0))],
            [message.head(message.WELCOME, known)],
        ],
        "size of pixels": [[frame(known, 0, 1)], [frame(known, 0, 1), good[1:]], [frame(known, 0, 1), good + b"x"]],
        "planes": [[frame(known, 0, 1, mask=0), good], [frame(known, 0, 1, mask=2), good]],
        "seq": [[frame(known, 0, -1), good]],
        "parts": [[message.head(message.STOP, known), b""]],
        "kind": [[message.head(0, known)], [message.head(99, known)]],
        "version": [[b"PW\7" + frame(known, 0, 1)[3:], good]],
        "size": [[frame(known, 0, 1)[:-1], good], [b""], [b"x" * (message.MAX_CONTROL + 1)]],
    }
    with Stranger(receiver.endpoint) as stranger:
        for parts in [parts for many in lies.values() for parts in many]:
            stranger.say(*parts)
        total = sum(map(len, lies.values()))
        pair.both(lambda: session.ledger.ignored.total() >= total)
    assert {why: session.ledger.ignored[why] for why in lies} == {why: len(many) for why, many in lies.items()}
    assert len(session.seen) == 1
    for _ in range(10):
        assert pair.send()
    assert pair.close()
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_pixels_in_band_where_memory_is_shared_are_refused(pairs):
    pair = pairs()
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    with Stranger(session.receiver.endpoint) as stranger:
        stranger.say(frame(session.receiver._seat.session, 0, 5), bytes(24 * 40 * 2))
        pair.both(lambda: session.ledger.ignored["parts"] == 1)
    assert pair.close()


def test_a_frame_said_twice_counts_once(pairs):
    pair = pairs()
    session = pair.session
    pair.send()
    pair.both(lambda: len(session.seen) == 1)
    pair.both(lambda: len(session.receiver._run.landing.granted) == session.slots)
    with Stranger(session.receiver.endpoint) as stranger:
        for slot in range(session.slots):
            stranger.say(frame(session.receiver._seat.session, slot, 0))
        pair.both(lambda: session.ledger.ignored["replayed"] == session.slots)
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
