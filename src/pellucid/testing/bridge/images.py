"""Pictures as the application has them, and how they are made.

Names and signatures are facts from micro-manager's data/Coords.java, data/Metadata.java and data/Image.java, and
from what its DefaultDataManager and DefaultImage accept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from pellucid.testing.bridge.java import Face, JavaArray, JavaError

__all__ = ["Coords", "CoordsBuilder", "Image", "Metadata", "MetadataBuilder"]

_DATA = "org.micromanager.data"
_AXES = {"t": "time", "c": "channel", "z": "z", "p": "position"}
_DETAILS = {
    "camera": "java.lang.String",
    "exposureMs": "java.lang.Double",
    "elapsedTimeMs": "java.lang.Double",
    "pixelSizeUm": "java.lang.Double",
    "imageNumber": "java.lang.Long",
    "fileName": "java.lang.String",
}


class Coords:
    """Where an image stands in its data set."""

    face: ClassVar[Face] = Face(
        f"{_DATA}.internal.DefaultCoords",
        "int getIndex(java.lang.String)",
        "int getTimePoint()",
        "int getT()",
        "int getChannel()",
        "int getC()",
        "int getZ()",
        "int getStagePosition()",
        "int getP()",
        interfaces=(f"{_DATA}.Coords",),
    )

    def __init__(self, axes: dict[str, int]) -> None:
        self.axes = axes

    def getIndex(self, axis: str) -> int:
        """Return the index along an axis; 0 without that axis."""
        return self.axes.get(axis, 0)

    def __getattr__(self, name: str) -> Callable[[], int]:
        axis = {"getTimePoint": "time", "getStagePosition": "position", "getChannel": "channel"}.get(name)
        axis = axis or _AXES.get(name.removeprefix("get").lower())
        if axis is None or not name.startswith("get"):
            raise AttributeError(name)
        return lambda: self.axes.get(axis, 0)


class CoordsBuilder:
    """Builds `Coords`: each call but the last returns the builder."""

    face: ClassVar[Face] = Face(
        f"{_DATA}.internal.DefaultCoords$Builder",
        f"{_DATA}.Coords build()",
        *(
            f"{_DATA}.Coords.Builder {name}(int)"
            for name in ("time", "timePoint", "t", "channel", "c", "z", "stagePosition", "p")
        ),
        f"{_DATA}.Coords.Builder index(java.lang.String, int)",
        interfaces=(f"{_DATA}.Coords$Builder",),
    )

    def __init__(self) -> None:
        self._axes: dict[str, int] = {}

    def index(self, axis: str, index: int) -> CoordsBuilder:
        """Set the index along an axis; a negative one removes it."""
        self._axes[axis] = index
        if index < 0:
            del self._axes[axis]
        return self

    def __getattr__(self, name: str) -> Callable[[int], CoordsBuilder]:
        axis = {"timePoint": "time", "stagePosition": "position"}.get(name, _AXES.get(name, name))
        if axis not in _AXES.values():
            raise AttributeError(name)
        return lambda index: self.index(axis, index)

    def build(self) -> Coords:
        """Return what was built."""
        return Coords(dict(self._axes))


class Metadata:
    """What is known of an image, as far as it was said to the builder."""

    face: ClassVar[Face] = Face(
        f"{_DATA}.internal.DefaultMetadata",
        *(f"{kind} get{name[0].upper()}{name[1:]}()" for name, kind in _DETAILS.items()),
        interfaces=(f"{_DATA}.Metadata",),
    )

    def __init__(self, details: dict[str, Any]) -> None:
        self.details = details

    def __getattr__(self, name: str) -> Callable[[], Any]:
        detail = name[3:4].lower() + name[4:]
        if not name.startswith("get") or detail not in _DETAILS:
            raise AttributeError(name)
        return lambda: self.details.get(detail)


class MetadataBuilder:
    """Builds `Metadata`: each call but the last returns the builder."""

    face: ClassVar[Face] = Face(
        f"{_DATA}.internal.DefaultMetadata$Builder",
        f"{_DATA}.Metadata build()",
        *(f"{_DATA}.Metadata.Builder {name}({kind})" for name, kind in _DETAILS.items()),
        interfaces=(f"{_DATA}.Metadata$Builder",),
    )

    def __init__(self) -> None:
        self._details: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Callable[[Any], MetadataBuilder]:
        if name not in _DETAILS:
            raise AttributeError(name)

        def note(value: Any) -> MetadataBuilder:
            self._details[name] = value
            return self

        return note

    def build(self) -> Metadata:
        """Return what was built."""
        return Metadata(dict(self._details))


class Image:
    """A picture of the application.

    Parameters
    ----------
    pixels
        A ``byte[]`` or ``short[]``: the application refuses any other array.
    width, height
        In pixels.
    pixel_bytes
        1, 2, or 4 for B, G, R, A.
    components
        1, or 3 for colours.
    coords, metadata

    Raises
    ------
    JavaError
        Where these do not go together.
    """

    face: ClassVar[Face] = Face(
        f"{_DATA}.internal.DefaultImage",
        "int getWidth()",
        "int getHeight()",
        "int getBytesPerPixel()",
        "int getNumComponents()",
        "java.lang.Object getRawPixels()",
        "java.lang.Object getRawPixelsCopy()",
        f"{_DATA}.Coords getCoords()",
        f"{_DATA}.Metadata getMetadata()",
        interfaces=(f"{_DATA}.Image",),
    )

    def __init__(
        self,
        pixels: object,
        width: int,
        height: int,
        pixel_bytes: int,
        components: int,
        coords: Coords | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        kinds = {1: ("byte", 1), 2: ("short", 1), 4: ("byte", 4)}
        kind = pixels.kind if isinstance(pixels, JavaArray) else ""
        if kind not in ("byte", "short"):
            raise _illegal("Pixel type is not supported.  It could not be cloned")
        assert isinstance(pixels, JavaArray)
        if (pixel_bytes, components) not in ((1, 1), (2, 1), (4, 3)) or kinds[pixel_bytes][0] != kind:
            raise _illegal(f"{pixel_bytes} bytes and {components} components a pixel in a {kind}[]")
        each = kinds[pixel_bytes][1]
        if width <= 0 or height <= 0 or pixels.data.size < width * height * each:
            raise _illegal(f"Pixels array has length {pixels.data.size}, too few for {width} x {height}")
        self.pixels = pixels
        shape = (height, width) if each == 1 else (height, width, each)
        unsigned = np.dtype(f"u{pixels.data.dtype.itemsize}")
        self.picture = pixels.data[: width * height * each].view(unsigned).reshape(shape)
        self._coords = coords or Coords({})
        self._metadata = metadata or Metadata({})
        self._bytes, self._components = pixel_bytes, components

    def getWidth(self) -> int:
        """Return the width in pixels."""
        return self.picture.shape[1]

    def getHeight(self) -> int:
        """Return the height in pixels."""
        return self.picture.shape[0]

    def getBytesPerPixel(self) -> int:
        """Return 1, 2 or 4."""
        return self._bytes

    def getNumComponents(self) -> int:
        """Return 1 or 3."""
        return self._components

    def getRawPixels(self) -> JavaArray:
        """Return the pixels; they travel to the client in the machine's order."""
        return self.pixels

    def getRawPixelsCopy(self) -> JavaArray:
        """Return the pixels."""
        return self.pixels

    def getCoords(self) -> Coords:
        """Return where it stands."""
        return self._coords

    def getMetadata(self) -> Metadata:
        """Return what is known of it."""
        return self._metadata


def _illegal(text: str) -> JavaError:
    return JavaError(text, "java.lang.IllegalArgumentException")
