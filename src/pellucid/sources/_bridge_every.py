"""``mode = "every-frame"``: each image is taken out of Micro-Manager's buffer, but for those it peeks at."""

from __future__ import annotations

from typing import Any

from pellucid.metrics import now_ns
from pellucid.protocols import Slot, Stream
from pellucid.sources._bridge_camera import Tags
from pellucid.sources._bridge_watch import IDLE_S, LAST_PAUSE_S, Seen, Watch, count_of
from pellucid.wire.bridge_message import Refused, value_of

__all__ = ["EveryFrame"]

FULL = 0.9
"""Of Micro-Manager's buffer: from there on images are taken out without their pixels, with a count."""
NEARLY_FULL = 0.7
"""A buffer that was so full when it was last looked at, and was then thrown away, had overflowed."""
ASK_WHOSE_S = 0.25
"""While an acquisition of the application runs: a sequence that begins and ends in between is taken for its own."""
ROOM_S = 0.005
"""For a slot, before the buffer is looked at again."""

Key = tuple[str, int, str]


class EveryFrame(Watch):
    """Takes every frame, and never the last ones: at those it looks, and takes them out when newer ones came.

    Frames for which the session has no slot wait in Micro-Manager's buffer until it is nearly full; then they are
    dropped (``ring``). So are frames that come faster than the bridge carries them (``bridge``), before the buffer
    overflows, which would lose all that are in it and starve the preview.
    """

    def __init__(self, *given: Any, **keys: Any) -> None:
        super().__init__(*given, **keys)
        self._peeked: set[Key] = set()
        self._shrunk: set[str] = set()
        self._known = 0
        self._vanished = self._behind = self._fill = 0
        self._next: int | None = None
        self._short = "bridge"
        self._theirs = False
        self._asked_ns = 0
        self._anew = False  # since the buffer was last asked for, a frame of a new sequence has been counted

    # ---------------------------------------------------------------- beginnings

    def _baseline(self, waiting: int) -> None:
        self._peeked.clear()
        self._shrunk.clear()
        self._known = self._vanished = self._behind = 0
        self._next = None
        self._anew = False
        self._look_whose()
        if self.desk.seq:
            self._before = None  # after a reconnection all that waits is of this run
        elif self._running and not self._theirs:
            self._discard(waiting - self._keep)

    def _discard(self, count: int) -> None:
        """Take out what waits from before the run."""
        for _ in range(count):
            number = self._picture(self._ask_pop)
            if number is not None:
                self._forget(number)

    @property
    def _keep(self) -> int:
        """Images that stay in the buffer."""
        return len(self._camera.names)

    def _key(self, tags: Tags) -> Key:
        return self._name(tags), tags.number, tags.stamp

    def _changed_running(self, running: bool) -> None:
        if running and self._anew:
            # Its first frames were taken before it was seen to run.
            self._running = True
            self._look_whose()
            return
        super()._changed_running(running)
        if running:
            self._size = self._size_now
            # The buffer was emptied for it; what had not been taken is gone.
            self._note_shrink(0)
            self._tell_vanished("camera buffer")
            self._look_whose()

    def _look_whose(self) -> None:
        """See whether an acquisition of the application runs: it takes its frames out itself."""
        self._asked_ns = now_ns()
        theirs = False
        if self._studio is not None and self._studio.has("acquisitions"):
            try:
                theirs = bool(self._studio.acquisitions().is_acquisition_running())
            except (Refused, AttributeError):
                pass  # an application that does not say
        if theirs and not self._theirs:
            self.desk.note("an acquisition of Micro-Manager runs: its frames are its own, and none is taken from it")
        if self._theirs and not theirs:
            self._seen.clear()
            self._from_zero = False
            running, waiting = self._state()
            if not running:
                self._set_before(waiting)  # what they left is not ours
        self._theirs = theirs

    # ---------------------------------------------------------------- steps

    def step(self) -> float:
        """Take one image out, or look at the last ones."""
        waiting, self._next = self._next, None
        # Where none ran, one may have begun since: then what waits is to be counted for it.
        if waiting is None or not self._running or self._size != self._size_now or waiting >= FULL * self._capacity:
            running, waiting = self._state()
            before = self._is_before(running, waiting)
            may_read = self._may_read(running, waiting, self._known)
            if before:
                self._look_for_camera()
                return self._longer()
            if running != self._running:
                if not running and not self._theirs:
                    if may_read:
                        self._settle(waiting)
                    else:
                        self._leave_alone(waiting)
                self._changed_running(running)
                return 0.0
            if not may_read:
                return self._leave_alone(waiting)
        if self._theirs:
            return self._stand_by()
        if waiting and not self._running and self._came_and_went():
            return 0.0
        self._note_shrink(waiting)
        if waiting > self._keep:
            full = self._running and self._is_full(waiting)
            if not full:
                self._short = "bridge"
            self._pop(shed=full)
            return 0.0
        if waiting and not self._unchanged(waiting):
            self._looked_at, self._looked_ns = waiting, now_ns()
            given = self.given
            if self._peek(waiting):
                return 0.0
            if self.given > given:
                return self._after_new()
        if not self._running:
            self._look_for_camera()
        return self._longer()

    def _leave_alone(self, waiting: int) -> float:
        """Touch no image whose size has been changed while it waited: what was not taken before is lost."""
        self._note_shrink(waiting)
        self._tell_vanished("camera buffer")
        count = self._known - len(self._peeked)
        if count > 0:
            self.desk.missing(count, "lost", "camera buffer", self._only())
            self.desk.note(
                f"{count} frames of {self._camera.device} cannot be read any more: its ROI, binning or pixel type was "
                "changed while they waited in Micro-Manager's buffer"
            )
        self._peeked = {("", i, "") for i in range(waiting)}  # whatever becomes of them, they have been counted
        self._set_before(waiting)
        self._look_for_camera()
        return self._longer()

    def _unchanged(self, waiting: int) -> bool:
        # Here it is told of every sequence, as far as looks can; while none runs each look is at the newest image.
        return self._running and super()._unchanged(waiting)

    def _take_unseen(self) -> None:
        _, waiting = self._state()
        self._note_shrink(waiting)
        self._vanished = self._vanished or self._behind
        self._tell_vanished("camera buffer")
        self._peeked.clear()
        self._seen.clear()
        self._survey()
        self._settle(waiting)

    def _settle(self, waiting: int) -> None:
        """After the last frame of a sequence: take what is left of it before the next one throws it away."""
        while not self.finished and not self.desk.ending.over:
            self._note_shrink(waiting)
            if waiting > self._keep:
                self._pop(shed=False)
            elif not waiting or not self._peek(waiting):
                return
            self._next = None
            running, waiting = self._state()
            if running or self._size != self._size_now:
                return

    def _is_full(self, waiting: int) -> bool:
        """Whether a running sequence would soon overflow the buffer."""
        if waiting < FULL * self._capacity:
            return False
        # It has its size from the first sequence on, and that may have come and gone between two looks.
        self._capacity = max(1, count_of(self._core.get_buffer_total_capacity()))
        return waiting >= FULL * self._capacity

    def _stand_by(self) -> float:
        if now_ns() - self._asked_ns > ASK_WHOSE_S * 1e9:
            self._look_whose()
        return IDLE_S

    def _note_shrink(self, waiting: int) -> None:
        """See whether the buffer was thrown away: it has fewer images than were left in it."""
        self._behind = 0 if self._anew else max(0, self._known - len(self._peeked))
        self._anew = False
        if waiting < self._known:
            self._fill = self._known
            self._vanished += self._behind
            self._peeked.clear()
            self._shrunk = set(self._seen)
        self._known = waiting

    def _tell_vanished(self, where: str) -> None:
        count, self._vanished = self._vanished, 0
        if count:
            self.unsure = True  # more may have come after the last look
            self.desk.missing(count, "lost", where, self._only())

    # ---------------------------------------------------------------- pictures

    def _pop(self, *, shed: bool) -> None:
        """Hot: take the oldest image out."""
        bridge = self._bridge
        number = self._picture(self._ask_pop)
        if number is None:
            return
        self._known -= 1
        self._looked_at = -1
        if shed or self._peeked or not self.desk.any_room():
            tags = self._ask_tags(number)
            key = self._key(tags)
            if key in self._peeked:
                self._peeked.discard(key)
                self._forget(number)
                return
            self._arrive(tags, number, shed=shed)
            return
        replies = bridge.ask(
            bridge.field(number, "tags"),
            bridge.field(number, "pix"),
            bridge.destructor(number),
            self._ask_waiting,
            self._ask_size,
        )
        self._next, self._size_now = (count_of(value_of(reply)) for reply in replies[3:])
        tags = self._tags(replies[0])
        stream = self._stream_of(tags)
        if self._count_in(tags, stream):
            slot = self.desk.slot(stream.index) or self._wait_for_slot(stream)
            if slot is None:
                self._drop(stream)
            else:
                self._use(slot, stream, tags, value_of(replies[1]))

    def _arrive(self, tags: Tags, number: str, *, shed: bool) -> None:
        """Deliver an image whose pixels are still over there, or drop it."""
        stream = self._stream_of(tags)
        slot = None
        if self._count_in(tags, stream):
            slot = None if shed and self.desk.any_room() else self._wait_for_slot(stream)
            if slot is None:
                self._drop(stream)
        if slot is None:
            self._forget(number)
        else:
            self._fetch(number, stream, tags, slot)

    def _drop(self, stream: Stream) -> None:
        """Count a frame for which there was no slot, or no time, since the buffer was last less than nearly full."""
        if not self.desk.any_room():
            self._short = "ring"
        self.desk.missing(1, "dropped", self._short, stream.index)

    def _wait_for_slot(self, stream: Stream) -> Slot | None:
        """Wait for a slot while there is room in Micro-Manager's buffer."""
        while (slot := self.desk.slot(stream.index)) is None:
            running, waiting = self._state()
            self._next = None
            if running and not self._running:
                self._changed_running(True)  # what was known was of before
                continue
            self._note_shrink(waiting)
            if (running and self._is_full(waiting)) or self.desk.ending.over:
                return None
            self.desk.wait_for_room(ROOM_S)
        return slot

    def _peek(self, waiting: int) -> bool:
        """Deliver those of the last images that are new, and leave them there; return whether to go on at once."""
        self._stalled = False
        for age in reversed(range(min(waiting, self._keep))):
            number = self._picture(self._by_age(age))
            if number is None:
                self._stalled = True
                return False
            tags = self._ask_tags(number)
            if self._key(tags) in self._peeked:
                self._forget(number)
                continue
            seen = self._seen.get(self._name(tags))
            if tags.number != (seen.number + 1 if seen is not None else 0) and self._state()[1] != waiting:
                # A newer one came just now: those between can be taken out first.
                self._forget(number)
                self._looked_at = -1
                return True
            stream = self._stream_of(tags)
            slot = self.desk.slot(stream.index)
            if slot is None:
                self._forget(number)
                self._looked_at, self._stalled = -1, True
                self.desk.wait_for_room(LAST_PAUSE_S)
                return False
            new = self._count_in(tags, stream)
            self._peeked.add(self._key(tags))  # afterwards: a sequence that begins forgets what was peeked at before
            if new:
                self._fetch(number, stream, tags, slot)
            else:
                self.desk.offer(slot)
                self._forget(number)
            if self.finished:
                return False
        return False

    def _count_in(self, tags: Tags, stream: Stream) -> bool:
        """Tell what is missing before a frame; return whether it is a new one."""
        name, number = self._name(tags), tags.number
        seen, here = self._seen.get(name), Seen(number, tags.stamp)
        if seen == here:
            return False
        gap = 0
        if seen is None:
            gap = number if self._from_zero else 0
        elif number > seen.number:
            gap = number - seen.number - 1
        elif number >= 0:
            self._count_anew()
            gap = number
        self._seen[name] = here
        if gap > 0:
            # A running sequence that finds the buffer full throws it away, and may have filled it again since.
            thrown = name in self._shrunk or gap * self._keep >= self._capacity - self._keep
            self.desk.missing(gap, "lost", "camera buffer" if thrown else "camera", stream.index)
        self._shrunk.discard(name)
        self._vanished = 0  # the numbers have told what was in it
        return True

    def _count_anew(self) -> None:
        """Tell of a camera that counts from 0 again: a new sequence, or a core that threw its full buffer away."""
        if self._vanished and self._fill >= NEARLY_FULL * self._capacity:
            self._tell_vanished("camera restart")
            self.unsure = True
            self.desk.note("the camera counts anew within a sequence: its buffer was full, and more may be lost")
        else:
            self._vanished = self._vanished or self._behind
            self._tell_vanished("camera buffer")
            self._survey()
        self._anew = True
        self._peeked.clear()
        self._seen = {name: Seen(-1, "") for name in self._seen}

    # ---------------------------------------------------------------- the end

    def drain(self) -> None:
        """Take what waits."""
        running, waiting = self._state()
        if self._theirs or self._is_before(running, waiting):
            return
        if waiting and not running and not self._running and self._may_read(running, waiting, self._known):
            self._came_and_went()
            _, waiting = self._state()
        left = waiting - self._keep
        while left > 0 and not self.desk.ending.over and not self.finished:
            running, waiting = self._state()
            if not self._may_read(running, waiting, self._known):
                self._leave_alone(waiting)
                return
            self._note_shrink(waiting)
            if waiting <= self._keep:
                return
            self._pop(shed=False)
            left -= 1
        if left > 0 and not self.finished:
            self.desk.missing(left, "dropped", "bridge", self._only())
