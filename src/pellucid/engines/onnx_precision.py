"""An ONNX graph in half precision, for engines that take precision from the graph (strongly typed TensorRT).

What depends on the pixels is computed in half precision; what only follows from shapes and constants stays as it is,
so that sizes keep their digits. What goes in and what comes out keep their types. Sums over whole planes, exponentials
and the norms made of them stay in float32. The converters at hand (onnxconverter-common, ONNX Runtime's) know float16
only, turn computations of sizes into float16 as well, and bring an older protobuf with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.errors import require

__all__ = ["HALVES", "in_half"]

HALVES = {"float16": 10, "bfloat16": 16}
"""The numbers that ONNX has for these types."""
_FLOAT = 1
_LARGEST = 65504.0
_EXACT = {
    "Exp", "GlobalAveragePool", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Log",
    "LogSoftmax", "LpNormalization", "Pow", "ReduceL2", "ReduceMean", "ReduceSum", "Softmax",
}  # fmt: skip
"""Stay in float32, between casts."""
_SHAPES_AT = {"Resize": {1, 2, 3}, "Upsample": {1}, "Reshape": {1}, "Pad": {1, 3}, "Slice": {1, 2, 3, 4}}
"""Inputs that say where and how large, not what."""


def in_half(model: Any, precision: str) -> Any:
    """Return a copy of an ONNX model that computes in ``"float16"`` or ``"bfloat16"``.

    Raises
    ------
    ValueError
        It has loops or quantised operators, or a weight that float16 cannot hold.
    """
    onnx = require("onnx", "models", f"precision {precision}")
    kind = HALVES[precision]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for node in graph.node:
        if any(a.HasField("g") for a in node.attribute):
            raise ValueError(f"operator {node.op_type} holds a graph of its own, which is left in float32")
        if "Quantize" in node.op_type:
            raise ValueError(f"operator {node.op_type} has a precision of its own")
    floats = _floats(model)
    held = {i.name: i for i in graph.initializer}
    ports = [i for i in graph.input if i.name not in held]
    pixels = {i.name for i in ports}
    half: dict[str, str] = {}
    out: list[Any] = []

    def cast(name: str, to: int, suffix: str) -> str:
        new = f"{name}/{suffix}"
        out.append(onnx.helper.make_node("Cast", [name], [new], f"cast/{new}", to=to))
        return new

    def halved(name: str) -> str:
        """Return the name of a tensor in half precision; weights are written anew, others cast once."""
        if name not in half:
            if name in held:
                half[name] = f"{name}/half"
                graph.initializer.append(_half(onnx, held[name], half[name], kind))
            else:
                half[name] = cast(name, kind, "half")
        return half[name]

    for port in ports:
        if port.type.tensor_type.elem_type == _FLOAT:
            half[port.name] = cast(port.name, kind, "half")
    results = {o.name for o in graph.output}
    for node in graph.node:
        if node.op_type in ("Shape", "Size") or not pixels.intersection(node.input):
            if node.op_type in ("Shape", "Size"):
                node.input[0] = half.get(node.input[0], node.input[0])
            out.append(node)
            continue
        pixels.update(node.output)
        exact = node.op_type in _EXACT
        for i, name in enumerate(node.input):
            if name in floats and i not in _SHAPES_AT.get(node.op_type, ()):
                node.input[i] = (
                    cast(half[name], _FLOAT, f"float/{node.output[0]}")
                    if exact and name in half
                    else (name if exact else halved(name))
                )
            elif name in half and name not in held:
                node.input[i] = half[name]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = kind
        out.append(node)
        for i, name in enumerate(node.output):
            if name not in floats:
                continue
            if exact:
                half[name] = f"{name}/half"
                if name in results:
                    out.append(onnx.helper.make_node("Cast", [name], [half[name]], f"cast/{half[name]}", to=kind))
                else:
                    node.output[i] = f"{name}/exact"
                    out.append(onnx.helper.make_node("Cast", [f"{name}/exact"], [half[name]], f"cast/{name}", to=kind))
            else:
                half[name] = f"{name}/half"
                node.output[i] = half[name]
                if name in results:
                    out.append(onnx.helper.make_node("Cast", [half[name]], [name], f"cast/{name}", to=_FLOAT))
    del graph.node[:]
    graph.node.extend(out)
    del graph.value_info[:]
    _drop_unused(graph)
    return copy


def _floats(model: Any) -> set[str]:
    """Return the names of the tensors that are float32."""
    graph = require("onnx.shape_inference", "models", "a lower precision").infer_shapes(model).graph
    names = {i.name for i in graph.initializer if i.data_type == _FLOAT}
    typed = (*graph.input, *graph.output, *graph.value_info)
    return names | {v.name for v in typed if v.type.tensor_type.elem_type == _FLOAT}


def _half(onnx: Any, weight: Any, name: str, kind: int) -> Any:
    values = onnx.numpy_helper.to_array(weight)
    if kind == HALVES["float16"] and (largest := float(np.abs(values).max(initial=0.0))) > _LARGEST:
        raise ValueError(f"weight {weight.name} holds {largest:.3g}, float16 ends at {_LARGEST:g}")
    new = onnx.helper.make_tensor(name, kind, values.shape, _bytes(values, kind), raw=True)
    return new


def _bytes(values: Any, kind: int) -> bytes:
    if kind == HALVES["float16"]:
        return bytes(values.astype("<f2").tobytes())
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    even = (bits >> 16) & 1  # to the nearest, halves to the even one
    return bytes(((bits + 0x7FFF + even) >> 16).astype("<u2").tobytes())


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    kept = [i for i in graph.initializer if i.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    names = {i.name for i in kept}
    inputs = [i for i in graph.input if i.name in used or i.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
