"""What torch does for each operator of ONNX.

Every function takes the attributes of the node and its inputs: tensors of constants, or values that depend on the
pixels (`pellucid.engines.onnx_graph.Value`), None where an optional one is left out. It is written in torch's
functions, which work on both. Shapes are always known, so what ONNX computes with shapes becomes plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from pellucid.engines.onnx_resize import resize, upsample

__all__ = ["FLOATS", "OPERATORS", "dtype_of"]

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 16: torch.bfloat16,
}  # fmt: skip
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_T = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def dtype_of(number: int) -> torch.dtype:
    """Return the torch type for the number that ONNX gives a type."""
    if number not in _TYPES:
        raise ValueError(f"type {number} of ONNX is not known")
    return _TYPES[number]


def _ints(value: Any, what: str = "a shape") -> list[int]:
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{what} depends on the pixels")
    return [int(n) for n in value.flatten().tolist()]


def _axes(a: Any, given: Any, name: str = "axes") -> list[int] | None:
    """Return numbers that are an input in newer files and an attribute in older ones."""
    return _ints(given, name) if given is not None else a(name)


def _pads(a: Any, x: Any, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """Return what is added before each axis in space and then after each."""
    n, auto = len(kernel), a("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return list(a("pads") or [0] * (2 * n))
    if auto == "VALID":
        return [0] * (2 * n)
    sides = zip(x.shape[2:], kernel, strides, dilations, strict=True)
    whole = [max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0) for size, k, s, d in sides]
    less, more = [p // 2 for p in whole], [p - p // 2 for p in whole]
    return less + more if auto == "SAME_UPPER" else more + less


def _around(x: Any, pads: list[int], value: float) -> Any:
    """Pad the axes in space by what lies before each and after each."""
    n = len(pads) // 2
    flat = [p for i in reversed(range(n)) for p in (pads[i], pads[n + i])]
    return F.pad(x, flat, value=value)


def _conv(a: Any, x: Any, w: Any, b: Any = None) -> Any:
    n = w.ndim - 2
    strides, dilations = a("strides") or [1] * n, a("dilations") or [1] * n
    pads = _pads(a, x, list(w.shape[2:]), strides, dilations)
    if pads[:n] != pads[n:]:
        x, pads = _around(x, pads, 0.0), [0] * n
    return _CONV[n](x, w, b, strides, pads[:n], dilations, a("group", 1))


def _conv_transpose(a: Any, x: Any, w: Any, b: Any = None) -> Any:
    n = w.ndim - 2
    strides, dilations = a("strides") or [1] * n, a("dilations") or [1] * n
    extra = a("output_padding") or [0] * n
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    auto = a("auto_pad", "NOTSET")
    wanted = a("output_shape") or (
        [size * s for size, s in zip(x.shape[2:], strides, strict=True)] if auto.startswith("SAME") else None
    )
    pads = list(a("pads") or [0] * (2 * n))
    if wanted:
        sides = zip(x.shape[2:], strides, reach, extra, wanted[-n:], strict=True)
        whole = [s * (size - 1) + e + r - w_ for size, s, r, e, w_ in sides]
        less, more = [p // 2 for p in whole], [p - p // 2 for p in whole]
        pads = less + more if auto == "SAME_UPPER" else more + less
    if pads[:n] == pads[n:] and min(pads) >= 0:
        return _CONV_T[n](x, w, b, strides, pads[:n], extra, a("group", 1), dilations)
    y = _CONV_T[n](x, w, b, strides, [0] * n, extra, a("group", 1), dilations)
    return _around(y, [-p for p in pads], 0.0)


def _max_pool(a: Any, x: Any) -> Any:
    kernel = a("kernel_shape")
    n = len(kernel)
    strides, dilations = a("strides") or [1] * n, a("dilations") or [1] * n
    pads = _pads(a, x, kernel, strides, dilations)
    if a.outputs > 1:
        raise ValueError("indices of the largest are not given")
    if pads[:n] != pads[n:] or any(2 * p > k for p, k in zip(pads, kernel, strict=False)):
        x, pads = _around(x, pads, -float("inf")), [0] * n
    return _MAX[n](x, kernel, strides, pads[:n], dilations, bool(a("ceil_mode", 0)))


def _mean_pool(a: Any, x: Any) -> Any:
    kernel = a("kernel_shape")
    n = len(kernel)
    strides, counts = a("strides") or [1] * n, bool(a("count_include_pad", 0))
    if any(d != 1 for d in a("dilations") or []):
        raise ValueError("dilations are not given")
    pads = _pads(a, x, kernel, strides, [1] * n)
    rounds = bool(a("ceil_mode", 0))
    if pads[:n] == pads[n:]:
        return _MEAN[n](x, kernel, strides, pads[:n], rounds, counts)
    y = _MEAN[n](_around(x, pads, 0.0), kernel, strides, 0, rounds)
    if counts:
        return y
    inside = _around(torch.ones((1, 1, *x.shape[2:])), pads, 0.0)
    return torch.div(y, _MEAN[n](inside, kernel, strides, 0, rounds))


def _batch_norm(a: Any, x: Any, scale: Any, shift: Any, mean: Any, var: Any) -> Any:
    return F.batch_norm(x, mean, var, scale, shift, eps=a("epsilon", 1e-5))


def _layer_norm(a: Any, x: Any, scale: Any, shift: Any = None) -> Any:
    axis = a("axis", -1) % x.ndim
    return F.layer_norm(x, list(x.shape[axis:]), scale, shift, a("epsilon", 1e-5))


def _pad(a: Any, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    sizes = _ints(pads, "padding") if pads is not None else a("pads")
    fill = a("value", 0.0) if value is None else (value.item() if isinstance(value, torch.Tensor) else None)
    if fill is None:
        raise ValueError("its value depends on the pixels")
    on = [n % x.ndim for n in _ints(axes)] if axes is not None else list(range(x.ndim))
    k = len(on)
    by = {axis: (sizes[i], sizes[k + i]) for i, axis in enumerate(on)}
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[
        a("mode", "constant")
    ]
    first = min((axis for axis, p in by.items() if any(p)), default=x.ndim)
    if mode != "constant":
        first = max(x.ndim - 3, 1) if first >= max(x.ndim - 3, 1) else first
        if first == x.ndim:
            return x
        if first == 1 and x.ndim > 3:
            first = 2
        if x.ndim - first > 3 or first < 1 or any(any(p) for axis, p in by.items() if axis < first):
            raise ValueError(f"mode {a('mode')} on the first axes")
    flat = [p for axis in reversed(range(first, x.ndim)) for p in by.get(axis, (0, 0))]
    return F.pad(x, flat, mode, fill if mode == "constant" else None) if flat else x


def _slice(a: Any, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    begin = _ints(starts) if starts is not None else a("starts")
    end = _ints(ends) if ends is not None else a("ends")
    on = _ints(axes) if axes is not None else a("axes") or list(range(len(begin)))
    by = _ints(steps) if steps is not None else [1] * len(begin)
    for axis, s, e, step in zip(on, begin, end, by, strict=True):
        places = range(x.shape[axis])[slice(s, e if step > 0 or e >= -x.shape[axis] else None, step)]
        if step == 1:
            x = torch.narrow(x, axis, places.start if len(places) else 0, len(places))
        else:
            x = torch.index_select(x, axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def _split(a: Any, x: Any, split: Any = None) -> Any:
    axis = a("axis", 0)
    sizes = _ints(split) if split is not None else a("split")
    if not sizes:
        n = x.shape[axis]
        each = -(-n // a("num_outputs", a.outputs))
        sizes = [min(each, n - i) for i in range(0, n, each)]
    return tuple(torch.split(x, sizes, axis))


def _gather(a: Any, x: Any, index: Any) -> Any:
    axis = a("axis", 0)
    if not isinstance(index, torch.Tensor):
        raise ValueError("its index depends on the pixels")
    flat = torch.where(index < 0, index + x.shape[axis], index).to(torch.int64)
    out = torch.index_select(x, axis, flat.reshape(-1))
    return torch.reshape(out, [*x.shape[:axis], *index.shape, *x.shape[axis % x.ndim + 1 :]])


def _reshape(a: Any, x: Any, shape: Any) -> Any:
    sizes = _ints(shape)
    if not a("allowzero", 0):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return torch.reshape(x, sizes)


def _squeeze(a: Any, x: Any, axes: Any = None) -> Any:
    on = _axes(a, axes)
    gone = {n % x.ndim for n in on} if on else {i for i, n in enumerate(x.shape) if n == 1}
    return torch.reshape(x, [n for i, n in enumerate(x.shape) if i not in gone])


def _unsqueeze(a: Any, x: Any, axes: Any = None) -> Any:
    on = _axes(a, axes) or []
    new = {n % (x.ndim + len(on)) for n in on}
    left = iter(x.shape)
    return torch.reshape(x, [1 if i in new else next(left) for i in range(x.ndim + len(on))])


def _flatten(a: Any, x: Any) -> Any:
    axis = a("axis", 1)
    before = 1
    for n in x.shape[: axis if axis >= 0 else x.ndim + axis]:
        before *= n
    return torch.reshape(x, [before, -1])


def _blocks(a: Any, x: Any) -> Any:
    """DepthToSpace: channels become pixels."""
    k = a("blocksize")
    b, c, h, w = x.shape
    if a("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, k)
    y = torch.permute(torch.reshape(x, [b, k, k, c // (k * k), h, w]), [0, 3, 4, 1, 5, 2])
    return torch.reshape(y, [b, c // (k * k), h * k, w * k])


def _unblocks(a: Any, x: Any) -> Any:
    """SpaceToDepth: pixels become channels."""
    k = a("blocksize")
    b, c, h, w = x.shape
    y = torch.permute(torch.reshape(x, [b, c, h // k, k, w // k, k]), [0, 3, 5, 1, 2, 4])
    return torch.reshape(y, [b, c * k * k, h // k, w // k])


def _clip(a: Any, x: Any, low: Any = None, high: Any = None) -> Any:
    least = a("min") if low is None else low.item()
    most = a("max") if high is None else high.item()
    return x if least is None and most is None else torch.clamp(x, least, most)


def _as(x: Any, kind: torch.dtype) -> Any:
    if x.dtype == kind:
        return x
    # A method, which does not ask its arguments as torch's functions do.
    return x.to(kind) if isinstance(x, torch.Tensor) else x.trace.call(torch.Tensor.to, (x, kind), {})


def _cast(a: Any, x: Any) -> Any:
    # Constants get the type that the file says; they are cast to the graph's where they meet the pixels.
    return _as(x, dtype_of(a("to")) if isinstance(x, torch.Tensor) else a.type_of(a("to")))


def _div(a: Any, x: Any, y: Any) -> Any:
    whole = not (x.dtype.is_floating_point or y.dtype.is_floating_point)
    return torch.div(x, y, rounding_mode="trunc" if whole else None)


def _pow(a: Any, x: Any, y: Any) -> Any:
    return torch.pow(x, y.item() if isinstance(y, torch.Tensor) and y.numel() == 1 and not y.ndim else y)


def _gemm(a: Any, x: Any, w: Any, b: Any = None) -> Any:
    x = torch.t(x) if a("transA", 0) else x
    w = torch.t(w) if a("transB", 0) else w
    y = torch.matmul(x, w)
    y = y if a("alpha", 1.0) == 1.0 else torch.mul(y, a("alpha"))
    if b is None:
        return y
    return torch.add(y, b if a("beta", 1.0) == 1.0 else torch.mul(b, a("beta")))


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduced(a: Any, x: Any, axes: Any = None) -> Any:
        on = _axes(a, axes)
        if not on:
            if a("noop_with_empty_axes", 0):
                return x
            on = list(range(x.ndim))
        return function(x, dim=on, keepdim=bool(a("keepdims", 1)))

    return reduced


def _all_of(function: Callable[..., Any]) -> Callable[..., Any]:
    def folded(a: Any, *given: Any) -> Any:
        out = given[0]
        for value in given[1:]:
            out = function(out, value)
        return out

    return folded


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, *given: function(*given)


def _softmax(function: Callable[..., Any]) -> Callable[..., Any]:
    def soft(a: Any, x: Any) -> Any:
        axis = a("axis", -1 if a.opset >= 13 else 1)
        if a.opset >= 13 or axis % x.ndim == x.ndim - 1:
            return function(x, dim=axis)
        return torch.reshape(function(torch.flatten(x, axis), dim=-1), list(x.shape))

    return soft


def _constant(a: Any) -> torch.Tensor:
    value: torch.Tensor | None = a.tensor("value")
    if value is not None:
        return value
    for name, kind in (("value_int", torch.int64), ("value_float", torch.float32)):
        for key in (name, name + "s"):
            if (number := a(key)) is not None:
                return torch.tensor(number, dtype=kind)
    raise ValueError("a constant of another kind than numbers")


def _filled(a: Any, shape: Any) -> torch.Tensor:
    value = a.tensor("value")
    sizes = _ints(shape)
    return torch.zeros(sizes) if value is None else torch.full(sizes, value.item(), dtype=value.dtype)


def _tile(a: Any, x: Any, times: Any) -> Any:
    return torch.tile(x, _ints(times))


def _expand(a: Any, x: Any, shape: Any) -> Any:
    sizes = torch.broadcast_shapes(tuple(x.shape), tuple(_ints(shape)))
    return torch.broadcast_to(x, sizes)


def _over_space(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, x: function(x, dim=list(range(2, x.ndim)), keepdim=True)


def _prelu(a: Any, x: Any, slope: Any) -> Any:
    return torch.where(torch.ge(x, 0), x, torch.mul(x, slope))


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "AveragePool": _mean_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": lambda a, x, like: _as(x, like.dtype),
    "Ceil": _plain(torch.ceil),
    "Clip": _clip,
    "Concat": lambda a, *given: torch.cat(list(given), a("axis")),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": _plain(torch.cos),
    "DepthToSpace": _blocks,
    "Div": _div,
    "Dropout": lambda a, x, *_: x,
    "Elu": lambda a, x: F.elu(x, a("alpha", 1.0)),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _plain(torch.floor),
    "Gather": _gather,
    "Gelu": lambda a, x: F.gelu(x, approximate=a("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": _over_space(torch.mean),
    "GlobalMaxPool": _over_space(torch.amax),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "GroupNormalization": lambda a, x, s, b: F.group_norm(x, a("num_groups"), s, b, a("epsilon", 1e-5)),
    "HardSigmoid": lambda a, x: torch.clamp(torch.add(torch.mul(x, a("alpha", 0.2)), a("beta", 0.5)), 0, 1),
    "HardSwish": _plain(F.hardswish),
    "Identity": lambda a, x: x,
    "InstanceNormalization": lambda a, x, s, b: F.instance_norm(x, weight=s, bias=b, eps=a("epsilon", 1e-5)),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a("alpha", 0.01)),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _plain(torch.matmul),
    "Max": _all_of(torch.maximum),
    "MaxPool": _max_pool,
    "Mean": lambda a, *given: torch.div(_all_of(torch.add)(a, *given), len(given)),
    "Min": _all_of(torch.minimum),
    "Mish": _plain(F.mish),
    "Mod": lambda a, x, y: torch.fmod(x, y) if a("fmod", 0) else torch.remainder(x, y),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _pow,
    "Range": lambda a, start, end, step: torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype),
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, **keys: torch.sqrt(torch.sum(torch.mul(x, x), **keys))),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Resize": resize,
    "Round": _plain(torch.round),
    "Selu": lambda a, x: torch.mul(F.elu(x, a("alpha", 1.6732632423543772)), a("gamma", 1.0507009873554805)),
    "Shape": lambda a, x: torch.tensor(list(x.shape)[slice(a("start", 0), a("end"))], dtype=torch.int64),
    "Sigmoid": _plain(torch.sigmoid),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Size": lambda a, x: torch.tensor(x.shape.numel(), dtype=torch.int64),
    "Slice": _slice,
    "Softmax": _softmax(F.softmax),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "SpaceToDepth": _unblocks,
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Sum": _all_of(torch.add),
    "Tanh": _plain(torch.tanh),
    "Tile": _tile,
    "Transpose": lambda a, x: torch.permute(x, a("perm") or list(reversed(range(x.ndim)))),
    "Unsqueeze": _unsqueeze,
    "Upsample": upsample,
    "Where": _plain(torch.where),
}
