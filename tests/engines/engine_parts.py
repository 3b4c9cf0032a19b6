"""Models for the tests of engines: ONNX graphs made by hand, small, and the real ones of ../shared."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pellucid.models import Model, Port, Side

EIGHTS = Side(8, 8)
SHARED = Path(__file__).parents[3] / "shared/models"


def model_of(path, form="onnx", *, axes="bcyx", side=EIGHTS, channels=1, names=("given", "result")) -> Model:
    """Return a model whose sides are alike."""
    given, result = (Port(name, axes, "float32", channels, (side, side)) for name in names)
    sha = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Model(Path(path).stem, {form: Path(path)}, sha, given, result)


def onnx_file(path, nodes, weights=None, *, inputs=("given",), shape=(1, 1, "y", "x"), out=(1, 1, "u", "v"), kind=1):
    """Write a graph of ``(operator, inputs, outputs, attributes)``."""
    onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "pellucid[models]"')
    h = onnx.helper
    made = [h.make_node(kind, i, o, **keys) for kind, i, o, keys in nodes]
    held = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    ports = [h.make_tensor_value_info(n, kind, shape) for n in inputs]
    graph = h.make_graph(made, "g", ports, [h.make_tensor_value_info("result", 1, out)], held)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9), path)
    return path


def u_net(path, scale=0.1, seed=0):
    """Write a small bias-free folded U-Net: SpaceToDepth, convolutions, a pool, a skip, DepthToSpace and a sum."""
    rng = np.random.default_rng(seed)

    def w(*shape):
        return (rng.normal(size=shape) * scale).astype(np.float32)

    weights = {
        "w1": w(8, 4, 3, 3), "w2": w(16, 8, 3, 3), "w3": w(8, 24, 3, 3), "w4": w(4, 8, 3, 3),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    keys = {"pads": [1, 1, 1, 1]}
    nodes = [
        ("SpaceToDepth", ["given"], ["folded"], {"blocksize": 2}),
        ("Conv", ["folded", "w1"], ["c1"], keys),
        ("Relu", ["c1"], ["r1"], {}),
        ("MaxPool", ["r1"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["p", "w2"], ["c2"], keys),
        ("Relu", ["c2"], ["r2"], {}),
        (
            "Resize",
            ["r2", "", "scales"],
            ["up"],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        ),
        ("Concat", ["up", "r1"], ["cat"], {"axis": 1}),
        ("Conv", ["cat", "w3"], ["c3"], keys),
        ("Relu", ["c3"], ["r3"], {}),
        ("Conv", ["r3", "w4"], ["c4"], keys),
        ("DepthToSpace", ["c4"], ["wide"], {"blocksize": 2, "mode": "CRD"}),
        ("Add", ["given", "wide"], ["result"], {}),
    ]
    return onnx_file(path, nodes, weights)


def nuclei() -> Model:
    """Return the U-Net for nuclei of bioimage.io: one size only."""
    path = SHARED / "unet2d_nuclei_broad/weights.onnx"
    if not path.exists():
        pytest.skip(f"needs {path}")
    return model_of(path, side=Side(512, 0))


def tobacco(folder) -> Model:
    """Return the Noise2Void network of napari-czann-segment: loops, channels last."""
    path = SHARED / "n2v_tobacco/N2V_tobacco_leaf.czann"
    if not path.exists():
        pytest.skip(f"needs {path}")
    file = folder / "n2v.onnx"
    with zipfile.ZipFile(path) as z:
        file.write_bytes(z.read("model.model"))
    return model_of(file, axes="byxc", side=Side(4, 4))
