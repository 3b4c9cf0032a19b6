"""What stands between a config and what is asked of it, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pellucid.tuning.goal import Goal, Measured
from pellucid.tuning.search import Found

__all__ = ["front", "limits"]

_WHERE = {"restored": "restored", "disk": "on the disk", "display": "on the screen"}
_OF_SESSION = ("to the session", "waiting", "back")


def limits(found: Found, goal: Goal) -> list[str]:
    """Return what limits the best config, a line each; none where all that is asked is there."""
    best = found.best.middle()
    if (goal.latency_ms is None and goal.keeps_up(best)) or goal.met(best):
        return []
    period = 1000 / goal.fps
    stages = {name: ms for name, ms in best.way_ms.items() if name not in _OF_SESSION}
    chain = sum(stages.values())
    lines = []
    if not goal.keeps_up(best):
        line = f"{best.gone:.1%} of the frames are not restored at {goal.fps:.4g} frames/s"
        if chain > period:
            slowest = max(stages, key=lambda name: stages[name])
            line += (
                f": there are {period:.3g} ms for each, and {_stage(slowest, stages)} "
                f"({chain / period:.2g} times as long as there is; {1000 / chain:.3g} frames/s would go)"
            )
        elif best.throughput_fps < goal.fps:
            line += f": {best.throughput_fps:.3g} frames/s are the most that goes, with all its parts"
        elif best.throughput_fps >= goal.fps:
            line += f", though {best.throughput_fps:.3g} frames/s go on the whole: it stalls now and then"
        lines.append(line)
    p99 = best.p99(goal)
    if goal.latency_ms is not None and p99 > goal.latency_ms:
        lines.append(_late(best, goal, stages, p99))
    lines += _bounds(found, goal)
    return lines


def _late(best: Measured, goal: Goal, stages: dict[str, float], p99: float) -> str:
    assert goal.latency_ms is not None
    if math.isinf(p99):
        return f"no frame came to be {_WHERE[goal.point]}"
    over = p99 - goal.latency_ms
    by = f"{over:.3g} ms ({over / goal.latency_ms:.0%})"
    line = f"p99 {p99:.3g} ms until it is {_WHERE[goal.point]}: {by} over the target"
    p50 = best.latency_ms[goal.point]["p50"]
    behind = best.latency_ms[goal.point]["p50"] - sum(best.way_ms.values())
    pieces = {**best.way_ms, _WHERE[goal.point]: behind if goal.point != "restored" else 0.0}
    name = max(pieces, key=lambda piece: pieces[piece], default="")
    if name in stages:
        line += f"; most of it is {_stage(name, stages)}"
    elif name == "waiting":
        line += f'; a frame waits {pieces[name]:.3g} ms of it for the one before it: fewer slots, or restore = "latest"'
    elif name:
        line += f"; most of it, {pieces[name]:.3g} ms, is the way {name if name.startswith('to') else 'to be ' + name}"
    if p50 <= goal.latency_ms:
        line += f". The median, {p50:.3g} ms, is within it: it is single frames that are late"
    return line


def _stage(name: str, stages: dict[str, float]) -> str:
    rest = f" of {sum(stages.values()):.3g}" if len(stages) > 1 else ""
    return f"the stage {name}, which takes {stages[name]:.3g} ms{rest}"


def _bounds(found: Found, goal: Goal) -> list[str]:
    """Return what would be quick enough, were it not for the picture."""
    free = Goal(goal.fps, goal.latency_ms, goal.point, -math.inf)
    quick = [one for one in found.tried if free.met(one.middle()) and not goal.good(one.middle())]
    if not quick:
        return []
    one = max(quick, key=lambda candidate: candidate.middle().psnr_db)
    told = one.middle()
    return [
        f"{one.name} would reach it ({told.p99(goal):.3g} ms), with a picture of {told.psnr_db:.3g} dB, "
        f"below the {goal.least_db:g} dB asked (--min-psnr)"
    ]


def front(found: Found, goal: Goal) -> list[bool]:
    """Tell of each candidate whether no other is better in latency, throughput and picture at once."""
    points = [_point(one.middle(), goal) for one in found.tried]
    return [
        not one.middle().error and not any(_dominates(other, mine) for other in points)
        for one, mine in zip(found.tried, points, strict=True)
    ]


def _point(one: Measured, goal: Goal) -> tuple[float, ...]:
    if one.error:
        return (math.inf, math.inf, math.inf, math.inf)
    fps = one.throughput_fps if one.throughput_fps == one.throughput_fps else 0.0
    db = one.psnr_db if one.psnr_db == one.psnr_db else math.inf
    # A rate or latency that differs by less than what measurements do is the same.
    return (round(one.gone, 2), round(math.log(max(one.p99(goal), 1e-3)), 2), -round(math.log(max(fps, 1e-3)), 2), -db)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
