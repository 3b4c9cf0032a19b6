"""The real window of the sink, without a session: what is written to it, and what it shows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.sinks.window import Window

RAW, RESTORED = Spec((90, 120), "uint16"), Spec((90, 120), "float32")
BOTH = {"raw": RAW, "restored": RESTORED}
SIZE = (900, 520)
HEADER, FOOTER, GAP = 40, 30, 4


class Session:
    """Opens the sink and writes frames to it, as the runtime would."""

    def __init__(self, planes: Sequence[Mapping[str, Spec]] = (BOTH,), config: str = "", **keys) -> None:
        self.ledger = Ledger()
        self.planes = planes
        self.streams = [Stream(p["raw"], camera=f"cam{i}", index=i) for i, p in enumerate(planes)]
        self.sink = Window(**{"title": "specimen", "size": SIZE, "contrast": [0, 1000], "max_fps": 1000} | keys)
        self.sink.open(self.streams, planes, {"ledger": self.ledger, "config": config})
        for stream in self.streams:
            self.ledger.follow(stream)
        self.process = psutil.Process(self.sink._process.pid)
        self.infos: list[FrameInfo] = []

    def take(self, stream: int = 0, where: str = "") -> FrameInfo:
        seq = len(self.infos)
        self.infos.append(FrameInfo(seq, stream, seq, now_ns(), received_ns=now_ns(), where=where))
        return self.infos[-1]

    def give(self, info: FrameInfo, pixels: Mapping[str, np.ndarray]) -> None:
        slot = Slot(0, self.streams[info.stream], dict(pixels))
        slot.info = info
        self.sink.write(slot, tuple(pixels))

    def write(self, pixels: Mapping[str, np.ndarray], stream: int = 0, where: str = "") -> FrameInfo:
        info = self.take(stream, where)
        self.give(info, pixels)
        return info

    def write_until_drawn(self, pixels: Mapping[str, np.ndarray], stream: int = 0, where: str = "") -> FrameInfo:
        def once() -> FrameInfo | None:
            info = self.write(pixels, stream, where)
            self.sink.finish()
            return info if info.displayed_ns else None

        return wait_for(once)

    def extend(self, planes: Mapping[str, Spec], **of_stream) -> int:
        stream = Stream(planes["raw"], **{"camera": f"cam{len(self.streams)}", "index": len(self.streams)} | of_stream)
        self.streams.append(stream)
        self.sink.extend(stream, planes)
        return stream.index

    def close(self) -> None:
        self.sink.close(None)


def wait_for(condition, timeout_s: float = 40.0):
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def gone(process: psutil.Process) -> bool:
    return not process.is_running()


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def place(column: int, x: float, y: float, columns: int = 2, row: int = 0, rows: int = 1, shape=RAW.shape):
    """Where pixel (x, y) of a plane lies in the window: each pane shows its plane whole and centred."""
    width = (SIZE[0] - GAP * (columns - 1)) / columns
    height = (SIZE[1] - HEADER - FOOTER - GAP * (rows - 1)) / rows
    zoom = min(width / shape[1], height / shape[0])
    left = column * (width + GAP) + (width - zoom * shape[1]) / 2
    top = HEADER + row * (height + GAP) + (height - zoom * shape[0]) / 2
    return round(top + y * zoom), round(left + x * zoom)


def blocks(process: psutil.Process) -> set[str]:
    """Return the blocks of shared memory that a process has mapped."""
    paths = (mapped.path.removesuffix(" (deleted)") for mapped in process.memory_maps())
    return {path for path in paths if path.startswith("/dev/shm/")}


def square(spec: Spec, x: int, y: int, value: float = 1000, back: float = 0) -> np.ndarray:
    plane = np.full(spec.shape, back, spec.dtype)
    plane[..., y : y + 20, x : x + 20] = value
    return plane
