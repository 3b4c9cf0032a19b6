"""The drawer of live parameters: a field for each key of the stages that can be changed while the session runs.

What there is to change, with bounds, the session says (``set.list``); what somebody changes here is asked of it
(``set``), and the fields then show what really runs, whoever changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtGui import QKeyEvent, QMouseEvent, QWheelEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QGridLayout,
    QLabel,
    QLineEdit,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from pellucid.viewer import look
from pellucid.viewer.asking import Asking

__all__ = ["Knobs"]

LIST, SET = "set.list", "set"
ACROSS = 300
LOOK_MS = 2000
"""Between two looks at what others have changed."""
TOGETHER_MS = 200
"""Changes that come within this time are one: a wheel that is turned makes many."""
_LARGE = 1e9
_FINE = 1e-6
_STYLE = f"""
QFrame#knobs {{ background: {look.BACK}; border-left: 1px solid {look.LINE}; }}
QFrame#knobs QLabel {{ color: {look.MUTED}; }}
QFrame#knobs QLabel#stage {{ color: {look.TEXT}; font-weight: 600; }}
QFrame#knobs QScrollArea, QFrame#knobs QWidget#inside {{ background: {look.BACK}; border: none; }}
QFrame#knobs QSpinBox, QFrame#knobs QDoubleSpinBox, QFrame#knobs QComboBox, QFrame#knobs QLineEdit {{
    color: {look.TEXT}; background: {look.BACK}; border: 1px solid {look.LINE}; border-radius: 3px; padding: 2px 4px;
}}
QFrame#knobs QCheckBox {{ color: {look.TEXT}; }}
"""


class Knobs(QFrame):
    """The drawer, at the right over the pictures; hidden until it is switched on.

    Parameters
    ----------
    parent
        Over which it lies.
    asking
        The session; None where there is none.

    Attributes
    ----------
    fields : dict of str to QWidget
        By key.
    """

    def __init__(self, parent: QWidget, asking: Asking | None) -> None:
        super().__init__(parent)
        self.setObjectName("knobs")
        self.setStyleSheet(_STYLE)
        self.fields: dict[str, QWidget] = {}
        self._over = parent
        self._asking = asking
        self._told: list[Mapping[str, Any]] = []
        self._waiting: dict[str, Any] = {}
        self._word = QLabel("waiting for the session")
        self._word.setWordWrap(True)
        self._grid_of = QScrollArea()
        self._grid_of.setWidgetResizable(True)
        self._grid_of.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 12, 8, 12)
        layout.addWidget(self._word)
        layout.addWidget(self._grid_of, 1)
        self._looks, self._gathers = QTimer(self), QTimer(self)
        self._looks.timeout.connect(self._look)
        self._gathers.setSingleShot(True)
        self._gathers.timeout.connect(self._send)
        if asking is not None:
            asking.told.connect(self._take)
            asking.answered.connect(self._answered)
        parent.installEventFilter(self)
        self.hide()

    def switch(self) -> None:
        """Open or close the drawer."""
        if self.isVisible():
            self._looks.stop()
            self.hide()
            self.window().setFocus()
            return
        self._place()
        self.show()
        self.raise_()
        if self._asking is None:
            self._word.setText("this window has no session whose parameters could be changed")
            return
        self._look()
        self._looks.start(LOOK_MS)

    # ---------------------------------------------------------------- with the session

    def _look(self) -> None:
        if self._asking is not None and not self._waiting:
            self._asking.ask(LIST)

    def _send(self) -> None:
        changes, self._waiting = self._waiting, {}
        if self._asking is not None and changes:
            self._asking.ask(SET, {"changes": changes, "by": "window"})

    def _answered(self, command: str, done: bool, text: str) -> None:
        if command == SET:
            self._look()
        elif command == LIST and not done:
            self._word.setText(text)
            self._word.show()

    def _take(self, command: str, answer: object) -> None:
        """Take over what the session says can be changed."""
        told = answer.get("knobs") if isinstance(answer, Mapping) else None
        if command != LIST or not isinstance(told, list):
            return
        told = [knob for knob in told if isinstance(knob, Mapping) and _maker(knob) is not None]
        self._word.setText("" if told else "this session has no stages")
        self._word.setVisible(not told)
        if [_shape(knob) for knob in told] != [_shape(knob) for knob in self._told]:
            self._build(told)
        self._told = told
        for knob in told:
            field = self.fields[str(knob["key"])]
            if not field.hasFocus() and str(knob["key"]) not in self._waiting:
                field.blockSignals(True)
                _put(field, knob)
                field.blockSignals(False)

    def _change(self, key: str, value: Any) -> None:
        self._waiting[key] = value
        self._gathers.start(TOGETHER_MS)

    # ---------------------------------------------------------------- fields

    def _build(self, told: Sequence[Mapping[str, Any]]) -> None:
        inside = QWidget()
        inside.setObjectName("inside")
        grid = QGridLayout(inside)
        grid.setContentsMargins(0, 0, 8, 0)
        grid.setColumnStretch(1, 1)
        self.fields = {}
        row, before = 0, ""
        for knob in told:
            key = str(knob["key"])
            number, name = key.split(".")[1], ".".join(key.split(".")[2:])
            if number != before:
                before = number
                title = QLabel(f"{knob.get('stage', '')}   stages.{number}")
                title.setObjectName("stage")
                grid.addWidget(title, row, 0, 1, 2)
                row += 1
            maker = _maker(knob)
            assert maker is not None
            field = self.fields[key] = maker(knob, partial(self._change, key))
            field.setToolTip(key)
            label = QLabel(name)
            label.setToolTip(key)
            grid.addWidget(label, row, 0)
            grid.addWidget(field, row, 1)
            row += 1
        grid.setRowStretch(row, 1)
        self._grid_of.setWidget(inside)

    # ---------------------------------------------------------------- place and keys

    def _place(self) -> None:
        room = self._over.rect()
        across = min(ACROSS, room.width())
        self.setGeometry(room.right() - across + 1, 0, across, room.height())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay at the right of what lies below."""
        if event.type() == QEvent.Type.Resize:
            self._place()
        return super().eventFilter(watched, event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Keep what is typed here from being a key of the window; escape closes the drawer."""
        if event.key() == Qt.Key.Key_Escape:
            self.switch()
        event.accept()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Keep it from the picture below."""
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Keep it from the picture below."""
        event.accept()


Changed = Callable[[Any], None]


def _shape(knob: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in knob.items() if key != "value"}


def _maker(knob: Mapping[str, Any]) -> Callable[[Mapping[str, Any], Changed], QWidget] | None:
    """Return what makes the field of a key; None for tables, which are edited in the config file."""
    makers: dict[str, Callable[[Mapping[str, Any], Changed], QWidget]] = {
        "boolean": _check_box,
        "integer": _spin_box,
        "number": _spin_box,
        "choice": _choices,
        "string": _line,
    }
    return makers.get(str(knob.get("type")))


def _check_box(_: Mapping[str, Any], changed: Changed) -> QWidget:
    box = QCheckBox()
    box.toggled.connect(changed)
    return box


def _choices(knob: Mapping[str, Any], changed: Changed) -> QWidget:
    box = QComboBox()
    box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    if knob.get("optional"):
        box.addItem("default", None)
    for choice in knob.get("choices", []):
        box.addItem(str(choice), choice)
    box.activated.connect(lambda at: changed(box.itemData(at)))
    return box


def _line(_: Mapping[str, Any], changed: Changed) -> QWidget:
    line = QLineEdit()
    line.editingFinished.connect(lambda: changed(line.text() or None) if line.isModified() else None)
    return line


def _spin_box(knob: Mapping[str, Any], changed: Changed) -> QWidget:
    """Make a field for a number; below its smallest one may stand what is allowed in place of a number."""
    whole = knob["type"] == "integer"
    box: QSpinBox | QDoubleSpinBox = QSpinBox() if whole else _Number()
    step = 1 if whole else _FINE
    low, high = knob.get("min", knob.get("above")), knob.get("max", knob.get("below"))
    low = max(-_LARGE, -_LARGE if low is None else low + (step if "min" not in knob else 0))
    high = min(_LARGE, _LARGE if high is None else high - (step if "max" not in knob else 0))
    others = list(knob.get("choices", [])) or ([None] if knob.get("optional") else [])
    if others:
        box.setSpecialValueText("default" if others[0] is None else str(others[0]))
        low -= step
    if isinstance(box, QSpinBox):
        box.setRange(int(low), int(high))
    else:
        box.setDecimals(6)
        box.setRange(float(low), float(high))
    box.setStepType(QSpinBox.StepType.AdaptiveDecimalStepType)
    box.setKeyboardTracking(False)  # a number is one when it is typed to its end
    box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def told(value: float) -> None:
        special = bool(others) and value <= box.minimum()
        changed(others[0] if special else int(value) if whole else float(value))

    box.valueChanged.connect(told)
    return box


class _Number(QDoubleSpinBox):
    """Writes numbers as people do."""

    def textFromValue(self, value: float) -> str:
        """Return it without zeros at its end."""
        return f"{value:.6g}"


def _put(field: QWidget, knob: Mapping[str, Any]) -> None:
    """Show the value of a key."""
    value = knob.get("value")
    if isinstance(field, QCheckBox):
        field.setChecked(bool(value))
    elif isinstance(field, QComboBox):
        field.setCurrentIndex(next((i for i in range(field.count()) if field.itemData(i) == value), 0))
    elif isinstance(field, QLineEdit):
        field.setText("" if value is None else str(value))
    elif isinstance(field, QSpinBox | QDoubleSpinBox):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number and field.specialValueText():
            field.setSpecialValueText("default" if value is None else str(value))
        number = value if is_number else field.minimum()
        field.setValue(int(number) if isinstance(field, QSpinBox) else number)  # type: ignore[arg-type]
