"""What a Micro-Manager behind its bridge says of its camera, and of each frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SourceError
from pellucid.protocols import Spec, Stream
from pellucid.sources._camera import Planar, kind_of, objective_of, spec_of
from pellucid.wire.bridge import LARGEST
from pellucid.wire.bridge_message import Garbage, Refused
from pellucid.wire.bridge_object import RemoteObject
from pellucid.wire.copier import Copier

__all__ = ["Camera", "Place", "Plane", "Tags", "ask_camera", "ask_roi"]

SIDE = 1 << 17
"""Pixels along an edge that no camera has."""
_SENT_AS = {"GRAY8": "u1", "GRAY16": "u2", "GRAY32": "f4", "RGB32": "u1"}
"""Arrays that MMCoreJ makes of each kind of pixel."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a frame was taken with, as far as its shape and type do not tell: a change begins a new stream.

    Parameters
    ----------
    corner
        First column and row of the ROI.
    binning
        As the camera calls it.
    bit_depth
    """

    corner: tuple[int, int]
    binning: str
    bit_depth: int | None

    @classmethod
    def of(cls, stream: Stream) -> Place:
        """Return that of a stream."""
        left, top = stream.details["roi"][:2]
        return cls((left, top), stream.details["binning"], stream.bit_depth)


@dataclass(frozen=True, slots=True)
class Camera:
    """The camera of a core, as it is set now.

    Parameters
    ----------
    device
        As the core calls it; a device that is several cameras is one here.
    names
        Of the physical cameras, as frames carry them.
    channel
        The channel preset that is set; ``"Default"`` without any.
    spec
        Of a frame.
    exposure_ms, pixel_um, bit_depth
    details
        For the metadata.
    """

    device: str
    names: tuple[str, ...]
    channel: str
    spec: Spec
    exposure_ms: float | None
    pixel_um: float | None
    bit_depth: int | None
    details: Mapping[str, Any] = field(default_factory=dict)

    def stream(self, index: int, name: str, **keys: Any) -> Stream:
        """Return the stream of one of its cameras."""
        return Stream(
            **{
                "spec": self.spec,
                "camera": name,
                "channel": self.channel,
                "index": index,
                "pixel_um": self.pixel_um,
                "exposure_ms": self.exposure_ms,
                "bit_depth": self.bit_depth,
                "details": self.details,
                **keys,
            }
        )


def ask_camera(core: RemoteObject, *, floats: bool) -> Camera:
    """Ask a core for its camera.

    Raises
    ------
    SourceError
        Where it has none, or one whose pixels cannot be taken.
    Gone, Garbage, Refused
    """
    try:
        device = str(core.get_camera_device() or "")
        if not device:
            raise SourceError(
                "Micro-Manager has no camera. Load a hardware configuration that has one (Config > Load System "
                "Configuration), or choose it as Core-Camera"
            )
        cameras = int(core.get_number_of_camera_channels())
        if not 1 <= cameras <= 64:
            raise Garbage(f"it says that its camera is {cameras} cameras")
        names = [str(core.get_camera_channel_name(i)) for i in range(cameras)] if cameras > 1 else [device]
        height, width = int(core.get_image_height()), int(core.get_image_width())
        binning = core.get_property(device, "Binning") if core.has_property(device, "Binning") else ""
        group = core.get_property_from_cache("Core", "ChannelGroup")
        objective = objective_of(core)
        return Camera(
            device=device,
            names=tuple(names),
            channel=str((core.get_current_config_from_cache(group) if group else "") or "Default"),
            spec=_checked_spec(device, kind_of(core), height, width, floats=floats),
            exposure_ms=float(core.get_exposure()) or None,
            pixel_um=float(core.get_pixel_size_um()) or None,
            bit_depth=int(core.get_image_bit_depth()) or None,
            details={
                "core": str(core.get_version_info()),
                "device": f"{core.get_device_library(device)} {core.get_device_name(device)}",
                "binning": str(binning),
                "roi": _roi_or_all(core, width, height),
                **({"objective": objective} if objective else {}),
            },
        )
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise Garbage(f"what it says of its camera makes no sense: {error}") from None


def ask_roi(core: RemoteObject) -> tuple[int, int, int, int]:
    """Return x, y, width and height of a ROI, which is a ``java.awt.Rectangle`` over there."""
    box = core.get_roi()
    try:
        x, y, width, height = (int(box.field(name)) for name in ("x", "y", "width", "height"))
        return x, y, width, height
    finally:
        box.release()


def _roi_or_all(core: RemoteObject, width: int, height: int) -> list[int]:
    try:
        return [*ask_roi(core)]
    except Refused:
        return [0, 0, width, height]  # a camera without one


def _checked_spec(camera: str, kind: str, height: int, width: int, *, floats: bool) -> Spec:
    if not (0 < height <= SIDE and 0 < width <= SIDE):
        raise Garbage(f"pictures of {height}x{width} pixels")
    spec = spec_of(camera, kind, height, width, floats=floats)
    if spec.nbytes > LARGEST:
        raise Garbage(f"pictures of {height}x{width} pixels")
    return spec


@dataclass(frozen=True, slots=True)
class Tags:
    """Hot: what one frame says of itself.

    Parameters
    ----------
    camera, channel
        Empty where it does not say.
    number
        The camera's, -1 without one.
    stamp
        When the core had it, as text; with `number` it tells two frames apart.
    height, width, kind
        Of its pixels.
    all
        Everything.
    """

    camera: str
    channel: str
    number: int
    stamp: str
    height: int
    width: int
    kind: str
    all: Mapping[str, Any]

    @classmethod
    def read(cls, tags: Mapping[str, Any]) -> Tags:
        """Take what is needed.

        Raises
        ------
        Garbage
            Where numbers are none.
        """
        try:
            return cls(
                camera=str(tags.get("Camera", "")),
                channel=str(tags.get("Channel", "")),
                number=int(tags.get("ImageNumber", -1)),
                stamp=str(tags.get("TimeReceivedByCore", "") or tags.get("ElapsedTime-ms", "")),
                height=int(tags["Height"]),
                width=int(tags["Width"]),
                kind=str(tags["PixelType"]),
                all=tags,
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            raise Garbage("a picture without size, type or number") from None

    def spec(self, *, floats: bool) -> Spec:
        """Return the plane for it.

        Raises
        ------
        SourceError
            Where such pixels cannot be taken.
        """
        return _checked_spec(self.camera, self.kind, self.height, self.width, floats=floats)

    def place(self, before: Place) -> Place:
        """Return with what it was taken; where it does not say, as `before`."""
        return Place(
            corner=self._corner() or before.corner,
            binning=str(self.all.get("Binning") or self.all.get(f"{self.camera}-Binning") or before.binning),
            bit_depth=round(self.amount("BitDepth") or before.bit_depth or 0) or None,
        )

    def _corner(self) -> tuple[int, int] | None:
        """Hot: take the first two numbers of ``x-y-width-height``."""
        try:
            left, top, _, _ = map(int, str(self.all.get("ROI", "")).split("-"))
        except ValueError:
            return None
        return left, top

    def amount(self, name: str) -> float | None:
        """Return a number that is greater than 0, None where the tag is none."""
        try:
            value = float(self.all.get(name, 0))
        except (TypeError, ValueError):
            return None
        return value if 0 < value < 1e12 else None


class Plane:
    """Puts the arrays of the bridge into planes."""

    def __init__(self) -> None:
        self._copier = Copier()
        self._planar = Planar()

    def open(self) -> None:
        """Make ready."""
        self._copier.open()

    def close(self) -> None:
        """Give everything back."""
        self._copier.close()

    def fits(self, array: Any, kind: str, spec: Spec) -> bool:
        """Hot: say whether an array holds the pixels of such a plane."""
        nbytes = spec.nbytes // 3 * 4 if spec.is_colour else spec.nbytes
        return isinstance(array, np.ndarray) and array.nbytes == nbytes and array.dtype == _SENT_AS.get(kind)

    def copy(self, raw: NDArray[Any], array: NDArray[Any]) -> None:
        """Hot: fill a plane from an array that fits it."""
        if raw.ndim == 3:
            self._planar.copy(raw, array.reshape(*raw.shape[1:], 4))
        else:
            self._copier.copy(raw, array.view(raw.dtype).reshape(raw.shape))
