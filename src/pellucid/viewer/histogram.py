"""The histogram of a plane, with the limits as lines that can be dragged."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFont, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from pellucid.viewer import look

__all__ = ["BINS", "Histogram", "counts_of"]

BINS = 160
REACH = 8
"""Logical pixels beside a line from which it can be dragged."""
ABOVE, BELOW, BESIDE = 22, 18, 12
"""Logical pixels around the bars, for what is written there."""


def counts_of(
    sample: np.ndarray[Any, Any], limits: tuple[float, float] | None
) -> tuple[np.ndarray[Any, Any], float, float]:
    """Return the counts of a sample in `BINS` bins, and where the first begins and the last ends.

    The bins span the sample and the limits. A sample that is constant lies in the middle of a range of its own; one
    without any finite value gives counts of 0.

    Parameters
    ----------
    sample
        Finite values, such as `pellucid.viewer.contrast.subsample` takes.
    limits
        Low, high; None where there are none yet.
    """
    ends = [float(v) for v in (sample.min(), sample.max())] if sample.size else []
    ends += list(limits or ())
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    if not low < high:
        half = max(abs(low) * 0.5, 0.5)
        low, high = low - half, high + half
    room = (high - low) * 0.02
    low, high = low - room, high + room
    counts, _ = np.histogram(sample.astype(np.float64, copy=False), BINS, (low, high))
    return counts, low, high


class Histogram(QWidget):
    """Bars, two lines, and what they stand for.

    Attributes
    ----------
    limited : Signal of (float, float)
        Somebody has dragged a limit: low and high.
    released : Signal
        Somebody wants automatic limits again: a double click.
    log : bool
        Counts are drawn as logarithms.
    """

    limited = Signal(float, float)
    released = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("histogram")
        self.setFixedHeight(120)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys are the window's
        self.setToolTip("drag a limit; double click for automatic limits; L: logarithmic or not")
        self.log = True
        self._name, self._auto = "", True
        self._counts = np.zeros(BINS, np.int64)
        self._range = (0.0, 1.0)
        self._limits: tuple[float, float] | None = None
        self._dragged: int | None = None

    def show_sample(
        self, name: str, sample: np.ndarray[Any, Any], limits: tuple[float, float] | None, *, auto: bool
    ) -> None:
        """Show the histogram of a sample; while a limit is dragged the range stays."""
        self._name, self._auto, self._limits = name, auto, limits
        if self._dragged is None:
            self._counts, *ends = counts_of(sample, limits)
            self._range = (ends[0], ends[1])
        self.update()

    def x_of(self, value: float) -> float:
        """Return where a value lies, in logical pixels from the left."""
        low, high = self._range
        return BESIDE + (value - low) / (high - low) * (self.width() - 2 * BESIDE)

    def value_at(self, x: float) -> float:
        """Return the value that lies at a place."""
        low, high = self._range
        return low + (x - BESIDE) / max(self.width() - 2 * BESIDE, 1) * (high - low)

    def _line_at(self, x: float) -> int | None:
        if self._limits is None:
            return None
        away = [abs(self.x_of(value) - x) for value in self._limits]
        nearest = 0 if away[0] < away[1] or (away[0] == away[1] and x < self.x_of(self._limits[0])) else 1
        return nearest if away[nearest] <= REACH else None

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take hold of a limit."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._dragged = self._line_at(event.position().x())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Move the limit that is held; it stops at the other one."""
        x = event.position().x()
        if self._dragged is None or self._limits is None:
            over = self._line_at(x) is not None
            self.setCursor(Qt.CursorShape.SplitHCursor if over else Qt.CursorShape.ArrowCursor)
            return
        low, high = self._limits
        step = (self._range[1] - self._range[0]) / (10 * BINS)
        value = self.value_at(x)
        low, high = (min(value, high - step), high) if self._dragged == 0 else (low, max(value, low + step))
        self._limits, self._auto = (low, high), False
        self.limited.emit(low, high)
        self.update()

    def mouseReleaseEvent(self, _event: QMouseEvent) -> None:
        """Let go of it."""
        self._dragged = None

    def mouseDoubleClickEvent(self, _event: QMouseEvent) -> None:
        """Ask for automatic limits."""
        self._dragged = None
        self.released.emit()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw bars, lines and figures."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(look.BAR))
        inside = QRectF(BESIDE, ABOVE, self.width() - 2 * BESIDE, self.height() - ABOVE - BELOW)
        heights = np.log1p(self._counts) if self.log else self._counts.astype(float)
        most, width = float(heights.max()), inside.width() / BINS
        for i, height in enumerate(heights / most if most > 0 else ()):
            if height > 0:
                bar = QRectF(inside.left() + i * width, 0, max(width, 1.0), max(height * inside.height(), 1.0))
                bar.moveBottom(inside.bottom())
                painter.fillRect(bar, QColor("#5b6775"))
        painter.setFont(_font())
        painter.setPen(QColor(look.TEXT))
        top = QRectF(inside.left(), 2, inside.width(), ABOVE - 4)
        painter.drawText(top, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, self._name)
        painter.setPen(QColor(look.MUTED))
        how = f"{'logarithmic' if self.log else 'linear'}   {'auto' if self._auto else 'fixed'}"
        nothing = "" if most > 0 else "no finite value   "
        painter.drawText(top, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, nothing + how)
        for i, value in enumerate(self._limits or ()):
            x = self.x_of(value)
            painter.setPen(QPen(QColor(look.ACCENT), 2 if self._dragged == i else 1.2))
            painter.drawLine(round(x), ABOVE - 2, round(x), round(inside.bottom()) + 3)
            painter.setPen(QColor(look.ACCENT))
            at = QRectF(x - 60, inside.bottom() + 2, 120, BELOW - 3)
            at.moveLeft(min(max(at.left(), inside.left() - 4), inside.right() - 116))
            side = Qt.AlignmentFlag.AlignHCenter
            painter.drawText(at, side, f"{value:.5g}")
        painter.end()


def _font() -> QFont:
    font = QFont([name.strip().strip('"') for name in look.FONT.split(",")])
    font.setPixelSize(11)
    return font
