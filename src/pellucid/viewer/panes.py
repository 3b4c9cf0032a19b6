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
from pellucid.viewer.arrangement import Cell, arrange
from pellucid.viewer.channels import colours_of
from pellucid.viewer.graphics import texture_limit
from pellucid.viewer.layout import Place, lay_out
from pellucid.viewer.pane import Pane, make_pane
from pellucid.viewer.shutter import EVERYWHERE, NOWHERE
from pellucid.viewer.stack import Stack

__all__ = ["Pane", "Panes"]

REACH = 6
"""Logical pixels beside a line from which it can be dragged."""


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
    most
        Pixels that the graphics take along an axis of a texture; None: as many as they say.

    Attributes
    ----------
    alone : int or None
        Position of the only stream that is shown now, None for all.
    arrangement : str
        One of `pellucid.viewer.arrangement.ARRANGEMENTS`; with `lay_out` it takes effect, like the next two.
    overlay : bool
        Lay the channels over each other, where they match.
    split : float
        Where the line is, as a share of the width of a place.
    cells : list of Cell
        What is on the canvas now.
    manner : str
        How stacks are shown.
    """

    def __init__(self, on_drawn: Callable[[int], None], on_view: Callable[[], None], most: int | None = None) -> None:
        self._most = texture_limit() if most is None else most
        self._on_drawn = on_drawn
        self._on_view = on_view
        self._fresh = self._painted = self._following = False
        self._rows: list[list[Pane]] = []
        self.alone: int | None = None
        self.arrangement, self.overlay, self.split = "side", False, 0.5
        self.cells: list[Cell] = []
        self._second = False
        self.manner = "max"
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

    @property
    def rows(self) -> list[list[Pane]]:
        """The panes of each stream."""
        return self._rows

    def positions_at(self, pane: Pane) -> list[int]:
        """Return the streams that are seen where a pane is."""
        cell = next((cell for cell in self.cells if pane in cell.panes), None)
        return sorted({one.position for one in cell.panes}) if cell else [pane.position]

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
            gone = self._rows[position]
            self._rows[position] = []
            for pane in self.panes:
                pane.draw_in(pane)  # not in the view of one that goes
            for pane in gone:
                pane.remove()
            self.cells = [cell for cell in self.cells if not any(pane in gone for pane in cell.panes)]
            gc.collect()  # vispy's nodes know each other in circles, and with them go the textures
        else:
            self._rows.append([])
        height, width = next(iter(planes.values())).shape[-2:] if planes else (1, 1)
        made = [
            make_pane(self.canvas, position, stream, name, spec, (width, height), self._most)
            for name, spec in planes.items()
        ]
        for pane in made:
            if pane.across in zooms:
                pane.camera.rect = zooms[pane.across]
            pane.view.scene.transform.changed.connect(partial(self._moved, pane))
            if pane.stack is not None:
                pane.show_stack(self.manner)
                self._give_camera(pane)
        self._rows[position] = made
        self.lay_out()
        for pane in made:
            if pane.is_volume:
                self._look_at(pane)  # only now is known how wide its place is
        return made

    def cut(self, count: int) -> None:
        """Forget all streams behind the first so many, which show nothing any more."""
        del self._rows[count:]
        self.lay_out()

    def lay_out(self) -> None:
        """Put every pane where it belongs in a canvas of this size."""
        if self.alone is not None and self.alone >= len(self._rows):
            self.alone = None
        shown = self._rows if self.alone is None else [self._rows[self.alone]]
        rows = arrange([row for row in shown if row], self.arrangement, overlay=self.overlay)
        width, height = self.canvas.size
        places = lay_out((width, height), [[cell.host.across for cell in row] for row in rows])
        self.cells = [cell for row in rows for cell in row]
        for cell, place in zip(self.cells, [place for row in places for place in row], strict=True):
            cell.place = place
        # Those that are not shown stay beside the canvas and are drawn as ever, so that their frames come and go.
        for pane in self.panes:
            pane.place = (width + 16.0, 0.0, *pane.place[2:])
            pane.seen = None
        on_canvas = {id(pane) for cell in self.cells for pane in cell.panes}
        for pane in self.panes:
            if id(pane) not in on_canvas:
                pane.draw_in(pane)
                pane.tint(None)
        for cell in self.cells:
            self._fill(cell)
        self.open_shutters()
        for pane in self.panes:
            pane.smooth()
        self._on_view()

    def _fill(self, cell: Cell) -> None:
        """Draw the pictures of a cell in its host's view, each in its colour where several lie over each other."""
        for pane in cell.panes:
            # All as large as the host, so that each has the same idea of its zoom.
            pane.place = cell.place if pane is cell.host else (self.canvas.size[0] + 16.0, 0.0, *cell.place[2:])
            pane.draw_in(cell.host)
        for panes in (cell.left, cell.right):
            colours = colours_of([pane.stream.channel for pane in panes]) if len(panes) > 1 else [None] * len(panes)
            for pane, colour in zip(panes, colours, strict=True):
                pane.tint(colour)

    def open_shutters(self) -> None:
        """Show of each picture what is to be seen of it now."""
        scale = self.canvas.pixel_scale
        for cell in self.cells:
            left, top, width, height = cell.place
            line = left + self.split * width
            halves: tuple[Place | None, Place | None] = (cell.place, None)
            if cell.right and self.arrangement == "split":
                halves = (left, top, line - left, height), (line, top, left + width - line, height)
            elif cell.right and self._second:
                halves = None, cell.place
            for panes, seen in zip((cell.left, cell.right), halves, strict=True):
                for pane in panes:
                    pane.seen = seen
                    if seen is None:
                        pane.open_to(NOWHERE)
                    elif seen == cell.place:
                        pane.open_to(EVERYWHERE)
                    else:
                        pane.open_to((seen[0] * scale, (seen[0] + seen[2]) * scale))
        for pane in self.panes:
            if pane.seen is None:
                pane.open_to(NOWHERE)
        self.canvas.update()

    def blink(self) -> None:
        """Show the other picture of a place; to be called now and then while they blink."""
        self._second = not self._second
        self.open_shutters()
        self._on_view()

    def lines(self) -> list[tuple[float, float, float]]:
        """Return ``(x, top, bottom)`` of the lines of split places, in logical pixels."""
        if self.arrangement != "split":
            return []
        return [
            (cell.place[0] + self.split * cell.place[2], cell.place[1], cell.place[1] + cell.place[3])
            for cell in self.cells
            if cell.right
        ]

    def line_at(self, x: float, y: float) -> Cell | None:
        """Return the cell whose line is at a point of the canvas, or so near that a hand would mean it."""
        for cell in self.cells if self.arrangement == "split" else ():
            left, top, width, height = cell.place
            if cell.right and top <= y < top + height and abs(left + self.split * width - x) <= REACH:
                return cell
        return None

    def move_line(self, cell: Cell, x: float) -> None:
        """Move the lines so that that of a cell lies at `x`."""
        self.split = min(max((x - cell.place[0]) / max(cell.place[2], 1.0), 0.0), 1.0)
        self.open_shutters()
        self._on_view()

    def fit(self) -> None:
        """Show every picture whole."""
        for pane in self.panes:
            pane.fit()
            if pane.is_volume:
                self._look_at(pane)

    def set_plane(self, pane: Pane, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Show `pixels` with the next draw, and return what is seen of them; see `Pane.set_pixels`."""
        self._fresh = True
        return pane.set_pixels(pixels)

    @property
    def stacks(self) -> list[Stack]:
        """Those that are shown."""
        return [pane.stack for pane in self.panes if pane.stack is not None]

    def show_stacks(self, manner: str | None = None, z: int | None = None) -> None:
        """Show all stacks in another manner (one of `pellucid.viewer.stack.MANNERS`), or another of their slices."""
        if manner is not None:
            self.manner = manner
        for pane in self.panes:
            pane.show_stack(manner, z)
        for pane in self.panes:
            self._give_camera(pane)
        if manner == "volume":
            self._turn(None)
        if manner is not None:
            self.lay_out()  # volumes share no place with planes
        self.canvas.update()
        self._on_view()

    def _give_camera(self, pane: Pane) -> None:
        """Let a volume be turned, and a picture moved."""
        if pane.is_volume:
            if pane.view.camera is pane.camera:
                pane.view.camera = scene.TurntableCamera(fov=0.0, elevation=90.0, azimuth=0.0)
                pane.view.scene.transform.changed.connect(partial(self._moved, pane))
                self._look_at(pane)
        elif pane.view.camera is not pane.camera:
            turned = pane.view.camera
            pane.view.camera = pane.camera
            turned.parent = None

    def _look_at(self, pane: Pane) -> None:
        """Show a volume whole."""
        width, height = pane.across
        pane.view.camera.center = (0.0, 0.0, 0.0)
        pane.view.camera.scale_factor = 1.1 * max(width * pane.place[3] / max(pane.place[2], 1.0), height)

    def _turn(self, moved: Pane | None) -> None:
        """Turn all volumes like one, or like the first."""
        panes = [pane for pane in self.panes if pane.is_volume and pane.view.camera is not pane.camera]
        if not panes or self._following:
            return
        self._following = True
        given = (moved if moved is not None and moved in panes else panes[0]).view.camera
        for pane in panes:
            camera = pane.view.camera
            if camera is not given:
                for name in ("elevation", "azimuth", "roll", "scale_factor", "center"):
                    if getattr(camera, name) != getattr(given, name):
                        setattr(camera, name, getattr(given, name))
        self._following = False

    def under(self, x: float, y: float) -> Pane | None:
        """Return the pane under a point of the canvas."""
        for cell in self.cells:
            for pane in cell.panes:
                left, top, width, height = pane.seen or (0.0, 0.0, 0.0, 0.0)
                if left <= x < left + width and top <= y < top + height:
                    return pane
        return None

    def at(self, x: float, y: float) -> tuple[Pane, float, float] | None:
        """Return the pane under a point of the canvas, and where in its raw plane the point lies."""
        pane = self.under(x, y)
        if pane is None:
            return None
        host = next(cell.host for cell in self.cells if pane in cell.panes)
        if host.is_volume:
            return None
        left, top = host.place[:2]
        u, v = host.camera.transform.imap((x - left, y - top))[:2]
        return (pane, float(u), float(v)) if 0 <= u < pane.across[0] and 0 <= v < pane.across[1] else None

    def switch_alone(self, pane: Pane | None) -> None:
        """Show the stream of a pane alone; or all again, where one is alone."""
        self.alone = pane.position if pane is not None and self.alone is None and len(self._rows) > 1 else None
        self.lay_out()

    def _moved(self, moved: Pane, _event: Any) -> None:
        # vispy's own links of cameras call each other without end as soon as there are three.
        if self._following:
            return
        if moved.is_volume:
            self._turn(moved)
            self._on_view()
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
