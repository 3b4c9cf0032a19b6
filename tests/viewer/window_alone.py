"""Run in a process of its own: the window without the wire. Prints what it found as JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QKeyEvent, QMouseEvent, QWheelEvent
from PySide6.QtWidgets import QApplication

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.viewer.asking import Asking
from pellucid.viewer.note import Note
from pellucid.viewer.window import Look, ViewerWindow


class Asked(Asking):
    """Notes what it is asked; the answers are the test's."""

    def __init__(self) -> None:
        super().__init__("nobody")
        self.commands: list[str] = []

    def ask(self, command, given=None) -> None:
        self.commands.append(command)


app = QApplication(sys.argv)
asking = Asked()
raw, restored = Spec((96, 128), "uint16"), Spec((192, 256), "float32")  # the same field, sampled twice as finely
drawn: list[int] = []
closed: list[int] = []
window = ViewerWindow(
    [Stream(raw, pixel_um=0.5, details={"projections": {"raw": "maximum of z 1–5"}})],
    [{"raw": raw, "restored": restored}],
    Look(title="t", size=(900, 500), contrast={"raw": [0, 100]}),
    on_drawn=drawn.append,
    on_closed=lambda: closed.append(1),
    asking=asking,
)
window.show()


def settle() -> None:
    for _ in range(20):
        app.processEvents()


def show(level: int, seq: int, *names: str) -> None:
    planes = {"raw": np.full(raw.shape, level, "uint16"), "restored": np.full(restored.shape, level, "float32")}
    window.show_frame(0, {name: planes[name] for name in names}, FrameInfo(seq, camera_ns=now_ns()), Note("why not"))
    end = now_ns() + 10 * 10**9
    before = len(drawn)
    while len(drawn) == before and now_ns() < end:
        app.processEvents()


def press(key: Qt.Key, text: str) -> None:
    app.sendEvent(window, QKeyEvent(QEvent.Type.KeyPress, key, Qt.KeyboardModifier.NoModifier, text))
    settle()


def rects() -> list[list[float]]:
    return [[float(v) for v in (*pane.camera.rect.pos, *pane.camera.rect.size)] for pane in window.panes.panes]


found: dict[str, object] = {}
settle()
start_ns = now_ns()
show(50, 0, "raw", "restored")
found["stamp_after_start"] = bool(drawn) and drawn[-1] > start_ns
found["fitted"] = rects()
found["limits"] = [list(pane.images[0].clim) for pane in window.panes.panes]
found["projections"] = [c.taken for c in window.overlay.captions]
found["captions"] = [[c.name, c.um is not None] for c in window.overlay.captions]

first, second = window.panes.panes
first.camera.rect = (10, 20, 30, 40)
settle()
found["first_moved"] = rects()
second.camera.rect = (5, 6, 7, 8)
settle()
found["second_moved"] = rects()

press(Qt.Key.Key_F, "f")
found["key_fit"] = rects()
left, top, width, height = second.place
at = QPointF(left + width / 2, top + height / 2)
canvas = window.panes.canvas.native
wheel = QWheelEvent(
    at, QPointF(canvas.mapToGlobal(at.toPoint())), QPointF(0, 0).toPoint(), QPointF(0, 240).toPoint(),
    Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
)  # fmt: skip
app.sendEvent(canvas, wheel)
settle()
found["wheel"] = rects()
hit = window.panes.at(at.x(), at.y())
found["under_cursor"] = [hit[0].plane, hit[1], hit[2]] if hit else None
press(Qt.Key.Key_Space, " ")
found["key_space"] = rects()

zooms = [pane.zoom for pane in window.panes.panes]
window.resize(1300, 800)
settle()
found["resized"] = [rects(), zooms[0], window.panes.panes[0].zoom]
first.camera.rect = (32, 24, 64, 48)
settle()
window.resize(900, 500)
settle()
found["resized_zoomed"] = rects()
press(Qt.Key.Key_F, "f")

press(Qt.Key.Key_A, "a")
found["auto_off"] = [c.detail.rsplit(None, 1)[-1] for c in window.overlay.captions]
press(Qt.Key.Key_A, "a")
found["auto_on"] = [c.detail.rsplit(None, 1)[-1] for c in window.overlay.captions]

press(Qt.Key.Key_Question, "?")
found["help"] = window.overlay.help
press(Qt.Key.Key_H, "h")
found["help_again"] = window.overlay.help

for shown in window.shown:
    shown.seen_ns = now_ns()  # a moment ago, however slow this computer is
show(60, 1, "raw")
found["held"] = [c.notice for c in window.overlay.captions]
for shown in window.shown:
    shown.seen_ns -= 2 * 10**9
show(70, 2, "raw")
window.write_figures()
found["missing"] = [c.notice for c in window.overlay.captions]
found["state"] = window.bars.state
show(70, 3, "raw", "restored")
window.write_figures()
found["back"] = [c.notice for c in window.overlay.captions]
found["live"] = window.bars.state


# ---- the recording light, its button and its key
bar = window.bars.recording


def told(**recording) -> list[object]:
    window.show_frame(0, {}, FrameInfo(0), Note(recording=recording))
    settle()
    return [bar.light, bar.text, bar.button.text() if bar.button.isVisible() else False]


