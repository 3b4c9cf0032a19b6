"""How long recovery takes after a recorder was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pellucid.bench.recorded import Feed
from pellucid.errors import SinkError
from pellucid.metrics import now_ns
from pellucid.protocols import RESTORED
from pellucid.recording.recover import recover
from pellucid.sinks.recorder import Recorder

__all__ = ["Recovery", "recover_killed"]

_WORD = "recorded"
_SLOTS = 16


@dataclass(frozen=True)
class Recovery:
    """What recovery did.

    Parameters
    ----------
    seconds
    frames
        That are there afterwards, raw.
    restored
        Planes beside them.
    """

    seconds: float
    frames: int
    restored: int


def recover_killed(path: Path, side: int, count: int) -> Recovery:
    """Record frames, raw and restored, in a process; kill it when the last was written; recover.

    Parameters
    ----------
    path
        To record to.
    side
        Of the frames, in pixels.
    count

    Raises
    ------
    SinkError
        Where a frame that was written is not there afterwards.
    """
    command = [sys.executable, "-m", "pellucid.bench.killed", str(path), str(side), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()  # SIGKILL; on Windows TerminateProcess
    if line.strip() != _WORD:
        raise SinkError(f"the process that records ended by itself: {line.strip() or 'without a word'}")
    before = now_ns()
    found = recover(path)
    seconds = (now_ns() - before) * 1e-9
    if found.recorded != count:
        raise SinkError(f"{found.recorded} of {count} frames are there after recovery")
    return Recovery(seconds, found.recorded, found.planes.get(RESTORED, 0))


def main() -> None:
    """``PATH SIDE COUNT``: record so many frames, say so, and wait to be killed."""
    path, side, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 4096, (side, side), np.uint16) for _ in range(_SLOTS)]
    feed = Feed(frames, {RESTORED: [frame.astype(np.float32) for frame in frames]})
    try:
        feed.give(feed.begin(Recorder(path=path)), count)
    except SinkError as error:
        print(error)
        return
    while sum(marks.disk.count for marks in feed.ledger.marks.values()) < count:
        time.sleep(0.001)
    print(_WORD, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
