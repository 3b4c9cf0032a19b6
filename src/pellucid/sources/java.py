"""A running Micro-Manager, the Java application, through the ZeroMQ server that pycromanager uses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import PellucidError, SourceError
from pellucid.protocols import Account, Ring, Slot, Stream
from pellucid.sources._bridge_camera import Camera, ask_camera
from pellucid.sources._bridge_desk import Desk, Ending
from pellucid.sources._bridge_drive import Drive, DrivenCore, refuse_busy
from pellucid.sources._bridge_every import EveryFrame
from pellucid.sources._bridge_look import Look
from pellucid.sources._bridge_watch import Watch
from pellucid.sources._channels import experiment_streams
from pellucid.sources._experiment import Experiment
from pellucid.sources._mmcore import text
from pellucid.sources._paths import from_folder
from pellucid.sources._player import Player
from pellucid.wire.bridge import PORT, Bridge, attach
from pellucid.wire.bridge_message import Garbage, Gone, Refused, Stopped
from pellucid.wire.bridge_object import RemoteObject

__all__ = ["MicroManagerJava"]

FOREVER_S = 1e7
GARBLED = 5
"""Connections in a row that end in an answer nobody can read, until it is no Micro-Manager."""
NO_CAMERA_S = 0.5
"""Between two looks for the camera of a Micro-Manager that has come back and still loads its configuration."""


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class MicroManagerJava:
    """Attach to a Micro-Manager that runs on this computer: ``Tools > Options > Run pycro-manager server``.

    ``look`` takes the newest image whenever there is a new one and room for it, and leaves the application's live
    view as it is; images between two looks are counted as dropped, ``not looked at``. ``every-frame`` takes each
    image out of the application's buffer, but leaves the last ones there, at which its preview peeks; what is missing
    in the camera's numbers is lost (``camera buffer`` where the buffer was seen to have been thrown away, or as many
    are missing as it holds, else ``camera``), and frames that come faster than the bridge carries them are dropped
    (``bridge``). Where sequences come and go between two looks the totals are not confirmed. Both wait while no
    sequence runs, follow live mode as it is turned on and off, and wait for a Micro-Manager that goes away. ``drive``
    plays an experiment.

    Parameters
    ----------
    port
        Of the server.
    mode
        ``"look"``, ``"every-frame"`` or ``"drive"``.
    wait_s
        For Micro-Manager at the start.
    frames
        End after so many; None for no end. Not with ``drive``.
    sequence
        With ``drive``: an ``MDASequence`` of useq-schema, as a table or the path of a YAML or JSON file.
    exposure_ms
        With ``drive``: where the sequence says none; None: as it is set.
    channel
        Name for all frames; empty: what Micro-Manager says of each.
    pixel_um
        Size of a pixel in the specimen; None: as Micro-Manager has it, if it has.
    float32
        Pixels of 32 bits are floating point. Micro-Manager hands all of them out as such; false: they are whole
        numbers, for a camera that really gives those.

    Raises
    ------
    WireError
        From ``open`` where no Micro-Manager comes, something else listens there, or its version is another one.
    SourceError
        From ``open`` where it has no camera or one that cannot be taken; from ``read`` where the camera goes.
    """

    port: Annotated[int, Field(ge=1, le=65535)] = PORT
    mode: Literal["look", "every-frame", "drive"] = "look"
    wait_s: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] = FOREVER_S
    frames: Annotated[int, Field(ge=1)] | None = None
    sequence: str | dict[str, Any] | None = None
    exposure_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    channel: str = ""
    pixel_um: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    float32: bool = True
    passive: ClassVar[bool] = False
    """``open`` waits for Micro-Manager, so `pellucid check` leaves it alone."""

    @field_validator("sequence")
    @classmethod
    def _sequence_file(cls, sequence: str | dict[str, Any] | None, info: ValidationInfo) -> str | dict[str, Any] | None:
        return str(from_folder(Path(sequence), info)) if isinstance(sequence, str) else sequence

    def __post_init__(self) -> None:
        if self.mode == "drive":
            if self.sequence is None:
                raise ValueError('mode = "drive" needs sequence: the path of an MDASequence, or a table')
            if self.frames is not None:
                raise ValueError("sequence says how many frames there are; leave out frames")
        else:
            for name in ("sequence", "exposure_ms"):
                if getattr(self, name) is not None:
                    raise ValueError(f'{name} is for mode = "drive"; in mode = "{self.mode}" Micro-Manager has it')
        self.shares_memory = False
        self.live = self.mode != "drive"
        self.finished = False
        self.fresh: list[Stream] = []
        self._ending = Ending()
        self._bridge: Bridge | None = None
        self._core: RemoteObject | None = None
        self._camera: Camera | None = None
        self._experiment: Experiment | None = None
        self._player: Player | None = None
        self._places: list[tuple[int, str]] = []
        self._streams: tuple[Stream, ...] = ()
        self._desk: Desk | None = None
        self._thread: threading.Thread | None = None
        self._error: PellucidError | None = None

    # ---------------------------------------------------------------- open

    def ready(self) -> None:
        """Raise what `open` would for a sequence that cannot be read.

        Raises
        ------
        SourceError
            Where its file is missing, or is no MDASequence that can be played.
        MissingExtra
            Where useq-schema is not installed.
        """
        if self.sequence is not None:
            self._experiment = Experiment.load(self.sequence)

    def open(self) -> tuple[Stream, ...]:
        """Wait for Micro-Manager, and ask for its camera.

        Raises
        ------
        WireError, SourceError
        """
        self.ready()
        self._ending = Ending()
        self.finished = False
        self.fresh.clear()
        self._error = None
        try:
            self._connect(self.wait_s, logging.getLogger("pellucid").warning)
            self._streams = self._find_streams()
        except BaseException as error:
            self.close()
            if isinstance(error, Stopped):
                raise SourceError(f"port = {self.port}: stopped while waiting for Micro-Manager") from None
            if isinstance(error, Gone | Refused):
                raise SourceError(f"port = {self.port}: Micro-Manager cannot be used: {error}") from None
            if isinstance(error, TypeError | ValueError | ArithmeticError | AttributeError | LookupError):
                # Whatever listens there answers with other things than a core has to say.
                raise SourceError(f"port = {self.port}: Micro-Manager cannot be understood: {text(error)}") from error
            raise
        return self._streams

    def _connect(self, wait_s: float, waits: Any = lambda line: None) -> Bridge:
        bridge = self._bridge = attach(self.port, wait_s, self._ending.gives_up, waits)
        self._core = RemoteObject.construct(bridge, "mmcorej.CMMCore")
        return bridge

    def _find_streams(self) -> tuple[Stream, ...]:
        assert self._core is not None
        assert self._bridge is not None
        camera = self._camera = ask_camera(self._core, floats=self.float32)
        keys: dict[str, Any] = {"pixel_um": self.pixel_um or camera.pixel_um, "channel": self.channel or camera.channel}
        if self.mode == "drive":
            return self._plan(self._bridge, self._core, camera.stream(0, camera.device, **keys))
        frames = self.frames if len(camera.names) == 1 else None
        return tuple(camera.stream(i, name, frames=frames, **keys) for i, name in enumerate(camera.names))

    def _plan(self, bridge: Bridge, remote: RemoteObject, like: Stream) -> tuple[Stream, ...]:
        """Look whether the core can do the experiment, and which streams it will give."""
        assert self._experiment is not None
        refuse_busy(bridge, remote)
        core = DrivenCore(remote)
        height, width = like.spec.shape[-2:]
        field_um = (width * like.pixel_um, height * like.pixel_um) if like.pixel_um else None
        self._experiment = self._experiment.with_field(field_um)
        if self.exposure_ms is not None:
            core.set_exposure(self.exposure_ms)
        player = self._player = Player(core, self._experiment)
        player.check()
        player.prepare()
        bridge.limit_s = None  # from here on an answer takes as long as a stage or a camera does
        streams, self._places = experiment_streams(core, self._experiment, like=like, floats=self.float32)
        return streams

    # ---------------------------------------------------------------- frames

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Begin to take frames: those that come from now on."""
        assert self._bridge is not None
        assert self._core is not None
        desk = self._desk = Desk(self.fresh, self._streams, account, self._ending)
        if self.mode == "drive":
            run = partial(self._drive, desk, self._bridge)
        else:
            watch, gone = self._make_watch(desk), None
            try:
                watch.attach(self._bridge, self._core)
            except Gone as error:
                gone = error  # it may come back
            except Refused as error:
                watch.close()
                raise SourceError(f"Micro-Manager refuses: {error}") from None
            except BaseException:
                watch.close()
                raise
            run = partial(self._watch, desk, watch, gone)
        self._bridge.limit_s = None
        self._thread = threading.Thread(target=self._talk, args=(desk, run), name="pellucid bridge", daemon=True)
        self._thread.start()

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        assert self._desk is not None
        self._desk.offer(slot)

    def extend(self, rings: Sequence[Ring]) -> None:
        """Nothing to do: the slots of new streams are offered as all are."""

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame's slot. Hot."""
        desk = self._desk
        if desk is None or self.finished:
            return None
        slot = desk.take(timeout_s)
        if slot is None and desk.empty and not self.fresh:
            self.finished = True
            error, self._error = self._error, None
            if error is not None:
                raise error
        return slot

    def stop(self) -> None:
        """Take what waits, and no more."""
        self._ending.ask()

    def close(self) -> None:
        """Let go of Micro-Manager, which goes on."""
        self._ending.close()
        self.finished = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()
        self._core = self._desk = None

    # ---------------------------------------------------------------- the talking thread

    def _talk(self, desk: Desk, run: Callable[[], bool]) -> None:
        complete = False
        try:
            complete = run()
        except Stopped:
            pass
        except PellucidError as error:
            self._error = error
        except Exception as error:
            self._error = SourceError(f"{type(error).__name__}: {text(error)}")
            self._error.__cause__ = error
        finally:
            desk.end(complete)

    def _drive(self, desk: Desk, bridge: Bridge) -> bool:
        assert self._core is not None
        assert self._player is not None
        core = DrivenCore(self._core)
        Drive(desk, bridge, core, self._player, self._streams, self._places, floats=self.float32).run()
        return True

    def _make_watch(self, desk: Desk) -> Watch:
        assert self._camera is not None
        watch = (Look if self.mode == "look" else EveryFrame)(
            desk,
            self._streams,
            self._camera,
            channel=self.channel,
            floats=self.float32,
            pixel_um=self.pixel_um,
            wanted=self.frames,
        )
        watch.open()
        return watch

    def _watch(self, desk: Desk, watch: Watch, gone: Gone | None) -> bool:
        """Watch until the run is over; return whether it is known what was produced."""
        garbled, seq = 0, -1
        try:
            while True:
                try:
                    if gone is not None:
                        self._take_up(desk, watch, gone)
                    self._follow(watch)
                    return not watch.unsure
                except Refused as error:
                    raise SourceError(f"Micro-Manager refuses: {error}") from None
                except Gone as error:
                    gone = error
                    garbled = garbled + 1 if isinstance(error, Garbage) and desk.seq == seq else 0
                    seq = desk.seq
                    if garbled >= GARBLED:
                        raise SourceError(f"port = {self.port}: Micro-Manager cannot be understood: {error}") from None
        finally:
            watch.close()

    def _follow(self, watch: Watch) -> None:
        stop = self._ending.asked
        while not stop.is_set() and not watch.finished:
            pause_s = watch.step()
            if pause_s:
                stop.wait(pause_s)
        if not watch.finished:
            watch.drain()

    def _take_up(self, desk: Desk, watch: Watch, gone: Gone) -> None:
        """Wait for a Micro-Manager that went away, and go on with it."""
        watch.unsure = True
        desk.note(f"the connection to Micro-Manager broke ({gone}); waiting for it on port {self.port}")
        bridge = self._reconnect()
        assert self._core is not None
        watch.attach(bridge, self._core, self._camera)
        desk.note(f"Micro-Manager is back on port {self.port}; frames between are unknown")

    def _reconnect(self) -> Bridge:
        """Wait for a Micro-Manager with a camera."""
        while True:
            assert self._bridge is not None
            self._bridge.close()
            try:
                bridge = self._connect(FOREVER_S)
                assert self._core is not None
                while True:
                    try:
                        self._camera = ask_camera(self._core, floats=self.float32)
                    except SourceError:
                        # It still loads its configuration, or has lost its camera for good: nobody can say which.
                        if self._ending.asked.wait(NO_CAMERA_S):
                            raise Stopped from None
                        continue
                    bridge.limit_s = None
                    return bridge
            except (Gone, Refused):
                if self._ending.asked.wait(NO_CAMERA_S):
                    raise Stopped from None
