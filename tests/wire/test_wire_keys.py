"""Wrong keys: one line on both sides, soon, that says what to type; and nobody comes in."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
import zmq

from pellucid.errors import SourceError, WireError
from pellucid.protocols import Spec, Stream
from pellucid.sources.wire import WireSource
from pellucid.wire.keyfile import tend_keys
from pellucid.wire.keys import Curve
from pellucid.wire.receiver import Receiver
from pellucid.wire.sender import Feed, Sender

SPEC = Spec((8, 8), "uint8")
SOON_S = 10.0


def pair_of(server: str | None = None, allowed: tuple[str, ...] = ()) -> Curve:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return Curve(public, secret, server, allowed)


SESSION, CAMERA, OTHER = pair_of(), pair_of(), pair_of()


def knock(receiver: Receiver, curve: Curve | None) -> tuple[str, list[str]]:
    """Return what the sender says and what the receiver says."""
    sender = Sender(receiver.endpoint, [Feed(Stream(SPEC), {"raw": SPEC})], curve=curve)
    error: list[str] = []
    heard: list[str] = []
    said: list[str] = []

    def go() -> None:
        try:
            sender.open(2.0, said.append)
        except WireError as caught:
            error.append(str(caught))

    began = time.monotonic()
    thread = threading.Thread(target=go)
    thread.start()
    while thread.is_alive() or not heard:
        assert receiver.accept(0.05, heard.append) is None
        assert time.monotonic() < began + SOON_S
    thread.join()
    assert "\n" not in "".join(error + heard + said)
    assert len(said) <= 1
    return error[0], heard


@pytest.mark.parametrize(
    ("mine", "theirs", "sender_says", "receiver_says"),
    [
        (SESSION, pair_of(server=OTHER.public), "is not the session's public key", "its server = must be"),
        (SESSION, None, "this sender has none: give --keys", "has no keys"),
        (None, pair_of(server=SESSION.public), "keys", "this session has none"),
    ],
    ids=["another session's", "none", "the session has none"],
)
def test_keys_that_do_not_fit_are_told_on_both_sides(mine, theirs, sender_says, receiver_says):
    receiver = Receiver("tcp://127.0.0.1:*", curve=mine)
    try:
        error, heard = knock(receiver, theirs)
    finally:
        receiver.close()
    assert sender_says in error
    assert receiver.endpoint in error
    assert len(set(heard)) <= 2
    assert any(receiver_says in line or "is no sender" in line for line in heard)


def test_a_key_that_is_not_on_the_list_is_told_with_what_to_type():
    public = zmq.curve_keypair()[0].decode()
    receiver = Receiver("tcp://127.0.0.1:*", curve=Curve(SESSION.public, SESSION.secret, allowed=(public,)))
    try:
        error, heard = knock(receiver, Curve(CAMERA.public, CAMERA.secret, SESSION.public))
    finally:
        receiver.close()
    assert f"--allow {CAMERA.public}" in error
    assert f"--allow {CAMERA.public}" in heard[0]


def test_a_list_that_is_mended_lets_a_running_sender_in(sessions, pairs):
    """The session starts again without the key, then with it; the sender runs all the time."""
    allowed = Curve(SESSION.public, SESSION.secret, allowed=(CAMERA.public,))
    first = sessions(curve=allowed)
    endpoint = first.receiver.endpoint
    pair = pairs(first, curve=Curve(CAMERA.public, CAMERA.secret, SESSION.public))
    pair.send()
    pair.both(lambda: first.seen)
    first.close()
    second = sessions(endpoint, curve=Curve(SESSION.public, SESSION.secret, allowed=(OTHER.public,)))
    end = time.monotonic() + SOON_S
    while not pair.sender.refused:
        assert time.monotonic() < end
        assert second.receiver.accept(0.01) is None
        pair.sender.poll(0.01)
    assert "not on the list" in pair.sender.refused
    second.close()
    third = pair.session = sessions(endpoint, curve=allowed)
    welcoming = threading.Thread(target=third.welcome)
    welcoming.start()
    while welcoming.is_alive():
        pair.sender.poll(0.01)
    welcoming.join()
    assert pair.send()
    assert pair.close()
    assert third.ledger.unaccounted == 0


def test_a_bind_for_others_needs_a_list(tmp_path):
    tend_keys(tmp_path / "session.keys", None, [])
    source = WireSource(bind="tcp://0.0.0.0:0", keys=tmp_path / "session.keys")
    with pytest.raises(SourceError, match=r"pellucid keys .*session\.keys --allow KEY"):
        source.ready()
    with pytest.raises(WireError, match=r"pellucid keys .*session\.keys --allow KEY"):
        source.open()
    tend_keys(tmp_path / "session.keys", None, [OTHER.public])
    source = WireSource(bind="tcp://0.0.0.0:0", keys=tmp_path / "session.keys", wait_s=0.05)
    source.ready()
    with pytest.raises(SourceError, match=r"--keys camera\.keys"):
        source.open()


def test_a_session_without_its_sender_says_who_knocked(capsys):
    source = WireSource(bind="tcp://127.0.0.1:*", wait_s=2.0)
    endpoint = source.listen()
    stop = threading.Event()

    def go() -> None:
        with pytest.raises(WireError, match="keys"):
            Sender(endpoint, [Feed(Stream(SPEC), {"raw": SPEC})], curve=pair_of(SESSION.public)).open(SOON_S)
        stop.set()

    thread = threading.Thread(target=go)
    thread.start()
    with pytest.raises(SourceError, match="this session has none"):
        source.open()
    thread.join()
    said = capsys.readouterr().err.splitlines()
    assert said == [line for line in said if line.startswith("pellucid: somebody who knocks")]
    assert len(said) == len(set(said)) >= 1


def test_keys_of_a_config_are_beside_it(tmp_path):
    from pellucid.config import Config

    Curve.make(tmp_path / "session.keys")
    (tmp_path / "run.toml").write_text(
        'source = { kind = "wire", bind = "tcp://127.0.0.1:*", keys = "session.keys" }\nsinks = [{ kind = "null" }]\n'
    )
    source = Config.load(tmp_path / "run.toml").source
    source.ready()
    assert source.keys == tmp_path / "session.keys"


def test_keys_that_are_made_go_through_every_shell(tmp_path: Path):
    for index in range(3):
        made = Curve.make(tmp_path / f"{index}.keys")
        assert re.fullmatch(r"[0-9a-zA-Z][0-9a-zA-Z.:+/-]{39}", made.public)
