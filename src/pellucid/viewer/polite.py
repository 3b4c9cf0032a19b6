"""How a window leaves the processor to the camera and the stages."""

from __future__ import annotations

import contextlib
import os
import sys

import psutil

__all__ = ["few_threads", "yield_to_the_camera"]

_NICE = 10


def few_threads() -> None:
    """Draw with half of the cores where there is no GPU: Mesa's llvmpipe takes all. Before anything is drawn."""
    os.environ.setdefault("LP_NUM_THREADS", str(max((os.cpu_count() or 1) // 2, 1)))


def yield_to_the_camera() -> None:
    """Let the session go first where both want a processor: a picture less is shown, and no frame is late.

    Called with the first picture on the screen: until then it is the user who waits.
    """
    with contextlib.suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
            return
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    if sys.platform == "linux":
        # There niceness is each thread's own, and what draws (llvmpipe, Qt, OpenGL) began its threads before.
        for thread in psutil.Process().threads():
            with contextlib.suppress(OSError):  # it has ended in the meantime
                os.setpriority(os.PRIO_PROCESS, thread.id, _NICE)
