"""The lines above and below the panes: title and state, what did not arrive, figures and cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from PySide6.QtWidgets import QLabel, QWidget

from pellucid.viewer.bar import Bar
from pellucid.viewer.recording import RecordingBar

__all__ = ["Bars"]

THIN_SPACE = "\u202f"


class Bars:
    """Header and footer.

    Parameters
    ----------
    on_record
        See `pellucid.viewer.recording.RecordingBar`.
    tools
        Beside it.

    Attributes
    ----------
    header, footer : Bar
    recording : RecordingBar
    losses : QLabel
        What did not arrive; not there as long as nothing is missing.
    """

    def __init__(self, on_record: Callable[[str], None], tools: QWidget | None = None) -> None:
        self.recording = RecordingBar(on_record)
        self._title = _label("", "title")
        self._state = _label("", "state")
        self._rate, self._frame, self._latency, self._time = _label(""), _label(""), _label(""), _label("")
        self._zoom, self._pixel = _label("", "muted"), _label("", "muted")
        for label, width in ((self._frame, 120), (self._rate, 110)):
            label.setMinimumWidth(width)  # figures that change in length must not push their neighbours about
        hint = _label("? keys", "muted")
        self.losses = _label("", "losses")
        self.losses.setWordWrap(True)
        self.losses.setMinimumWidth(1)
        self.losses.setIndent(0)
        self.losses.hide()
        self._chain = _label("", "muted")
        parts = [self._title, self._chain, None, *([tools] if tools else []), self.recording, self._state]
        goes = [self._chain, self._title, *([tools] if tools else [])]  # the title is over the window as well
        self.header = Bar("header", 40, parts, goes)
        figures = [self._frame, self._time, self._rate, self._latency]
        goes = [hint, self._zoom, self._time, self._latency, self._rate]
        self.footer = Bar("footer", 30, [*figures, None, self._pixel, self._zoom, hint], goes)

    def set_title(self, title: str) -> None:
        """Write the title."""
        self._title.setText(title)

    def set_losses(self, text: str) -> None:
        """Say what did not arrive, in red; empty for nothing."""
        self.losses.setText(text)
        self.losses.setVisible(bool(text))

    @property
    def state(self) -> str:
        """The text of the state."""
        return self._state.text()

    def set_state(self, mood: str, text: str) -> None:
        """Say how things are; the mood (``"good"``, ``"warn"``, ``"idle"``) gives the colour."""
        if self._state.text() == text and self._state.property("mood") == mood:
            return
        self._state.setText(text)
        self._state.setProperty("mood", mood)
        self._state.style().unpolish(self._state)  # Qt looks at a property of a style sheet only then
        self._state.style().polish(self._state)

    def set_chain(self, text: str) -> None:
        """Write what the stages compute with."""
        self._chain.setText(text)

    def set_figures(
        self, number: int, time: str, rates: str, late_ms: tuple[float, float] | None, unsure_ms: float = 0.0
    ) -> None:
        """Write the frame's number and time, what comes how often, and the latency from camera to drawn: p50, p99.

        Of frames of another computer with how well its clock is known.
        """
        self._frame.setText(f"frame {number:,}".replace(",", THIN_SPACE))
        self._time.setText(time)
        self._rate.setText(rates)
        late = "" if late_ms is None else f"latency p50 {late_ms[0]:.1f}, p99 {late_ms[1]:.1f} ms"
        self._latency.setText(f"{late} ±{unsure_ms:.1f}" if late and unsure_ms >= 0.05 else late)

    def set_marks(self, marks: Mapping[str, Sequence[float]]) -> None:
        """Tell where the time goes, for whoever looks closer: p50 and p99 of each mark of the whole run, in ms."""
        lines = ["from the camera's time stamp, p50 and p99 of the run:"]
        lines += [f"{mark}: {p50:.1f}, {p99:.1f} ms" for mark, (p50, p99) in marks.items() if mark != "±"]
        if "±" in marks:
            lines.append(f"the clocks of the two computers are known to ±{marks['±'][0]:.3f} ms")
        self._latency.setToolTip("\n".join(lines))

    def set_cursor(self, at: tuple[float, float] | None, planes: Sequence[Sequence[float]]) -> None:
        """Write where the cursor is, in pixels of the raw plane, and what the planes hold there."""
        values = (" ".join(f"{value:.6g}" for value in plane) for plane in planes if plane)
        texts = [f"x {int(at[0])}  y {int(at[1])}", *values] if at else []
        self._pixel.setText("   ".join(texts))

    def set_zoom(self, zoom: float) -> None:
        """Write the magnification: pixels of the screen for a pixel of the raw plane."""
        self._zoom.setText(f"{zoom:.0%}")

    def lay_out(self) -> None:
        """Give each text its room now, where the next turn of Qt's loop would be too late."""
        for bar in (self.header, self.footer):
            layout = bar.layout()
            if layout is not None:
                layout.activate()


def _label(text: str, name: str = "") -> QLabel:
    label = QLabel(text)
    label.setObjectName(name)
    return label
