"""What a ``.pt2`` file may hold: the reader of torch runs code that is in it, so it gets only what was looked through.

``torch.export.load`` opens pickles, hands expressions to ``sympy.sympify`` (which is ``eval``), turns guards and the
names of inputs into Python source and runs that, and finds the targets of nodes by their dotted names. Whatever is not
known to be plain here is refused. The archive that torch is then given is written anew from the parts that were looked
at: no other reading of the same zip, and no change of the file in between, can bring in anything else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from pellucid.errors import StageError

__all__ = ["check_archive"]

_MODEL = "models/model.json"
_SAMPLE = "data/sample_inputs/model.pt"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_NEEDED = (_MODEL, _SAMPLE, _WEIGHTS, _CONSTANTS)
_ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|data/weights/weight_\d+|"
    r"data/constants/tensor_\d+|" + "|".join(map(re.escape, _NEEDED))
)
_OLD = re.compile(r"(.*/)?serialized_\w+\.(pt|json)|version|[^/]*/data/(weights|constants)/[^/]*\.pt")
_PAYLOAD = {_WEIGHTS: re.compile(r"weight_\d+"), _CONSTANTS: re.compile(r"tensor_\d+")}

# Of the operators of aten, from_file opens any file and save writes one.
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!(from_file|save|_print|warn)\b)[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?"
    r"|_operator\.(abs|add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|pow|sub|truediv)"
    r"|math\.(ceil|floor|sqrt|trunc)"
    r"|torch\.sym_(float|int|ite|max|min|not|sqrt|sum)"
)
_FUNCTIONS = (
    "Abs Add And BooleanFalse BooleanTrue CeilDiv CeilToInt CleanDiv Eq Equality Float FloorDiv FloorToInt Ge "
    "GreaterThan Gt Identity IntTrueDiv Integer Le LessThan Lt Max Min Mod ModularIndexing Mul Ne Not Or Pow "
    "PowByNatural PythonMod Rational RoundToInt StrictGreaterThan StrictLessThan Symbol ToFloat TruncToFloat "
    "TruncToInt Unequality Where"
)
_FLAGS = "True False positive negative nonnegative integer real finite precision oo int_oo"
_WORDS = "|".join(sorted((_FUNCTIONS + " " + _FLAGS).split(), key=len, reverse=True))
# Neither a dot outside of a number nor an underscore: no attribute can be reached.
_EXPRESSION = re.compile(
    rf"(?:(?:{_WORDS}|[a-z]{{1,4}}\d+)(?![\w.])|'[a-z]{{1,4}}\d+'|\d+(?:\.\d+)?(?![\w.])|[-+*/%(),=<>! ])*"
)
_LONGEST = 2000

_VALUES = [
    "as_bool",
    "as_bools",
    "as_device",
    "as_expr",
    "as_float",
    "as_floats",
    "as_int",
    "as_ints",
    "as_layout",
    "as_memory_format",
    "as_name",
    "as_none",
    "as_optional_tensor",
    "as_optional_tensors",
    "as_scalar_type",
    "as_string",
    "as_strings",
    "as_sym_bool",
    "as_sym_bools",
    "as_sym_float",
    "as_sym_floats",
    "as_sym_int",
    "as_sym_ints",
    "as_tensor",
    "as_tensors",
    "as_nested_tensors",
]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DOTTED = re.compile(r"[A-Za-z0-9_.]*", re.ASCII)
_TEXT = re.compile(r"[A-Za-z0-9_. ,>-]*", re.ASCII)
_HIDDEN = re.compile(r"(^|\.)__\w*__($|\.)")
_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_AGAIN = "Export it again with torch.export.export and torch.export.save of plain tensors"


def check_archive(path: Path, where: str) -> io.BytesIO:
    """Look through a ``.pt2`` file, and return it for ``torch.export.load``.

    Parameters
    ----------
    path
    where
        For errors.

    Returns
    -------
    io.BytesIO
        An archive with the parts that were looked at, without what a network does not need: traces of the sources and
        guards.

    Raises
    ------
    StageError
        One line: no archive of this kind, or one that holds anything besides plain tensors and a graph of torch's own
        operators.
    """
    parts = _parts(path, where)
    tree = _json(parts[_MODEL], _MODEL, where)
    program, graph = tree.get("graph_module"), None
    if isinstance(program, dict):
        graph = program.get("graph")
    if not isinstance(program, dict) or not isinstance(graph, dict) or not isinstance(graph.get("nodes"), list):
        _refuse(where, f"{_MODEL} has no graph")
    # Guards and metadata end up in Python source. What they guard is seen when a shape is tried.
    tree["guards_code"], program["metadata"] = [], {}
    if program.get("treespec_namedtuple_fields") or graph.get("custom_obj_values"):
        _refuse(where, "its arguments are named tuples or objects")
    ranges = tree.get("range_constraints") or {}
    for expression in ranges:
        _expression(expression, where)
    for node in graph["nodes"]:
        if not isinstance(node, dict) or not _matches(_TARGET, node.get("target")):
            given = node.get("target") if isinstance(node, dict) else node
            _refuse(where, f"it calls {_short(given)}; the operators of torch.ops.aten and sums of sizes are allowed")
        node["metadata"] = {}
    _walk(tree | {"range_constraints": list(ranges.values())}, "", where)
    parts[_MODEL] = json.dumps(tree).encode()
    for name, allowed in _PAYLOAD.items():
        parts[name] = json.dumps(_payload(_json(parts[name], name, where), name, allowed, where)).encode()
    _sample(parts[_SAMPLE], where)
    return _written(parts)


def _parts(path: Path, where: str) -> dict[str, bytes]:
    """Return the entries by name, without the folder that all of them are in."""
    parts: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                root, _, name = entry.filename.partition("/")
                if _OLD.fullmatch(entry.filename):
                    raise StageError(f"{where}: in the form of torch 2.7 or older. Export it again with a newer torch")
                if not _ENTRY.fullmatch(name) or name in parts or root != archive.infolist()[0].filename.split("/")[0]:
                    _refuse(where, f"it holds {_short(entry.filename)}, which no plain network needs")
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    _refuse(where, f"{_short(name)} in it is compressed or locked, which torch does not write")
                parts[name] = archive.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        raise StageError(f"{where}: not a .pt2 archive, or cut off. Copy or export it again") from None
    except OSError as error:
        raise StageError(f"{where}: cannot be read: {error.strerror}") from None
    missing = [name for name in _NEEDED if name not in parts]
    if missing:
        _refuse(where, f"it has no {missing[0]}")
    return parts


def _json(data: bytes, name: str, where: str) -> dict[str, Any]:
    try:
        tree = json.loads(data.decode())
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        _refuse(where, f"{name} in it cannot be read")
    return tree


def _walk(tree: Any, key: str, where: str) -> None:
    """Refuse every string, at whatever place, that is more than a name there."""
    if isinstance(tree, Mapping):
        for name, inner in tree.items():
            if name.startswith("as_") and name not in _VALUES:
                _refuse(where, f'it has an argument of the kind "{_short(name)}"')
            if not _DOTTED.fullmatch(name) or _HIDDEN.search(name):
                _refuse(where, f"it has the name {_short(name)}")
            _walk(inner, name, where)
    elif isinstance(tree, list):
        for inner in tree:
            _walk(inner, key, where)
    elif isinstance(tree, str):
        if key == "expr_str":
            _expression(tree, where)
        elif key in ("in_spec", "out_spec"):
            _spec(tree, where)
        elif key not in ("target", "torch_version"):
            text = {"as_string": _TEXT, "as_strings": _TEXT, "name": _NAME, "as_name": _NAME}.get(key, _DOTTED)
            if key == "forward_arg_names":
                text = _NAME
            if (tree and not text.fullmatch(tree)) or _HIDDEN.search(tree):
                _refuse(where, f"it has the {key or 'text'} {_short(tree)}")


def _expression(given: Any, where: str) -> None:
    if not isinstance(given, str) or len(given) > _LONGEST or not _EXPRESSION.fullmatch(given):
        _refuse(where, f"it has the size {_short(given)}; sums, products and the like of sizes are allowed")


def _spec(given: str, where: str) -> None:
    """Look at how arguments are packed: ``[1, {"type": ..., "context": ..., "children_spec": [...]}]``."""

    def plain(tree: Any) -> bool:
        if not isinstance(tree, dict) or tree.get("type") not in _TREES or not isinstance(tree["children_spec"], list):
            return False
        context = tree.get("context")
        names = json.loads(context) if isinstance(context, str) else context
        known = names is None or (isinstance(names, list) and all(_matches(_NAME, name) for name in names))
        return known and set(tree) <= {"type", "context", "children_spec"} and all(map(plain, tree["children_spec"]))

    try:
        parts = json.loads(given) if given else []
        good = not parts or (isinstance(parts, list) and len(parts) == 2 and plain(parts[1]))
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        _refuse(where, f"it packs its arguments as {_short(given)}; tensors, tuples, lists and dicts are allowed")


def _payload(tree: dict[str, Any], name: str, allowed: re.Pattern[str], where: str) -> dict[str, Any]:
    config = tree.get("config")
    if not isinstance(config, dict):
        _refuse(where, f"{name} in it cannot be read")
    _walk(config, "", where)
    for weight, keys in config.items():
        if not isinstance(keys, dict) or keys.get("use_pickle") is not False:
            _refuse(where, f"{_short(weight)} is a pickle, and a pickle can run any program when it is opened")
        if not _matches(allowed, keys.get("path_name")):
            _refuse(where, f"{_short(weight)} is in {_short(keys.get('path_name'))}, not in a file of plain numbers")
    return {"config": config}


def _sample(data: bytes, where: str) -> None:
    """Open the example inputs as torch does first; where that fails, torch would go on to open them as a pickle."""
    try:
        found = torch.load(io.BytesIO(data), weights_only=True) if data else {}
    except Exception:
        found = None
    if not isinstance(found, tuple | dict):
        _refuse(where, "its example inputs are a pickle, and a pickle can run any program when it is opened")


def _written(parts: Mapping[str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(f"model/{name}", data)
    file.seek(0)
    return file


def _matches(pattern: re.Pattern[str], given: Any) -> bool:
    return isinstance(given, str) and pattern.fullmatch(given) is not None


def _short(given: Any) -> str:
    return ascii(given if len(str(given)) <= 60 else str(given)[:57] + "...")


def _refuse(where: str, what: str) -> NoReturn:
    raise StageError(f"{where}: not opened: {what}. {_AGAIN}")
