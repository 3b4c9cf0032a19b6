"""The window's process: ``python -m pellucid.viewer '{"title": ...}'``.

It prints one line, the endpoint at which it takes frames, and lives until the run ends, the session dies,
or somebody closes it.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
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
from pellucid.viewer.window import Look, ViewerWindow
from pellucid.wire.receiver import Receiver

LOOK_MS = 4
"""Between two looks at the wire, where its socket does not wake the window: a quarter of a frame at 60 Hz."""
WAIT_S = 30.0
STAY_MS = 3000
"""A session that has died leaves its last picture for so long, with the reason over it."""


def main() -> int:
    """Open the window and run it."""
    told = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the session's, which ends this window in its turn
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    few_threads()
    app = QApplication(sys.argv[:1])
    try:
        most = texture_limit()
    except PellucidError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    receiver = Receiver("tcp://127.0.0.1:*", planes=tuple(told["planes"]), turns=True)
    print(receiver.endpoint, flush=True)
    hello = receiver.accept(WAIT_S)
    if hello is None:
        receiver.close()
        return 1
    newest = Newest(receiver, hello, lambda places: window.put(places, newest.streams, newest.planes))
    polite = False

    def drawn(at_ns: int) -> None:
        nonlocal polite
        newest.drawn(at_ns)
        if not polite:
            polite = True
            yield_to_the_camera()

    look = Look(
        told["title"],
        tuple(told["size"]) if told["size"] else None,
        told["contrast"],
        told["arrangement"],
        told["overlay"],
        told["stack"],
        told["chain"],
        told["colormap"],
        told["gamma"],
        most,
    )
    window = ViewerWindow(newest.streams, newest.planes, look, drawn, app.quit, Asking(str(told["session"])))
    window.setAttribute(Qt.WidgetAttribute.WA_QuitOnClose, True)
    if told["screenshot"]:
        window.screenshot = Path(told["screenshot"])

    # Python hears signals between two of its lines, which may be in the middle of painting: a window must not go there.
    signal.signal(signal.SIGTERM, lambda *_: QTimer.singleShot(0, window.close))
    over = ""
    leave = QTimer()
    leave.setSingleShot(True)
    leave.timeout.connect(window.close)

    def show(position: int, planes: dict[str, np.ndarray[Any, Any]], info: FrameInfo) -> None:
        window.show_frame(position, planes, info, read_note(info.where))

    def tick() -> None:
        nonlocal over
        try:
            newest.look(show)
        except WireError as error:  # no memory for streams that begin now; the session tells the reason
            timer.stop()
            wakes.setEnabled(False)
            print(error, file=sys.stderr, flush=True)
            app.exit(1)
            return
        if newest.over != over:
            over = newest.over
            if receiver.state == "ended":
                leave.start(0)
                return
            window.end(over)
            if receiver.sender_is_dead:
                leave.start(STAY_MS)  # one that only stands still for a while may come back

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(tick)
    timer.start(LOOK_MS)
    wakes = QSocketNotifier(receiver.wakes, QSocketNotifier.Type.Read)
    wakes.activated.connect(tick)
    window.show()
    code = app.exec()
    timer.stop()
    wakes.setEnabled(False)
    newest.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
