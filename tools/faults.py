"""Try what can happen to a recording, many times, and print what was lost: the table of BENCHMARKS.md.

    python tools/faults.py [--kills 200] [--only WORD] [--json FILE]

Needs the repository (its tests make the frames and the faults) and, to kill windows, a screen. On Linux and macOS;
power is cut on Linux only. After every fault: recover, compare every plane with what was sent, verify, recover
once more.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pellucid.sinks.window import Window  # noqa: E402
from tests.faults.cut_power import PoweredDisk  # noqa: E402
from tests.faults.fault_parts import KEYS, Outcome, busy, judge  # noqa: E402
from tests.faults.frames_told import Run  # noqa: E402
from tests.faults.killed_runs import Sessions, kill_recorder, kill_recovery, unfinished  # noqa: E402

Try = Callable[[], Outcome]
POWER = {"synced": "only what was synced is left", "some": "some of the rest", "garbage": "garbage in the rest"}


def main() -> None:
    """Run everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each kind, half of them on busy processors")
    parser.add_argument("--only", default="", help="faults whose line has this word")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="faults-", dir=".") as folder:
        for fault, burning, tries in _all(Path(folder).absolute(), given.kills, given.only):
            with busy(burning):
                rows.append(_row(fault + (", busy processors" if burning else ""), [one() for one in tries]))
            print(_line(rows[-1]), flush=True)
    print("\n| fault | times | frames sent | lost beyond the bound | wrong pixels | recovery, s (median, worst) |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(_line(row))
        for text in row["faults"]:
            print(f"  {text}")
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(any(row["lost"] or row["wrong"] or row["faults"] for row in rows))


def _all(place: Path, kills: int, only: str) -> Iterator[tuple[str, bool, list[Try]]]:
    """Yield each fault, whether other programs compute meanwhile, and its tries."""
    rng = random.Random()
    sessions: list[Sessions] = []

    def of_session(what: str, keys: dict[str, Any]) -> Try:
        if not sessions:
            sessions.append(Sessions(place))
        return lambda: getattr(sessions[0], what)(keys, rng)

    each = max(kills // (2 * len(KEYS)), 1)
    half = range(max(kills // 2, 1))
    formats = list(KEYS.values())
    for burning in (False, True):
        for name, keys in KEYS.items():
            if only in (fault := f"kill -9 of the recorder, {name}"):
                yield fault, burning, [lambda keys=keys: kill_recorder(place, keys, rng) for _ in range(each)]
        if only in (fault := "kill -9 of recoveries, three in a row"):
            yield fault, burning, [lambda i=i: _recoveries(place, formats[i % len(formats)], rng) for i in half]
        for what, fault in {
            "kill": "kill -9 of a session with its stage, all formats",
            "kill_camera": "kill -9 of a camera's process, all formats",
            "kill_window": "kill -9 of the window, all formats",
        }.items():
            if only not in fault:
                continue
            if what == "kill_window" and (why := Window.why_not()):
                print(f"left out: {fault}: {why}", flush=True)
                continue
            yield fault, burning, [of_session(what, formats[i % len(formats)]) for i in half]
    if sys.platform == "linux":
        for kind, told in POWER.items():
            for name, keys in KEYS.items():
                if only in (fault := f"power cut, {told}, {name}"):
                    times = range(max(kills // 20, 1))
                    yield fault, False, [one for _ in times for one in _cuts(place, keys, kind, rng)]


def _recoveries(place: Path, keys: dict[str, Any], rng: random.Random) -> Outcome:
    whole = place / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    written = unfinished(whole, keys, rng.randint(5, 60))
    return kill_recovery(place, whole, written, rng)


def _cuts(place: Path, keys: dict[str, Any], kind: str, rng: random.Random) -> list[Try]:
    """Record, commit now and then, cut the power now and then; what each cut left is judged at once."""
    folder = place / "rec"
    shutil.rmtree(folder, ignore_errors=True)
    run = Run(folder, disk := PoweredDisk(folder), **(keys | {"commit_every_s": 3600}))  # committed here only
    owed, out = 0, []
    try:
        for _ in range(10):
            run.give(rng.randint(1, 9))
            run.wait()
            if rng.random() < 0.6:
                run.recorder._grow()
                disk.commit()
                owed = run.sent
            left = place / "left"
            shutil.rmtree(left, ignore_errors=True)
            disk.cut(left, kind, rng)
            if left.exists():
                found = judge(left, {"raw": range(owed), "restored": range(owed)}, run.sent, looks=owed > 0)
                out.append(lambda found=found: found)
    finally:
        run.end()
    return out


def _row(fault: str, tries: list[Outcome]) -> dict[str, Any]:
    took = [one.seconds for one in tries]
    return {
        "fault": fault,
        "times": len(tries),
        "sent": sum(one.sent for one in tries),
        "lost": sum(one.lost for one in tries),
        "wrong": sum(one.wrong for one in tries),
        "faults": [text for one in tries for text in one.faults],
        "median_s": statistics.median(took),
        "worst_s": max(took),
    }


def _line(row: dict[str, Any]) -> str:
    seconds = f"{row['median_s']:.2f}, {row['worst_s']:.2f}"
    more = f" ({len(row['faults'])} other faults)" if row["faults"] else ""
    return f"| {row['fault']} | {row['times']} | {row['sent']} | {row['lost']} | {row['wrong']}{more} | {seconds} |"


if __name__ == "__main__":
    main()
