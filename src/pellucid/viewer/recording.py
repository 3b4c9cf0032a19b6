"""What is being recorded, in the header: a light, its figures, and the button that starts and stops it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QWidget

from pellucid.viewer import look

__all__ = ["RecordingBar", "told_recording"]

SOON_S = 600
"""A disk that is full within this time is told in colour."""


class RecordingBar(QWidget):
    """Light, text and button; not there as long as nothing records.

    Parameters
    ----------
    on_press
        Called with ``"record.start"`` or ``"record.stop"`` where somebody presses the button.
    """

    def __init__(self, on_press: Callable[[str], None]) -> None:
        super().__init__()
        self._on_press = on_press
        self._told: Mapping[str, Any] = {}
        self._asking = False
        self._light = _Light()
        self._text = QLabel()
        self._text.setObjectName("recording")
        self.button = QPushButton()
        self.button.setObjectName("record")
        self.button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys are the window's
        self.button.clicked.connect(self.press)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        for part in (self._light, self._text, self.button):
            row.addWidget(part, alignment=Qt.AlignmentFlag.AlignVCenter)
        self.hide()

    @property
    def text(self) -> str:
        """What is written beside the light."""
        return self._text.text()

    @property
    def light(self) -> str:
        """Colour of the light."""
        return self._light.colour

    def tell(self, told: Mapping[str, Any]) -> None:
        """Show what the session tells of its recorders, as `pellucid.viewer.note` reads it.

        With ``only_look`` the button is grey: others may press it.
        """
        self._told = told
        colour, mood, text = told_recording(told)
        self._light.set_colour(colour)
        self._text.setText(text)
        if self._text.property("mood") != mood:
            self._text.setProperty("mood", mood)
            self._text.style().unpolish(self._text)  # Qt looks at a property of a style sheet only then
            self._text.style().polish(self._text)
        self.button.setVisible(bool(told.get("switch")) and not told.get("failed"))
        self.button.setText("Stop" if told.get("on") else "Record")
        self.button.setToolTip("stop recording (R)" if told.get("on") else "start recording (R)")
        self._wait(self._asking)
        self.setVisible(bool(told))

    def press(self) -> bool:
        """Start or stop, as the button would; return False where there is nothing to switch."""
        if not self._told.get("switch") or self._told.get("failed"):
            return False
        if not self._asking:  # a second press would undo the first
            self._wait(True)
            self._on_press("record.stop" if self._told.get("on") else "record.start")
        return True

    def answered(self) -> None:
        """Take the next press: the session has answered."""
        self._wait(False)

    def _wait(self, asking: bool) -> None:
        self._asking = asking
        self.button.setEnabled(not asking and not self._told.get("only_look"))


class _Light(QWidget):
    """A dot."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = look.MUTED
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(12, 12)

    def set_colour(self, colour: str) -> None:
        if colour != self.colour:
            self.colour = colour
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(self.colour))
        painter.drawEllipse(self.rect().adjusted(1, 1, -1, -1))
        painter.end()


def told_recording(told: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the light's colour, the text's mood, and such as ``0:12   1 204 frames   310 MB   disk full in 41 min``.

    Parameters
    ----------
    told
        ``on``, ``switch``, ``failed``, ``frames``, ``mb``, ``for_s``, ``held_s``, ``left_s``, each as far as known.
    """
    if told.get("failed"):
        return look.WARN, "warn", "recording failed: frames are not recorded"
    left = told.get("left_s")
    full = f"disk full in {_left(left)}" if left is not None else ""
    mood = "warn" if left is not None and left < SOON_S else "good"
    if told.get("on"):
        size = float(told.get("mb", 0))
        parts = [
            _clock(told.get("for_s", 0)),
            f"{told.get('frames', 0):,} frames".replace(",", "\u202f"),
            f"{size:.0f} MB" if size < 1e4 else f"{size / 1e3:.1f} GB",
            full,
        ]
        return look.RECORD, mood, "   ".join(part for part in parts if part)
    held = told.get("held_s")
    parts = ["not recording", f"the last {held:.0f} s would be in it" if held and held >= 0.5 else ""]
    if mood == "warn":
        parts.append(full)
    return look.MUTED, "warn" if mood == "warn" else "idle", "   ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _left(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
