"""Live mode as the application has it: a sequence without an end, and a preview that only looks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["LiveMode"]

LOOK_S = 1 / 30
"""Between two looks of the preview."""


class LiveMode:
    """Live mode, on until `close`.

    The preview takes nothing out of the ring: it looks at the newest image of each camera channel, so somebody
    who pops the last ones starves it.

    Parameters
    ----------
    core
        A `RemoteCore`.
    new_metadata
        Makes an empty ``pymmcore.Metadata``.

    Attributes
    ----------
    errors : int
        Exceptions since the first image.
    """

    def __init__(self, core: Any, new_metadata: Callable[[], Any]) -> None:
        self.errors = 0
        self._core, self._new_metadata = core, new_metadata
        self._ended = threading.Event()
        core.startContinuousSequenceAcquisition(0.0)
        self._thread = threading.Thread(target=self._look, name="pellucid-bridge-preview", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        began = False
        while not self._ended.wait(LOOK_S):
            try:
                for age in range(self._core.getNumberOfCameraChannels()):
                    self._core.getNBeforeLastImageMD(age, self._new_metadata())
                began = True
            except Exception:
                self.errors += began

    def close(self) -> None:
        """End the preview, then the sequence."""
        self._ended.set()
        self._thread.join()
        self._core.stopSequenceAcquisition()
