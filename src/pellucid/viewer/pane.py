"""One plane on the canvas: its textures, its camera, its place.

Pixels go to the GPU as they are (``texture_format="auto"``: 8 and 16 bit as normalised integers, 32 bit
floats as floats); contrast is a uniform of the shader, so a change of it uploads nothing. A colour picture is three
textures, red, green and blue, whose light is added up: its planes need not be interleaved, which would cost ten
times as much as to copy them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from vispy import scene
from vispy.color import Colormap
from vispy.visuals.transforms import STTransform

from pellucid.protocols import Spec, Stream
from pellucid.viewer import look
from pellucid.viewer.colours import Tone, colour_map
from pellucid.viewer.layout import Place
from pellucid.viewer.shutter import EVERYWHERE, NOWHERE, Shutter
from pellucid.viewer.stack import Stack

__all__ = ["Pane", "make_pane"]

_PRIMARIES = ("#ff0000", "#00ff00", "#0000ff")


@dataclass(slots=True, eq=False)
class Pane:
    """One plane of one stream.

    Attributes
    ----------
    position
        Of its stream among those shown.
    stream, plane
        What is shown.
    spec
        Of the plane.
    view, camera, images
        vispy's objects; three images for a colour picture.
    across
        Pixels of the raw plane (width, height): the coordinates of every camera, so that planes of
        different sampling lie on each other.
    seen
        Where it is seen on the canvas now, which may be a part of another pane's place; None where it is not.
    colour
        In which it lies over others; None where it is by itself.
    stack
        Where the plane is a z-stack.
    thin
        Every so many-th pixel of a row and a column goes to the graphics, which take no larger picture; 1: all.
    """

    position: int
    stream: Stream
    plane: str
    spec: Spec
    view: Any
    camera: Any
    images: tuple[Any, ...]
    across: tuple[int, int]
    shutters: tuple[Shutter, ...] = ()
    seen: Place | None = None
    colour: str | None = None
    stack: Stack | None = None
    thin: int = 1
    _maps: tuple[Any, ...] = ()
    _edges: tuple[float, float] = EVERYWHERE

    @property
    def place(self) -> Place:
        """Left, top, width and height on the canvas, in logical pixels."""
        return (*map(float, self.view.pos), *map(float, self.view.size))  # type: ignore[return-value]

    @place.setter
    def place(self, place: Place) -> None:
        self.view.pos, self.view.size = place[:2], place[2:]

    @property
    def zoom(self) -> float:
        """Logical pixels of the screen for one pixel of the raw plane; a volume has no perspective."""
        if self.is_volume and self.view.camera is not self.camera:
            return min(self.place[2:]) / float(self.view.camera.scale_factor)
        return abs(float(self.camera.transform.scale[0]))

    def fit(self) -> None:
        """Show the picture whole."""
        self.camera.rect = (0, 0, *self.across)

    @property
    def is_volume(self) -> bool:
        """Tell whether it is shown as a volume now."""
        return self.stack is not None and self.stack.manner == "volume"

    def set_pixels(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Show `pixels` with the next draw, and return what is seen of them, ``(y, x)`` or a colour picture.

        They are read until then, and not copied before, unless they are a stack.
        """
        if self.stack is not None:
            self.stack.take(pixels)
            pixels = self.stack.picture()
        for image, plane in zip(self.images, pixels if self.spec.is_colour else (pixels,), strict=True):
            image.set_data(plane[:: self.thin, :: self.thin])
        return pixels

    def set_tone(self, tone: Tone) -> None:
        """Show values in the colours of a map; colour pictures have their own, and take the gamma alone."""
        visuals = self._visuals()
        for visual in visuals:
            if visual.gamma != tone.gamma:
                visual.gamma = tone.gamma
        if self.spec.is_colour:
            return
        wanted = colour_map(tone.name)
        if self.colour is not None:
            self._maps = tuple(wanted for _ in self.images)  # for when it is by itself again
            return
        for visual in visuals:
            if visual.cmap is not wanted:
                visual.cmap = wanted

    def show_stack(self, manner: str | None = None, z: int | None = None) -> np.ndarray[Any, Any] | None:
        """Show a stack in another manner, or another of its slices; return what is seen. None where it is no stack."""
        if self.stack is None:
            return None
        if z is not None:
            self.stack.z = min(max(z, 0), self.stack.depth - 1)
        if manner is not None:
            self.stack.manner = manner
            if manner == "volume":
                volume = self.stack.make_volume(self.images[0].parent, self.images[0].cmap)
                volume.set_gl_state("translucent" if self.colour is None else "additive", depth_test=False)
                self.stack.show_volume()
        picture = self.stack.picture()
        self.images[0].set_data(picture[:: self.thin, :: self.thin])
        self.open_to(self._edges)
        return picture

    def set_limits(self, limits: tuple[float, float]) -> None:
        """Set the values shown black and white; those of all colours are the same."""
        for image in self.images:
            image.clim = limits
        if self.stack is not None:
            self.stack.set_limits(limits)

    def smooth(self) -> None:
        """Keep magnified pixels squares; average a reduced picture, or its noise would be exaggerated."""
        wanted = "linear" if self.zoom < 0.999 else "nearest"
        for image in self.images:
            if image.interpolation != wanted:
                image.interpolation = wanted

    def draw_in(self, host: Pane) -> None:
        """Draw its pictures in the view of a pane, which may be itself."""
        for image in self._visuals():
            if image.parent is not host.view.scene:
                image.parent = host.view.scene

    def open_to(self, edges: tuple[float, float]) -> None:
        """Show the columns of the canvas between two edges; see `Shutter`."""
        self._edges = edges
        for shutter in self.shutters:
            shutter.edges = NOWHERE if self.is_volume else edges
        if self.stack is not None:
            self.stack.shutter.edges = edges if self.is_volume else NOWHERE

    def tint(self, colour: str | None) -> None:
        """Add its light to that of others, in a colour; None for a picture by itself, as it was."""
        if colour == self.colour:
            return
        if self.colour is None:
            self._maps = tuple(image.cmap for image in self.images)
        self.colour = colour
        for image, own in zip(self.images, self._maps, strict=True):
            image.cmap = own if colour is None else Colormap([look.PANE, colour])
            image.set_gl_state("translucent" if colour is None else "additive", depth_test=False, cull_face=False)
        if self.stack is not None and self.stack.volume is not None:
            self.stack.volume.cmap = self.images[0].cmap
            self.stack.volume.set_gl_state("translucent" if colour is None else "additive", depth_test=False)

    def _visuals(self) -> list[Any]:
        volume = self.stack.volume if self.stack is not None else None
        return [*self.images, *([volume] if volume is not None else [])]

    def remove(self) -> None:
        """Take it off the canvas."""
        for image in self._visuals():
            image.parent = None  # it may lie in another's view
        self.view.parent = None


