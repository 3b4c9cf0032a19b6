"""In which order candidates are tried: one key after the other, each at its best value before the next.

Keys that leave the picture as it is come first, those that trade it for time last and only as far as is needed. Then
once more round, since what one key is worth depends on the others. At the end the best are measured again and in turns
with the unchanged config: a single measurement of a busy computer is luck.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pellucid.controls.text import key_of
from pellucid.tuning.goal import Goal, Measured
from pellucid.tuning.space import Knob, Steps

__all__ = ["Candidate", "Changes", "Found", "Reason", "in_words", "search"]

_WORTH = 0.03
"""A candidate has to be better by this part, else it is the noise that is."""
_ROUNDS = 2
_FINALISTS = 2
_REPEATS = 2

Changes = tuple[tuple[Steps, Any], ...]


@dataclass(frozen=True)
class Reason:
    """Why a key was changed: what was measured without the change and with it, all else alike."""

    before: Measured
    after: Measured


@dataclass
class Candidate:
    """A config that was measured.

    Parameters
    ----------
    changes
        Of the unchanged config, by key.
    measured
        All that was measured of it.
    """

    changes: Changes
    measured: list[Measured] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What was changed, in words."""
        return ", ".join(f"{_short(steps)} = {_brief(value)}" for steps, value in self.changes) or "as it is"

    def middle(self) -> Measured:
        """Return one measurement that stands for all: medians of what is a number."""
        some = [one for one in self.measured if not one.error] or self.measured
        if len(some) == 1:
            return some[0]
        latency = {
            point: {
                key: statistics.median(one.latency_ms[point][key] for one in some) for key in some[0].latency_ms[point]
            }
            for point in some[0].latency_ms
            if all(point in one.latency_ms for one in some)
        }
        throughputs = [one.throughput_fps for one in some if one.throughput_fps == one.throughput_fps]
        return replace(
            some[0],
            latency_ms=latency,
            gone=statistics.median(one.gone for one in some),
            throughput_fps=statistics.median(throughputs) if throughputs else some[0].throughput_fps,
            way_ms={name: statistics.median(one.way_ms.get(name, 0.0) for one in some) for name in some[0].way_ms},
        )


@dataclass
class Found:
    """What a search found.

    Parameters
    ----------
    base
        The unchanged config.
    best
        Of all, by the goal.
    tried
        Every candidate, in the order tried; the first is `base`.
    reasons
        By key, for those that `best` changes.
    whole
        All was tried that was to be; False: the time was over before.
    """

    base: Candidate
    best: Candidate
    tried: list[Candidate]
    reasons: dict[Steps, Reason]
    whole: bool


class _Over(Exception):
    pass


def search(
    knobs: Sequence[Knob],
    goal: Goal,
    measure: Callable[[Changes], Measured],
    over: Callable[[], bool],
    tell: Callable[[Candidate], None] = lambda _: None,
) -> Found:
    """Find the best values of some keys.

    Parameters
    ----------
    knobs
        In the order in which they are tried.
    goal
    measure
        Measures the unchanged config with some changes.
    over
        Tells whether the time is over; what was found until then counts.
    tell
        Is told of each candidate, once it is measured.
    """
    tried: dict[str, Candidate] = {}
    reasons: dict[Steps, Reason] = {}

    def look(changes: dict[Steps, Any], *, again: bool = False) -> Candidate:
        ordered = tuple((k.steps, changes[k.steps]) for k in knobs if k.steps in changes)
        candidate = tried.setdefault(repr(ordered), Candidate(ordered))
        if not candidate.measured or again:
            if candidate.measured and over():
                raise _Over
            if len(tried) > 1 and over():
                if not candidate.measured:
                    del tried[repr(ordered)]
                raise _Over
            candidate.measured.append(measure(ordered))
            tell(candidate)
        return candidate

    def better(one: Candidate, other: Candidate) -> bool:
        return _better(goal, one.middle(), other.middle())

    base = best = look({})
    if base.middle().error:
        return Found(base, base, [base], {}, whole=True)
    now: dict[Steps, Any] = {}
    whole = True
    try:
        for _ in range(_ROUNDS):
            before = dict(now)
            for knob in [k for k in knobs if not k.trades] + [k for k in knobs if k.trades]:
                if goal.met(best.middle()) and knob.trades and knob.steps not in now:
                    continue  # the picture need not be traded
                for value in (*knob.values, knob.now):
                    given = now | {knob.steps: value}
                    if value == knob.now:
                        del given[knob.steps]
                    one = look(given)
                    if better(one, best):
                        reasons[knob.steps] = Reason(best.middle(), one.middle())
                        best, now = one, given
                    if knob.trades and goal.met(one.middle()):
                        break  # what comes behind has a worse picture
            if now == before or (goal.latency_ms is not None and goal.met(best.middle()) and not _trades(knobs, now)):
                break
        ranked = sorted((c for c in tried.values() if c is not base), key=lambda c: goal.order(c.middle()))
        for _ in range(_REPEATS):
            for candidate in [base, *ranked[:_FINALISTS]]:
                if not candidate.measured[0].error:
                    look(dict(candidate.changes), again=True)
    except _Over:
        whole = False
    best = min(tried.values(), key=lambda c: goal.order(c.middle()))
    if best is not base and not _better(goal, best.middle(), base.middle()):
        best = base
    changed = dict(best.changes)
    return Found(base, best, list(tried.values()), {s: r for s, r in reasons.items() if s in changed}, whole)


def _better(goal: Goal, one: Measured, other: Measured) -> bool:
    """Tell whether one is better, and by more than the noise."""
    mine, others = goal.order(one), goal.order(other)
    for first, second in zip(mine, others, strict=False):
        if first == second:
            continue
        return first < second and (math.isinf(second) or first < second - abs(second) * _WORTH)
    return len(mine) > len(others)


def _trades(knobs: Sequence[Knob], now: dict[Steps, Any]) -> bool:
    return any(k.trades and k.steps in now for k in knobs)


def _short(steps: Steps) -> str:
    """Return a key as a table has room for it: without what goes without saying."""
    return key_of(
        steps[2:] if steps[:2] in (("stages", "0"), ("sinks", "0")) else steps[-1:] if len(steps) == 2 else steps
    )


def _brief(value: Any) -> str:
    """Return a value in as few words as say which it is."""
    if isinstance(value, dict):
        return " ".join(str(one) for one in value.values())
    return in_words(value)


def in_words(value: Any) -> str:
    """Return a value as a config has it."""
    if value is None:
        return "left out"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {in_words(one)}" for key, one in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
