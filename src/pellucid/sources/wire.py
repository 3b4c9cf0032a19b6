"""Frames of a camera in another process, or on another computer: ``pellucid send`` at the other end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import Account, Ring, Slot, Stream
from pellucid.wire.keys import Curve, check_endpoint, is_loopback
from pellucid.wire.receiver import Receiver

__all__ = ["WireSource"]

STOPPING_S = 8.0
"""A sender that was told to stop may take so long to say its totals: its camera has to stop first."""


@dataclass(config=ConfigDict(extra="forbid"))
class WireSource:
    """Receives what a sender sends; where both share a computer, the camera's side writes into the ring itself.

    Parameters
    ----------
    bind
        ``tcp://HOST:PORT`` to listen at. Hosts that other computers can reach need `keys`.
    wait_s
        How long `open` waits for a sender.
    window
        Most slots of one stream that the sender may have at a time; None for all that are free.
    linger_s
        How long a sender that vanished may take to return, before the run ends.
    keys
        TOML file with this side's CURVE keys: public, secret, and if wanted allowed.
    allow
        Public keys of the senders that may come; empty for all who know this side's public key.
    """

    bind: str = "tcp://127.0.0.1:5599"
    wait_s: float = Field(default=30.0, gt=0, le=1e7, allow_inf_nan=False)
    window: int | None = Field(default=None, ge=1)
    linger_s: float = Field(default=5.0, ge=0, le=1e7, allow_inf_nan=False)
    keys: Path | None = None
    allow: list[str] = Field(default_factory=list)

    @field_validator("bind")
    @classmethod
    def _is_endpoint(cls, text: str) -> str:
        check_endpoint(text, bind=True)
        return text

    def __post_init__(self) -> None:
        if self.allow and self.keys is None:
            raise ValueError("allow needs keys as well: the file with this side's own pair")
        self.shares_memory = True
        self.live = True
        self.finished = False
        self._receiver: Receiver | None = None
        self._slots: list[dict[int, Slot]] = []
        self._waiting: list[deque[Slot]] = []
        self._out: list[int] = []
        self._stopped_ns = self._gone_ns = 0

    @property
    def endpoint(self) -> str:
        """Where it listens, with the real port; after `listen` or `open`."""
        return self._receiver.endpoint if self._receiver is not None else self.bind

    def ready(self) -> None:
        """Raise what `open` would for want of keys."""
        if self.keys is not None:
            Curve.load(self.keys, allowed=tuple(self.allow))
        elif not is_loopback(self.bind):
            raise SourceError(
                f'bind = "{self.bind}" is open to other computers, which needs keys: give keys, '
                "or bind tcp://127.0.0.1:5599, which only this computer reaches"
            )

    def listen(self) -> str:
        """Bind already, so that a sender can be started before `open`; return the endpoint."""
        if self._receiver is None:
            curve = Curve.load(self.keys, allowed=tuple(self.allow)) if self.keys is not None else None
            self._receiver = Receiver(self.bind, curve=curve)
        return self._receiver.endpoint

    def open(self) -> tuple[Stream, ...]:
        """Wait for a sender and return its streams.

        Raises
        ------
        WireError
            Where the endpoint is taken or may not be used.
        SourceError
            Where nobody sends.
        """
        endpoint = self.listen()
        assert self._receiver is not None
        try:
            hello = self._receiver.accept(self.wait_s)
        except BaseException:
            self.close()
            raise
        if hello is None:
            self.close()
            raise SourceError(
                f"no sender came to {endpoint} within {self.wait_s:g} s. "
                f"Start one: pellucid send --to {endpoint} --cfg demo"
            )
        return tuple(
            Stream(
                spec=feed.planes["raw"],
                camera=feed.stream.camera,
                channel=feed.stream.channel,
                index=index,
                pixel_um=feed.stream.pixel_um,
                exposure_ms=feed.stream.exposure_ms,
                bit_depth=feed.stream.bit_depth,
                frames=feed.stream.frames,
                details=feed.stream.details,
            )
            for index, feed in enumerate(hello.feeds)
        )

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Welcome the sender into the rings."""
        assert self._receiver is not None
        self._slots = [{} for _ in rings]
        self._waiting = [deque() for _ in rings]
        self._out = [0] * len(rings)
        self._receiver.welcome([ring.memory for ring in rings], account)

    def offer(self, slot: Slot) -> None:
        """Grant a free slot to the sender, as far as its window goes."""
        feed = slot.stream.index
        if self.window is not None and self._out[feed] >= self.window:
            self._waiting[feed].append(slot)
        else:
            self._grant(feed, slot)

    def _grant(self, feed: int, slot: Slot) -> None:
        assert self._receiver is not None
        self._slots[feed][slot.index] = slot
        self._out[feed] += 1
        self._receiver.grant(feed, slot.index)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame's slot. Hot."""
        receiver = self._receiver
        if receiver is None or self.finished:
            return None
        arrival = receiver.receive(timeout_s)
        if arrival is not None:
            feed = arrival.feed
            slot = self._slots[feed].pop(arrival.index)
            slot.info, slot.ready = arrival.info, arrival.ready
            self._back(feed)
            return slot
        for feed, index in receiver.released():
            # It came back without a frame: grant it to whoever sends next.
            self._out[feed] -= 1
            self.offer(self._slots[feed].pop(index))
        self._look(receiver)
        return None

    def _back(self, feed: int) -> None:
        self._out[feed] -= 1
        if self._waiting[feed]:
            self._grant(feed, self._waiting[feed].popleft())

    def _look(self, receiver: Receiver) -> None:
        """Decide whether anything can still come."""
        now = now_ns()
        self._gone_ns = (self._gone_ns or now) if receiver.state == "gone" else 0
        gone = self._gone_ns and now - self._gone_ns >= self.linger_s * 1e9
        stopped = self._stopped_ns and (receiver.sender_is_dead or now - self._stopped_ns > STOPPING_S * 1e9)
        if receiver.state == "ended" or gone or stopped:
            self.finished = True
            receiver.settle()

    def stop(self) -> None:
        """Tell the sender to stop; what is under way can still be read."""
        if self._receiver is not None and not self._stopped_ns:
            self._stopped_ns = now_ns()
            self._receiver.stop()

    def close(self) -> None:
        """Close the connection; a sender that is still there goes on without this session."""
        self.finished = True
        if self._receiver is not None:
            self._receiver.refuse("the session cannot take these frames; it says why in its own terminal")
            self._receiver.close()
            self._receiver = None
