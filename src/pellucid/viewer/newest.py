"""From the wire to the window: the newest frame, and every slot given back with the time at which it was drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pellucid.protocols import FrameInfo, Spec
from pellucid.wire.handshake import Hello
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.receiver import Arrival, Receiver

__all__ = ["WHY", "Newest"]

WHY = "#why"
"""A plane that is no picture: UTF-8 text, ended by a zero, that says why the others are missing."""
SLOTS = 4
"""One on the screen, one on its way there, two for the session to fill: it never waits for a draw."""


class _Account:
    """What does not arrive here is no loss: the session's ledger has it."""

    def missing(self, first: int, count: int, state: str, where: str) -> None:
        """Leave frames to the session that it had no slot for."""

    def told(self, produced: int, complete: bool = True) -> None:
        """Leave the count to the session."""

    def ignore(self, why: str) -> None:
        """Leave a message alone that was none of ours."""


class Newest:
    """Drains a receiver and keeps the last frame of each stream until it is drawn.

    Parameters
    ----------
    receiver
        Has accepted a sender.
    hello
        What it accepted.
    """

    def __init__(self, receiver: Receiver, hello: Hello) -> None:
        self._receiver = receiver
        self.streams = tuple(replace(feed.stream, index=i) for i, feed in enumerate(hello.feeds))
        self.planes: tuple[dict[str, Spec], ...] = tuple(
            {name: spec for name, spec in feed.planes.items() if name != WHY} for feed in hello.feeds
        )
        self._memories = [SlotMemory.create(SlotLayout(feed.planes, SLOTS), shared=True) for feed in hello.feeds]
        self._views = [[memory.views(i) for i in range(SLOTS)] for memory in self._memories]
        self._waiting: dict[int, list[Arrival]] = {feed: [] for feed in range(len(self._memories))}
        receiver.welcome(self._memories, _Account())
        for feed in range(len(self._memories)):
            for index in range(SLOTS):
                receiver.grant(feed, index)

    @property
    def over(self) -> str:
        """Why no frame will come any more; empty while one may."""
        return {"ended": "the run has ended", "gone": "the session is gone"}.get(self._receiver.state, "")

    def look(self, show: Callable[[int, dict[str, np.ndarray[Any, Any]], FrameInfo], None]) -> None:
        """Take all that has arrived; show the newest of each stream, give the others back at once."""
        fresh: dict[int, Arrival] = {}
        while (arrival := self._receiver.receive(0.0)) is not None:
            if (older := fresh.pop(arrival.feed, None)) is not None:
                self._receiver.grant(older.feed, older.index)
            fresh[arrival.feed] = arrival
        for feed, arrival in fresh.items():
            views = self._views[feed][arrival.index]
            if WHY in arrival.ready:
                arrival.info.where = bytes(views[WHY]).split(b"\0", 1)[0].decode(errors="replace")
            show(feed, {name: views[name] for name in arrival.ready if name != WHY}, arrival.info)
            # The window reads the newer pixels now; one that was never drawn goes back without a time. Not while
            # a pane still waits for a plane that the newer frame lacks: the session would write into it.
            undrawn, self._waiting[feed] = self._waiting[feed], [arrival]
            for older in undrawn:
                if set(older.ready) - {WHY} <= set(arrival.ready):
                    self._receiver.grant(older.feed, older.index)
                else:
                    self._waiting[feed].insert(0, older)

    def drawn(self, at_ns: int) -> None:
        """Give back what has been drawn, with the time."""
        for arrivals in self._waiting.values():
            for arrival in arrivals:
                self._receiver.grant(arrival.feed, arrival.index, arrival.info.seq, at_ns)
            arrivals.clear()

    def close(self) -> None:
        """Give the memory back."""
        self._views.clear()
        for memory in self._memories:
            memory.close()
        self._receiver.close()
