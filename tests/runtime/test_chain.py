"""How stages are connected, bound and checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.errors import StageError
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.runtime.chain import Chain, connect, pick_device
from pellucid.testing import LocalRing
from tests.parts import Scale

ROOT = Path(__file__).parents[2]
STREAM = Stream(Spec((40, 30), "uint16"))


def bound(**stages: Scale) -> tuple[Chain, LocalRing]:
    chain = Chain(stages, STREAM, "cpu")
    outputs = chain.open()
    ring = LocalRing(STREAM, 3, outputs)
    chain.bind(ring.slots, tuple(outputs))
    return chain, ring


def go(chain: Chain, ring: LocalRing, index: int = 0, value: int = 7) -> str | None:
    slot = ring.slots[index]
    slot.planes["raw"].fill(value)
    slot.info = FrameInfo(0, camera_ns=now_ns())
    chain.submit(slot)
    return chain.finish(slot)


def test_names_connect_stages():
    a, b, c = Scale(), Scale(), Scale()
    assert connect([a]) == [("raw", "restored")]
    assert connect([a, b, c]) == [
        ("raw", "after stage 0"),
        ("after stage 0", "after stage 1"),
        ("after stage 1", "restored"),
    ]
    with pytest.raises(StageError, match=r'stages\[1\] scale: reads = "nothing", but the planes there are raw'):
        connect([a, Scale(reads="nothing")])
    with pytest.raises(StageError, match="already there"):
        connect([Scale(writes="x"), Scale(writes="x")])
    with pytest.raises(StageError, match="already there"):
        connect([Scale(writes="raw")])


def test_results_lie_in_the_slot_of_their_frame():
    chain, ring = bound(a=Scale(factor=3), b=Scale(factor=2))
    for i in range(3):
        assert go(chain, ring, i, i + 1) is None
    for i, slot in enumerate(ring.slots):
        np.testing.assert_array_equal(slot.planes["restored"], 6.0 * (i + 1))
    chain.close()
    ring.close()


def test_warming_up_leaves_no_trace_in_the_memory():
    chain, ring = bound(a=Scale())
    assert not any(slot.planes["restored"].any() for slot in ring.slots)
    chain.close()
    ring.close()


@pytest.mark.parametrize("at", ["a", "b"])
def test_one_bad_pixel_of_any_stage_is_seen(at):
    chain, ring = bound(a=Scale(nan_at=0 if at == "a" else -1), b=Scale(nan_at=0 if at == "b" else -1))
    told = go(chain, ring)
    assert told is not None
    assert f"] {at} returned NaN" in told
    chain.close()
    ring.close()


def test_a_stage_that_raises_is_named():
    chain, ring = bound(a=Scale(), b=Scale(raise_at=0))
    with pytest.raises(StageError, match=r"stages\[1\] b raised RuntimeError: the network is on fire"):
        go(chain, ring)
    chain.close()
    ring.close()


class Noting(Scale):
    """Says when it was told of which frame, and when it was called."""

    def open(self, stream, given, device):
        self.calls = []
        return super().open(stream, given, device)

    def at(self, info):
        self.calls.append(info.axes["z"])

    def __call__(self, given, result):
        self.calls.append("called")
        super().__call__(given, result)


def test_a_stage_is_told_of_the_frame_before_it_is_called_on_it():
    chain, ring = bound(a=(first := Noting()), b=Scale(), c=(last := Noting()))
    first.calls.clear(), last.calls.clear()
    for z in (4, 2):
        ring.slots[0].info = FrameInfo(z, camera_ns=now_ns(), axes={"z": z})
        chain.submit(ring.slots[0])
    assert first.calls == last.calls == [4, "called", 2, "called"]
    ring.slots[0].info = FrameInfo(5)
    with pytest.raises(StageError, match=r"stages\[0\] a raised TypeError"):
        chain.submit(ring.slots[0])
    chain.close()
    ring.close()


def test_of_a_colour_picture_a_stage_is_told_once():
    stream = Stream(Spec((3, 40, 30), "uint8", axes="cyx"))
    chain = Chain({"a": (stage := Noting())}, stream, "cpu")
    outputs = chain.open()
    ring = LocalRing(stream, 3, outputs)
    chain.bind(ring.slots, tuple(outputs))
    stage.calls.clear()
    ring.slots[0].info = FrameInfo(0, camera_ns=now_ns(), axes={"z": 7})
    chain.submit(ring.slots[0])
    assert stage.calls == [7, "called", "called", "called"]
    chain.close()
    ring.close()


GROWTH = """
import psutil
from tests.runtime.test_chain import Chain, LocalRing, Scale, Spec, Stream, go
stream = Stream(Spec((512, 512), "uint16"))
chain = Chain({{"a": Scale(leak={leak})}}, stream, "cpu")
ring = LocalRing(stream, 3, chain.open())
chain.bind(ring.slots, ("restored",))
for i in range(20):
    go(chain, ring, i % 3)
before = psutil.Process().memory_info().rss
for i in range(100):
    go(chain, ring, i % 3)
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.parametrize("leak", [False, True])
def test_memory_of_frames_is_the_same_after_many(leak):
    """What torch holds is seen by the system only; in a process of its own, where nothing was freed before.

    The leaking stage shows that a leak would be seen.
    """
    out = subprocess.run(
        [sys.executable, "-c", GROWTH.format(leak=leak)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    grown = int(out.stdout)
    assert (grown > 50e6) if leak else (grown < 20e6), f"{grown / 1e6:.1f} MB in 100 frames of 1 MB"


def test_devices():
    assert pick_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(StageError, match="sees no CUDA device"):
            pick_device("cuda")
