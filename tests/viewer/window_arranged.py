"""Run in a process of its own: planes that share a place. Prints what is on the canvas as JSON."""

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
from pellucid.viewer.note import Note
from pellucid.viewer.window import Look, ViewerWindow

app = QApplication(sys.argv)
raw, restored = Spec((96, 128), "uint16"), Spec((192, 256), "float32")  # the same field, sampled twice as finely
drawn: list[int] = []
streams = [Stream(raw, "cam", "DAPI", 0, pixel_um=0.5), Stream(raw, "cam", "FITC", 1, pixel_um=0.5)]
planes = [{"raw": raw, "restored": restored}] * 2


def make(count: int, **keys) -> ViewerWindow:
    look = Look(title="t", contrast={"raw": [0, 100], "restored": [0, 100]}, **keys)
    made = ViewerWindow(streams[:count], planes[:count], look, on_drawn=drawn.append)
    made.show()
    settle()
    return made


def settle(ms: int = 0) -> None:
    end = now_ns() + ms * 10**6
    for _ in range(20):
        app.processEvents()
    while now_ns() < end:
        app.processEvents()


def show(window: ViewerWindow, position: int, seq: int, low: int, high: int, note: Note | None = None) -> None:
    """Raw is `low` everywhere and restored `high`."""
    pixels = {"raw": np.full(raw.shape, low, "uint16"), "restored": np.full(restored.shape, high, "float32")}
    before, end = len(drawn), now_ns() + 10 * 10**9
    window.show_frame(position, pixels, FrameInfo(seq, camera_ns=now_ns()), note)
    while len(drawn) == before and now_ns() < end:
        app.processEvents()


def press(window: ViewerWindow, text: str) -> None:
    key = QKeyEvent(QEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, text)
    app.sendEvent(window, key)
    settle()


def colour(window: ViewerWindow, x: float, y: float = 0.5) -> list[int]:
    """Return the colour at a place of the canvas, as shares of its width and height."""
    canvas = window.panes.canvas.native
    image = canvas.grab().toImage()
    seen = image.pixelColor(int(x * image.width()), int(y * image.height()))
    return [seen.red(), seen.green(), seen.blue()]


