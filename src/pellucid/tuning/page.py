"""What a search found, as one HTML file: latency against throughput and against the picture, and all that was tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.resources import files

from pellucid._version import version
from pellucid.report_page.axes import Linear, Log, milliseconds
from pellucid.report_page.svg import Markup, el, join, points
from pellucid.report_page.tables import facts_list, table_of
from pellucid.tuning.goal import Goal, Measured
from pellucid.tuning.limits import front
from pellucid.tuning.search import Candidate, Found

__all__ = ["make_page", "rows_of"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 330, 76, 970, 24, 286
_SAME_DB = 80.0
_STYLE = """
.tried { fill: var(--muted); opacity: .55; } .front { fill: var(--accent-2); } .best { fill: var(--accent); }
.base-point { fill: var(--warm); } .front-line { fill: none; stroke: var(--accent-2); stroke-width: 1; opacity: .5; }
.base-point, .best { stroke: var(--card); stroke-width: 1.5; }
.name { fill: var(--text); font-size: 12px; font-weight: 600; }
.name { paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
.target { stroke: var(--bad); stroke-width: 1.2; stroke-dasharray: 6 4; }
"""


def make_page(found: Found, goal: Goal, limits: Sequence[str], facts: Sequence[tuple[str, str]], name: str) -> str:
    """Return the page.

    Parameters
    ----------
    found
    goal
    limits
        What stands in the way; none where all is there.
    facts
        Names and what they are: computer, frames, command.
    name
        Of the config.
    """
    asked = f"p99 within {goal.latency_ms:g} ms" if goal.latency_ms is not None else "as little latency as there can be"
    reached = "reached" if not limits else "not reached"
    style = (files("pellucid.report_page") / "style.css").read_text("utf-8")
    best = found.best.middle()
    body = el(
        "body",
        el(
            "header",
            el("div", "pellucid tune", class_="kind"),
            el("h1", name, el("span", reached, class_=f"state {'bad' if limits else 'good'}")),
            el("div", f"{asked} until {goal.point}, at {goal.fps:.4g} frames/s", class_="lead"),
            *(el("p", line, class_="banner warn") for line in limits),
            el("p", f"Best: {found.best.name}. {_told(best, goal)}", class_="banner good"),
        ),
        el(
            "main",
            el(
                "section",
                el("h2", "Latency against throughput"),
                el("p", "To the upper left is better. Blue: nothing else is better in all three of latency, throughput "
                   "and picture.", class_="note"),
                _chart(found, goal, "frames/s where the camera waits", lambda one: one.throughput_fps, log=True),
            ),
            el(
                "section",
                el("h2", "Latency against the picture"),
                el("p", "PSNR against the restored frames of the unchanged config, of the worst frame; at the top the "
                   "same pixels.", class_="note"),
                _chart(found, goal, "dB", lambda one: min(max(one.psnr_db, 0.0), _SAME_DB), log=False),
            ) if any(math.isfinite(c.middle().psnr_db) for c in found.tried) else None,
            el("section", el("h2", "All that was tried"), _table(found, goal)),
            el("section", el("h2", "How it was measured"), facts_list(facts)),
        ),
        el("footer", f"Made by pellucid {version}, {datetime.now().astimezone():%Y-%m-%d %H:%M %z}"),
    )  # fmt: skip
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{name}: pellucid tune"),
        el("style", Markup(style + _STYLE)),
    )
    return "<!doctype html>\n" + el("html", head, body, lang="en") + "\n"


def rows_of(found: Found, goal: Goal) -> list[tuple[str, ...]]:
    """Return all candidates as a table, the best first: name, p50, p99, not restored, frames/s, dB, on the front."""
    on_front = dict(zip(map(id, found.tried), front(found, goal), strict=True))
    ordered = sorted(found.tried, key=lambda c: (c is not found.best, goal.order(c.middle())))
    return [_row(one, goal, found, front=on_front[id(one)]) for one in ordered]


def _row(one: Candidate, goal: Goal, found: Found, *, front: bool) -> tuple[str, ...]:
    told = one.middle()
    mark = "best" if one is found.best else "unchanged" if one is found.base else "front" if front else ""
    if told.error:
        return (one.name, "", "", "", "", "", told.error)
    at = told.latency_ms.get(goal.point, {})
    return (
        one.name,
        milliseconds(at.get("p50", math.nan)),
        milliseconds(at.get("p99", math.nan)),
        f"{told.gone:.1%}",
        "–" if math.isnan(told.throughput_fps) else f"{told.throughput_fps:.3g}",
        _db(told.psnr_db),
        mark,
    )


def _db(db: float) -> str:
    return "–" if math.isnan(db) else "same" if db == math.inf else f"{db:.1f}"


def _told(one: Measured, goal: Goal) -> str:
    at = one.latency_ms.get(goal.point, {})
    text = f"p50 {milliseconds(at.get('p50', math.nan))}, p99 {milliseconds(at.get('p99', math.nan))}, "
    return (
        text
        + f"{one.gone:.1%} not restored, {one.throughput_fps:.3g} frames/s at most"
        + (f", {_db(one.psnr_db)} dB from the unchanged picture" if math.isfinite(one.psnr_db) else "")
    )


def _table(found: Found, goal: Goal) -> Markup:
    heads = ("changed", "p50", "p99", "not restored", "frames/s", "dB", "")
    return table_of(f"Latency from the camera until {goal.point}.", heads, rows_of(found, goal), (6,))


def _chart(found: Found, goal: Goal, what: str, value: Callable[[Measured], float], *, log: bool) -> Markup:
    shown = []
    for one, first in zip(found.tried, front(found, goal), strict=True):
        told = one.middle()
        x, y = told.p99(goal), value(told) if not told.error else math.nan
        if math.isfinite(x) and math.isfinite(y):
            shown.append((one, first, x, y))
    if not shown:
        return el("p", "No candidate could be measured.", class_="note")
    xs = [x for *_, x, _ in shown] + ([goal.latency_ms] if goal.latency_ms is not None else [])
    ys = [y for *_, y in shown]
    across = Log(min(xs) / 1.2, max(xs) * 1.2, _LEFT, _RIGHT)
    up: Log | Linear
    if log:
        up = Log(max(min(ys), 1e-3) / 1.2, max(*ys, 0.001) * 1.2, _BOTTOM, _TOP)
    else:
        up = Linear(min(ys) - 3, max(ys) + 3, _BOTTOM, _TOP)
    grid = [
        join(
            el("line", class_="grid", x1=across(v), x2=across(v), y1=_TOP, y2=_BOTTOM),
            el("text", milliseconds(v, tick=True), class_="tick", x=across(v), y=_BOTTOM + 16, text_anchor="middle"),
        )
        for v in across.ticks(9)
    ] + [
        join(
            el("line", class_="grid", x1=_LEFT, x2=_RIGHT, y1=up(v), y2=up(v)),
            el(
                "text",
                "same" if not log and v >= _SAME_DB else f"{v:.4g}",
                class_="tick",
                x=_LEFT - 6,
                y=up(v) + 4,
                text_anchor="end",
            ),
        )
        for v in up.ticks(6)
    ]
    target = None
    if goal.latency_ms is not None:
        at = across(goal.latency_ms)
        target = join(
            el("line", class_="target", x1=at, x2=at, y1=_TOP, y2=_BOTTOM),
            el("text", f"target {goal.latency_ms:g} ms", class_="axis", x=at + 5, y=_TOP + 11),
        )
    line: list[tuple[float, float]] = []
    for x, y in sorted({(x, -y) for *_, x, y in shown}):  # what is best in these two alone
        if not line or -y > line[-1][1]:
            line.append((x, -y))
    # The two with names last, over the others.
    shown.sort(key=lambda row: (row[0] is found.best) + (row[0] is found.base))
    dots = [_dot(one, found, across(x), up(y), goal, first=first) for one, first, x, y in shown]
    return el(
        "svg",
        el("title", f"p99 latency and {what}"),
        *grid,
        target,
        el("polyline", class_="front-line", points=points([(across(x), up(y)) for x, y in line])) if line else None,
        *dots,
        el(
            "text",
            f"p99 from the camera until {goal.point}",
            class_="axis",
            x=_RIGHT,
            y=_BOTTOM + 34,
            text_anchor="end",
        ),
        el("text", what, class_="axis", x=_LEFT, y=_TOP - 10),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        class_="chart",
    )


def _dot(one: Candidate, found: Found, x: float, y: float, goal: Goal, *, first: bool) -> Markup:
    special = "best" if one is found.best else "base-point" if one is found.base else ""
    kind = special or ("front" if first else "tried")
    label = {"best": "best", "base-point": "unchanged"}.get(special)
    if one is found.best and one is found.base:
        label = "unchanged, and best"
    return join(
        el(
            "circle",
            el("title", f"{one.name}: {_told(one.middle(), goal)}"),
            class_=kind, cx=x, cy=y, r=6.5 if special else 4.5,
        ),
        el("text", label, class_="name", x=x, y=y - 11, text_anchor="middle") if label else None,
    )  # fmt: skip
