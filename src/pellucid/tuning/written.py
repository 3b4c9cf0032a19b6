"""The tuned config as a file: the user's own text, its comments kept, with the reasons beside what was changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import tomlkit

from pellucid._version import version
from pellucid.controls.text import get, put
from pellucid.tuning.goal import Goal, Measured
from pellucid.tuning.search import Found, in_words

__all__ = ["tuned_text"]

_SIGN = "tune: "


def tuned_text(text: str, found: Found, goal: Goal, limits: Sequence[str], told: str) -> str:
    """Return a config's text with the best values, and comments that say why.

    Parameters
    ----------
    text
        Of the unchanged config.
    found
    goal
    limits
        What stands in the way of the goal, if anything.
    told
        What was measured, and on which computer.
    """
    document = tomlkit.parse(text)
    for steps, value in found.best.changes:
        before = get(document.unwrap(), steps)
        table = get(document, steps[:-1]) if len(steps) > 1 else document
        if table is None:
            document[steps[0]] = tomlkit.table()
        held = table is not None and steps[-1] in table
        put(document, steps, value)
        reason = found.reasons.get(steps)
        why = _why(before, reason.before, reason.after, goal) if reason else "found together with the other changes"
        _say(get(document, steps[:-1]), steps[-1], f"{_SIGN}{why}", gone=value is None, held=held)
    return _head(found, goal, limits, told) + tomlkit.dumps(document)


def _why(before: Any, one: Measured, other: Measured, goal: Goal) -> str:
    parts = [f"was {in_words(before)}"]
    parts.append(f"p99 {_ms(other.p99(goal))} instead of {_ms(one.p99(goal))}")
    if one.gone > 0 or other.gone > 0:
        parts.append(f"{other.gone:.1%} of the frames not restored instead of {one.gone:.1%}")
    if other.psnr_db < math.inf and other.psnr_db != one.psnr_db:
        parts.append(f"{other.psnr_db:.3g} dB from the unchanged picture")
    return "; ".join(parts)


def _say(table: Any, key: str, line: str, *, gone: bool, held: bool) -> None:
    """Put a comment behind a key, in front of what stood there; of one that is gone to the end of its table."""
    if gone:
        if isinstance(table, tomlkit.items.Table):
            table.add(tomlkit.comment(f"{key} left out. {line}"))
        return
    item = table[key]
    old = item.trivia.comment.lstrip("# ") if held and item.trivia.comment else ""
    item.comment(f"{line}. {old}" if old and not old.startswith(_SIGN) else line)


def _head(found: Found, goal: Goal, limits: Sequence[str], told: str) -> str:
    base, best = found.base.middle(), found.best.middle()
    asked = f"p99 within {goal.latency_ms:g} ms" if goal.latency_ms is not None else "as little latency as there can be"
    lines = [
        f"Tuned by pellucid {version} on {datetime.now().astimezone():%Y-%m-%d}: {asked} until {goal.point}, "
        f"at {goal.fps:.4g} frames/s.",
        f"Now p99 {_ms(best.p99(goal))}, {best.gone:.1%} not restored"
        + (f", {best.psnr_db:.3g} dB from the unchanged picture" if best.psnr_db < math.inf else "")
        + f"; before p99 {_ms(base.p99(goal))}, {base.gone:.1%} not restored.",
        f"Measured: {told}.",
    ]
    lines += [f"NOT REACHED: {line}." for line in limits]
    return "".join(f"# {line}\n" for line in lines) + "#\n"


def _ms(ms: float) -> str:
    return f"{ms:.3g} ms" if math.isfinite(ms) else "never"
