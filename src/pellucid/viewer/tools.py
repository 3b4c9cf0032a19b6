"""The tool bar: a small button for each action that has a label."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QToolButton, QWidget

from pellucid.viewer.actions import Action

__all__ = ["Tools"]


class Tools(QWidget):
    """Buttons in a row.

    Parameters
    ----------
    actions
        In their order; those without a label are left out.
    """

    def __init__(self, actions: Sequence[Action]) -> None:
        super().__init__()
        self._buttons: list[tuple[Action, QToolButton]] = []
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        for action in actions:
            if not action.label:
                continue
            button = QToolButton()
            button.setObjectName("tool")
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys are the window's
            button.setCheckable(action.is_on is not None)
            button.setToolTip(f"{action.text} ({action.keys[0]})")
            button.clicked.connect(lambda _=False, action=action: self._do(action))
            row.addWidget(button, alignment=Qt.AlignmentFlag.AlignVCenter)
            self._buttons.append((action, button))
        self.refresh()

    def button(self, name: str) -> QToolButton:
        """Return the button of an action."""
        return next(button for action, button in self._buttons if action.name == name)

    def refresh(self) -> None:
        """Show how things are now."""
        for action, button in self._buttons:
            button.setText(action.says)
            button.setVisible(bool(action.says))
            if action.is_on is not None:
                button.setChecked(action.is_on())

    def _do(self, action: Action) -> None:
        action.do()
        self.refresh()