press(Qt.Key.Key_R, "r")
found["rec_hidden"] = [bar.isHidden(), window.overlay.word[:16]]
found["rec_armed"] = told(on=False, switch=True, held_s=5.2, left_s=4000)
bar.button.click()
press(Qt.Key.Key_R, "r")  # a second press while the session is asked changes nothing
said = []
asking.answered.emit("record.start", False, "cannot: no disk")
said.append(window.overlay.word)
found["rec_on"] = told(on=True, switch=True, frames=1204, mb=12345, for_s=3661, left_s=60)
light = bar.grab().toImage()
middle = light.pixelColor(round(6 * light.devicePixelRatio()), light.height() // 2)
found["rec_light_seen"] = middle.name() == "#ff4a4a"
press(Qt.Key.Key_R, "r")
asking.answered.emit("record.stop", True, "recording to a/b")
said.append(window.overlay.word)
window.overlay.say("")
found["rec_said"] = [*said, window.overlay.word]
found["rec_asked"] = asking.commands
found["rec_failed"] = told(on=False, switch=True, failed=True)
found["rec_always"] = told(on=True, switch=False, frames=9, mb=1, for_s=5)


# ---- streams that begin and change: an experiment with two channels, one of which gets another ROI, and colour
def frame(position: int, seq: int, level: int, axes=None, note=None) -> None:
    pixels = {n: np.full(s.shape, level, s.dtype) for n, s in planes[position].items()}
    before = len(drawn)
    window.show_frame(position, pixels, FrameInfo(seq, camera_ns=now_ns(), axes=axes), note)
    end = now_ns() + 10 * 10**9
    while len(drawn) == before and now_ns() < end:
        app.processEvents()


sizes = {"t": 60, "p": 2, "c": 2, "z": 7}
cut, colour = Spec((40, 60), "uint16"), Spec((3, 96, 128), "uint8", axes="cyx")
press(Qt.Key.Key_F, "f")
first.camera.rect = (32, 24, 64, 48)
settle()
streams = [Stream(raw, "cam", "DAPI", 0, sizes=sizes), Stream(raw, "cam", "FITC", 1, sizes=sizes)]
planes = [{"raw": raw, "restored": restored}, {"raw": raw}]
window.put([0, 1], streams, planes)
settle()
found["put_names"] = [c.name for c in window.overlay.captions]
found["put_zoom"] = rects()
found["put_title"] = window.windowTitle()
note = Note("", {"p": "A1"}, {"lost": {"cam": {"camera buffer": 10, "wire": 2}}, "dropped": {"cam": {"ring": 3}}})
frame(0, 0, 50, {"t": 11, "p": 1, "c": 0, "z": 2}, note)
frame(1, 1, 50, {"t": 11, "p": 1, "c": 1, "z": 3})
window.write_figures()
found["taken"] = [c.taken for c in window.overlay.captions]
found["losses"] = window.bars.losses.text()
found["losses_seen"] = window.bars.losses.isVisible()
gone = window.panes.panes[2]
streams[1] = Stream(cut, "cam", "FITC", 1)
planes[1] = {"raw": cut}
window.put([1], streams, planes)
settle()
found["cut"] = rects()
found["gone"] = [gone in window.panes.panes, gone.view.parent is None]
third = window.panes.panes[0]
third.camera.rect = (10, 20, 30, 40)
settle()
found["cut_moved"] = rects()
streams += [Stream(colour, "other", "RGB", 2)]
planes += [{"raw": colour}]
window.put([2], streams, planes)
press(Qt.Key.Key_F, "f")
frame(2, 2, 7)
pane = window.panes.panes[3]
left, top, width, height = pane.place
window._cursor = (left + width / 2, top + height / 2)
frame(2, 3, 9)
found["colour"] = [len(pane.images), [list(window.shown[3].values)], [list(i.clim) for i in pane.images]]
found["three_names"] = [c.name for c in window.overlay.captions]


def double_click(at) -> None:
    point = QPointF(at[0], at[1])
    app.sendEvent(canvas, QMouseEvent(
        QEvent.Type.MouseButtonDblClick, point, QPointF(canvas.mapToGlobal(point.toPoint())), Qt.MouseButton.LeftButton,
        Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
    ))  # fmt: skip
    settle()


def on_canvas() -> list[bool]:
    return [pane.place[0] + pane.place[2] <= canvas.width() + 1 for pane in window.panes.panes]


all_places = [pane.place for pane in window.panes.panes]
double_click(window._cursor)
found["alone"] = [on_canvas(), list(window.panes.panes[3].place[2:]), [canvas.width(), canvas.height()]]
before = len(drawn)
frame(0, 4, 60)
found["beside_drawn"] = len(drawn) > before
double_click((50, 50))
found["all_again"] = [pane.place for pane in window.panes.panes] == all_places
press(Qt.Key.Key_T, "t")
found["texts_off"] = window.overlay.texts

press(Qt.Key.Key_Q, "q")
found["closed"] = [len(closed), window.isVisible()]
print(json.dumps(found), flush=True)
