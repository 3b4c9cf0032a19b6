"""The parts of the page, from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.report_page.axes import milliseconds
from pellucid.report_page.breakdown import ways
from pellucid.report_page.chart_breakdown import breakdown_chart
from pellucid.report_page.chart_distribution import distribution_chart
from pellucid.report_page.chart_losses import losses_chart
from pellucid.report_page.chart_time import latency_chart
from pellucid.report_page.facts import Facts, stream_name, table
from pellucid.report_page.picture_svg import show
from pellucid.report_page.pictures import Pair
from pellucid.report_page.series import Series
from pellucid.report_page.svg import Markup, el, join
from pellucid.report_page.tables import latency_table, loss_table, summary_table, ways_table
from pellucid.report_page.tally import StreamTally, Tally
from pellucid.report_page.words import marks_of

__all__ = ["breakdown_section", "latency_section", "losses_section", "pictures_section"]

_RAW = ", frames that stayed raw only"


def latency_section(facts: Facts, tally: Tally) -> Markup:
    """Return latency over time and its distribution, for each stream."""
    parts: list[Markup | None] = [
        _latency_of(facts, tally, index, stream, raw=raw)
        for index, stream in sorted(tally.streams.items(), key=lambda item: (item[0] < 0, item[0]))
        for raw in (False, True)
    ]
    if not any(parts):
        parts = [el("p", "No row tells a latency.")]
    return _section(
        "latency",
        "Latency",
        "From the moment the camera's side had a frame until each mark on its way. Percentiles are within 1% in the "
        "tables and within 4% along time; the largest are exact.",
        el(
            "ul",
            _key("p50", "median"),
            _key("between", "median to 95th percentile"),
            _key("p99", "99th percentile"),
            _key("max", "largest"),
            class_="key",
        ),
        *parts,
    )


def _latency_of(facts: Facts, tally: Tally, index: int, stream: StreamTally, *, raw: bool) -> Markup | None:
    until, marks = (stream.raw_until if raw else stream.until), marks_of(stream, raw=raw)
    if not marks:
        return None
    name = stream_name(facts.contents, index) + (_RAW if raw else "")
    # On a CPU the last stage writes its result to where it is wanted, and two pictures would be the same.
    drawn = [mark for before, mark in zip([None, *marks], marks, strict=False) if not _repeats(until, before, mark)]
    inside = join(
        _unsure(stream),
        latency_table(until, marks, "Percentiles of the whole run."),
        _figure("Over time.", latency_chart(tally, until, drawn, name)),
        _figure("Distribution.", distribution_chart(until, drawn, name)),
    )
    if raw and stream.until:
        return el("details", el("summary", name), inside)
    return join(el("h3", name), inside)


def _unsure(stream: StreamTally) -> Markup | None:
    """Say how well the clock of another computer was known, to which all latencies are off at most."""
    if not stream.unsure.count:
        return None
    usual, most = milliseconds(stream.unsure.quantile_ms(0.5)), milliseconds(stream.unsure.max_ms)
    return el(
        "p",
        f"The camera is at another computer, whose clock was aligned with this one's over the wire: each latency "
        f"but that until sent, which its own clock tells, is ± {usual} (median; {most} at most).",
        class_="note",
    )


def _repeats(until: Mapping[str, Series], before: str | None, mark: str) -> bool:
    if before is None or mark != "downloaded":
        return False
    one, other = until[before], until[mark]
    return (one.count, one.sum_ms, one.max_ms) == (other.count, other.sum_ms, other.max_ms)


def breakdown_section(facts: Facts, tally: Tally) -> Markup:
    """Return where the time goes."""
    parts: list[Markup | None] = []
    for index, stream in sorted(tally.streams.items(), key=lambda item: (item[0] < 0, item[0])):
        some = ways(stream, index, facts)
        if some:
            name = stream_name(facts.contents, index)
            parts += [el("h3", name), _figure(None, breakdown_chart(some, name)), ways_table(some)]
    within = summary_table(
        "Within each stage and sink, one call each; what frames wait there is not in it.",
        "part",
        table(facts.report, "duration_ms"),
    )
    disk = summary_table(
        "At the disk: how long planes waited for a writer, and a commit, after which a power cut costs nothing.",
        "recorder",
        {
            name: table(facts.report, "recording", key)
            for name, key in (("waited", "waited_ms"), ("commit", "commit_ms"))
        },
    )
    if not parts:
        parts = [el("p", "No row tells a latency.")]
    return _section(
        "time",
        "Where the time goes",
        "The mean frame's way, all bars on one scale. From received to uploaded a frame waits for the stages, and is "
        "copied for them. Rows of older recordings do not tell the stages: there the report's medians are shown.",
        *parts,
        within,
        disk,
    )


def losses_section(tally: Tally) -> Markup:
    """Return frames a second and what was lost, over time."""
    lost = bool(tally.losses.all)
    return _section(
        "losses",
        "Drops and losses",
        "Dropped: a policy left the frame out. Lost: nobody meant to. Raw only: it is recorded as it came, and was "
        "not restored. A frame that never came is shown between those before and behind it."
        if lost
        else "Every frame came, was restored and has its row.",
        el("ul", _key("arrived", "arrived"), _key("p50", "restored"), class_="key"),
        _figure(
            "Frames a second, all streams together" + (", and below what was lost." if lost else "."),
            losses_chart(tally),
        ),
        loss_table(tally) if lost else None,
    )


def pictures_section(facts: Facts, found: Mapping[int, list[Pair]], remarks: list[str]) -> Markup:
    """Return a few frames before and after."""
    parts: list[Markup] = []
    for index, some in found.items():
        name = stream_name(facts.contents, index)
        parts += [_frame(pair, name, facts.stages(index)) for pair in some]
    if not parts:
        parts = [el("p", "There is no picture to show.")]
    parts += [el("p", remark + ".", class_="note") for remark in remarks]
    return _section(
        "pictures",
        "Before and after",
        "The first, the middle and the last frame, each compared with the checksum that was made when it arrived. "
        "Below, the part that varies most in the raw picture, pixel by pixel.",
        *parts,
    )


def _frame(pair: Pair, name: str, stages: list[dict[str, Any]]) -> Markup:
    title = f"{name}, frame {pair.row['seq']:,}"
    shown = show(pair, title)
    names = ["raw", pair.plane + (f" by {' and '.join(str(s.get('stage', '')) for s in stages)}" if stages else "")]
    halves = [
        el(
            "figure",
            el("figcaption", f"{what}, {_range(limit)}"),
            *pictures,
        )
        for what, pictures, limit in zip(names, shown.halves, shown.limits, strict=False)
    ]
    if len(halves) == 1:
        halves.append(el("p", "This frame has no restored picture.", class_="note"))
        how = ""
    elif shown.same:
        how = "Both at the same contrast, by the percentiles 0.1 and 99.9 of both. "
    else:
        how = "Their ranges differ too much for one contrast: each has its own, by its percentiles 0.1 and 99.9. "
    stack = f"Brightest of {pair.slices} slices. " if pair.slices > 1 else ""
    note = el("p", f"{how}{stack}{_scale(pair)}", class_="note")
    return el("div", el("h3", title), *halves, note, class_="frame")


def _scale(pair: Pair) -> str:
    um, fine = pair.pixel_um
    if um is None:
        return "No scale bar: the size of a pixel is not known (pixel_um of the source)."
    other = f", restored {fine:.4g} µm" if pair.restored is not None and fine not in (None, um) else ""
    return f"A pixel is {um:.4g} µm{other}."


def _range(limits: tuple[float, float]) -> str:
    return f"black {limits[0]:.4g}, white {limits[1]:.4g}"


def _key(kind: str, text: str) -> Markup:
    return el("li", el("span", class_=f"chip {kind}", aria_hidden="true"), text)


def _figure(caption: str | None, chart: Markup) -> Markup:
    return el("figure", el("figcaption", caption) if caption else None, el("div", chart, class_="wide", tabindex=0))


def _section(anchor: str, title: str, lead: str, *children: Markup | None) -> Markup:
    return el(
        "section",
        el("h2", title, id=f"{anchor}-title"),
        el("p", lead, class_="lead"),
        *children,
        id=anchor,
        aria_labelledby=f"{anchor}-title",
    )
