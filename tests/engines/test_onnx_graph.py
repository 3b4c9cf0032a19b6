"""What torch computes for an ONNX graph is what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pellucid.engines.onnx_graph import as_module, load_onnx
from pellucid.engines.onnx_precision import in_half
from pellucid.errors import StageError
from tests.engines.engine_parts import nuclei, onnx_file, tobacco, u_net

ort = pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "pellucid[models]"')


def both(path, shape, opset_file=None):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    session = ort.InferenceSession(str(path))
    want = session.run(None, {session.get_inputs()[0].name: x})[0]
    module = as_module(load_onnx(path, "test"), shape, torch.float32, torch.float32, "test")
    with torch.inference_mode():
        got = module(torch.from_numpy(x)).numpy()
    assert module.meta["shape"] == want.shape
    return got, want


def ints(*n):
    return np.array(n, np.int64)


W = np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)
RESIZE = [
    (mode, way, near)
    for mode in ("nearest", "linear")
    for way in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
    for near in (("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") if mode == "nearest" else ("floor",))
]


@pytest.mark.parametrize(("mode", "way", "near"), RESIZE)
@pytest.mark.parametrize("factor", [2.0, 3.0, 1.5, 0.5])
def test_resize(tmp_path, mode, way, near, factor):
    keys = {"mode": mode, "coordinate_transformation_mode": way, "nearest_mode": near}
    path = onnx_file(
        tmp_path / "m.onnx",
        [("Resize", ["given", "", "s"], ["result"], keys)],
        {"s": np.array([1, 1, factor, factor], np.float32)},
    )
    got, want = both(path, (1, 1, 12, 10))
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([("Conv", ["given", "w"], ["result"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]})], {"w": W}),
        ([("Conv", ["given", "w"], ["result"], {"pads": [0, 1, 2, 1], "dilations": [2, 1]})], {"w": W}),
        (
            [("ConvTranspose", ["given", "w"], ["result"], {"strides": [2, 2], "pads": [0, 1, 1, 0]})],
            {"w": np.ascontiguousarray(W.transpose(1, 0, 2, 3))},
        ),
        ([("MaxPool", ["given"], ["result"], {"kernel_shape": [3, 3], "pads": [0, 1, 1, 1], "strides": [2, 2]})], {}),
        ([("AveragePool", ["given"], ["result"], {"kernel_shape": [3, 3], "pads": [0, 1, 1, 1]})], {}),
        ([("AveragePool", ["given"], ["result"], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})], {}),
        ([("Pad", ["given", "p"], ["result"], {"mode": "reflect"})], {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}),
        ([("Pad", ["given", "p"], ["result"], {"mode": "edge"})], {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}),
        ([("Slice", ["given", "s", "e", "a", "t"], ["result"], {})],
         {"s": ints(-1, 1), "e": ints(-99, 8), "a": ints(2, 3), "t": ints(-2, 3)}),
        ([("Softmax", ["given"], ["result"], {"axis": 2})], {}),
        ([("InstanceNormalization", ["given", "one", "one"], ["result"], {})], {"one": np.ones(1, np.float32)}),
        ([("ReduceMean", ["given", "a"], ["m"], {}), ("Sub", ["given", "m"], ["result"], {})], {"a": ints(2, 3)}),
        ([("SpaceToDepth", ["given"], ["s"], {"blocksize": 2}),
          ("DepthToSpace", ["s"], ["result"], {"blocksize": 2, "mode": "DCR"})], {}),
        ([("Split", ["given"], ["l", "r"], {"axis": 3, "num_outputs": 2}), ("Mul", ["l", "r"], ["result"], {})], {}),
        ([("Shape", ["given"], ["s"], {}), ("Gather", ["s", "i"], ["n"], {}), ("Cast", ["n"], ["f"], {"to": 1}),
          ("Div", ["given", "f"], ["result"], {})], {"i": ints(2)}),
        ([("Clip", ["given", "lo"], ["c"], {}), ("Pow", ["c", "two"], ["result"], {})],
         {"lo": np.float32(-0.5), "two": np.float32(2)}),
    ],
)  # fmt: skip
def test_operators(tmp_path, nodes, weights):
    got, want = both(onnx_file(tmp_path / "m.onnx", nodes, weights, out=None), (1, 1, 12, 10))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_networks(tmp_path):
    real = [(nuclei().weights["onnx"], (1, 1, 512, 512)), (tobacco(tmp_path).weights["onnx"], (1, 64, 48, 1))]
    for path, shape in [(u_net(tmp_path / "u.onnx"), (1, 1, 40, 64)), *real]:
        got, want = both(path, shape)
        np.testing.assert_allclose(got, want, atol=2e-6 * float(np.ptp(want)) + 1e-6)


def test_functions_of_a_file_are_taken_apart(tmp_path):
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    opset = [h.make_opsetid("", 18), h.make_opsetid("own", 1)]
    twice = h.make_function("own", "Twice", ["a"], ["b"], [h.make_node("Add", ["a", "a"], ["b"])], opset[:1])
    ports = [h.make_tensor_value_info(name, 1, (1, 1, "y", "x")) for name in ("given", "result")]
    graph = h.make_graph([h.make_node("Twice", ["given"], ["result"], domain="own")], "g", ports[:1], ports[1:])
    path = tmp_path / "m.onnx"
    onnx.save(h.make_model(graph, opset_imports=opset, functions=[twice], ir_version=9), path)
    got, want = both(path, (1, 1, 4, 6))
    np.testing.assert_array_equal(got, want)


def test_float16_graph_has_float32_ports_and_sizes(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = u_net(tmp_path / "u.onnx")
    half = in_half(onnx.load(path), "float16")
    onnx.checker.check_model(half)
    onnx.shape_inference.infer_shapes(half, strict_mode=True)
    kinds = {i.name: i.data_type for i in half.graph.initializer}
    assert kinds.pop("scales") == 1
    assert set(kinds.values()) == {10}
    assert {i.type.tensor_type.elem_type for i in (*half.graph.input, *half.graph.output)} == {1}
    x = np.random.default_rng(0).random((1, 1, 32, 32)).astype(np.float32)
    want, got = (
        ort.InferenceSession(m.SerializeToString()).run(None, {"given": x})[0] for m in (onnx.load(path), half)
    )
    assert 0 < np.abs(want - got).max() < 5e-3


def test_sums_over_a_plane_stay_exact_in_half(tmp_path):
    onnx = pytest.importorskip("onnx")
    nodes = [("Relu", ["given"], ["r"], {}), ("ReduceMean", ["r", "a"], ["m"], {}), ("Sub", ["r", "m"], ["result"], {})]
    half = in_half(onnx.load(onnx_file(tmp_path / "m.onnx", nodes, {"a": ints(2, 3)})), "float16")
    onnx.shape_inference.infer_shapes(half, strict_mode=True)
    x = np.full((1, 1, 256, 256), 3.0, np.float32)  # its sum is beyond float16
    assert ort.InferenceSession(half.SerializeToString()).run(None, {"given": x})[0].max() == 0


def test_weights_beyond_float16_are_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = onnx_file(tmp_path / "m.onnx", [("Mul", ["given", "w"], ["result"], {})], {"w": np.float32([1e6])})
    with pytest.raises(ValueError, match="weight w holds 1e"):
        in_half(onnx.load(path), "float16")
    in_half(onnx.load(path), "bfloat16")


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "it has no operators"), (b"\x08\x07nonsense", "is not a whole ONNX file")]
)
def test_no_onnx(tmp_path, content, text):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(StageError, match=text):
        load_onnx(path, "test")


def test_what_is_not_known_is_named(tmp_path):
    path = onnx_file(tmp_path / "m.onnx", [("Det", ["given"], ["d"], {}), ("NonZero", ["d"], ["result"], {})])
    with pytest.raises(StageError, match="operators that it does not know: Det, NonZero"):
        as_module(load_onnx(path, "test"), (1, 1, 8, 8), torch.float32, torch.float32, "test")
    two = onnx_file(tmp_path / "two.onnx", [("Add", ["given", "b"], ["result"], {})], inputs=("given", "b"))
    with pytest.raises(StageError, match="2 inputs"):
        as_module(load_onnx(two, "test"), (1, 1, 8, 8), torch.float32, torch.float32, "test")
    with pytest.raises(StageError, match=r"operator Concat .* cannot take"):
        as_module(load_onnx(u_net(tmp_path / "u.onnx"), "t"), (1, 1, 10, 10), torch.float32, torch.float32, "t")
