"""Objects of a running Micro-Manager as objects here: methods by their names in snake_case, vectors as lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pellucid.wire.bridge import Bridge
from pellucid.wire.bridge_message import Garbage, Reply, value_of

__all__ = ["Pixels", "RemoteObject", "read_json", "snake"]

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WHOLE = ("int", "long", "short", "byte")
_REAL = ("double", "float")
_BOXED = {
    "java.lang.Boolean": "boolean",
    "java.lang.Integer": "int",
    "java.lang.Long": "long",
    "java.lang.Double": "double",
    "java.lang.Float": "float",
}


def snake(name: str) -> str:
    """Return ``get_n_before_last_tagged_image`` for ``getNBeforeLastTaggedImage``."""
    return _WORDS.sub("_", name).lower()


@dataclass(frozen=True)
class Pixels:
    """An array to hand over: ``kind`` is ``"byte[]"`` or ``"short[]"``, ``data`` is flat."""

    kind: str
    data: NDArray[Any]


class RemoteObject:
    """An object that Micro-Manager keeps.

    ``core.get_camera_device()`` calls ``getCameraDevice``; what comes back is a number, a text, a dictionary, an
    array, a list (of a vector) or another `RemoteObject`. Fields are read with `field`.

    Parameters
    ----------
    bridge
    told
        What the other side said of it: its number, its interfaces and the signatures of its methods.

    Raises
    ------
    Garbage
        Where that cannot be read.
    """

    def __init__(self, bridge: Bridge, told: Reply) -> None:
        self._bridge = bridge
        self._number: str = told["hash-code"]
        self._methods: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        try:
            self._class = str(told["class"])
            self._types = {self._class, *map(str, told["interfaces"])}
            for method in told["api"]:
                one = (str(method["name"]), tuple(map(str, method["arguments"])))
                for name in {one[0], snake(one[0])}:
                    self._methods.setdefault(name, []).append(one)
        except (KeyError, TypeError):
            raise Garbage("it describes an object in words that are unknown") from None

    @property
    def number(self) -> str:
        """By which the other side knows it."""
        return self._number

    @classmethod
    def construct(cls, bridge: Bridge, name: str) -> RemoteObject:
        """Return the object of a class, such as ``"mmcorej.CMMCore"``.

        Raises
        ------
        Refused
            Where there is none.
        """
        return cls(bridge, bridge.construct(name))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self._methods:
            raise AttributeError(f"{self.__dict__.get('_class', 'the object')} has no method {name}")
        return lambda *given: self._call(name, given)

    def has(self, name: str) -> bool:
        """Return whether there is such a method, by its name in snake_case or as in Java."""
        return name in self._methods

    def _call(self, name: str, given: tuple[Any, ...]) -> Any:
        method, types = self._pick(name, given)
        values = [{"hash-code": v._number} if isinstance(v, RemoteObject) else v for v in given]
        values = [v.data.tobytes() if isinstance(v, Pixels) else v for v in values]
        sent = [v.kind if isinstance(v, Pixels) else t for t, v in zip(types, given, strict=True)]
        return self._python(self._bridge.ask(self._bridge.method(self._number, method, types, values, sent))[0])

    def _pick(self, name: str, given: tuple[Any, ...]) -> tuple[str, tuple[str, ...]]:
        found = []
        for method, types in self._methods[name]:
            costs = [_cost(value, kind) for value, kind in zip(given, types, strict=False)]
            if len(types) == len(given) and None not in costs:
                found.append((sum(c or 0 for c in costs), method, types))
        if not found:
            wanted = " or ".join(str(list(types)) for _, types in self._methods[name])
            raise TypeError(f"{name}{given}: it takes {wanted}")
        _, method, types = min(found)
        return method, types

    def _python(self, reply: Reply) -> Any:
        value = value_of(reply)
        if reply["type"] == "object":
            return read_json(value)
        if reply["type"] != "unserialized-object":
            return value
        result = RemoteObject(self._bridge, self._bridge.keep(reply))
        if not (result._class.endswith("Vector") and result.has("size") and result.has("get")):
            return result
        try:
            return [result.get(i) for i in range(int(result.size()))]
        finally:
            result.release()

    def field(self, name: str) -> Any:
        """Return a field of the object."""
        return self._python(self._bridge.ask(self._bridge.field(self._number, name))[0])

    def release(self) -> None:
        """Let the other side forget it."""
        self._bridge.ask(self._bridge.destructor(self._number))


def _cost(value: Any, kind: str) -> int | None:
    """Return how far a value is from what a signature wants; None where it does not fit."""
    wanted: tuple[str, ...]
    kind = _BOXED.get(kind, kind)
    if isinstance(value, RemoteObject):
        return 0 if kind in value._types else None
    if isinstance(value, bool):
        wanted = ("boolean",)
    elif isinstance(value, int):
        wanted = (*_WHOLE, *_REAL)
    elif isinstance(value, float):
        wanted = _REAL
    elif isinstance(value, str):
        wanted = ("java.lang.String",)
    elif isinstance(value, Pixels):
        wanted = (value.kind,)
    else:
        return None
    if kind in wanted:
        return wanted.index(kind)
    return 9 if kind == "java.lang.Object" else None


def read_json(text: Any) -> dict[str, Any]:
    """Return a JSONObject, which travels as its text.

    Raises
    ------
    Garbage
    """
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Garbage("it gives a JSONObject that cannot be read")
    return found
