"""What is written over the panes: names, limits, places, scale bars, why a plane is missing, the keys."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt, QTimer
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from pellucid.picture import scale_bar_um
from pellucid.viewer import look

__all__ = ["KEYS", "Caption", "Overlay"]

KEYS = (
    ("drag", "move"),
    ("wheel, right drag", "zoom"),
    ("F, space", "fit"),
    ("double click", "one stream alone, or all again"),
    ("A", "automatic contrast on or off"),
    ("R", "start or stop recording"),
    ("S", "snap: pictures and data of the newest frame"),
    ("K", "parameters of the stages"),
    ("T", "names and scale bars on or off"),
    ("H, ?", "this list"),
    ("Q, Esc", "close; the run goes on"),
)

WORD_MS = 8000
"""So long a line that answers somebody stays."""


@dataclass(slots=True)
class Caption:
    """What is written over one pane.

    Parameters
    ----------
    place
        Left, top, width, height in logical pixels.
    name, detail
        Of the plane, and its limits.
    um
        Micrometres across one logical pixel; None where the pixel's size is unknown.
    notice
        Said in the middle, over a darkened pane.
    accent
        Is this a computed plane?
    taken
        Where in its experiment the frame was taken.
    """

    place: tuple[float, float, float, float]
    name: str
    detail: str
    um: float | None = None
    notice: str = ""
    accent: bool = False
    taken: str = ""


class Overlay(QWidget):
    """A transparent sheet over the canvas; the mouse goes through it."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.captions: list[Caption] = []
        self.texts, self.help = True, False
        self.word, self._colour = "", look.TEXT
        self._fades = QTimer(self)
        self._fades.setSingleShot(True)
        self._fades.timeout.connect(lambda: self.say(""))

    def say(self, text: str, colour: str = look.TEXT) -> None:
        """Write a line over the panes for a while; empty takes it away."""
        self.word, self._colour = text, colour
        if text:
            self._fades.start(WORD_MS)
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw everything; runs when something written here changed, not for every frame."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for caption in self.captions:
            place = QRectF(*caption.place)
            painter.setClipRect(place)
            if caption.notice:
                self._notice(painter, place, caption.notice)
            if self.texts:
                self._title(painter, place, caption)
            if self.texts and caption.um:
                self._scale_bar(painter, place, caption.um)
        painter.setClipping(False)
        if self.word:
            self._word(painter)
        if self.help:
            self._help(painter)
        painter.end()

    def _title(self, painter: QPainter, place: QRectF, caption: Caption) -> None:
        strong, small = _font(13, QFont.Weight.DemiBold), _font(11)
        room = max(0.0, place.width() - 40)
        if QFontMetricsF(strong).horizontalAdvance(caption.name) > room:
            strong = _font(11, QFont.Weight.DemiBold)
        wide, narrow = QFontMetricsF(strong), QFontMetricsF(small)
        name = wide.elidedText(caption.name, Qt.TextElideMode.ElideMiddle, room)  # the end tells raw from restored
        taken = narrow.elidedText(caption.taken, Qt.TextElideMode.ElideRight, room)
        left, right = wide.horizontalAdvance(name), narrow.horizontalAdvance(caption.detail)
        detail = caption.detail if left + 10 + right <= room else ""  # of a small pane the name is worth more
        across = max(left + (right + 10 if detail else 0), narrow.horizontalAdvance(taken))
        tag = QRectF(place.left() + 10, place.top() + 10, across + 20, 42 if taken else 26)
        _plate(painter, tag, 220)
        inside = QRectF(tag.left() + 10, tag.top(), across, 26)
        painter.setFont(strong)
        painter.setPen(QColor(look.ACCENT if caption.accent else look.TEXT))
        painter.drawText(inside, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, name)
        painter.setFont(small)
        painter.setPen(QColor(look.MUTED))
        painter.drawText(inside, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, detail)
        painter.setPen(QColor(look.TEXT))
        painter.drawText(inside.translated(0, 18), Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, taken)

    def _scale_bar(self, painter: QPainter, place: QRectF, um: float) -> None:
        length_um, label = scale_bar_um(um * place.width() * 0.28)
        width, font = length_um / um, _font(11)
        plate = QRectF(0, 0, max(width, QFontMetricsF(font).horizontalAdvance(label)) + 20, 32)
        plate.moveBottomRight(QPointF(place.right() - 10, place.bottom() - 10))
        _plate(painter, plate, 200)
        painter.setFont(font)
        painter.setPen(QColor(look.TEXT))
        painter.drawText(plate.adjusted(0, 3, 0, -12), Qt.AlignmentFlag.AlignCenter, label)
        bar = QRectF(0, 0, width, 3)
        bar.moveCenter(QPointF(plate.center().x(), plate.bottom() - 8))
        painter.fillRect(bar, QColor(look.TEXT))

    def _notice(self, painter: QPainter, place: QRectF, text: str) -> None:
        painter.fillRect(place, QColor(0, 0, 0, 200))
        painter.setFont(_font(13))
        painter.setPen(QColor(look.WARN))
        inside = place.adjusted(24, 24, -24, -24)
        painter.drawText(inside, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, text)

    def _word(self, painter: QPainter) -> None:
        painter.setFont(_font(13))
        flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
        room = QRectF(self.rect()).adjusted(40, 40, -40, -60)
        text = painter.boundingRect(room, flags, self.word)
        text.moveBottom(room.bottom())
        plate = text.adjusted(-16, -10, 16, 10)
        _plate(painter, plate, 235)
        painter.setPen(QPen(QColor(self._colour), 1))
        painter.drawRoundedRect(plate, 5, 5)
        painter.drawText(text, flags, self.word)

    def _help(self, painter: QPainter) -> None:
        strong, plain = _font(12, QFont.Weight.DemiBold), _font(12)
        first = max(QFontMetricsF(strong).horizontalAdvance(key) for key, _ in KEYS)
        second = max(QFontMetricsF(plain).horizontalAdvance(what) for _, what in KEYS)
        line = 25
        card = QRectF(0, 0, first + second + 72, line * len(KEYS) + 32)
        card.moveCenter(QRectF(self.rect()).center())
        _plate(painter, card, 235)
        painter.setPen(QPen(QColor(look.LINE), 1))
        painter.drawRoundedRect(card, 6, 6)
        for row, (key, what) in enumerate(KEYS):
            at = QRectF(card.left() + 24, card.top() + 16 + row * line, card.width() - 48, line)
            painter.setFont(strong)
            painter.setPen(QColor(look.TEXT))
            painter.drawText(at, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, key)
            painter.setFont(plain)
            painter.setPen(QColor(look.MUTED))
            painter.drawText(
                at.adjusted(first + 24, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, what
            )


def _font(pixels: int, weight: QFont.Weight = QFont.Weight.Normal) -> QFont:
    font = QFont([name.strip().strip('"') for name in look.FONT.split(",")])
    font.setPixelSize(pixels)
    font.setWeight(weight)
    return font


def _plate(painter: QPainter, place: QRectF, alpha: int) -> None:
    back = QColor(look.BACK)
    back.setAlpha(alpha)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(back)
    painter.drawRoundedRect(place, 5, 5)
    painter.setBrush(Qt.BrushStyle.NoBrush)
