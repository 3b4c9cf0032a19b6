"""Sinks that come and go while a session runs: windows of other processes.

They are given what is newest and nothing is kept for them, so that a session with one is the session without. While
there is none they cost nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pellucid.errors import RunError, SinkError
from pellucid.protocols import Sink, Slot
from pellucid.runtime.fanout import Branch

if TYPE_CHECKING:
    from pellucid.runtime.lane import Lane

__all__ = ["MOST", "Onlooker", "Onlookers"]

MOST = 4
"""At a time: each has memory for frames of its own."""


class Onlooker(Sink, Protocol):
    """A sink of the newest frame that says by itself when it has gone."""

    gone: str
    """Why nobody looks any more; empty while somebody does."""


@dataclass(slots=True)
class _Place:
    sink: Onlooker
    branch: Branch


class Onlookers:
    """Those of one session. Methods may be called from any thread but the loop's.

    Parameters
    ----------
    release
        Gives a slot back.
    note
        Takes a line for the user.
    """

    def __init__(self, release: Callable[[Slot], None], note: Callable[[str], None]) -> None:
        self._release, self._note = release, note
        self._lock = threading.Lock()
        self._there: dict[str, _Place] = {}
        self._over = False
        self._coming = self._number = 0

    @property
    def names(self) -> list[str]:
        """Of those that are there."""
        return list(self._there)

    def join(self, sink: Onlooker, lanes: Callable[[], list[Lane]], run: Mapping[str, Any]) -> str:
        """Open a sink and show it all frames from now on; return its name.

        Parameters
        ----------
        sink
        lanes
            Returns those that go on.
        run
            See `pellucid.protocols.Sink.open`.

        Raises
        ------
        SinkError
            Where there are too many, or it cannot open.
        RunError
            Where the run is over.
        """
        with self._lock:
            if self._over:
                raise RunError("the run is over")
            if len(self._there) + self._coming >= MOST:
                raise SinkError(f"{MOST} windows look at this session already: {', '.join(self._there)}. Close one")
            self._coming += 1
            self._number += 1
            name = f"view {self._number}"
        there = lanes()
        try:
            # Without the lock: a window that does not answer must not keep a run from its end.
            sink.open([lane.stream for lane in there], [lane.planes for lane in there], run)
        except BaseException:
            with self._lock:
                self._coming -= 1
            raise

        def failed(_name: str, error: BaseException) -> None:
            sink.gone = f"it failed: {type(error).__name__}: {error}"
            self._note(f"{name}: {sink.gone}; the run goes on")

        with self._lock:
            self._coming -= 1
            over = self._over
            if not over:
                branch = Branch(name, sink.write, self._release, policy="latest", on_error=failed, counts=Counter())
                self._there[name] = _Place(sink, branch)
                for lane in there:
                    lane.show(branch)
        if over:
            sink.close(None)
            raise RunError("the run is over")
        if lanes() != there:
            sink.gone = "other streams have begun"  # whoever looks comes again, and sees them
        return name

    def streams_changed(self) -> None:
        """Note that other streams have begun: those who look come again, and see them. From the loop's thread."""
        for place in list(self._there.values()):
            place.sink.gone = place.sink.gone or "other streams have begun"

    def tidy(self, lanes: list[Lane]) -> None:
        """Let those go that nobody looks at any more."""
        for name, place in list(self._there.items()):
            if place.sink.gone:
                with self._lock:
                    self._there.pop(name, None)
                self._leave(place, lanes, None)

    def end(self, lanes: list[Lane], report: Mapping[str, Any] | None) -> None:
        """Let all go, and take none any more; safe more than once."""
        with self._lock:
            self._over = True
            places = list(self._there.values())
            self._there.clear()
        for place in places:
            self._leave(place, lanes, report)

    def _leave(self, place: _Place, lanes: list[Lane], report: Mapping[str, Any] | None) -> None:
        with self._lock:  # nobody else changes where a lane's frames go
            for lane in lanes:
                lane.hide(place.branch)
        place.branch.drain(1.0)
        place.sink.close(report)
