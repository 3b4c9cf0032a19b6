"""Asks something of the session that this window belongs to, without keeping the picture waiting."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from PySide6.QtCore import QObject, Signal

from pellucid.errors import PellucidError
from pellucid.viewer.ways import Opens
from pellucid.wire.control_client import ControlClient
from pellucid.wire.control_message import one_line

__all__ = ["Asking"]


class Asking(QObject):
    """One session, asked in a thread of its own each time.

    Parameters
    ----------
    session
        Its process's number, or whatever else ``pellucid record --session`` takes; or what opens a connection to it.

    Attributes
    ----------
    answered : Signal of (str, bool, str)
        The command, whether it was done, and the session's line, or why it was not; comes in the thread of Qt's loop.
    told : Signal of (str, object)
        The command, and all that the session answered, where it was done; just before `answered`.
    """

    answered = Signal(str, bool, str)
    told = Signal(str, object)

    def __init__(self, session: str | Opens) -> None:
        super().__init__()
        self.turn_to(session)

    def turn_to(self, session: str | Opens) -> None:
        """Ask another session from now on."""
        self._opens: Opens = partial(ControlClient.find, session) if isinstance(session, str) else session

    def ask(self, command: str, given: Mapping[str, Any] | None = None) -> None:
        """Ask; the answer comes as a signal, at the latest after some seconds."""
        threading.Thread(target=self._ask, args=(command, given), name="pellucid asking", daemon=True).start()

    def _ask(self, command: str, given: Mapping[str, Any] | None) -> None:
        done, text = False, ""
        try:
            with self._opens() as client:
                answer = client.ask(command, given)
                text = one_line(answer.get("text", "done"))
                done = True
                self.told.emit(command, answer)
        except PellucidError as error:
            text = str(error)
        except Exception as error:  # a window that is asked to record must say that it did not
            text = f"{command}: {type(error).__name__}: {one_line(error)}"
        self.answered.emit(command, done, text)
