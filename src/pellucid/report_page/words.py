"""What marks, states and reasons are called on the page, and which colour each has."""

from __future__ import annotations

from collections.abc import Iterable

from pellucid.report_page.tally import ENDS, StreamTally

__all__ = ["STATES", "colour_of", "mark_name", "marks_of", "state_name"]

_MARKS = {
    "camera": "camera",
    "sent": "sent",
    "received": "received",
    "uploaded": "uploaded",
    "downloaded": "downloaded",
    "processed": "restored",
    "recorded": "written",
    "displayed": "drawn",
}
STATES = {
    "lost": "lost",
    "dropped": "dropped",
    "not_recorded": "not recorded",
    "raw_only": "raw only",
    "unfinished": "unfinished",
    "unknown": "unknown",
}
"""The worst first."""
_OTHER_STATES = "unknown"


def mark_name(mark: str) -> str:
    """Return what a mark is called; one that this version does not know by its own name."""
    return _MARKS.get(mark, mark)


def state_name(state: str) -> str:
    """Return what a state is called."""
    return STATES.get(state, state.replace("_", " "))


def colour_of(state: str, number: int = 0) -> str:
    """Return the classes that colour a state; reasons of one state differ by their number."""
    return f"is-{state if state in STATES else _OTHER_STATES} tint-{number % 4}"


def marks_of(stream: StreamTally, *, raw: bool = False) -> list[str]:
    """Return the marks of a stream in the order of the way: what every frame passes, then the ends."""
    some: Iterable[str] = stream.raw_until if raw else stream.until
    marks = list(some)
    return [m for m in marks if m not in ENDS] + [m for m in ENDS if m in marks]
