"""The distribution of each latency: a row for each mark, on one logarithmic axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pellucid.report_page.axes import Log, milliseconds
from pellucid.report_page.chart_time import RIGHT, WIDTH
from pellucid.report_page.series import Series
from pellucid.report_page.svg import Markup, el, join, points
from pellucid.report_page.words import mark_name

__all__ = ["distribution_chart"]

_LEFT = 96
_HIGH, _GAP, _TOP, _FOOT = 62, 22, 20, 34
_BINS = 90
_APART = 26
Shape = tuple[NDArray[np.float64], NDArray[np.int64]]
_QS = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def distribution_chart(some: dict[str, Series], marks: list[str], name: str) -> Markup:
    """Return the chart of one stream; see `latency_chart`."""
    shapes = {mark: some[mark].shape(_BINS) for mark in marks}
    low = min(edges[0] for edges, _ in shapes.values())
    high = max(low * 1.5, *(edges[-1] for edges, _ in shapes.values()))
    height = _TOP + len(marks) * (_HIGH + _GAP) + _FOOT
    bottom = height - _FOOT
    x = Log(low, high, _LEFT, RIGHT)
    ticks = [
        join(
            el("line", class_="grid", x1=x(v), x2=x(v), y1=_TOP, y2=bottom),
            el("text", milliseconds(v, tick=True), class_="tick", x=x(v), y=bottom + 16, text_anchor="middle"),
        )
        for v in x.ticks(10)
    ]
    rows = [_row(some[mark], shapes[mark], mark, x, _TOP + i * (_HIGH + _GAP)) for i, mark in enumerate(marks)]
    told = "; ".join(
        f"until {mark_name(mark)}: " + ", ".join(f"{q} {milliseconds(some[mark].quantile_ms(at))}" for q, at in _QS)
        for mark in marks
    )
    return el(
        "svg",
        el("title", f"Distribution of the latency, {name}"),
        el("desc", told),
        *ticks,
        *rows,
        el("text", "since the camera had the frame", class_="axis", x=RIGHT, y=bottom + 31, text_anchor="end"),
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        class_="chart",
    )


def _row(series: Series, shape: Shape, mark: str, x: Log, top: float) -> Markup:
    edges, counts = shape
    base = top + _HIGH
    most = max(int(counts.max()), 1)
    outline = [(x(edges[0]), base)]
    for i, n in enumerate(counts.tolist()):
        y = base - n / most * (_HIGH - 12)
        outline += [(x(edges[i]), y), (x(edges[i + 1]), y)]
    outline.append((x(edges[-1]), base))
    bars = [
        el(
            "rect",
            el("title", f"{milliseconds(edges[i])} to {milliseconds(edges[i + 1])}: {n} frames"),
            class_="hover",
            x=float(x(edges[i])),
            y=top,
            width=float(max(x(edges[i + 1]) - x(edges[i]), 0.5)),
            height=_HIGH,
        )
        for i, n in enumerate(counts.tolist())
        if n
    ]
    places = {q: series.quantile_ms(at) for q, at in _QS} | {"max": series.max_ms}
    labelled: list[float] = []
    marks = []
    for q in ("p50", "p99", "max", "p95"):  # a label that would lie on another is left out, the last first
        at = x(places[q])
        fits = all(abs(at - other) > _APART for other in labelled)
        labelled += [at] if fits else []
        marks.append(_mark(q, places[q], at, top, base, labelled=fits))
    return el(
        "g",
        el("line", class_="base", x1=_LEFT, x2=RIGHT, y1=base, y2=base),
        el("polygon", class_="hill", points=points(outline)),
        *bars,
        *marks,
        el("text", mark_name(mark), class_="panel", x=_LEFT - 8, y=base - 4, text_anchor="end"),
    )


def _mark(q: str, ms: float, at: float, top: float, base: float, *, labelled: bool) -> Markup:
    """Return a line at a percentile; its number is in the table."""
    return el(
        "g",
        el("title", f"{q} {milliseconds(ms)}"),
        el("line", class_=f"mark mark-{q}", x1=at, x2=at, y1=top + 10, y2=base),
        el("text", q, class_="mark-label", x=at, y=base + 11, text_anchor="middle") if labelled else None,
    )
