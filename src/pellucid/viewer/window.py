"""The window around the panes: what it shows of a frame, its keys and its figures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, QSize, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QKeyEvent, QMouseEvent, QPalette, QShowEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.viewer import look, settings
from pellucid.viewer.actions import find, told_keys
from pellucid.viewer.arrangement import ARRANGEMENTS, Cell, matches
from pellucid.viewer.asking import Asking
from pellucid.viewer.bars import Bars
from pellucid.viewer.captions import captions_of
from pellucid.viewer.colours import Tone, colour_map, tone_for
from pellucid.viewer.commands import commands_of
from pellucid.viewer.contrast import Given, contrast_for
from pellucid.viewer.histograms import Histograms
from pellucid.viewer.knobs import LIST, Knobs
from pellucid.viewer.names import names_of, title_of
from pellucid.viewer.note import Losses, Note, told_losses
from pellucid.viewer.overlay import Overlay
from pellucid.viewer.pane import Pane
from pellucid.viewer.panes import Panes
from pellucid.viewer.shown import Shown
from pellucid.viewer.slices import Slices
from pellucid.viewer.stack import MANNERS
from pellucid.viewer.tools import Tools

__all__ = ["Look", "ViewerWindow"]

WRITE_MS = 250
SIZE = (1280, 740)
"""Width and height in logical pixels where neither the config nor the user has said another."""
SMALLEST = 240
NO_SWITCH = 'no recorder here can be started and stopped. In the config: [[sinks]] kind = "recorder", start = "armed"'
NO_STACK = 'there is no stack here that can be looked through. In the config: [session] unit = "stack"'
BLINK_MS = 500
"""Each of two pictures is seen for so long where they blink."""


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
    arrangement, overlay, stack
        As the config says; None for what the user had last.
    chain
        What the stages compute with, in words.
    colormap, gamma
        For all planes, or a table of planes; None for what the user had last.
    most
        See `pellucid.viewer.panes.Panes`.
    """

    title: str = ""
    size: tuple[int, int] | None = None
    contrast: Given | Mapping[str, Given] = "auto"
    arrangement: str | None = None
    overlay: bool | None = None
    stack: str | None = None
    chain: str = ""
    colormap: str | Mapping[str, str] | None = None
    gamma: float | Mapping[str, float] | None = None
    most: int | None = None


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def clock(unix_ns: int) -> str:
    """Return the local time of day, to the millisecond."""
    return f"{time.strftime('%H:%M:%S', time.localtime(unix_ns // 10**9))}.{unix_ns // 10**6 % 1000:03d}"


