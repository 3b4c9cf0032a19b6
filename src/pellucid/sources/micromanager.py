"""A Micro-Manager core inside this process, through pycromanager's Python backend."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pellucid.errors import SourceError, did_you_mean, require
from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Ring, Slot, Spec, Stream

__all__ = ["MicroManager"]

NO_END = 2**31 - 1
FULL = 0.9
"""Without a free slot frames wait in the core's own buffer until so much of it is used."""
LOOK_S = 0.0005
"""Between two looks at an empty buffer: short against a frame, long against a core's time."""

_TYPES = {"GRAY8": "uint8", "GRAY16": "uint16", "GRAY32": "uint32"}


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class MicroManager:
    """Acquire from the camera of a Micro-Manager configuration, as a sequence.

    The sequence stops when the core's buffer overflows, so that an overflow is seen (a core that goes on
    would throw all unread frames away and say nothing): it is told as lost at ``camera buffer``, and the
    sequence starts again. Gaps in the camera's ImageNumber are told as lost at ``camera``.

    Parameters
    ----------
    config
        A ``.cfg`` file, or ``"demo"`` for the DemoCamera of mm-test-adapters.
    adapters
        Folder of the device adapters; None: those of mm-test-adapters for the demo, else the installed
        Micro-Manager's.
    camera
        Device; None: the one that the configuration names.
    exposure_ms
        None: as the configuration has it.
    frames
        How many; None for no end.
    buffer_mb
        Of the core's own buffer.
    properties
        ``{"Camera.PixelType" = "16bit"}``: device, a dot, property; set in this order.
    focus_um
        Where the focus device is sent first.
    channel
        Name for the metadata.
    pixel_um
        Size of a pixel in the specimen; None: as the configuration has it, if it has.
    float32
        The camera's 32-bit pixels are floating point (the core does not say).
    """

    config: str
    adapters: Path | None = None
    camera: str | None = None
    exposure_ms: Annotated[float, Field(gt=0)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    buffer_mb: Annotated[int, Field(ge=8)] = 512
    properties: dict[str, str | int | float] = Field(default_factory=dict)
    focus_um: float | None = None
    channel: str = "Default"
    pixel_um: Annotated[float, Field(gt=0)] | None = None
    float32: bool = False
    needs: ClassVar[dict[str, str]] = {"pycromanager": "micromanager", "pymmcore": "micromanager"}

    def __post_init__(self) -> None:
        self.shares_memory = False
        self.live = True
        self.finished = False
        self._core: Any = None
        self._metadata: Any = None
        self._slots: deque[Slot] = deque()
        self._stream: Stream | None = None
        self._account: Account | None = None
        self._seq = 0
        self._expected = 0
        self._popped = 0
        self._wall_ns = 0
        self._stopping = False

    # ---------------------------------------------------------------- open

    def open(self) -> tuple[Stream, ...]:
        """Load the configuration, set properties, exposure and focus, and look at what the camera gives.

        Raises
        ------
        MissingExtra
            Where pycromanager, or mm-test-adapters for the demo, is not installed.
        SourceError
            Where the core refuses something, or the camera gives frames that cannot be taken.
        """
        pycromanager = require("pycromanager", "micromanager", 'source "micromanager"')
        mmpycorex = require("mmpycorex", "micromanager", 'source "micromanager"')
        pymmcore = require("pymmcore", "micromanager", 'source "micromanager"')
        if mmpycorex.is_pymmcore_active():
            raise SourceError("a Micro-Manager core runs in this process already; close the session that has it")
        adapters, config = self._find(mmpycorex)
        try:
            pycromanager.start_headless(
                str(adapters), str(config), python_backend=True, buffer_size_mb=self.buffer_mb, debug=False
            )
            self._core = pycromanager.Core()
        except Exception as error:
            mmpycorex.terminate_core_instances()
            raise SourceError(f'config = "{self.config}": Micro-Manager cannot load it: {_text(error)}') from None
        self._metadata = pymmcore.Metadata
        try:
            self._prepare(self._core)
            self._stream = self._look(self._core)
        except BaseException:
            self.close()
            raise
        return (self._stream,)

    def _find(self, mmpycorex: Any) -> tuple[Path, Path]:
        if self.config == "demo":
            demo = require("mm_test_adapters", "demo", 'config = "demo"')
            adapters = Path(self.adapters or demo.device_adapter_path())
            return adapters, Path(demo.device_adapter_path()) / "MMConfig_demo.cfg"
        config = Path(self.config).absolute()
        if not config.is_file():
            raise SourceError(f'config = "{self.config}": there is no such file. Give a .cfg, or "demo"')
        if self.adapters is not None:
            if not self.adapters.is_dir():
                raise SourceError(f'adapters = "{self.adapters}": there is no such folder')
            return self.adapters.absolute(), config
        try:
            found = mmpycorex.find_existing_mm_install()
        except Exception:
            found = None
        if not found:
            raise SourceError(
                'adapters: no installed Micro-Manager was found. Give its folder, such as adapters = "C:/Program '
                'Files/Micro-Manager-2.0"'
            )
        return Path(found), config

    def _prepare(self, core: Any) -> None:
        devices = list(core.get_loaded_devices())
        if self.camera is not None:
            if self.camera not in devices:
                raise SourceError(_no_such("camera", self.camera, devices))
            core.set_camera_device(self.camera)
        self.camera = core.get_camera_device()
        if not self.camera:
            raise SourceError(f'config = "{self.config}" names no camera. Give camera = one of {", ".join(devices)}')
        for key, value in self.properties.items():
            _set_property(core, devices, key, str(value))
        _refuse_crash(core, self.camera)
        if self.exposure_ms is not None:
            self._call(f"exposure_ms = {self.exposure_ms:g}", lambda: core.set_exposure(self.exposure_ms))
            real_ms = core.get_exposure()
            if abs(real_ms - self.exposure_ms) > 0.05 * self.exposure_ms:
                raise SourceError(f"exposure_ms = {self.exposure_ms:g}: camera {self.camera} takes {real_ms:g} instead")
        if self.focus_um is not None:
            focus = core.get_focus_device()
            if not focus:
                raise SourceError(f"focus_um = {self.focus_um:g}: the configuration has no focus device")
            self._call(f"focus_um = {self.focus_um:g}", lambda: core.set_position(focus, self.focus_um))
            self._call(f"focus_um = {self.focus_um:g}", lambda: core.wait_for_device(focus))

    def _look(self, core: Any) -> Stream:
        components, depth, size = core.get_number_of_components(), core.get_image_bit_depth(), core.get_bytes_per_pixel()
        if components != 1:
            raise SourceError(
                f"camera {self.camera} gives {components} colours a pixel, which cannot be restored yet. "
                'Set a grey pixel type, such as properties = { "Camera.PixelType" = "16bit" }'
            )
        if size not in (1, 2, 4):
            raise SourceError(f"camera {self.camera} gives {size} bytes a pixel; allowed are 1, 2 and 4")
        dtype = {1: "uint8", 2: "uint16", 4: "float32" if self.float32 else "uint32"}[size]
        pixel_um = self.pixel_um or core.get_pixel_size_um() or None
        return Stream(
            Spec((core.get_image_height(), core.get_image_width()), dtype),
            camera=str(self.camera),
            channel=self.channel,
            pixel_um=pixel_um,
            exposure_ms=core.get_exposure(),
            bit_depth=depth,
            frames=self.frames,
            details={
                "core": core.get_version_info(),
                "device": f"{core.get_device_library(self.camera)} {core.get_device_name(self.camera)}",
                "binning": core.get_property(self.camera, "Binning") if core.has_property(self.camera, "Binning") else "",
            },
        )

    def _call(self, what: str, do: Any) -> None:
        try:
            do()
        except Exception as error:
            raise SourceError(f"{what}: Micro-Manager refuses: {_text(error)}") from None

    # ---------------------------------------------------------------- frames

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Start the sequence."""
        self._account = account
        self._begin()

    def _begin(self) -> None:
        left = NO_END if self.frames is None else self.frames - self._popped
        self._expected = 0
        self._wall_ns = now_ns() - time.time_ns()
        self._call("the sequence", lambda: self._core.start_sequence_acquisition(left, 0, True))

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        self._slots.append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Pop the next frame into a slot; without one frames wait in the core's buffer, then the oldest drop. Hot."""
        core = self._core
        if core is None or self.finished:
            return None
        end_ns = now_ns() + round(timeout_s * 1e9)
        while True:
            if core.get_remaining_image_count():
                if self._slots:
                    return self._pop(core, self._slots.popleft())
                total = core.get_buffer_total_capacity()
                if total and core.get_buffer_free_capacity() < (1 - FULL) * total:
                    self._drop(core)
                    continue
            elif not core.is_sequence_running() and not core.get_remaining_image_count():
                self._ended(core)
                return None
            if now_ns() >= end_ns:
                return None
            time.sleep(LOOK_S)

    def _take(self, core: Any) -> tuple[NDArray[Any], Any]:
        metadata = self._metadata()
        pixels = core.pop_next_image_md(0, 0, metadata)
        self._popped += 1
        return pixels, metadata

    def _pop(self, core: Any, slot: Slot) -> Slot:
        pixels, metadata = self._take(core)
        number = self._count(metadata)
        raw = slot.planes["raw"]
        height, width, kind = _tag(metadata, "Height"), _tag(metadata, "Width"), _tag(metadata, "PixelType")
        if (int(height), int(width)) != raw.shape or pixels.nbytes != raw.nbytes:
            raise SourceError(
                f"camera {self.camera} now gives {height}x{width} {kind} instead of {self._stream and self._stream.spec}; "
                "binning, ROI and pixel type stay as they are during a run. Start it again"
            )
        np.copyto(raw, pixels.view(raw.dtype).reshape(raw.shape))
        now = now_ns()
        slot.info = FrameInfo(
            self._seq,
            camera_number=number,
            camera_ns=min(self._stamp(metadata), now),
            received_ns=now,
        )
        self._seq += 1
        return slot

    def _drop(self, core: Any) -> None:
        """Make room in the core's buffer, with a count, rather than let it overflow."""
        _, metadata = self._take(core)
        self._count(metadata)
        assert self._account is not None
        self._account.missing(self._seq, 1, "dropped", "ring")
        self._seq += 1

    def _count(self, metadata: Any) -> int:
        """Return the camera's number, and tell of a gap before it."""
        number = int(_tag(metadata, "ImageNumber") or -1)
        gap = number - self._expected
        if number >= 0 and gap > 0:
            assert self._account is not None
            self._account.missing(self._seq, gap, "lost", "camera")
            self._seq += gap
        self._expected = number + 1
        return number

    def _stamp(self, metadata: Any) -> int:
        text = _tag(metadata, "TimeReceivedByCore")
        if not text:
            return now_ns()
        return self._wall_ns + round(datetime.fromisoformat(text).timestamp() * 1e9)

    def _ended(self, core: Any) -> None:
        """Tell an end from an overflow, which stops the camera while frames are wanted."""
        assert self._account is not None
        if core.is_buffer_overflowed() and not self._stopping:
            self._account.missing(self._seq, 1, "lost", "camera buffer")
            self._seq += 1
            if self.frames is None or self._popped < self.frames:
                self._begin()
                return
        self._account.told(self._seq)
        self.finished = True

    def stop(self) -> None:
        """Stop the camera; frames in the core's buffer can still be read."""
        self._stopping = True
        if self._core is not None and self._core.is_sequence_running():
            self._core.stop_sequence_acquisition()

    def close(self) -> None:
        """Unload the devices."""
        self.finished = True
        core, self._core = self._core, None
        self._slots.clear()
        if core is not None:
            import mmpycorex

            if core.is_sequence_running():
                core.stop_sequence_acquisition()
            mmpycorex.terminate_core_instances()


def _tag(metadata: Any, name: str) -> str:
    return str(metadata.GetSingleTag(name).GetValue()) if metadata.HasTag(name) else ""


def _set_property(core: Any, devices: list[str], key: str, value: str) -> None:
    device, dot, name = key.partition(".")
    if not dot or not name:
        raise SourceError(f'properties."{key}": name a device, a dot and a property, such as "Camera.PixelType"')
    if device not in devices:
        raise SourceError(f'properties."{key}": ' + _no_such("device", device, devices))
    names = list(core.get_device_property_names(device))
    if name not in names:
        raise SourceError(f'properties."{key}": ' + _no_such("property", name, names))
    allowed = list(core.get_allowed_property_values(device, name))
    if allowed and value not in allowed:
        raise SourceError(f'properties."{key}" = "{value}": allowed are {", ".join(allowed)}.{did_you_mean(value, allowed)}')
    try:
        core.set_property(device, name, value)
    except Exception as error:
        raise SourceError(f'properties."{key}" = "{value}": Micro-Manager refuses: {_text(error)}') from None


def _refuse_crash(core: Any, camera: str) -> None:
    """DemoCamera draws beads into RGB pixels past its memory, which ends the process."""
    if core.get_device_library(camera) != "DemoCamera" or not core.has_property(camera, "Mode"):
        return
    if "Beads" in core.get_property(camera, "Mode") and "RGB" in core.get_property(camera, "PixelType"):
        raise SourceError(
            "DemoCamera's fluorescent beads with an RGB pixel type crash Micro-Manager. "
            'Set properties = { "Camera.PixelType" = "16bit" }'
        )


def _no_such(what: str, given: str, allowed: list[str]) -> str:
    return f'no {what} "{given}".{did_you_mean(given, allowed)} There are: {", ".join(allowed)}'


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
