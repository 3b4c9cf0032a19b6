"""Back to Micro-Manager: the restored picture in a window of the running application."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pellucid.errors import PellucidError, SinkError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RESTORED, Slot, Spec, Stream
from pellucid.sinks._application_window import ApplicationWindow, Picture
from pellucid.wire.bridge import PORT, Bridge
from pellucid.wire.bridge_message import Absent, Gone, Refused, Stopped

__all__ = ["ApplicationDisplay"]

RETRY_S = 1.0
"""Between two looks for an application that went away."""
ANSWER_S = 5.0
FINISH_S = 1.0
"""For the last picture."""
LARGEST = {"uint8": 255, "uint16": 65535}


@dataclass(config=ConfigDict(extra="forbid"))
class ApplicationDisplay:
    """Show one plane in the running Micro-Manager, a few times a second, the newest frame only.

    What is shown is ``(value - offset) * scale``, rounded, cut to 0 .. 65535 (0 .. 255 in colour pictures): the same
    for every frame, so that brightness can be compared. A frame that has no such plane, because its restoration was
    left out, is skipped, not replaced by the raw one. Of a stack the brightest projection is shown. An application
    that goes away costs the run nothing; when it is back, so are the pictures.

    Parameters
    ----------
    plane
        ``"restored"``, ``"raw"``, or what else a stage writes.
    port
        Of the application's server.
    window
        ``"own"``: a window of its own; ``"live"``: that of snaps and live mode, where live mode shows its frames too.
    max_fps
        Frames in between are left out.
    scale, offset
        As above.
    title
        Of the own window.

    Attributes
    ----------
    shown, skipped : int
        Frames that the application has taken, and those left out.
    """

    plane: str = RESTORED
    port: Annotated[int, Field(ge=1, le=65535)] = PORT
    window: Literal["own", "live"] = "own"
    max_fps: Annotated[float, Field(gt=0, le=100)] = 5.0
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    title: str = "Pellucid"
    policy: ClassVar[str] = "latest"
    early: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.shown = 0
        self.skipped = 0
        self._streams: dict[int, tuple[Stream, Spec, int]] = {}
        self._channels: dict[tuple[str, str], int] = {}
        self._due_ns = 0
        self._period_ns = round(1e9 / self.max_fps)
        self._ledger: Ledger | None = None
        self._next: Picture | None = None
        self._busy = False
        self._some = threading.Condition()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._bridge: Bridge | None = None
        self._shows: ApplicationWindow | None = None
        self._away = self._closed = False
        self._complaint = ""

    # ---------------------------------------------------------------- open

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Connect to the application, if it is there already.

        Raises
        ------
        SinkError
            Where no stream has the plane, or something else listens at the port.
        """
        self._ledger = run["ledger"]
        for stream, specs in zip(streams, planes, strict=True):
            self.extend(stream, specs)
        if not self._streams:
            there = ", ".join(dict.fromkeys(name for specs in planes for name in specs))
            raise SinkError(f'plane = "{self.plane}": no stream has it. There are: {there}')
        self._over.clear()
        try:
            self._connect()
        except Absent:
            self._lose("it is not there yet")
        except (Gone, Refused, Stopped) as error:
            self._disconnect()
            raise SinkError(f"port = {self.port}: no Micro-Manager that can show pictures: {error}") from None
        except PellucidError as error:
            self._disconnect()
            raise SinkError(str(error)) from None
        self._thread = threading.Thread(target=self._work, name="pellucid application", daemon=True)
        self._thread.start()

    def extend(self, stream: Stream, planes: Mapping[str, Spec]) -> None:
        """Take a stream that begins during the run, if it has the plane."""
        spec = planes.get(self.plane)
        if spec is not None:
            channel = self._channels.setdefault((stream.camera, stream.channel), len(self._channels))
            self._streams[stream.index] = stream, spec, channel

    def _connect(self) -> None:
        bridge = self._bridge = Bridge(self.port, lambda _: self._over.is_set())
        bridge.limit_s = ANSWER_S
        self._shows = ApplicationWindow(bridge, self.window == "own", self.title)

    # ---------------------------------------------------------------- frames

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot: turn the plane into a picture for the other thread, if it is time for one."""
        known = self._streams.get(slot.info.stream)
        now = now_ns()
        if known is None or self.plane not in names or now < self._due_ns or self._away or self._closed:
            with self._some:
                self.skipped += 1
            return
        self._due_ns = max(self._due_ns + self._period_ns, now - self._period_ns // 2)
        stream, spec, channel = known
        pixel_um = None if stream.pixel_um is None else stream.pixel_um / spec.zoom
        picture = Picture(self._turned(slot.planes[self.plane], spec), channel, pixel_um)
        with self._some:
            self.skipped += self._next is not None
            self._next = picture
            self._some.notify_all()

    def _turned(self, plane: NDArray[Any], spec: Spec) -> NDArray[Any]:
        """Return a plane as the application can show it."""
        if spec.is_colour:
            pixels = np.zeros((*spec.shape[1:], 4), np.uint8)
            for place, colour in zip((2, 1, 0), plane, strict=True):
                pixels[..., place] = self._scaled(colour, "uint8")
            return pixels
        flat = plane.max(axis=0) if plane.ndim == 3 else plane
        return self._scaled(flat, "uint8" if flat.dtype == np.uint8 else "uint16")

    def _scaled(self, flat: NDArray[Any], dtype: str) -> NDArray[Any]:
        if self.scale == 1.0 and self.offset == 0.0 and flat.dtype == dtype:
            return flat.copy()
        value = flat.astype(np.float32)
        value -= np.float32(self.offset)
        value *= np.float32(self.scale)
        np.nan_to_num(value, copy=False, nan=0.0)
        np.clip(value, 0, LARGEST[dtype], out=value)
        return np.rint(value, out=value).astype(dtype)

    # ---------------------------------------------------------------- the thread that talks

    def _work(self) -> None:
        while not self._over.is_set():
            if self._away:
                self._look_for_it()
                continue
            with self._some:
                if self._next is None:
                    self._some.wait(0.5)
                picture, self._next = self._next, None
                self._busy = picture is not None
            if picture is not None:
                shown = self._show(picture)
                with self._some:
                    self.shown += shown
                    self.skipped += not shown
                    self._busy = False
                    self._some.notify_all()
        self._disconnect()

    def _show(self, picture: Picture) -> bool:
        assert self._shows is not None
        try:
            shown = self._shows.show(picture)
        except Stopped:
            return False
        except Gone as error:
            self._lose(str(error))
            return False
        except (Refused, AttributeError, TypeError) as error:
            self._complain(f"Micro-Manager refuses a picture: {error}")
            return False
        if not shown and not self._closed:
            self._closed = True
            self._note("its window was closed; the run goes on")
        return shown

    def _look_for_it(self) -> None:
        if self._over.wait(RETRY_S):
            return
        try:
            self._connect()
        except (Absent, Gone, Stopped, Refused, PellucidError) as error:
            self._disconnect()
            if isinstance(error, PellucidError):
                self._complain(str(error))
            return
        self._away = False
        self._note(f"Micro-Manager is there on port {self.port}")

    def _lose(self, why: str) -> None:
        self._disconnect()
        self._away = True
        self._note(f"no pictures to Micro-Manager on port {self.port} ({why}); trying again every {RETRY_S:g} s")

    def _disconnect(self) -> None:
        bridge, self._bridge, self._shows = self._bridge, None, None
        if bridge is not None:
            bridge.close()

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            self._note(text)

    def _note(self, text: str) -> None:
        if self._ledger is not None:
            self._ledger.note(f"micromanager-display: {text}")

    # ---------------------------------------------------------------- the end

    def finish(self) -> None:
        """Wait shortly for the last picture."""
        with self._some:
            self._some.wait_for(lambda: self._away or not (self._busy or self._next is not None), FINISH_S)
            self.skipped += self._next is not None
            self._next = None

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Let go of the application; its window stays."""
        self._over.set()
        with self._some:
            self._some.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._disconnect()
