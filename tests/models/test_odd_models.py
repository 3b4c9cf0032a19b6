"""Models as one finds them: odd cards, whole numbers, names that are folders, tests that must be believed or not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import nn

from pellucid.engines.openvino import OpenVino
from pellucid.engines.own_test import check_own_test
from pellucid.engines.torch import Torch
from pellucid.errors import PellucidError, StageError
from pellucid.models import shelf
from pellucid.models.onnx_file import look_into
from tests.engines.engine_parts import onnx_file

SHAPE = (1, 1, 64, 64)


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "shelf"))


@pytest.fixture
def package(tmp_path):
    """A copy of the shipped denoiser, and what changes its card."""
    home = tmp_path / "p"
    shutil.copytree(Path(shelf.__file__).parent / "shipped/denoise", home)

    def change(how):
        card = yaml.safe_load((home / "rdf.yaml").read_text())
        how(card)
        (home / "rdf.yaml").write_text(yaml.safe_dump(card))
        return home

    return change


def test_a_folder_that_only_happens_to_be_called_so_is_not_the_model(tmp_path, monkeypatch):
    (tmp_path / "denoise").mkdir()
    monkeypatch.chdir(tmp_path)
    assert shelf.find("denoise").sha256


def test_whole_numbers_are_given_counts(tmp_path):
    nodes = [("Cast", ["given"], ["f"], {"to": 1}), ("Relu", ["f"], ["result"], {})]
    model = shelf.find(str(onnx_file(tmp_path / "u16.onnx", nodes, kind=4)))
    assert (model.given.dtype, model.before, model.after) == ("uint16", (), ())


def test_selu_has_its_own_numbers(tmp_path):
    nodes = [("Selu", ["given"], ["result"], {"alpha": 0.5, "gamma": 3.0})]
    model = shelf.find(str(onnx_file(tmp_path / "selu.onnx", nodes)))
    engine = Torch(mode="eager", precision="float32")
    engine.open(model, SHAPE, "cpu")  # compared with onnxruntime
    given, result = torch.linspace(-2, 2, 4096).view(SHAPE), torch.zeros(SHAPE)
    engine(given, result)
    want = 3 * torch.where(given > 0, given, 0.5 * (given.exp() - 1))
    torch.testing.assert_close(result, want)
    engine.close()


@pytest.mark.parametrize("engine", [Torch(), OpenVino()])
def test_a_network_that_gives_no_numbers_is_told_before_the_run(engine, tmp_path):
    weights = {"zero": np.zeros((1, 1, 1, 1), np.float32)}
    nodes = [("Mul", ["given", "zero"], ["n"], {}), ("Div", ["given", "n"], ["result"], {})]
    model = shelf.find(str(onnx_file(tmp_path / "nan.onnx", nodes, weights)))
    with pytest.raises(StageError, match="gives NaN or infinity in float32 on a real frame"):
        engine.open(model, SHAPE, "cpu")


def test_what_a_whole_picture_decides_has_no_halo(tmp_path):
    nodes = [
        ("ReduceSum", ["given", "axes"], ["s"], {"keepdims": 1}),
        ("Div", ["given", "s"], ["result"], {}),
    ]
    path = onnx_file(tmp_path / "sum.onnx", nodes, {"axes": np.array([2, 3], np.int64)})
    assert look_into(path).halo is None
    kernel = {"w": np.ones((1, 1, 9, 9), np.float32)}
    shifted = onnx_file(tmp_path / "s.onnx", [("Conv", ["given", "w"], ["result"], {"pads": [8, 8, 0, 0]})], kernel)
    assert look_into(shifted).halo == (8, 8)


def test_a_card_beside_another_file_is_not_its_card(tmp_path, package):
    home = package(lambda card: None)
    other = onnx_file(home / "other.onnx", [("Relu", ["given"], ["result"], {})])
    model = shelf.import_model(str(other), "mine")
    assert [node.op_type for node in onnx.load(model.weights["onnx"]).graph.node] == ["Relu"]
    assert shelf.import_model(str(home / "model.onnx"), "whole").samples  # the package that it is the weights of


def test_tests_of_older_cards_are_read_and_believed_only_as_they_are(package):
    def older(card):
        card["test_inputs"], card["test_outputs"] = ["test_input.npy"], ["test_output.npy"]
        for key in ("inputs", "outputs"):
            del card[key][0]["test_tensor"]

    home = package(older)
    model = shelf.read(home)
    assert check_own_test(model, "here") < 1e-3
    np.save(home / "test_output.npy", np.load(home / "test_output.npy") * 1.5)
    with pytest.raises(StageError, match="fails its own test"):
        check_own_test(shelf.read(home), "here")


@pytest.mark.parametrize(
    "how",
    [
        lambda c: c["inputs"][0]["axes"][2].update(size={"min": "many", "step": 8}),
        lambda c: c.update(authors=5),
        lambda c: c["config"]["pellucid"].update(halo="x"),
        lambda c: c["config"]["pellucid"].update(frames="two"),
        lambda c: c["outputs"][0]["axes"][2].update(scale="wide"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line(how, package):
    with pytest.raises(PellucidError, match="its card") as caught:
        shelf.read(package(how))
    assert "\n" not in str(caught.value)


def test_a_description_is_no_markup(package):
    shelf.import_model(str(package(lambda card: card.update(description="[/b] odd [red]"))), "odd")
    for arguments in (["list"], ["info", "odd"]):
        command = [sys.executable, "-m", "pellucid", "models", *arguments]
        out = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (out.returncode, "[/b]" in out.stdout) == (0, True), out


class Traced(nn.Module):
    def forward(self, x):
        return x * torch.tensor([2.0]) + torch.arange(x.shape[-1], dtype=torch.float32) * 0


@pytest.mark.filterwarnings("ignore")
def test_traced_constants_run(tmp_path):
    torch.jit.trace(Traced(), torch.rand(1, 1, 64, 64)).save(str(tmp_path / "t.pt"))
    model = shelf.find(str(tmp_path / "t.pt"))
    engine = Torch(mode="eager", precision="float32")
    assert engine.needed(model, SHAPE, "cpu") > 0
    engine.open(model, SHAPE, "cpu")
    result = torch.zeros(SHAPE)
    engine(torch.ones(SHAPE), result)
    assert torch.equal(result, torch.full(SHAPE, 2.0))
    engine.close()


class Halving(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(nn.functional.max_pool2d(x, 2), scale_factor=2.0)


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_rounds_its_sides_takes_even_ones(tmp_path):
    torch.jit.script(Halving()).save(str(tmp_path / "h.pt"))
    assert [side.step for side in shelf.find(str(tmp_path / "h.pt")).given.sides] == [2, 2]
