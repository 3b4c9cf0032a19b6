"""A real core as MMCoreJ shows it: the same calls, and tagged images on top."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pellucid.testing.bridge.java import Face, JavaArray, JavaError, JsonText, Method
from pellucid.testing.bridge.stub import Stub
from pellucid.testing.bridge.values import EnumClass, Point, Rectangle, Vector, plain

__all__ = ["RemoteCore", "TaggedImage", "java_pixels", "refuse_crash"]

_EXTRA = (
    "mmcorej.TaggedImage getTaggedImage()",
    "mmcorej.TaggedImage getTaggedImage(int)",
    "mmcorej.TaggedImage getLastTaggedImage()",
    "mmcorej.TaggedImage getLastTaggedImage(int)",
    "mmcorej.TaggedImage getNBeforeLastTaggedImage(long)",
    "mmcorej.TaggedImage popNextTaggedImage()",
    "mmcorej.TaggedImage popNextTaggedImage(int)",
    "java.lang.String getPixelSizeAffineAsString()",
    "java.awt.geom.Point2D.Double getXYStagePosition()",
    "java.awt.geom.Point2D.Double getXYStagePosition(java.lang.String)",
    "boolean getIncludeSystemStateCache()",
    "void setIncludeSystemStateCache(boolean)",
)
_KINDS = {1: "GRAY8", 2: "GRAY16", 8: "RGB64"}
_DRAWN = ("Mode", "PixelType")
_CAMERA = 2
"""The core's number for a device that is a camera."""


class TaggedImage:
    """A ``mmcorej.TaggedImage``: ``pix``, flat, and ``tags``."""

    face: ClassVar[Face] = Face("mmcorej.TaggedImage", fields=("pix", "tags"))

    def __init__(self, pix: JavaArray, tags: dict[str, Any]) -> None:
        self.pix = pix
        self.all_tags = tags

    @property
    def tags(self) -> JsonText:
        """All tags; numbers are numbers where Java has them so, and text where the camera wrote them."""
        return JsonText(json.dumps(self.all_tags, ensure_ascii=False))


def java_pixels(image: NDArray[Any], components: int) -> JavaArray:
    """Return the Java array that MMCoreJ makes of a picture.

    ``byte[]`` for 8 bits, and for four components of 8 bits (B, G, R, A); ``short[]`` for 16 bits, and for four
    components of 16; ``float[]`` for a single component of 32, whatever the camera put there.
    """
    flat = np.ascontiguousarray(image).reshape(-1)
    size = flat.dtype.itemsize
    if size == 4 and components == 1:
        return JavaArray("float", flat.view(np.float32))
    if size in (2, 8):
        return JavaArray("short", flat.view(np.uint16))
    return JavaArray("byte", flat.view(np.uint8))


def refuse_crash(core: Any, device: str | None = None, name: str = "", value: str = "") -> None:
    """Refuse what would end the process: DemoCamera draws beads into RGB pixels past its memory.

    Parameters
    ----------
    core
    device, name, value
        A property that is about to be set; None: look at all cameras as they are.

    Raises
    ------
    JavaError
        Where a DemoCamera would draw beads in RGB.
    """
    for camera in [device] if device is not None else core.getLoadedDevicesOfType(_CAMERA):
        if core.getDeviceLibrary(camera) != "DemoCamera" or not all(core.hasProperty(camera, p) for p in _DRAWN):
            continue
        state = {p: value if p == name else core.getProperty(camera, p) for p in _DRAWN}
        if "Beads" in state["Mode"] and "RGB" in state["PixelType"]:
            raise JavaError("DemoCamera's fluorescent beads with an RGB pixel type are refused: they end the process")


