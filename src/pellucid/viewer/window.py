"""The window around the panes: what it shows of a frame, its keys and its figures."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QKeyEvent, QMouseEvent, QPalette, QShowEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Spec, Stream
from pellucid.viewer import look
from pellucid.viewer.bars import Bars
from pellucid.viewer.contrast import Contrast, Given, contrast_for, subsample
from pellucid.viewer.overlay import Caption, Overlay
from pellucid.viewer.panes import Pane, Panes

__all__ = ["Look", "ViewerWindow"]

LEARN_NS = 150_000_000
WRITE_MS = 250
HOLD_NS = 700_000_000
"""A plane that is missing for less than this keeps its last picture: single frames that skip do not flicker."""


@dataclass(slots=True)
class _Shown:
    """What the window knows of one pane beyond its picture."""

    contrast: Contrast
    learnt_ns: int = 0
    seen_ns: int = 0
    notice: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How the window should look.

    Parameters
    ----------
    title
        Over the panes; empty for the names of camera and channel.
    size
        Width and height in logical pixels.
    contrast
        For all planes, or a table of planes.
    """

    title: str = ""
    size: tuple[int, int] = (1280, 740)
    contrast: Given | Mapping[str, Given] = "auto"


class ViewerWindow(QWidget):
    """Raw and restored planes side by side.

    Parameters
    ----------
    streams, planes
        What will be shown, `planes` in the order of the panes.
    look_
        How.
    on_drawn
        See `pellucid.viewer.panes.Panes`.
    on_closed
        Called once when the window goes, whoever closed it.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        planes: Sequence[Mapping[str, Spec]],
        look_: Look,
        on_drawn: Callable[[int], None] = lambda _ns: None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._on_drawn, self._on_closed = on_drawn, on_closed
        self._infos: dict[int, FrameInfo] = {}
        self._fresh: FrameInfo | None = None
        self._drawn_ns: deque[int] = deque(maxlen=240)
        self._late_ns: deque[int] = deque(maxlen=240)
        self._cursor: tuple[float, float] | None = None
        self._ended = ""
        self.screenshot: Path | None = None

        self.setObjectName("window")
        self.setStyleSheet(look.STYLE)
        self.setAutoFillBackground(True)
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, look.BACK)
        self.setPalette(palette)
        # Streams are told apart by their channels, or by their cameras where the channel is one.
        self._named = {s.index: s.channel if len({t.channel for t in streams}) > 1 else s.camera for s in streams}
        title = look_.title or "  |  ".join(" · ".join(dict.fromkeys((s.camera, s.channel))) for s in streams)
        self.setWindowTitle(f"{title} - pellucid")

        self.panes = Panes(streams, planes, self._drawn, self._write_over)
        self._shown = {pane: _Shown(contrast_for(look_.contrast, pane.plane)) for pane in self.panes.panes}
        for pane, shown in self._shown.items():
            if shown.contrast.limits:
                self.panes.set_limits(pane, shown.contrast.limits)
        canvas = self.panes.canvas.native
        canvas.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        canvas.setMouseTracking(True)
        canvas.installEventFilter(self)
        self.overlay = Overlay(canvas)
        self.bars = Bars(title)
        self._build(canvas)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.resize(*look_.size)

        self._slow = QTimer(self)
        self._slow.timeout.connect(self.write_figures)
        self._slow.start(WRITE_MS)

    def _build(self, canvas: QWidget) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.bars.header)
        layout.addWidget(canvas, 1)
        layout.addWidget(self.bars.footer)
        self.bars.set_state("idle", "waiting for frames")

    def show_frame(self, stream: int, planes: Mapping[str, np.ndarray[Any, Any]], info: FrameInfo) -> None:
        """Draw a frame next; its pixels are read until `on_drawn` is called.

        Parameters
        ----------
        stream
            Index of its stream.
        planes
            The planes to draw; a pane whose plane is not here says why after a moment, unless a newer frame has
            brought it.
        info
            Of the frame; `state` and `where` tell why a plane is missing.
        """
        now = now_ns()
        newest = self._infos.get(stream)
        overtaken = newest is not None and info.camera_ns < newest.camera_ns
        if not overtaken:
            self._infos[stream] = info
        self._fresh = info
        for pane, shown in self._shown.items():
            if pane.stream.index != stream:
                continue
            pixels = planes.get(pane.plane)
            if pixels is None:
                if not overtaken and now - shown.seen_ns > HOLD_NS:
                    self._notice(pane, f"raw only: {info.where}" if info.where else "raw only")
                continue
            shown.seen_ns = now
            self._notice(pane, "")
            if now - shown.learnt_ns > LEARN_NS:
                shown.learnt_ns = now
                if shown.contrast.learn(subsample(pixels), now) and shown.contrast.limits:
                    self.panes.set_limits(pane, shown.contrast.limits)
            self.panes.set_plane(pane, pixels)
            shown.value = self._value(pane, pixels)

    def _value(self, pane: Pane, pixels: np.ndarray[Any, Any]) -> float | None:
        at = self._under()
        if at is None:
            return None
        row = int(at[1] * pixels.shape[0] / pane.across[1])
        column = int(at[0] * pixels.shape[1] / pane.across[0])
        inside = 0 <= row < pixels.shape[0] and 0 <= column < pixels.shape[1]
        return float(pixels[row, column]) if inside else None

    def _under(self) -> tuple[float, float] | None:
        hit = self.panes.at(*self._cursor) if self._cursor else None
        return hit[1:] if hit else None

    def _notice(self, pane: Pane, text: str) -> None:
        if self._shown[pane].notice != text:
            self._shown[pane].notice = text
            self._write_over()

    def _drawn(self, at_ns: int) -> None:
        self._drawn_ns.append(at_ns)
        if self._fresh is not None:
            self._late_ns.append(at_ns - self._fresh.camera_ns)
            self._fresh = None
        self._on_drawn(at_ns)

    def end(self, why: str) -> None:
        """Say why no frame will come any more; empty where one may come again."""
        self._ended = why
        self.write_figures()

    def write_figures(self) -> None:
        """Write frame number, rate, latency and state; a few times a second, since nobody reads faster."""
        now = now_ns()
        recent = [ns for ns in self._drawn_ns if now - ns < 2_000_000_000]
        rate = (len(recent) - 1) / max((recent[-1] - recent[0]) * 1e-9, 1e-9) if len(recent) > 1 else 0.0
        newest = max(self._infos.values(), key=lambda info: info.received_ns, default=None)
        if newest is not None:
            number = newest.camera_number if newest.camera_number >= 0 else newest.seq
            self.bars.set_figures(number, rate, statistics.median(self._late_ns) * 1e-6 if self._late_ns else None)
        self.bars.set_zoom(self.panes.panes[0].zoom * self.devicePixelRatioF())
        self.bars.set_cursor(self._under(), [s.value for s in self._shown.values() if s.value is not None])
        missing = next((s.notice for s in self._shown.values() if s.notice), "")
        if self._ended:
            self.bars.set_state("idle", self._ended)
        elif newest is None:
            self.bars.set_state("idle", "waiting for frames")
        elif missing:
            self.bars.set_state("warn", missing)
        elif len(recent) == 0:
            self.bars.set_state("idle", "no new frames")
        else:
            self.bars.set_state("good", "live")
        self._write_over()

    def _write_over(self) -> None:
        if not hasattr(self, "overlay"):
            return  # the panes tell of their first view before the window is built
        captions = [self._caption(pane, shown) for pane, shown in self._shown.items()]
        if captions != self.overlay.captions:
            self.overlay.captions = captions
            self.overlay.update()

    def _caption(self, pane: Pane, shown: _Shown) -> Caption:
        limits = shown.contrast.limits
        detail = f"{_short(limits)}  {'auto' if shown.contrast.auto else 'fixed'}" if limits else ""
        um = pane.stream.pixel_um / pane.zoom if pane.stream.pixel_um else None
        name = f"{self._named[pane.stream.index]}  {pane.plane}" if len(self._named) > 1 else pane.plane
        return Caption(pane.place, name, detail, um, shown.notice, pane.plane != RAW)

    def switch_contrast(self) -> None:
        """Automatic contrast on or off for all planes; off where some are on."""
        contrasts = [shown.contrast for shown in self._shown.values()]
        wanted = not any(contrast.auto for contrast in contrasts)
        for pane, shown in self._shown.items():
            if shown.contrast.auto != wanted:
                shown.contrast.switch()
                if shown.contrast.limits:
                    self.panes.set_limits(pane, shown.contrast.limits)
        self._write_over()

    def save(self, path: Path) -> bool:
        """Write what the window shows as PNG."""
        self.write_figures()
        self.bars.lay_out()
        return bool(self.grab().save(str(path), "PNG"))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Obey a key."""
        key, text = event.key(), event.text().lower()
        if key == Qt.Key.Key_Space or text == "f":
            self.panes.fit()
        elif text == "a":
            self.switch_contrast()
        elif text in ("h", "?") or key == Qt.Key.Key_F1:
            self.overlay.help = not self.overlay.help
            self.overlay.update()
        elif text == "q" or key == Qt.Key.Key_Escape:
            self.close()
        else:
            super().keyPressEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the canvas's size, and the cursor over it."""
        if event.type() == QEvent.Type.Resize:
            self.overlay.setGeometry(self.panes.canvas.native.rect())
            self._write_over()
        elif isinstance(event, QMouseEvent) and event.type() == QEvent.Type.MouseMove:
            self._cursor = (event.position().x(), event.position().y())
        elif event.type() == QEvent.Type.Leave:
            self._cursor = None
        return super().eventFilter(watched, event)

    def showEvent(self, event: QShowEvent) -> None:
        """Show the pictures whole, once the canvas has its size."""
        super().showEvent(event)
        if not event.spontaneous():  # coming back from the task bar must not undo the user's zoom
            QTimer.singleShot(0, self.panes.fit)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Save the picture if asked for, and tell."""
        if self.screenshot is not None:
            self.save(self.screenshot)
            self.screenshot = None
        self._slow.stop()
        self._on_closed()
        super().closeEvent(event)


def _short(limits: tuple[float, float]) -> str:
    digits = 0 if limits[1] - limits[0] >= 20 else 2 if limits[1] - limits[0] >= 0.2 else 4
    return f"{limits[0]:.{digits}f} – {limits[1]:.{digits}f}"
