"""HELLO and WELCOME: the two messages with a JSON body, and all that is checked in them.

A sender says which feeds it has; the receiver, once it has memory for them, says where that lies. After a
break the sender says HELLO again with the slots that it still holds (its camera may be writing into one of
them at this moment) and the receiver says in WELCOME which of those stay granted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.errors import WireError
from pellucid.protocols import Spec, Stream
from pellucid.wire import message
from pellucid.wire.fields import Fields, read_json
from pellucid.wire.message import BadMessage

__all__ = ["DTYPES", "MAX_PLANE_BYTES", "Feed", "Hello", "Place", "Welcome"]

DTYPES = ("uint8", "uint16", "uint32", "int16", "float32")
MAX_PLANE_BYTES = 2**30
FEEDS_MAX = 64
PLANES_MAX = 16
SLOTS_MAX = 4096
_BLOCK = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Feed:
    """One stream and the planes of it that can be sent, ``raw`` first.

    Parameters
    ----------
    stream
        As the camera's side describes it.
    planes
        Name to Spec; all planes of a frame lie in one slot.
    """

    stream: Stream
    planes: Mapping[str, Spec]


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

    def pack(self) -> bytes:
        """Return the message.

        Raises
        ------
        WireError
            Where a stream's details are not JSON, or too long.
        """
        body = {
            "uid": self.uid,
            "attempt": self.attempt,
            "name": self.name[:64],
            "pid": self.pid,
            "born": self.born,
            "mode": self.mode,
            "next_seq": self.next_seq,
            "feeds": [_feed_to_json(feed) for feed in self.feeds],
            "run": self.run,
            "held": [list(pair) for pair in self.held],
        }
        try:
            packed = message.pack(message.HELLO, 0, json.dumps(body, allow_nan=False).encode())
        except (TypeError, ValueError) as error:
            raise WireError(f"the streams cannot be described to a receiver: {error}") from None
        if len(packed) > message.MAX_CONTROL:
            raise WireError(
                f"the description of the streams has {len(packed)} bytes; {message.MAX_CONTROL} are allowed"
            )
        return packed

    @classmethod
    def read(cls, part: bytes) -> Hello:
        """Parse and check; raises `BadMessage` only."""
        top = Fields(read_json(part))
        feeds = tuple(_read_feed(item) for item in top.items("feeds", 1, FEEDS_MAX))
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
    """

    attempt: int
    session: int
    run: str
    places: tuple[Place, ...]
    kept: tuple[tuple[int, int], ...] = ()

    def pack(self) -> bytes:
        """Return the message."""
        body = {
            "attempt": self.attempt,
            "run": self.run,
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
        )


def _feed_to_json(feed: Feed) -> dict[str, Any]:
    stream = feed.stream
    return {
        "camera": stream.camera[:200],
        "channel": stream.channel[:200],
        "pixel_um": stream.pixel_um,
        "exposure_ms": stream.exposure_ms,
        "bit_depth": stream.bit_depth,
        "frames": stream.frames,
        "details": dict(stream.details),
        "planes": [[name, list(spec.shape), spec.dtype] for name, spec in feed.planes.items()],
    }


def _read_feed(item: Any) -> Feed:
    top = Fields(item)
    planes: dict[str, Spec] = {}
    for row in top.items("planes", 1, PLANES_MAX):
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], str) or not 1 <= len(row[0]) <= 32:
            raise BadMessage("plane")
        planes[row[0]] = _read_spec(row[1], row[2])
    details = top.value.get("details", {})
    if not isinstance(details, dict):
        raise BadMessage("details")
    stream = Stream(
        spec=next(iter(planes.values())),
        camera=top.text("camera", 200),
        channel=top.text("channel", 200),
        pixel_um=top.number("pixel_um"),
        exposure_ms=top.number("exposure_ms"),
        bit_depth=top.maybe_whole("bit_depth", 1, 64),
        frames=top.maybe_whole("frames", 0, 2**53),
        details=details,
    )
    return Feed(stream, planes)


def _read_spec(shape: Any, dtype: Any) -> Spec:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise BadMessage("dtype")
    if not isinstance(shape, list) or not 2 <= len(shape) <= 4:
        raise BadMessage("shape")
    if any(type(n) is not int or not 1 <= n <= 2**20 for n in shape):
        raise BadMessage("shape")
    spec = Spec(tuple(shape), dtype)
    if spec.nbytes > MAX_PLANE_BYTES:
        raise BadMessage("plane too large")
    return spec


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
