"""A Micro-Manager core inside this process, through pycromanager's Python backend."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import PellucidError, SourceError, require
from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Ring, Slot, Spec, Stream
from pellucid.sources._mmcore import end_core, find_core, listed, no_such, refuse_crash, set_property, tag, text
from pellucid.sources._paths import from_folder
from pellucid.sources._stamps import Stamps
from pellucid.wire.copier import Copier

__all__ = ["MicroManager"]

NO_END = 2**31 - 1
FULL = 0.9
"""Without a free slot frames wait in the core's own buffer until so much of it is used."""
LOOK_S = 0.0005
"""Between two looks at an empty buffer: short against a frame, long against a core's time."""

FEWEST = 4
"""Frames that the core's buffer must hold, so that one slow read is not an overflow yet."""

_KINDS = {1: "GRAY8", 2: "GRAY16", 4: "GRAY32"}
"""Bytes of a pixel, and the core's name for grey pixels of that size."""


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class MicroManager:
    """Acquire from the camera of a Micro-Manager configuration, as a sequence.

    The sequence stops when the core's buffer overflows, so that an overflow is seen (a core that goes on
    would throw all unread frames away and say nothing): it is told as lost at ``camera buffer``, and the
    sequence starts again. Gaps in the camera's ImageNumber are told as lost at ``camera``.

    Parameters
    ----------
    config
        A ``.cfg`` file, seen from the folder of the config that names it; or ``"demo"`` for the DemoCamera of
        mm-test-adapters.
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
        The camera's 32-bit pixels are floating point; None: they are if it is a DemoCamera. The core hands both
        kinds out as whole numbers and does not say which they are.

    Raises
    ------
    SourceError
        From ``open`` where the core refuses something; from ``read`` where the camera stops by itself, or gives
        other frames than it said.
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
    float32: bool | None = None
    needs: ClassVar[dict[str, str]] = {"pycromanager": "micromanager", "pymmcore": "micromanager"}
    passive: ClassVar[bool] = False
    """``open`` starts devices, so `pellucid check` leaves it alone."""

    @field_validator("config")
    @classmethod
    def _config_file(cls, config: str, info: ValidationInfo) -> str:
        return config if config == "demo" else str(from_folder(Path(config), info))

    @field_validator("adapters")
    @classmethod
    def _adapters_folder(cls, adapters: Path | None, info: ValidationInfo) -> Path | None:
        return None if adapters is None else from_folder(adapters, info)

    def __post_init__(self) -> None:
        self.shares_memory = False
        self.live = True
        self.finished = False
        self._core: Any = None
        self._metadata: Any = None
        self._copier = Copier()
        self._slots: deque[Slot] = deque()
        self._stream: Stream | None = None
        self._account: Account | None = None
        self._kind = ""
        self._size = ("", "")
        self._seq = 0
        self._expected = 0
        self._given = 0
        self._full = 1
        self._stamps = Stamps()
        self._nbytes = 0
        self._unsure = False
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
        adapters, config = find_core(self.config, self.adapters, mmpycorex)
        self.finished = self._stopping = False
        self._seq = self._given = 0
        self._unsure = False
        try:
            pycromanager.start_headless(
                str(adapters), str(config), python_backend=True, buffer_size_mb=self.buffer_mb, debug=False
            )
            self._core = pycromanager.Core()
        except Exception as error:
            end_core()
            raise SourceError(f'config = "{self.config}": Micro-Manager cannot load it: {text(error)}') from None
        self._metadata = pymmcore.Metadata
        self._camera_type = pymmcore.CameraDevice
        try:
            self._prepare(self._core)
            self._stream = self._look(self._core)
        except BaseException as error:
            self.close()
            if isinstance(error, PellucidError) or not isinstance(error, Exception):
                raise
            raise SourceError(f"camera {self.camera}: Micro-Manager refuses: {text(error)}") from None
        return (self._stream,)

    def _prepare(self, core: Any) -> None:
        devices = list(core.get_loaded_devices())
        cameras = list(core.get_loaded_devices_of_type(self._camera_type))
        if self.camera is not None:
            if self.camera not in cameras:
                raise SourceError(no_such("camera", self.camera, cameras))
            core.set_camera_device(self.camera)
        self.camera = core.get_camera_device()
        if not self.camera:
            say = f'. Say which one: camera = "{cameras[0]}"' if cameras else ""
            raise SourceError(f'config = "{self.config}" names no camera. Its cameras: {listed(cameras)}{say}')
        for key, value in self.properties.items():
            set_property(core, devices, key, str(value))
        refuse_crash(core, self.camera)
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
        components, depth, size = (
            core.get_number_of_components(),
            core.get_image_bit_depth(),
            core.get_bytes_per_pixel(),
        )
        if components != 1:
            raise SourceError(
                f"camera {self.camera} gives {components} colours a pixel, which cannot be restored yet. "
                'Set a grey pixel type, such as properties = { "Camera.PixelType" = "16bit" }'
            )
        if size not in (1, 2, 4):
            raise SourceError(f"camera {self.camera} gives {size} bytes a pixel; allowed are 1, 2 and 4")
        channels = core.get_number_of_camera_channels()
        if channels != 1:
            names = [core.get_camera_channel_name(i) for i in range(channels)]
            raise SourceError(
                f"camera {self.camera} is {channels} cameras in one ({listed(names)}), whose frames come mixed. "
                'Say which one: camera = "..."'
            )
        library = core.get_device_library(self.camera)
        floats = library == "DemoCamera" if self.float32 is None else self.float32
        dtype = {1: "uint8", 2: "uint16", 4: "float32" if floats else "uint32"}[size]
        self._kind = _KINDS[size]
        self._size = (str(core.get_image_height()), str(core.get_image_width()))
        self._reserve(core)
        pixel_um = self.pixel_um or core.get_pixel_size_um() or None
        spec = Spec((core.get_image_height(), core.get_image_width()), dtype)
        self._nbytes = spec.nbytes
        return Stream(
            spec,
            camera=str(self.camera),
            channel=self.channel,
            pixel_um=pixel_um,
            exposure_ms=core.get_exposure(),
            bit_depth=depth,
            frames=self.frames,
            details={
                "core": core.get_version_info(),
                "device": f"{library} {core.get_device_name(self.camera)}",
                "binning": core.get_property(self.camera, "Binning")
                if core.has_property(self.camera, "Binning")
                else "",
            },
        )

    def _reserve(self, core: Any) -> None:
        """Let the core make its buffer now, so that one that is too small is said before the run."""
        needed_mb = -(-FEWEST * core.get_image_buffer_size() // 2**20)
        try:
            core.initialize_circular_buffer()
            holds = core.get_buffer_total_capacity()
            why = f"holds {holds} frames, {FEWEST} are needed"
        except Exception as error:
            holds, why = 0, f"Micro-Manager refuses: {text(error)}"
        if holds < FEWEST:
            raise SourceError(f"buffer_mb = {self.buffer_mb}: {why}. Set buffer_mb = {max(needed_mb, 8)} or more")
        self._full = int(FULL * holds)

    def _call(self, what: str, do: Any) -> None:
        try:
            do()
        except Exception as error:
            raise SourceError(f"{what}: Micro-Manager refuses: {text(error)}") from None

    # ---------------------------------------------------------------- frames

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Start the sequence."""
        self._account = account
        self._copier.open()
        self._begin()

    def _begin(self) -> None:
        left = NO_END if self.frames is None else self.frames - self._given
        self._expected = 0
        self._stamps = Stamps()
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
            waiting = core.get_remaining_image_count()
            if waiting and self._slots:
                return self._pop(core, self._slots.popleft())
            # All that are too many at once: the next call may come late, and by then the buffer would be full.
            for _ in range(waiting - self._full):
                self._drop(core)
            if not waiting and not core.is_sequence_running() and not core.get_remaining_image_count():
                self._ended(core)
                return None
            if now_ns() >= end_ns:
                return None
            time.sleep(LOOK_S)

    def _take(self, core: Any) -> tuple[NDArray[Any], Any]:
        # The core copies as many bytes as the camera's state says now, not as many as the frame has: with a larger
        # picture set meanwhile it would read beyond its buffer, which ends the process.
        if core.get_image_buffer_size() != self._nbytes:
            given = f"{core.get_image_height()}x{core.get_image_width()} pixels of {core.get_bytes_per_pixel()} bytes"
            raise self._changed(given)
        metadata = self._metadata()
        pixels = core.pop_next_image_md(0, 0, metadata)
        self._given += 1
        return pixels, metadata

    def _pop(self, core: Any, slot: Slot) -> Slot:
        raw = slot.planes["raw"]
        pixels, metadata = self._take(core)
        number = self._count(metadata)
        height, width, kind = tag(metadata, "Height"), tag(metadata, "Width"), tag(metadata, "PixelType")
        if (height, width) not in (self._size, ("", "")) or kind not in (self._kind, "Unknown", ""):
            raise self._changed(f"{height}x{width} {kind}")
        self._copier.copy(raw, pixels.view(raw.dtype).reshape(raw.shape))
        camera_ns = self._stamps.to_now_ns(tag(metadata, "TimeReceivedByCore"))
        slot.info = FrameInfo(self._seq, camera_number=number, camera_ns=camera_ns, received_ns=now_ns())
        self._seq += 1
        return slot

    def _changed(self, now: str) -> SourceError:
        assert self._stream is not None
        assert self._account is not None
        self._account.told(self._seq)
        self.finished = True
        return SourceError(
            f"camera {self.camera} now gives {now} instead of {self._stream.spec}; "
            "binning, ROI and pixel type stay as they are during a run. Start it again"
        )

    def _drop(self, core: Any) -> None:
        """Make room in the core's buffer, with a count, rather than let it overflow."""
        _, metadata = self._take(core)
        self._count(metadata)
        assert self._account is not None
        self._account.missing(self._seq, 1, "dropped", "ring")
        self._seq += 1

    def _count(self, metadata: Any) -> int:
        """Return the camera's number, and tell of a gap before it."""
        number = int(tag(metadata, "ImageNumber") or -1)
        gap = number - self._expected
        if number >= 0 and gap > 0:
            assert self._account is not None
            self._account.missing(self._seq, gap, "lost", "camera")
            self._seq += gap
            self._given += gap
        # Older cores count anew when they throw their buffer away: what was in it, nobody knows.
        self._unsure |= 0 <= number < self._expected
        self._expected = number + 1
        return number

    def _ended(self, core: Any) -> None:
        """Tell an end from an overflow, which stops the camera while frames are wanted."""
        assert self._account is not None
        overflowed = core.is_buffer_overflowed()
        if overflowed:
            self._account.missing(self._seq, 1, "lost", "camera buffer")
            self._seq += 1
        early = not self._stopping and (self.frames is None or self._given < self.frames)
        if early and overflowed:
            self._begin()
            return
        self._account.told(self._seq, complete=not self._unsure)
        self.finished = True
        if early:
            raise SourceError(
                f"camera {self.camera} stopped by itself after {self._given} frames "
                "(a change of ROI or of the core's buffer stops it, and so may a fault). Start it again"
            )

    def stop(self) -> None:
        """Stop the camera; frames in the core's buffer can still be read."""
        self._stopping = True
        if self._core is not None and self._core.is_sequence_running():
            self._core.stop_sequence_acquisition()

    def close(self) -> None:
        """Unload the devices."""
        self.finished = True
        self._copier.close()
        core, self._core = self._core, None
        self._slots.clear()
        if core is not None:
            try:
                if core.is_sequence_running():
                    core.stop_sequence_acquisition()
            except Exception:
                pass  # a camera that fails to stop is unloaded all the same
            try:
                # pycromanager keeps the core object, and with it the buffer, for the life of the process.
                core.unload_all_devices()
                core.set_circular_buffer_memory_footprint(1)
            except Exception:
                pass  # a device that refuses to go has nothing to give any more; what was read is with the session
            end_core()
