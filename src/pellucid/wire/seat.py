"""The one sender that a receiver listens to: who it is, how it is reached, and when it last spoke."""

from __future__ import annotations

import secrets

from pellucid.metrics import now_ns
from pellucid.wire import message
from pellucid.wire.clock import ClockOffset
from pellucid.wire.handshake import Hello, Place, Welcome
from pellucid.wire.landing import Writer
from pellucid.wire.message import Beat

__all__ = ["Seat"]

STARTING_NS = 60_000_000_000
"""A camera may take so long to start; its sender says nothing meanwhile."""


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
        self._ping_ns = 0

    def follows(self, before: Seat) -> None:
        """Note that the same sender had the session before: its loop runs if it ran then."""
        self._lively = before._lively

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
        self._ping_ns = now_ns()
        return message.beat(self.session, Beat(expected, self._ping_ns, 0, 0))

    def answered(self, beat: Beat, now: int) -> None:
        """Take the sender's answer as a sample of its clock."""
        if beat.echo_ns and beat.echo_ns == self._ping_ns:
            self.clock.add(beat.echo_ns, beat.echo_at_ns, beat.ping_ns, now)

    @property
    def ahead_ns(self) -> int:
        """The sender's clock less this one; 0 on one computer, where there is but one clock."""
        return 0 if self.attached or self.writer.is_here else self.clock.offset_ns

    def is_lost(self, now: int, timeout_ns: int, heartbeat_ns: int) -> bool:
        """Tell whether the sender was silent for too long, or its process is dead."""
        silent_ns = now - self._heard_ns
        patience_ns = timeout_ns if self._lively else max(timeout_ns, STARTING_NS)
        return silent_ns > patience_ns or (silent_ns > 2 * heartbeat_ns and self.writer.is_dead)
