"""From the wire to the window: the newest frame, and every slot given back with the time at which it was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """Drains a receiver and keeps the newest of each plane until it is drawn.

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
        self._waiting: list[dict[str, Arrival]] = [{} for _ in self._memories]
        receiver.welcome(self._memories, _Account())
        for feed in range(len(self._memories)):
            for index in range(SLOTS):
                receiver.grant(feed, index)

    @property
    def over(self) -> str:
        """Why no frame will come any more; empty while one may."""
        if self._receiver.state == "gone":
            return "the session is gone" if self._receiver.sender_is_dead else "the session does not answer"
        return "the run has ended" if self._receiver.state == "ended" else ""

    def look(self, show: Callable[[int, dict[str, np.ndarray[Any, Any]], FrameInfo], None]) -> None:
        """Take all that has arrived; show what is newest of each plane, give the others back at once.

        A frame that lacks a plane takes the place of an older one only where it has something newer: the window
        goes on to read the older plane until it is drawn, and the session would write into it.
        """
        fresh: list[Arrival] = []
        while (arrival := self._receiver.receive(0.0)) is not None:
            fresh.append(arrival)
            waiting = self._waiting[arrival.feed]
            before = list(waiting.values())
            waiting.update(dict.fromkeys(_pictures(arrival), arrival))
            for older in _each(before):
                if not _among(older, waiting.values()):
                    self._receiver.grant(older.feed, older.index)  # never drawn, so without a time
        for arrival in fresh:
            waiting = self._waiting[arrival.feed]
            if not _among(arrival, waiting.values()):
                continue
            views = self._views[arrival.feed][arrival.index]
            if WHY in arrival.ready:
                arrival.info.where = bytes(views[WHY]).split(b"\0", 1)[0].decode(errors="replace")
            names = [name for name in arrival.ready if waiting.get(name) is arrival]
            show(arrival.feed, {name: views[name] for name in names if name != WHY}, arrival.info)

    def drawn(self, at_ns: int) -> None:
        """Give back what has been drawn, with the time."""
        for waiting in self._waiting:
            for arrival in _each(waiting.values()):
                self._receiver.grant(arrival.feed, arrival.index, arrival.info.seq, at_ns)
            waiting.clear()

    def close(self) -> None:
        """Give the memory back."""
        self._views.clear()
        for memory in self._memories:
            memory.close()
        self._receiver.close()


def _pictures(arrival: Arrival) -> list[str]:
    return [name for name in arrival.ready if name != WHY] or [WHY]


def _among(arrival: Arrival, some: Iterable[Arrival]) -> bool:
    return any(arrival is one for one in some)


def _each(some: Iterable[Arrival]) -> list[Arrival]:
    """Return each once: a frame waits for all its planes."""
    return list({id(one): one for one in some}.values())
