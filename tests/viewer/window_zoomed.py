"""Run in a process of its own: wheel, drag and double click in every arrangement. Prints JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent, QWheelEvent
from PySide6.QtWidgets import QApplication

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.viewer.arrangement import ARRANGEMENTS
from pellucid.viewer.window import Look, ViewerWindow

app = QApplication(sys.argv)
drawn: list[int] = []
raw, restored = Spec((96, 128), "uint16"), Spec((192, 256), "float32")  # the same field, sampled twice as finely
streams = [Stream(raw, "cam", name, index) for index, name in enumerate(("DAPI", "FITC"))]
window = ViewerWindow(streams, [{"raw": raw, "restored": restored}] * 2, Look(size=(1000, 600)), drawn.append)
window.show()
canvas, panes = window.panes.canvas.native, window.panes
LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
PLAIN = Qt.KeyboardModifier.NoModifier


def settle() -> None:
    for _ in range(20):
        app.processEvents()


def wheel(x: float, y: float) -> None:
    at = QPointF(x, y)
    where = QPointF(canvas.mapToGlobal(at.toPoint()))
    app.sendEvent(
        canvas, QWheelEvent(at, where, QPoint(), QPoint(0, 240), NONE, PLAIN, Qt.ScrollPhase.NoScrollPhase, False)
    )
    settle()


def mouse(kind: QEvent.Type, x: float, y: float, held: bool) -> None:
    at = QPointF(x, y)
    button = NONE if kind == QEvent.Type.MouseMove else LEFT
    where = QPointF(canvas.mapToGlobal(at.toPoint()))
    app.sendEvent(canvas, QMouseEvent(kind, at, where, button, LEFT if held else NONE, PLAIN))
    settle()


def rects() -> list[tuple[float, ...]]:
    return [(*map(float, pane.camera.rect.pos), *map(float, pane.camera.rect.size)) for pane in panes.panes]


def under(x: float, y: float) -> list[float]:
    hit = panes.at(x, y)
    return [round(hit[1], 3), round(hit[2], 3)] if hit else []


settle()
for position in (0, 1):
    pixels = {"raw": np.full(raw.shape, 9, "uint16"), "restored": np.full(restored.shape, 9, "float32")}
    window.show_frame(position, pixels, FrameInfo(position, position, camera_ns=now_ns()))
    settle()
found: dict[str, object] = {}
for overlay in (False, True):
    for name in ARRANGEMENTS:
        window.set_overlay(overlay)
        window.set_arrangement(name)
        panes.fit()
        settle()
        seen = next(pane for pane in reversed(panes.panes) if pane.seen is not None)  # of the other stream, or plane
        left, top, width, height = seen.seen
        x, y = left + 0.45 * width, top + 0.4 * height
        before, whole = under(x, y), rects()
        wheel(x, y)
        zoomed, after = under(x, y), rects()
        mouse(QEvent.Type.MouseButtonPress, x, y, True)
        for step in (5, 10, 20):
            mouse(QEvent.Type.MouseMove, x + step, y + step, True)
        mouse(QEvent.Type.MouseButtonRelease, x + 20, y + 20, False)
        dragged, moved = under(x + 20, y + 20), rects()
        mouse(QEvent.Type.MouseButtonDblClick, x, y, True)
        alone = sorted({pane.position for cell in panes.cells for pane in cell.panes})
        x, y = (panes.cells[0].place[i] + 0.3 * panes.cells[0].place[i + 2] for i in (0, 1))
        mouse(QEvent.Type.MouseButtonDblClick, x, y, True)
        again = sorted({pane.position for cell in panes.cells for pane in cell.panes})
        found[f"{name}{' overlay' if overlay else ''}"] = {
            "cursor": [before, zoomed], "dragged": dragged, "closer": after[0][2] / whole[0][2],
            "linked": len(set(after)) == len(set(moved)) == 1, "alone": alone, "again": again,
            "moved": moved[0][:2] != after[0][:2],
        }  # fmt: skip
window.close()
print(json.dumps(found), flush=True)
