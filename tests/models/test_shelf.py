"""Models by name and from files: what is in order is described, what is not is refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pellucid.engines.own_test import run_own_test
from pellucid.errors import PellucidError
from pellucid.models import shelf
from pellucid.models.content import hash_model
from pellucid.models.frames import real_frames

# TorchScript is called old by torch itself, and many models come in it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
REAL = Path(__file__).resolve().parents[2].parent / "shared/models"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PELLUCID_MODELS", str(tmp_path / "shelf"))


def onnx_file(
    path, shape=(None, 1, None, None), out=None, dtype=TensorProto.FLOAT, weights=None, outputs=1, external=None
):
    """A file with one convolution 5x5."""
    weights = np.ones((1, 1, 5, 5), np.float32) if weights is None else weights
    dims = [d or f"d{i}" for i, d in enumerate(shape)]
    given = helper.make_tensor_value_info("x", dtype, dims)
    results = [helper.make_tensor_value_info(f"y{i}", dtype, out or dims) for i in range(outputs)]
    nodes = [helper.make_node("Conv", ["x", "w"], [f"y{i}"], pads=[2, 2, 2, 2]) for i in range(outputs)]
    graph = helper.make_graph(nodes, "g", [given], results, [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if external is not None:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def refused(given) -> str:
    with pytest.raises(PellucidError) as caught:
        shelf.find(str(given))
    text = str(caught.value)
    assert "\n" not in text
    return text


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        return self.conv(x) + x


@pytest.mark.parametrize("name", ["denoise", "super-resolve"])
def test_what_ships_is_in_order(name):
    model = shelf.find(name)
    assert model.scale == (1 if name == "denoise" else 2)
    assert [o.name for o in model.after] == ["as_given"]
    assert model.halo[0] > 10
    assert run_own_test(model, "test") < 1e-4
    weights = onnx.load(model.weights["onnx"])
    assert sum(int(np.prod(w.dims)) for w in weights.graph.initializer) < 1_000_000
    assert (model.weights["onnx"].parent / "training.toml").is_file()


def test_a_file_is_described(tmp_path):
    model = shelf.find(str(onnx_file(tmp_path / "net.onnx")))
    assert (model.given.axes, model.given.channels, model.halo, model.scale) == ("bcyx", 1, (2, 2), 1)


def test_strides_say_the_multiple_and_the_reach(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.AvgPool2d(2), nn.Upsample(scale_factor=4.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.rand(1, 1, 32, 32),), tmp_path / "n.onnx", dynamo=False, input_names=["x"],
            dynamic_axes={"x": {2: "y", 3: "x"}}, opset_version=18,
        )  # fmt: skip
    model = shelf.find(str(tmp_path / "n.onnx"))
    assert model.given.sides[0].step == 4
    x = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        changed = x.clone()
        changed[..., 32, 32] += 1
        far = (net(x) - net(changed)).abs().amax((0, 1, 2)).nonzero().flatten()
    assert max(32 - int(far.min()), int(far.max()) - 32) <= model.halo[0] + 4


def test_the_real_package_passes_its_own_test():
    if not REAL.is_dir():
        pytest.skip("../shared/models is not here")
    model = shelf.find(str(REAL / "unet2d_nuclei_broad"))
    assert set(model.weights) == {"onnx", "torchscript"}
    assert [o.name for o in model.after] == ["sigmoid", "ensure_dtype"]
    assert run_own_test(model, "test") < 1e-4


def test_a_wrong_own_test_is_refused(tmp_path):
    shutil.copytree(Path(shelf.__file__).parent / "shipped/denoise", tmp_path / "p")
    bad = np.load(tmp_path / "p/test_output.npy") + 0.1
    np.save(tmp_path / "p/test_output.npy", bad)
    card = yaml.safe_load((tmp_path / "p/rdf.yaml").read_text())
    assert "SHA-256" in refused(tmp_path / "p")
    card["outputs"][0]["test_tensor"].pop("sha256")
    (tmp_path / "p/rdf.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(PellucidError, match="fails its own test"):
        run_own_test(shelf.find(str(tmp_path / "p")), "test")


def test_import_and_find_by_name(tmp_path):
    torch.jit.trace(Small().eval(), torch.rand(1, 1, 32, 32)).save(tmp_path / "mine.ts")
    onnx_file(tmp_path / "net.onnx")
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = shelf.import_model(str(tmp_path / "mine.ts"), "mine", said.append)
    assert set(model.weights) == {"torchscript", "onnx"}, said
    assert shelf.import_model(str(tmp_path / "net.onnx")).name == "net"
    assert shelf.imported() == ["mine", "net"]
    assert shelf.find("mine").sha256 == model.sha256
    with pytest.raises(PellucidError, match="there already"):
        shelf.import_model(str(tmp_path / "net.onnx"))


def test_the_hash_follows_weights_and_steps(tmp_path):
    one = shelf.find(str(onnx_file(tmp_path / "a.onnx")))
    two = shelf.find(str(onnx_file(tmp_path / "b.onnx", weights=np.full((1, 1, 5, 5), 2, np.float32))))
    assert one.sha256 != two.sha256
    other = hash_model("w", one.given, one.result, (), one.after)
    assert other != hash_model("w", one.given, one.result, one.before, one.after)
    assert hash_model("w", one.given, replace(one.result, channels=2), (), one.after) != other


def test_real_frames_are_real():
    frames = real_frames()
    assert len(frames) >= 4
    assert {f.dtype.name for f in frames} == {"uint8", "uint16"}
    assert all(f.shape == (256, 256) and f.std() > 1 for f in frames)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"shape": (1, 1, 1, 1, 1, 1)}, "allowed are planes"),
        ({"shape": (None, None, None, None)}, "count of channels"),
        ({"shape": (1, 200, None, None)}, "allowed"),
        ({"dtype": TensorProto.BOOL}, "is of bool"),
        ({"outputs": 2}, "2 outputs"),
        ({"weights": np.full((1, 1, 5, 5), np.nan, np.float32)}, "25 of 25 numbers in w are NaN"),
    ],
)
def test_onnx_files_that_are_refused(tmp_path, keys, told):
    try:
        path = onnx_file(tmp_path / "net.onnx", **keys)
    except Exception as error:  # pragma: no cover
        raise AssertionError("the file could not be made") from error
    assert told in refused(path) or "not in order" in refused(path)


def test_weights_beside_the_file(tmp_path):
    path = onnx_file(tmp_path / "net.onnx", external="net.bin")
    assert shelf.find(str(path)).halo == (2, 2)
    (tmp_path / "net.bin").write_bytes(b"")
    assert "ends before" in refused(path)
    (tmp_path / "net.bin").unlink()
    assert "net.bin, which is not beside it" in refused(path)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../net.bin"
    path.write_bytes(proto.SerializeToString())
    assert "outside of its folder" in refused(path)


@pytest.mark.parametrize("name", ["net.onnx", "net.pt", "net.pt2", "net.zip"])
@pytest.mark.parametrize("content", [b"", b"\x08\x09not a model" * 9])
def test_empty_and_broken_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "cut off" in refused(tmp_path / name)


def test_pickles_are_not_opened(tmp_path):
    for name in ("a.pth", "a.pt", "a.pt2"):
        torch.save(Small().state_dict(), tmp_path / name)
        assert "pickle" in refused(tmp_path / name) or "torch.export" in refused(tmp_path / name)


def test_torch_files(tmp_path):
    net = Small().eval()
    torch.jit.trace(net, torch.rand(1, 1, 32, 32)).save(tmp_path / "n.ts")
    assert shelf.find(str(tmp_path / "n.ts")).given.channels == 1
    free = torch.export.Dim.AUTO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net, (torch.rand(1, 1, 32, 32),), dynamic_shapes=({2: free, 3: free},))
        torch.export.save(program, tmp_path / "n.pt2")
    assert shelf.find(str(tmp_path / "n.pt2")).given.axes == "bcyx"
    net.conv.weight.data[:] = float("nan")
    torch.jit.trace(net, torch.rand(1, 1, 32, 32)).save(tmp_path / "nan.ts")
    assert "NaN" in refused(tmp_path / "nan.ts")


def test_code_in_an_exported_program_does_not_run(tmp_path):
    """torch gives the texts of symbols to a reader that evaluates them: they are looked into before."""
    free = torch.export.Dim.AUTO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Small().eval(), (torch.rand(1, 1, 32, 32),), dynamic_shapes=({2: free, 3: free},))
        torch.export.save(program, tmp_path / "good.pt2")
    mark = tmp_path / "ran"
    evil = f"open({str(mark)!r},'w').close()"

    def spoil(tree):
        if isinstance(tree, dict):
            return {k: evil if k == "expr_str" else spoil(v) for k, v in tree.items()}
        return [spoil(v) for v in tree] if isinstance(tree, list) else tree

    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name.endswith("models/model.json"):
                assert b"expr_str" in data
                data = json.dumps(spoil(json.loads(data))).encode()
            bad.writestr(name, data)
    refused(tmp_path / "bad.pt2")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../out.txt", "/abs.txt", "C:\\out.txt", "a/../../out.txt"])
def test_zips_that_would_write_elsewhere(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("rdf.yaml", "type: model")
        archive.writestr(name, "x")
    assert "outside of its folder" in refused(tmp_path / "p.zip")
    assert not (tmp_path.parent / "out.txt").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["inputs"].append(c["inputs"][0]), "2 inputs"),
        (lambda c: c["inputs"][0].update(preprocessing=[{"id": "magic"}]), '"magic"'),
        (lambda c: c.update(weights={"pytorch_state_dict": {"source": "w.pt"}}), "pytorch_state_dict only"),
        (lambda c: c["weights"]["onnx"].update(source="../m.onnx"), "outside of the package"),
        (lambda c: c["weights"]["onnx"].update(sha256="0" * 64), "SHA-256"),
        (lambda c: c.update(type="dataset"), "type: model is needed"),
        (lambda c: c.update(format_version="9.1.0"), "0.4 and 0.5"),
    ],
)
def test_cards_that_are_refused(tmp_path, change, told):
    shutil.copytree(Path(shelf.__file__).parent / "shipped/denoise", tmp_path / "p")
    card = yaml.safe_load((tmp_path / "p/rdf.yaml").read_text())
    change(card)
    (tmp_path / "p/rdf.yaml").write_text(yaml.safe_dump(card))
    assert told in refused(tmp_path / "p")


def test_the_command_line_says_it_in_one_line(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"")
    for arguments in (["info", str(tmp_path / "net.onnx")], ["info", "denois"], ["build", "denoise", "--shape", "big"]):
        command = [sys.executable, "-m", "pellucid", "models", *arguments]
        out = subprocess.run(command, capture_output=True, text=True, check=False)
        assert out.returncode == 2, out
        assert "Traceback" not in out.stderr + out.stdout
        assert len((out.stderr + out.stdout).strip().splitlines()) <= 3
