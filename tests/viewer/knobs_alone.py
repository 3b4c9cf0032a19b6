"""Run in a process of its own: a window whose drawer changes a real session. Prints what it found as JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QKeyEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QCheckBox, QSpinBox

import pellucid
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo
from pellucid.viewer.asking import Asking
from pellucid.viewer.window import Look, ViewerWindow

folder = Path(sys.argv[1])
os.chdir(folder)
app = QApplication(sys.argv[:1])
live = pellucid.open(folder / "run.toml", policy="latest")
found: dict[str, object] = {}
newest = {}
began = threading.Event()
over = threading.Event()


def consume() -> None:
    for frame in live:
        newest[0] = frame
        began.set()
        if over.is_set():
            live.stop()


with live:
    consumer = threading.Thread(target=consume)
    consumer.start()
    began.wait(60)
    stream = newest[0].stream
    planes = live.session.lanes[0].planes
    window = ViewerWindow(
        [stream],
        [planes],
        Look(title="t", size=(900, 620), contrast={"raw": [0, 500]}),
        asking=Asking(str(os.getpid())),
    )
    window.show()
    said: list[str] = []
    window._asking.answered.connect(lambda _command, _done, text: said.append(text))

    def until(condition) -> bool:
        end = now_ns() + 30 * 10**9
        while not condition() and now_ns() < end:
            frame = newest[0]
            window.show_frame(0, frame.planes, FrameInfo(frame.info.seq, camera_ns=now_ns()))
            QTest.qWait(20)
        return bool(condition())

    def press(key: Qt.Key, text: str, at=window) -> None:
        app.sendEvent(at, QKeyEvent(QEvent.Type.KeyPress, key, Qt.KeyboardModifier.NoModifier, text))

    changes = live.session.ledger.changes
    press(Qt.Key.Key_K, "k")
    found["fields"] = until(lambda: len(window.knobs.fields) > 5)
    fields = window.knobs.fields
    found["keys"] = list(fields)
    iterations = fields["stages.0.iterations"]
    found["iterations"] = [type(iterations).__name__, iterations.value(), iterations.minimum(), iterations.maximum()]
    found["special"] = iterations.specialValueText()
    found["tv"] = fields["stages.0.tv"].text()
    assert isinstance(iterations, QSpinBox)
    iterations.setFocus()
    iterations.selectAll()
    QTest.keyClicks(iterations, "5")
    found["while typed"] = len(changes)
    QTest.keyClick(iterations, Qt.Key.Key_Return)
    found["changed"] = until(lambda: len(changes) == 1)
    on = fields["stages.0.on"]
    assert isinstance(on, QCheckBox)
    on.setFocus()
    QTest.keyClick(on, Qt.Key.Key_Space)
    found["off"] = until(lambda: len(changes) == 2)
    live.set("stages.0.background=42.0")
    found["followed"] = until(lambda: fields["stages.0.background"].value() == 42.0)
    fields["stages.0.psf"].setFocus() if "stages.0.psf" in fields else None
    window.knobs.fields["stages.0.method"].activated.emit(0)
    until(lambda: len(changes) == 4)
    before = len(said)
    iterations.setValue(999)
    fields["stages.0.tv"].setValue(0.1)
    found["together"] = until(lambda: len(changes) >= 6)
    window.grab().save(str(folder / "knobs.png"))
    app.sendEvent(window.knobs, QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_R, Qt.KeyboardModifier.NoModifier, "r"))
    found["typed in it"] = any("record" in text for text in said)
    press(Qt.Key.Key_K, "k")
    found["closed"] = not window.knobs.isVisible()
    press(Qt.Key.Key_S, "s")
    found["snapped"] = until(lambda: any("files in" in text for text in said))
    found["changes"] = [(row["what"], row["from"], row["to"], row["by"]) for row in changes]
    found["files"] = sorted(path.name.partition("frame")[2][7:] for path in (folder / "snaps").iterdir())
    window.close()
    over.set()
    consumer.join()
print(json.dumps(found))
