"""Every frame over Micro-Manager's bridge against a bare pycromanager loop, and what looking costs while idle.

Both talk to the same server in the same run, and take turns; figures are medians. The server is the one of the tests
(``python -m pellucid.testing.bridge``): a real core without Java. So the rates are those of this server; the ratio
is what can be compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pellucid.config import Config
from pellucid.errors import require
from pellucid.live import make_session
from pellucid.metrics import now_ns
from pellucid.sources.java import MicroManagerJava
from pellucid.testing import LocalRing, Told
from pellucid.wire.bridge import attach
from pellucid.wire.bridge_object import RemoteObject

__all__ = ["measure_bridge"]

_SLOTS = 8
_FIRST = 10
"""Frames before the clock starts: until then both have warmed up, and the camera, which is faster, is ahead."""


@contextmanager
def _server(side: int) -> Iterator[int]:
    command = [sys.executable, "-m", "pellucid.testing.bridge", "--port", "0", "--buffer-mb", "1024"]
    for setting in ("PixelType=16bit", f"OnCameraCCDXSize={side}", f"OnCameraCCDYSize={side}", "Exposure=1"):
        command += ["--set", f"Camera.{setting}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate()


def _bare(port: int, frames: int) -> float:
    """Return frames/s of the loop that everybody writes, in a process of its own."""
    command = [sys.executable, "-m", "pellucid.bench.bridge", str(port), str(frames)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def _loop(port: int, frames: int) -> float:
    """Pop, pixels, tags, as fast as it goes."""
    import pycromanager

    core = pycromanager.Core(port=port)
    core.start_sequence_acquisition(frames + _FIRST, 0.0, True)
    came, began = 0, 0
    while came < frames + _FIRST:
        if core.get_remaining_image_count() > 0:
            image = core.pop_next_tagged_image()
            assert image.pix.size
            assert image.tags
            came += 1
            if came == _FIRST:
                began = now_ns()
    return frames / ((now_ns() - began) * 1e-9)


def _ours(core: RemoteObject, port: int, frames: int) -> float:
    """Return frames/s of the source, into slots."""
    source = MicroManagerJava(port=port, mode="every-frame", frames=frames + _FIRST)
    try:
        (stream,) = source.open()
        ring, account = LocalRing(stream, _SLOTS), Told()
        source.start([ring], account)
        for slot in ring.slots:
            source.offer(slot)
        source.read(0.5)
        core.start_sequence_acquisition(frames + _FIRST, 0.0, True)
        arrived: list[int] = []
        while not source.finished:
            taken = source.read(1.0)
            if taken is not None:
                arrived.append(now_ns())
                source.offer(taken)
    finally:
        source.close()
    ring.close()
    assert len(arrived) == frames + _FIRST, account.missed
    return frames / ((arrived[-1] - arrived[_FIRST - 1]) * 1e-9)


def _idle(port: int, seconds: float) -> dict[str, float]:
    """Return the share of one core that looking takes while live mode is off: the source alone, and a session."""
    source = MicroManagerJava(port=port, mode="look")
    try:
        (stream,) = source.open()
        ring = LocalRing(stream, _SLOTS)
        source.start([ring], Told())
        for slot in ring.slots:
            source.offer(slot)
        source.read(0.5)
        spent, began = time.process_time_ns(), now_ns()
        while now_ns() - began < seconds * 1e9:
            assert source.read(0.05) is None
        share = (time.process_time_ns() - spent) / (now_ns() - began)
    finally:
        source.close()
    ring.close()
    config = Config.parse(
        f'source = {{ kind = "micromanager-java", port = {port} }}\nsinks = [{{ kind = "null" }}]\n'
        f"session = {{ slots = {_SLOTS}, seconds = {seconds} }}"
    )
    session = make_session(config)
    session.open()
    try:
        spent, began = time.process_time_ns(), now_ns()
        session.run()
        whole = (time.process_time_ns() - spent) / (now_ns() - began)
    finally:
        session.close()
    return {"look_idle_percent_of_a_core": 100 * share, "session_idle_percent_of_a_core": 100 * whole}


def measure_bridge(side: int, quick: bool) -> dict[str, Any]:
    """Compare ``every-frame`` with a bare loop, 16-bit frames of side x side; and see what ``look`` costs while idle.

    Raises
    ------
    MissingExtra
        Where pycromanager or mm-test-adapters is not installed.
    """
    for module in ("pycromanager", "mm_test_adapters"):
        require(module, "demo", "--only bridge")
    frames = 40 if quick else 100
    bare, ours = [], []
    with _server(side) as port:
        idle = _idle(port, 2.0 if quick else 5.0)
        bridge = attach(port, 10.0)
        try:
            core = RemoteObject.construct(bridge, "mmcorej.CMMCore")
            core.snap_image()
            core.set_property("Camera", "FastImage", "1")
            for _ in range(1 if quick else 5):
                bare.append(_bare(port, frames))
                ours.append(_ours(core, port, frames))
        finally:
            bridge.close()
    a, b = statistics.median(ours), statistics.median(bare)
    return {
        "frames": f"{side}x{side} uint16",
        "every_frame_per_s": a,
        "pycromanager_per_s": b,
        "ratio": a / b,
        "every_frame_MB_per_s": a * side * side * 2e-6,
        **idle,
    }


if __name__ == "__main__":
    print(_loop(int(sys.argv[1]), int(sys.argv[2])))
