"""An ONNX graph as a torch module, for tensors of one shape.

The whole graph is walked once. What follows from constants and shapes alone is computed there and then, loops of known
length are unrolled, and what remains is written down as one straight `torch.fx.GraphModule`: nothing in it depends on
the pixels, so that it can be captured in a CUDA graph, compiled, or run without memory (on torch's ``meta`` device) to
know what it takes. In float32 it is the reference that other engines are compared with; `onnxruntime` checks it in the
tests. The operators are in `pellucid.engines.onnx_operators`.

The library onnx2torch does the same for static graphs; its last release is of August 2024, it needs torchvision, and
it knows neither loops nor SpaceToDepth.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.fx
from torch.utils._pytree import tree_map

from pellucid.engines.onnx_operators import FLOATS, OPERATORS, dtype_of
from pellucid.errors import PellucidError, StageError, require

__all__ = ["as_module", "load_onnx", "unsupported"]

_LONGEST_LOOP = 1000
_CONTROL = ("If", "Loop")
_MAKES_ROOM = {torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d, torch.add}
"""Functions whose result is new memory: a ReLU after one of them may work in place."""


def load_onnx(path: Path, where: str) -> Any:
    """Read an ONNX file with the weights beside it.

    Raises
    ------
    StageError
        It is empty, truncated or something else, or a file of external weights is missing.
    """
    onnx = require("onnx", "models", f"{where} with an ONNX model")
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise StageError(f"{where}: {path.name}: the file {error.filename or path} is missing") from None
    except Exception as error:  # protobuf and onnx have a kind of error each
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StageError(f"{where}: {path.name} is not a whole ONNX file: {why}") from None
    if not model.graph.node or not model.graph.output:
        raise StageError(f"{where}: {path.name} is not a whole ONNX file: it has no operators or no output")
    if model.functions:
        model = require("onnx.inliner", "models", where).inline_local_functions(model)
    return model


def unsupported(graph: Any) -> list[str]:
    """Return the names of operators, subgraphs included, that `as_module` does not know."""
    names = set()
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            names.add(f"{node.domain}.{node.op_type}")
        elif node.op_type not in OPERATORS and node.op_type not in _CONTROL:
            names.add(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names.update(unsupported(attribute.g))
    return sorted(names)


def as_module(
    model: Any, shape: Sequence[int], given: torch.dtype, precision: torch.dtype, where: str
) -> torch.fx.GraphModule:
    """Return a module that computes what an ONNX model does with a tensor of `shape`.

    Parameters
    ----------
    model
        As `load_onnx` returned it; one input and one output.
    shape
    given
        Type of the tensor that is given.
    precision
        ``torch.float32``, or what takes its place everywhere in the graph.
    where
        For errors.

    Returns
    -------
    torch.fx.GraphModule
        Weights are buffers on the CPU; ``meta["shape"]`` is the shape of the result.

    Raises
    ------
    StageError
        Naming the operators that are not known, or the one that cannot take this shape.
    """
    if missing := unsupported(model.graph):
        raise StageError(f"{where}: the model has operators that it does not know: {', '.join(missing)}")
    if len(names := _inputs(model.graph)) != 1 or len(model.graph.output) != 1:
        raise StageError(
            f"{where}: the model has {len(names)} inputs and {len(model.graph.output)} outputs; it takes one of each"
        )
    trace = _Trace(precision, where, {o.domain: o.version for o in model.opset_import}.get("", 1))
    start = trace.graph.placeholder("given")
    value: Value = Value(trace, start, torch.empty(tuple(shape), dtype=given, device="meta"))
    if given in FLOATS and given != precision:
        value = trace.call(torch.Tensor.to, (value, precision), {})
    out = trace.run(model.graph, {names[0]: value})[0]
    if not isinstance(out, Value):
        raise StageError(f"{where}: the result of the model does not depend on what it is given")
    trace.graph.output(out.node)
    _in_place(trace.graph)
    module = torch.fx.GraphModule(trace.root, trace.graph)
    module.meta["shape"] = tuple(out.shape)
    return module.eval().requires_grad_(False)


def _inputs(graph: Any) -> list[str]:
    """Return the names of what is given; old files list the weights there as well."""
    held = {i.name for i in graph.initializer}
    return [i.name for i in graph.input if i.name not in held]


class Value:
    """A tensor that depends on the pixels: its place in the graph that is written, and its shape and type."""

    def __init__(self, trace: _Trace, node: torch.fx.Node, meta: torch.Tensor) -> None:
        self.trace, self.node, self.meta = trace, node, meta

    @property
    def shape(self) -> torch.Size:
        """Known, as all shapes are."""
        return self.meta.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.meta.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Type of its numbers."""
        return self.meta.dtype

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Write a call of one of torch's functions down instead of carrying it out."""
        return _find(args, kwargs or {}).trace.call(func, args, kwargs or {})


def _find(args: Any, kwargs: Mapping[str, Any]) -> Value:
    for a in (*args, *kwargs.values()):
        if isinstance(a, Value):
            return a
        if isinstance(a, list | tuple) and any(isinstance(b, Value) for b in a):
            return next(b for b in a if isinstance(b, Value))
    raise AssertionError("no value that depends on the pixels")


