"""Networks on CUDA: engines within their bounds, restored frames as on the CPU, memory as it was told."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from pellucid.bench.lane import Lane, noisy_frames
from pellucid.engines.tensorrt import TensorRT
from pellucid.engines.tensorrt_rtx import TensorRTRTX
from pellucid.engines.torch import Torch
from pellucid.errors import StageError
from pellucid.models import shelf
from pellucid.protocols import Spec, Stream
from pellucid.stages.restore import Restore

ENGINES = {
    "graph float32": (Torch, {"mode": "graph", "precision": "float32"}),
    "graph float16": (Torch, {"mode": "graph", "precision": "float16"}),
    "graph bfloat16": (Torch, {"mode": "graph", "precision": "bfloat16", "bound": 0.05}),
    "eager float32": (Torch, {"mode": "eager", "precision": "float32"}),
    "compile float16": (Torch, {"mode": "compile", "precision": "float16"}),
    "tensorrt float16": (TensorRT, {"precision": "float16"}),
    "tensorrt float32": (TensorRT, {"precision": "float32"}),
    "tensorrt-rtx": (TensorRTRTX, {}),
}


def lanes(gpu, engine, shape, **keys):
    """Return the same stage on the CPU, in float32, and on the GPU."""
    stream = Stream(Spec(shape, "uint16"))
    eager = Restore(engine=Torch(mode="eager", precision="float32"), **keys)
    return Lane({"restore": eager}, stream, "cpu"), Lane({"restore": Restore(engine=engine, **keys)}, stream, gpu)


def compare(on_cpu, on_gpu, images, bound):
    for i, image in enumerate(images):
        for lane in (on_cpu, on_gpu):
            lane.chain.submit(lane.fill(i, image))
    for a, b in zip(on_cpu.slots[: len(images)], on_gpu.slots, strict=False):
        assert (on_cpu.chain.finish(a), on_gpu.chain.finish(b)) == (None, None)
        want, got = a.planes["restored"], b.planes["restored"]
        assert np.abs(want - got).max() < bound * np.ptp(want)
        for key, value in a.info.notes["restore"].items():  # what was measured of the light
            assert b.info.notes["restore"][key] == pytest.approx(value, rel=0.01, abs=0.5)
    on_cpu.close()
    on_gpu.close()


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("model", ["denoise", "super-resolve"])
def test_a_restored_frame_is_that_of_the_cpu(name, model, gpu):
    kind, keys = ENGINES[name]
    engine = kind(**keys)
    if why := engine.missing(shelf.find(model), gpu):
        pytest.skip(why)
    on_cpu, on_gpu = lanes(gpu, engine, (512, 512), model=model)
    captured = on_gpu.chain.describe()[0]["captured"]
    assert captured == engine.captures
    assert captured or "eager" in name or engine.kind != "torch"
    compare(on_cpu, on_gpu, noisy_frames(512, 6), max(engine.made.fidelity.largest * 3, 1e-4))


@pytest.mark.parametrize("keys", [{"tile": [256, 256]}, {"tile": [256, 320], "batch": 4}, {"adapt_frames": 0}])
def test_tiles_and_percentiles_are_those_of_the_cpu(keys, gpu):
    engine = Torch(mode="graph", precision="float32")
    compare(
        *lanes(gpu, engine, (700, 901), model="denoise", **keys), [image[:700] for image in noisy_frames(901, 4)], 1e-3
    )


def test_nothing_is_allocated_while_frames_run_and_all_is_given_back(gpu):
    def taken():
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    _, warm = lanes(gpu, Torch(mode="graph", precision="float16"), (256, 256), model="denoise")
    warm.close()
    before = taken()
    on_cpu, lane = lanes(gpu, Torch(mode="graph", precision="float16"), (1024, 1024), model="denoise")
    while_open = taken()
    lane.frames_per_s(30)
    assert taken() == while_open > before
    on_cpu.close()
    lane.close()
    del lane, on_cpu, warm
    assert taken() <= before + (1 << 20)


def test_memory_is_what_was_told(gpu):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    stage = Restore(model="denoise", engine=Torch(mode="graph", precision="float16"))
    lane = Lane({"restore": stage}, Stream(Spec((2048, 2048), "uint16")), gpu)
    lane.frames_per_s(10)
    took = torch.cuda.max_memory_reserved() - before
    assert took < 1.1 * stage.needed.peak + (512 << 20)
    lane.close()


def test_too_little_memory_gives_tiles_or_one_line(gpu):
    stream = Stream(Spec((2048, 2048), "uint16"))
    stage = Restore(model="denoise", engine=Torch(precision="float16"), memory_gb=0.6)
    lane = Lane({"restore": stage}, stream, gpu)
    assert stage.tile is not None
    lane.close()
    with pytest.raises(StageError, match="memory_gb"):
        Lane({"restore": Restore(model="denoise", engine=Torch(), memory_gb=1e-4)}, stream, gpu)
