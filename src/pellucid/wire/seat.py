"""The one sender that a receiver listens to: who it is, how it is reached, and when it last spoke."""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any

from pellucid.metrics import now_ns
from pellucid.wire import message
from pellucid.wire.clock import ClockOffset
from pellucid.wire.handshake import Hello, Place, Welcome
from pellucid.wire.landing import Writer
from pellucid.wire.message import Beat

__all__ = ["Seat"]

STARTING_NS = 60_000_000_000
"""A camera may take so long to start; its sender says nothing meanwhile."""
_ASK_NS = 25_000_000
_ASK_TIMES = 16
"""At the begin another computer is asked for its clock so often, until the beats are enough."""
_NEVER = 2**63
_UNDER_WAY = 64


class Seat:
    """A session: from a WELCOME to the next one.

    Parameters
    ----------
    route
        By which the sender's connection is addressed.
    hello
        What it said of itself.
    run, places, kept, expected, codec
        For the WELCOME.

    Attributes
    ----------
    session : int
        Random number that all messages of the session carry; 0 once it is over for good.
    welcome : bytes
        The message, to be said again where it was not heard.
    writer : Writer
    attached : bool
        It writes into the receiver's memory.
    codec : str
        How its pixels are packed where they go in band.
    clock : ClockOffset
        The sender's.
    ask_ns : int
        When it is to be asked for its clock, beyond the beats.
    """

    def __init__(
        self,
        route: bytes,
        hello: Hello,
        run: str,
        places: tuple[Place, ...],
        kept: tuple[tuple[int, int], ...],
        expected: int,
        codec: str,
    ) -> None:
        self.route, self.hello, self.codec = route, hello, codec
        self.session = secrets.randbits(63) + 1
        self.welcome = Welcome(hello.attempt, self.session, run, places, kept, expected, codec).pack()
        self.writer = Writer(hello.uid, hello.pid, hello.born)
        # Until it says INBAND it may attach and write, which matters for what becomes of its slots.
        self.writer.attached = any(place.name for place in places)
        self.attached = False
        self.clock = ClockOffset()
        self._lively = False
        self._heard_ns = now_ns()
        self.ask_ns = _NEVER
        self._asks = 0 if self.writer.is_here else _ASK_TIMES
        self._asked: deque[int] = deque(maxlen=_UNDER_WAY)
        self._answers = 0
        self._apart = False

    def follows(self, before: Seat) -> None:
        """Note that the same sender had the session before: its loop runs if it ran then, its clock is the same."""
        self._lively = before._lively
        self.clock, self._apart = before.clock, before._apart

    def spoke(self, route: bytes, now: int, lively: bool) -> None:
        """Note a sign of life; its connection may be a new one. `lively`: its loop runs, so it will go on."""
        self.route, self._heard_ns = route, now
        if lively:
            self._lively = True

    def deaf_for(self, ns: int) -> None:
        """Take off a time in which nobody listened."""
        self._heard_ns += ns

    def beat(self, expected: int) -> bytes:
        """Return a sign of life for the sender, which answers it; `expected` is its number for the next frame."""
        now = now_ns()
        self._asked.append(now)
        self._asks -= 1
        self.ask_ns = now + _ASK_NS if self._asks > 0 else _NEVER
        return message.beat(self.session, Beat(expected, now, 0, 0))

    def answered(self, beat: Beat, now: int) -> None:
        """Take the sender's answer as an exchange of clocks; only one that was asked for, and once."""
        if beat.echo_ns not in self._asked:
            return
        self._asked.remove(beat.echo_ns)
        self._answers += 1
        # One that tells the second time first has heard before both.
        self.clock.add(beat.echo_ns, min(beat.echo_at_ns, beat.ping_ns), beat.ping_ns, now)
        if abs(self.clock.offset_ns) > self.clock.unsure_ns >= 0 and not self._apart:
            self._apart = True
            self._asks, self.ask_ns = _ASK_TIMES, now

    @property
    def timed(self) -> bool:
        """Its frames' times can be told on this clock; before that it gets no slots for any."""
        return self._answers > 0 or self.attached or self.writer.is_here

    def ahead(self, now: int) -> tuple[int, int]:
        """Return the sender's clock less this one, and how well that is known, in ns. Hot.

        Both are 0 on one computer, where there is but one clock; unless it proves to be another one, as containers can
        have.
        """
        if not self._apart and (self.attached or self.writer.is_here):
            return 0, 0
        return self.clock.at(now)

    def describe_clock(self) -> dict[str, Any] | None:
        """Return what the report says of the sender's clock; None where it is this one."""
        if self.clock.unsure_ns < 0 or (not self._apart and (self.attached or self.writer.is_here)):
            return None
        return ({"sender": self.hello.name} if self.hello.name else {}) | self.clock.describe()

    def is_lost(self, now: int, timeout_ns: int, heartbeat_ns: int) -> bool:
        """Tell whether the sender was silent for too long, or its process is dead."""
        silent_ns = now - self._heard_ns
        patience_ns = timeout_ns if self._lively else max(timeout_ns, STARTING_NS)
        return silent_ns > patience_ns or (silent_ns > 2 * heartbeat_ns and self.writer.is_dead)
