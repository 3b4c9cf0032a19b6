"""A window on a session that runs in another process, and on the one that comes after it: ``pellucid view``.

The session is found (`ways`), asked what there is to see, and told where this window listens. When it ends the window
stays, with its last picture, and looks for a session of the same config, or at the same address; zoom, contrast and all
else are as they were.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
from dataclasses import replace
from typing import Any

import numpy as np
from PySide6.QtCore import QSocketNotifier, Qt, QTimer
from PySide6.QtWidgets import QApplication

from pellucid.errors import PellucidError, WireError
from pellucid.protocols import FrameInfo
from pellucid.viewer.asking import Asking
from pellucid.viewer.graphics import texture_limit
from pellucid.viewer.newest import Newest
from pellucid.viewer.note import read_note
from pellucid.viewer.polite import few_threads, yield_to_the_camera
from pellucid.viewer.ways import Found, Way
from pellucid.viewer.window import Look, ViewerWindow
from pellucid.wire.receiver import Receiver

__all__ = ["view"]

LOOK_MS, SEEK_MS = 4, 500


def view(way: Way, look: Look, *, wait: bool, max_fps: float = 60.0) -> int:
    """Open a window on a session, and run it until somebody closes it; return the exit status.

    Parameters
    ----------
    way
        To the session.
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
    first = None if wait else way.first(look.stack, max_fps)
    viewing = _Viewing(app, way, look, most, max_fps)
    # Python hears signals between two of its lines, which may be in the middle of painting: a window must not go there.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: QTimer.singleShot(0, viewing.leave))
    if first is not None:
        viewing.take(first)
    return int(app.exec())


class _Viewing:
    """The window, and the session that it shows now.

    Parameters
    ----------
    app
    way, look, max_fps
        See `view`.
    most
        Pixels of a texture.
    """

    def __init__(self, app: QApplication, way: Way, look: Look, most: int, max_fps: float) -> None:
        self._app, self._way, self._look, self._most, self._max_fps = app, way, look, most, max_fps
        self._window: ViewerWindow | None = None
        self._newest: Newest | None = None
        self._receiver: Receiver | None = None
        self._wakes: QSocketNotifier | None = None
        self._asking = Asking("")
        self._config = ""
        self._polite = False
        self._controls = True
        self._told = ""
        self._came: queue.Queue[Found | str] = queue.Queue()
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

    def take(self, found: Found) -> None:
        """Show the frames of a session from now on, in the place of those of another."""
        newest = Newest(found.receiver, found.hello, self._put, found.slots)
        self._receiver, self._newest = found.receiver, newest
        self._controls = bool(found.about.get("control", True))
        self._config = str(found.about.get("config", ""))
        self._asking.turn_to(found.opens)
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
            if isinstance(came, Found):
                self.take(came)
            else:
                self._tell(came)
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
            if self._receiver.state == "ended" or self._receiver.sender_is_dead or self._way.dies_unseen:
                self._let_go()
                why = f"{why}: waiting for it to come again"
            if self._window is not None:
                self._window.end(why)

    def _tell(self, why: str) -> None:
        """Say why there is no session; in the terminal as long as there is no window, once."""
        if self._window is not None:
            self._window.end(why.partition(". ")[0])  # what to type against it has no room there
        elif why != self._told:
            print(f"pellucid: {why}", file=sys.stderr, flush=True)
        self._told = why

    def _show(self, position: int, planes: dict[str, np.ndarray[Any, Any]], info: FrameInfo) -> None:
        assert self._window is not None
        note = read_note(info.where)
        if note.recording is not None and not self._controls:
            note = replace(note, recording={**note.recording, "only_look": True})  # the button is grey
        self._window.show_frame(position, planes, info, note)

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
            found = self._way.again(self._config, self._look.stack, self._max_fps)
            if found is not None:
                self._came.put(found)
        except PellucidError as error:
            self._came.put(str(error))
