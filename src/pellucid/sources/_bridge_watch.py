"""Watches the sequences that a running Micro-Manager takes, and gets their frames over the bridge.

What both modes build on, measured and read in MMCore, MMCoreJ and Micro-Manager's SnapLiveManager:

* Live mode is a sequence without an end, of which the application only *peeks* at the newest images. Where the
  buffer runs empty its preview raises; so the last images, one for each camera, are never taken out, only looked at.
* Only an insertion makes the number of waiting images grow, and only a pop, or the loss of the whole buffer, makes
  it shrink. So an unchanged number says that there is nothing new, at a hundredth of a picture's price; and where
  it shrank by more than was popped here, the buffer was thrown away: that is the evidence for ``camera buffer``.
* A sequence that begins counts ImageNumber from 0, and empties the buffer. So does a core that is too old to stop
  at a full one; the buffer was full then, which tells the two apart (``camera restart``).
* A whole sequence may come and go between two looks, and leave as many images as waited before. So while none runs
  the newest image's own numbers are read too.
* An image is copied out by the size that the camera has *now*. While a sequence runs the core refuses to change
  that; afterwards an image that still waits may be smaller than what would be copied, and reading past its end can
  end Micro-Manager. So none is touched unless the size is still that of its sequence; of what waited before the
  run, how many images the buffer holds tells their size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Slot, Stream
from pellucid.sources._bridge_camera import Camera, Place, Plane, Tags, ask_camera
from pellucid.sources._bridge_desk import Desk
from pellucid.sources._camera import times_binned
from pellucid.sources._stamps import Stamps
from pellucid.wire.bridge import Bridge
from pellucid.wire.bridge_message import Garbage, Refused, Reply, Request, value_of
from pellucid.wire.bridge_object import RemoteObject, read_json

__all__ = ["Seen", "Watch", "count_of"]

IDLE_S = 0.1
"""Longest pause while no sequence runs."""
RECHECK_S = 0.25
"""An unchanged number of images is not believed for longer."""
FIRST_PAUSE_S = 0.001
LAST_PAUSE_S = 0.02
"""Longest pause while a sequence runs."""
GONE_S = 2.0
"""Without any camera, until it counts as gone: a configuration that is loaded anew has none for a moment."""
REFUSALS = 20
"""In a row, until a core that gives no images is believed."""
UNSEEN = "sequences began and ended between two looks at Micro-Manager; others between them may be in no count"


@dataclass(slots=True)
class Seen:
    """The newest frame of one camera."""

    number: int
    stamp: str


Newest = tuple[str, Seen]
"""A camera, and its frame."""


class Watch:
    """What looking and taking every frame have in common: streams, numbers, and the way of a picture.

    Parameters
    ----------
    desk
    streams
        Of the source's ``open``, one for each camera.
    camera
        The camera then.
    channel
        A name for all frames; empty for what their tags say.
    floats
        32-bit pixels are floating point.
    pixel_um
        Instead of what Micro-Manager says.
    wanted
        Frames to take; None for no end.

    Attributes
    ----------
    given : int
        Frames taken.
    unsure : bool
        Frames may be missing of which nobody knows the number.
    """

    def __init__(
        self,
        desk: Desk,
        streams: Iterable[Stream],
        camera: Camera,
        *,
        channel: str,
        floats: bool,
        pixel_um: float | None,
        wanted: int | None,
    ) -> None:
        self.desk = desk
        self.given = 0
        self.unsure = False
        self._camera = camera
        self._channel = channel
        self._floats = floats
        self._pixel_um = pixel_um
        self._binning = camera.details["binning"]
        self._wanted = wanted
        self._streams = {(s.camera, s.channel): s for s in streams}
        self._count = len(self._streams)
        self._seen: dict[str, Seen] = {}
        self._from_zero = False
        self._running = False
        self._interval_s = 0.0
        self._new_ns = now_ns()
        self._studio: RemoteObject | None = None
        self._pause_s = FIRST_PAUSE_S
        self._plane = Plane()
        self._stamps = Stamps()
        self._exposure: dict[str, float] = {}
        self._refusals = 0
        self._no_camera_ns = 0
        self._looked_at = -1
        self._looked_ns = 0
        self._before: int | None = None
        self._before_newest: Newest | None = None
        self._before_capacity = 0
        self._stalled = False  # an image that was seen could not be taken yet
        self._noted = False
        self._size = self._size_now = -1

    def open(self) -> None:
        """Make ready."""
        self._plane.open()

    def close(self) -> None:
        """Give everything back."""
        self._plane.close()

    # ---------------------------------------------------------------- the connection

    def attach(self, bridge: Bridge, core: RemoteObject, camera: Camera | None = None) -> None:
        """Begin on a connection; `camera`: as it is now, where that may be another one."""
        self._bridge, self._core = bridge, core
        self._camera = camera or self._camera
        number = core.number
        self._ask_waiting = bridge.method(number, "getRemainingImageCount")
        self._ask_running = bridge.method(number, "isSequenceRunning")
        self._ask_capacity = bridge.method(number, "getBufferTotalCapacity")
        self._ask_memory = bridge.method(number, "getCircularBufferMemoryFootprint")
        self._ask_overflowed = bridge.method(number, "isBufferOverflowed")
        self._ask_size = bridge.method(number, "getImageBufferSize")
        self._ask_device = bridge.method(number, "getCameraDevice")
        self._ask_last = bridge.method(number, "getLastTaggedImage")
        self._ask_pop = bridge.method(number, "popNextTaggedImage")
        self._capacity = max(1, count_of(core.get_buffer_total_capacity()))
        self._seen.clear()
        self._studio = _studio(bridge)
        self._looked_at = -1
        self._looked_ns = 0
        running, waiting = self._state()
        self._running = running
        self._from_zero = not running
        self._size = self._size_now
        self._stalled = False
        self._before = None
        if not running:
            self._set_before(waiting)
        self._baseline(waiting)

    def step(self) -> float:
        """Do what is to be done next; return how long to pause then, in seconds."""
        raise NotImplementedError

    def drain(self) -> None:
        """After the run was told to stop: take what came before."""

    def _baseline(self, waiting: int) -> None:
        """Note what was there before."""
        raise NotImplementedError

    def _unchanged(self, waiting: int) -> bool:
        """Whether a number of images says that there is nothing new since the last look."""
        return waiting == self._looked_at and now_ns() - self._looked_ns < RECHECK_S * 1e9

    def _after_new(self) -> float:
        """Return a pause that ends shortly before the next image is due."""
        now = now_ns()
        since_s, self._new_ns = min((now - self._new_ns) * 1e-9, 1.0), now
        self._interval_s += 0.3 * (since_s - self._interval_s)
        self._pause_s = max(FIRST_PAUSE_S, self._interval_s / 20)
        return min(0.7 * self._interval_s, LAST_PAUSE_S)

    def _longer(self) -> float:
        """Return a pause that grows from one to the next."""
        self._pause_s = min(max(self._pause_s, FIRST_PAUSE_S) * 1.4, LAST_PAUSE_S if self._running else IDLE_S)
        return self._pause_s

    def _state(self) -> tuple[bool, int]:
        """Ask whether a sequence runs, how many images wait and how large they would be, in one round trip.

        Whether it runs is asked last: a sequence may begin between two of these questions, and so images that wait
        where none runs are never its own.
        """
        replies = self._bridge.ask(self._ask_waiting, self._ask_size, self._ask_running)
        waiting, size, running = map(value_of, replies)
        self._size_now = count_of(size)
        return _truth(running), count_of(waiting)

    def _set_before(self, waiting: int) -> None:
        """Note what waits as none of the run's."""
        self._before, self._before_newest, self._before_capacity = waiting, None, self._capacity
        self._is_before(False, waiting)

    def _is_before(self, running: bool, waiting: int) -> bool:
        """Whether nothing has come since that was noted: what waits then is none of the run's."""
        if self._before is None:
            return False
        if running or waiting != self._before:
            self._before = None
        elif waiting and not self._unchanged(waiting):
            self._looked_at, self._looked_ns = waiting, now_ns()
            capacity = self._holds_size_now()
            newest = self._newest() if capacity else None
            if newest is None:
                return True  # not to be touched: no sequence has begun with the size of now
            known = self._before_newest or (newest if capacity == self._before_capacity else None)
            if known == newest:
                self._before_newest = newest
            else:
                self._before, self._size = None, self._size_now
        return self._before is not None

    def _holds_size_now(self) -> int:
        """Return for how many images the buffer was made, if it was made for images of the size of now; else 0."""
        capacity, memory_mb = (count_of(value_of(r)) for r in self._bridge.ask(self._ask_capacity, self._ask_memory))
        each = {self._size_now, self._size_now * len(self._camera.names)} - {0}
        return capacity if capacity in [(memory_mb << 20) // size for size in each] else 0

    def _newest(self) -> Newest | None:
        """Return what tells the newest image from all others."""
        number = self._picture(self._by_age(0))
        if number is None:
            return None
        tags, _ = self._bridge.ask(self._bridge.field(number, "tags"), self._bridge.destructor(number))
        newest = self._tags(tags)
        return self._name(newest), Seen(newest.number, newest.stamp)

    def _came_and_went(self) -> bool:
        """Where none ran at two looks: whether a sequence did between them, so that its images wait now."""
        newest = None if self._stalled else self._newest()
        if newest is None or self._seen.get(newest[0]) == newest[1]:
            return False
        overflowed, running = map(value_of, self._bridge.ask(self._ask_overflowed, self._ask_running))
        if running:
            return False  # it will be seen to
        self.unsure = True  # there may have been others, which it has thrown away
        if not self._noted:
            self._noted = True
            self.desk.note(UNSEEN)
        self._from_zero = True
        self._take_unseen()
        if overflowed is True:
            self._tell_overflow()
        return True

    def _take_unseen(self) -> None:
        """Take what waits of a sequence that came and went."""
        raise NotImplementedError

    def _may_read(self, running: bool, waiting: int, known: int) -> bool:
        """Whether images that wait have the size by which they would be copied.

        Another number of images than was left says that a sequence came and went between two looks; but not where
        one ran at the last look, which has gone on filling the buffer since.
        """
        if running or (waiting != known and not self._running):
            self._size = self._size_now
        return self._size == self._size_now

    @property
    def finished(self) -> bool:
        """Whether as many frames were taken as were wanted."""
        return self._wanted is not None and self.given >= self._wanted

    def _changed_running(self, running: bool) -> None:
        """Note that a sequence began or ended."""
        self._running = running
        self._pause_s = FIRST_PAUSE_S
        if running:
            self._from_zero = True
            self._stalled = False
            self._seen.clear()
            self._survey()
        elif value_of(self._bridge.ask(self._ask_overflowed)[0]) is True:
            self._tell_overflow()

    def _tell_overflow(self) -> None:
        self.desk.missing(1, "lost", "camera buffer", self._only())
        self.unsure = True
        self.desk.note("Micro-Manager's buffer was full, and the sequence ended: at least one frame is lost")

    def _survey(self) -> None:
        """See what has changed about the camera."""
        self._camera = ask_camera(self._core, floats=self._floats)
        self._capacity = max(1, count_of(self._core.get_buffer_total_capacity()))
        for name in self._camera.names:
            self._look_at_exposure(name, self._camera.exposure_ms)

    def _look_for_camera(self) -> bool:
        """Return whether there is a camera; end the run where there has been none for a while."""
        device = value_of(self._bridge.ask(self._ask_device)[0])
        if device:
            self._no_camera_ns = 0
            return True
        self._no_camera_ns = self._no_camera_ns or now_ns()
        if now_ns() - self._no_camera_ns > GONE_S * 1e9:
            raise SourceError(
                f"camera {self._camera.device} is gone from Micro-Manager after {self.given} frames "
                "(its configuration was unloaded). Load it and start again"
            )
        return False

    # ---------------------------------------------------------------- pictures

    def _picture(self, request: Request) -> str | None:
        """Ask for a picture; return its number, None where there is none."""
        (reply,) = self._bridge.ask(request)
        try:
            value_of(reply)
        except Refused as refused:
            # Somebody was quicker, or the camera is gone.
            self.desk.ending.asked.wait(LAST_PAUSE_S)
            self._refusals += self._look_for_camera()
            if self._refusals > REFUSALS:
                raise SourceError(f"camera {self._camera.device}: Micro-Manager gives no pictures: {refused}") from None
            return None
        self._refusals = 0
        return str(self._bridge.keep(reply)["hash-code"])

    def _by_age(self, age: int) -> Request:
        """Return the request for the image before so many newer ones; it stays where it is."""
        if len(self._camera.names) == 1 and not age:
            return self._ask_last
        return self._bridge.method(self._core.number, "getNBeforeLastTaggedImage", ["long"], [age])

    def _ask_tags(self, number: str) -> Tags:
        return self._tags(self._bridge.ask(self._bridge.field(number, "tags"))[0])

    def _tags(self, reply: Reply) -> Tags:
        return Tags.read(read_json(value_of(reply)))

    def _forget(self, number: str) -> None:
        self._bridge.ask(self._bridge.destructor(number))

    def _name(self, tags: Tags) -> str:
        return tags.camera or self._camera.device

    def _stream_of(self, tags: Tags) -> Stream:
        """Return the stream of a frame; one that is new, or was changed, begins here."""
        name = self._name(tags)
        channel = self._channel or tags.channel or self._camera.channel
        spec = tags.spec(floats=self._floats)
        old = self._streams.get((name, channel))
        before = Place.of(old or self._camera.stream(0, name))
        place = tags.place(before)
        if old is not None and old.spec == spec and place == before:
            return old
        stream = replace(
            self._camera.stream(self._count, name, spec=spec, channel=channel),
            pixel_um=self._pixel_of(place) or tags.amount("PixelSizeUm") or self._camera.pixel_um,
            exposure_ms=tags.amount(f"{name}-Exposure") or self._camera.exposure_ms,
            bit_depth=place.bit_depth,
            replaces=None if old is None else old.index,
            details={
                **self._camera.details,
                "binning": place.binning,
                "roi": [*place.corner, tags.width, tags.height],
            },
        )
        self._count += 1
        self._streams[name, channel] = stream
        self.desk.begin(stream)
        return stream

    def _pixel_of(self, place: Place) -> float | None:
        """Return the size that was given for a pixel, which is that of the binning at the start."""
        more, fewer = times_binned(place.binning), times_binned(self._binning)
        return self._pixel_um and self._pixel_um * (more / fewer if more and fewer else 1.0)

    def _only(self) -> int:
        """Return the index of the stream where there is but one, else -1."""
        return next(iter(self._streams.values())).index if len(self._streams) == 1 else -1

    def _look_at_exposure(self, name: str, exposure_ms: float | None) -> None:
        if exposure_ms is None:
            return
        before = self._exposure.setdefault(name, exposure_ms)
        if abs(before - exposure_ms) > 1e-3:
            self._exposure[name] = exposure_ms
            self.desk.note(
                f"camera {name}: exposure is {exposure_ms:g} ms from frame {self.desk.seq} on, not {before:g}"
            )

    def _deliver(self, slot: Slot, stream: Stream, tags: Tags, array: Any) -> None:
        """Hot: put a picture into a slot, and the slot on the desk."""
        self._plane.copy(slot.planes["raw"], array)
        slot.info = FrameInfo(
            self.desk.seq,
            stream.index,
            camera_number=tags.number,
            camera_ns=self._camera_ns(tags),
            received_ns=now_ns(),
        )
        self.desk.seq += 1
        self.given += 1
        self.desk.put(slot)

    def _camera_ns(self, tags: Tags) -> int:
        try:
            return self._stamps.to_now_ns(str(tags.all.get("TimeReceivedByCore", "")))
        except (ValueError, OverflowError):
            return self._stamps.look()  # no time of day; the picture is good all the same

    def _fetch(self, number: str, stream: Stream, tags: Tags, slot: Slot) -> None:
        """Fetch the pixels of a picture, let Micro-Manager forget it, and deliver it."""
        pixels, _ = self._bridge.ask(self._bridge.field(number, "pix"), self._bridge.destructor(number))
        self._use(slot, stream, tags, value_of(pixels))

    def _use(self, slot: Slot, stream: Stream, tags: Tags, array: Any) -> None:
        """Hot: deliver pixels that fit their tags; others are lost, never shown."""
        if self._plane.fits(array, tags.kind, stream.spec):
            self._look_at_exposure(self._name(tags), tags.amount(f"{self._name(tags)}-Exposure"))
            self._deliver(slot, stream, tags, array)
            return
        self.desk.offer(slot)
        self.desk.missing(1, "lost", "camera buffer", stream.index)
        self.desk.note(
            f"frame {tags.number} of {stream.camera}: its pixels do not fit its tags ({tags.height}x{tags.width} "
            f"{tags.kind}); the camera was set while it waited. It is lost"
        )


def _studio(bridge: Bridge) -> RemoteObject | None:
    """Return the application; a core without a window has none."""
    try:
        return RemoteObject.construct(bridge, "org.micromanager.Studio")
    except Refused:
        return None


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Garbage("neither true nor false")
    return value


def count_of(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise Garbage("no number of images")
    return value
