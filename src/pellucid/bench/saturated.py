"""What a recorder costs the session's loop while the disk is slower than the camera.

The loop's own time is what passes between a frame that the source returns and the loop asking for the next one, taken
where nothing else can be measured along with it: in the source. Where the loop then waits for a slot, since the sinks
have all of them, that is no work of the loop's: it is counted apart, and such a frame is one that a camera would drop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Ring, Sink, Slot, Spec, Stream
from pellucid.runtime.session import Session, Settings
from pellucid.sinks.null import Null
from pellucid.sinks.recorder import Recorder

__all__ = ["Flood", "Load", "loop_load"]

_SLOTS = 16
_BUFFER_MB = 256.0
"""Little, so that the disk is what limits from soon on."""


class Flood:
    """A camera at a fixed rate that waits for nobody; its frames lie in the slots already.

    Parameters
    ----------
    side
        Of its frames, in pixels.
    fps

    Attributes
    ----------
    loop_ns : list of int
        The loop's own time after each frame.
    late_ns : list of int
        By how much later than it was due each frame was given to the loop.
    starved : int
        How often the loop came without a slot.
    """

    def __init__(self, side: int, fps: float) -> None:
        self._spec, self._period_ns = Spec((side, side), "uint16"), round(1e9 / fps)
        self._slots: deque[Slot] = deque()
        self._next = 0
        self._began_ns = self._returned_ns = 0
        self._stopped = False
        self.live, self.shares_memory, self.finished = True, False, False
        self.loop_ns: list[int] = []
        self.late_ns: list[int] = []
        self.starved = 0

    def open(self) -> tuple[Stream, ...]:
        """Return its one stream."""
        return (Stream(self._spec),)

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Fill all slots, and begin."""
        self._account = account
        rng = np.random.default_rng(0)
        for slot in rings[0].slots:
            slot.planes["raw"][...] = rng.integers(0, 4096, self._spec.shape, np.uint16)
        self._began_ns = now_ns()

    def offer(self, slot: Slot) -> None:
        """Take a slot to fill."""
        self._slots.append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame when it is due."""
        now = now_ns()
        if self._returned_ns:
            if self._slots:
                self.loop_ns.append(now - self._returned_ns)
            else:
                self.starved += 1
            self._returned_ns = 0
        if self._stopped:
            if not self.finished:
                self._account.told(self._next)
            self.finished = True
            return None
        due = self._began_ns + self._next * self._period_ns
        if due > now:
            time.sleep(min((due - now) * 1e-9, timeout_s))
            if now_ns() < due:
                return None
        if not self._slots:
            self._account.missing(self._next, 1, "dropped", "ring")
            self._next += 1
            return None
        slot = self._slots.pop()
        slot.info = FrameInfo(self._next, camera_number=self._next, camera_ns=due, received_ns=now_ns())
        self._next += 1
        self.late_ns.append(slot.info.received_ns - due)
        self._returned_ns = now_ns()
        return slot

    def stop(self) -> None:
        """Give no more frames."""
        self._stopped = True

    def close(self) -> None:
        """Forget the slots."""
        self._slots.clear()


@dataclass(frozen=True)
class Load:
    """What a session's loop did.

    Parameters
    ----------
    loop_ms, late_ms
        99th percentiles of the loop's own time for a frame, and of how late frames came to it.
    frames
        That the loop has taken.
    not_recorded
        Of those, left out of the recording since the disk was too slow.
    starved
        How often no slot was left.
    """

    loop_ms: float
    late_ms: float
    frames: int
    not_recorded: int
    starved: int


def loop_load(side: int, fps: float, seconds: float, path: Path | None) -> Load:
    """Run a session and measure its loop.

    Parameters
    ----------
    side
        Of the frames, in pixels.
    fps
        More than the disk takes.
    seconds
    path
        To record to; None for a sink that forgets all.
    """
    source = Flood(side, fps)
    sink: Any = Null()
    if path is not None:
        sink = Recorder(path=str(path), buffer_mb=_BUFFER_MB, when_full="drop")
    sinks: dict[str, Sink] = {"sink": sink}
    settings = Settings(device="cpu", slots=_SLOTS, seconds=seconds)
    session = Session(source, lambda _: {}, sinks, settings, {"config": ""}, tell=lambda _: None)
    session.open()
    try:
        session.run()
    finally:
        session.close()
    return Load(
        float(np.percentile(source.loop_ns, 99)) * 1e-6,
        float(np.percentile(source.late_ns, 99)) * 1e-6,
        len(source.late_ns),
        getattr(sink, "skipped", 0),
        source.starved,
    )
