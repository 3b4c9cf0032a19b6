"""To the screen: frames for the window, which is a process of its own.

The newest frame only. The window's slots are few; when all are on their way to the screen a frame is left
out here, and nothing waits. A window that is closed, killed or stands still costs the run nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import MissingExtra, SinkError, WireError
from pellucid.ledger import Ledger
from pellucid.metrics import Histogram, now_ns
from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.wire.sender import Feed, Sender

__all__ = ["Window"]

Limits = Annotated[tuple[float, float], Field(description="low, high")]
START_S = 30.0
TEND_S = 0.1
"""Between two signs of life to the window, also while no frame comes."""
REMEMBER = 64
"""Frames under way to the screen whose times are still expected; the window has four slots."""


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
        self._process: subprocess.Popen[str] | None = None
        self._complaints: IO[str] | None = None
        self._sender: Sender | None = None
        self._ledger: Ledger | None = None
        self._latency = Histogram()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._tender: threading.Thread | None = None
        self._shown: dict[int, FrameInfo] = {}
        self._next = 0
        self._last_ns = 0
        self._period_ns = round(1e9 / self.max_fps)
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

    def open(
        self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]
    ) -> None:
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
        endpoint = self._start([name for specs in planes for name in specs])
        feeds = [Feed(stream, dict(specs)) for stream, specs in zip(streams, planes, strict=True)]
        sender = Sender(endpoint, feeds, name="session")
        try:
            sender.open(START_S)
        except WireError as error:
            text = self._complaint()
            self._end_process(0)
            raise SinkError(f"the window did not come up: {text or error}") from None
        self._sender = sender
        self._active = True
        self._over.clear()
        self._tender = threading.Thread(target=self._tend, name="pellucid window", daemon=True)
        self._tender.start()

    def _start(self, planes: list[str]) -> str:
        told = {
            "title": self.title,
            "size": self.size,
            "contrast": self.contrast,
            "screenshot": str(self.screenshot.absolute()) if self.screenshot else "",
            "planes": list(dict.fromkeys(planes)),
        }
        # A file, not a pipe: what Qt and drivers say must never fill a buffer that nobody empties.
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pellucid.viewer", json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        line: list[str] = []
        pipe = self._process.stdout
        assert pipe is not None
        reader = threading.Thread(target=lambda: line.append(pipe.readline().strip()), daemon=True)
        reader.start()
        reader.join(START_S)
        if not line or not line[0].startswith("tcp://"):
            text = self._complaint() or f"it said nothing for {START_S:g} s"
            self._end_process(0)
            raise SinkError(f"the window did not come up: {text}. Type: --headless")
        return line[0]

    def _complaint(self) -> str:
        """Return the last line that the process wrote to its stderr."""
        if self._complaints is None:
            return ""
        if self._process is not None:
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                pass
        self._complaints.seek(0)
        lines = [line.strip() for line in self._complaints if line.strip()]
        return lines[-1] if lines else ""

    # ---------------------------------------------------------------- frames

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot: copy the planes into the window's memory, if it has room; else leave the frame out."""
        now = now_ns()
        if not self._active or now - self._last_ns < self._period_ns:
            self.skipped += 1
            return
        with self._lock:
            sender = self._sender
            if sender is None:
                return
            sender.poll(0)
            self._take_times(sender)
            given = slot.info
            free = sender.rings[given.stream].take() if sender.connected else None
            if free is None:
                self.skipped += 1
                return
            for name in names:
                np.copyto(free.planes[name], slot.planes[name])
            free.ready = names
            # Numbered anew: streams may overtake each other here, and the wire wants an order.
            number = given.camera_number if given.camera_number >= 0 else given.seq
            free.info = FrameInfo(self._next, given.stream, number, given.camera_ns, 0, given.received_ns)
            self._shown[self._next] = given
            self._next += 1
            sender.commit(free)
            self._last_ns = now

    def _take_times(self, sender: Sender) -> None:
        """Mark the frames that have been drawn."""
        while sender.acks:
            number, stamp_ns = sender.acks.popleft()
            info = self._shown.pop(number, None)
            if info is not None and stamp_ns and self._ledger is not None:
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
        if sender is not None:
            sender.close(1.0)
        self._end_process(5.0)

    def _end_process(self, patience_s: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._complaints is not None:
            self._complaints.close()
            self._complaints = None
