"""What a camera of a Micro-Manager core gives: shapes, types, and how its pixels come into a plane."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SourceError
from pellucid.protocols import COLOURS, Spec, Stream
from pellucid.sources._mmcore import names_in

__all__ = [
    "TAGS",
    "Look",
    "Planar",
    "by_tags",
    "cameras_of",
    "changed",
    "is_objective",
    "kind_of",
    "look",
    "look_of",
    "objective_of",
    "spec_of",
    "times_binned",
]

_KINDS = {(1, 1): "GRAY8", (1, 2): "GRAY16", (1, 4): "GRAY32", (4, 4): "RGB32", (4, 8): "RGB64"}
"""Components and bytes of a pixel, and the core's name for such pixels."""
TAGS = ("Height", "Width", "PixelType", "ROI-X-start", "ROI-Y-start", "Binning")
"""What a frame of a sequence says of its shape, type and place."""
_DTYPES = {"GRAY8": "uint8", "GRAY16": "uint16", "GRAY32": "uint32", "RGB32": "uint8"}
_OBJECTIVES = ("objective", "nosepiece", "revolver")


@dataclass(frozen=True, slots=True)
class Look:
    """The state of a camera, as far as its pictures depend on it.

    Parameters
    ----------
    height, width
        In pixels.
    kind
        ``"GRAY16"``, ``"RGB32"`` ..., as the core calls it in the tags of a frame.
    corner
        First column and row of the ROI.
    binning
        Empty where the camera has none.
    bit_depth
    """

    height: int
    width: int
    kind: str
    corner: tuple[int, int]
    binning: str
    bit_depth: int


def kind_of(core: Any) -> str:
    """Return the core's name for the pixels that its camera gives now; empty for one that it has no name for."""
    return _KINDS.get((core.get_number_of_components(), core.get_bytes_per_pixel()), "")


def is_objective(name: str) -> bool:
    """Tell whether a device or a configuration group is called as one that holds the objectives."""
    return any(word in name.lower() for word in _OBJECTIVES)


def objective_of(core: Any) -> str:
    """Return the name of the objective in the light path; empty where nothing in the core is called so.

    That is the label of a device that is called so, or else the preset of such a configuration group: Micro-Manager has
    no other word for it.
    """
    for device in filter(is_objective, core.get_loaded_devices()):
        if core.has_property(device, "Label") and (label := core.get_property(device, "Label")):
            return str(label)
    for group in core.get_available_config_groups():
        if is_objective(group) and (preset := core.get_current_config(group)):
            return str(preset)
    return ""


def look(core: Any) -> Look:
    """Look at the core's camera.

    Raises
    ------
    SourceError
        Where there is none any more.
    """
    camera = core.get_camera_device()
    if not camera:
        raise SourceError("the camera is gone: somebody unloaded it from Micro-Manager")
    left, top = list(core.get_roi())[:2]
    return Look(
        height=core.get_image_height(),
        width=core.get_image_width(),
        kind=kind_of(core) or f"{core.get_number_of_components()} colours of {core.get_bytes_per_pixel()} bytes",
        corner=(left, top),
        binning=core.get_property(camera, "Binning") if core.has_property(camera, "Binning") else "",
        bit_depth=core.get_image_bit_depth(),
    )


def look_of(stream: Stream) -> Look:
    """Return the camera's state that a stream was made for."""
    spec, details = stream.spec, stream.details
    kind = "RGB32" if spec.is_colour else {1: "GRAY8", 2: "GRAY16", 4: "GRAY32"}[np.dtype(spec.dtype).itemsize]
    left, top = details["roi"][:2]
    height, width = spec.shape[-2:]
    return Look(height, width, kind, (left, top), details["binning"], stream.bit_depth or 0)


def by_tags(now: Look, tags: Sequence[str]) -> Look:
    """Return the state in which a frame was taken: as its `TAGS` say, as far as it has them, and else as `now`."""
    height, width, kind, left, top, binning = tags
    corner = (int(left), int(top)) if left and top else now.corner
    # The property may say "2x2" where the tag says "2".
    same = not binning or times_binned(binning) == times_binned(now.binning)
    return replace(
        now,
        height=int(height or now.height),
        width=int(width or now.width),
        kind=now.kind if kind in ("", "Unknown") else kind,
        corner=corner,
        binning=now.binning if same else binning,
    )


