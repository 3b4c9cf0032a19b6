"""What travels between a sender and a receiver, byte by byte.

Every message begins with one part of a fixed head (little endian)::

    2 bytes  "PW"
    1 byte   version of the protocol
    1 byte   kind
    8 bytes  session: 0 before the handshake, then the number that the receiver gave

and a body that depends on the kind. HELLO and WELCOME, which are rare, have a JSON body (see `handshake`);
all others are structs. Only FRAME may have further parts: the pixels of each plane, where the two sides do
not share memory.

=========  ==================  ===========================================================================
kind       from                body
=========  ==================  ===========================================================================
HELLO      sender              JSON: who, which feeds, the next number, the slots that it still holds; said at
                               the start, after a break, and when feeds are new or others took their places
WAIT       receiver            heard, not ready yet (a session may compile for minutes)
WELCOME    receiver            JSON: run, session, where the slots lie, the number that is expected next
REFUSE     receiver            text: why not, for the user
ATTACHED   sender              writes into the receiver's memory
INBAND     sender              cannot; pixels come with the frames
GRANT      receiver            n times: feed, slot, and the frame whose mark comes back
FRAME      sender              feed, slot, planes that are filled, numbers, times, axes
MISSING    sender              frames that will not come, why, and of which feed
BEAT       both                frames produced or expected, and times for the clock offset
STOP       receiver            acquire nothing more
BYE        sender              totals
BYE_ACK    receiver            totals are here
STALE      receiver            that session is over: say HELLO again
=========  ==================  ===========================================================================

Nothing here trusts what it reads: each function looks at the length first and raises `BadMessage` alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = [
    "ATTACHED",
    "BEAT",
    "BYE",
    "BYE_ACK",
    "FRAME",
    "GRANT",
    "GRANTS_MAX",
    "GRANT_BODY",
    "HELLO",
    "INBAND",
    "MAX_CONTROL",
    "MISSING",
    "REFUSE",
    "STALE",
    "STOP",
    "UNKNOWN",
    "VERSION",
    "WAIT",
    "WELCOME",
    "BadMessage",
    "Beat",
    "FrameHead",
    "Missing",
    "Totals",
    "beat",
    "bye",
    "frame",
    "head",
    "missing",
    "pack",
    "read_beat",
    "read_bye",
    "read_frame",
    "read_grants",
    "read_head",
    "read_missing",
    "read_text",
]

MAGIC = b"PW"
VERSION = 2
MAX_CONTROL = 256 * 1024
"""Bytes of the longest first part."""
GRANTS_MAX = 256
"""Grants in one message."""
BUSY = "another sender"
"""So begins the reason of a REFUSE that may be over in a moment."""
UNKNOWN = 0xFFFF
"""In MISSING: nobody knows of which feed."""

HELLO, WAIT, WELCOME, REFUSE, ATTACHED, INBAND, GRANT, FRAME, MISSING, BEAT, STOP, BYE, BYE_ACK, STALE = range(1, 15)

_HEAD = struct.Struct("<2sBBQ")
_FRAME = struct.Struct("<2sBBQHIHBqqqq")
_MISSING = struct.Struct("<qqBBH")
_BEAT = struct.Struct("<qqqq")
_BYE = struct.Struct("<qqq")
GRANT_BODY = struct.Struct("<HIqq")
"""feed, slot, seq of the frame that was done with (-1: none), when it was (ns)."""
_AXIS = struct.Struct("<Bq")
_STATES = ("dropped", "lost")
_AXES_MAX = 16
_NAME_MAX = 32
_SEQ_MAX = 2**62


class BadMessage(Exception):
    """A message that cannot be one of this protocol; its text is a short reason to count it under."""


class FrameHead(NamedTuple):
    """What a FRAME says of itself; times on the sender's clock."""

    feed: int
    slot: int
    mask: int
    seq: int
    camera_number: int
    camera_ns: int
    sent_ns: int
    axes: Mapping[str, int] | None


class Missing(NamedTuple):
    """Frames ``first .. first + frames - 1`` in the sender's numbers, of the feed at a position or `UNKNOWN`."""

    first: int
    frames: int
    state: str
    where: str
    feed: int = UNKNOWN


class Beat(NamedTuple):
    """A sign of life that carries four-stamp clock samples.

    Parameters
    ----------
    produced
        From a sender: by the camera's side so far. From a receiver: the number that it expects next, so all
        before it are there or accounted for. Both in the sender's numbers.
    ping_ns
        When this beat left, on the clock of its writer.
    echo_ns, echo_at_ns
        `ping_ns` of the last beat that its writer received, and when it received it; 0 for none.
    """

    produced: int
    ping_ns: int
    echo_ns: int
    echo_at_ns: int


class Totals(NamedTuple):
    """What a sender says at its end: frames produced (in its numbers), sent, and dropped by itself."""

    produced: int
    sent: int
    dropped: int


def head(kind: int, session: int) -> bytes:
    """Return the head, which is a whole message for kinds without a body."""
    return _HEAD.pack(MAGIC, VERSION, kind, session)


def pack(kind: int, session: int, body: bytes) -> bytes:
    """Return head and body."""
    return _HEAD.pack(MAGIC, VERSION, kind, session) + body


