"""``mode = "look"``: the newest image, as the application's own preview takes it."""

from __future__ import annotations

from pellucid.metrics import now_ns
from pellucid.sources._bridge_camera import Tags
from pellucid.sources._bridge_watch import LAST_PAUSE_S, Seen, Watch

__all__ = ["Look"]


class Look(Watch):
    """Takes the newest image of each camera when it is new and there is room; what lies between was not looked at."""

    _known = 0

    def _baseline(self, waiting: int) -> None:
        # Of a sequence that runs the newest image is welcome; what is left from before is old.
        self._known = waiting

    def step(self) -> float:
        """Look once."""
        if not self.desk.any_room():
            self.desk.wait_for_room(LAST_PAUSE_S)
            return 0.0
        running, waiting = self._state()
        before = self._is_before(running, waiting)
        may_read = self._may_read(running, waiting, self._known)
        if waiting != self._known:
            self._looked_at = -1
        self._known = waiting
        if before:
            self._look_for_camera()
            return self._longer()
        if running != self._running:
            if not running and may_read:
                self._look()  # the last one may be new
            self._changed_running(running)
        if not running:
            self._look_for_camera()
        if waiting and may_read and not self._unchanged(waiting):
            self._looked_at, self._looked_ns = waiting, now_ns()
            if self._running or self._stalled:
                if self._look():
                    return self._after_new()
            elif self._came_and_went():
                return 0.0
        return self._longer()

    def drain(self) -> None:
        """See whether something came and went since the last look; what came in a sequence that was seen is over."""
        running, waiting = self._state()
        self._looked_at = -1
        if running or self._running or self._is_before(running, waiting):
            return
        if waiting and self._may_read(running, waiting, self._known):
            self._came_and_went()

    def _take_unseen(self) -> None:
        self._seen.clear()
        self._look()

    def _look(self) -> bool:
        """Go back from the newest image until each camera has been met; return whether one was new."""
        met: set[str] = set()
        new = self._stalled = False
        cameras = len(self._camera.names)
        # One camera may be faster than another. The application goes as far back.
        for age in range(2 * cameras if cameras > 1 else 1):
            number = self._picture(self._by_age(age))
            if number is None:
                break
            tags = self._ask_tags(number)
            name = self._name(tags)
            if name in met or self._seen.get(name) == Seen(tags.number, tags.stamp):
                self._forget(number)
            else:
                new |= self._take(number, tags)
            met.add(name)
            if len(met) == cameras or self.finished:
                break
        return new

    def _take(self, number: str, tags: Tags) -> bool:
        stream = self._stream_of(tags)
        slot = self.desk.slot(stream.index)
        if slot is None:
            self._forget(number)
            self._looked_at, self._stalled = -1, True  # it is as new when there is room
            return False
        name = self._name(tags)
        seen = self._seen.get(name)
        self._seen[name] = Seen(tags.number, tags.stamp)
        # A number that is not larger is one of a sequence that has begun since.
        before = seen.number if seen is not None and tags.number > seen.number else -1
        known = seen is not None or self._from_zero
        gap = tags.number - before - 1 if known and tags.number >= 0 else 0
        if gap > 0:
            self.desk.missing(gap, "dropped", "not looked at", stream.index)
        self._fetch(number, stream, tags, slot)
        return True
