"""HELLO and WELCOME: the two messages with a JSON body, and all that is checked in them.

A sender says which feeds it has; the receiver, once it has memory for them, says where that lies. After a
break the sender says HELLO again with the slots that it still holds (its camera may be writing into one of
them at this moment) and the receiver says in WELCOME which of those stay granted.

When a camera begins to give other frames (a new channel, another ROI) the sender says HELLO as well. A feed is
known by its position in the list; one that takes another's position has the next generation. The receiver makes
memory for those that are new and answers as ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.errors import WireError
from pellucid.wire import message
from pellucid.wire.codec import CODECS
from pellucid.wire.feed import FEEDS_MAX, PLANES_MAX, Feed, plain
from pellucid.wire.fields import Fields, read_json
from pellucid.wire.message import BadMessage

__all__ = ["Hello", "Place", "Welcome"]

SLOTS_MAX = 4096
_BLOCK = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Hello:
    """Who wants to send, and what.

    Parameters
    ----------
    uid
        Random, for the life of a `Sender`.
    attempt
        Counts the sender's handshakes; repeated HELLOs of one handshake are equal.
    name
        For people.
    pid, born
        Of the sender's process: number, and start in seconds since 1970, by which its death can be proven
        on this computer.
    mode
        ``"live"`` or ``"lossless"``.
    next_seq
        Number of the next frame, in the sender's numbers.
    feeds
        In order; FRAME and GRANT name them by position.
    run, held
        The receiver's run that the sender was in before, and the ``(feed, slot)`` of it that it still holds.
    codec
        How the sender would like to pack pixels that go in band; empty for not at all.
    """

    uid: str
    attempt: int
    name: str
    pid: int
    born: float
    mode: str
    next_seq: int
    feeds: tuple[Feed, ...]
    run: str = ""
    held: tuple[tuple[int, int], ...] = ()
    codec: str = ""

    def pack(self) -> bytes:
        """Return the message.

        Raises
        ------
        WireError
            Where a stream is one that no receiver would take, such as of float64, or its details are no JSON.
        """
        body = {
            "uid": self.uid,
            "attempt": self.attempt,
            "name": plain(self.name)[:64],
            "pid": self.pid,
            "born": self.born,
            "mode": self.mode,
            "next_seq": self.next_seq,
            "feeds": [feed.to_json() for feed in self.feeds],
            "run": self.run,
            "held": [list(pair) for pair in self.held],
            "codec": self.codec,
        }
        try:
            packed = message.pack(message.HELLO, 0, json.dumps(body, allow_nan=False).encode())
        except (TypeError, ValueError) as error:
            raise WireError(f"the streams cannot be described to a receiver: {error}") from None
        if len(packed) > message.MAX_CONTROL:
            raise WireError(
                f"the description of the streams has {len(packed)} bytes; {message.MAX_CONTROL} are allowed"
            )
        try:
            self.read(packed)  # else the receiver would leave it alone, and the sender ask for ever
        except BadMessage as bad:
            frames = ", ".join(str(feed.stream.spec) for feed in self.feeds)
            raise WireError(f"the streams cannot be described to a receiver: {bad} (frames of {frames})") from None
        return packed

    @classmethod
    def read(cls, part: bytes) -> Hello:
        """Parse and check; raises `BadMessage` only."""
        top = Fields(read_json(part))
        feeds = tuple(Feed.read(item) for item in top.items("feeds", 1, FEEDS_MAX))
        mode = top.text("mode", 16)
        if mode not in ("live", "lossless"):
            raise BadMessage("mode")
        return cls(
            uid=top.match("uid", _HEX),
            attempt=top.whole("attempt", 0, 2**53),
            name=top.text("name", 64),
            pid=top.whole("pid", 0, 2**32),
            born=top.number("born") or 0.0,
            mode=mode,
            next_seq=top.whole("next_seq", 0, 2**62),
            feeds=feeds,
            run=top.text("run", 32),
            held=_read_pairs(top.items("held", 0, FEEDS_MAX * SLOTS_MAX)),
            codec=_read_codec(top),
        )


@dataclass(frozen=True)
class Place:
    """Where the slots of one feed lie in the receiver's computer.

    Parameters
    ----------
    name, nonce
        Of the shared block and at its start; empty where it is not shared.
    slots, stride
        How many, and bytes from one to the next.
    offsets
        Bytes from the start of a slot for each plane that the receiver wants, in the order of FRAME's mask.
    """

    name: str
    nonce: bytes
    slots: int
    stride: int
    offsets: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Welcome:
    """The receiver's answer: the session begins.

    Parameters
    ----------
    attempt
        Of the HELLO that this answers.
    session
        Number that all later messages carry.
    run
        Random, for as long as the receiver keeps its memory and its ledger.
    places
        One for each feed.
    kept
        Those of HELLO's `held` that stay granted.
    expected
        Number of the next frame, in the sender's numbers: all before it are here or accounted for.
    codec
        That of HELLO, or empty where this side cannot unpack it.
    """

    attempt: int
    session: int
    run: str
    places: tuple[Place, ...]
    kept: tuple[tuple[int, int], ...] = ()
    expected: int = 0
    codec: str = ""

    def pack(self) -> bytes:
        """Return the message."""
        body = {
            "attempt": self.attempt,
            "run": self.run,
            "expected": self.expected,
            "codec": self.codec,
            "places": [
                {
                    "name": place.name,
                    "nonce": place.nonce.hex(),
                    "slots": place.slots,
                    "stride": place.stride,
                    "offsets": [[name, at] for name, at in place.offsets.items()],
                }
                for place in self.places
            ],
            "kept": [list(pair) for pair in self.kept],
        }
        return message.pack(message.WELCOME, self.session, json.dumps(body).encode())

    @classmethod
    def read(cls, part: bytes, session: int) -> Welcome:
        """Parse and check; raises `BadMessage` only."""
        top = Fields(read_json(part))
        return cls(
            attempt=top.whole("attempt", 0, 2**53),
            session=session,
            run=top.match("run", _HEX),
            places=tuple(_read_place(item) for item in top.items("places", 1, FEEDS_MAX)),
            kept=_read_pairs(top.items("kept", 0, FEEDS_MAX * SLOTS_MAX)),
            expected=top.whole("expected", 0, 2**62),
            codec=_read_codec(top),
        )


def _read_codec(top: Fields) -> str:
    codec = top.text("codec", 16)
    if codec not in CODECS:
        raise BadMessage("codec")
    return codec


def _read_place(item: Any) -> Place:
    top = Fields(item)
    name = top.text("name", 64)
    if name and not _BLOCK.fullmatch(name):
        raise BadMessage("name")
    nonce = top.text("nonce", 32)
    if nonce and not _HEX.fullmatch(nonce):
        raise BadMessage("nonce")
    offsets: dict[str, int] = {}
    for row in top.items("offsets", 1, PLANES_MAX):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str) or type(row[1]) is not int:
            raise BadMessage("offsets")
        offsets[row[0]] = row[1]
    slots, stride = top.whole("slots", 1, SLOTS_MAX), top.whole("stride", 1, 2**40)
    return Place(name, bytes.fromhex(nonce), slots, stride, offsets)


def _read_pairs(items: list[Any]) -> tuple[tuple[int, int], ...]:
    for row in items:
        if not isinstance(row, list) or len(row) != 2 or any(type(n) is not int or not 0 <= n < 2**32 for n in row):
            raise BadMessage("slots")
    return tuple((row[0], row[1]) for row in items)