def make_pane(
    canvas: Any, position: int, stream: Stream, plane: str, spec: Spec, across: tuple[int, int], most: int = 1 << 30
) -> Pane:
    """Return a black pane on a canvas; see `Pane` for the parameters.

    `most` is how many pixels the graphics take along an axis.
    """
    camera = scene.PanZoomCamera(aspect=1)
    camera.flip = (False, True, False)  # y down, as cameras and arrays count
    view = scene.ViewBox(camera=camera, bgcolor=look.PANE, parent=canvas.scene)
    maps = [Colormap([look.PANE, colour]) for colour in _PRIMARIES] if spec.is_colour else [colour_map("gray")]
    thin = -(-max(spec.shape[-2:]) // most)
    height, width = (-(-size // thin) for size in spec.shape[-2:])
    images, shutters = [], []
    for colours in maps:
        image = scene.Image(
            np.zeros((height, width), spec.dtype), parent=view.scene, cmap=colours, clim=(0, 1),
            texture_format="auto", interpolation="nearest", method="subdivide",
        )  # fmt: skip
        if spec.is_colour:
            image.set_gl_state("additive", depth_test=False)
        # By the size of the plane: the last pixel of a thinned row stands for fewer than the others.
        scale = (across[0] * thin / spec.shape[-1], across[1] * thin / spec.shape[-2])
        image.transform = STTransform(scale=scale)
        shutters.append(Shutter())
        image.attach(shutters[-1])
        images.append(image)
    pane = Pane(position, stream, plane, spec, view, camera, tuple(images), across, tuple(shutters))
    if len(spec.shape) == 3 and not spec.is_colour:
        pane.stack = Stack(stream, spec, across)
    pane.thin = thin
    pane.fit()
    return pane
