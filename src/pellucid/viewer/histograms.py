"""The histograms of a stream's planes, side by side below the pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtWidgets import QFrame, QHBoxLayout

from pellucid.viewer.histogram import Histogram
from pellucid.viewer.shown import Shown

__all__ = ["Histograms"]


class Histograms(QFrame):
    """As many histograms as the stream has planes.

    Parameters
    ----------
    on_limits
        Called when a limit was changed by hand.

    Attributes
    ----------
    each : list of Histogram
        Of the planes, in their order.
    """

    def __init__(self, on_limits: Callable[[], None]) -> None:
        super().__init__()
        self.setObjectName("histograms")
        self._on_limits = on_limits
        self.each: list[Histogram] = []
        self._shown: list[Shown] = []
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 1, 0, 0)
        self._row.setSpacing(1)
        self.hide()

    def show_planes(self, shown: Sequence[Shown]) -> None:
        """Show the histograms of these planes as they are now."""
        self._shown = list(shown)
        while len(self.each) < len(shown):
            self.each.append(self._make(len(self.each)))
        for at, histogram in enumerate(self.each):
            histogram.setVisible(at < len(shown))
        for one, histogram in zip(shown, self.each, strict=False):
            contrast = one.contrast
            histogram.show_sample(one.name, contrast.sample, contrast.limits, auto=contrast.auto)

    def switch_log(self) -> None:
        """Draw counts as logarithms, or as they are."""
        for histogram in self.each:
            histogram.log = not histogram.log
            histogram.update()

    def _make(self, at: int) -> Histogram:
        histogram = Histogram()

        def limit(low: float, high: float) -> None:
            self._shown[at].contrast.hold(low, high)
            self._changed(at)

        def release() -> None:
            if not self._shown[at].contrast.auto:
                self._shown[at].contrast.switch()
            self._changed(at)

        histogram.limited.connect(limit)
        histogram.released.connect(release)
        self._row.addWidget(histogram, 1)
        return histogram

    def _changed(self, at: int) -> None:
        self._shown[at].apply()
        self.show_planes(self._shown)
        self._on_limits()
