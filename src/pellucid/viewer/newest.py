"""From the wire to the window: the newest frame, and every slot given back with the time at which it was drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.wire.feed import Feed
from pellucid.wire.handshake import Hello
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.receiver import Arrival, Receiver
from pellucid.wire.run import Turn

__all__ = ["WHY", "Newest"]

WHY = "#why"
"""A plane that is no picture: UTF-8 text, ended by a zero, that says why the others are missing."""
SLOTS = 4
"""One on the screen, one on its way there, two for the session to fill: it never waits for a draw."""


class _Account:
    """What does not arrive here is no loss: the session's ledger has it."""

    def missing(self, first: int, count: int, state: str, where: str, stream: int = -1) -> None:
        """Leave frames to the session that it had no slot for."""

    def told(self, produced: int, complete: bool = True) -> None:
        """Leave the count to the session."""

    def ignore(self, why: str) -> None:
        """Leave a message alone that was none of ours."""

    def note(self, text: str) -> None:
        """Leave what is said to the user to the session."""


class Newest:
    """Drains a receiver and keeps the newest of each plane until it is drawn.

    Parameters
    ----------
    receiver
        Has accepted a sender. With ``turns = True`` streams may begin and change while it runs.
    hello
        What it accepted.
    on_turn
        Called within `look` with the places in `streams` and `planes` that are new or have changed, before the
        first frame of them is shown and after the last of what was there. An array that was shown stays readable
        as long as somebody has it.
    slots
        Frames of each stream that may be on their way. All of them wait in the line where a network is slow.

    Attributes
    ----------
    streams : tuple of Stream
        What is shown now; a stream that replaces another has its place, and its index is that place.
    planes : tuple of dict of str to Spec
        Of each stream.
    """

    def __init__(
        self,
        receiver: Receiver,
        hello: Hello,
        on_turn: Callable[[tuple[int, ...]], None] = lambda places: None,
        slots: int = SLOTS,
    ) -> None:
        self._receiver = receiver
        self._on_turn = on_turn
        self._slots = slots
        self.streams: tuple[Stream, ...] = ()
        self.planes: tuple[dict[str, Spec], ...] = ()
        self._memories: list[SlotMemory] = []
        self._views: list[list[dict[str, np.ndarray[Any, Any]]]] = []
        self._waiting: list[dict[str, Arrival]] = []
        self._retired: list[SlotMemory] = []
        for place, feed in enumerate(hello.feeds):
            self._put(place, feed)
        receiver.welcome(self._memories, _Account())
        for place in range(len(self._memories)):
            self._lend(place)

    def _put(self, place: int, feed: Feed) -> None:
        """Make memory for a feed, behind the last or in the place of another."""
        stream = replace(feed.stream, index=place, replaces=None)
        planes = {name: spec for name, spec in feed.planes.items() if name != WHY}
        memory = SlotMemory.create(SlotLayout(feed.planes, self._slots), shared=True)
        self._retired += self._memories[place : place + 1]  # its pixels may still be on their way to the screen
        self.streams = (*self.streams[:place], stream, *self.streams[place + 1 :])
        self.planes = (*self.planes[:place], planes, *self.planes[place + 1 :])
        self._memories[place : place + 1] = [memory]
        self._views[place : place + 1] = [[memory.views(i) for i in range(self._slots)]]
        self._waiting[place : place + 1] = [{}]

    def _lend(self, place: int) -> None:
        for index in range(self._slots):
            self._receiver.grant(place, index)

    def _turn(self, turn: Turn) -> None:
        for place in turn.positions:
            self._put(place, turn.hello.feeds[place])
        self._on_turn(turn.positions)
        self._receiver.extend([self._memories[place] for place in turn.positions], turn.positions)
        for place in turn.positions:
            self._lend(place)

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
        if self._receiver.turn is not None:
            self._turn(self._receiver.turn)

    def drawn(self, at_ns: int) -> None:
        """Give back what has been drawn, with the time."""
        for waiting in self._waiting:
            for arrival in _each(waiting.values()):
                self._receiver.grant(arrival.feed, arrival.index, arrival.info.seq, at_ns)
            waiting.clear()
        for memory in self._retired:
            memory.close()
        self._retired.clear()

    def close(self) -> None:
        """Give the memory back."""
        self._views.clear()
        for memory in (*self._memories, *self._retired):
            memory.close()
        self._receiver.close()


def _pictures(arrival: Arrival) -> list[str]:
    return [name for name in arrival.ready if name != WHY] or [WHY]


def _among(arrival: Arrival, some: Iterable[Arrival]) -> bool:
    return any(arrival is one for one in some)


def _each(some: Iterable[Arrival]) -> list[Arrival]:
    """Return each once: a frame waits for all its planes."""
    return list({id(one): one for one in some}.values())
