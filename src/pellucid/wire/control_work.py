"""Commands of a session, one after another, each answered in time whether or not it is done.

A command that has begun cannot be broken off: when its time is over it is said that it still goes on. One that still
waits then is told that it was not begun, and is not begun later: nobody would expect it any more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.errors import PellucidError, WireError
from pellucid.metrics import now_ns

__all__ = ["Asked", "Command", "Work"]

Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes a table and returns one, both of JSON types; raises a `PellucidError` for what the user can mend."""

_WAITING = 16


@dataclass(slots=True, eq=False)
class Asked:
    """A request that passed the checks.

    Attributes
    ----------
    route
        Of who asked.
    command, given
        What is to be done, and with what.
    since_ns, until_ns
        When it came, and when it is answered in any case.
    """

    route: bytes
    command: str
    given: Mapping[str, Any]
    since_ns: int
    until_ns: int
    answer: dict[str, Any] | None = None
    answered: bool = False


class Work:
    """The command that runs, in a thread of its own, and those behind it.

    Parameters
    ----------
    commands
    wake
        Called from the command's thread when it is done.
    """

    def __init__(self, commands: Mapping[str, Command], wake: Callable[[], None]) -> None:
        self._commands = commands
        self._wake = wake
        self._waiting: deque[Asked] = deque()
        self._running: Asked | None = None

    def add(self, asked: Asked) -> None:
        """Let a request wait for its turn.

        Raises
        ------
        WireError
            Where too many wait.
        """
        if len(self._waiting) >= _WAITING:
            raise WireError(f"{asked.command} was not begun: {_WAITING} others wait already")
        self._waiting.append(asked)

    @property
    def owes(self) -> bool:
        """Somebody still waits for an answer."""
        return bool(self._waiting) or (self._running is not None and not self._running.answered)

    @property
    def due_ns(self) -> int | None:
        """When the next answer is due, whatever becomes of the command; None where nobody waits."""
        due = [asked.until_ns for asked in self._waiting]
        if self._running is not None and not self._running.answered:
            due.append(self._running.until_ns)
        return min(due, default=None)

    def go_on(self, ending: str) -> Iterator[tuple[Asked, dict[str, Any]]]:
        """Give the answers that can or have to be given now, and begin the next command.

        Parameters
        ----------
        ending
            Why nothing is begun any more; empty while the session goes on.
        """
        now, running = now_ns(), self._running
        if running is not None:
            done = running.answer
            if not running.answered and (done is not None or now >= running.until_ns):
                running.answered = True
                seconds = (now - running.since_ns) * 1e-9
                yield running, done or {"error": f"{running.command} is not done after {seconds:.1f} s; it goes on"}
            if done is not None:
                running = self._running = None
        behind = f"{running.command} has not come to its end" if running is not None else "it came too late"
        for asked in list(self._waiting):
            if ending or now >= asked.until_ns:
                self._waiting.remove(asked)
                yield asked, {"error": f"{asked.command} was not begun: {ending or behind}"}
        if running is None and self._waiting:
            asked = self._waiting.popleft()
            thread = threading.Thread(target=self._do, args=(asked,), name=f"pellucid {asked.command}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                yield asked, {"error": f"{asked.command} was not begun: {error}"}
            else:
                self._running = asked

    def _do(self, asked: Asked) -> None:
        try:
            result = self._commands[asked.command](asked.given)
            if isinstance(result, Mapping):
                asked.answer = {**result, "ok": True}
            else:
                asked.answer = {"error": f"{asked.command} was done, but returned no table"}
        except PellucidError as error:
            asked.answer = {"error": str(error)}
        except BaseException as error:  # a plugin's may raise anything, and the next command is to run all the same
            logging.getLogger("pellucid").debug("%s failed", asked.command, exc_info=True)
            asked.answer = {"error": f"{asked.command} failed: {type(error).__name__}: {error}"}
        self._wake()
