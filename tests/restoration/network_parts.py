"""A small network with random weights, its description, and an engine that a user might write: eager torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import nn

from pellucid.models.engine import Made
from pellucid.models.model import Model, Operation, Port, Side
from pellucid.protocols import Spec, Stream
from pellucid.stages.restore import Restore

DATA = Path(__file__).resolve().parents[2].parent / "shared/data"
RANGE = Operation("scale_range", {"min_percentile": 0.1, "max_percentile": 99.9})
BACK = Operation("as_given")
HALO = 8
EVEN = Side(4, 2)


@pytest.fixture(autouse=True)
def one_thread():
    """As a session has it on two cores: more would wait for each other where something else runs as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Small(nn.Module):
    """A U-Net of two levels without biases, seeded: what it gives follows what it is given, and its neighbours."""

    def __init__(self, channels: int = 1, scale: int = 1, results: int = 1, ndim: int = 2) -> None:
        super().__init__()
        torch.manual_seed(5)
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.down = (nn.functional.max_pool2d, nn.functional.max_pool3d)[ndim - 2]
        self.first = conv(channels, 6, 3, padding=1, bias=False)
        self.deep = conv(6, 12, 3, padding=1, bias=False)
        self.last = conv(18, results, 3, padding=1, bias=False)
        self.results, self.scale = results, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.first(x))
        coarse = torch.relu(self.deep(self.down(fine, 2)))
        coarse = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        out = self.last(torch.cat([fine, coarse], 1)) + x[:, -self.results :]
        return nn.functional.interpolate(out, scale_factor=float(self.scale), mode="nearest") if self.scale > 1 else out


class Newest(nn.Module):
    """The newest of several frames and, a thousandth each, those before it: which ones it saw can be read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        weights = torch.tensor([1000.0 ** -(n - 1 - i) for i in range(n)], dtype=torch.float32).view(1, n, 1, 1)
        return (x * weights).sum(1, keepdim=True)


NETS: dict[str, nn.Module] = {}


@dataclass(config=ConfigDict(extra="forbid"))
class Eager:
    """Runs a network of `NETS` by the model's name; says what memory a first layer of eight channels takes."""

    precision: str = "float32"
    library: ClassVar[str] = f"torch {torch.__version__}"

    def __post_init__(self) -> None:
        self.captures = False
        self.shapes: list[tuple[int, ...]] = []
        self.calls = 0

    def missing(self, model: Model, device: str) -> str:
        return "" if model.name in NETS else f'engine "eager" does not know "{model.name}"'

    def needed(self, model: Model, shape: tuple[int, ...], device: str) -> int:
        return math.prod(shape) * 4 * 30

    def open(self, model, shape, device, tell=None) -> tuple[int, ...]:
        if tell is not None:
            tell(f"building {model.name}")
        self._net = NETS[model.name]
        self.shapes.append(shape)
        self.made = Made("eager", self.precision, self.library, device, None)
        with torch.inference_mode():
            return tuple(self._net(torch.zeros(shape)).shape)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        self.calls += 1
        result.copy_(self._net(given))

    def close(self) -> None:
        self._net = None


PELLUCID = {"engines": {"eager": Eager}}


def model(
    name: str = "small",
    net: nn.Module | None = None,
    *,
    channels: int = 1,
    results: int = 1,
    scale: int = 1,
    frames: int = 1,
    axes: str = "bcyx",
    side: Side = EVEN,
    before: tuple[Operation, ...] = (RANGE,),
    after: tuple[Operation, ...] = (BACK,),
) -> Model:
    """Return the description of a network, which is from then on known to `Eager` by that name."""
    ndim = 3 if "z" in axes else 2
    NETS[name] = net or Small(channels, scale, results, ndim)
    sides = (side,) * ndim
    given, result = Port("x", axes, "float32", channels, sides), Port("y", axes, "float32", results, sides)
    halo = (HALO,) * ndim
    return Model(name, {}, "5" * 64, given, result, before, after, scale, halo, frames, {"licence": "BSD-3-Clause"})


def onnx_file(folder: Path) -> Path:
    """Write `Small` as an ONNX file for frames of any even sides, and return its path."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    net = Small()
    weights = {"a": net.first.weight, "b": net.deep.weight, "c": net.last.weight}
    constants = [numpy_helper.from_array(w.detach().numpy(), name) for name, w in weights.items()]
    constants.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["f"], **pads),
        helper.make_node("Relu", ["f"], ["fine"]),
        helper.make_node("MaxPool", ["fine"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["half", "b"], ["d"], **pads),
        helper.make_node("Relu", ["d"], ["deep"]),
        helper.make_node(
            "Resize", ["deep", "", "twice"], ["coarse"], mode="nearest",
            nearest_mode="floor", coordinate_transformation_mode="asymmetric",
        ),
        helper.make_node("Concat", ["fine", "coarse"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "c"], ["rest"], **pads),
        helper.make_node("Add", ["rest", "x"], ["y"]),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1, "height", "width"]) for n in "xy"]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], constants)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(whole)
    path = folder / "small.onnx"
    onnx.save(whole, str(path))
    return path


def opened(given: Model, spec: Spec, monkeypatch, stream: Stream | None = None, **keys) -> tuple[Restore, Spec]:
    """Return a stage that is open for frames of a kind, and the Spec of its results."""
    monkeypatch.setattr("pellucid.models.shelf.find", lambda name, folder=None: given)
    stage = Restore(**{"model": given.name, "engine": Eager(), **keys})
    return stage, stage.open(stream or Stream(spec), spec, "cpu")


def run(stage: Restore, out: Spec, frame: np.ndarray) -> np.ndarray:
    """Return what becomes of a frame."""
    result = torch.full(out.shape, 7, dtype=getattr(torch, out.dtype))
    before = frame.copy()
    with torch.inference_mode():
        stage(torch.from_numpy(frame), result)
    np.testing.assert_array_equal(frame, before)
    return result.numpy()


def restored(given: Model, frame: np.ndarray, monkeypatch, axes: str = "", **keys) -> np.ndarray:
    """Return what becomes of the first frame."""
    stage, out = opened(given, Spec(frame.shape, frame.dtype.name, axes=axes), monkeypatch, **keys)
    try:
        return run(stage, out, frame)
    finally:
        stage.close()


def real_frame() -> np.ndarray:
    """Return a real noisy frame, 512x512 uint8; one that looks like it where the data are not here."""
    path = DATA / "fmd/raw/Confocal_BPAE_B_1.png"
    if path.is_file():
        return np.array(Image.open(path))
    from pellucid.models.frames import real_frames

    frame = next(f for f in real_frames() if f.dtype == np.uint8)
    return np.tile(frame, (2, 2))[:512, :512].copy()
