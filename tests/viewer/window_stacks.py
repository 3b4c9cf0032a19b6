"""Run in a process of its own: z-stacks by slice, as their maximum and as a volume. Prints what is seen as JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QApplication

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.viewer.window import Look, ViewerWindow

app = QApplication(sys.argv)
raw, restored = Spec((6, 96, 128), "uint16"), Spec((6, 96, 128), "float32")
drawn: list[int] = []
look = Look(title="t", size=(900, 500), contrast={"raw": [0, 100], "restored": [0, 100]}, arrangement="side")
window = ViewerWindow([Stream(raw, pixel_um=0.5, z_um=1.0)], [{"raw": raw, "restored": restored}], look, drawn.append)
window.show()


def settle() -> None:
    for _ in range(20):
        app.processEvents()


def show(seq: int, shift: int = 0) -> None:
    """Every slice has a level of its own: 10, 20 ... 60 of 100; restored is lighter by 20."""
    levels = np.arange(10, 70, 10).reshape(6, 1, 1) + shift
    planes = {
        "raw": np.broadcast_to(levels, raw.shape).astype("uint16"),
        "restored": np.broadcast_to(levels + 20, restored.shape).astype("float32"),
    }
    before, end = len(drawn), now_ns() + 20 * 10**9
    window.show_frame(0, planes, FrameInfo(seq, camera_ns=now_ns()))
    for plane in planes.values():
        plane[...] = 0  # the slot is the session's again; what the window shows is its own
    while len(drawn) == before and now_ns() < end:
        app.processEvents()


def press(text: str) -> None:
    app.sendEvent(window, QKeyEvent(QEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, text))
    settle()


def seen() -> list[int]:
    canvas = window.panes.canvas.native
    image = canvas.grab().toImage()
    return [image.pixelColor(int(x * image.width()), image.height() // 2).red() for x in (0.25, 0.75)]


def taken() -> list[str]:
    window._write_over()
    return [caption.taken for caption in window.overlay.captions]


found: dict[str, object] = {}
settle()
found["slider_hidden"] = window.slices.isHidden()
show(0)
found["max"] = [seen(), taken(), window.tools.button("stack").text()]
press("z")
found["slice"] = [seen(), taken(), window.slices.isVisible()]
press(".")
found["up"] = [seen(), taken()]
for _ in range(9):
    press(",")
found["bottom"] = [seen(), taken()]
window.slices.slider.setValue(4)
settle()
found["slider"] = [seen(), taken()]
show(1, shift=5)
found["next_stack"] = [seen(), taken()]
window._cursor = (225.0, 215.0)
show(2)
found["values"] = [list(shown.values) for shown in window.shown]
press("z")
found["volume"] = [seen(), taken(), window.slices.isHidden()]
show(3, shift=20)
found["volume_next"] = seen()


def turns() -> list[list[float]]:
    return [[pane.view.camera.azimuth, pane.view.camera.elevation] for pane in window.panes.panes]


found["from_above"] = turns()
canvas = window.panes.canvas.native
for kind, x, held in (
    (QEvent.Type.MouseButtonPress, 200, True), (QEvent.Type.MouseMove, 230, True), (QEvent.Type.MouseMove, 260, True),
    (QEvent.Type.MouseButtonRelease, 260, False),
):  # fmt: skip
    at = QPointF(x, 200)
    app.sendEvent(canvas, QMouseEvent(
        kind, at, QPointF(canvas.mapToGlobal(at.toPoint())),
        Qt.MouseButton.NoButton if kind == QEvent.Type.MouseMove else Qt.MouseButton.LeftButton,
        Qt.MouseButton.LeftButton if held else Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
    ))  # fmt: skip
    settle()
found["turned"] = turns()
found["no_pixel_under"] = window.panes.at(200, 200) is None
press("v")
found["volume_split"] = window.panes.arrangement
settle()
image = canvas.grab().toImage()
found["volume_halves"] = [image.pixelColor(round(x * image.width()), image.height() // 2).red() for x in (0.45, 0.55)]
window.set_arrangement("side")
press("z")
found["max_again"] = [seen(), taken()]
show(4)
found["max_next"] = seen()
other = Stream(Spec((96, 128), "uint16"), index=0)
window.put([0], [other], [{"raw": other.spec}])
press("z")
found["no_stack"] = [window.overlay.word, window.tools.button("stack").isVisible()]
window.close()
print(json.dumps(found), flush=True)
