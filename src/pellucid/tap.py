"""Frames for whoever iterates a session: copies, in a short queue between two threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Slot, Spec, Stream

__all__ = ["Frame", "Tap"]

CALM_S = 0.2
"""An acquisition may begin so long after it was asked to."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that is yours to keep.

    Attributes
    ----------
    info : FrameInfo
        Numbers and times.
    stream : Stream
        Camera, channel, pixel size ...
    planes : dict of str to numpy.ndarray
        Copies; ``raw``, ``restored`` and others by name. Without ``restored`` where the frame stayed raw only.
    """

    info: FrameInfo
    stream: Stream
    planes: dict[str, np.ndarray[Any, Any]]

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        try:
            return self.planes[name]
        except KeyError:
            raise KeyError(f"frame {self.info.seq} has no plane {name!r}; it has {', '.join(self.planes)}") from None


class Tap:
    """The sink behind the iterator: a short queue of copies.

    Parameters
    ----------
    policy
        ``"block"``: every frame, and a slow reader holds the run up; ``"latest"``: the newest only.

    Attributes
    ----------
    kept_bytes : int or None
        While nobody iterates, frames are kept up to here, and further ones skipped and counted; None: they wait.
    skipped : int
        Frames that were left out.
    """

    early = False
    patient = True
    """Whoever iterates may take his time; that is no stalled disk."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.kept_bytes: int | None = None
        self.skipped = 0
        self._depth = 4 if policy == "block" else 1
        self._frames: deque[Frame] = deque()
        self._some = threading.Condition()
        self._nbytes = 0
        self._readers = 0
        self._left = self._ended = self._closed = False

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Nothing to make ready."""

    def extend(self, stream: Stream, planes: Mapping[str, Spec]) -> None:
        """Nothing to make ready."""

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Copy the frame and queue it."""
        if not self._has_room():
            return
        frame = Frame(slot.info, slot.stream, {name: slot.planes[name].copy() for name in names})
        with self._some:
            self._frames.append(frame)
            self._nbytes += _nbytes(frame)
            self._some.notify_all()

    def _has_room(self) -> bool:
        """Wait for room; without a reader who will make any, say whether this frame is kept."""
        with self._some:
            while len(self._frames) >= self._depth and not (self._left or self._closed):
                if self.kept_bytes is not None and not self._readers:
                    if self.policy == "block" and self._nbytes < self.kept_bytes:
                        return True
                    self.skipped += 1
                    if self.policy == "block":
                        return False
                    self._take()
                    return True
                self._some.wait()
            return not (self._left or self._closed)

    def _take(self) -> Frame:
        frame = self._frames.popleft()
        self._nbytes -= _nbytes(frame)
        self._some.notify_all()
        return frame

    def finish(self) -> None:
        """Frames still queued belong to the iterator."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Hold nobody up any more; frames still queued belong to the iterator."""
        with self._some:
            self._closed = True
            self._some.notify_all()

    def frames(self, over: Callable[[], bool]) -> Iterator[Frame]:
        """Yield frames until the run ends, or `over` says for a while that no more come now."""
        with self._some:
            self._readers += 1
            self._some.notify_all()
        since = now_ns()
        try:
            while True:
                with self._some:
                    if not (self._frames or self._left or self._ended):
                        self._some.wait(0.05)
                    if self._left or (self._ended and not self._frames):
                        return
                    frame = self._take() if self._frames else None
                if frame is not None:
                    yield frame
                if frame is not None or not over():
                    since = now_ns()
                elif (now_ns() - since) * 1e-9 > CALM_S:
                    return
        finally:
            with self._some:
                self._readers -= 1
                self._some.notify_all()

    def end(self) -> None:
        """No frame comes after those in the queue."""
        with self._some:
            self._ended = True
            self._some.notify_all()

    def leave(self) -> None:
        """Let go: nobody iterates any more."""
        with self._some:
            self._left = True
            self._some.notify_all()


def _nbytes(frame: Frame) -> int:
    return sum(plane.nbytes for plane in frame.planes.values())
