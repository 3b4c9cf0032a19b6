"""The stacked bars of `breakdown`, all on one scale."""

from __future__ import annotations

from collections import Counter

from pellucid.report_page.axes import Linear, milliseconds
from pellucid.report_page.breakdown import Piece, Way
from pellucid.report_page.chart_time import RIGHT, WIDTH
from pellucid.report_page.svg import Markup, el, join

__all__ = ["breakdown_chart", "colours"]

_LEFT, _TOP, _HIGH, _GAP, _FOOT = 168, 8, 34, 14, 34
_LETTER = 6.6
"""Width of a letter of the labels, about: a label that does not fit is in the table alone."""


def colours(ways: list[Way]) -> dict[str, str]:
    """Return a class for each piece, by its name; what is the same in two bars has one colour."""
    seen: Counter[str] = Counter()
    out: dict[str, str] = {}
    for way in ways:
        for piece in way.pieces:
            if piece.name not in out:
                out[piece.name] = f"piece {piece.kind}-{seen[piece.kind] % 4}"
                seen[piece.kind] += 1
    return out


def breakdown_chart(ways: list[Way], name: str) -> Markup:
    """Return the bars of one stream."""
    height = _TOP + len(ways) * (_HIGH + _GAP) + _FOOT
    bottom = height - _FOOT
    x = Linear(0.0, max((way.total_ms for way in ways), default=1.0) or 1.0, _LEFT, RIGHT - 76)
    tint = colours(ways)
    ticks = [
        join(
            el("line", class_="grid", x1=x(v), x2=x(v), y1=_TOP, y2=bottom),
            el(
                "text",
                milliseconds(v, tick=True) if v else "0",
                class_="tick",
                x=x(v),
                y=bottom + 16,
                text_anchor="middle",
            ),
        )
        for v in x.ticks(7)
    ]
    told = "; ".join(
        f"{way.name}: {milliseconds(way.total_ms)}, of which "
        + ", ".join(f"{piece.name} {milliseconds(piece.mean_ms)}" for piece in way.pieces)
        for way in ways
    )
    bars = [_bar(way, x, _TOP + i * (_HIGH + _GAP) + _GAP / 2, tint) for i, way in enumerate(ways)]
    return el(
        "svg",
        el("title", f"Where the time goes, mean of all frames, {name}"),
        el("desc", told),
        *ticks,
        *bars,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        class_="chart",
    )


def _bar(way: Way, x: Linear, top: float, tint: dict[str, str]) -> Markup:
    pieces: list[Markup] = []
    at_ms = 0.0
    for piece in way.pieces:
        pieces.append(_piece(piece, x(at_ms), x(at_ms + piece.mean_ms), top, tint[piece.name], way.total_ms))
        at_ms += piece.mean_ms
    return el(
        "g",
        el("text", way.name, class_="panel", x=_LEFT - 10, y=top + 15, text_anchor="end"),
        el("text", f"{way.frames:,} frames", class_="tick", x=_LEFT - 10, y=top + 29, text_anchor="end"),
        *pieces,
        el("text", milliseconds(way.total_ms), class_="total", x=x(at_ms) + 8, y=top + _HIGH / 2 + 5),
    )


def _piece(piece: Piece, left: float, right: float, top: float, tint: str, total_ms: float) -> Markup:
    label = milliseconds(piece.mean_ms)
    share = piece.mean_ms / total_ms if total_ms else 0.0
    fits = right - left > len(label) * _LETTER + 8
    return el(
        "g",
        el("title", f"{piece.name}: {label}, {share:.0%}"),
        el("rect", class_=tint, x=float(left), y=float(top), width=float(max(right - left, 0.0)), height=_HIGH),
        el("text", label, class_="inside", x=(left + right) / 2, y=top + _HIGH / 2 + 4, text_anchor="middle")
        if fits
        else None,
    )