class _Trace:
    """One walk through an ONNX graph."""

    def __init__(self, precision: torch.dtype, where: str, opset: int) -> None:
        self.precision, self.where, self.opset = precision, where, opset
        self.graph = torch.fx.Graph()
        self.root = torch.nn.Module()
        self._held: dict[int, tuple[torch.Tensor, torch.fx.Node]] = {}

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Write one call down; its result's shape comes from torch's ``meta`` device, where nothing is computed."""
        meta = func(*tree_map(self._meta, tuple(args)), **tree_map(self._meta, dict(kwargs)))
        node = self.graph.call_function(func, tree_map(self._node, tuple(args)), tree_map(self._node, dict(kwargs)))
        if isinstance(meta, tuple | list):
            return tuple(
                Value(self, self.graph.call_function(operator.getitem, (node, i)), m) for i, m in enumerate(meta)
            )
        return Value(self, node, meta)

    def _meta(self, a: Any) -> Any:
        if isinstance(a, Value):
            return a.meta
        return torch.empty_like(self._cast(a), device="meta") if isinstance(a, torch.Tensor) else a

    def _node(self, a: Any) -> Any:
        if isinstance(a, Value):
            return a.node
        if not isinstance(a, torch.Tensor):
            return a
        if id(a) not in self._held:
            name = f"w{len(self._held)}"
            self.root.register_buffer(name, self._cast(a).contiguous())
            self._held[id(a)] = (a, self.graph.get_attr(name))
        return self._held[id(a)][1]

    def _cast(self, a: torch.Tensor) -> torch.Tensor:
        return a.to(self.precision) if a.dtype == torch.float32 else a

    def type_of(self, number: int) -> torch.dtype:
        """Return the torch type for one of ONNX; float32 is what the caller asked to have in its place."""
        kind = dtype_of(number)
        return self.precision if kind == torch.float32 else kind

    def run(self, graph: Any, values: dict[str, Any]) -> list[Any]:
        """Walk through a graph, with the values of the one around it; return its outputs."""
        from onnx import numpy_helper

        values = dict(values)
        for initializer in graph.initializer:
            values[initializer.name] = _tensor(numpy_helper.to_array(initializer))
        for node in graph.node:
            given = [values[name] if name else None for name in node.input]
            facts = _Facts(self, node)
            try:
                if node.op_type == "Loop":
                    made = self._loop(facts, given, values)
                elif node.op_type == "If":
                    made = self._choose(facts, given, values)
                else:
                    made = OPERATORS[node.op_type](facts, *given)
            except PellucidError:
                raise
            except Exception as error:
                sizes = ", ".join("x".join(map(str, v.shape)) for v in given if isinstance(v, Value))
                why = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise StageError(
                    f"{self.where}: operator {node.op_type} ({node.name or node.output[0]}) cannot take {sizes}: {why}"
                ) from None
            for name, value in zip(node.output, made if isinstance(made, tuple) else (made,), strict=False):
                values[name] = value
        return [values[o.name] for o in graph.output]

    def _loop(self, facts: _Facts, given: list[Any], values: dict[str, Any]) -> tuple[Any, ...]:
        """Unroll a loop; how often it runs must follow from shapes and constants."""
        body = facts.graph("body")
        most, going, carried = given[0], given[1], list(given[2:])
        names = [i.name for i in body.input]
        kept: list[list[Any]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
        count = math.inf if most is None else self._known(most, facts)
        turn = 0
        while turn < count and (going is None or self._known(going, facts)):
            if turn == _LONGEST_LOOP:
                raise ValueError(f"it runs more than {_LONGEST_LOOP} times")
            out = self.run(body, values | dict(zip(names, [torch.tensor(turn), going, *carried], strict=True)))
            going, carried = out[0], out[1 : 1 + len(carried)]
            for rows, value in zip(kept, out[1 + len(carried) :], strict=True):
                rows.append(value)
            turn += 1
        if turn == 0 and kept:
            raise ValueError("it never runs")
        return (*carried, *(torch.stack(rows) for rows in kept))

    def _choose(self, facts: _Facts, given: list[Any], values: dict[str, Any]) -> tuple[Any, ...]:
        branch = "then_branch" if self._known(given[0], facts) else "else_branch"
        return tuple(self.run(facts.graph(branch), values))

    def _known(self, value: Any, facts: _Facts) -> Any:
        if isinstance(value, Value):
            raise ValueError(f"{facts.kind} depends on the pixels")
        return value.item()


class _Facts:
    """Attributes of a node, by name with a default, as operators ask for them."""

    def __init__(self, trace: _Trace, node: Any) -> None:
        self.trace, self.kind, self.opset, self.outputs = trace, node.op_type, trace.opset, len(node.output)
        self._by_name = {a.name: a for a in node.attribute}

    def __call__(self, name: str, default: Any = None) -> Any:
        """Return a number, a text, or a list of them."""
        from onnx import helper

        if name not in self._by_name:
            return default
        value = helper.get_attribute_value(self._by_name[name])
        return value.decode() if isinstance(value, bytes) else list(value) if hasattr(value, "__len__") else value

    def tensor(self, name: str) -> torch.Tensor | None:
        """Return an attribute that is a tensor."""
        from onnx import numpy_helper

        return _tensor(numpy_helper.to_array(self._by_name[name].t)) if name in self._by_name else None

    def graph(self, name: str) -> Any:
        """Return a subgraph."""
        return self._by_name[name].g

    def type_of(self, number: int) -> torch.dtype:
        """Return the torch type for a number of ONNX."""
        return self.trace.type_of(number)


def _tensor(array: Any) -> torch.Tensor:
    if array.dtype.name == "bfloat16":  # ml_dtypes, which torch does not take
        return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _in_place(graph: torch.fx.Graph) -> None:
    """Let a ReLU overwrite what only it reads, as networks written for torch do."""
    for node in graph.nodes:
        if node.target is torch.relu and len(node.all_input_nodes) == 1:
            before = node.all_input_nodes[0]
            if len(before.users) == 1 and before.target in _MAKES_ROOM:
                node.target = torch.relu_
