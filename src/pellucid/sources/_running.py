"""The frames of a running camera, out of a core's buffer and into slots."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Slot, Stream
from pellucid.sources._camera import Look, Planar, cameras_of, look
from pellucid.sources._lanes import Lane, Lanes
from pellucid.sources._mmcore import refuse_crash, tag, text
from pellucid.sources._sequence import Acquisition, Frame
from pellucid.sources._stamps import Stamps
from pellucid.wire.copier import Copier

__all__ = ["Running"]

NO_END = 2**31 - 1
FULL = 0.9
"""Without a free slot frames wait in the core's own buffer until so much of it is used."""
LOOK_S = 0.0005
"""Between two looks at an empty buffer: short against a frame, long against a core's time."""
STOPPED_LOOK_S = 0.01
SETTLED_NS = 200_000_000
"""A camera that was stopped for a change is started again when nothing has changed for so long."""
GRACE_NS = 1_000_000_000
"""A camera that was stopped, and for which nothing changes within this time, was stopped on purpose."""


class Running:
    """Reads a sequence, tells what is missing, and opens streams for what changes.

    Parameters
    ----------
    core, metadata
        The core, and its type for tags.
    streams
        As the source's ``open`` gave them: one for each camera.
    now
        The camera's state then.
    frames
        Of each camera; None for no end.
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
        streams: tuple[Stream, ...],
        now: Look,
        *,
        frames: int | None,
        floats: bool,
        fresh: list[Stream],
        account: Account,
    ) -> None:
        self.finished = False
        self.sequence = Acquisition(core, metadata, self._allow_start)
        self._core = core
        self._camera = core.get_camera_device()
        self._frames = NO_END if frames is None else frames
        self._fresh = fresh
        self._account = account
        self._lanes = Lanes(core, streams, now, floats=floats, fresh=fresh)
        self._look = now
        self._front: tuple[Lane, Frame, FrameInfo] | None = None
        self._seq = 0
        self._known = self._shrunk = 0
        self._unsure = False
        self._stopping = False
        self._due: tuple[Lane, ...] | None = None
        self._stopped_ns = self._settled_ns = 0
        self._copier = Copier()
        self._planar = Planar()
        self._stamps = Stamps()

    # ---------------------------------------------------------------- verbs of the source

    def start(self) -> None:
        """Start the camera."""
        self._copier.open()
        self._begin()

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        self._lanes.offer(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Pop the next frame into a slot; without one frames wait in the core's buffer, then the oldest drop. Hot."""
        sequence, lanes = self.sequence, self._lanes
        end_ns = now_ns() + round(timeout_s * 1e9)
        while not self.finished:
            waiting = sequence.waiting()
            if waiting < self._known:
                self._shrunk = self._known - waiting  # nobody but us should have taken any
            self._known = waiting
            if lanes.free and waiting and self._front is None:
                self._pop()
            if self._front is not None and self._front[0].slots:
                return self._give()
            # All that are too many at once: the next call may come late, and by then the buffer would be full.
            for _ in range(waiting - int(FULL * sequence.capacity)):
                self._drop()
            pause_s = LOOK_S
            if not waiting and self._front is None and not sequence.running() and not sequence.waiting():
                self._ended()
                pause_s = STOPPED_LOOK_S
            if self._fresh or now_ns() >= end_ns:
                return None
            time.sleep(pause_s)
        return None

    def stop(self) -> None:
        """Stop the camera; frames that wait can still be read."""
        self._stopping = True
        try:
            self.sequence.end()
        except Exception:
            if self._core.get_camera_device():
                raise

    def close(self) -> None:
        """Give the core back as it was."""
        self.finished = True
        self.sequence.close()
        self._copier.close()
        self._front = None
        self._lanes.close()

    # ---------------------------------------------------------------- frames

    def _pop(self) -> None:
        """Hot: take the next frame to the front, with its number; tell what is missing before it."""
        try:
            frame = self.sequence.pop()
        except Exception as error:
            raise self._gone(error) from None
        if frame is None:
            self._tell_vanished()
            return
        self._known -= 1
        self._stopped_ns = 0
        pixels, metadata, turn = frame
        try:
            lane = self._lanes.of(metadata)
        except SourceError:
            self._finish(complete=False)
            raise
        if lane.given >= self._frames:
            # Somebody started the camera for more than were asked for.
            self.sequence.end()
            self._account.ignore("frames after the last one")
            return
        number = int(tag(metadata, "ImageNumber") or -1)
        if turn != lane.turn or number != lane.expected:
            self._look_at_number(lane, number, turn)
        lane.expected = number + 1
        lane.given += 1
        if pixels.nbytes != lane.nbytes:
            self._missing(1, "lost", "camera buffer", lane)
            return
        stamp = self._stamps.to_now_ns(tag(metadata, "TimeReceivedByCore"))
        self._front = lane, frame, FrameInfo(self._seq, lane.stream.index, camera_number=number, camera_ns=stamp)
        self._seq += 1

    def _give(self) -> Slot:
        """Hot: copy the frame at the front into a slot."""
        assert self._front is not None
        lane, (pixels, *_), info = self._front
        slot = self._lanes.take(lane)
        raw = slot.planes["raw"]
        if raw.ndim == 3:
            self._planar.copy(raw, pixels)
        else:
            self._copier.copy(raw, pixels.view(raw.dtype).reshape(raw.shape))
        self._front = None
        info.received_ns = now_ns()
        slot.info = info
        return slot

    def _drop(self) -> None:
        """Make room in the core's buffer, with a count, rather than let it overflow."""
        if self._front is None:
            self._pop()
        if self._front is not None:
            lane, _, info = self._front
            self._account.missing(info.seq, 1, "dropped", "ring", lane.stream.index)
            self._front = None

    def _missing(self, count: int, state: str, where: str, lane: Lane | None) -> None:
        index = -1 if lane is None else lane.stream.index
        self._account.missing(self._seq, count, state, where, index)
        self._seq += count

    def _look_at_number(self, lane: Lane, number: int, turn: int) -> None:
        """Tell of a gap, and of a camera that counts anew in one sequence."""
        if turn != lane.turn:
            lane.turn, lane.expected = turn, 0
        gap = number - lane.expected
        if number >= 0 and gap > 0:
            self._missing(gap, "lost", "camera", lane)
            lane.given += gap
        elif number >= 0 and gap < 0:
            # Cores count anew when they throw their buffer away. Of what was in it, what was seen waiting is known.
            self._unsure = True
            self._account.ignore(f"camera {lane.stream.camera} counted anew in a running sequence: more may be lost")
            self._shrink_to("camera restart", lane, number)
        self._shrunk = 0

    def _shrink_to(self, where: str, lane: Lane | None, more: int = 0) -> None:
        """Tell what was seen waiting and is not there any more."""
        count, self._shrunk = self._shrunk + more, 0
        if count:
            self._missing(count, "lost", where, lane)
            if lane is not None:
                lane.given += count

    def _tell_vanished(self) -> None:
        count, self.sequence.vanished = self.sequence.vanished, 0
        if count:
            self._known = 0
            self._missing(count, "lost", "camera buffer", self._lanes.only)

    # ---------------------------------------------------------------- beginnings and ends

    def _allow_start(self) -> None:
        for camera in cameras_of(self._core):
            refuse_crash(self._core, camera)

    def _begin(self) -> None:
        left = NO_END if self._frames == NO_END else self._frames - self._lanes.given
        self._stamps = Stamps()
        self._due = None
        self._stopped_ns = 0
        try:
            self.sequence.begin(left)
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"the sequence: Micro-Manager refuses: {text(error)}") from None

    def _ended(self) -> None:
        """Tell an end from an overflow and from a change, both of which stop a camera while frames are wanted."""
        self._tell_vanished()
        enough = self._stopping or self._lanes.given >= self._frames
        try:
            if self._due is not None and not self._stopping:
                # Started when there is room for what it gives now, so that nothing is lost while that is being made.
                if all(lane.slots for lane in self._due):
                    self._begin()
                return
            overflowed = not self._stopped_ns and self._core.is_buffer_overflowed()
            if overflowed:
                self._missing(1, "lost", "camera buffer", self._lanes.only)
                # Of several cameras each may have had a picture for which there was no room.
                self._unsure |= self._lanes.only is None
            if enough:
                self._finish(complete=not self._unsure)
            elif overflowed:
                self._begin()
            else:
                self._wait_for_change()
        except SourceError:
            if not self.finished:
                self._finish(complete=False)
            raise
        except Exception as error:
            raise self._gone(error) from None

    def _wait_for_change(self) -> None:
        """Start the camera again for what somebody has set, when that is done; or say that it stopped."""
        now = now_ns()
        if not self._stopped_ns:
            self._stopped_ns = self._settled_ns = now
        here = self._here()
        if here != self._look:
            self._look, self._settled_ns = here, now
        changed = any(lane.look != here for _, lane in self._lanes.all())
        if changed or self.sequence.interrupted:
            if now - self._settled_ns >= SETTLED_NS:
                self._go_on(here)
        elif now - self._stopped_ns >= GRACE_NS:
            self._finish(complete=not self._unsure)
            raise SourceError(
                f"camera {self._camera} stopped by itself after {self._lanes.given} frames, and nothing about it was "
                "changed (somebody stopped it, or it has a fault). Start it again"
            )

    def _go_on(self, here: Look) -> None:
        """After a change: streams for what is other than before, and the camera again."""
        if not self.sequence.rescued:
            # The change went past the wrapped methods: what waited at the last look was thrown away, and what came
            # between that look and the change nobody knows.
            self._unsure = True
            self._shrink_to("camera buffer", self._lanes.only)
        changed = [(camera, lane) for camera, lane in self._lanes.all() if lane.look != here]
        self._due = tuple(self._lanes.renew(lane, camera, here) for camera, lane in changed)
        if not self._due:
            self._begin()

    def _here(self) -> Look:
        try:
            return look(self._core)
        except Exception as error:
            raise self._gone(error) from None

    def _gone(self, error: BaseException) -> SourceError:
        self._finish(complete=False)
        if not self._core.get_camera_device():
            return SourceError(
                f"camera {self._camera} is gone after {self._lanes.given} frames: "
                "somebody unloaded it from Micro-Manager. Load it and start again"
            )
        return SourceError(f"camera {self._camera}: Micro-Manager cannot give its frames: {text(error)}")

    def _finish(self, *, complete: bool) -> None:
        """Tell the totals; a camera of several that gave fewer than the others has lost them."""
        if self._lanes.given == self._frames:
            for _, lane in self._lanes.all():
                if lane.given < self._frames:
                    self._missing(self._frames - lane.given, "lost", "camera", lane)
        self._account.told(self._seq, complete=complete)
        self.finished = True
