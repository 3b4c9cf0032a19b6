"""A line of texts and buttons that leaves out the less important ones where the window is narrow."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QWidget

__all__ = ["Bar"]

SPACING = 18
MARGIN = 14


class Bar(QFrame):
    """Parts in a row.

    Parameters
    ----------
    name
        For the style sheet.
    height
        In logical pixels.
    parts
        Left to right; None pushes what follows to the right.
    goes
        Of the parts, those that may be left out, the first one first. The bar alone shows and hides them.
    """

    def __init__(self, name: str, height: int, parts: Sequence[QWidget | None], goes: Sequence[QWidget] = ()) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setFixedHeight(height)
        self.setMinimumWidth(1)  # a narrow window cuts the texts; they must not make it wide
        row = QHBoxLayout(self)
        row.setContentsMargins(MARGIN, 0, MARGIN, 0)
        row.setSpacing(SPACING)
        for part in parts:
            if part is None:
                row.addStretch(1)
            else:
                row.addWidget(part, alignment=Qt.AlignmentFlag.AlignVCenter)
        self._parts = [part for part in parts if part is not None]
        self._goes = list(goes)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """See what has room now."""
        super().resizeEvent(event)
        self.fit()

    def event(self, event: QEvent) -> bool:
        """See what has room where a text has changed its length, or a part was hidden."""
        done = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest:
            self.fit()
        return done

    def fit(self) -> None:
        """Hide as many parts as must be, and no more; whole ones, since half a figure is a wrong figure."""
        room = self.width() - 2 * MARGIN
        wide = {id(part): part.sizeHint().width() + SPACING for part in self._parts}
        there = [part for part in self._parts if part in self._goes or not part.isHidden()]
        need = sum(wide[id(part)] for part in there) - SPACING
        for part in self._goes:
            hides = need > room
            need -= wide[id(part)] if hides else 0
            if part.isHidden() != hides:
                part.setVisible(not hides)