def mouse(window: ViewerWindow, kind: QEvent.Type, x: float, y: float, held: bool) -> None:
    canvas = window.panes.canvas.native
    at, left = QPointF(x, y), Qt.MouseButton.LeftButton
    button = Qt.MouseButton.NoButton if kind == QEvent.Type.MouseMove else left
    event = QMouseEvent(
        kind, at, QPointF(canvas.mapToGlobal(at.toPoint())), button,
        left if held else Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    app.sendEvent(canvas, event)
    settle()


def names(window: ViewerWindow) -> list[str]:
    window._write_over()
    return [caption.name for caption in window.overlay.captions]


found: dict[str, object] = {}
window = make(1, size=(900, 500))
show(window, 0, 0, 25, 75)
found["side"] = [colour(window, 0.25), colour(window, 0.75), names(window)]

press(window, "v")
canvas = window.panes.canvas.native
left, top, width, height = window.panes.cells[0].place
# The picture lies in the middle of a place that is wider: a tenth to the left and right of the line is in it.
found["split"] = [colour(window, 0.4, 0.3), colour(window, 0.6, 0.3), names(window), window.panes.arrangement]
found["split_whole"] = [[left, top, width, height], [canvas.width(), canvas.height()]]
found["split_bars"] = [caption.um is not None for caption in window.overlay.captions]
under_left, under_right = window.panes.at(0.4 * width, 100), window.panes.at(0.6 * width, 100)
found["split_under"] = [under_left[0].plane, under_right[0].plane]
found["split_where"] = [under_left[1], under_right[1]]
before = [float(v) for v in window.panes.panes[0].camera.rect.pos]
mouse(window, QEvent.Type.MouseButtonPress, width / 2 + 2, 100, True)
for x in (0.55, 0.6, 0.65):
    mouse(window, QEvent.Type.MouseMove, x * width, 100, True)
mouse(window, QEvent.Type.MouseButtonRelease, 0.65 * width, 100, False)
found["dragged"] = [window.panes.split, colour(window, 0.6, 0.3), colour(window, 0.68, 0.3), window.overlay.lines[0][0]]
found["not_moved"] = before == [float(v) for v in window.panes.panes[0].camera.rect.pos]
mouse(window, QEvent.Type.MouseButtonPress, 0.4 * width, 100, True)
mouse(window, QEvent.Type.MouseMove, 0.45 * width, 100, True)
mouse(window, QEvent.Type.MouseButtonRelease, 0.45 * width, 100, False)
found["moved"] = before != [float(v) for v in window.panes.panes[0].camera.rect.pos]
press(window, "f")
show(window, 0, 1, 50, 100)
found["split_next"] = [colour(window, 0.4, 0.3), colour(window, 0.68, 0.3)]

press(window, "v")
seen = set()
end = now_ns() + 10 * 10**9
while len(seen) < 2 and now_ns() < end:
    settle(100)
    seen.add((tuple(colour(window, 0.5, 0.3)), *names(window)))
found["blink"] = sorted([list(level), name] for level, name in seen)
blinked = len(drawn)
show(window, 0, 2, 25, 75)
found["blink_drawn"] = len(drawn) > blinked  # the one that is not seen now comes and goes as well

press(window, "v")
found["raw"] = [colour(window, 0.5, 0.3), names(window)]
press(window, "v")
found["restored"] = [colour(window, 0.5, 0.3), names(window)]
press(window, "v")
found["side_again"] = [colour(window, 0.25), colour(window, 0.75), names(window)]
press(window, "o")
found["overlay_of_one"] = [window.panes.overlay, window.overlay.word]

# ---- the tool bar does the same, and shows how things are
tool = window.tools.button("arrange")
found["tool"] = [tool.text(), window.tools.button("overlay").isVisible()]
tool.click()
settle()
found["tool_clicked"] = [window.panes.arrangement, tool.text()]
note = Note(rates=(99.5, 49.7))
show(window, 0, 3, 25, 75, note)
window.write_figures()
found["figures"] = [window.bars._rate.text(), window.bars._latency.text(), window.bars._time.text()]
press(window, "?")
found["help"] = [key for key, _ in window.overlay.keys]
window.close()

# ---- two channels over each other
window = make(2, size=(900, 500), arrangement="side", overlay=True)
show(window, 0, 0, 100, 0)
show(window, 1, 1, 0, 100)
found["overlay"] = [colour(window, 0.25), colour(window, 0.75), names(window)]
found["overlay_parts"] = [list(map(list, caption.parts)) for caption in window.overlay.captions]
show(window, 1, 2, 100, 100)
found["overlay_sum"] = colour(window, 0.25)
window._cursor = (225.0, 200.0)
show(window, 0, 3, 30, 60)
window.write_figures()
found["overlay_values"] = window.bars._pixel.text()
window.set_arrangement("split")
settle()
found["overlay_split"] = [colour(window, 0.4, 0.3), colour(window, 0.6, 0.3)]
press(window, "o")
found["overlay_off"] = [window.panes.overlay, len(window.panes.cells)]
show(window, 0, 4, 100, 0)
window.set_arrangement("side")
settle()
place = window.panes.panes[0].place
at = ((place[0] + place[2] / 2) / canvas.width(), (place[1] + place[3] / 2) / 430)
found["overlay_gone"] = colour(window, *at)
press(window, "o")
other = Stream(Spec((40, 60), "uint16"), "cam", "FITC", 1)
window.put([1], [streams[0], other], [planes[0], {"raw": other.spec}])
settle()
found["unlike"] = len(window.panes.cells)
press(window, "o")
press(window, "o")
found["unlike_said"] = window.overlay.word
window.close()

# ---- what it remembers
folder = Path(sys.argv[1])
os.environ["PELLUCID_SETTINGS"] = str(folder)
window = make(1)
found["begins"] = [[window.width(), window.height()], window.panes.arrangement]
window.resize(700, 444)
press(window, "v")
press(window, "t")
window.close()
found["kept"] = json.loads((folder / "window.json").read_text())
window = make(1)
found["recalled"] = [[window.width(), window.height()], window.panes.arrangement, window.overlay.texts]
window.close()
window = make(1, size=(900, 500), arrangement="raw")
found["config_wins"] = [[window.width(), window.height()], window.panes.arrangement]
press(window, "v")
window.close()
found["config_is_not_kept"] = json.loads((folder / "window.json").read_text())
(folder / "window.json").write_text("{nonsense")
window = make(1)
found["damaged"] = [window.panes.arrangement, window.overlay.word]
window.close()
print(json.dumps(found), flush=True)
