"""Run in a process of its own: colour maps, gamma, histograms, odd pictures. Prints what is seen as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QApplication

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.viewer.window import Look, ViewerWindow

app = QApplication(sys.argv)
raw, restored = Spec((96, 128), "uint16"), Spec((96, 128), "float32")
drawn: list[int] = []


def settle() -> None:
    for _ in range(20):
        app.processEvents()


def make(**keys) -> ViewerWindow:
    given = {"title": "t", "size": (900, 620), "arrangement": "side"} | keys
    made = ViewerWindow([Stream(raw)], [{"raw": raw, "restored": restored}], Look(**given), drawn.append)
    made.show()
    settle()
    return made


def show(window: ViewerWindow, seq: int, one: np.ndarray, other: np.ndarray) -> None:
    before, end = len(drawn), now_ns() + 10 * 10**9
    window.show_frame(0, {"raw": one, "restored": other}, FrameInfo(seq, camera_ns=now_ns()))
    while len(drawn) == before and now_ns() < end:
        app.processEvents()


def press(window: ViewerWindow, text: str) -> None:
    app.sendEvent(window, QKeyEvent(QEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, text))
    settle()


def seen(window: ViewerWindow) -> list[list[int]]:
    """Return the colours in the middle of both panes."""
    image = window.panes.canvas.native.grab().toImage()
    colours = [image.pixelColor(int(x * image.width()), image.height() // 2) for x in (0.25, 0.75)]
    return [[c.red(), c.green(), c.blue()] for c in colours]


def flat(level: float) -> tuple[np.ndarray, np.ndarray]:
    return np.full(raw.shape, level, "uint16"), np.full(restored.shape, level, "float32")


def mouse(widget, *steps: tuple[QEvent.Type, float]) -> None:
    for kind, x in steps:
        at = QPointF(x, 60)
        moves = kind == QEvent.Type.MouseMove
        app.sendEvent(widget, QMouseEvent(
            kind, at, QPointF(widget.mapToGlobal(at.toPoint())),
            Qt.MouseButton.NoButton if moves else Qt.MouseButton.LeftButton,
            Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
        ))  # fmt: skip
        settle()


found: dict[str, object] = {}
both = {"raw": [0, 100], "restored": [0, 100]}
window = make(contrast=both, colormap={"restored": "viridis"}, gamma={"raw": 0.5})
show(window, 0, *flat(25))
found["config"] = seen(window)
found["caption"] = [caption.taken for caption in window.overlay.captions]
window.close()

window = make(contrast=both)
show(window, 0, *flat(50))
found["gray"] = seen(window)
for _ in range(5):
    press(window, "m")
found["green"] = [seen(window), [shown.tone.name for shown in window.shown]]
window._cursor = (window.panes.panes[1].place[0] + 100, 200.0)
press(window, "m")
found["of_one"] = [shown.tone.name for shown in window.shown]
window._cursor = None
for _ in range(4):
    press(window, "]")
found["gamma_up"] = [[shown.tone.gamma for shown in window.shown], seen(window)]
for _ in range(4):
    press(window, "[")
found["gamma_back"] = [[shown.tone.gamma for shown in window.shown], seen(window)]
for _ in range(60):
    press(window, "[")
found["gamma_least"] = [shown.tone.gamma for shown in window.shown]
window.close()

# ---- histograms
window = make(contrast="auto")
ramp = np.tile(np.linspace(0, 1000, 128), (96, 1))
show(window, 0, ramp.astype("uint16"), ramp.astype("float32"))
found["hidden"] = window.histograms.isHidden()
press(window, "g")
window.write_figures()
settle()
one, other = window.histograms.each
found["histograms"] = [one.isVisible(), other.isVisible(), one._name, other._name]
found["even"] = [int(one._counts.sum()), int((one._counts > 0).sum())]
low, high = window.shown[0].contrast.limits
found["auto_limits"] = [low, high]
start, wanted = one.x_of(high), one.x_of(500)
mouse(one, (QEvent.Type.MouseButtonPress, start), (QEvent.Type.MouseMove, (start + wanted) / 2),
      (QEvent.Type.MouseMove, wanted), (QEvent.Type.MouseButtonRelease, wanted))  # fmt: skip
found["dragged"] = [window.shown[0].contrast.limits[1], window.shown[0].contrast.auto, window.shown[1].contrast.auto]
show(window, 1, ramp.astype("uint16"), ramp.astype("float32"))
found["brighter"] = seen(window)
found["tool_auto"] = window.shown[0].caption().detail.rsplit(None, 1)[-1]
start = one.x_of(window.shown[0].contrast.limits[1])
mouse(one, (QEvent.Type.MouseButtonPress, start), (QEvent.Type.MouseMove, 0), (QEvent.Type.MouseButtonRelease, 0))
low, high = window.shown[0].contrast.limits
found["stops"] = low < high
mouse(one, (QEvent.Type.MouseButtonDblClick, 100.0))
found["released"] = [window.shown[0].contrast.auto, window.shown[0].contrast.limits[1]]
logarithmic = one.log
press(window, "l")
found["log"] = [logarithmic, one.log]

# ---- pictures that are none
show(window, 2, np.full(raw.shape, 7, "uint16"), np.full(restored.shape, np.nan, "float32"))
for shown in window.shown:
    shown._learnt_ns = 0
show(window, 3, np.full(raw.shape, 7, "uint16"), np.full(restored.shape, np.nan, "float32"))
window.write_figures()
settle()
found["constant"] = [int(one._counts.sum()) > 0, one._range[0] < 7 < one._range[1]]
found["nan"] = [int(other._counts.sum()), window.shown[1].contrast.limits is not None]
half = ramp.astype("float32")
half[:, 64:] = np.inf
half[:10] = np.nan
for shown in window.shown:
    shown._learnt_ns = 0
window._cursor = (window.panes.panes[1].place[0] + 225, 300.0)
show(window, 4, ramp.astype("uint16"), half)
window.write_figures()
settle()
found["some_nan"] = [int(other._counts.sum()) > 0, bool(np.isfinite(window.shown[1].contrast.limits).all())]
window.close()

# ---- larger than the graphics take
window = make(contrast=both, most=50)
wide = np.zeros(raw.shape, "uint16")
wide[:, 64:] = 100
show(window, 0, wide, wide.astype("float32"))
pane = window.panes.panes[0]
left, top, width, height = pane.place
image = window.panes.canvas.native.grab().toImage()
scale = image.width() / window.panes.canvas.size[0]
row = image.height() // 2
colours = [image.pixelColor(int((left + x * width) * scale), row).red() for x in (0.3, 0.48, 0.53, 0.7)]
found["thin"] = [pane.thin, colours, [caption.taken for caption in window.overlay.captions]]
window._cursor = (left + width * 0.7, top + height / 2)
show(window, 1, wide, wide.astype("float32"))
found["thin_values"] = [list(shown.values) for shown in window.shown]
window.close()

# ---- remembered
folder = Path(sys.argv[1])
os.environ["PELLUCID_SETTINGS"] = str(folder)
window = make()
press(window, "m")
press(window, "]")
window.close()
found["kept"] = json.loads((folder / "window.json").read_text())["tones"]
window = make()
found["recalled"] = [[shown.tone.name, shown.tone.gamma] for shown in window.shown]
window.close()
(folder / "window.json").write_text(json.dumps({"tones": {"raw": {"colormap": "no such map"}, "restored": 7}}))
window = make()
found["odd_memory"] = [shown.tone.name for shown in window.shown]
window.close()
print(json.dumps(found), flush=True)
