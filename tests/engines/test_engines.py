"""Engines against eager float32 torch, and what they refuse."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.engines import fidelity
from pellucid.engines.auto import Auto
from pellucid.engines.cache import Cache
from pellucid.engines.openvino import OpenVino
from pellucid.engines.tensorrt import TensorRT
from pellucid.engines.tensorrt_rtx import TensorRTRTX
from pellucid.engines.torch import Torch
from pellucid.errors import MissingExtra, StageError
from pellucid.models import Fidelity, Operation, Side
from pellucid.testing.engine import check_engine
from tests.engines.engine_parts import model_of, nuclei, onnx_file, tobacco, u_net

pytest.importorskip("onnx", reason='needs onnx: pip install "pellucid[models]"')
SHAPES = [(1, 1, 64, 96), (2, 1, 40, 40)]


def openvino():
    pytest.importorskip("openvino", reason='needs openvino: pip install "pellucid[openvino]"')
    return OpenVino


@pytest.fixture
def net(tmp_path):
    return model_of(u_net(tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    "make", [Torch, lambda: Torch(precision="bfloat16", bound=0.05), lambda: Torch(channels_last=False), Auto]
)
def test_contract(net, make):
    check_engine(make, net, SHAPES)


def test_contract_openvino(net):
    check_engine(openvino(), net, SHAPES)
    check_engine(lambda: OpenVino(precision="float32"), net, SHAPES[:1])


def test_stacks_and_cameras_types(tmp_path):
    """A network in three dimensions, and one that is given counts of 16 bits and two channels."""
    w = np.random.default_rng(0).normal(size=(1, 1, 3, 3, 3)).astype(np.float32)
    nodes = [("Conv", ["given", "w"], ["result"], {"pads": [1] * 6})]
    path = onnx_file(tmp_path / "z.onnx", nodes, {"w": w}, shape=(1, 1, "z", "y", "x"), out=None)
    model = model_of(path, axes="bczyx")
    model = replace(model, given=replace(model.given, sides=(Side(8, 8),) * 3))
    check_engine(Torch, model, [(1, 1, 8, 24, 16)])
    check_engine(openvino(), model, [(1, 1, 8, 24, 16)])
    nodes = [("Cast", ["given"], ["f"], {"to": 1}), ("Conv", ["f", "w"], ["result"], {})]
    path = onnx_file(tmp_path / "c.onnx", nodes, {"w": w[:, 0, :2, :1, :1] / 1000}, shape=(1, 2, "y", "x"), kind=4)
    model = model_of(path, channels=2)
    model = replace(model, given=replace(model.given, dtype="uint16"), result=replace(model.result, channels=1))
    check_engine(Torch, model, [(1, 2, 24, 16)])
    check_engine(OpenVino, model, [(1, 2, 24, 16)])


def test_real_networks(tmp_path):
    """As trained: one of a fixed size, one with loops and channels last."""
    kind = openvino()
    for model, shape in ((nuclei(), (1, 1, 512, 512)), (tobacco(tmp_path), (1, 64, 80, 1))):
        engine = kind()
        engine.open(model, shape, "cpu")
        assert 0 <= engine.made.fidelity.largest <= 0.01
        assert engine.made.fidelity.reference == "torch float32, eager"
        engine.close()
        engine = kind(precision="float32")
        engine.open(model, shape, "cpu")
        assert engine.made.fidelity.largest < 1e-4
        engine.close()


def test_other_files_of_a_network(tmp_path):
    """TorchScript and torch.export give what the module gives, in torch and in OpenVINO."""
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 1)).eval()
    given = torch.rand(1, 1, 32, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about TorchScript and itself
        torch.jit.trace(module, given).save(str(tmp_path / "net.pt"))
        sides = {2: torch.export.Dim("y", min=8, max=4096), 3: torch.export.Dim("x", min=8, max=4096)}
        torch.export.save(torch.export.export(module, (given,), dynamic_shapes=(sides,)), tmp_path / "net.pt2")
    other = torch.rand(1, 1, 64, 40)
    want = module(other).detach()
    for form, name in (("torchscript", "net.pt"), ("exported", "net.pt2")):
        model = model_of(tmp_path / name, form)
        for engine in (Torch(), openvino()(precision="float32")):
            out = torch.full(engine.open(model, (1, 1, 64, 40), "cpu"), float("nan"))
            engine(other, out)
            torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-5)
            engine.close()


def test_beyond_the_bound_is_refused_with_the_figure(net):
    with pytest.raises(
        StageError, match=r"in bfloat16 largest difference .*above bound = 1e-09.*precision = \"float32\""
    ):
        Torch(precision="bfloat16", bound=1e-9).open(net, (1, 1, 64, 64), "cpu")
    told: list[str] = []
    engine = openvino()(bound=1e-9)
    if "bfloat16" in engine._precisions("cpu"):
        with pytest.raises(StageError, match="in float32 largest difference"):
            engine.open(net, (1, 1, 64, 64), "cpu", told.append)
        assert any("in bfloat16" in line and "tries float32" in line for line in told)


def test_nan_is_refused(net, monkeypatch):
    bad = Fidelity(float("inf"), float("inf"), "torch float32, eager", 3)
    assert fidelity.compare(lambda g, r: r.fill_(float("nan")), net, (1, 1, 64, 64), (1, 1, 64, 64), "cpu", "t") == bad
    monkeypatch.setattr("pellucid.engines.base.compare", lambda *_: bad)
    with pytest.raises(StageError, match="gives NaN or infinity"):
        Torch(precision="bfloat16", bound=1.0).open(net, (1, 1, 64, 64), "cpu")


def test_a_network_that_is_nan_in_float32_is_refused(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", [("Sqrt", ["n"], ["result"], {}), ("Neg", ["given"], ["n"], {})][::-1])
    with pytest.raises(StageError, match=r"gives NaN or infinity in float32 on a real frame"):
        openvino()().open(model_of(path), (1, 1, 64, 64), "cpu")


def test_comparison_is_kept(net, monkeypatch):
    first = openvino()()
    first.open(net, (1, 1, 64, 64), "cpu")
    first.close()
    monkeypatch.setattr("pellucid.engines.base.compare", lambda *_: pytest.fail("compared again"))
    again = OpenVino()
    again.open(net, (1, 1, 64, 64), "cpu")
    assert again.made.cached
    assert not first.made.cached
    assert again.made.fidelity == first.made.fidelity
    again.close()


def test_frames_are_brought_into_the_range_of_the_network(net):
    plain = fidelity.real_inputs(net, (1, 1, 300, 520))
    assert len(plain) == 3
    assert all(p.shape == (1, 1, 300, 520) and abs(float(p.mean()) - 0.4) < 0.4 and p.max() > 0.9 for p in plain)
    scored = fidelity.real_inputs(replace(net, before=(Operation("zero_mean_unit_variance"),)), (1, 1, 64, 64))
    assert all(abs(p.mean()) < 1e-3 and abs(p.std() - 1) < 1e-3 for p in scored)
    assert fidelity.probe_shape(net, (4, 1, 2048, 1000)) == (1, 1, 512, 512)
    assert fidelity.probe_shape(nuclei(), (1, 1, 512, 512)) == (1, 1, 512, 512)


def test_onnxruntime_where_torch_does_not_know_an_operator(tmp_path):
    pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "pellucid[models]"')
    path = onnx_file(tmp_path / "m.onnx", [("ThresholdedRelu", ["given"], ["result"], {"alpha": 0.5})])
    model = model_of(path)
    with pytest.raises(StageError, match="does not know: ThresholdedRelu"):
        Torch().open(model, (1, 1, 64, 64), "cpu")
    run, name = fidelity.reference(model, (1, 1, 64, 64), "test")
    assert name == "onnxruntime float32"
    frame = fidelity.real_inputs(model, (1, 1, 64, 64))[0]
    assert (run(frame) == frame * (frame > 0.5)).all()


@pytest.mark.parametrize("kind", [Torch, OpenVino])
def test_broken_files_are_one_line(tmp_path, kind):
    if kind is OpenVino:
        openvino()
    whole = u_net(tmp_path / "net.onnx")
    cases = {"empty.onnx": b"", "cut.onnx": whole.read_bytes()[:1000], "net.pt": b"", "net.pt2": b"PK\x03\x04 cut"}
    forms = {".onnx": "onnx", ".pt": "torchscript", ".pt2": "exported"}
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(StageError) as caught:
            kind().open(model_of(path, forms[path.suffix]), (1, 1, 64, 64), "cpu")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_more_inputs_and_wrong_shapes(net, tmp_path):
    two = onnx_file(tmp_path / "two.onnx", [("Add", ["given", "b"], ["result"], {})], inputs=("given", "b"))
    for kind in (Torch, openvino()):
        with pytest.raises(StageError, match="2 inputs"):
            kind().open(model_of(two), (1, 1, 64, 64), "cpu")
        with pytest.raises(StageError, match=r"takes 8 \+ n \* 8 along x, given 60"):
            kind().open(net, (1, 1, 64, 60), "cpu")
        with pytest.raises(StageError, match="takes 1 channels, given 3"):
            kind().open(net, (1, 3, 64, 64), "cpu")


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        (OpenVino, "openvino", "openvino"),
        (TensorRT, "tensorrt", "tensorrt"),
        (TensorRTRTX, "tensorrt_rtx", "tensorrt-rtx"),
    ],
)
def test_a_missing_package_names_its_extra(net, monkeypatch, kind, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == module else object())
    assert f'pip install "pellucid[{extra}]"' in kind().missing(net, "cpu")
    with pytest.raises(MissingExtra, match=rf"pellucid\[{extra}\]"):
        kind().open(net, (1, 1, 64, 64), "cpu")


def test_auto_tells_what_it_took_and_why(net, monkeypatch):
    real = OpenVino.missing
    monkeypatch.setattr(OpenVino, "missing", lambda *_: "openvino is not there")
    told: list[str] = []
    engine = Auto()
    engine.open(net, (1, 1, 64, 64), "cpu", told.append)
    assert engine.made.kind == "torch"
    assert 'engine "auto": takes "torch", since openvino is not there' in told
    engine.close()
    monkeypatch.setattr(OpenVino, "missing", real)
    openvino()
    engine.open(net, (1, 1, 64, 64), "cpu", told.append)
    assert engine.made.kind == "openvino"
    engine.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_no_gpu(net):
    for kind in (TensorRT, TensorRTRTX, Torch):
        if kind is Torch or kind().missing(net, "cpu").count("needs an NVIDIA GPU"):
            with pytest.raises(StageError, match=r'finds no NVIDIA GPU.*device = "cpu"'):
                kind().open(net, (1, 1, 64, 64), "cuda")
    with pytest.raises(StageError, match='mode = "eager"'):
        Torch(mode="graph").open(net, (1, 1, 64, 64), "cpu")


def test_needed_grows_with_the_picture_and_shrinks_with_precision(net):
    engine = Torch()
    small, large = (engine.needed(net, (1, 1, n, n), "cpu") for n in (512, 1024))
    alive = 4 * 24 * 256 * 256  # the folded picture's channels and what is joined to them
    assert 4 * alive <= large - small + alive <= 8 * alive
    assert openvino()(precision="bfloat16").needed(net, (1, 1, 1024, 1024), "cpu") < OpenVino(
        precision="float32"
    ).needed(net, (1, 1, 1024, 1024), "cpu")


def test_threads_follow_the_session(net):
    torch.set_num_threads(2)
    engine = openvino()()
    engine.open(net, (1, 1, 64, 64), "cpu")
    assert engine.made.facts["threads"] == 2
    engine.close()


def test_a_damaged_entry_is_built_again(net):
    told: list[str] = []
    engine = openvino()()
    engine.open(net, (1, 1, 64, 64), "cpu")
    path = Cache().path(engine.made.facts["key"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    engine.open(net, (1, 1, 64, 64), "cpu", told.append)
    assert not engine.made.cached
    assert any("its checksum is wrong" in line for line in told)
    # What has the right checksum and is none of OpenVINO's is found when it is loaded.
    entry = Cache().read(engine.made.facts["key"])
    Cache().write(entry.key, b"something else", entry.facts)
    engine.open(net, (1, 1, 64, 64), "cpu", told.append)
    assert any("cannot load what was compiled" in line and "built again" in line for line in told)
    engine.close()
