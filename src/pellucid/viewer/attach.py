"""A window on a session that runs in another process, and on the one that comes after it: ``pellucid view``.

The session is found by its file, asked what there is to see, and told where this window listens. When it ends the
window stays, with its last picture, and looks for a session of the same config; zoom, contrast and all else are as they
were.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QSocketNotifier, Qt, QTimer
from PySide6.QtWidgets import QApplication

from pellucid.errors import PellucidError, WireError
from pellucid.protocols import FrameInfo
from pellucid.viewer.asking import Asking
from pellucid.viewer.graphics import texture_limit
from pellucid.viewer.newest import WHY, Newest
from pellucid.viewer.note import read_note
from pellucid.viewer.polite import few_threads, yield_to_the_camera
from pellucid.viewer.window import Look, ViewerWindow
from pellucid.wire.control_client import ControlClient
from pellucid.wire.control_file import Running, running_sessions
from pellucid.wire.handshake import Hello
from pellucid.wire.receiver import Receiver

__all__ = ["view"]

LOOK_MS, SEEK_MS = 4, 500
ACCEPT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Found:
    """A session whose frames come to a receiver."""

    session: Running
    about: Mapping[str, Any]
    receiver: Receiver
    hello: Hello


def view(which: str | None, look: Look, *, wait: bool, max_fps: float = 60.0) -> int:
    """Open a window on a session, and run it until somebody closes it; return the exit status.

    Parameters
    ----------
    which
        Number of the session's process, or name of its config; None: the only one that runs.
    look
        How the window should look.
    wait
        For a session to begin, where none runs.
    max_fps
        Frames in between are left out.

    Raises
    ------
    PellucidError
        Where there is no such session and `wait` is not given, or no OpenGL.
    """
    few_threads()
    app = QApplication(sys.argv[:1])
    most = texture_limit()
    first = None if wait else attach(ControlClient.find(which).session, look, max_fps)
    viewing = _Viewing(app, which, look, most, max_fps)
    # Python hears signals between two of its lines, which may be in the middle of painting: a window must not go there.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: QTimer.singleShot(0, viewing.leave))
    if first is not None:
        viewing.take(first)
    return int(app.exec())


def attach(session: Running, look: Look, max_fps: float) -> _Found:
    """Have a session send its frames here.

    Raises
    ------
    PellucidError
        What the session answers instead.
    """
    if "view.attach" not in session.commands:
        raise WireError(f"the session {session.name} is of a version that shows nothing to others")
    with ControlClient(session) as client:
        about = client.ask("view.about")
    receiver = Receiver("tcp://127.0.0.1:*", planes=(*map(str, about["planes"]), WHY), turns=True)
    given = {"endpoint": receiver.endpoint, "max_fps": max_fps, "stack": look.stack}
    answer: queue.Queue[str] = queue.Queue()

    def ask() -> None:
        try:
            with ControlClient(session) as client:
                client.ask("view.attach", given, timeout_s=2 * ACCEPT_S)
        except PellucidError as error:
            answer.put(str(error))

    # It answers once this side has given it slots, so somebody else has to wait for that.
    asking = threading.Thread(target=ask, name="pellucid view", daemon=True)
    asking.start()
    hello = None
    for _ in range(round(ACCEPT_S / 0.1)):
        hello = receiver.accept(0.1)
        if hello is not None or not answer.empty():
            break
    if hello is None:
        receiver.close()
        raise WireError(answer.get_nowait() if not answer.empty() else f"{session.name} did not come to the window")
    return _Found(session, about, receiver, hello)


class _Viewing:
    """The window, and the session that it shows now.

    Parameters
    ----------
    app
    which, look, max_fps
        See `view`.
    most
        Pixels of a texture.
    """

    def __init__(self, app: QApplication, which: str | None, look: Look, most: int, max_fps: float) -> None:
        self._app, self._which, self._look, self._most, self._max_fps = app, which, look, most, max_fps
        self._window: ViewerWindow | None = None
        self._newest: Newest | None = None
        self._receiver: Receiver | None = None
        self._wakes: QSocketNotifier | None = None
        self._asking = Asking("")
        self._config = ""
        self._polite = False
        self._came: queue.Queue[_Found | str] = queue.Queue()
        self._seeking: threading.Thread | None = None
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(LOOK_MS)
        self._seek = QTimer()
        self._seek.timeout.connect(self._look_for)
        self._seek.start(SEEK_MS)

    def leave(self) -> None:
        """Close the window, and let the session know."""
        if self._window is not None:
            self._window.close()
        self._app.quit()

    def take(self, found: _Found) -> None:
        """Show the frames of a session from now on, in the place of those of another."""
        newest = Newest(found.receiver, found.hello, self._put)
        self._receiver, self._newest = found.receiver, newest
        self._config = str(found.about.get("config", ""))
        self._asking.turn_to(str(found.session.pid))
        if self._window is None:
            look = replace(self._look, chain=str(found.about.get("chain", "")), most=self._most)
            self._window = ViewerWindow(newest.streams, newest.planes, look, self._drawn, self._closed, self._asking)
            self._window.setAttribute(Qt.WidgetAttribute.WA_QuitOnClose, True)
            self._window.show()
        else:
            self._window.begin_again(newest.streams, newest.planes, str(found.about.get("chain", "")))
        # Qt's, not Python's: it may be in the middle of telling of something when it is let go.
        self._wakes = QSocketNotifier(found.receiver.wakes, QSocketNotifier.Type.Read, self._timer)
        self._wakes.activated.connect(self._tick)

    def _put(self, places: tuple[int, ...]) -> None:
        if self._window is not None and self._newest is not None:
            self._window.put(places, self._newest.streams, self._newest.planes)

    def _drawn(self, at_ns: int) -> None:
        if self._newest is not None:
            self._newest.drawn(at_ns)
        if not self._polite:
            self._polite = True
            yield_to_the_camera()

    def _closed(self) -> None:
        self._let_go()
        self._timer.stop()
        self._seek.stop()

    def _tick(self) -> None:
        if not self._came.empty():
            came = self._came.get()
            if isinstance(came, _Found):
                self.take(came)
            elif self._window is not None:
                self._window.end(came)
        if self._newest is None:
            return
        try:
            self._newest.look(self._show)
        except WireError as error:  # no memory for streams that begin now
            self._let_go()
            if self._window is not None:
                self._window.end(str(error))
            return
        if self._newest.over and self._receiver is not None:
            why = self._newest.over
            if self._receiver.state == "ended" or self._receiver.sender_is_dead:
                self._let_go()
                why = f"{why}: waiting for it to come again"
            if self._window is not None:
                self._window.end(why)

    def _show(self, position: int, planes: dict[str, np.ndarray[Any, Any]], info: FrameInfo) -> None:
        assert self._window is not None
        self._window.show_frame(position, planes, info, read_note(info.where))

    def _let_go(self) -> None:
        """Give back what belonged to a session; the last picture stays on the screen."""
        if self._wakes is not None:
            self._wakes.setEnabled(False)
            self._wakes.deleteLater()
            self._wakes = None
        newest, self._newest, self._receiver = self._newest, None, None
        if newest is not None:
            newest.close()

    def _look_for(self) -> None:
        """Look for a session, where there is none now; twice a second, and without keeping the window waiting."""
        if self._newest is None and (self._seeking is None or not self._seeking.is_alive()) and self._came.empty():
            self._seeking = threading.Thread(target=self._find, name="pellucid view", daemon=True)
            self._seeking.start()

    def _find(self) -> None:
        try:
            there = [session for session in running_sessions() if self._is_wanted(session)]
            if there:
                self._came.put(attach(there[-1], self._look, self._max_fps))
        except PellucidError as error:
            self._came.put(str(error))

    def _is_wanted(self, session: Running) -> bool:
        if "view.attach" not in session.commands:
            return False
        if self._config:
            return session.config == self._config or _same_file(session.config, self._config)
        return self._which is None or session.answers_to(self._which)


def _same_file(one: str, other: str) -> bool:
    try:
        return bool(one and other) and Path(one).resolve() == Path(other).resolve()
    except OSError:
        return False
