"""Run in a process of its own: damaged settings, streams that begin late, stacks of odd shapes. Prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PySide6.QtWidgets import QApplication, QWidget

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.viewer.window import Look, ViewerWindow

kept = Path(sys.argv[1]) / "window.json"
app = QApplication(sys.argv[:1])
drawn: list[int] = []
flat, restored = Spec((96, 128), "uint16"), Spec((96, 128), "float32")
dapi, fitc = Stream(flat, "cam", "DAPI", 0), Stream(flat, "cam", "FITC", 1)
both = {"raw": flat, "restored": restored}


def settle() -> None:
    for _ in range(20):
        app.processEvents()


def make(streams, planes, **keys) -> ViewerWindow:
    made = ViewerWindow(streams, planes, Look(contrast=[0, 100], **keys), drawn.append)
    made.show()
    settle()
    return made


def middle(window: ViewerWindow, position: int, level: int) -> int:
    """Show a picture of one level in a stream, and return what is seen in the middle of its pane."""
    pane = window.panes.rows[position][0]
    before, end = len(drawn), now_ns() + 30 * 10**9
    pixels = np.full(pane.spec.shape, level, pane.spec.dtype)
    window.show_frame(position, {"raw": pixels}, FrameInfo(before, position, camera_ns=now_ns()))
    while len(drawn) == before and now_ns() < end:
        app.processEvents()
    left, top, width, height = pane.place
    image = window.panes.canvas.native.grab().toImage()
    return image.pixelColor(round(left + width / 2), round(top + height / 2)).red()


found: dict[str, object] = {}
screen = app.primaryScreen().availableGeometry()
found["screen"] = [screen.width(), screen.height()]
found["hostile"] = {}
for text in json.loads(sys.argv[2]):
    kept.write_text(text, encoding="utf-8")
    window = make([dapi, fitc], [both, both])
    found["hostile"][text] = [
        [window.width(), window.height()], window.panes.arrangement, window.panes.manner, window.overlay.word[:32]
    ]  # fmt: skip
    window.close()
kept.unlink(missing_ok=True)

window = make([dapi], [both], size=(900, 500), overlay=True, stack="volume")
found["one_channel"] = [len(window.panes.cells), window.overlay.word]
window.put([1], [dapi, fitc], [both, both])
settle()
found["late_channel"] = [len(window.panes.cells), window.panes.cells[0].panes[1].colour, window.overlay.word]
deep = Spec((5, 96, 128), "uint16")
window.put([1], [dapi, Stream(deep, "cam", "FITC", 1)], [{"raw": flat}, {"raw": deep}])
settle()
found["late_volume"] = [len(window.panes.cells), window.overlay.word]
found["late_stack"] = [window.panes.manner, middle(window, 1, 60)]
whole = window.panes.rows[1][0].view.camera.scale_factor
window.panes.fit()
found["late_stack_fits"] = [whole, window.panes.rows[1][0].view.camera.scale_factor]
small = Spec((40, 60), "uint16")
window.put([1], [dapi, Stream(small, "cam", "FITC", 1)], [{"raw": flat}, {"raw": small}])
settle()
found["unlike"] = [len(window.panes.cells), window.overlay.word]
window.close()

deeper = Spec((9, 96, 128), "uint16")
streams = [Stream(deep, "cam", "a", 0), Stream(deeper, "cam", "b", 1)]
window = make(streams, [{"raw": deep}, {"raw": deeper}], size=(900, 500), stack="slice")
for _ in range(12):
    window.step_z(1)
found["depths"] = [[stack.z for stack in window.panes.stacks], window.slices.slider.value()]
for _ in range(6):
    window.step_z(-1)
found["depths_back"] = [stack.z for stack in window.panes.stacks]
window.close()

found["long_axes"] = []
for shape in ((3, 64, 5000), (2100, 32, 32), (3, 5000, 64)):
    spec = Spec(shape, "uint16")
    window = make([Stream(spec, "cam", "a", 0)], [{"raw": spec}], size=(900, 500), stack="volume")
    found["long_axes"].append(middle(window, 0, 60))
    window.close()

spec = Spec((8, 96, 128), "uint16")
window = make([Stream(spec, "cam", "a", 0, pixel_um=0.5, z_um=2.0)], [{"raw": spec}], size=(900, 600), stack="volume")
pixels = np.zeros(spec.shape, "uint16")
pixels[3, 16:32, 16:80] = 100  # 64 wide, 16 high, near the upper left corner
before = len(drawn)
window.show_frame(0, {"raw": pixels}, FrameInfo(0, camera_ns=now_ns()))
end = now_ns() + 30 * 10**9
while len(drawn) == before and now_ns() < end:
    app.processEvents()
window.overlay.texts = False
found["volume_scale"] = []
pane = window.panes.panes[0]
for closer in (1.0, 1.25, 0.5):
    pane.view.camera.scale_factor /= closer
    settle()
    seen = window.panes.canvas.native.grab().toImage()
    lit = [
        (x, y)
        for x in range(0, seen.width(), 1)
        for y in range(0, seen.height(), 2)
        if seen.pixelColor(x, y).red() > 127
    ]
    across = max(x for x, _ in lit) - min(x for x, _ in lit)
    at = [sum(x for x, _ in lit) / len(lit) / seen.width(), sum(y for _, y in lit) / len(lit) / seen.height()]
    found["volume_scale"].append([across / 64, pane.zoom, window.overlay.captions[0].um, at])
window.close()

window = ViewerWindow([Stream(spec, "cam", "a", 0)], [{"raw": spec}], Look(size=(900, 600)), drawn.append)
window.show()
settle()
window.show_frame(0, {"raw": np.full(spec.shape, 700, "uint16") + pixels}, FrameInfo(0, camera_ns=now_ns()))
found["first_limits"] = list(window.shown[0].contrast.limits)
window.close()

window = make([dapi], [both], size=(1280, 400), arrangement="split")
window.bars.set_title("a camera with a long name")
window.bars.set_chain("richardson-lucy: cpu, float32")
window.bars.recording.tell({"on": True, "switch": True, "frames": 12345, "mb": 310, "for_s": 12, "left_s": 2400})
found["bars"] = {}
for width in (1280, 800, 640, 480, 1280):
    window.resize(width, 400)
    settle()
    header = window.bars.header
    texts = [part for part in header.children() if isinstance(part, QWidget) and part.isVisible()]
    cut = [part.objectName() for part in texts if part.width() < part.sizeHint().width()]
    found["bars"][str(width)] = [window.width(), window.tools.isVisible(), window.bars.recording.isVisible(), cut]
window.close()
print(json.dumps(found), flush=True)
