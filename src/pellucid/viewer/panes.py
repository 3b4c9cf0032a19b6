"""The pictures: one pane a plane on one canvas, zoomed together, in an arrangement that follows the canvas."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from vispy import app, scene
from vispy.gloo import gl

from pellucid.metrics import now_ns
from pellucid.protocols import Spec, Stream
from pellucid.viewer import look
from pellucid.viewer.layout import lay_out
from pellucid.viewer.pane import Pane, make_pane

__all__ = ["Pane", "Panes"]


class Panes:
    """All panes of the window.

    Parameters
    ----------
    on_drawn
        Called with a time on the clock of `pellucid.metrics` each time that new pixels have been drawn: the
        textures are uploaded, the GPU has finished drawing them (``glFinish``), and the swap that puts them
        on the screen has been asked of the window system and has returned. What the display itself adds
        (scan-out, a compositor) is not in it.
    on_view
        Called when the visible area or the place of a pane changed.

    Attributes
    ----------
    alone : int or None
        Position of the only stream that is shown now, None for all.
    """

    def __init__(self, on_drawn: Callable[[int], None], on_view: Callable[[], None]) -> None:
        self._on_drawn = on_drawn
        self._on_view = on_view
        self._fresh = self._painted = self._following = False
        self._rows: list[list[Pane]] = []
        self.alone: int | None = None
        self.canvas = scene.SceneCanvas(
            app=app.use_app("pyside6"), keys=None, show=False, bgcolor=look.BACK, vsync=True, resizable=True
        )
        self.canvas.events.draw.connect(self._draw, position="last")
        self.canvas.events.resize.connect(lambda _event: self.lay_out())
        self.canvas.native.frameSwapped.connect(self._swapped)

    @property
    def panes(self) -> list[Pane]:
        """All, in the order of their streams."""
        return [pane for row in self._rows for pane in row]

    def put(self, position: int, stream: Stream, planes: Mapping[str, Spec]) -> list[Pane]:
        """Show a stream at a position, in place of the one that was there, or behind the last.

        Parameters
        ----------
        position
            Among the streams.
        stream
        planes
            Those to show, left to right; the first gives the coordinates.

        Returns
        -------
        list of Pane
            Black until their first picture; zoomed as pictures of this size are and were.
        """
        zooms = {pane.across: pane.camera.rect for pane in self.panes}
        if position < len(self._rows):
            for pane in self._rows[position]:
                pane.remove()
            self._rows[position] = []
            gc.collect()  # vispy's nodes know each other in circles, and with them go the textures
        else:
            self._rows.append([])
        height, width = next(iter(planes.values())).shape[-2:] if planes else (1, 1)
        made = [make_pane(self.canvas, position, stream, name, spec, (width, height)) for name, spec in planes.items()]
        for pane in made:
            if pane.across in zooms:
                pane.camera.rect = zooms[pane.across]
            pane.view.scene.transform.changed.connect(partial(self._moved, pane))
        self._rows[position] = made
        self.lay_out()
        return made

    def lay_out(self) -> None:
        """Put every pane where it belongs in a canvas of this size."""
        if self.alone is not None and self.alone >= len(self._rows):
            self.alone = None
        shown = self._rows if self.alone is None else [self._rows[self.alone]]
        shown = [row for row in shown if row]
        width, height = self.canvas.size
        # Those that are not shown stay beside the canvas and are drawn as ever, so that their frames come and go.
        for pane in self.panes:
            pane.place = (width + 16.0, 0.0, *pane.place[2:])
        for row, places in zip(
            shown, lay_out((width, height), [[p.across for p in row] for row in shown]), strict=True
        ):
            for pane, place in zip(row, places, strict=True):
                pane.place = place
        for pane in self.panes:
            pane.smooth()
        self._on_view()

    def fit(self) -> None:
        """Show every picture whole."""
        for pane in self.panes:
            pane.fit()

    def set_plane(self, pane: Pane, pixels: np.ndarray[Any, Any]) -> None:
        """Show `pixels` with the next draw; they are read until then, and not copied before."""
        pane.set_pixels(pixels)
        self._fresh = True

    def under(self, x: float, y: float) -> Pane | None:
        """Return the pane under a point of the canvas."""
        for pane in self.panes:
            left, top, width, height = pane.place
            if left <= x < left + width and top <= y < top + height:
                return pane
        return None

    def at(self, x: float, y: float) -> tuple[Pane, float, float] | None:
        """Return the pane under a point of the canvas, and where in its raw plane the point lies."""
        pane = self.under(x, y)
        if pane is None:
            return None
        left, top = pane.place[:2]
        u, v = pane.camera.transform.imap((x - left, y - top))[:2]
        return (pane, float(u), float(v)) if 0 <= u < pane.across[0] and 0 <= v < pane.across[1] else None

    def switch_alone(self, pane: Pane | None) -> None:
        """Show the stream of a pane alone; or all again, where one is alone."""
        self.alone = pane.position if pane is not None and self.alone is None and len(self._rows) > 1 else None
        self.lay_out()

    def _moved(self, moved: Pane, _event: Any) -> None:
        # vispy's own links of cameras call each other without end as soon as there are three.
        if self._following:
            return
        self._following = True
        for pane in self.panes:
            if pane.across == moved.across and pane.camera.rect != moved.camera.rect:
                pane.camera.rect = moved.camera.rect
        self._following = False
        for pane in self.panes:
            pane.smooth()
        self._on_view()

    def _draw(self, _event: Any) -> None:
        if self._fresh:
            gl.glFinish()
            self._fresh, self._painted = False, True

    def _swapped(self) -> None:
        if self._painted:
            self._painted = False
            self._on_drawn(now_ns())

    def close(self) -> None:
        """Let go of the pixels and of the canvas."""
        self.canvas.close()
