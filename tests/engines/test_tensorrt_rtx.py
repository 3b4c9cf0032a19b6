"""Plans for GPUs that are not here."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pellucid.engines.cache import Cache
from pellucid.engines.tensorrt_rtx import CAPABILITIES, TensorRTRTX
from pellucid.errors import StageError
from pellucid.models import shelf
from tests.engines.engine_parts import model_of, nuclei, onnx_file, u_net

pytest.importorskip("tensorrt_rtx", reason='needs tensorrt_rtx: pip install "pellucid[tensorrt-rtx]"')
onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "pellucid[models]"')


@pytest.fixture
def net(tmp_path):
    return model_of(u_net(tmp_path / "net.onnx"))


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_ahead_of_time(net, precision):
    told: list[str] = []
    engine = TensorRTRTX(precision=precision)
    entries = engine.ahead(net, (1, 1, 1024, 1024), tell=told.append)
    assert [e.facts["capability"] for e in entries] == ["8.6", "8.9", "12.0"]
    assert len({e.key for e in entries}) == 3
    assert all(len(e.data) > 10_000 and e.facts["profile"]["least"] == [1, 1, 512, 512] for e in entries)
    assert {e.facts["precision"] for e in entries} == {"float16" if precision == "auto" else precision}
    assert sum("built in" in line for line in told) == 3
    assert all(Cache().read(e.key).data == e.data for e in entries)
    told.clear()
    assert [e.data for e in engine.ahead(net, (1, 1, 1024, 1024), tell=told.append)] == [e.data for e in entries]
    assert told == []


@pytest.mark.parametrize("name", shelf.shipped())
def test_every_shipped_model_is_built_for_gpus_that_are_not_here(name):
    """As a user does it before going to the microscope's computer: ``pellucid models build``."""
    wanted = [".".join(map(str, capability)) for capability in CAPABILITIES]
    arguments = [word for text in wanted for word in ("--capability", text)]
    command = [sys.executable, "-m", "pellucid", "models", "build", name, "--shape", "1000x1024", *arguments]
    said = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    plans = [entry for entry, _ in Cache().entries() if entry.facts["model"] == shelf.find(name).sha256]
    assert sorted(e.facts["capability"] for e in plans) == sorted(wanted)
    for entry in plans:
        TensorRTRTX().look(Cache().read(entry.key).data)
        assert f"built tensorrt-rtx float16 {entry.facts['library']} {entry.facts['capability']}" in said


def test_half_precision_is_in_the_plan():
    model = nuclei()
    sizes = [len(TensorRTRTX(precision=p).ahead(model, (1, 1, 512, 512))[0].data) for p in ("float16", "float32")]
    weights = sum(np.prod(i.dims) for i in onnx.load(model.weights["onnx"]).graph.initializer)
    assert sizes[1] - sizes[0] > 0.3 * 2 * weights  # beside kernels that only one of them has


def test_one_plan_for_all(net):
    engine = TensorRTRTX()
    plan = engine.plan(net, (1, 1, 64, 64), (1, 1, 512, 512), "float16", CAPABILITIES)
    engine.look(plan)
    for bad in (b"", b"x" * 5000, plan[:100], plan[:-1], plan + b"0"):
        with pytest.raises(StageError, match=r"no plan of|of which|damaged"):
            engine.look(bad)


def test_what_it_cannot_do_is_one_line(net, tmp_path):
    with pytest.raises(StageError, match=r"no compute capability 3\.5\. It builds for: .*8\.9"):
        TensorRTRTX().ahead(net, (1, 1, 64, 64), [(3, 5)])
    path = onnx_file(tmp_path / "m.onnx", [("Det", ["given"], ["result"], {})])
    with pytest.raises(StageError, match="cannot take m: operators Det") as caught:
        TensorRTRTX(precision="float32").ahead(model_of(path), (1, 1, 64, 64))
    assert "\n" not in str(caught.value)
    with pytest.raises(StageError, match="is for 1x1x512x512 only"):
        TensorRTRTX().ahead(nuclei(), (1, 1, 256, 256))
