"""Frames of a camera in another process, or on another computer: ``pellucid send`` at the other end."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import Account, Ring, Slot, Stream
from pellucid.sources._paths import from_folder
from pellucid.wire.feed import Feed
from pellucid.wire.keys import Curve, check_endpoint, is_loopback
from pellucid.wire.memory import SlotMemory
from pellucid.wire.receiver import Receiver
from pellucid.wire.run import Turn

__all__ = ["WireSource"]

STOPPING_S = 8.0
"""A sender that was told to stop may take so long to say its totals: its camera has to stop first."""


class _Lent:
    """Slots of one stream that the sender has, or will have.

    Parameters
    ----------
    feed, position
        What the sender says of it, and where in its list.
    index
        Of the stream, within this source.
    """

    def __init__(self, feed: Feed, position: int, index: int) -> None:
        self.feed, self.position, self.index = feed, position, index
        self.begun = self.over = False
        self.memory: SlotMemory | None = None
        self.slots: dict[int, Slot] = {}
        self.waiting: deque[Slot] = deque()

    def end(self) -> None:
        """Forget all slots: another stream takes the place."""
        self.over, self.memory = True, None
        self.slots.clear()
        self.waiting.clear()


def _stream(feed: Feed, index: int, replaces: int | None = None) -> Stream:
    return replace(feed.stream, spec=feed.planes["raw"], index=index, replaces=replaces)


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
        File with this side's CURVE keys, as ``pellucid keys`` makes it.
    allow
        Public keys of the senders that may come, beside those in the file; none at all lets in everyone who knows this
        side's public key, which only a bind to this computer may do.
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

    @field_validator("keys")
    @classmethod
    def _place(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else from_folder(path, info)

    def __post_init__(self) -> None:
        if self.allow and self.keys is None:
            raise ValueError("allow needs keys as well: the file with this side's own pair")
        self.shares_memory = True
        self.live = True
        self.finished = False
        self.fresh: list[Stream] = []
        self.clock: dict[str, Any] | None = None
        self._receiver: Receiver | None = None
        self._lent: list[_Lent] = []
        self._current: list[_Lent] = []
        self._coming: dict[int, _Lent] = {}
        self._announced: list[_Lent] = []
        self._stopped_ns = self._gone_ns = 0

    @property
    def endpoint(self) -> str:
        """Where it listens, with the real port; after `listen` or `open`."""
        return self._receiver.endpoint if self._receiver is not None else self.bind

    def ready(self) -> None:
        """Raise what `open` would for want of keys."""
        curve = self._curve()
        if is_loopback(check_endpoint(self.bind, bind=True)):
            return
        if curve is None:
            raise SourceError(
                f'bind = "{self.bind}" is open to other computers, which needs keys: give keys, '
                "or bind tcp://127.0.0.1:5599, which only this computer reaches"
            )
        if not curve.allowed:
            raise SourceError(
                f'bind = "{self.bind}" is open to other computers, and nobody is named who may come. '
                f"Type: pellucid keys {curve.path} --allow KEY, with the public key of the camera's computer"
            )

    def _curve(self) -> Curve | None:
        return Curve.load(self.keys, allowed=tuple(self.allow)) if self.keys is not None else None

    def listen(self) -> str:
        """Bind already, so that a sender can be started before `open`; return the endpoint."""
        if self._receiver is None:
            self._receiver = Receiver(self.bind, curve=self._curve(), turns=True)
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
        said: list[str] = []

        def tell(line: str) -> None:
            # At once: whoever waits here would look for the fault elsewhere until the time is over.
            if line not in said:
                said.append(line)
                print(f"pellucid: {line}", file=sys.stderr, flush=True)

        try:
            hello = self._receiver.accept(self.wait_s, tell)
        except BaseException:
            self.close()
            raise
        if hello is None:
            self.close()
            start = "Start one: pellucid send --to {} --cfg demo"
            if not is_loopback(endpoint):
                start = start.format(f"tcp://THIS-COMPUTER:{endpoint.rpartition(':')[2]}") + " --keys camera.keys"
            why = f"{said[-1][0].upper()}{said[-1][1:]}" if said else start.format(endpoint)
            raise SourceError(f"no sender came to {endpoint} within {self.wait_s:g} s. {why}")
        return tuple(_stream(feed, index) for index, feed in enumerate(hello.feeds))

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Welcome the sender into the rings."""
        assert self._receiver is not None
        self._receiver.welcome([ring.memory for ring in rings], account)
        hello = self._receiver.hello
        assert hello is not None
        self._lent = [_Lent(feed, i, i) for i, feed in enumerate(hello.feeds)]
        self._current = list(self._lent)
        for lent in self._lent:
            lent.begun = True

    def offer(self, slot: Slot) -> None:
        """Grant a free slot to the sender, as far as its window goes."""
        lent = self._lent[slot.stream.index]
        if lent.over:
            return
        if lent.begun and (self.window is None or len(lent.slots) < self.window):
            self._grant(lent, slot)
        else:
            lent.waiting.append(slot)

    def _grant(self, lent: _Lent, slot: Slot) -> None:
        assert self._receiver is not None
        lent.slots[slot.index] = slot
        self._receiver.grant(lent.position, slot.index)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame's slot. Hot."""
        receiver = self._receiver
        if receiver is None or self.finished:
            return None
        arrival = receiver.receive(timeout_s)
        if arrival is not None:
            lent = self._current[arrival.feed]
            slot = lent.slots.pop(arrival.index)
            slot.info, slot.ready = arrival.info, arrival.ready
            if lent.waiting:
                self._grant(lent, lent.waiting.popleft())
            return slot
        for position, index in receiver.released():
            # It came back without a frame: grant it to whoever sends next.
            unused = self._current[position].slots.pop(index, None)
            if unused is not None:
                self.offer(unused)
        if receiver.turn is not None:
            self._announce(receiver.turn)
            self._go_on(receiver, receiver.turn)
        self._look(receiver)
        return None

    # ---------------------------------------------------------------- other feeds

    def _announce(self, turn: Turn) -> None:
        """Tell the session of streams that the sender has now; nothing comes before it has made memory for them."""
        for position in turn.positions:
            feed = turn.hello.feeds[position]
            before = self._coming.get(position)
            if before is not None and before.feed == feed:
                continue
            if before is None and position < len(self._current):
                before = self._current[position]
            lent = _Lent(feed, position, len(self._lent))
            if before is not None:
                before.end()
            self._lent.append(lent)
            self._coming[position] = lent
            self._announced.append(lent)
            self.fresh.append(_stream(feed, lent.index, None if before is None else before.index))

    def extend(self, rings: Sequence[Ring]) -> None:
        """Let the sender write into the rings of streams that were in `fresh`."""
        for lent, ring in zip(self._announced, rings, strict=False):
            lent.memory = ring.memory
        del self._announced[: len(rings)]
        if self._receiver is not None and self._receiver.turn is not None:
            self._go_on(self._receiver, self._receiver.turn)

    def _go_on(self, receiver: Receiver, turn: Turn) -> None:
        """Answer the sender, once there is memory for all that is new."""
        news = [self._coming[position] for position in turn.positions if position in self._coming]
        # It may have changed its mind since these were announced.
        fits = [lent for lent in news if lent.feed == turn.hello.feeds[lent.position]]
        memories = [lent.memory for lent in fits if lent.memory is not None]
        if len(memories) < len(turn.positions):
            return
        receiver.extend(memories, [lent.index for lent in news])
        for lent in news:
            self._current[lent.position : lent.position + 1] = [lent]
            del self._coming[lent.position]
            lent.begun, lent.memory = True, None
            waiting, lent.waiting = lent.waiting, deque()
            for slot in waiting:
                self.offer(slot)

    # ---------------------------------------------------------------- the end

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
            self.clock = self._receiver.clock
            self._receiver.refuse("the session cannot take these frames; it says why in its own terminal")
            self._receiver.close()
            self._receiver = None
