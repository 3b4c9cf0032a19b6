"""Tables of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pellucid.report_page.axes import clock, milliseconds
from pellucid.report_page.breakdown import Way
from pellucid.report_page.chart_breakdown import colours
from pellucid.report_page.chart_losses import in_order, tints
from pellucid.report_page.series import Series
from pellucid.report_page.svg import Markup, el, join
from pellucid.report_page.tally import Tally
from pellucid.report_page.words import mark_name, state_name

__all__ = ["facts_list", "latency_table", "loss_table", "summary_table", "table_of", "ways_table"]

_QS = (0.5, 0.95, 0.99)


def table_of(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], texts: Iterable[int] = ()) -> Markup:
    """Return a table; its first column and those in `texts` are text, the others numbers."""
    left = {0, *texts}
    head = [el("th", h, scope="col", class_="text" if i in left else None) for i, h in enumerate(heads)]
    body = [
        el(
            "tr",
            *(
                el("th", cell, scope="row") if i == 0 else el("td", cell, class_="text long" if i in left else None)
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    inside = el("table", el("caption", caption), el("thead", el("tr", *head)), el("tbody", *body))
    return el("div", inside, class_="wide")


def latency_table(until: Mapping[str, Series], marks: Sequence[str], caption: str) -> Markup:
    """Return the percentiles until each mark."""
    rows = [
        (
            f"until {mark_name(mark)}",
            *(milliseconds(until[mark].quantile_ms(q)) for q in _QS),
            milliseconds(until[mark].max_ms),
            milliseconds(until[mark].mean_ms),
            f"{until[mark].count:,}",
        )
        for mark in marks
    ]
    return table_of(caption, ("from the camera", "p50", "p95", "p99", "max", "mean", "frames"), rows)


def ways_table(ways: Sequence[Way]) -> Markup:
    """Return the pieces of the stacked bars, each once, as far as it can be seen in them."""
    tint = colours(list(ways))
    rows: dict[tuple[str, str], list[str]] = {}
    for way in ways:
        what = "raw only" if "raw only" in way.name else "restored"
        for piece in way.pieces:
            percentiles = [milliseconds(ms) for ms in piece.percentiles_ms]
            share = piece.mean_ms / way.total_ms if way.total_ms else 0.0
            chip = el("span", class_=f"chip {tint[piece.name]}", aria_hidden="true")
            name = join(chip, piece.name)
            rows.setdefault((piece.name, what), [name, what, milliseconds(piece.mean_ms), f"{share:.0%}", *percentiles])
    heads = ("part of the way", "frames", "mean", "share", "p50", "p95", "p99", "max")
    return table_of("The parts of the bars. A frame's parts add up, and so do their means.", heads, rows.values(), (1,))


def summary_table(caption: str, head: str, rows: Mapping[str, Any]) -> Markup | None:
    """Return percentiles as a report has them; None where there are none."""
    keys = ("p50", "p95", "p99", "max")
    told = [
        (name, *(milliseconds(_number(row.get(key))) for key in keys), f"{row.get('n', 0):,}")
        for name, row in rows.items()
        if isinstance(row, Mapping) and isinstance(row.get("n"), int) and row["n"] > 0
    ]
    return table_of(caption, (head, *keys, "times"), told) if told else None


def loss_table(tally: Tally) -> Markup:
    """Return what was lost, why, when and which."""
    losses = in_order(tally)
    rows = []
    for loss, tint in zip(losses, tints(losses), strict=True):
        name = join(el("span", class_=f"chip {tint}", aria_hidden="true"), state_name(loss.state))
        numbers = f"{loss.first:,}" if loss.first == loss.last else f"{loss.first:,} to {loss.last:,}"
        streams = ", ".join(str(i) for i in sorted(loss.streams) if i >= 0) or "unknown"
        when = f"{_when(tally, loss.first_s)} to {_when(tally, loss.last_s)}"
        rows.append((name, loss.reason or "no reason known", f"{loss.frames:,}", when, numbers, streams))
    heads = ("what", "why", "frames", "between", "numbers", "streams")
    return table_of("Every frame that is not restored and recorded, by reason.", heads, rows, (1,))


def facts_list(pairs: Iterable[tuple[str, str | None]]) -> Markup:
    """Return names and what they are; None and empty ones are left out."""
    return el("dl", *(join(el("dt", name), el("dd", text)) for name, text in pairs if text), class_="facts")


def _when(tally: Tally, time_s: float) -> str:
    return clock(time_s, 0.1 if time_s < 60 else 1) if tally.timed else f"frame {time_s:,.0f}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
