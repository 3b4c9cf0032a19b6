"""To the screen: frames for the window, which is a process of its own.

The newest frame only. The window's slots are few; when all are on their way to the screen a frame is left
out here, and nothing waits. A window that is closed, killed or stands still costs the run nothing.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import MissingExtra, SinkError, WireError
from pellucid.ledger import Ledger
from pellucid.metrics import Histogram, now_ns
from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.sinks._window_process import START_S, WindowProcess
from pellucid.wire.sender import Feed, Sender

__all__ = ["Window"]

Limits = Annotated[tuple[float, float], Field(description="low, high")]
TEND_S = 0.1
"""Between two signs of life to the window, also while no frame comes."""
CLOSE_S = 2.0
"""For the window to answer that it closes; one that does not may be busy, and has as long again to go by itself."""
SAVE_S = 5.0
"""For a window that has answered, to save its picture."""
REMEMBER = 64
"""Frames under way to the screen whose times are still expected; the window has four slots."""
WHY = "#why"
"""The plane that carries why others are missing, as text; `pellucid.viewer.newest` reads it."""
WHY_BYTES = 256
TEXTURES = ("uint8", "uint16", "float32")
"""Types that go to the GPU as they are; any other is shown as float32."""


@dataclass(config=ConfigDict(extra="forbid"))
class Window:
    """Show raw and restored side by side, zoomed together.

    Parameters
    ----------
    title
        Over the panes; empty for the names of camera and channel.
    size
        Width and height in pixels.
    contrast
        ``"auto"`` (slow percentiles), ``[low, high]``, or a table of planes.
    max_fps
        Frames in between are left out.
    screenshot
        PNG to write of the window when it closes.

    Attributes
    ----------
    drawn, skipped : int
        Frames that are known to have been drawn, and those left out here because the window had no room, because
        of `max_fps`, because newer ones had overtaken them, or because it is gone.
    closed_by_user : bool
    """

    title: str = ""
    size: tuple[Annotated[int, Field(ge=320, le=16384)], Annotated[int, Field(ge=240, le=16384)]] = (1280, 740)
    contrast: Literal["auto"] | Limits | dict[str, Literal["auto"] | Limits] = "auto"
    max_fps: Annotated[float, Field(gt=0, le=1000)] = 60.0
    screenshot: Path | None = None
    policy: ClassVar[str] = "latest"
    early: ClassVar[bool] = False
    needs: ClassVar[dict[str, str]] = {"vispy": "window", "PySide6": "window"}

    @field_validator("contrast")
    @classmethod
    def _in_order(cls, contrast: Any) -> Any:
        for given in contrast.values() if isinstance(contrast, dict) else [contrast]:
            if not isinstance(given, str) and not given[0] < given[1]:
                raise ValueError(f"the lower limit comes first and is smaller, not {given[0]:g}, {given[1]:g}")
        return contrast

    def __post_init__(self) -> None:
        self.drawn = 0
        self.skipped = 0
        self.closed_by_user = False
        self._process: WindowProcess | None = None
        self._sender: Sender | None = None
        self._ledger: Ledger | None = None
        self._latency = Histogram()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._tender: threading.Thread | None = None
        self._shown: dict[int, FrameInfo] = {}
        self._next = 0
        self._last: list[dict[str, int]] = []
        self._due_ns: list[dict[str, int]] = []
        self._period_ns = round(1e9 / self.max_fps)
        self._bring: list[dict[str, np.ndarray[Any, Any] | None]] = []
        self._active = False

    @classmethod
    def why_not(cls) -> str | None:
        """Return why there can be no window here, None where there can be one."""
        for module, extra in cls.needs.items():
            if importlib.util.find_spec(module) is None:
                return f'the package {module} is not installed. Type: pip install "pellucid[{extra}]"'
        screens = ("DISPLAY", "WAYLAND_DISPLAY")
        offscreen = os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "vnc")
        if sys.platform.startswith("linux") and not offscreen and not any(os.environ.get(name) for name in screens):
            return "there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set). Type: --headless"
        return None

    # ---------------------------------------------------------------- open

    def ready(self) -> None:
        """Raise what `open` would for want of a package or a screen."""
        why = self.why_not()
        if why is not None:
            raise (MissingExtra if "not installed" in why else SinkError)(why)

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Start the window's process and connect to it.

        Raises
        ------
        MissingExtra
            Where vispy or PySide6 is not installed.
        SinkError
            Where there is no screen, or the window does not come up.
        """
        why = self.why_not()
        if why is not None:
            raise (MissingExtra if "not installed" in why else SinkError)(why)
        if self.screenshot is not None and not self.screenshot.absolute().parent.is_dir():
            raise SinkError(f'screenshot = "{self.screenshot}": there is no folder {self.screenshot.absolute().parent}')
        self._ledger = run["ledger"]
        self._latency = run["ledger"].histogram("display")
        feeds = [
            Feed(
                stream, {n: _flat(s) for n, s in specs.items() if _is_picture(s)} | {WHY: Spec((1, WHY_BYTES), "uint8")}
            )
            for stream, specs in zip(streams, planes, strict=True)
        ]
        # A stack goes through memory of its own, a plane through none.
        self._bring = [
            {
                n: np.empty(s.shape[1:], s.dtype) if len(s.shape) == 3 else None
                for n, s in specs.items()
                if n in feed.planes
            }
            for specs, feed in zip(planes, feeds, strict=True)
        ]
        self._last = [dict.fromkeys(bring, -1) for bring in self._bring]
        self._due_ns = [dict.fromkeys(bring, 0) for bring in self._bring]
        told = {
            "title": self.title,
            "size": self.size,
            "contrast": self.contrast,
            "screenshot": str(self.screenshot.absolute()) if self.screenshot else "",
            "planes": list(dict.fromkeys(name for feed in feeds for name in feed.planes)),
        }
        process = self._process = WindowProcess(told)
        sender = Sender(process.endpoint, feeds, name="session")
        try:
            sender.open(START_S)
        except WireError as error:
            text = process.complaint()
            self._process = None
            process.end(0)
            raise SinkError(f"the window did not come up: {text or error}") from None
        self._sender = sender
        self._active = True
        self._over.clear()
        self._tender = threading.Thread(target=self._tend, name="pellucid window", daemon=True)
        self._tender.start()

    # ---------------------------------------------------------------- frames

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot: copy the planes into the window's memory, if it has room; else leave the frame out."""
        now = now_ns()
        ready = self._wanted(slot.info, names, now) if self._active else []
        if not ready:
            self.skipped += 1
            return
        with self._lock:
            sender = self._sender
            if sender is None:
                self.skipped += 1
                return
            sender.poll(0)
            self._take_times(sender)
            given = slot.info
            free = sender.rings[given.stream].take() if sender.connected else None
            if free is None:
                self.skipped += 1
                return
            for name in ready:
                plane, flat = slot.planes[name], self._bring[given.stream][name]
                np.copyto(free.planes[name], plane if flat is None else plane.max(axis=0, out=flat), casting="unsafe")
            if given.where:
                text = given.where.encode()[: WHY_BYTES - 1]
                free.planes[WHY][0, : len(text)] = np.frombuffer(text, np.uint8)
                free.planes[WHY][0, len(text)] = 0
            free.ready = (*ready, WHY) if given.where else tuple(ready)
            # Numbered anew: streams may overtake each other here, and the wire wants an order.
            number = given.camera_number if given.camera_number >= 0 else given.seq
            free.info = FrameInfo(self._next, given.stream, number, given.camera_ns, 0, given.received_ns)
            self._shown[self._next] = given
            self._next += 1
            sender.commit(free)
            last, due_ns = self._last[given.stream], self._due_ns[given.stream]
            for name in ready:
                last[name] = given.seq
                due_ns[name] = max(due_ns[name], now - self._period_ns // 2) + self._period_ns

    def _wanted(self, info: FrameInfo, names: tuple[str, ...], now: int) -> list[str]:
        """Return the planes to show of a frame: those newer than what is shown, if it is time for one of them.

        Frames that find the chain busy go past the one that it works on. Where it is always busy each result is
        older than the raw plane on the screen, so order and pace are kept for each plane.
        """
        last, due_ns = self._last[info.stream], self._due_ns[info.stream]
        newer = [name for name in names if last.get(name, info.seq) < info.seq]
        # Half a period early is in time: a camera at just max_fps trembles, and every second frame would go.
        in_time = any(now >= due_ns[name] - self._period_ns // 2 for name in newer)
        return newer if in_time else []

    def _take_times(self, sender: Sender) -> None:
        """Mark the frames that have been drawn."""
        while sender.acks:
            number, stamp_ns = sender.acks.popleft()
            info = self._shown.pop(number, None)
            if info is None:
                continue
            for older in [n for n, i in self._shown.items() if n < number and i.stream == info.stream]:
                del self._shown[older]  # a newer one took its place before it was drawn
            if stamp_ns and self._ledger is not None:
                info.displayed_ns = stamp_ns
                self._ledger.displayed += 1
                self.drawn += 1
                self._latency.add(stamp_ns - info.camera_ns)
        while len(self._shown) > REMEMBER:
            del self._shown[next(iter(self._shown))]

    def _tend(self) -> None:
        """Keep the connection while no frame comes, and notice when the window is gone."""
        assert self._process is not None
        while not self._over.wait(TEND_S):
            with self._lock:
                if self._sender is not None:
                    self._sender.poll(0)
                    self._take_times(self._sender)
            code = self._process.poll()
            if code is not None:
                self._active = False
                self.closed_by_user = code == 0
                with self._lock:
                    sender, self._sender = self._sender, None
                    if sender is not None:
                        sender.close(0)  # its memory would stay as long as this side has it
                if self._ledger is not None:
                    what = "was closed" if code == 0 else f"ended with {code}"
                    self._ledger.notes.append(f"window: it {what}; the run goes on")
                return

    # ---------------------------------------------------------------- the end

    def finish(self) -> None:
        """Wait shortly for the last frame to be drawn."""
        deadline = now_ns() + 500_000_000
        while self._active and self._shown and now_ns() < deadline:
            self._over.wait(0.02)

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Close the window, or end its process if it does not."""
        self._active = False
        self._over.set()
        if self._tender is not None:
            self._tender.join()
            self._tender = None
        with self._lock:
            sender, self._sender = self._sender, None
        hears = sender is None or sender.close(CLOSE_S)
        process, self._process = self._process, None
        if process is not None:
            process.end(SAVE_S if hears else CLOSE_S)


def _is_picture(spec: Spec) -> bool:
    return len(spec.shape) in (2, 3) and np.dtype(spec.dtype).kind in "buif"


def _flat(spec: Spec) -> Spec:
    """Return how a plane is shown: a stack as its brightest projection along z."""
    return Spec(spec.shape[-2:], spec.dtype if spec.dtype in TEXTURES else "float32")
