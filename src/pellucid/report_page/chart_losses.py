"""Frames a second, and below them what did not arrive, was not restored or not recorded, with its reasons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pellucid.report_page.axes import Linear
from pellucid.report_page.chart_time import LEFT, RIGHT, WIDTH, events_of, time_axis, time_scale
from pellucid.report_page.losses import Loss
from pellucid.report_page.svg import Markup, el, join, points
from pellucid.report_page.tally import Tally
from pellucid.report_page.words import STATES, colour_of, state_name

__all__ = ["in_order", "losses_chart", "tints"]

_TOP, _RATE, _GAP, _LOST, _FOOT = 24, 116, 36, 110, 34


def in_order(tally: Tally) -> list[Loss]:
    """Return the losses, the worst state first and within it the most frequent reason."""
    rank = list(STATES)
    return sorted(
        tally.losses.all.values(),
        key=lambda loss: (rank.index(loss.state) if loss.state in rank else len(rank), -loss.frames),
    )


def tints(losses: list[Loss]) -> list[str]:
    """Return the classes that colour each: those of one state differ by their shade."""
    seen: dict[str, int] = {}
    out = []
    for loss in losses:
        out.append(colour_of(loss.state, seen.get(loss.state, 0)))
        seen[loss.state] = seen.get(loss.state, 0) + 1
    return out


def losses_chart(tally: Tally) -> Markup:
    """Return the chart of all streams together; without a loss the upper half alone."""
    losses = in_order(tally)
    middle = _TOP + _RATE
    bottom = middle + _GAP + _LOST if losses else middle
    height = bottom + _FOOT
    told = "; ".join(f"{loss.frames} {state_name(loss.state)}: {loss.reason or 'no reason known'}" for loss in losses)
    return el(
        "svg",
        el("title", "Frames a second, and what was lost, over time"),
        el("desc", told or "nothing was dropped or lost"),
        time_axis(tally, _TOP, bottom),
        events_of(tally, _TOP, bottom),
        _rates(tally, _TOP, middle),
        _bars(tally, losses, middle + _GAP, bottom) if losses else None,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        class_="chart",
    )


def _rates(tally: Tally, top: float, bottom: float) -> Markup:
    used, width_s = tally.grid.used, tally.grid.width_s
    arrived = _sum([stream.arrived.values for stream in tally.streams.values()], used)
    restored = _sum([stream.restored.values for stream in tally.streams.values()], used)
    # The last bin is not over when the run is.
    seconds = np.full(used, width_s)
    seconds[-1] = max(tally.grid.last_s - (used - 1) * width_s, width_s / 2)
    unit = "/s" if tally.timed else f" of {width_s:.3g}"
    rates = [counts / (seconds if tally.timed else 1) for counts in (arrived, restored)]
    high = max(float(rates[0].max(initial=0)), 1e-9)
    y = Linear(0, high * 1.08, bottom, top)
    scale = time_scale(tally)
    ticks = [
        join(
            el("line", class_="grid", x1=LEFT, x2=RIGHT, y1=y(v), y2=y(v)),
            el("text", f"{v:,.6g}{unit}", class_="tick", x=LEFT - 8, y=y(v) + 4, text_anchor="end"),
        )
        for v in y.ticks(4)
    ]
    title = el("text", "frames a second" if tally.timed else "frames", class_="panel", x=LEFT, y=top - 8)
    lines = []
    for values, kind in zip(rates, ("arrived", "restored"), strict=True):
        steps = [
            (scale(min(i + k, used) * width_s if i + k < used else tally.grid.last_s), y(v))
            for i, v in enumerate(values.tolist())
            for k in (0, 1)
        ]
        if kind == "arrived":
            base = [(steps[-1][0], bottom), (steps[0][0], bottom)]
            lines.append(el("polygon", class_="area-arrived", points=points(steps + base)))
        lines.append(el("polyline", class_=f"line-{kind}", points=points(steps)))
    return el("g", *ticks, el("line", class_="base", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom), *lines, title)


def _bars(tally: Tally, losses: list[Loss], top: float, bottom: float) -> Markup:
    used, width_s = tally.grid.used, tally.grid.width_s
    each = np.array([loss.along.values[:used] for loss in losses], np.int64)
    high = max(int(each.sum(0).max()), 1)
    y, scale = Linear(0, high, bottom, top), time_scale(tally)
    ticks = [
        join(
            el("line", class_="grid", x1=LEFT, x2=RIGHT, y1=y(v), y2=y(v)),
            el("text", f"{v:,.0f}", class_="tick", x=LEFT - 8, y=y(v) + 4, text_anchor="end"),
        )
        for v in y.ticks(3)
        if v == round(v)
    ]
    each_of = f"{width_s:.2g} s" if tally.timed else f"{width_s:,.0f} frames"
    title = el("text", f"what went wrong, frames in each {each_of}", class_="panel", x=LEFT, y=top - 8)
    bars = []
    wide = max(scale(width_s) - scale(0) - 0.6, 1.2)
    for i in np.flatnonzero(each.sum(0)).tolist():
        below = 0
        x = min(scale(i * width_s), RIGHT - wide)
        for loss, tint, n in zip(losses, tints(losses), each[:, i].tolist(), strict=True):
            if n:
                bars.append(
                    el(
                        "rect",
                        el("title", f"{n} {state_name(loss.state)}: {loss.reason or 'no reason known'}"),
                        class_=f"loss {tint}",
                        x=float(x),
                        y=float(y(below + n)),
                        width=float(wide),
                        height=float(y(below) - y(below + n)),
                    )
                )
                below += n
    return el("g", *ticks, el("line", class_="base", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom), *bars, title)


def _sum(some: list[NDArray[np.generic]], used: int) -> NDArray[np.float64]:
    total = np.zeros(used)
    for values in some:
        total += values[:used].astype(np.float64)
    return total
