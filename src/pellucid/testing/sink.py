"""The contract of a sink."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, RESTORED, FrameInfo, Sink, Spec, Stream
from pellucid.testing.source import LocalRing

__all__ = ["check_sink"]

RUNS = 40
"""More than a pool of threads holds on a usual computer (asyncio's: the cores and four)."""


def check_sink(make: Callable[[], Sink], *, frames: int = 12) -> None:
    """Run a sink through its life and assert that it keeps `pellucid.protocols.Sink`.

    It can be closed before it was opened, and twice; takes frames with and without a result; reads a slot only
    while ``write`` runs (the slot is overwritten right after); writes into none; and leaves no thread behind.

    Parameters
    ----------
    make
        Returns a new sink; called several times.
    frames
        How many to write.

    Raises
    ------
    AssertionError
        Saying which part of the contract was broken.
    """
    make().close(None)  # before it was opened
    _live_through(make(), frames)
    # An SDK may start threads once and keep them, and a pool of its own fills up over some runs; what belongs to
    # the sink itself comes anew in each.
    left = [""]
    for _ in range(RUNS):
        threads = set(threading.enumerate())
        _live_through(make(), 2)
        left = [t.name for t in threading.enumerate() if t not in threads and t.is_alive()]
        if not left:
            break
    assert not left, f"threads were left behind by close(): {left}, after {RUNS} runs"


def _live_through(sink: Sink, frames: int) -> None:
    assert isinstance(sink, Sink), "an attribute or a method of protocols.Sink is missing"
    assert sink.policy in ("block", "latest"), f'policy = "{sink.policy}"'
    assert type(sink.early) is bool
    stream = Stream(Spec((48, 64), "uint16"), camera="camera", channel="channel", pixel_um=0.1, exposure_ms=10.0)
    restored = Spec((48, 64), "float32")
    ledger = Ledger()
    run = {"config": "# a config\n", "config_sha256": "0" * 64, "version": "0", "ledger": ledger}
    ring = LocalRing(stream, 2, {RESTORED: restored})
    try:
        sink.open([stream], [{RAW: stream.spec, RESTORED: restored}], run)
        for i in range(frames):
            _write(sink, ring, ledger, i)
        sink.finish()
    finally:
        sink.close({"frames": ledger.frames()})
        sink.close({"frames": ledger.frames()})
        ring.close()


def _write(sink: Sink, ring: LocalRing, ledger: Ledger, i: int) -> None:
    slot = ring.slots[i % 2]
    now = now_ns()
    slot.info = FrameInfo(i, camera_number=i, camera_ns=now - 1_000_000, received_ns=now)
    ledger.arrived(slot.info, slot.planes[RAW].nbytes)
    for name, plane in slot.planes.items():
        plane.fill(i + (name == RESTORED))
    # Every third frame stays raw only, as after a stage that failed.
    results = () if i % 3 == 2 else (RESTORED,)
    ledger.ended(slot.info, "processed" if results else "raw_only", "" if results else "a test")
    before: dict[str, Any] = {name: plane.copy() for name, plane in slot.planes.items()}
    if sink.early:
        sink.write(slot, (RAW,))
        if results:
            sink.write(slot, results)
    else:
        slot.ready = (RAW, *results)
        sink.write(slot, slot.ready)
    for name, plane in slot.planes.items():
        assert np.array_equal(plane, before[name]), f"write() changed the plane {name}"
        plane.fill(0)  # from here on the slot belongs to another frame
    ledger.finish(slot.info)