def read_head(part: bytes) -> tuple[int, int]:
    """Return ``(kind, session)``.

    Raises
    ------
    BadMessage
        ``"size"``, ``"not pellucid"``, ``"version"`` or ``"kind"``. A REFUSE passes whatever its version,
        since it may be there to say that the versions differ.
    """
    if not _HEAD.size <= len(part) <= MAX_CONTROL:
        raise BadMessage("size")
    magic, version, kind, session = _HEAD.unpack_from(part)
    if magic != MAGIC:
        raise BadMessage("not pellucid")
    if version != VERSION and kind != REFUSE:
        raise BadMessage("version")
    if not HELLO <= kind <= STALE:
        raise BadMessage("kind")
    return kind, session


def frame(
    session: int,
    feed: int,
    slot: int,
    mask: int,
    seq: int,
    camera_number: int,
    camera_ns: int,
    sent_ns: int,
    axes: Mapping[str, int] | None,
) -> bytes:
    """Return the first part of a FRAME; bit i of `mask` stands for plane i of the feed."""
    if not axes:
        return _FRAME.pack(MAGIC, VERSION, FRAME, session, feed, slot, mask, 0, seq, camera_number, camera_ns, sent_ns)
    named = [(name.encode()[:_NAME_MAX], at) for name, at in axes.items()][:_AXES_MAX]
    first = _FRAME.pack(
        MAGIC, VERSION, FRAME, session, feed, slot, mask, len(named), seq, camera_number, camera_ns, sent_ns
    )
    return first + b"".join(_AXIS.pack(len(name), at) + name for name, at in named)


def read_frame(part: bytes) -> FrameHead:
    """Parse the first part of a FRAME whose head was read already."""
    if len(part) < _FRAME.size:
        raise BadMessage("size")
    _, _, _, _, feed, slot, mask, count, seq, number, camera_ns, sent_ns = _FRAME.unpack_from(part)
    if not 0 <= seq < _SEQ_MAX:
        raise BadMessage("seq")
    axes = _read_axes(part, count) if count or len(part) != _FRAME.size else None
    return FrameHead(feed, slot, mask, seq, number, camera_ns, sent_ns, axes)


def _read_axes(part: bytes, count: int) -> dict[str, int]:
    if count > _AXES_MAX:
        raise BadMessage("axes")
    axes: dict[str, int] = {}
    at = _FRAME.size
    for _ in range(count):
        if len(part) < at + _AXIS.size:
            raise BadMessage("size")
        length, value = _AXIS.unpack_from(part, at)
        at += _AXIS.size
        axes[_read_name(part[at : at + length], length)] = value
        at += length
    if at != len(part):
        raise BadMessage("size")
    return axes


def _read_name(raw: bytes, length: int) -> str:
    if len(raw) != length or not 1 <= length <= _NAME_MAX:
        raise BadMessage("size")
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise BadMessage("text") from None
    if not name.isprintable():
        raise BadMessage("text")
    return name


def read_grants(part: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Return ``(feed, slot, seq, stamp_ns)`` of each grant in a GRANT."""
    size = len(part) - _HEAD.size
    if size < 0 or size % GRANT_BODY.size or size // GRANT_BODY.size > GRANTS_MAX:
        raise BadMessage("size")
    return GRANT_BODY.iter_unpack(memoryview(part)[_HEAD.size :])


def missing(session: int, note: Missing) -> bytes:
    """Return a MISSING."""
    where = note.where.encode()[:_NAME_MAX]
    body = _MISSING.pack(note.first, note.frames, _STATES.index(note.state), len(where), note.feed)
    return _HEAD.pack(MAGIC, VERSION, MISSING, session) + body + where


def read_missing(part: bytes) -> Missing:
    """Parse a MISSING."""
    at = _HEAD.size + _MISSING.size
    if len(part) < at:
        raise BadMessage("size")
    first, count, state, length, feed = _MISSING.unpack_from(part, _HEAD.size)
    if len(part) != at + length:
        raise BadMessage("size")
    if not 0 <= first < _SEQ_MAX or not 1 <= count <= 2**32 or state >= len(_STATES):
        raise BadMessage("missing")
    return Missing(first, count, _STATES[state], _read_name(part[at:], length), feed)


def beat(session: int, given: Beat) -> bytes:
    """Return a BEAT."""
    return _HEAD.pack(MAGIC, VERSION, BEAT, session) + _BEAT.pack(*given)


def read_beat(part: bytes) -> Beat:
    """Parse a BEAT."""
    if len(part) != _HEAD.size + _BEAT.size:
        raise BadMessage("size")
    found = Beat._make(_BEAT.unpack_from(part, _HEAD.size))
    if not 0 <= found.produced < _SEQ_MAX:
        raise BadMessage("produced")
    return found


def bye(session: int, totals: Totals) -> bytes:
    """Return a BYE."""
    return _HEAD.pack(MAGIC, VERSION, BYE, session) + _BYE.pack(*totals)


def read_bye(part: bytes) -> Totals:
    """Parse a BYE."""
    if len(part) != _HEAD.size + _BYE.size:
        raise BadMessage("size")
    totals = Totals._make(_BYE.unpack_from(part, _HEAD.size))
    if any(not 0 <= n < _SEQ_MAX for n in totals):
        raise BadMessage("totals")
    return totals


def read_text(part: bytes) -> str:
    """Return the body as one printable line of at most 500 characters."""
    text = part[_HEAD.size :][:2000].decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:500]
