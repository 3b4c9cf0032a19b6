"""A sequence acquisition of a Micro-Manager core, from which no frame slips away unseen.

A core throws frames away without a word: a change of the ROI, of the buffer's size, a start of a sequence empty
its buffer at once (measured with pymmcore 12.5: 10 frames waiting, ``setROI``, 0 waiting, the camera stopped). And
Python's `popNextImageMD` copies as many bytes as the camera's state says *now*, so that frames taken before a change
of binning would be read cut off, or beyond their end, which ends the process.

Somebody else's code in this process has the same core (``pycromanager.Core()`` gives it to everybody). So its
methods that do such things are wrapped for as long as a sequence lives: the camera is stopped, what waits is taken
out and held here, and only then the change is made. What goes past the wrapped methods is seen afterwards, and
told as lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

__all__ = ["Acquisition", "Frame"]

Frame = tuple[NDArray[Any], Any, int]
"""Pixels, the core's metadata of them, and in which turn of the sequence they were taken."""

_EMPTY_IT = (
    "setROI",
    "clearROI",
    "setMultiROI",
    "setCircularBufferMemoryFootprint",
    "initializeCircularBuffer",
    "clearCircularBuffer",
)
"""They empty the buffer, and most of them end the sequence."""
_NEED_IT_EMPTY = ("setProperty", "setConfig", "setCameraDevice", "unloadDevice", "unloadAllDevices")
"""With the camera stopped they change what is copied of the frames that still wait."""
_START = ("startSequenceAcquisition", "startContinuousSequenceAcquisition")
_STOP = ("stopSequenceAcquisition",)


class Acquisition:
    """The sequence acquisition of one core.

    Parameters
    ----------
    core
        With snake_case names, and the camelCase ones that they stand for.
    metadata
        The core's type for the tags of a frame.
    allow_start
        Called before anybody starts a sequence; may raise.

    Attributes
    ----------
    interrupted : bool
        Somebody called for a change that ends a sequence; until the next start.
    rescued : bool
        Since the last start all that waited was taken out before somebody changed something.
    turn : int
        Counts starts.
    capacity : int
        Frames that the core's buffer holds.
    vanished : int
        Frames that were known to wait, and that nobody can read any more; whoever tells them sets it to 0.
    """

    def __init__(self, core: Any, metadata: Callable[[], Any], allow_start: Callable[[], None]) -> None:
        self.core = core
        self.interrupted = self.rescued = False
        self.turn = 0
        self.capacity = 1
        self.vanished = 0
        self._new_metadata = metadata
        self._allow_start = allow_start
        self._held: deque[Frame] = deque()
        # Taken for a pop and for a change only, so that nobody changes the camera between the look at its state and
        # the copy that goes by it. It is free but for the moment of a change.
        self._lock = threading.RLock()
        self._nbytes = 0
        self._stop = core.stop_sequence_acquisition
        self._clear = core.clear_circular_buffer
        self._names: list[str] = []
        self._wrap()

    # ---------------------------------------------------------------- for the source

    def begin(self, count: int) -> None:
        """Start the camera; it stops by itself after so many frames, or when the buffer overflows."""
        self.core.start_sequence_acquisition(count, 0, True)

    def end(self) -> None:
        """Stop the camera, where it runs; frames that wait can still be popped."""
        if self.running():
            self._stop()

    def running(self) -> bool:
        """Whether the camera acquires."""
        return bool(self.core.is_sequence_running())

    def waiting(self) -> int:
        """Frames that can be popped, here and in the core's buffer. Hot."""
        with self._lock:  # between the two numbers nobody may take frames from there to here
            return len(self._held) + int(self.core.get_remaining_image_count())

    def pop(self) -> Frame | None:
        """Take the oldest frame; None where there is none. Hot."""
        with self._lock:
            if self._held:
                return self._held.popleft()
            return self._take()

    def close(self) -> None:
        """Give the core its own methods back."""
        for name in self._names:
            self.core.__dict__.pop(name, None)
        self._names = []
        self._held.clear()

    # ---------------------------------------------------------------- within the lock

    def _take(self) -> Frame | None:
        core = self.core
        waiting = core.get_remaining_image_count()
        if not waiting:
            return None
        nbytes = core.get_image_buffer_size()
        if nbytes != self._nbytes:
            if not core.is_sequence_running():
                # Changed past the wrapped methods: these frames would be cut off, or read beyond their end.
                self._clear()
                self.vanished += waiting
                return None
            # A running camera refuses such a change, so it was started anew, which empties the buffer.
            self._nbytes = nbytes
        metadata = self._new_metadata()
        try:
            return core.pop_next_image_md(0, 0, metadata), metadata, self.turn
        except Exception:
            if core.get_remaining_image_count() or not core.get_camera_device():
                raise
            return None  # somebody else took the last one just now; its number will be missing

    def _rescue(self) -> None:
        """Take out all that waits."""
        self.rescued = True
        while (frame := self._take()) is not None:
            self._held.append(frame)

    # ---------------------------------------------------------------- wrapped methods of the core

    def _wrap(self) -> None:
        for names, how in (
            (_EMPTY_IT, self._around_emptying),
            (_NEED_IT_EMPTY, self._around_changing),
            (_START, self._around_starting),
            (_STOP, self._around_stopping),
        ):
            for camel in names:
                for name in (camel, _snake(camel)):
                    original = getattr(self.core, name, None)
                    if original is not None:
                        self.core.__dict__[name] = _bound(how, original)
                        self._names.append(name)

    def _around_emptying(self, original: Callable[..., Any], *args: Any) -> Any:
        with self._lock:
            self.interrupted = True
            if self.core.is_sequence_running():
                self._stop()
            self._rescue()
            return original(*args)

    def _around_changing(self, original: Callable[..., Any], *args: Any) -> Any:
        if self.core.is_sequence_running():
            return original(*args)  # it may take long (a filter wheel), and a running camera refuses what matters here
        with self._lock:
            self._rescue()
            return original(*args)

    def _around_starting(self, original: Callable[..., Any], *args: Any) -> Any:
        with self._lock:
            if not self.core.is_sequence_running():
                self._rescue()
                self._allow_start()
            result = original(*args)
            self._nbytes = self.core.get_image_buffer_size()
            self.capacity = max(1, self.core.get_buffer_total_capacity())
            self.interrupted = self.rescued = False
            self.turn += 1
            return result

    def _around_stopping(self, original: Callable[..., Any], *args: Any) -> Any:
        with self._lock:
            result = original(*args)
            self._rescue()
            return result


def _bound(how: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: how(original, *args)


def _snake(camel: str) -> str:
    """Return a name as pycromanager's Python backend has it."""
    text = ""
    for i, letter in enumerate(camel):
        if letter.isupper() and i and not camel[i - 1].isupper():
            text += "_"
        text += letter.lower()
    return text
