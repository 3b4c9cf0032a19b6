"""What can be done in the window, in one table: its keys, its tool bar and its list of keys are made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeyEvent

__all__ = ["MOUSE", "Action", "find", "told_keys"]

MOUSE = (
    ("drag", "move"),
    ("wheel, right drag", "zoom to the cursor"),
    ("double click", "one stream alone, or all again"),
    ("drag the line", "where it is split"),
)
"""What the mouse does, for the list of keys."""

_NAMED = {Qt.Key.Key_Space: "Space", Qt.Key.Key_Escape: "Esc", Qt.Key.Key_F1: "F1"}


@dataclass(frozen=True, slots=True)
class Action:
    """Something that can be done.

    Parameters
    ----------
    name
        By which a program finds it.
    keys
        Letters as they are written on the keys, and names: ``"F"``, ``"?"``, ``"Space"``; the first is told.
    text
        For the list of keys and the tool's tip.
    do
        Does it.
    label
        On its button in the tool bar; a function for one that changes. Empty: no button.
    is_on
        Whether a button that stays down is down now; None for one that does not.
    once
        Do nothing while the key is held down.
    """

    name: str
    keys: tuple[str, ...]
    text: str
    do: Callable[[], None]
    label: str | Callable[[], str] = ""
    is_on: Callable[[], bool] | None = None
    once: bool = False

    @property
    def says(self) -> str:
        """What is on its button now."""
        return self.label if isinstance(self.label, str) else self.label()


def find(actions: Iterable[Action], event: QKeyEvent) -> Action | None:
    """Return what a key does; None where it does nothing."""
    try:
        named = _NAMED.get(Qt.Key(event.key()), "")
    except ValueError:  # a key that Qt has no name for
        named = ""
    held = event.modifiers() & (Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier)
    typed = "" if held else event.text().upper()
    for action in actions:
        if named in action.keys or (typed and typed in action.keys):
            return None if action.once and event.isAutoRepeat() else action
    return None


def told_keys(actions: Sequence[Action]) -> list[tuple[str, str]]:
    """Return the list of keys: key and what it does, the mouse first."""
    return [*MOUSE, *((", ".join(action.keys), action.text) for action in actions)]
