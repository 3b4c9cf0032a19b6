"""What a Java object shows to a client of the bridge, and what Java makes of a client's arguments.

Facts from PyJavaZ (ZMQUtil.java): an object that is no primitive stays in the server, and the client is sent its
class, its interfaces and the signatures of its methods.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "OBJECT",
    "STRING",
    "Face",
    "JavaArray",
    "JavaError",
    "JsonText",
    "Method",
    "read_argument",
]

STRING = "java.lang.String"
OBJECT = "java.lang.Object"
_WHOLE = {"byte": 8, "short": 16, "char": 17, "int": 32, "long": 64}
"""Bits of whole numbers; a ``char`` is a 16-bit number without sign."""
_BOXED = {
    "java.lang.Boolean": "boolean",
    "java.lang.Byte": "byte",
    "java.lang.Short": "short",
    "java.lang.Integer": "int",
    "java.lang.Long": "long",
    "java.lang.Float": "float",
    "java.lang.Double": "double",
}
_ARRAYS = {"byte[]": "u1", "short[]": "i2", "char[]": "u2", "int[]": "i4", "long[]": "i8", "float[]": "f4"}
_ARRAYS["double[]"] = "f8"
_SIGNATURE = re.compile(r"(?:static )?(\S+) (\w+)\(([^)]*)\)")


class JavaError(Exception):
    """Something that the real server would throw.

    Parameters
    ----------
    text
        The message.
    kind
        Name of the Java class.
    """

    def __init__(self, text: str, kind: str = "java.lang.RuntimeException") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Method:
    """One signature: overloads are methods of the same name."""

    name: str
    returns: str
    arguments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read ``"java.lang.String get(int)"``."""
        found = _SIGNATURE.fullmatch(text)
        assert found, text
        returns, name, arguments = found.groups()
        return cls(name, returns, tuple(a.strip() for a in arguments.split(",") if a.strip()))


class Face:
    """What a client is told of a class.

    Parameters
    ----------
    name
        Of the Java class.
    methods
        Signatures, as `Method` or as text.
    fields
        Public ones.
    interfaces
        Further types that the object may be given as; the class itself and Object come by themselves.
    """

    def __init__(
        self, name: str, *methods: Method | str, fields: tuple[str, ...] = (), interfaces: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.methods = tuple(m if isinstance(m, Method) else Method.parse(m) for m in methods)
        self.fields = fields
        self.types = (name, *interfaces, OBJECT)
        self.api = [{"name": m.name, "return-type": m.returns, "arguments": list(m.arguments)} for m in self.methods]

    def find(self, name: object, types: object) -> Method:
        """Return the method of a name and argument types.

        Raises
        ------
        JavaError
            Where there is none.
        """
        for method in self.methods:
            if method.name == name and list(method.arguments) == types:
                return method
        raise JavaError("No Matching method found with argument types")


@dataclass(frozen=True)
class JavaArray:
    """A primitive array: ``kind`` is ``byte``, ``short``, ``int``, ``float`` or ``char``; ``data`` is flat."""

    kind: str
    data: NDArray[Any]


@dataclass(frozen=True)
class JsonText:
    """A JSONObject, which travels as its text."""

    text: str


def read_argument(value: Any, kind: str, sent_as: object, big_endian: bool = True) -> Any:
    """Return an argument that is no object of the server, as Python has it.

    Parameters
    ----------
    value
        From the message; bytes for an array.
    kind
        Java type in the signature.
    sent_as
        Java type that the client made of it: tells the arrays apart where the signature says Object.
    big_endian
        ZMQUtil.convertToPrimitiveArray leaves a ByteBuffer at Java's order, which is big-endian, while the client
        sends the machine's: on a PC, arrays of more than one byte an element arrive with their bytes swapped.

    Raises
    ------
    JavaError
        Where it is not of that type.
    """
    kind = _BOXED.get(kind, kind)
    if kind == OBJECT and isinstance(value, bytes):
        kind = str(sent_as)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind in _WHOLE and number:
        bits = _WHOLE[kind]
        low, high = (0, 2**16) if kind == "char" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        return (int(value) - low) % (high - low) + low
    if kind in ("double", "float") and number:
        return float(value)
    if kind == STRING and isinstance(value, str):
        return value
    if kind in _ARRAYS and isinstance(value, bytes):
        dtype = np.dtype(_ARRAYS[kind])
        sent = dtype.newbyteorder(">" if big_endian else "<")
        count = len(value) // dtype.itemsize
        return JavaArray(kind[:-2], np.frombuffer(value, sent, count).astype(dtype))
    if kind == OBJECT and isinstance(value, bool | int | float | str):
        return value
    raise JavaError(f"argument type mismatch: {kind}", "java.lang.IllegalArgumentException")
