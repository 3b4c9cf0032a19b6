"""How far a pixel is seen through an ONNX graph, and which sides its strides allow.

For each tensor: how many pixels of the input one step along it is (a stride of 2 doubles it, an enlargement by 2
halves it), and how far from its place it looks (half the receptive field; Luo et al. 2016, NeurIPS, for the terms).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

__all__ = ["Reach", "reach_of"]

_WHOLE = (
    "Attention",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "CumSum",
    "NonZero",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "TopK",
    "Softmax",
)
"""Operators in which every pixel may see every other."""
_UNSEEN = Fraction(16)
"""Multiple for graphs whose strides cannot be followed: four levels, which few networks exceed."""


@dataclass(frozen=True)
class Reach:
    """What a graph's strides and kernels say.

    Parameters
    ----------
    halo
        Pixels of the input, the largest of all axes; None where something looks at the whole picture.
    multiple
        Of which the sides should be one.
    """

    halo: int | None
    multiple: int


@dataclass(frozen=True)
class _At:
    step: Fraction = Fraction(1)
    far: Fraction = Fraction(0)


def reach_of(graph: Any, name: str, numbers: Mapping[str, Any]) -> Reach:
    """Walk the nodes of an ``onnx.GraphProto``, which lie in the order of their work.

    Parameters
    ----------
    graph
    name
        Of its input.
    numbers
        Arrays of the initializers and constants by name, for kernels and factors.
    """
    at: dict[str, _At] = {name: _At()}
    widest, whole = Fraction(1), False
    for node in graph.node:
        came = [at[name] for name in node.input if name in at]
        if not came:
            continue
        step, far = max(a.step for a in came), max(a.far for a in came)
        keys = {a.name: a for a in node.attribute}
        if node.op_type in ("Shape", "Size"):
            continue  # what is computed from it are sizes, not pixels
        if node.op_type in ("Conv", "MaxPool", "AveragePool", "LpPool"):
            kernel = _ints(keys, "kernel_shape") or list(_shape(numbers, node.input[1:2])[2:])
            wide = max(_wide(kernel, _ints(keys, "dilations")), default=1)
            far += step * _side_of(keys, kernel, wide)
            step *= max(_ints(keys, "strides"), default=1)
        elif node.op_type == "ConvTranspose":
            kernel = _ints(keys, "kernel_shape") or list(_shape(numbers, node.input[1:2])[2:])
            step /= max(_ints(keys, "strides"), default=1)
            far += step * Fraction(max(_wide(kernel, _ints(keys, "dilations")), default=1), 2)
        elif node.op_type in ("Resize", "Upsample"):
            by = _factor(node, keys, numbers)
            far += step * (0 if _text(keys, "mode", "nearest") == "nearest" else 2)
            step /= by if by else _away(step)
        elif node.op_type == "DepthToSpace":
            step /= keys["blocksize"].i
        elif node.op_type == "SpaceToDepth":
            step *= keys["blocksize"].i
        elif node.op_type in _WHOLE and not _only_channels(node, keys, numbers):
            whole = True
        widest = max(widest, step)
        if any(a.HasField("g") for a in node.attribute):
            widest, whole = max(widest, _UNSEEN), True  # a loop: what it does is not followed
        for made in node.output:
            at[made] = _At(step, far)
    end = at.get(graph.output[0].name, _At())
    return Reach(None if whole else math.ceil(end.far), math.ceil(widest))


def _away(step: Fraction) -> Fraction:
    """Guess the factor of an enlargement whose size is computed: back to the grid one level finer."""
    return Fraction(2) if step > 1 else Fraction(1)


def _ints(keys: Mapping[str, Any], name: str) -> list[int]:
    return list(keys[name].ints) if name in keys else []


def _text(keys: Mapping[str, Any], name: str, default: str) -> str:
    return keys[name].s.decode() if name in keys else default


def _shape(numbers: Mapping[str, Any], names: Sequence[str]) -> tuple[int, ...]:
    return tuple(numbers[names[0]].shape) if names and names[0] in numbers else ()


def _wide(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations or [1] * len(kernel), strict=False)]


def _side_of(keys: Mapping[str, Any], kernel: Sequence[int], wide: int) -> Fraction:
    """Return how far a kernel looks to its longer side: half of it, all of it where only one side is padded."""
    half = Fraction(wide - 1, 2) + (Fraction(1, 2) if wide % 2 == 0 else 0)
    pads, n = _ints(keys, "pads"), len(kernel)
    sides = _wide(kernel, _ints(keys, "dilations"))
    if len(pads) != 2 * n:
        return half
    uneven = [max(a, b) for a, b, w in zip(pads[:n], pads[n:], sides, strict=True) if a + b == w - 1]
    return max([half, *map(Fraction, uneven)])


def _factor(node: Any, keys: Mapping[str, Any], numbers: Mapping[str, Any]) -> Fraction | None:
    """Return by how much the axes in space grow, None where only a size is given."""
    for name in node.input[1:3][::-1] if node.op_type == "Resize" else node.input[1:2]:
        if name in numbers and numbers[name].size:
            return Fraction(float(max(numbers[name].ravel()))).limit_denominator(64)
    return None


def _only_channels(node: Any, keys: Mapping[str, Any], numbers: Mapping[str, Any]) -> bool:
    """Tell whether a mean or softmax goes over the channels alone."""
    if node.op_type == "Softmax":
        return keys["axis"].i == 1 if "axis" in keys else False
    axes = _ints(keys, "axes")
    if not axes and len(node.input) > 1 and node.input[1] in numbers:
        axes = [int(n) for n in numbers[node.input[1]].ravel()]
    return axes == [1]
