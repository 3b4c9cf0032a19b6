"""The chain on CUDA against the chain on the CPU: same pixels, captured, many in flight, no memory taken on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.bench.gpu import deconvolve, pictures
from pellucid.bench.lane import Lane
from pellucid.metrics import now_ns
from pellucid.protocols import Spec, Stream


class NotANumber:
    """A stage that gives NaN where its input is 0."""

    reads = writes = None
    captures = True

    def open(self, stream, given, device):
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result):
        torch.div(given, given, out=result)

    def close(self):
        pass


class Slow:
    """A stage that takes a while on the GPU."""

    reads = writes = None

    def __init__(self, captures):
        self.captures = captures

    def open(self, stream, given, device):
        self.by = torch.ones(1024, 1024, device=device) / 1024
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result):
        result.copy_(given)
        for _ in range(20):
            result.copy_(result @ self.by)

    def close(self):
        pass


@pytest.mark.parametrize(
    ("shape", "method", "iterations"),
    [
        ((512, 512), "wiener-butterworth", 4),
        ((512, 512), "richardson-lucy", 8),
        ((2048, 2048), "wiener-butterworth", 4),
        ((1000, 1013), "wiener-butterworth", None),
        ((32, 256, 256), "wiener-butterworth", None),
        ((64, 128, 128), "richardson-lucy", 10),
    ],
)
def test_deconvolution_on_the_gpu_is_that_on_the_cpu(shape, method, iterations, gpu):
    stream = Stream(Spec(shape, "uint16"), pixel_um=0.1, z_um=0.3)
    on_cpu, on_gpu = (Lane(deconvolve(method, iterations), stream, device) for device in ("cpu", gpu))
    for i, image in enumerate(pictures(shape, 6)):  # all are in flight at once
        for lane in (on_cpu, on_gpu):
            lane.chain.submit(lane.fill(i, image))
    for a, b in zip(on_cpu.slots, on_gpu.slots, strict=True):
        assert (on_cpu.chain.finish(a), on_gpu.chain.finish(b)) == (None, None)
        want, got = a.planes["restored"], b.planes["restored"]
        assert np.abs(want - got).max() < 1e-3 * np.abs(want).max()
    # A number of steps that follows each picture's noise, and steps of a stack, cannot be captured.
    assert on_gpu.chain.describe()[0]["captured"] == (iterations is not None and len(shape) == 2)
    before = torch.cuda.memory_allocated()
    for i in range(12):
        on_gpu.one_ms(i % 6)
    assert torch.cuda.memory_allocated() == before
    on_cpu.close()
    on_gpu.close()


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "eager"])
def test_marks_are_in_the_order_of_the_way(captured, gpu):
    """Also of frames that are in flight together, whose events must not overwrite each other's."""
    stages = {"one": Slow(captured), "two": Slow(captured)}
    lane = Lane(stages, Stream(Spec((1024, 1024), "uint16")), gpu)
    image = np.ones((1024, 1024), np.uint16)
    before = now_ns()
    for i in range(6):
        lane.chain.submit(lane.fill(i, image))
    for slot in lane.slots:
        assert lane.chain.finish(slot) is None
        info = slot.info
        assert info.stages == ("one", "two")
        first, second = info.stages_ns
        assert (first == 0) == captured
        way = [before - 1_000_000, info.uploaded_ns, *([] if captured else [first]), second, info.downloaded_ns]
        assert way == sorted(way)
        assert second - info.uploaded_ns > 0.5 * (info.downloaded_ns - info.uploaded_ns)
        assert info.downloaded_ns <= now_ns()
    lane.close()


def test_nan_is_seen_in_its_own_frame_only(gpu):
    lane = Lane({"bad": NotANumber()}, Stream(Spec((64, 64), "uint16")), gpu)
    for i in range(6):
        image = np.ones((64, 64), np.uint16)
        image[5, 7] = i != 3
        lane.chain.submit(lane.fill(i, image))
    assert [lane.chain.finish(slot) is not None for slot in lane.slots] == [i == 3 for i in range(6)]
    lane.close()
