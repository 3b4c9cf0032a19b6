"""A network as a torch module, from whichever of its files torch can read."""

from __future__ import annotations

import functools
import pickle
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.fx

from pellucid.engines.onnx_graph import as_module, load_onnx, unsupported
from pellucid.errors import StageError
from pellucid.models import Form, Model
from pellucid.models.exported_archive import check_archive

__all__ = ["PRECISIONS", "Loaded", "load_module", "onnx_of", "torch_dtype"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FORMS: tuple[Form, ...] = ("onnx", "exported", "torchscript")
"""The first one that torch can do is taken. A graph read from ONNX is plain calls of torch."""


@dataclass
class Loaded:
    """A module, the file's form, and the shape of its result."""

    module: Callable[[torch.Tensor], torch.Tensor]
    form: Form
    result: tuple[int, ...]


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch type for the name of a numpy type."""
    kind = getattr(torch, name)
    assert isinstance(kind, torch.dtype)
    return kind


@functools.lru_cache(4)
def _onnx(path: Path, changed_ns: int, where: str) -> Any:
    return load_onnx(path, where)


def onnx_of(path: Path, where: str) -> Any:
    """Return an ONNX model as `pellucid.engines.onnx_graph.load_onnx` reads it; the last few are kept."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise StageError(f"{where}: cannot read {path}: {error.strerror}") from None
    return _onnx(path, changed, where)


def load_module(
    model: Model,
    shape: Sequence[int],
    precision: str,
    where: str,
    tell: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> Loaded:
    """Return the network as a module of its own that takes a tensor of `shape` and of the type of ``model.given``.

    Parameters
    ----------
    model
    shape
    precision
        ``"float32"``, ``"bfloat16"`` or ``"float16"``: of its weights and of what is between them.
    where
        For errors.
    tell
        Is told where the first file could not be used.
    device
        ``"cpu"``, or ``"meta"`` for one without memory.

    Raises
    ------
    StageError
        In one line, where none of the files can be used.
    """
    forms = [form for form in _FORMS if form in model.weights]
    if not forms:
        raise StageError(f"{where}: model {model.name} has no weights that it can read ({', '.join(_FORMS)})")
    names = unsupported(onnx_of(model.weights["onnx"], where).graph) if len(forms) > 1 and forms[0] == "onnx" else []
    if names:
        forms.pop(0)
        if tell:
            tell(f"{where}: takes the {forms[0]} file of {model.name}: ONNX operators not known: {', '.join(names)}")
    form, kind = forms[0], PRECISIONS[precision]
    given = torch_dtype(model.given.dtype)
    if form == "onnx":
        module = as_module(onnx_of(model.weights["onnx"], where), shape, given, kind, where)
        return Loaded(module.to(device), form, module.meta["shape"])
    read = _exported if form == "exported" else _torchscript
    path = model.weights[form]
    # Without memory first; what was traced with constants of its own can only be tried with it.
    for place in ("meta", "cpu"):
        try:
            with torch.inference_mode():
                out = read(path, where, place).to(kind)(
                    torch.zeros(tuple(shape), dtype=_inside(given, kind), device=place)
                )
            break
        except StageError:
            raise
        except Exception as error:
            if place == "cpu":
                raise StageError(f"{where}: {path.name} cannot take {_x(shape)}: {_first(error)}") from None
    if not isinstance(out, torch.Tensor):
        raise StageError(f"{where}: {path.name} returns {type(out).__name__}; one tensor is needed")
    module = read(path, where, device).to(kind)
    if given == _inside(given, kind):
        return Loaded(module, form, tuple(out.shape))
    return Loaded(_Cast(module, kind), form, tuple(out.shape))


class _Cast(torch.nn.Module):
    """A module whose own type is another than that of what it is given."""

    def __init__(self, module: Any, kind: torch.dtype) -> None:
        super().__init__()
        self.module, self.kind = module, kind

    def forward(self, given: torch.Tensor) -> Any:
        return self.module(given.to(self.kind))


def _inside(given: torch.dtype, kind: torch.dtype) -> torch.dtype:
    return kind if given.is_floating_point else given


def _exported(path: Path, where: str, device: str) -> Any:
    _look(path, where, "a program of torch.export (.pt2)")
    archive = check_archive(path, f"{where}: {path.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            module: Any = torch.export.load(archive).module()
    except Exception as error:
        raise StageError(f"{where}: {path.name} is not a program of torch.export: {_first(error)}") from None
    # As a plain function of one tensor: without taking trees of arguments apart and asking guards in every call. What
    # a shape does is seen before, on the meta device.
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.erase_node(node)
        elif node.op == "output":
            results = list(node.all_input_nodes)
            if len(results) != 1:
                raise StageError(f"{where}: {path.name} has {len(results)} outputs; it takes one")
            node.args = (results[0],)
    if (count := sum(node.op == "placeholder" for node in graph.nodes)) != 1:
        raise StageError(f"{where}: {path.name} has {count} inputs; it takes one")
    graph.set_codegen(torch.fx.graph.CodeGen())
    plain = torch.fx.GraphModule(module, graph).requires_grad_(False).to(device)
    _move_constants(plain.graph, device)
    plain.recompile()
    return plain


def _move_constants(graph: torch.fx.Graph, device: str) -> None:
    """Change the devices that a program names itself, for tensors that it makes."""
    for node in graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device(device)}


def _torchscript(path: Path, where: str, device: str) -> Any:
    _look(path, where, "TorchScript")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, OSError, pickle.UnpicklingError, ValueError) as error:
        raise StageError(f"{where}: {path.name} is not TorchScript: {_first(error)}") from None
    count = len(module.forward.schema.arguments) - 1
    if count != 1:
        raise StageError(f"{where}: {path.name} has {count} inputs; it takes one")
    return module


def _look(path: Path, where: str, what: str) -> None:
    """Refuse what is no archive before torch sees it: a bare pickle may run anything."""
    if not path.is_file():
        raise StageError(f"{where}: there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise StageError(f"{where}: {path.name} is not {what}: empty, truncated, or a pickle, which is not loaded")


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
