"""Between the thread that talks to Micro-Manager and the session's thread: slots one way, frames the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from pellucid.metrics import now_ns
from pellucid.protocols import Account, Slot, Stream

__all__ = ["Desk", "Ending"]

DRAIN_S = 5.0
"""After the run was told to stop, for what waits over there; a session has 10 s of patience."""
SILENT_S = 0.5
"""A Micro-Manager that is silent for so long when the run was told to stop is not waited for."""

Item = Slot | Callable[[], None]


class Ending:
    """Whether the run goes on.

    Attributes
    ----------
    asked : threading.Event
        The run was told to stop.
    closed : bool
        Nobody takes frames any more.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.closed = False
        self._asked_ns = 0

    def ask(self) -> None:
        """Tell the run to stop."""
        self._asked_ns = self._asked_ns or now_ns()
        self.asked.set()

    def close(self) -> None:
        """Tell it to stop at once."""
        self.closed = True
        self.ask()

    @property
    def over(self) -> bool:
        """Whether also the time to take what waited is over."""
        return self.closed or (self.asked.is_set() and now_ns() - self._asked_ns > DRAIN_S * 1e9)

    def gives_up(self, waited_s: float) -> bool:
        """Whether to wait no longer for Micro-Manager, which has been silent for so long."""
        return self.closed or (self.asked.is_set() and waited_s > SILENT_S)


class Desk:
    """Hands over filled slots and what is to be told, in their order.

    The account, and the list of fresh streams, belong to the session's thread. So what the other one has to tell is
    put on the desk as a call, and done when the session's thread comes to it.

    Parameters
    ----------
    fresh
        The source's list of streams that begin.
    streams
        Of the source's ``open``.

    ending

    Attributes
    ----------
    seq : int
        Number of the next frame; the talking thread's.
    ended : bool
        Nothing more will be put here.
    """

    def __init__(self, fresh: list[Stream], streams: tuple[Stream, ...], account: Account, ending: Ending) -> None:
        self.ending = ending
        self.seq = 0
        self.ended = False
        self._fresh = fresh
        self._account = account
        self._items: deque[Item] = deque()
        self._some = threading.Condition()
        self._room = threading.Event()
        self._slots: dict[int, deque[Slot]] = {stream.index: deque() for stream in streams}

    # ---------------------------------------------------------------- the session's thread

    def offer(self, slot: Slot) -> None:
        """Take a free slot; one of a stream that was replaced belongs to nobody here."""
        found = self._slots.get(slot.stream.index)
        if found is not None:
            found.append(slot)
            self._room.set()

    def take(self, timeout_s: float) -> Slot | None:
        """Hot: return the next filled slot; on the way to it tell what is to be told."""
        if not self._items:
            with self._some:
                if not self._items and not self.ended:
                    self._some.wait(timeout_s)
        while self._items:
            item = self._items.popleft()
            if isinstance(item, Slot):
                return item
            item()
            if self._fresh:
                return None  # its slots come first
        return None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take, and will be nothing."""
        return self.ended and not self._items

    # ---------------------------------------------------------------- the talking thread

    def slot(self, stream: int) -> Slot | None:
        """Hot: return a free slot of a stream, if there is one."""
        found = self._slots[stream]
        return found.popleft() if found else None

    def any_room(self) -> bool:
        """Whether any stream has a free slot."""
        return any(self._slots.values())

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait until a slot is offered."""
        self._room.clear()
        self._room.wait(timeout_s)

    def put(self, item: Item) -> None:
        """Hand over a filled slot, or a call."""
        with self._some:
            self._items.append(item)
            self._some.notify()

    def missing(self, count: int, state: str, where: str, stream: int) -> None:
        """Tell of frames that will not come, and number them."""
        self.put(partial(self._account.missing, self.seq, count, state, where, stream))
        self.seq += count

    def begin(self, stream: Stream) -> None:
        """Tell of a stream that begins, and let go of the slots of the one that it replaces."""
        self._slots[stream.index] = deque()

        def tell() -> None:
            if stream.replaces is not None:
                self._slots.pop(stream.replaces, None)
            self._fresh.append(stream)

        self.put(tell)

    def ignore(self, text: str) -> None:
        """Say what was put up with; the same text is counted."""
        self.put(partial(self._account.ignore, text))

    def note(self, text: str) -> None:
        """Say something in the run's report and in the terminal."""
        self.put(partial(self._account.note, text))

    def end(self, complete: bool) -> None:
        """Tell the totals; nothing comes afterwards."""
        self.put(partial(self._account.told, self.seq, complete))
        with self._some:
            self.ended = True
            self._some.notify()
