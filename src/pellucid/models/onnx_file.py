"""ONNX files: looked into before anything runs them, and described as a Model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import StageError, require
from pellucid.models.content import hash_files, hash_model
from pellucid.models.model import Model, Operation, Port, Side
from pellucid.models.onnx_reach import reach_of

__all__ = ["AS_MEASURED", "Looked", "look_into", "read_onnx"]

TYPES = ("float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32")
MOST_CHANNELS = 64
_ALLOWED = "planes: b, c, y, x or b, y, x, c; stacks: b, c, z, y, x or b, z, y, x, c"
AS_MEASURED = (
    (Operation("scale_range", {"min_percentile": 0.1, "max_percentile": 99.9}),),
    (Operation("as_given"),),
)
"""Before and after a network of which nobody says what it wants: 0 to 1, and back to camera counts."""


@dataclass(frozen=True)
class Looked:
    """What an ONNX file that is in order says of itself.

    Parameters
    ----------
    given, result
    scale
        Of the axes y and x.
    halo
        Pixels along each axis in space; None where the network looks at the whole picture.
    sha256
        Of the file and its external data.
    """

    given: Port
    result: Port
    scale: int
    halo: tuple[int, ...] | None
    sha256: str


def read_onnx(path: Path, name: str | None = None) -> Model:
    """Describe an ONNX file that has no card: scaled by its percentiles, the result in camera counts again.

    One that takes whole numbers is given the camera's counts as they are.

    Raises
    ------
    StageError
        One line; see `look_into`.
    """
    looked = look_into(path)
    # A network of whole numbers counts as the camera does: from 0 to 1 it would see black and white.
    before, after = AS_MEASURED if looked.given.dtype.startswith("float") else ((), ())
    return Model(
        name=name or path.stem,
        weights={"onnx": path},
        sha256=hash_model(looked.sha256, looked.given, looked.result, before, after, looked.scale),
        given=looked.given,
        result=looked.result,
        before=before,
        after=after,
        scale=looked.scale,
        halo=looked.halo or (),
        frames=1,
        card={"description": f"a file without a card, {path.name}"},
    )


def look_into(path: Path, axes: tuple[str, str] | None = None) -> Looked:
    """Read and check a file.

    Parameters
    ----------
    path
    axes
        Of the input and of the output, where a card says them; else they are guessed from the sizes.

    Raises
    ------
    StageError
        A file that is not ONNX, or cut off; data beside it that are missing or elsewhere; more than one input or
        output; a rank, type or count of channels that no frame has; weights that are not finite.
    """
    onnx = require("onnx", "restore", f"the model {path}")
    where = f"model {path}"
    try:
        proto = onnx.load(str(path), load_external_data=False)
        if not proto.graph.node:
            raise ValueError("it is empty")
    except OSError as error:
        raise StageError(f"{where}: cannot be read: {error.strerror}") from None
    except Exception:
        raise StageError(
            f"{where}: not an ONNX file, or cut off ({path.stat().st_size} bytes). Copy or export it again"
        ) from None
    beside = _outside(proto, path, where)
    if beside:
        onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))
    numbers = _numbers(onnx, proto, where)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        told = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StageError(f"{where}: not in order: {told[:200]}") from None
    weights = {i.name for i in proto.graph.initializer}
    ins = [i for i in proto.graph.input if i.name not in weights]
    outs = list(proto.graph.output)
    if len(ins) != 1 or len(outs) != 1:
        raise StageError(
            f"{where}: {len(ins)} inputs ({', '.join(i.name for i in ins)}) and {len(outs)} outputs; a network of one "
            "input and one output is needed. Export it with one of each"
        )
    reach = reach_of(proto.graph, ins[0].name, numbers)
    given = _port(onnx, ins[0], axes[0] if axes else None, reach.multiple, where, "input")
    shape = _shape_of_result(onnx, proto, ins[0].name, given, reach.multiple)
    result = _port(onnx, outs[0], axes[1] if axes else None, 1, where, "output", shape, given)
    scale = _scale(shape, given, result, reach.multiple, where)
    result = replace(result, sides=tuple(Side(s.least * k, s.step * k) for s, k in _grown(given, result, scale)))
    halo = None if reach.halo is None else (reach.halo,) * given.ndim
    return Looked(given, result, scale, halo, hash_files([path, *beside]))


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Give every tensor in a graph by name: weights, constants, those of graphs within."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.output[0], attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _outside(proto: Any, path: Path, where: str) -> list[Path]:
    """Return the files beside an ONNX file that hold its weights; they must lie in its folder."""
    found: dict[Path, None] = {}
    for name, tensor in _tensors(proto.graph):
        if tensor.data_location != 1:
            continue
        keys = {entry.key: entry.value for entry in tensor.external_data}
        location = keys.get("location", "")
        file = path.parent / location
        if not location or ":" in location or not file.resolve().is_relative_to(path.parent.resolve()):
            raise StageError(f'{where}: wants weights from "{location}", outside of its folder; that is not opened')
        if not file.is_file():
            raise StageError(
                f"{where}: its weights lie in {file.name}, which is not beside it. Copy both into one folder"
            )
        end = int(keys.get("offset") or 0) + int(keys.get("length") or 0)
        if file.stat().st_size < end:
            raise StageError(f"{where}: {file.name} ends before the weights {name} do; copy it again")
        found[file] = None
    return list(found)


def _numbers(onnx: Any, proto: Any, where: str) -> dict[str, np.ndarray[Any, Any]]:
    numbers: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor in _tensors(proto.graph):
        try:
            array = np.asarray(onnx.numpy_helper.to_array(tensor))
        except Exception as error:
            raise StageError(f"{where}: the weights {name} cannot be read ({type(error).__name__})") from None
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            # A constant may be infinite on purpose, as the start of a maximum; weights may not.
            if array.size > 1 or np.isnan(array).any():
                raise StageError(
                    f"{where}: {bad} of {array.size} numbers in {name} are NaN or infinite. Train or export it again"
                )
        numbers[name] = array
    return numbers


def _port(
    onnx: Any,
    value: Any,
    axes: str | None,
    multiple: int,
    where: str,
    which: str,
    shape: tuple[int, ...] | None = None,
    like: Port | None = None,
) -> Port:
    if not value.type.HasField("tensor_type"):
        raise StageError(f"{where}: its {which} {value.name} is not a tensor")
    kind = value.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    except Exception:
        dtype = str(kind.elem_type)
    if dtype not in TYPES:
        raise StageError(f"{where}: its {which} is of {dtype}; it takes {', '.join(TYPES)}. Export it with float32")
    dims: list[int | None] = [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim
    ]
    if shape is not None:
        dims = (
            [d if d is not None else s for d, s in zip(dims, shape, strict=False)]
            if len(dims) == len(shape)
            else list(shape)
        )
    if not kind.HasField("shape") and shape is None:
        raise StageError(f"{where}: its {which} has no shape. Export it with the shape of its {which}")
    axes = axes or (_like(like, dims) if like else None) or _guess(dims)
    if axes is None or len(axes) != len(dims):
        told = "x".join("?" if d is None else str(d) for d in dims) or "one number"
        raise StageError(f"{where}: its {which} is {told}; allowed are {_ALLOWED}, with a fixed count of channels")
    at = axes.find("c")
    channels = 1 if at < 0 else dims[at]
    if not channels or channels > MOST_CHANNELS:
        raise StageError(
            f"{where}: its {which} has {channels or 'any number of'} channels; 1 to {MOST_CHANNELS} are taken"
        )
    sides = tuple(
        Side(multiple, multiple) if (d := dims[axes.index(a)]) is None else Side(d, 0) for a in "zyx" if a in axes
    )
    return Port(value.name, axes, dtype, channels, sides)


def _guess(dims: list[int | None]) -> str | None:
    """Return the axes that a shape can only mean."""

    def few(n: int | None) -> bool:
        return n is not None and n <= MOST_CHANNELS

    if len(dims) == 4:
        return "bcyx" if few(dims[1]) else "byxc" if few(dims[3]) else None
    if len(dims) == 5:
        return "bczyx" if few(dims[1]) else "bzyxc" if few(dims[4]) else None
    return {2: "yx", 3: "byx"}.get(len(dims))


def _like(port: Port, dims: list[int | None]) -> str | None:
    return port.axes if len(dims) == len(port.axes) else None


def _shape_of_result(onnx: Any, proto: Any, name: str, given: Port, multiple: int) -> tuple[int, ...] | None:
    """Return the shape of the result for an input of 16 multiples, None where it cannot be told without running."""
    sides = {
        a: s.least if s.step == 0 else 16 * multiple for a, s in zip("zyx"[-given.ndim :], given.sides, strict=True)
    }
    fixed = {"b": 1, "c": given.channels, **sides}
    copy = type(proto)()
    copy.CopyFrom(proto)
    for value in copy.graph.input:
        if value.name == name:
            for dim, axis in zip(value.type.tensor_type.shape.dim, given.axes, strict=True):
                dim.dim_value = fixed[axis]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    del copy.graph.value_info[:]  # they may hold the sizes of the example it was exported with
    try:
        whole = onnx.shape_inference.infer_shapes(copy, data_prop=True)
        dims = whole.graph.output[0].type.tensor_type.shape.dim
        shape = tuple(d.dim_value for d in dims)
    except Exception:
        return None
    return shape if shape and all(shape) else None


def _scale(shape: tuple[int, ...] | None, given: Port, result: Port, multiple: int, where: str) -> int:
    if shape is None:
        return 1
    ratios = []
    for axis, side in zip("zyx"[-given.ndim :], given.sides, strict=True):
        if axis != "z" and axis in result.axes:
            long = side.least if side.step == 0 else 16 * multiple
            ratios.append(shape[result.axes.index(axis)] / long)
    if len(set(ratios)) != 1 or ratios[0] < 1 or not math.isclose(ratios[0], round(ratios[0])):
        told = " and ".join(f"{r:g}" for r in ratios)
        raise StageError(f"{where}: makes {told} pixels of one; as many or a whole number of times more are taken")
    return round(ratios[0])


def _grown(given: Port, result: Port, scale: int) -> list[tuple[Side, int]]:
    """Return the input's sides and by how much each grows, for the axes that the result has."""
    sides = dict(zip("zyx"[-given.ndim :], given.sides, strict=True))
    return [(sides[a], 1 if a == "z" else scale) for a in "zyx" if a in result.axes and a in sides]
