"""The core's signatures as MMCoreJ has them, read from the stub file that comes with pymmcore."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path
from typing import Any

from pellucid.testing.bridge.java import STRING, Face, Method
from pellucid.testing.bridge.values import EnumClass

__all__ = ["Stub"]

_SIMPLE = {"int": "int", "float": "double", "bool": "boolean", "str": STRING, "None": "void"}
_SPECIAL = {"np.ndarray": "java.lang.Object", "Rectangle": "java.awt.Rectangle", "AffineTuple": "mmcorej.DoubleVector"}
_CLASSES = ("Configuration", "PropertySetting", "Metadata", "MetadataSingleTag")
_ITEMS = {STRING: "mmcorej.StrVector", "double": "mmcorej.DoubleVector", "int": "mmcorej.LongVector"}
_MANY = re.compile(r"(?:Tuple|Sequence|List|tuple|list)\[([^\],]+)(?:, \.\.\.)?\]")
_UNION = re.compile(r"Union\[(.+)\]")
_CHOICE = ["bool", "int", "float", "str"]
"""A client takes the first overload that fits: a bool is an int to it, and an int can be a float."""
_RETURNS = {"GetKeys": "mmcorej.StrVector"}
"""Where the stub is wrong."""
_OTHER_IN_JAVA = {"getXYPosition", "getMultiROI", "setMultiROI", "getGalvoPosition", "registerCallback"}
"""They give or take arrays and lists in Java that do not pass the bridge."""


class Stub:
    """What the stub file of pymmcore says.

    Parameters
    ----------
    pymmcore
        The module.

    Attributes
    ----------
    core : tuple of Method
        Of ``CMMCore``; overloads are several of one name.
    static : tuple of Method
        Those that need no core.
    faces : dict of type to Face
        The core's own classes that a client may be handed.
    enums : dict of str to EnumClass
        By their Java names.
    """

    def __init__(self, pymmcore: Any) -> None:
        text = Path(pymmcore.__file__).with_name("__init__.pyi").read_text(encoding="utf-8")
        self._tree = ast.parse(text)
        self.enums = _enums(text)
        self._names = self._aliases()
        core = [(m, static) for m, static in self._methods("CMMCore") if m.name not in _OTHER_IN_JAVA]
        self.core = tuple(m for m, _ in core)
        self.static = tuple(m for m, static in core if static)
        self.faces = {
            getattr(pymmcore, name): Face(f"mmcorej.{name}", *(m for m, _ in self._methods(name))) for name in _CLASSES
        }

    def _aliases(self) -> dict[str, str]:
        names = _SIMPLE | _SPECIAL | {name: f"mmcorej.{name}" for name in _CLASSES}
        for node in self._tree.body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
                continue
            name, value = node.targets[0].id, ast.unparse(node.value)
            if value == "int":
                names[name] = f"mmcorej.{name}" if f"mmcorej.{name}" in self.enums else "int"
            elif value.startswith("Literal[") or (value.startswith("NewType(") and value.endswith(", str)")):
                names[name] = STRING
        return names

    def _java(self, annotation: ast.expr | None) -> tuple[str, ...]:
        """Return the Java types of an annotation; none where it has no twin that passes the bridge."""
        text = "" if annotation is None else ast.unparse(annotation)
        union = _UNION.fullmatch(text)
        if union:
            return tuple(_SIMPLE[name] for name in sorted(union[1].split(", "), key=_CHOICE.index))
        many = _MANY.fullmatch(text)
        if many and text not in self._names:
            item = self._names.get(many[1], "")
            found = _ITEMS.get("int" if item.startswith("mmcorej.") else item)
        else:
            first = text.split(" | ", maxsplit=1)[0]
            found = STRING if first.startswith("Literal[") else self._names.get(first)
        return (found,) if found else ()

    def _methods(self, name: str) -> list[tuple[Method, bool]]:
        found = []
        node = next(n for n in self._tree.body if isinstance(n, ast.ClassDef) and n.name == name)
        for function in node.body:
            if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
                continue
            returns = self._java(function.returns)
            static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
            kinds = [self._java(a.annotation) for a in function.args.args if a.arg != "self"]
            for arguments in itertools.product(*kinds) if returns else ():
                java = _RETURNS.get(function.name, returns[0])
                found.append((Method(function.name, java, arguments), static))
        return found


def _enums(text: str) -> dict[str, EnumClass]:
    """Return the enumerations: a comment names each, above its constants."""
    enums: dict[str, dict[int, str]] = {}
    current = ""
    for line in text.splitlines():
        head = re.fullmatch(r"# (\w+)", line)
        entry = re.match(r"(\w+): Final = ([+-]?\d+)", line)
        if head:
            current = f"mmcorej.{head[1]}"
        elif entry and current:
            enums.setdefault(current, {}).setdefault(int(entry[2]), entry[1])
    return {name: EnumClass(name, labels) for name, labels in enums.items()}