class RemoteCore:
    """A core for the clients of the bridge; what is not here is the core's own.

    Parameters
    ----------
    core
        A ``pymmcore.CMMCore``.
    stub
        Its signatures.
    new_metadata
        Makes an empty ``pymmcore.Metadata``.
    """

    def __init__(self, core: Any, stub: Stub, new_metadata: Any) -> None:
        self.core = core
        self._stub = stub
        self._new_metadata = new_metadata
        self._state_in_tags = True
        self.face = Face("mmcorej.CMMCore", *stub.core, *_EXTRA)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def invoke(self, method: Method, arguments: list[Any]) -> Any:
        """Call a method, and return what it returns as Java would."""
        result = getattr(self, method.name)(*map(plain, arguments))
        if isinstance(result, np.ndarray):
            return java_pixels(result, self.core.getNumberOfComponents())
        if method.returns == Rectangle.face.name:
            return Rectangle(*result)
        if isinstance(result, tuple | list):
            return Vector(method.returns, result)
        enum: EnumClass | None = self._stub.enums.get(method.returns)
        return enum.swigToEnum(result) if enum is not None else result

    # ---------------------------------------------------------------- tagged images (TaggedImageCreator.java)

    def getTaggedImage(self, channel: int = 0) -> TaggedImage:
        """Return the snapped image; of a multi-camera, that of one of its cameras."""
        return self._tagged(self.core.getImage(channel), self._new_metadata(), channel)

    def getLastTaggedImage(self, channel: int = 0) -> TaggedImage:
        """Return the newest image of the ring, which stays there; newer cores take no channel but 0."""
        metadata = self._new_metadata()
        return self._tagged(self.core.getLastImageMD(channel, 0, metadata), metadata, channel)

    def getNBeforeLastTaggedImage(self, n: int) -> TaggedImage:
        """Return an image of the ring by its age."""
        metadata = self._new_metadata()
        return self._tagged(self.core.getNBeforeLastImageMD(n, metadata), metadata, None)

    def popNextTaggedImage(self, channel: int = 0) -> TaggedImage:
        """Take the oldest image out of the ring."""
        metadata = self._new_metadata()
        return self._tagged(self.core.popNextImageMD(channel, 0, metadata), metadata, channel)

    def _tagged(self, image: NDArray[Any], metadata: Any, channel: int | None) -> TaggedImage:
        core = self.core
        tags: dict[str, Any] = {key: metadata.GetSingleTag(key).GetValue() for key in metadata.GetKeys()}
        if self._state_in_tags:
            state = core.getSystemStateCache()
            for i in range(state.size()):
                setting = state.getSetting(i)
                tags[f"{setting.getDeviceLabel()}-{setting.getPropertyName()}"] = setting.getPropertyValue()
        components = core.getNumberOfComponents()
        depth = core.getBytesPerPixel()
        group = core.getPropertyFromCache("Core", "ChannelGroup")
        tags |= {
            "BitDepth": core.getImageBitDepth(),
            "PixelSizeUm": core.getPixelSizeUm(True),
            "PixelSizeAffine": self.getPixelSizeAffineAsString(),
            "ROI": "-".join(map(str, core.getROI())),
            "Width": core.getImageWidth(),
            "Height": core.getImageHeight(),
            "PixelType": ("GRAY32" if components == 1 else "RGB32") if depth == 4 else _KINDS.get(depth, ""),
            "Frame": 0,
            "FrameIndex": 0,
            "Position": "Default",
            "PositionIndex": 0,
            "Slice": 0,
            "SliceIndex": 0,
            "Channel": (core.getCurrentConfigFromCache(group) if group else "") or "Default",
            "ChannelIndex": 0,
        }
        if core.hasProperty(core.getCameraDevice(), "Binning"):
            tags["Binning"] = core.getProperty(core.getCameraDevice(), "Binning")
        if channel is not None:
            _name_camera(tags, channel)
        return TaggedImage(java_pixels(image, components), tags)

    # ---------------------------------------------------------------- MMCoreJ's conveniences

    def getPixelSizeAffineAsString(self) -> str:
        """Return the six numbers between semicolons."""
        return ";".join(str(float(v)) for v in self.core.getPixelSizeAffine(True))

    def getXYStagePosition(self, *label: str) -> Point:
        """Return where the stage is, in µm."""
        return Point(*self.core.getXYPosition(*label))

    def getIncludeSystemStateCache(self) -> bool:
        """Return whether every tagged image carries all properties."""
        return self._state_in_tags

    def setIncludeSystemStateCache(self, state: bool) -> None:
        """Say whether every tagged image carries all properties."""
        self._state_in_tags = state

    # ---------------------------------------------------------------- guarded

    def setProperty(self, label: str, name: str, value: Any) -> None:
        """Set a property."""
        if name in _DRAWN:
            refuse_crash(self.core, label, name, str(value))
        self.core.setProperty(label, name, value)

    def setConfig(self, group: str, preset: str) -> None:
        """Set all properties of a preset."""
        self._check_settings(self.core.getConfigData(group, preset))
        self.core.setConfig(group, preset)

    def setSystemState(self, configuration: Any) -> None:
        """Set all properties of a configuration."""
        self._check_settings(configuration)
        self.core.setSystemState(configuration)

    def snapImage(self) -> None:
        """Expose once."""
        refuse_crash(self.core)
        self.core.snapImage()

    def startSequenceAcquisition(self, *arguments: Any) -> None:
        """Start a finite sequence."""
        refuse_crash(self.core)
        self.core.startSequenceAcquisition(*arguments)

    def startContinuousSequenceAcquisition(self, interval_ms: float) -> None:
        """Start a sequence without an end."""
        refuse_crash(self.core)
        self.core.startContinuousSequenceAcquisition(interval_ms)

    def _check_settings(self, configuration: Any) -> None:
        for i in range(configuration.size()):
            setting = configuration.getSetting(i)
            if setting.getPropertyName() in _DRAWN:
                refuse_crash(self.core, setting.getDeviceLabel(), setting.getPropertyName(), setting.getPropertyValue())


def _name_camera(tags: dict[str, Any], channel: int) -> None:
    """Say which camera of several it was, where the camera itself did not."""
    if "CameraChannelIndex" not in tags:
        tags["CameraChannelIndex"] = tags["ChannelIndex"] = channel
    if "Camera" not in tags:
        physical = tags.get(f"{tags.get('Core-Camera')}-Physical Camera {channel + 1}")
        if physical is not None:
            tags["Camera"] = tags["Channel"] = physical
