"""Latency over time: for each mark a panel, with the median, the 95th and 99th percentile and the largest."""

from __future__ import annotations

import math

import numpy as np

from pellucid.report_page.axes import Linear, Log, clock, milliseconds
from pellucid.report_page.series import Series
from pellucid.report_page.svg import Markup, el, join, points
from pellucid.report_page.tally import Tally
from pellucid.report_page.words import mark_name

__all__ = ["LEFT", "RIGHT", "WIDTH", "events_of", "latency_chart", "time_axis", "time_scale"]

WIDTH, LEFT, RIGHT = 960, 96, 944
_HIGH, _GAP, _TOP, _FOOT = 96, 34, 24, 34
_QS = (0.5, 0.95, 0.99)
_LETTER = 5.4
"""Width of a letter of a label, about."""
_HOLE = 3
"""A line goes on over so many empty bins."""


def time_scale(tally: Tally) -> Linear:
    """Return the axis that all charts over time share."""
    return Linear(0.0, max(tally.grid.last_s, tally.grid.width_s), LEFT, RIGHT)


def time_axis(tally: Tally, top: float, bottom: float) -> Markup:
    """Return the grid and the labels of the time axis."""
    scale = time_scale(tally)
    ticks = scale.times() if tally.timed else scale.ticks(9)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    lines = [el("line", class_="grid", x1=scale(t), x2=scale(t), y1=top, y2=bottom) for t in ticks]
    labels = [
        el(
            "text",
            clock(t, step) if tally.timed else f"{t:,.0f}",
            class_="tick",
            x=scale(t),
            y=bottom + 16,
            text_anchor="middle",
        )
        for t in ticks
    ]
    what = "since the first frame" if tally.timed else "frame number"
    return join(*lines, *labels, el("text", what, class_="axis", x=RIGHT, y=bottom + 31, text_anchor="end"))


def events_of(tally: Tally, top: float, bottom: float) -> Markup:
    """Return a line where a part began, or a stream took over."""
    scale = time_scale(tally)
    lines = []
    free = -math.inf
    for time_s, text in tally.events:
        x = scale(time_s)
        fits = x > free and x + 4 + _LETTER * len(text) < RIGHT
        free = x + 8 + _LETTER * len(text) if fits else free
        lines.append(
            el(
                "g",
                el("title", f"{text}, {_when(tally, time_s)}"),
                el("line", class_="event", x1=x, x2=x, y1=top, y2=bottom),
                el("text", text, class_="mark-label", x=x + 4, y=top + 4) if fits else None,
            )
        )
    return join(*lines)


def latency_chart(tally: Tally, some: dict[str, Series], marks: list[str], name: str) -> Markup:
    """Return the chart of one stream.

    Parameters
    ----------
    tally
    some
        By mark.
    marks
        Those that are shown, from top to bottom.
    name
        Of the stream, for whoever cannot see the chart.
    """
    height = _TOP + len(marks) * (_HIGH + _GAP) - _GAP + _FOOT
    bottom = height - _FOOT
    panels = [_panel(tally, some[mark], mark, _TOP + i * (_HIGH + _GAP)) for i, mark in enumerate(marks)]
    told = "; ".join(
        f"until {mark_name(mark)}: median {milliseconds(some[mark].quantile_ms(0.5))}, "
        f"p99 {milliseconds(some[mark].quantile_ms(0.99))}"
        for mark in marks
    )
    return el(
        "svg",
        el("title", f"Latency over time, {name}"),
        el("desc", told),
        time_axis(tally, _TOP, bottom),
        events_of(tally, _TOP, bottom),
        *panels,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        class_="chart",
    )


def _panel(tally: Tally, series: Series, mark: str, top: float) -> Markup:
    found, largest, counts = series.along(_QS)
    there = counts > 0
    bottom = top + _HIGH
    low, high = _range(found[there], largest[there])
    y = Log(low, high, bottom, top)
    scale, width_s = time_scale(tally), tally.grid.width_s
    x = [scale(min((i + 0.5) * width_s, tally.grid.last_s)) for i in range(len(counts))]
    ticks = [
        join(
            el("line", class_="grid", x1=LEFT, x2=RIGHT, y1=y(v), y2=y(v)),
            el("text", milliseconds(v, tick=True), class_="tick", x=LEFT - 8, y=y(v) + 4, text_anchor="end"),
        )
        for v in y.ticks(4)
    ]
    runs = _runs(there)
    band, middle, rare = [], [], []
    for run in runs:
        upper = [(x[i], y(found[i, 1])) for i in run]
        lower = [(x[i], y(found[i, 0])) for i in run]
        if len(run) == 1:
            middle.append(el("circle", class_="line-p50 dot", cx=lower[0][0], cy=lower[0][1], r=1.8))
            continue
        band.append(el("polygon", class_="band", points=points(upper + lower[::-1])))
        middle.append(el("polyline", class_="line-p50", points=points(lower)))
        rare.append(el("polyline", class_="line-p99", points=points([(x[i], y(found[i, 2])) for i in run])))
    dots = [el("circle", class_="dot-max", cx=x[i], cy=y(largest[i]), r=1.7) for i in np.flatnonzero(there)]
    wide = scale(width_s) - scale(0)
    hover = [
        el(
            "rect",
            el("title", _told(tally, i, found[i], largest[i], counts[i])),
            class_="hover",
            x=float(scale(i * width_s)),
            y=top,
            width=float(min(wide, RIGHT - scale(i * width_s) + 1)),
            height=_HIGH,
        )
        for i in np.flatnonzero(there).tolist()
    ]
    return el(
        "g",
        *ticks,
        el("line", class_="base", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom),
        *band,
        *rare,
        *middle,
        *dots,
        el("text", f"until {mark_name(mark)}", class_="panel", x=LEFT, y=top - 8),
        *hover,
    )


def _range(found: np.ndarray, largest: np.ndarray) -> tuple[float, float]:
    """Return limits that hold all that is drawn, with a little room."""
    low = max(float(np.nanmin(found[:, 0])) if found.size else 1.0, 1e-3)
    high = max(float(largest.max()) if largest.size else 10.0, low)
    return low / 1.3, max(high * 1.15, low * 3)


def _runs(there: np.ndarray) -> list[list[int]]:
    """Return the bins that a line connects."""
    runs: list[list[int]] = []
    for i in np.flatnonzero(there).tolist():
        if runs and i - runs[-1][-1] <= _HOLE:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _told(tally: Tally, i: int, found: np.ndarray, largest: float, count: int) -> str:
    p50, p95, p99 = (milliseconds(float(v)) for v in found)
    when = _when(tally, i * tally.grid.width_s)
    return f"{when}: p50 {p50}, p95 {p95}, p99 {p99}, max {milliseconds(float(largest))} ({count} frames)"


def _when(tally: Tally, time_s: float) -> str:
    return clock(time_s, tally.grid.width_s if time_s < 60 else 1) if tally.timed else f"frame {time_s:,.0f}"
