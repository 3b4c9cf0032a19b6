"""Percentiles off the way to the screen: a millisecond in which a window would draw nothing."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from PySide6.QtCore import QThreadPool

from pellucid.viewer.contrast import Contrast

__all__ = ["Aim"]


class Aim:
    """Where the limits of one plane shall go, found in another thread: one sample at a time.

    Parameters
    ----------
    contrast
        Of the plane.
    """

    def __init__(self, contrast: Contrast) -> None:
        self._contrast = contrast
        self._lock = threading.Lock()
        self._busy = False
        self._number = 0
        self._found: tuple[float, float] | None = None

    @property
    def busy(self) -> bool:
        """A sample is being looked at."""
        return self._busy

    def look(self, sample: np.ndarray[Any, Any]) -> None:
        """Find the aim of a sample; `take` has it soon."""
        self._contrast.see(sample)
        self._busy = True
        number = self._number

        def work() -> None:
            found = self._contrast.aim(sample)
            with self._lock:
                self._busy = False
                if number == self._number:
                    self._found = found

        QThreadPool.globalInstance().start(work)

    def take(self, now_ns: int) -> bool:
        """Have the limits follow what was found meanwhile; return whether they changed."""
        with self._lock:
            found, self._found = self._found, None
        return found is not None and self._contrast.follow(found, now_ns)

    def forget(self) -> None:
        """Leave out what is being found: it is of something that is not seen any more."""
        with self._lock:
            self._number += 1
            self._found = None
