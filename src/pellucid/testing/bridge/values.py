"""The few Java objects that the core hands out: vectors, enumerations, rectangles, points.

Facts from MMCoreJ (MMCoreJ.i): lists of the core are SWIG vectors (``size``, ``get``), enumerations are objects
with ``swigValue``; a region is a java.awt.Rectangle.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from pellucid.testing.bridge.java import OBJECT, STRING, Face, JavaError, Method

__all__ = ["VECTORS", "EnumClass", "EnumValue", "JavaIterator", "Point", "Rectangle", "Vector", "plain"]


class JavaIterator:
    """What ``iterator()`` of a vector returns."""

    face: ClassVar[Face] = Face(
        "java.util.Iterator", "boolean hasNext()", "java.lang.Object next()", "java.lang.String toString()"
    )

    def __init__(self, items: list[Any]) -> None:
        self._items = iter(list(items))
        self._left = len(items)

    def hasNext(self) -> bool:
        """Return whether there is one more."""
        return self._left > 0

    def next(self) -> Any:
        """Return it."""
        if not self._left:
            raise JavaError("null", "java.util.NoSuchElementException")
        self._left -= 1
        return next(self._items)


def _vector(name: str, item: str) -> Face:
    return Face(
        name,
        "int size()",
        f"{item} get(int)",
        f"{item} set(int, {item})",
        f"void add({item})",
        "void clear()",
        "boolean isEmpty()",
        "java.util.Iterator iterator()",
    )


VECTORS = {
    name: _vector(name, item)
    for name, item in {
        "mmcorej.StrVector": STRING,
        "mmcorej.DoubleVector": "double",
        "mmcorej.LongVector": "int",
        "java.util.ArrayList": OBJECT,
    }.items()
}


class Vector:
    """A list of Java: a vector of the core, or an ArrayList.

    Parameters
    ----------
    name
        One of `VECTORS`.
    items
    """

    def __init__(self, name: str, items: Any = ()) -> None:
        self.face = VECTORS[name]
        self.items = list(items)

    def size(self) -> int:
        """Return the number of items."""
        return len(self.items)

    def get(self, index: int) -> Any:
        """Return one item."""
        return self.items[self._checked(index)]

    def set(self, index: int, item: Any) -> Any:
        """Put another one in its place, and return the former."""
        former = self.get(index)
        self.items[index] = item
        return former

    def add(self, item: Any) -> None:
        """Append one."""
        self.items.append(item)

    def clear(self) -> None:
        """Forget all."""
        self.items.clear()

    def isEmpty(self) -> bool:
        """Return whether there is none."""
        return not self.items

    def iterator(self) -> JavaIterator:
        """Return something to go through the items with."""
        return JavaIterator(self.items)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.items):
            raise JavaError("vector index out of range", "java.lang.IndexOutOfBoundsException")
        return index


class _Fields:
    """Numbers in public fields, as java.awt has them."""

    face: ClassVar[Face]

    def __init__(self, *values: float) -> None:
        for name, value in zip(self.face.fields, values, strict=True):
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        field = name.removeprefix("get").lower()
        if name.startswith("get") and field in self.face.fields:
            return lambda: float(getattr(self, field))
        raise AttributeError(name)

    def toString(self) -> str:
        """Return what Java prints."""
        return f"{self.face.name}[{','.join(f'{f}={getattr(self, f)}' for f in self.face.fields)}]"


class Rectangle(_Fields):
    """A ``java.awt.Rectangle``: ``x``, ``y``, ``width``, ``height``."""

    face = Face(
        "java.awt.Rectangle",
        "double getX()",
        "double getY()",
        "double getWidth()",
        "double getHeight()",
        "java.lang.String toString()",
        fields=("x", "y", "width", "height"),
    )


class Point(_Fields):
    """A ``java.awt.geom.Point2D.Double``: ``x``, ``y``."""

    face = Face(
        "java.awt.geom.Point2D$Double",
        "double getX()",
        "double getY()",
        "java.lang.String toString()",
        fields=("x", "y"),
        interfaces=("java.awt.geom.Point2D",),
    )


@cache
def _enum_face(name: str) -> Face:
    return Face(name, "int swigValue()", "java.lang.String toString()")


class EnumValue:
    """One value of an enumeration of the core.

    Parameters
    ----------
    name
        Of the enumeration, such as ``mmcorej.DeviceType``.
    label
        Such as ``CameraDevice``.
    value
        The core's number for it.
    """

    def __init__(self, name: str, label: str, value: int) -> None:
        self.face = _enum_face(name)
        self.label, self.value = label, value

    def swigValue(self) -> int:
        """Return the number."""
        return self.value

    def toString(self) -> str:
        """Return the label."""
        return self.label


class EnumClass:
    """An enumeration itself, for ``swigToEnum``: the way to a value that works over the bridge."""

    def __init__(self, name: str, labels: dict[int, str]) -> None:
        self.name, self.labels = name, labels
        self.methods = (Method("swigToEnum", name, ("int",)),)

    def swigToEnum(self, value: int) -> EnumValue:
        """Return the value of a number."""
        if value not in self.labels:
            raise JavaError(f"No enum class {self.name} with value {value}", "java.lang.IllegalArgumentException")
        return EnumValue(self.name, self.labels[value], value)


def plain(value: Any) -> Any:
    """Return what pymmcore takes in the place of a Java object."""
    if isinstance(value, EnumValue):
        return value.value
    return [plain(item) for item in value.items] if isinstance(value, Vector) else value
