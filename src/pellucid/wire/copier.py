"""Pixels into a slot, with two threads where a plane is large: one core alone does not fill the memory's bandwidth."""

from __future__ import annotations

import os
import queue
import threading
from typing import Any

import numpy as np

__all__ = ["Copier"]

LARGE = 1 << 20
"""Bytes from which the second thread's wake-up (some 20 us) costs less than it saves."""

Plane = np.ndarray[Any, Any]


class Copier:
    """Copies planes; between `open` and `close` it keeps a thread that takes the lower half of large ones.

    numpy lets go of the interpreter lock while it copies, so the halves run side by side.
    """

    def __init__(self) -> None:
        self._halves: queue.SimpleQueue[tuple[Plane, Plane] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Start the thread, where there is a core for it."""
        if self._thread is None and (os.cpu_count() or 1) > 1:
            self._thread = threading.Thread(target=self._help, name="pellucid copier", daemon=True)
            self._thread.start()

    def copy(self, target: Plane, source: Plane) -> None:
        """Hot: fill `target` from `source`.

        Raises
        ------
        ValueError
            Where their shapes differ.
        """
        if target.shape != source.shape:
            raise ValueError(f"pixels of {source.shape} do not fit a plane of {target.shape}")
        if self._thread is None or target.nbytes < LARGE:
            np.copyto(target, source)
            return
        half = len(target) // 2
        self._halves.put((target[half:], source[half:]))
        np.copyto(target[:half], source[:half])
        self._done.get()

    def _help(self) -> None:
        while (halves := self._halves.get()) is not None:
            np.copyto(*halves)
            del halves  # the views would keep a slot's memory mapped until the next frame
            self._done.put(None)

    def close(self) -> None:
        """End the thread; safe more than once."""
        if self._thread is not None:
            self._halves.put(None)
            self._thread.join()
            self._thread = None
