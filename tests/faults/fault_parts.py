"""What the tests of faults and `tools/faults.py` share: what a try came to, processes to kill, and the judgement."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import SinkError
from pellucid.recording.recover import recover
from pellucid.recording.verify import verify
from tests.faults.frames_told import compared, raw, restored

__all__ = ["FORMATS", "KEYS", "Flags", "Outcome", "busy", "cleared", "judge", "silenced", "started"]

KEYS: dict[str, dict[str, Any]] = {
    "shards": {},
    "shards of 8, often committed": {"shard_frames": 8, "commit_every_s": 0.02},
    "a file a plane": {"shard_frames": 1},
    "zstd, parts": {"compression": "zstd", "shard_frames": 3, "part_frames": 9},
    "OME-TIFF": {"format": "ome-tiff"},
    "NDTiff": {"format": "ndtiff"},
}
FORMATS = tuple(KEYS)

Owed = Mapping[str, Iterable[int]]
"""Plane -> frames of it that nothing may have lost."""


@dataclass
class Outcome:
    """What one try came to.

    Parameters
    ----------
    sent
        Frames that were given to the recorder, as far as it is known.
    lost
        Planes that were acknowledged (after a kill: written; after a power cut: committed) and are not there.
    wrong
        Planes that are said to be there and whose pixels are not those that were sent.
    seconds
        That recovery took.
    faults
        All else that must not be: one line each.
    note
        Of the try, for whoever looks for what went wrong.
    """

    sent: int = 0
    lost: int = 0
    wrong: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def good(self) -> bool:
        """Nothing was lost, nothing is wrong."""
        return not (self.lost or self.wrong or self.faults)


def judge(
    folder: Path,
    owed: Owed,
    sent: int,
    made: Mapping[str, Callable[[int], np.ndarray]] | None = None,
    *,
    check_all: bool = False,
    looks: bool = True,
) -> Outcome:
    """Recover what is in a folder, twice, and compare every plane with what was sent.

    Parameters
    ----------
    folder
    owed
    sent
    made
        Makes each plane's pixels from a frame's number.
    check_all
        See `recover`.
    looks
        Whether ``pellucid verify`` is to agree.
    """
    out = Outcome(sent, note=str(folder))
    due = {plane: set(frames) for plane, frames in owed.items()}
    begun = time.perf_counter()
    try:
        recover(folder, check_all=check_all)
    except SinkError as error:
        out.lost = sum(map(len, due.values()))
        if out.lost or len(str(error).splitlines()) != 1:
            out.faults.append(f"recover: {error}")
        return out
    except Exception as error:
        out.lost = sum(map(len, due.values()))
        out.faults.append(f"recover: {type(error).__name__}: {error}")
        return out
    out.seconds = time.perf_counter() - begun
    try:
        seen = compared(folder, made or {"raw": raw, "restored": restored})
        for plane, frames in seen.items():
            wrong = [i for i, right in frames.items() if not right]
            gone = sorted(due.get(plane, set()) - set(frames))
            out.wrong += len(wrong)
            out.lost += len(gone)
            if wrong or gone:
                out.faults.append(f"{plane}: wrong {wrong[:9]}, lost {gone[:9]}")
        if looks:
            out.faults += [f"verify: {fault}" for fault in verify(folder).faults]
        before = _sums(folder)
        recover(folder)
        if _sums(folder) != before:
            out.faults.append("a second recovery changes something")
    except Exception as error:
        out.faults.append(f"after recovery: {type(error).__name__}: {error}")
    return out


def _sums(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted(paths)}


def cleared(path: Path) -> Path:
    """Return a folder's path, at which nothing is any more."""
    shutil.rmtree(path, ignore_errors=True)
    return path.absolute()


# ---------------------------------------------------------------- processes

# A process that starts with everything imported; elsewhere a new interpreter, which is as good and takes longer.
_CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
if sys.platform == "linux":
    _CONTEXT.set_forkserver_preload(
        ["torch", "zarr", "ome_writers", "tifffile", "pellucid.cli", "pellucid.stages.deconvolve", __name__]
    )


def started(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start a process of its own that calls a function of a module."""
    process = _CONTEXT.Process(target=target, args=args, daemon=True)  # type: ignore[attr-defined]
    process.start()
    return process


def silenced(path: Path) -> None:
    """In a child: what it says goes to a file."""
    said = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
    for handle in (1, 2):
        os.dup2(said, handle)


def _burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy(yes: bool) -> Iterator[None]:
    """Keep every processor busy, so that each thread waits for its turn; or do nothing."""
    burners = [started(_burn) for _ in range((os.cpu_count() or 1) * yes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


class Flags:
    """Numbers that outlive the process that counts them: how many frames were sent, and which were acknowledged.

    Parameters
    ----------
    path
        Of a file.
    room
        For so many frames.
    """

    def __init__(self, path: Path, room: int = 4096) -> None:
        if not path.exists():
            path.write_bytes(bytes(room + 8))
        self._bytes = np.memmap(path, np.uint8, "r+")
        self._sent = self._bytes[:8].view(np.uint64)
        self._each = self._bytes[8:]

    @property
    def sent(self) -> int:
        return int(self._sent[0])

    def note(self, sent: int, written: Iterable[int]) -> None:
        """Note how many were sent, and which of them are written."""
        self._sent[0] = sent
        for i in written:
            self._each[i] = 1

    @property
    def written(self) -> list[int]:
        return [int(i) for i in np.flatnonzero(self._each.copy())]  # another process writes meanwhile
