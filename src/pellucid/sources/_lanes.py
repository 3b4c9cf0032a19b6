"""The current stream of each camera of a core, by what the tags of its frames say."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from pellucid.protocols import Slot, Stream
from pellucid.sources._camera import TAGS, Look, changed, kind_of, look
from pellucid.sources._mmcore import tag

__all__ = ["Lane", "Lanes"]

Key = tuple[str, ...]


class Lane:
    """One camera's current stream.

    Attributes
    ----------
    stream : Stream
    look : Look
        The camera's state when the stream began.
    nbytes : int
        Of a frame as the camera gives it.
    slots : collections.deque
        Free ones.
    key : tuple of str or None
        What the tags of its frames say of their shape, type and place; None before the first.
    expected : int
        The camera's next number.
    given : int
        Frames of this camera so far, lost ones included, over all its streams.
    turn : int
        Of the sequence from which its last frame was.
    """

    __slots__ = ("expected", "given", "key", "look", "nbytes", "slots", "stream", "turn")

    def __init__(self, stream: Stream, now: Look) -> None:
        self.stream = stream
        self.look = now
        self.nbytes = stream.spec.nbytes // 3 * 4 if stream.spec.is_colour else stream.spec.nbytes
        self.slots: deque[Slot] = deque()
        self.key: Key | None = None
        self.expected = self.given = self.turn = 0


class Lanes:
    """All lanes of a run.

    Parameters
    ----------
    core
    streams
        One for each camera.
    now
        The cameras' state.
    floats
        32-bit pixels are floating point.
    fresh
        The source's list of streams that begin.

    Attributes
    ----------
    free : int
        Slots, over all lanes.
    """

    def __init__(self, core: Any, streams: tuple[Stream, ...], now: Look, *, floats: bool, fresh: list[Stream]) -> None:
        self.free = 0
        self._core = core
        self._camera = core.get_camera_device()
        self._floats = floats
        self._fresh = fresh
        self._of = {stream.camera: Lane(stream, now) for stream in streams}
        self._by_index = {lane.stream.index: lane for lane in self._of.values()}
        self._count = len(streams)

    def all(self) -> list[tuple[str, Lane]]:
        """Return the cameras and their lanes."""
        return list(self._of.items())

    @property
    def given(self) -> int:
        """Frames so far of the camera that gave most."""
        return max(lane.given for lane in self._of.values())

    @property
    def only(self) -> Lane | None:
        """The lane where there is but one, so that it is known whose frames are meant."""
        return next(iter(self._of.values())) if len(self._of) == 1 else None

    def offer(self, slot: Slot) -> None:
        """Take a free slot; one of a stream that was replaced is the session's again."""
        lane = self._by_index.get(slot.stream.index)
        if lane is not None:
            lane.slots.append(slot)
            self.free += 1

    def take(self, lane: Lane) -> Slot:
        """Return a free slot of a lane that has one. Hot."""
        self.free -= 1
        return lane.slots.popleft()

    def of(self, metadata: Any) -> Lane:
        """Find the lane of a frame by what its tags say, or make it. Hot.

        Raises
        ------
        SourceError
            Where such pixels cannot be taken.
        """
        key = tuple([tag(metadata, name) for name in TAGS])
        lane = self._of.get(tag(metadata, "Camera"))
        if lane is not None and lane.key == key:
            return lane
        return self._meet(lane, tag(metadata, "Camera") or self._camera, key)

    def _meet(self, lane: Lane | None, camera: str, key: Key) -> Lane:
        """Find or make the lane of a frame that is the first of its kind."""
        if lane is None and camera == self._camera:
            lane = self.only
        now = look(self._core)
        now = replace(
            now,
            height=int(key[0] or now.height),
            width=int(key[1] or now.width),
            kind=key[2] if key[2] not in ("", "Unknown") else kind_of(self._core),
        )
        if lane is not None and lane.key is None:
            then = lane.look
            if (now.height, now.width, now.kind) == (then.height, then.width, then.kind):
                lane.key = key
        if lane is None or lane.key != key:
            lane = self.renew(lane, camera, now)
            lane.key = key
        return lane

    def renew(self, old: Lane | None, camera: str, now: Look) -> Lane:
        """Open a stream for what a camera gives from now on.

        Raises
        ------
        SourceError
            Where such pixels cannot be taken.
        """
        like = (old or next(iter(self._of.values()))).stream
        before = now if old is None else old.look
        stream = replace(
            changed(like, before, now, camera=camera, index=self._count, floats=self._floats),
            exposure_ms=self._core.get_exposure(),
            replaces=None if old is None else like.index,
        )
        self._count += 1
        lane = Lane(stream, now)
        if old is not None:
            lane.expected, lane.given, lane.turn = old.expected, old.given, old.turn
            self.free -= len(old.slots)
            old.slots.clear()
            del self._by_index[like.index]
        self._of[camera] = self._by_index[stream.index] = lane
        self._fresh.append(stream)
        return lane

    def close(self) -> None:
        """Forget all slots."""
        self._by_index.clear()
        for lane in self._of.values():
            lane.slots.clear()
