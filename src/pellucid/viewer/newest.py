"""From the wire to the window: the newest frame, and every slot given back with the time at which it was drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid.protocols import FrameInfo, Spec
from pellucid.wire.handshake import Hello
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.receiver import Arrival, Receiver

__all__ = ["Newest"]

SLOTS = 4
"""One on the screen, one on its way there, two for the session to fill: it never waits for a draw."""


class _Account:
    """What does not arrive here is no loss: the session's ledger has it."""

    def missing(self, first: int, count: int, state: str, where: str) -> None:
        """Frames that the session had no slot for."""

    def told(self, produced: int, complete: bool = True) -> None:
        """The session's count."""

    def ignore(self, why: str) -> None:
        """A message that was none of ours."""


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
        self.streams = tuple(feed.stream for feed in hello.feeds)
        self.planes: tuple[dict[str, Spec], ...] = tuple(dict(feed.planes) for feed in hello.feeds)
        self._memories = [SlotMemory.create(SlotLayout(planes, SLOTS), shared=True) for planes in self.planes]
        self._views = [[memory.views(i) for i in range(SLOTS)] for memory in self._memories]
        self._waiting: dict[int, Arrival] = {}
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
            show(feed, {name: views[name] for name in arrival.ready}, arrival.info)
            # The window reads the newer pixels now; one that was never drawn goes back without a time.
            if (undrawn := self._waiting.pop(feed, None)) is not None:
                self._receiver.grant(undrawn.feed, undrawn.index)
            self._waiting[feed] = arrival

    def drawn(self, at_ns: int) -> None:
        """Give back what has been drawn, with the time."""
        for arrival in self._waiting.values():
            self._receiver.grant(arrival.feed, arrival.index, arrival.info.seq, at_ns)
        self._waiting.clear()

    def close(self) -> None:
        """Give the memory back."""
        self._views.clear()
        for memory in self._memories:
            memory.close()
        self._receiver.close()