def fitting(size: object, screen: QSize) -> tuple[int, int]:
    """Return a remembered size, no larger than this screen; the usual one where it is none."""
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n >= SMALLEST for n in size)):
        return SIZE
    return min(size[0], screen.width()), min(size[1], screen.height())


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
        self._rates: tuple[float, float] | None = None
        self._dragged: Cell | None = None
        self._ended = ""
        self._tones: dict[str, Tone] = {}
        self._kept, trouble = settings.load()
        self.screenshot: Path | None = None

        self.setObjectName("window")
        self.setStyleSheet(look.STYLE)
        self.setAutoFillBackground(True)
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, look.BACK)
        self.setPalette(palette)

        self.panes = Panes(self._drawn, self._write_over, look_.most)
        canvas = self.panes.canvas.native
        canvas.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        canvas.setMouseTracking(True)
        canvas.installEventFilter(self)
        self.overlay = Overlay(canvas)
        self.knobs = Knobs(canvas, asking)
        self.histograms = Histograms(self._write_over)
        self.commands = commands_of(self)
        self.overlay.keys = told_keys(self.commands)
        self.tools = Tools(self.commands)
        self.bars = Bars(self._ask, self.tools)
        self.bars.set_chain(look_.chain)
        self.slices = Slices(lambda z: self.step_z(z - self.panes.stacks[0].z))
        self._build(canvas)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._blinks = QTimer(self)
        self._blinks.timeout.connect(self.panes.blink)
        self.put(range(len(streams)), streams, planes)
        self._recall(look_)
        if trouble:
            self.overlay.say(trouble, look.WARN)

        self._slow = QTimer(self)
        self._slow.timeout.connect(self.write_figures)
        self._slow.start(WRITE_MS)

    def _build(self, canvas: QWidget) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.bars.header)
        layout.addWidget(canvas, 1)
        layout.addWidget(self.slices)
        layout.addWidget(self.histograms)
        layout.addWidget(self.bars.losses)
        layout.addWidget(self.bars.footer)
        self.bars.set_state("idle", "waiting for frames")

    def _recall(self, given: Look) -> None:
        """Begin as the config says, or as the user had it last."""
        kept = self._kept
        self.resize(*(given.size or fitting(kept.get("size"), self.screen().availableGeometry().size())))
        arrangement = given.arrangement or kept.get("arrangement")
        self.set_arrangement(arrangement if arrangement in list(ARRANGEMENTS) else "side")
        overlay = kept.get("overlay") is True if given.overlay is None else given.overlay
        if overlay:
            self.set_overlay(True)  # also where there is nothing to lay over yet: channels may begin later
        self.overlay.texts = kept.get("texts", True) is not False
        manner = given.stack or kept.get("stack")
        self.set_manner(manner if manner in list(MANNERS) else "max")  # of stacks that begin later, too
        self.tools.refresh()

    def _remember(self) -> None:
        """Keep for the next run what the user has chosen; what the config says is the config's."""
        chosen: dict[str, Any] = {"texts": self.overlay.texts}
        if self._look.size is None and not self.isMaximized():
            chosen["size"] = [self.width(), self.height()]
        if self._look.arrangement is None:
            chosen["arrangement"] = self.panes.arrangement
        known = _table(self._kept.get("tones"))
        tones = {
            plane: {"colormap": tone.name, "gamma": tone.gamma}
            for plane, tone in self._tones.items()
            if tone.told or plane in known
        }
        if tones and self._look.colormap is None and self._look.gamma is None:
            chosen["tones"] = {**known, **tones}
        if self._look.stack is None and self.panes.stacks:
            chosen["stack"] = self.panes.manner
        if self._look.overlay is None and len(self._rows) > 1:
            chosen["overlay"] = self.panes.overlay
        if any(self._kept.get(key) != value for key, value in chosen.items()):
            settings.save(chosen)

    def has_pairs(self) -> bool:
        """Tell whether a stream shows more than one plane."""
        return any(len(row) > 1 for row in self._rows)

    def set_arrangement(self, name: str) -> None:
        """Arrange raw and restored; `name` is one of `ARRANGEMENTS`."""
        self.panes.arrangement = name
        self.panes.lay_out()
        if name == "blink":
            self._blinks.start(BLINK_MS)
        else:
            self._blinks.stop()

    def next_arrangement(self) -> None:
        """Take the next arrangement of raw and restored."""
        if not self.has_pairs():
            self.overlay.say("there is one plane here: nothing to arrange", look.WARN)
            return
        names = list(ARRANGEMENTS)
        self.set_arrangement(names[(names.index(self.panes.arrangement) + 1) % len(names)])

    def set_overlay(self, on: bool) -> None:
        """Lay channels over each other, or beside."""
        self.panes.overlay = on
        self.panes.lay_out()

    def switch_overlay(self) -> None:
        """Lay channels over each other, or beside; says why where it cannot."""
        why = "" if self.panes.overlay else matches([row for row in self.panes.rows if row])
        if why:
            self.overlay.say(why, look.WARN)
        else:
            self.set_overlay(not self.panes.overlay)

    def _tone_of(self, plane: str) -> Tone:
        """Return the tone of a plane, which all streams have in common."""
        if plane not in self._tones:
            kept = _table(_table(self._kept.get("tones")).get(plane))
            names = self._look.colormap if self._look.colormap is not None else kept.get("colormap")
            gammas = self._look.gamma if self._look.gamma is not None else kept.get("gamma")
            tone = tone_for(names, gammas, plane)
            try:
                colour_map(tone.name)
            except ValueError:  # remembered from another version; what the config says has been looked at
                tone.name = "gray"
            self._tones[plane] = tone
        return self._tones[plane]

    def _chosen(self) -> list[str]:
        """Return the plane under the cursor, or all."""
        under = self._under()
        return [under[0].plane] if under else list(dict.fromkeys(shown.pane.plane for shown in self.shown))

    def next_colormap(self) -> None:
        """Show the plane under the cursor in the next colour map; all planes where there is none under it."""
        for plane in self._chosen():
            self._tones[plane].next()
        self._apply_tones()

    def change_gamma(self, factor: float) -> None:
        """Change the gamma of the plane under the cursor by a factor; of all planes where there is none under it."""
        for plane in self._chosen():
            self._tones[plane].change_gamma(factor)
        self._apply_tones()

    def _apply_tones(self) -> None:
        for shown in self.shown:
            shown.apply()
        self._write_over()

    def switch_histogram(self) -> None:
        """Show the histograms or hide them."""
        self.histograms.setVisible(self.histograms.isHidden())
        self._write_histograms()

    def _write_histograms(self) -> None:
        """Show the histograms of the stream under the cursor, or of the first."""
        if self.histograms.isHidden() or not self._rows:
            return
        under = self._under()
        self.histograms.show_planes(self._rows[under[0].position if under else 0])

    def next_manner(self) -> None:
        """Show stacks as their maximum, by slice, as a volume; says so where there are none."""
        if not self.panes.stacks:
            self.overlay.say(NO_STACK, look.WARN)
            return
        names = list(MANNERS)
        self.set_manner(names[(names.index(self.panes.manner) + 1) % len(names)])

    def set_manner(self, name: str) -> None:
        """Show stacks in a manner; `name` is one of `MANNERS`."""
        self.panes.show_stacks(manner=name)
        self._write_slice()

    def step_z(self, by: int) -> None:
        """Show another slice."""
        if not self.panes.stacks:
            self.overlay.say(NO_STACK, look.WARN)
            return
        deepest = max(self.panes.stacks, key=lambda stack: stack.depth)
        self.panes.show_stacks(manner="slice", z=deepest.z + by)
        self._write_slice()

    def _write_slice(self) -> None:
        """Show the slider as it should be now."""
        stacks = self.panes.stacks
        self.slices.setVisible(bool(stacks) and self.panes.manner == "slice")
        if stacks:
            deepest = max(stacks, key=lambda stack: stack.depth)
            self.slices.set(deepest.z, deepest.depth)
        for shown in self.shown:
            if shown.pane.stack is not None:
                shown.relearn(shown.pane.stack.picture(), now_ns())
        self.tools.refresh()
        self._write_over()

    def press_record(self) -> None:
        """Start or stop recording; says so where there is nothing to switch."""
        if not self.bars.recording.press():
            self.overlay.say(NO_SWITCH, look.WARN)

    def switch_texts(self) -> None:
        """Names and scale bars on or off."""
        self.overlay.texts = not self.overlay.texts
        self.overlay.update()

    def switch_help(self) -> None:
        """Show the list of keys or hide it."""
        self.overlay.help = not self.overlay.help
        self.overlay.update()

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
                row.append(Shown(pane, contrast, "", self._tone_of(pane.plane)))
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
        rows = [row for row in self.panes.rows if row]
        if self.panes.overlay and len(rows) > 1 and (why := matches(rows)):
            self.overlay.say(why, look.WARN)
        self._write_slice()

    def begin_again(
        self,
        streams: Sequence[Stream],
        planes: Sequence[Mapping[str, Spec]],
        chain: str,
    ) -> None:
        """Show another session from now on; zoom, limits and all that the user has chosen stay.

        Parameters
        ----------
        streams, planes
            All that it has.
        chain
            What its stages compute with.
        """
        for position in range(len(streams), len(self._rows)):
            self.panes.put(position, self._rows[position][0].pane.stream if self._rows[position] else streams[0], {})
        del self._rows[len(streams) :]
        self.panes.cut(len(streams))
        self._infos.clear()
        self._ended = ""
        self._losses = self._rates = None
        self._write_losses()
        self.bars.recording.tell({})
        self.bars.set_chain(chain)
        self.put(range(len(streams)), streams, planes)

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
        if note.rates is not None:
            self._rates = note.rates
        if note.latency_ms is not None:
            self.bars.set_marks(note.latency_ms)
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
                seen = self.panes.set_plane(shown.pane, pixels)
                shown.show(seen, info, note, now)
                shown.read(seen, under[1:] if under and under[0].across == shown.pane.across else None)
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
            late = np.percentile(self._late_ns, (50, 99)) * 1e-6 if self._late_ns else None
            at = time.time_ns() - now + newest.camera_ns
            late_ms = None if late is None else (float(late[0]), float(late[1]))
            self.bars.set_figures(number, clock(at), self._told_rates(rate), late_ms, newest.unsure_ns * 1e-6)
        self._write_cursor()
        self._write_histograms()
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

    def _told_rates(self, drawn: float) -> str:
        if self._rates is None:
            return f"{drawn:.1f} frames/s"
        camera, restored = self._rates
        computed = f"restored {restored:.1f}   " if self.has_pairs() else ""
        return f"camera {camera:.1f}   {computed}shown {drawn:.1f} /s"

    def _write_cursor(self) -> None:
        under = self._under()
        pane = under[0] if under else next(iter(self.panes.panes), None)
        if pane is None:
            return
        self.bars.set_zoom(pane.zoom * self.devicePixelRatioF())
        # Of the stream under the cursor only: with many the line would be full of numbers that nobody can tell apart.
        positions = [pane.position]
        if under and self.panes.overlay:
            positions = self.panes.positions_at(pane)
        values = [shown.values for position in positions for shown in self._rows[position]]
        self.bars.set_cursor(under[1:] if under else None, values)

    def _write_losses(self) -> None:
        cameras = {stream.camera for stream in self._streams}
        cameras.update(camera for places in (self._losses or {}).values() for camera in places)
        self.bars.set_losses(told_losses(self._losses, len(cameras)))

    def _write_over(self) -> None:
        if not hasattr(self, "overlay"):
            return  # the panes tell of their first view before the window is built
        captions, lines = captions_of(self.panes.cells, self.shown), self.panes.lines()
        if captions != self.overlay.captions or lines != self.overlay.lines:
            self.overlay.captions, self.overlay.lines = captions, lines
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
        action = find(self.commands, event)
        if action is None:
            super().keyPressEvent(event)
        else:
            action.do()
            self.tools.refresh()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the canvas's size, and the cursor over it."""
        if event.type() == QEvent.Type.Resize:
            self.overlay.setGeometry(self.panes.canvas.native.rect())
            self._write_over()
        elif isinstance(event, QMouseEvent):
            if self._mouse(event):
                return True
        elif event.type() == QEvent.Type.Leave:
            self._cursor = None
        return super().eventFilter(watched, event)

    def _mouse(self, event: QMouseEvent) -> bool:
        """Follow the mouse; return whether the event is for the line of a split place, and for nobody else."""
        x, y = event.position().x(), event.position().y()
        canvas = self.panes.canvas.native
        if event.type() == QEvent.Type.MouseMove:
            self._cursor = (x, y)
            if self._dragged is not None:
                self.panes.move_line(self._dragged, x)
                return True
            if self.panes.line_at(x, y) is not None:
                canvas.setCursor(Qt.CursorShape.SplitHCursor)
            else:
                canvas.unsetCursor()
        elif event.type() == QEvent.Type.MouseButtonPress and event.button() == Qt.MouseButton.LeftButton:
            self._dragged = self.panes.line_at(x, y)
            return self._dragged is not None
        elif event.type() == QEvent.Type.MouseButtonRelease and self._dragged is not None:
            self._dragged = None
            return True
        elif event.type() == QEvent.Type.MouseButtonDblClick:
            self.panes.switch_alone(self.panes.under(x, y))
        return False

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
        self._blinks.stop()
        self._remember()
        self._on_closed()
        super().closeEvent(event)
