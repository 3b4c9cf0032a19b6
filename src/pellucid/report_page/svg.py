"""Elements of HTML and SVG as text; what is not an element is escaped."""

from __future__ import annotations

from html import escape

__all__ = ["Markup", "el", "join", "num", "points"]

_VOID = frozenset({"meta", "br", "img", "col", "circle", "line", "path", "polygon", "polyline", "rect", "image"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def el(name: str, /, *children: str | None, **attributes: object) -> Markup:
    """Return an element.

    Parameters
    ----------
    name
    children
        Elements, or text that is escaped; None is left out.
    attributes
        ``stroke_width`` becomes ``stroke-width``, ``class_`` ``class``; floats get two digits; None is left out, True
        is an attribute without a value.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(_value(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = join(*children)
    if not inside and name in _VOID:
        return Markup(f"<{name}{told}/>")
    return Markup(f"<{name}{told}>{inside}</{name}>")


def join(*children: str | None) -> Markup:
    """Return children one after the other."""
    return Markup("".join(c if isinstance(c, Markup) else escape(c) for c in children if c is not None))


def num(value: float) -> str:
    """Return a coordinate: two digits are a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def points(pairs: list[tuple[float, float]]) -> str:
    """Return the coordinates of a line or a polygon."""
    return " ".join(f"{num(x)},{num(y)}" for x, y in pairs)


def _value(value: object) -> str:
    return num(value) if isinstance(value, float) else str(value)
