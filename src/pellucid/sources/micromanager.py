"""A Micro-Manager core inside this process, through pycromanager's Python backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import PellucidError, SourceError, require
from pellucid.protocols import Account, Ring, Slot, Stream
from pellucid.sources._camera import Look, cameras_of, look, objective_of, spec_of
from pellucid.sources._channels import experiment_streams
from pellucid.sources._experiment import Experiment
from pellucid.sources._mmcore import DEMO, end_core, find_core, listed, no_such, refuse_crash, set_property, text
from pellucid.sources._paths import from_folder
from pellucid.sources._player import Player
from pellucid.sources._running import Running
from pellucid.sources._snapping import Snapping

__all__ = ["MicroManager"]

FEWEST = 4
"""Frames that the core's buffer must hold, so that one slow read is not an overflow yet."""


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class MicroManager:
    """Acquire from the camera of a Micro-Manager configuration, as a sequence.

    The sequence stops when the core's buffer overflows, so that an overflow is seen (a core that goes on
    would throw all unread frames away and say nothing): it is told as lost at ``camera buffer``, and the
    sequence starts again. Gaps in the camera's ImageNumber are told as lost at ``camera``, for each camera of
    several in one device, whose streams are their own.

    Code in this process may change the ROI, and may stop the camera and change its binning or pixel type
    (``pycromanager.Core()`` is the same core): frames that wait are kept, a new stream begins, and the camera is
    started again for the rest as soon as nothing has changed for 0.2 s. A camera that is stopped and not changed
    within a second was stopped on purpose, which ends the run in an error.

    Parameters
    ----------
    config
        A ``.cfg`` file, seen from the folder of the config that names it; or ``"demo"`` for the DemoCamera of
        mm-test-adapters.
    adapters
        Folder of the device adapters; ``"demo"``: those of mm-test-adapters; None: those for the demo, else the
        installed Micro-Manager's.
    camera
        Device; None: the one that the configuration names.
    exposure_ms
        None: as the configuration has it.
    frames
        How many, of each camera; None for no end.
    buffer_mb
        Of the core's own buffer.
    properties
        ``{"Camera.PixelType" = "16bit"}``: device, a dot, property; set in this order.
    focus_um
        Where the focus device is sent first.
    sequence
        An experiment: a YAML or JSON file with an MDASequence of useq-schema, seen from the folder of the config that
        names it, or the same as a table. It says what is acquired, so `frames` is left out; nothing is dropped, the
        experiment waits for room.
    interval_ms
        A slow time lapse of `frames` pictures, one every so often.
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
        From ``open`` where the core refuses something; from ``read`` where the camera stops by itself, goes, or
        gives frames that cannot be taken.
    """

    config: str
    adapters: Path | None = None
    camera: str | None = None
    exposure_ms: Annotated[float, Field(gt=0)] | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    buffer_mb: Annotated[int, Field(ge=8)] = 512
    properties: dict[str, str | int | float] = Field(default_factory=dict)
    focus_um: float | None = None
    sequence: str | dict[str, Any] | None = None
    interval_ms: Annotated[float, Field(gt=0)] | None = None
    channel: str = "Default"
    pixel_um: Annotated[float, Field(gt=0)] | None = None
    float32: bool | None = None
    needs: ClassVar[dict[str, str]] = {
        "pycromanager": "micromanager",
        "pymmcore": "micromanager",
        "useq": "micromanager",
    }
    passive: ClassVar[bool] = False
    """``open`` starts devices, so `pellucid check` leaves it alone."""

    @field_validator("config")
    @classmethod
    def _config_file(cls, config: str, info: ValidationInfo) -> str:
        return config if config == "demo" else str(from_folder(Path(config), info))

    @field_validator("adapters")
    @classmethod
    def _adapters_folder(cls, adapters: Path | None, info: ValidationInfo) -> Path | None:
        return adapters if adapters in (None, DEMO) else from_folder(adapters, info)

    @field_validator("sequence")
    @classmethod
    def _sequence_file(cls, sequence: str | dict[str, Any] | None, info: ValidationInfo) -> str | dict[str, Any] | None:
        return str(from_folder(Path(sequence), info)) if isinstance(sequence, str) else sequence

    def __post_init__(self) -> None:
        if self.sequence is not None and (self.frames is not None or self.interval_ms is not None):
            raise ValueError("sequence says what is acquired and when; leave out frames and interval_ms")
        if self.interval_ms is not None and self.frames is None:
            raise ValueError("interval_ms needs frames: how many pictures")
        self.shares_memory = False
        self.live = self.sequence is None and self.interval_ms is None
        self.finished = False
        self.fresh: list[Stream] = []
        self._core: Any = None
        self._metadata: Any = None
        self._streams: tuple[Stream, ...] = ()
        self._look: Look | None = None
        self._floats = False
        self._run: Running | Snapping | None = None
        self._experiment: Experiment | None = None
        self._player: Player | None = None
        self._places: list[tuple[int, str]] = []

    # ---------------------------------------------------------------- open

    def ready(self) -> None:
        """Raise what `open` would for a sequence that cannot be read.

        Raises
        ------
        SourceError
            Where its file is missing, or is no MDASequence that can be played.
        """
        if self.interval_ms is not None:
            plan = {"interval": self.interval_ms * 1e-3, "loops": self.frames}
            self._experiment = Experiment.load({"time_plan": plan})
        elif self.sequence is not None:
            self._experiment = Experiment.load(self.sequence)

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
        self.ready()
        adapters, config = find_core(self.config, self.adapters, mmpycorex)
        self.finished = False
        self.fresh.clear()
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
            self._streams = self._find_streams(self._core)
        except BaseException as error:
            self.close()
            if isinstance(error, PellucidError) or not isinstance(error, Exception):
                raise
            raise SourceError(f"camera {self.camera}: Micro-Manager refuses: {text(error)}") from None
        return self._streams

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
        for camera in cameras_of(core):
            refuse_crash(core, camera)
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

    def _find_streams(self, core: Any) -> tuple[Stream, ...]:
        assert self.camera is not None
        library = core.get_device_library(self.camera)
        cameras = cameras_of(core)
        makers = {core.get_device_library(camera) for camera in cameras}
        # The core hands floating point out as whole numbers, and does not say which they are.
        self._floats = makers == {"DemoCamera"} if self.float32 is None else self.float32
        now = self._look = look(core)
        objective = objective_of(core)
        spec = spec_of(self.camera, now.kind, now.height, now.width, floats=self._floats)
        streams = tuple(
            Stream(
                spec,
                camera=camera,
                channel=self.channel,
                index=index,
                pixel_um=self.pixel_um or core.get_pixel_size_um() or None,
                exposure_ms=core.get_exposure(),
                bit_depth=now.bit_depth,
                frames=self.frames,
                details={
                    "core": core.get_version_info(),
                    "device": f"{library} {core.get_device_name(self.camera)}",
                    "binning": now.binning,
                    "roi": [*now.corner, now.width, now.height],
                    **({"objective": objective} if objective else {}),
                },
            )
            for index, camera in enumerate(cameras)
        )
        if self._experiment is not None:
            streams = self._plan(core, self._experiment, streams[0])
        self._reserve(core)
        return streams

    def _plan(self, core: Any, experiment: Experiment, like: Stream) -> tuple[Stream, ...]:
        """Look whether the core can do the experiment, and which streams it will give."""
        height, width = like.spec.shape[-2:]
        field_um = (width * like.pixel_um, height * like.pixel_um) if like.pixel_um else None
        self._experiment = experiment = experiment.with_field(field_um)
        self._player = player = Player(core, experiment)
        player.check()
        player.prepare()
        streams, self._places = experiment_streams(core, experiment, like=like, floats=self._floats)
        if self.pixel_um:
            streams = tuple(replace(stream, pixel_um=self.pixel_um) for stream in streams)
        return streams

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

    def _call(self, what: str, do: Any) -> None:
        try:
            do()
        except Exception as error:
            raise SourceError(f"{what}: Micro-Manager refuses: {text(error)}") from None

    # ---------------------------------------------------------------- frames

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Start the sequence."""
        assert self._look is not None
        if self._player is not None:
            self._run = Snapping(
                self._core,
                self._metadata,
                self._player,
                self._streams,
                self._places,
                floats=self._floats,
                fresh=self.fresh,
                account=account,
            )
            self._run.start()
            return
        self._run = Running(
            self._core,
            self._metadata,
            self._streams,
            self._look,
            frames=self.frames,
            floats=self._floats,
            fresh=self.fresh,
            account=account,
        )
        self._run.start()

    def extend(self, rings: Sequence[Ring]) -> None:
        """Nothing to do: the slots of new streams come as all others do."""

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        if self._run is not None:
            self._run.offer(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame's slot. Hot."""
        run = self._run
        if run is None or self.finished:
            return None
        try:
            return run.read(timeout_s)
        finally:
            self.finished = run.finished

    def stop(self) -> None:
        """Stop the camera; frames in the core's buffer can still be read."""
        if self._run is not None:
            self._run.stop()

    def close(self) -> None:
        """Unload the devices."""
        self.finished = True
        if self._run is not None:
            self._run.close()
            self._run = None
        core, self._core = self._core, None
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
