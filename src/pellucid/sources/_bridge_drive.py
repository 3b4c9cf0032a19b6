"""``mode = "drive"``: plays an experiment on the core of a running Micro-Manager, and takes every frame."""

from __future__ import annotations

from typing import Any

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Slot, Stream
from pellucid.sources._bridge_camera import Place, Plane, Tags, ask_roi
from pellucid.sources._bridge_desk import Desk
from pellucid.sources._camera import Look, cameras_of, changed, look_of
from pellucid.sources._mmcore import refuse_crash
from pellucid.sources._player import Player
from pellucid.sources._stamps import Stamps
from pellucid.sources._steps import Step
from pellucid.wire.bridge import Bridge
from pellucid.wire.bridge_message import Gone, Refused, Stopped
from pellucid.wire.bridge_object import RemoteObject

__all__ = ["Drive", "DrivenCore", "refuse_busy"]

LOOK_S = 0.002
ROOM_S = 0.1
"""For a slot, between two looks at whether the run goes on."""


class DrivenCore:
    """A core over the bridge, with the one call whose answer is another thing there: a ``java.awt.Rectangle``."""

    def __init__(self, remote: RemoteObject) -> None:
        self.remote = remote

    def __getattr__(self, name: str) -> Any:
        return getattr(self.remote, name)

    def get_roi(self) -> tuple[int, int, int, int]:
        """Return x, y, width and height."""
        return ask_roi(self.remote)


def refuse_busy(bridge: Bridge, core: RemoteObject) -> None:
    """Leave an application alone that uses its camera.

    Raises
    ------
    SourceError
        Where live mode is on, or an acquisition runs.
    """
    busy = ""
    try:
        studio = RemoteObject.construct(bridge, "org.micromanager.Studio")
        if studio.live().is_live_mode_on():
            busy = "live mode is on"
        elif studio.has("acquisitions") and studio.acquisitions().is_acquisition_running():
            busy = "an acquisition runs"
    except (Refused, AttributeError):
        pass  # a core without a window; its sequence tells as much
    if not busy and core.is_sequence_running():
        busy = "a sequence of its camera runs"
    if busy:
        raise SourceError(
            f'{busy} in Micro-Manager, so mode = "drive" leaves it alone. End that first, or take its frames with '
            'mode = "look" or "every-frame"'
        )


