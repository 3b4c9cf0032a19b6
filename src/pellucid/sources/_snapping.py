"""The frames of an experiment: snapped one by one, or in bursts, by a thread of their own, and put into slots.

Moving a stage and exposing take long, and the session's loop waits for nobody: so a thread does it, and the loop
takes what is ready. Nothing is dropped for want of a slot: the experiment waits.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from pellucid.errors import PellucidError, SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Slot, Stream
from pellucid.sources._camera import TAGS, Look, Planar, by_tags, cameras_of, changed, look, look_of
from pellucid.sources._mmcore import refuse_crash, tag, text
from pellucid.sources._player import Player
from pellucid.sources._sequence import Acquisition
from pellucid.sources._stamps import Stamps
from pellucid.sources._steps import Step
from pellucid.wire.copier import Copier

__all__ = ["Snapping"]

LOOK_S = 0.0005
SETTLED_S = 0.2
GRACE_NS = 1_000_000_000
"""As of a camera that runs freely: see `_running`."""
WAIT_S = 0.1
"""For a slot, between two looks at whether the source was closed meanwhile."""
TRIES = 20
"""Of one picture, while somebody changes the camera."""


class _Closed(Exception):
    """The source was closed; nobody takes frames any more."""


class Snapping:
    """Plays an experiment and gives its frames.

    Parameters
    ----------
    core, metadata
        The core, and its type for tags.
    player
        Of the experiment, checked.
    streams, places
        One for each place along ``c`` and each camera.
    floats
        32-bit pixels are floating point.
    fresh
        The source's list of streams that begin.
    account
    """

    def __init__(
        self,
        core: Any,
        metadata: Callable[[], Any],
        player: Player,
        streams: tuple[Stream, ...],
        places: Sequence[tuple[int, str]],
        *,
        floats: bool,
        fresh: list[Stream],
        account: Account,
    ) -> None:
        self.finished = False
        self._core = core
        self._sequence = Acquisition(core, metadata, self._allow)
        self._floats = floats
        self._fresh = fresh
        self._account = account
        self._stop = player.stop
        self._closed = threading.Event()
        self._player = player
        player.notice = self._notice
        self._streams = list(streams)
        self._current = dict(zip(places, streams, strict=True))
        self._looks = {place: look_of(stream) for place, stream in self._current.items()}
        self._slots: list[queue.SimpleQueue[Slot]] = [queue.SimpleQueue() for _ in streams]
        self._replaced: set[int] = set()
        self._ready: queue.SimpleQueue[Slot | Callable[[], None] | None] = queue.SimpleQueue()
        self._seq = 0
        self._error: PellucidError | None = None
        self._copier = Copier()
        self._planar = Planar()
        self._thread = threading.Thread(target=self._go, name="pellucid experiment", daemon=True)

    # ---------------------------------------------------------------- verbs of the source, in the loop's thread

    def start(self) -> None:
        """Begin to play."""
        self._copier.open()
        self._thread.start()

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        index = slot.stream.index
        while index >= len(self._slots):
            self._slots.append(queue.SimpleQueue())
        if index not in self._replaced:
            self._slots[index].put(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame's slot. Hot."""
        if self.finished:
            return None
        try:
            item = self._ready.get(timeout=timeout_s) if timeout_s > 0 else self._ready.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, Slot):
            return item
        if item is not None:
            item()
            return None
        self._thread.join()
        self.finished = True
        self._account.told(self._seq, complete=self._error is None)
        if self._error is not None:
            raise self._error
        return None

    def stop(self) -> None:
        """Prepare no further step; the frames under way can still be read."""
        self._stop.set()

    def close(self) -> None:
        """End the thread and leave the core in order."""
        self._stop.set()
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._sequence.close()
        self._copier.close()
        self.finished = True

    # ---------------------------------------------------------------- the experiment's thread

    def _go(self) -> None:
        try:
            self._player.play(self._take)
        except _Closed:
            pass
        except PellucidError as error:
            self._error = error
        except Exception as error:
            camera = self._core.get_camera_device()
            if camera:
                self._error = SourceError(f"camera {camera}: Micro-Manager refuses: {text(error)}")
            else:
                self._error = SourceError(f"the camera is gone after {self._seq} frames: somebody unloaded it")
        finally:
            try:
                self._sequence.end()
            except Exception:
                pass  # a camera that cannot be stopped, or is gone, was or will be said
            self._ready.put(None)

    def _allow(self) -> None:
        for camera in cameras_of(self._core):
            refuse_crash(self._core, camera)

    def _take(self, step: Step, count: int) -> None:
        if count == 1:
            self._snap(step)
            return
        done = 0
        while done < count and not self._stop.is_set():
            done += self._burst(step.later(done), count - done)

    def _snap(self, step: Step) -> None:
        core = self._core
        self._allow()
        for left in reversed(range(TRIES)):
            before = look(core)
            core.snap_image()
            had_ns = now_ns()
            cameras = cameras_of(core)
            # A picture goes when somebody sets another ROI just then, and with another pixel type or binning its
            # bytes mean something else: it is taken again.
            try:
                pictures = [core.get_image(i) for i in range(len(cameras))] if len(cameras) > 1 else [core.get_image()]
            except Exception:
                if not left or not core.get_camera_device():
                    raise
                continue
            if look(core) == before:
                break
        else:
            raise SourceError(f"camera {core.get_camera_device()} was changed in each of {TRIES} pictures; leave it")
        for camera, pixels in zip(cameras, pictures, strict=True):
            self._give(step, camera, before, pixels, -1, had_ns)

    def _burst(self, step: Step, count: int) -> int:
        """Let the camera run for so many pictures; return how many are done, fewer where it was stopped."""
        core, sequence = self._core, self._sequence
        cameras = cameras_of(core)
        expected = dict.fromkeys(cameras, 0)
        before = look(core)
        told: dict[str, tuple[tuple[str, ...], Look]] = {}
        stamps = Stamps()
        sequence.begin(count)
        while sequence.running() or sequence.waiting():
            if self._stop.is_set():
                sequence.end()
            frame = sequence.pop()
            if frame is None:
                self._closed.wait(LOOK_S)
                continue
            pixels, metadata, _ = frame
            camera = tag(metadata, "Camera")
            camera = camera if camera in expected else cameras[0]
            number = int(tag(metadata, "ImageNumber") or expected[camera])
            had_ns = stamps.to_now_ns(tag(metadata, "TimeReceivedByCore"))
            self._lost(number - expected[camera], "camera", self._stream(step, camera))
            expected[camera] = max(number, expected[camera]) + 1
            tags = tuple([tag(metadata, name) for name in TAGS])
            if camera not in told or told[camera][0] != tags:
                told[camera] = tags, by_tags(before, tags)
            if number < count:
                self._give(step.later(number), camera, told[camera][1], pixels, number, had_ns)
        done = max(expected.values())
        only = self._stream(step, cameras[0]) if len(cameras) == 1 else None
        self._lost(sequence.vanished, "camera buffer", only)
        sequence.vanished = 0
        where = "camera"
        if done < count and not self._stop.is_set():
            if core.is_buffer_overflowed():
                # The picture that had no room, of each camera that has not got further.
                done, where = done + 1, "camera buffer"
            else:
                self._wait_for_change(before, done, count)
        for camera, given in expected.items():
            self._lost(done - given, where, self._stream(step, camera))
        return done

    def _wait_for_change(self, before: Look, done: int, wanted: int) -> None:
        """Go on with a camera that was stopped for a change; say that it stopped where nothing changes."""
        until = now_ns() + GRACE_NS
        while now_ns() < until:
            now = look(self._core)
            if self._stop.wait(SETTLED_S):
                return
            if (now != before or self._sequence.interrupted) and look(self._core) == now:
                return
        raise SourceError(
            f"camera {self._core.get_camera_device()} stopped by itself after {done} of {wanted} frames of a "
            "burst, and nothing about it was changed (somebody stopped it, or it has a fault). Start it again"
        )

    # ---------------------------------------------------------------- into slots

    def _stream(self, step: Step, camera: str) -> Stream:
        found = self._current.get((step.channel, camera))
        if found is None:
            raise SourceError(f"camera {camera} gives frames in channel {step.channel}, where it gave none before")
        return found

    def _give(self, step: Step, camera: str, now: Look, pixels: NDArray[Any], number: int, had_ns: int) -> None:
        stream = self._stream(step, camera)
        if now != self._looks[step.channel, camera]:
            stream = self._renew(step, camera, stream, now)
        slot = self._slot(stream.index)
        raw = slot.planes["raw"]
        if raw.ndim == 3:
            self._planar.copy(raw, pixels)
        else:
            self._copier.copy(raw, pixels.view(raw.dtype).reshape(raw.shape))
        slot.info = FrameInfo(
            self._seq,
            stream.index,
            camera_number=number,
            camera_ns=had_ns,
            received_ns=now_ns(),
            axes=step.axes,
        )
        self._seq += 1
        self._ready.put(slot)

    def _renew(self, step: Step, camera: str, old: Stream, now: Look) -> Stream:
        """Open a stream for a camera that somebody has changed during the experiment."""
        place = step.channel, camera
        index = len(self._streams)
        stream = changed(old, self._looks[place], now, camera=camera, index=index, floats=self._floats)
        self._streams.append(stream)
        self._current[place], self._looks[place] = stream, now
        while stream.index >= len(self._slots):
            self._slots.append(queue.SimpleQueue())
        # The loop's thread must not see the new stream while frames of the old one are on their way to it.
        self._ready.put(lambda: self._announce(stream, old))
        return stream

    def _announce(self, stream: Stream, old: Stream) -> None:
        self._replaced.add(old.index)
        self._slots[old.index] = queue.SimpleQueue()
        self._fresh.append(stream)

    def _slot(self, index: int) -> Slot:
        while not self._closed.is_set():
            try:
                return self._slots[index].get(timeout=WAIT_S)
            except queue.Empty:
                continue
        raise _Closed

    def _notice(self, text: str) -> None:
        self._ready.put(lambda: self._account.ignore(text))

    def _lost(self, count: int, where: str, stream: Stream | None) -> None:
        if count <= 0:
            return
        first, index = self._seq, -1 if stream is None else stream.index
        self._seq += count
        self._ready.put(lambda: self._account.missing(first, count, "lost", where, index))
