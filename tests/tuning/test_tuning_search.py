"""The search on measurements whose optimum is known: what it changes, what it leaves, and when it ends."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from pellucid.tuning.goal import Goal, Measured
from pellucid.tuning.limits import front, limits
from pellucid.tuning.search import search
from pellucid.tuning.space import Knob

THREADS, STEPS, SLOTS = ("session", "threads"), ("stages", "0", "iterations"), ("session", "slots")
KNOBS = [
    Knob(STEPS, (6, 4, 3, 2, 1), 8, trades=True),
    Knob(THREADS, (1, 2, 4)),
    Knob(SLOTS, (4, 32)),
]


def computer(changes, *, noise=0.0, chance=None, fps=100.0):
    """Two threads are best, each step takes 3 ms in one; more slots let frames wait; fewer steps are worse."""
    given = dict(changes)
    threads = given.get(THREADS) or 1
    speed = {1: 1.0, 2: 1.8, 4: 0.7}[threads]
    steps = given.get(STEPS, 8)
    ms = 3.0 * steps / speed * (1 + noise * ((chance or random).random() - 0.5))
    slots = given.get(SLOTS, 16)
    gone = max(0.0, 1 - 1000 / fps / ms)
    p99 = ms * 1.2 + (ms * slots if gone else 0.02 * slots)
    db = math.inf if steps == 8 else 30 + 4 * steps
    latency = {"p50": ms, "p95": ms * 1.1, "p99": p99, "max": p99, "n": 100.0}
    way = {"to the session": 0.1, "waiting": 0.2, "deconvolve": ms, "back": 0.1}
    return Measured("", db, {"restored": latency}, way, gone, 1000 / ms, 100.0)


def run(goal, *, measure=computer, over=lambda: False, knobs=KNOBS):
    seen = []

    def look(changes):
        seen.append(dict(changes))
        return measure(changes)

    return search(knobs, goal, look, over), seen


def test_the_known_optimum_is_found_and_the_picture_traded_no_further_than_needed():
    goal = Goal(100.0, 9.0)
    found, _ = run(goal)
    # The whole grid says what is best: the most steps that keep up within the target.
    grid = [
        tuple(zip((STEPS, THREADS, SLOTS), values, strict=True))
        for values in itertools.product((8, 6, 4, 3, 2, 1), (1, 2, 4), (4, 16, 32))
    ]
    best = min(grid, key=lambda changes: goal.order(computer(changes)))
    assert found.whole
    changes = dict(found.best.changes)
    assert changes[STEPS] == dict(best)[STEPS] == 4
    assert changes[THREADS] == dict(best)[THREADS] == 2
    assert goal.met(found.best.middle())
    assert set(found.reasons) == set(changes)
    reason = found.reasons[STEPS]
    assert goal.order(reason.after) < goal.order(reason.before)


def test_a_target_that_needs_no_trade_leaves_the_picture():
    found, seen = run(Goal(60.0, 25.0), measure=lambda changes: computer(changes, fps=60.0))
    assert STEPS not in dict(found.best.changes)
    assert not any(STEPS in changes for changes in seen)
    assert found.best.middle().psnr_db == math.inf
    assert not limits(found, Goal(60.0, 25.0))


def test_a_bound_of_the_picture_is_kept_and_named():
    goal = Goal(100.0, 3.0, least_db=41.0)
    found, _ = run(goal)
    assert dict(found.best.changes)[STEPS] == 3
    lines = limits(found, goal)
    assert any("ms (" in line and "over the target" in line and "deconvolve" in line for line in lines)
    assert any("iterations = 1" in line and "--min-psnr" in line and "34 dB" in line for line in lines)


def test_without_a_target_the_least_latency_within_the_bound_is_taken():
    found, _ = run(Goal(100.0, None, least_db=37.0))
    assert dict(found.best.changes)[STEPS] == 2
    assert dict(found.best.changes)[THREADS] == 2


def test_a_rate_that_cannot_be_reached_says_by_how_much():
    goal = Goal(2000.0, 50.0)
    found, _ = run(goal, measure=lambda changes: computer(changes, fps=2000.0))
    (line, *_) = limits(found, goal)
    ms = found.best.middle().way_ms["deconvolve"]
    assert f"{1 - 0.5 / ms:.1%} of the frames are not restored at 2000 frames/s" in line
    assert "there are 0.5 ms for each" in line
    assert f"{1000 / ms:.3g} frames/s would go" in line


@pytest.mark.parametrize("seed", range(5))
def test_noise_changes_nothing(seed):
    chance = random.Random(seed)
    found, _ = run(
        Goal(20.0, None), measure=lambda changes: computer((), noise=0.02, chance=chance, fps=20.0), knobs=KNOBS[1:]
    )
    assert found.best is found.base


def test_a_candidate_that_fails_is_passed_over():
    def measure(changes):
        return Measured("its process died with -9") if dict(changes).get(THREADS) == 2 else computer(changes)

    found, _ = run(Goal(100.0, 30.0), measure=measure)
    assert dict(found.best.changes).get(THREADS) != 2
    assert sum(bool(one.middle().error) for one in found.tried) >= 1
    assert front(found, Goal(100.0, 30.0)).count(True) >= 1


def test_a_config_that_cannot_run_ends_the_search_at_once():
    found, seen = run(Goal(100.0, 9.0), measure=lambda _: Measured("no such psf"))
    assert found.base.middle().error == "no such psf"
    assert len(seen) == 1


def test_the_end_of_the_time_keeps_what_was_found():
    count = itertools.count()
    found, seen = run(Goal(100.0, 9.0), over=lambda: next(count) > 4)
    assert not found.whole
    assert 2 <= len(seen) < 12
    assert found.best in found.tried
    assert all(one.measured for one in found.tried)


def test_the_best_are_measured_again_beside_the_unchanged_one():
    found, _ = run(Goal(100.0, 9.0))
    assert len(found.base.measured) == len(found.best.measured) == 3


def test_the_front_holds_nothing_that_another_beats_in_all():
    goal = Goal(100.0, 9.0)
    found, _ = run(goal)
    marked = front(found, goal)
    assert marked[found.tried.index(found.best)]
    for one, first in zip(found.tried, marked, strict=True):
        mine = one.middle()
        beaten = any(
            other.middle().p99(goal) < 0.9 * mine.p99(goal)
            and other.middle().throughput_fps > 1.1 * mine.throughput_fps
            and other.middle().psnr_db >= mine.psnr_db
            and other.middle().gone <= mine.gone
            for other in found.tried
        )
        assert not (first and beaten)
