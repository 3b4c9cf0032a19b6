"""The pictures: one texture a plane on one canvas, rows for streams and columns for planes, zoomed together.

Pixels go to the GPU as they are (``texture_format="auto"``: 8 and 16 bit as normalised integers, 32 bit
floats as floats); contrast is a uniform of the shader, so a change of it uploads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from vispy import app, scene
from vispy.gloo import gl
from vispy.visuals.transforms import STTransform

from pellucid.metrics import now_ns
from pellucid.protocols import Spec, Stream
from pellucid.viewer import look

__all__ = ["Pane", "Panes"]

GAP = 4


@dataclass(slots=True, eq=False)
class Pane:
    """One plane of one stream on the canvas.

    Attributes
    ----------
    stream, plane
        What is shown.
    spec
        Of the plane.
    view, camera, image
        vispy's objects.
    across
        Pixels of the raw plane (width, height): the coordinates of every camera, so that planes of
        different sampling lie on each other.
    """

    stream: Stream
    plane: str
    spec: Spec
    view: Any
    camera: Any
    image: Any
    across: tuple[int, int]

    @property
    def place(self) -> tuple[float, float, float, float]:
        """Left, top, width and height on the canvas, in logical pixels."""
        left, top = self.view.node_transform(self.view.canvas.scene).map((0, 0))[:2]
        return float(left), float(top), float(self.view.size[0]), float(self.view.size[1])

    @property
    def zoom(self) -> float:
        """Logical pixels of the screen for one pixel of the raw plane."""
        return abs(float(self.camera.transform.scale[0]))


class Panes:
    """All panes of the window.

    Parameters
    ----------
    streams
        One row each.
    planes
        For each stream the planes to show, left to right; the first gives the coordinates.
    on_drawn
        Called with a time on the clock of `pellucid.metrics` each time that new pixels have been drawn: the
        textures are uploaded, the GPU has finished drawing them (``glFinish``), and the swap that puts them
        on the screen has been asked of the window system and has returned. What the display itself adds
        (scan-out, a compositor) is not in it.
    on_view
        Called when the visible area changed.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        planes: Sequence[Mapping[str, Spec]],
        on_drawn: Callable[[int], None],
        on_view: Callable[[], None],
    ) -> None:
        self._on_drawn = on_drawn
        self._on_view = on_view
        self._fresh = self._painted = self._following = False
        self.canvas = scene.SceneCanvas(
            app=app.use_app("pyside6"), keys=None, show=False, bgcolor=look.BACK, vsync=True, resizable=True
        )
        grid = self.canvas.central_widget.add_grid(spacing=GAP, margin=0)
        self.panes: list[Pane] = []
        for row, (stream, shown) in enumerate(zip(streams, planes, strict=True)):
            across = _across(next(iter(shown.values())))
            for column, (name, spec) in enumerate(shown.items()):
                self.panes.append(self._pane(grid, row, column, stream, name, spec, across))
        self.canvas.events.draw.connect(self._draw, position="last")
        self.canvas.native.frameSwapped.connect(self._swapped)
        for pane in self.panes:
            pane.view.scene.transform.changed.connect(partial(self._moved, pane))

    def _pane(
        self, grid: Any, row: int, column: int, stream: Stream, name: str, spec: Spec, across: tuple[int, int]
    ) -> Pane:
        camera = scene.PanZoomCamera(aspect=1)
        camera.flip = (False, True, False)  # y down, as cameras and arrays count
        view = grid.add_view(row=row, col=column, camera=camera, bgcolor=look.PANE)
        image = scene.Image(
            np.zeros(spec.shape, spec.dtype), parent=view.scene, cmap="grays", clim=(0, 1),
            texture_format="auto", interpolation="nearest", method="subdivide",
        )  # fmt: skip
        width, height = _across(spec)
        image.transform = STTransform(scale=(across[0] / width, across[1] / height))
        return Pane(stream, name, spec, view, camera, image, across)

    def fit(self) -> None:
        """Show every picture whole."""
        for pane in self.panes:
            pane.camera.rect = (0, 0, *pane.across)

    def set_plane(self, pane: Pane, pixels: np.ndarray[Any, Any]) -> None:
        """Show `pixels` with the next draw; they are read until then, and not copied before."""
        pane.image.set_data(pixels)
        self._fresh = True

    def set_limits(self, pane: Pane, limits: tuple[float, float]) -> None:
        """Set the values shown black and white."""
        pane.image.clim = limits

    def at(self, x: float, y: float) -> tuple[Pane, float, float] | None:
        """Return the pane under a point of the canvas, and where in its raw plane the point lies."""
        for pane in self.panes:
            left, top, width, height = pane.place
            if left <= x < left + width and top <= y < top + height:
                u, v = pane.camera.transform.imap((x - left, y - top))[:2]
                return (pane, float(u), float(v)) if 0 <= u < pane.across[0] and 0 <= v < pane.across[1] else None
        return None

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
            # Magnified pixels stay squares; a reduced picture is averaged, or its noise would be exaggerated.
            wanted = "linear" if pane.zoom < 0.999 else "nearest"
            if pane.image.interpolation != wanted:
                pane.image.interpolation = wanted
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


def _across(spec: Spec) -> tuple[int, int]:
    height, width = spec.shape[-2:]
    return width, height
