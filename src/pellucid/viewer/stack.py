"""A z-stack in a pane: one slice, its maximum along z, or the whole volume to be turned.

The newest stack is copied, so that its slices can be looked through while no new one comes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from vispy import scene
from vispy.visuals.transforms import STTransform

from pellucid.protocols import Spec, Stream
from pellucid.viewer.shutter import NOWHERE, Shutter

__all__ = ["MANNERS", "Stack"]

MANNERS = {"max": "maximum", "slice": "slice", "volume": "volume"}
"""How a stack is shown: name in the config, and in words."""
VOXELS = 1 << 22
"""Of a volume that is drawn; a larger stack is thinned out along y and x. Without a GPU it takes tenths of a second."""
MOST = 2048
"""Voxels along an axis of a volume, which all graphics take; a longer axis is thinned out."""
STEP = 0.8
"""Along a line of sight, in voxels: with longer ones the last slice and spots in one slice are too dark."""


class Stack:
    """What a pane has beside its picture where its plane is a stack.

    Parameters
    ----------
    stream, spec
        Of the plane; `spec` has the shape ``(z, y, x)``.
    across
        Pixels of the raw plane (width, height): the coordinates of the scene.

    Attributes
    ----------
    manner : str
        One of `MANNERS`.
    z : int
        Of the slice that is shown.
    volume
        vispy's object; None until the stack is first shown as a volume.
    shutter : Shutter
        Of the volume.
    """

    def __init__(self, stream: Stream, spec: Spec, across: tuple[int, int]) -> None:
        self.manner, self.z = "max", spec.shape[0] // 2
        self.volume: Any = None
        self.shutter = Shutter()
        self.shutter.edges = NOWHERE
        self._spec, self._across = spec, across
        self._whole = np.zeros(spec.shape, spec.dtype)
        self._flat = np.zeros(spec.shape[1:], spec.dtype)
        across_z, *within = (math.ceil(length / MOST) for length in spec.shape)
        self._thin = max(*within, math.ceil(math.sqrt(self._whole.size / across_z / VOXELS)))
        self._thin_z = across_z
        # A slice is as thick as it is in the specimen, as far as it is known.
        self._thick = stream.z_um / stream.pixel_um if stream.z_um and stream.pixel_um else 1.0
        self._limits: tuple[float, float] = (0.0, 1.0)

    @property
    def depth(self) -> int:
        """Number of slices."""
        return self._spec.shape[0]

    @property
    def told(self) -> str:
        """What is shown, for the caption."""
        if self.manner == "slice":
            return f"z {self.z + 1}/{self.depth}"
        return f"maximum of z 1–{self.depth}" if self.manner == "max" else f"volume of z 1–{self.depth}"

    def take(self, pixels: np.ndarray[Any, Any]) -> None:
        """Copy a stack of shape ``(z, y, x)``."""
        np.copyto(self._whole, pixels)
        self.show_volume()

    def picture(self) -> np.ndarray[Any, Any]:
        """Return the picture ``(y, x)`` that is shown, or from which limits are taken; stays as it is until `take`."""
        if self.manner == "slice":
            found: np.ndarray[Any, Any] = self._whole[self.z]
            return found
        return np.max(self._whole, axis=0, out=self._flat)

    def set_limits(self, limits: tuple[float, float]) -> None:
        """Set the values shown black and white."""
        self._limits = limits
        if self.volume is not None:
            self.volume.clim = limits

    def make_volume(self, parent: Any, colours: Any) -> Any:
        """Return vispy's volume, made where there is none yet; voxels are not blended, which would cost twice as much.

        From above it looks like the picture, the first slice nearest to the eye: with y downwards x, y and z make a
        right-handed system, and nothing is mirrored.
        """
        if self.volume is None:
            width, height = self._across
            shape = self._thinned().shape
            scale = (width / shape[2], -height / shape[1], -self._thick * self.depth / shape[0])
            self.volume = scene.Volume(
                self._thinned(), parent=parent, method="mip", relative_step_size=STEP, texture_format="auto",
                clim=self._limits, cmap=colours, interpolation="nearest",
            )  # fmt: skip
            self.volume.transform = STTransform(
                scale=scale, translate=(-width / 2, height / 2, -shape[0] * scale[2] / 2)
            )
            self.volume.attach(self.shutter)
        return self.volume

    def _thinned(self) -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(self._whole[:: self._thin_z, :: self._thin, :: self._thin])

    def show_volume(self) -> None:
        """Give the volume the stack that is there now; while it is not shown it is spared the upload."""
        if self.volume is not None and self.manner == "volume":
            self.volume.set_data(self._thinned(), clim=self._limits)
