"""One pane and what the window knows of it beyond its picture: contrast, notice, place in the experiment."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.protocols import RAW, FrameInfo
from pellucid.viewer.aim import Aim
from pellucid.viewer.colours import Tone
from pellucid.viewer.contrast import Contrast, subsample
from pellucid.viewer.names import where_taken
from pellucid.viewer.note import Note
from pellucid.viewer.overlay import Caption
from pellucid.viewer.pane import Pane

__all__ = ["HOLD_NS", "Shown"]

LEARN_NS = 150_000_000
HOLD_NS = 700_000_000
"""A plane that is missing for less than this keeps its last picture: single frames that skip do not flicker."""


class Shown:
    """A pane in use.

    Parameters
    ----------
    pane
    contrast, tone
        Of its plane.
    name
        Over the pane.

    Attributes
    ----------
    notice : str
        Why its plane is missing; empty where it is not.
    values : tuple of float
        Under the cursor; three of a colour picture.
    seen_ns : int
        When it was last given pixels.
    """

    def __init__(self, pane: Pane, contrast: Contrast, name: str, tone: Tone | None = None) -> None:
        self.pane, self.contrast, self.name = pane, contrast, name
        self.tone = tone or Tone()
        self._aim = Aim(contrast)
        self.notice = ""
        self.values: tuple[float, ...] = ()
        self.seen_ns = 0
        self._learnt_ns = 0
        self._info: FrameInfo | None = None
        self._note = Note()
        self.apply()

    def apply(self) -> None:
        """Show the plane within the limits of its contrast, and in its colours."""
        if self.contrast.limits:
            self.pane.set_limits(self.contrast.limits)
        self.pane.set_tone(self.tone)

    def show(self, pixels: np.ndarray[Any, Any], info: FrameInfo, note: Note, now_ns: int) -> None:
        """Take over a frame whose pixels the pane was given."""
        self.seen_ns, self.notice = now_ns, ""
        self._info, self._note = info, note
        changed = self._aim.take(now_ns)
        if now_ns - self._learnt_ns > LEARN_NS:
            if not self.contrast.settled:
                changed |= self.contrast.learn(subsample(pixels), now_ns)
                self._learnt_ns = now_ns
            elif not self._aim.busy:
                self._aim.look(subsample(pixels))
                self._learnt_ns = now_ns
        if changed:
            self.apply()

    def relearn(self, pixels: np.ndarray[Any, Any], now_ns: int) -> None:
        """Take over that something else is seen of the same frame."""
        if not self.seen_ns:
            return  # there was none yet, and limits that follow slowly would begin at its black
        self._aim.forget()
        if self.contrast.auto:
            self.contrast.restart()
        if self.contrast.learn(subsample(pixels), now_ns):
            self.apply()

    def miss(self, where: str, now_ns: int) -> None:
        """Take over that a frame does not bring this plane."""
        if now_ns - self.seen_ns > HOLD_NS:
            self.notice = f"raw only: {where}" if where else "raw only"

    def read(self, pixels: np.ndarray[Any, Any], at: tuple[float, float] | None) -> None:
        """Note the values at a point of the raw plane."""
        self.values = ()
        if at is not None:
            height, width = pixels.shape[-2:]
            row = int(at[1] * height / self.pane.across[1])
            column = int(at[0] * width / self.pane.across[0])
            if 0 <= row < height and 0 <= column < width:
                self.values = tuple(float(value) for value in np.atleast_1d(pixels[..., row, column]))

    def caption(self) -> Caption:
        """Return what is written over the pane now."""
        pane, limits = self.pane, self.contrast.limits
        place = pane.seen or (0.0, 0.0, 0.0, 0.0)
        detail = f"{_short(limits)}  {'auto' if self.contrast.auto else 'fixed'}" if limits else ""
        um = pane.stream.pixel_um / pane.zoom if pane.stream.pixel_um else None
        taken = where_taken(pane.stream, self._info.axes, self._note.places) if self._info is not None else ""
        projection = pane.stream.details.get("projections", {}).get(pane.plane, "")
        if pane.stack is not None:
            projection = pane.stack.told
        thin = f"every {pane.thin}{_ordinal(pane.thin)} pixel: the graphics take no more" if pane.thin > 1 else ""
        tone = self.tone.told if pane.colour is None and not pane.spec.is_colour else ""
        taken = "   ".join(text for text in (taken, projection, tone, thin) if text)
        return Caption(place, self.name, detail, um, self.notice, pane.plane != RAW, taken)


def _ordinal(number: int) -> str:
    return {1: "st", 2: "nd", 3: "rd"}.get(number if number < 20 else number % 10, "th")


def _short(limits: tuple[float, float]) -> str:
    digits = 0 if limits[1] - limits[0] >= 20 else 2 if limits[1] - limits[0] >= 0.2 else 4
    return f"{limits[0]:.{digits}f} – {limits[1]:.{digits}f}"
