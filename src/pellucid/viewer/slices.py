"""The slider below the pictures that goes through the slices of a stack."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSlider

__all__ = ["Slices"]


class Slices(QFrame):
    """A slider and its number.

    Parameters
    ----------
    on_z
        Called with the slice, counted from 0, that somebody has chosen.

    Attributes
    ----------
    slider : QSlider
    """

    def __init__(self, on_z: Callable[[int], None]) -> None:
        super().__init__()
        self.setObjectName("slices")
        self.setFixedHeight(30)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys are the window's
        self._text = QLabel()
        self._text.setMinimumWidth(70)
        row = QHBoxLayout(self)
        row.setContentsMargins(14, 0, 14, 0)
        row.setSpacing(18)
        row.addWidget(self._text)
        row.addWidget(self.slider, 1)
        self.slider.valueChanged.connect(on_z)
        self.hide()

    def set(self, z: int, depth: int) -> None:
        """Show where it is; calls nobody."""
        self.slider.blockSignals(True)
        self.slider.setRange(0, depth - 1)
        self.slider.setValue(z)
        self.slider.blockSignals(False)
        self._text.setText(f"z {z + 1}/{depth}")