def changed(old: Stream, before: Look, now: Look, *, camera: str, index: int, floats: bool) -> Stream:
    """Return the stream that takes the place of another one whose camera was `before`, and is `now`.

    Raises
    ------
    SourceError
        Where such pixels cannot be taken.
    """
    more, fewer = times_binned(now.binning), times_binned(before.binning)
    scale = more / fewer if more and fewer else 1.0
    return replace(
        old,
        spec=spec_of(camera, now.kind, now.height, now.width, floats=floats),
        camera=camera,
        index=index,
        bit_depth=now.bit_depth,
        pixel_um=old.pixel_um * scale if old.pixel_um else None,
        replaces=old.index,
        details={**old.details, "binning": now.binning, "roi": [*now.corner, now.width, now.height]},
    )


def times_binned(binning: str) -> int:
    """Return how many pixels in a row are one, of a setting such as ``"2"`` or ``"2x2"``; 0 where nobody knows."""
    number = re.match(r"\d+", binning)
    return int(number[0]) if number else 0


def spec_of(camera: str, kind: str, height: int, width: int, *, floats: bool) -> Spec:
    """Return the plane for pixels of a kind.

    Parameters
    ----------
    camera
        For the message.
    kind
        As in `Look`.
    height, width
        In pixels.
    floats
        ``GRAY32`` holds floating point.

    Raises
    ------
    SourceError
        Where such pixels cannot be taken.
    """
    if kind == "RGB64":
        raise SourceError(
            f"camera {camera} gives RGB of 16 bits a colour (64-bit RGB), which cannot be taken. "
            'Set 8 bits a colour or a grey type, such as properties = { "Camera.PixelType" = "32bitRGB" }'
        )
    if kind not in _DTYPES:
        raise SourceError(
            f"camera {camera} gives pixels of {kind or 'an unknown kind'}, which cannot be taken; "
            f"allowed are {', '.join(_DTYPES)}. Set another pixel type"
        )
    dtype = "float32" if kind == "GRAY32" and floats else _DTYPES[kind]
    if kind == "RGB32":
        return Spec((len(COLOURS), height, width), dtype, axes="cyx")
    return Spec((height, width), dtype)


def cameras_of(core: Any) -> list[str]:
    """Return the physical cameras behind the core's camera, in the order of their channels.

    A device such as Utilities' Multi Camera is several; their frames come mixed, each with its camera's name.
    """
    channels = core.get_number_of_camera_channels()
    if channels < 2:
        return [core.get_camera_device()]
    return names_in([core.get_camera_channel_name(i) for i in range(channels)])


class Planar:
    """Puts blue, green, red and an unused byte of each pixel apart, into planes of red, green and blue."""

    BLOCK = 1 << 16
    """Pixels at a time: what is read three times stays in the cache."""

    def __init__(self) -> None:
        self._shifted = np.empty(self.BLOCK, np.uint32)

    def copy(self, planes: NDArray[np.uint8], pixels: NDArray[Any]) -> None:
        """Hot: fill `planes` (3, y, x) from `pixels` (y, x) of four bytes each.

        Whole pixels are shifted and cut to their lowest byte, which compilers turn into vector code; copying
        every fourth byte takes twice as long.
        """
        words = pixels.view(np.uint32).reshape(-1)
        red, green, blue = planes.reshape(len(COLOURS), -1)
        for first in range(0, words.size, self.BLOCK):
            some = words[first : first + self.BLOCK]
            shifted = self._shifted[: some.size]
            end = first + some.size
            np.copyto(red[first:end], np.right_shift(some, 16, out=shifted), casting="unsafe")
            np.copyto(green[first:end], np.right_shift(some, 8, out=shifted), casting="unsafe")
            np.copyto(blue[first:end], some, casting="unsafe")
