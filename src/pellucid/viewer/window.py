"""The window around the panes: what it shows of a frame, its keys and its figures."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QKeyEvent, QMouseEvent, QPalette, QShowEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.viewer import look
from pellucid.viewer.asking import Asking
from pellucid.viewer.bars import Bars
from pellucid.viewer.contrast import Given, contrast_for
from pellucid.viewer.knobs import LIST, Knobs
from pellucid.viewer.names import names_of, title_of
from pellucid.viewer.note import Losses, Note, told_losses
from pellucid.viewer.overlay import Overlay
from pellucid.viewer.pane import Pane
from pellucid.viewer.panes import Panes
from pellucid.viewer.shown import Shown

__all__ = ["Look", "ViewerWindow"]

WRITE_MS = 250
NO_SWITCH = 'no recorder here can be started and stopped. In the config: [[sinks]] kind = "recorder", start = "armed"'
SMALL = 300
"""Logical pixels across a pane, below which only the first plane of a stream has a scale bar."""


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
    """The planes of every stream side by side.

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
    asking
        The session, for what the window can ask of it; None where there is none to ask.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        planes: Sequence[Mapping[str, Spec]],
        look_: Look,
        on_drawn: Callable[[int], None] = lambda _ns: None,
        on_closed: Callable[[], None] = lambda: None,
        asking: Asking | None = None,
    ) -> None:
        super().__init__()
        self._on_drawn, self._on_closed = on_drawn, on_closed
        self._asking = asking
        if asking is not None:
            asking.answered.connect(self._answered)
        self._look = look_
        self._streams: list[Stream] = []
        self._rows: list[list[Shown]] = []
        self._infos: dict[int, FrameInfo] = {}
        self._fresh: FrameInfo | None = None
        self._drawn_ns: deque[int] = deque(maxlen=240)
        self._late_ns: deque[int] = deque(maxlen=240)
        self._cursor: tuple[float, float] | None = None
        self._losses: Losses | None = None
        self._ended = ""
        self.screenshot: Path | None = None

        self.setObjectName("window")
        self.setStyleSheet(look.STYLE)
        self.setAutoFillBackground(True)
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, look.BACK)
        self.setPalette(palette)

        self.panes = Panes(self._drawn, self._write_over)
        canvas = self.panes.canvas.native
        canvas.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        canvas.setMouseTracking(True)
        canvas.installEventFilter(self)
        self.overlay = Overlay(canvas)
        self.knobs = Knobs(canvas, asking)
        self.bars = Bars(self._ask)
        self._build(canvas)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.put(range(len(streams)), streams, planes)
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
        layout.addWidget(self.bars.losses)
        layout.addWidget(self.bars.footer)
        self.bars.set_state("idle", "waiting for frames")

    @property
    def shown(self) -> list[Shown]:
        """What is shown, in the order of the panes."""
        return [shown for row in self._rows for shown in row]

    def put(self, positions: Iterable[int], streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]]) -> None:
        """Show other streams from now on; nothing of those that they replace stays.

        Parameters
        ----------
        positions
            Of those in `streams` that are new or others than before, ascending.
        streams, planes
            All of them.
        """
        self._streams = list(streams)
        for position in positions:
            before = self._rows[position] if position < len(self._rows) else []
            known = {(shown.pane.plane, shown.pane.spec.dtype): shown.contrast for shown in before}
            row = []
            for pane in self.panes.put(position, streams[position], planes[position]):
                contrast = known.get((pane.plane, pane.spec.dtype))
                if contrast is None:
                    contrast = contrast_for(self._look.contrast, pane.plane, is_colour=pane.spec.is_colour)
                else:
                    contrast.restart()  # the same camera sees another part of the specimen
                row.append(Shown(pane, contrast, ""))
            self._rows[position : position + 1] = [row]
            self._infos.pop(position, None)
        self._fresh = None
        names = names_of(streams)
        for shown in self.shown:
            name = names[shown.pane.position]
            shown.name = f"{name}  {shown.pane.plane}" if name else shown.pane.plane
        title = self._look.title or title_of(streams)
        self.setWindowTitle(f"{title} - pellucid")
        self.bars.set_title(title)
        self._write_over()

    def show_frame(
        self, position: int, planes: Mapping[str, np.ndarray[Any, Any]], info: FrameInfo, note: Note | None = None
    ) -> None:
        """Draw a frame next; its pixels are read until `on_drawn` is called.

        Parameters
        ----------
        position
            Of its stream.
        planes
            The planes to draw; a pane whose plane is not here says why after a moment, unless a newer frame has
            brought it. Without any this is a word about what did not arrive, and no frame.
        info
            Of the frame.
        note
            What else is told of it.
        """
        note = note or Note()
        if note.losses is not None and note.losses != self._losses:
            self._losses = note.losses
            self._write_losses()
        if note.recording is not None:
            self.bars.recording.tell(note.recording)
        if not planes:
            return
        now = now_ns()
        newest = self._infos.get(position)
        overtaken = newest is not None and info.camera_ns < newest.camera_ns
        if not overtaken:
            self._infos[position] = info
        self._fresh = info
        notices = [shown.notice for shown in self._rows[position]]
        under = self._under()
        for shown in self._rows[position]:
            pixels = planes.get(shown.pane.plane)
            if pixels is not None:
                shown.show(pixels, info, note, now)
                self.panes.set_plane(shown.pane, pixels)
                shown.read(pixels, under[1:] if under and under[0].across == shown.pane.across else None)
            elif not overtaken:
                shown.miss(note.where, now)
        if notices != [shown.notice for shown in self._rows[position]]:
            self._write_over()

    def _ask(self, command: str, given: Mapping[str, Any] | None = None) -> None:
        if self._asking is None:
            self._answered(command, False, "this window has no session to ask")
        else:
            self._asking.ask(command, given)

    def switch_knobs(self) -> None:
        """Open or close the drawer of live parameters."""
        self.knobs.switch()

    def snap(self) -> None:
        """Have the session write its newest frame, with the display limits as they are seen here."""
        limits = [
            {"camera": s.pane.stream.camera, "channel": s.pane.stream.channel, "plane": s.pane.plane, "limits": seen}
            for s in self.shown
            if (seen := s.contrast.limits) is not None
        ]
        self._ask("snap", {"limits": limits})

    def _answered(self, command: str, done: bool, text: str) -> None:
        if command == LIST:
            return  # the drawer's
        if command.startswith("record."):
            self.bars.recording.answered()
        self.overlay.say(text, look.TEXT if done else look.WARN)

    def _under(self) -> tuple[Pane, float, float] | None:
        return self.panes.at(*self._cursor) if self._cursor else None

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
        self._write_cursor()
        missing = next((shown.notice for shown in self.shown if shown.notice), "")
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

    def _write_cursor(self) -> None:
        under = self._under()
        pane = under[0] if under else next(iter(self.panes.panes), None)
        if pane is None:
            return
        self.bars.set_zoom(pane.zoom * self.devicePixelRatioF())
        # Of the stream under the cursor only: with many the line would be full of numbers that nobody can tell apart.
        self.bars.set_cursor(under[1:] if under else None, [shown.values for shown in self._rows[pane.position]])

    def _write_losses(self) -> None:
        cameras = {stream.camera for stream in self._streams}
        cameras.update(camera for places in (self._losses or {}).values() for camera in places)
        self.bars.set_losses(told_losses(self._losses, len(cameras)))

    def _write_over(self) -> None:
        if not hasattr(self, "overlay"):
            return  # the panes tell of their first view before the window is built
        captions = []
        for row in self._rows:
            texts = [shown.caption() for shown in row]
            for text in texts[1:]:
                if text.um == texts[0].um and text.place[2] < SMALL:
                    text.um = None  # there is no room to say it twice
            captions += texts
        if captions != self.overlay.captions:
            self.overlay.captions = captions
            self.overlay.update()

    def switch_contrast(self) -> None:
        """Automatic contrast on or off for all planes; off where some are on."""
        wanted = not any(shown.contrast.auto for shown in self.shown)
        for shown in self.shown:
            if shown.contrast.auto != wanted:
                shown.contrast.switch()
                shown.apply()
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
        elif text == "r" and not event.isAutoRepeat():
            if not self.bars.recording.press():
                self.overlay.say(NO_SWITCH, look.WARN)
        elif text == "k":
            self.switch_knobs()
        elif text == "s" and not event.isAutoRepeat():
            self.snap()
        elif text == "t":
            self.overlay.texts = not self.overlay.texts
            self.overlay.update()
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
        elif isinstance(event, QMouseEvent) and event.type() == QEvent.Type.MouseButtonDblClick:
            self.panes.switch_alone(self.panes.under(event.position().x(), event.position().y()))
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
