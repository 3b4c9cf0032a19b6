"""How much memory there is for stages, and how much a stage says that it takes."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

__all__ = ["Needed", "given_limits", "keep_large_blocks", "limit_bytes"]

_OF_A_COMPUTER = 0.75
_OF_A_GPU = 0.8
_LEAST = 0.1
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


@dataclass(frozen=True)
class Needed:
    """Bytes that a stage takes beside the picture and its result: always, while it restores, and at most."""

    lasting: int
    running: int
    peak: int


def limit_bytes(device: str, beside: int = 0) -> int:
    """Return what a stage may take here: a part of all there is, whatever is free at the moment.

    What is free changes from minute to minute; tiles that followed it would change the result in its last digits.

    Parameters
    ----------
    device
    beside
        Bytes that the pictures themselves take.
    """
    if device != "cpu":
        whole, part = torch.cuda.get_device_properties(device).total_memory, _OF_A_GPU
    else:
        whole, part = min(psutil.virtual_memory().total, *given_limits()), _OF_A_COMPUTER
    return int(max(whole * part - beside, whole * _LEAST))


def given_limits() -> list[int]:
    """Return the limits that somebody has set on this process; none is a very large one."""
    limits = [sys.maxsize]
    if sys.platform != "win32":
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft = resource.getrlimit(kind)[0]
            if soft != resource.RLIM_INFINITY:
                limits.append(soft)
    for file in _of_groups():
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # no container, or no limit in it
            continue
    return limits


def _of_groups() -> Iterator[Path]:
    """Give the files in which Linux has the limits of this process's group and of those around it."""
    root = Path("/sys/fs/cgroup")
    yield root / "memory.max"
    yield root / "memory/memory.limit_in_bytes"
    try:
        own = Path("/proc/self/cgroup").read_text()
    except OSError:
        return
    for line in own.splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            at = root / kinds / path.lstrip("/")
            for folder in (at, *at.parents):
                if folder == root:
                    break
                yield folder / ("memory.max" if not kinds else "memory.limit_in_bytes")


def keep_large_blocks() -> None:
    """Let glibc hold on to large blocks, for programs that restore one stack after the other in their main thread.

    There it gives each transform's result of more than 32 MB back to the system and fetches the next one anew, page by
    page: a quarter of the time of a stack. A session's threads have memory of their own, for which this is not so.
    Other systems have nothing of the kind. What is held is at most what was needed at once.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            change = ctypes.CDLL(None).mallopt
            for parameter, value in ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**30)):
                change(parameter, value)
