"""What a picture costs the thread that draws the window: pellucid's, or ndv's for comparison.

``python tools/window_rate.py pellucid --size 2048 --channels 2 --histogram`` shows a new picture as soon as the last
one has been drawn, and prints one line of JSON. With ``ndv`` in place of ``pellucid`` it needs
``pip install "ndv[vispy,pyside]"``; its array is changed in place and told so, which is its way for live pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("window", choices=["pellucid", "ndv"])
    parser.add_argument("--size", type=int, default=2048, help="width and height of the pictures")
    parser.add_argument("--channels", type=int, default=1, help="over each other in colours")
    parser.add_argument("--depth", type=int, default=0, help="slices of a stack, shown as a volume; 0: planes")
    parser.add_argument("--histogram", action="store_true")
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    os.environ["PELLUCID_SETTINGS"] = "off"
    shape = (given.depth, given.size, given.size) if given.depth else (given.size, given.size)
    noise = np.random.default_rng(0).integers(0, 1000, (4, given.channels, *shape), dtype="uint16")
    show, turn = (_pellucid if given.window == "pellucid" else _ndv)(noise, given.histogram, bool(given.depth))
    for n in range(5):
        _once(show, turn, n)
    times, thread, process = [], time.thread_time(), time.process_time()
    end = time.perf_counter() + given.seconds
    while time.perf_counter() < end or len(times) < 5:
        times.append(_once(show, turn, len(times)))
    thread, process = (1e3 * (now - then) / len(times) for now, then in
                       ((time.thread_time(), thread), (time.process_time(), process)))  # fmt: skip
    p50, p99 = np.percentile(times, (50, 99)) * 1e3
    print(json.dumps(vars(given) | {
        "per_s": round(len(times) / sum(times), 1), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1),
        "cpu_of_drawing_thread_ms": round(thread, 1), "cpu_of_process_ms": round(process, 1),
    }))  # fmt: skip


def _once(show: Callable[[int], Callable[[], bool]], turn: Callable[[], None], n: int) -> float:
    start = time.perf_counter()
    is_drawn = show(n)
    while not is_drawn() and time.perf_counter() - start < 10:
        turn()
        time.sleep(0.0002)
    return time.perf_counter() - start


def _pellucid(noise: np.ndarray[Any, Any], histogram: bool, volume: bool) -> tuple[Any, Any]:
    from PySide6.QtWidgets import QApplication

    from pellucid.metrics import now_ns
    from pellucid.protocols import FrameInfo, Spec, Stream
    from pellucid.viewer.window import Look, ViewerWindow

    app = QApplication([])
    spec = Spec(noise.shape[2:], "uint16")
    drawn: list[int] = []
    channels = range(noise.shape[1])
    streams = [Stream(spec, "camera", f"channel {c}", c) for c in channels]
    look = Look(size=(1280, 740), overlay=len(channels) > 1, stack="volume" if volume else None)
    window = ViewerWindow(streams, [{"raw": spec}] * len(channels), look, drawn.append)
    window.show()
    if histogram:
        next(action for action in window.commands if action.name == "histogram").do()
    app.processEvents()

    def show(n: int) -> Callable[[], bool]:
        before = len(drawn)
        for c in channels:
            window.show_frame(c, {"raw": noise[n % 4, c]}, FrameInfo(n, c, camera_ns=now_ns()))
        return lambda: len(drawn) > before

    show.window = window  # type: ignore[attr-defined]  # or Qt's object is gone with this function
    return show, app.processEvents


def _ndv(noise: np.ndarray[Any, Any], histogram: bool, volume: bool) -> tuple[Any, Any]:
    os.environ["NDV_CANVAS_BACKEND"], os.environ["NDV_GUI_FRONTEND"] = "vispy", "qt"
    import ndv
    from qtpy.QtWidgets import QApplication

    app = QApplication.instance() or QApplication([])
    several = noise.shape[1] > 1
    pictures = noise if several else noise[:, 0]
    keys: dict[str, Any] = {"channel_mode": "composite", "channel_axis": 0} if several else {}
    if volume:
        keys["visible_axes"] = (-3, -2, -1)
    viewer = ndv.ArrayViewer(pictures[0].copy(), **keys)
    widget = viewer.widget()
    widget.resize(1280, 740)
    widget.show()
    drawn = [0]
    viewer._canvas._canvas.events.draw.connect(lambda _event: drawn.__setitem__(0, drawn[0] + 1))
    for _ in range(50):
        app.processEvents()
        time.sleep(0.01)
    if histogram:
        for key in list(viewer._lut_controllers):
            viewer._add_histogram(key)

    def show(n: int) -> Callable[[], bool]:
        before = drawn[0]
        viewer.data_wrapper.data[...] = pictures[n % 4]
        viewer.data_wrapper.data_changed.emit()
        return lambda: drawn[0] > before

    return show, app.processEvents


if __name__ == "__main__":
    main()
