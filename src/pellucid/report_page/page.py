"""The page as a whole: one HTML file that needs nothing beside it, and no script."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from pellucid._version import version
from pellucid.recording.amounts import span
from pellucid.report_page.axes import milliseconds
from pellucid.report_page.facts import Facts, read_facts, table
from pellucid.report_page.pictures import pairs
from pellucid.report_page.run_section import run_section
from pellucid.report_page.sections import breakdown_section, latency_section, losses_section, pictures_section
from pellucid.report_page.svg import Markup, el
from pellucid.report_page.tally import Tally

__all__ = ["make_page"]

_STATES = {
    "finished": ("good", "finished"),
    "recovered": ("warn", "recovered after it died"),
    "recording": ("bad", "not ended"),
}
_NAV = (
    ("latency", "Latency"),
    ("time", "Where the time goes"),
    ("losses", "Drops and losses"),
    ("pictures", "Before and after"),
    ("run", "What ran"),
)
_NOTES = 40


def make_page(folder: Path, tell: Callable[[int], None] | None = None) -> str:
    """Return the report of a recording as HTML.

    Parameters
    ----------
    folder
        Of a recording: finished, recovered, running, or killed.
    tell
        Takes now and then how many rows were read.

    Raises
    ------
    SinkError
        Where it is no recording, or its rows cannot be read.
    """
    facts = read_facts(folder)
    tally = Tally(facts.contents, tell)
    found, remarks = pairs(facts.contents, tally)
    style = (files("pellucid.report_page") / "style.css").read_text("utf-8")
    damaged = len(facts.contents.damaged)
    if damaged and not (damaged == 1 and facts.state == "recording"):  # a kill cuts the last line
        facts.remarks.append(f"{damaged} lines of frames.jsonl are damaged and were left out")
    body = el(
        "body",
        _header(facts, tally),
        el(
            "main",
            _notes(facts),
            latency_section(facts, tally),
            breakdown_section(facts, tally),
            losses_section(tally),
            pictures_section(facts, found, remarks),
            run_section(facts),
        ),
        el(
            "footer",
            f"Made by pellucid {version}, {datetime.now().astimezone():%Y-%m-%d %H:%M %z}, from {folder.absolute()}",
        ),
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{facts.name}: pellucid report"),
        el("style", Markup(style)),
    )
    return "<!doctype html>\n" + el("html", head, body, lang="en") + "\n"


def _header(facts: Facts, tally: Tally) -> Markup:
    kind, state = _STATES[facts.state]
    ended = facts.report.get("ended")
    began = f"began {_clock(facts.contents.about.began)}" if facts.contents.about.began else ""
    return el(
        "header",
        el("div", "pellucid report", class_="kind"),
        el("h1", facts.name, el("span", state, class_=f"state {kind}")),
        el("div", "; ".join(text for text in (began, f"ended: {ended}" if ended else "") if text), class_="lead"),
        el(
            "p",
            "This recording was not ended: it still runs, or it was killed. What is shown is what its rows told so "
            f"far. If nothing records to it: type pellucid recover {facts.contents.folder}",
            class_="banner warn",
        )
        if facts.state == "recording"
        else None,
        _tiles(facts, tally),
        el("nav", *(el("a", title, href=f"#{anchor}") for anchor, title in _NAV), aria_label="Parts of this page"),
    )


def _tiles(facts: Facts, tally: Tally) -> Markup:
    frames = tally.frames
    seconds = tally.grid.last_s if tally.timed else 0.0
    gone = frames["dropped"] + frames["lost"] + frames["unknown"]
    unaccounted = table(facts.report, "frames").get("unaccounted")
    per_s = (frames["received"] - 1) / seconds if seconds > 0 else 0.0
    restored = frames["processed"]
    share = f"{restored / frames['received']:.0%} of those that came" if frames["received"] else ""
    tiles = [
        _tile("frames", f"{frames['produced']:,}", f"in {span(seconds)}, {per_s:.3g}/s" if seconds else ""),
        _tile("restored", f"{restored:,}", share, "" if restored == frames["received"] else "warn"),
        _tile(
            "dropped or lost",
            f"{gone:,}",
            f"{frames['dropped']:,} dropped, {frames['lost'] + frames['unknown']:,} lost",
            "bad" if frames["lost"] or frames["unknown"] else "warn" if gone else "good",
        ),
        _tile(
            "recorded",
            f"{frames['recorded']:,}",
            "" if unaccounted is None else f"{unaccounted} unaccounted for",
            "bad" if unaccounted else "",
        ),
    ]
    for mark, name in (("recorded", "camera to disk"), ("displayed", "camera to screen")):
        some = [stream.until[mark] for stream in tally.streams.values() if mark in stream.until]
        if some:
            slowest = max(some, key=lambda series: series.quantile_ms(0.99))
            more = f"p99 {milliseconds(slowest.quantile_ms(0.99))}, max {milliseconds(slowest.max_ms)}"
            tiles.append(_tile(name, milliseconds(slowest.quantile_ms(0.5)), "p50; " + more))
    return el("dl", *tiles, class_="tiles")


def _tile(name: str, value: str, more: str = "", kind: str = "") -> Markup:
    return el(
        "div",
        el("dt", name),
        el("dd", value, el("span", more, class_="more") if more else None),
        class_=kind or None,
    )


def _notes(facts: Facts) -> Markup | None:
    told = facts.report.get("notes")
    notes = [str(note) for note in told] if isinstance(told, list) else []
    if len(notes) > _NOTES:
        notes = [*notes[:_NOTES], f"and {len(notes) - _NOTES} more (report.json)"]
    notes = facts.remarks + notes
    if not notes:
        return None
    return el(
        "section",
        el("h2", "Notes", id="notes-title"),
        el("ul", *(el("li", note) for note in notes)),
        id="notes",
        aria_labelledby="notes-title",
    )


def _clock(iso: str) -> str:
    """Return a time as people read it; as it is where it is none."""
    try:
        return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S %Z}".strip()
    except ValueError:
        return iso