class Drive:
    """Plays an experiment and gives its frames; it waits for slots, and loses nothing for want of one.

    Parameters
    ----------
    desk
    bridge, core
    player
        Has checked its experiment.
    streams, places
        One for each place along ``c`` and each camera.
    floats
        32-bit pixels are floating point.
    """

    def __init__(
        self,
        desk: Desk,
        bridge: Bridge,
        core: DrivenCore,
        player: Player,
        streams: tuple[Stream, ...],
        places: list[tuple[int, str]],
        *,
        floats: bool,
    ) -> None:
        self._desk = desk
        self._bridge = bridge
        self._core = core
        self._player = player
        player.stop = desk.ending.asked
        player.notice = desk.ignore
        self._streams = dict(zip(places, streams, strict=True))
        self._count = len(streams)
        self._floats = floats
        self._plane = Plane()
        self._stamps = Stamps()

    def run(self) -> None:
        """Play to the end, or until the run is told to stop.

        Raises
        ------
        SourceError
            Where Micro-Manager refuses something, goes away, or its camera gives other pictures than it said.
        """
        self._plane.open()
        try:
            self._player.play(self._take)
        except (SourceError, Refused, Gone) as error:
            if self._desk.ending.asked.is_set() and self._bridge.broken:
                raise Stopped from None
            if self._bridge.broken:
                raise SourceError(
                    f"Micro-Manager went away after {self._desk.seq} frames of the experiment, which cannot go on "
                    "from there. Start it again"
                ) from None
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"after {self._desk.seq} frames Micro-Manager refuses: {error}") from None
        finally:
            self._plane.close()
            self._leave()

    def _leave(self) -> None:
        """Leave no sequence running."""
        try:
            if not self._bridge.broken and self._core.is_sequence_running():
                self._core.stop_sequence_acquisition()
        except (Gone, Refused, Stopped):
            pass  # what the camera could not do before was said

    # ---------------------------------------------------------------- pictures

    def _take(self, step: Step, count: int) -> None:
        for camera in cameras_of(self._core):
            refuse_crash(self._core, camera)
        if count == 1:
            self._snap(step)
            return
        done = 0
        while done < count and not self._desk.ending.asked.is_set():
            done += self._burst(step.later(done), count - done)

    def _snap(self, step: Step) -> None:
        core = self._core
        core.snap_image()
        had_ns = now_ns()
        for i, camera in enumerate(cameras_of(core)):
            picture = core.get_tagged_image(i)
            self._give(step, camera, picture, self._tags(picture), had_ns)

    def _tags(self, picture: RemoteObject) -> Tags:
        return Tags.read(picture.field("tags"))

    def _burst(self, step: Step, count: int) -> int:
        """Let the camera run for so many pictures; return how many are done: fewer where its buffer overflowed."""
        core, stop = self._core, self._desk.ending.asked
        cameras = cameras_of(core)
        expected = dict.fromkeys(cameras, 0)
        core.start_sequence_acquisition(count, 0.0, True)
        while True:
            running = core.is_sequence_running()
            if running and stop.is_set():
                core.stop_sequence_acquisition()
            if not core.get_remaining_image_count():
                if not running:
                    break
                stop.wait(LOOK_S)
                continue
            picture = core.pop_next_tagged_image()
            tags = self._tags(picture)
            camera = tags.camera if tags.camera in expected else cameras[0]
            number = tags.number if tags.number >= 0 else expected[camera]
            self._lost(number - expected[camera], "camera", self._stream(step, camera).index)
            expected[camera] = max(number, expected[camera]) + 1
            if number < count:
                self._give(step.later(number), camera, picture, tags, self._camera_ns(tags))
            else:
                picture.release()
        done = max(expected.values())
        where = "camera"
        if done < count and not stop.is_set():
            if not core.is_buffer_overflowed():
                raise SourceError(
                    f"camera {core.get_camera_device()} stopped by itself after {done} of {count} frames of a burst "
                    "(somebody stopped or changed it, or it has a fault). Start it again"
                )
            # The picture that had no room, of each camera that has not got further.
            done, where = done + 1, "camera buffer"
        for camera, given in expected.items():
            self._lost(done - given, where, self._stream(step, camera).index)
        return done

    def _camera_ns(self, tags: Tags) -> int:
        try:
            return self._stamps.to_now_ns(str(tags.all.get("TimeReceivedByCore", "")))
        except (ValueError, OverflowError):
            return self._stamps.look()

    def _stream(self, step: Step, camera: str) -> Stream:
        found = self._streams.get((step.channel, camera))
        if found is None:
            raise SourceError(f"camera {camera} gives frames in channel {step.channel}, where it gave none before")
        return found

    def _lost(self, count: int, where: str, stream: int) -> None:
        if count > 0:
            self._desk.missing(count, "lost", where, stream)

    def _give(self, step: Step, camera: str, picture: RemoteObject, tags: Tags, had_ns: int) -> None:
        stream = self._stream(step, camera)
        spec = tags.spec(floats=self._floats)
        before = Place.of(stream)
        place = tags.place(before)
        if spec != stream.spec or place != before:
            stream = self._renew(step, camera, stream, place, tags)
        pixels = picture.field("pix")
        picture.release()
        if not self._plane.fits(pixels, tags.kind, spec):
            self._lost(1, "camera buffer", stream.index)
            return
        slot = self._slot(stream)
        self._plane.copy(slot.planes["raw"], pixels)
        slot.info = FrameInfo(
            self._desk.seq,
            stream.index,
            camera_number=tags.number,
            camera_ns=had_ns,
            received_ns=now_ns(),
            axes=step.axes,
        )
        self._desk.seq += 1
        self._desk.put(slot)

    def _renew(self, step: Step, camera: str, old: Stream, place: Place, tags: Tags) -> Stream:
        """Open a stream for a camera that somebody has changed during the experiment."""
        now = Look(tags.height, tags.width, tags.kind, place.corner, place.binning, place.bit_depth or 0)
        stream = changed(old, look_of(old), now, camera=camera, index=self._count, floats=self._floats)
        self._count += 1
        self._streams[step.channel, camera] = stream
        self._desk.begin(stream)
        return stream

    def _slot(self, stream: Stream) -> Slot:
        while (slot := self._desk.slot(stream.index)) is None:
            if self._desk.ending.over:
                raise Stopped
            self._desk.wait_for_room(ROOM_S)
        return slot
