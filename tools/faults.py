"""Try what can happen to a recording, many times, and print what was lost: the table of BENCHMARKS.md.

    python tools/faults.py [--kills 200] [--json FILE]

Needs the repository (its tests make the frames and the faults). On Linux and macOS; power is cut on Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pellucid.errors import SinkError  # noqa: E402
from pellucid.recording.recover import recover  # noqa: E402
from tests.faults.cut_power import PoweredDisk  # noqa: E402
from tests.faults.frames_told import Run, found  # noqa: E402
from tests.faults.test_kills import RECORD, kill_after, start  # noqa: E402

FORMATS: dict[str, dict[str, Any]] = {
    "OME-Zarr, shards": {},
    "OME-Zarr, shards of 4, zstd": {"shard_frames": 4, "compression": "zstd"},
    "OME-Zarr, a file a plane": {"shard_frames": 1},
    "OME-Zarr, parts of 9 frames": {"part_frames": 9, "shard_frames": 4},
    "OME-TIFF": {"format": "ome-tiff"},
}


def main() -> None:
    """Run everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of the recorder, and as many of a session")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="faults-", dir=".") as folder:
        place = Path(folder)
        each = max(given.kills // (2 * len(FORMATS)), 1)
        for busy in (False, True):
            with _busy(busy):
                for name, keys in FORMATS.items():
                    what = f"kill -9 of the recorder, {name}, {'busy' if busy else 'idle'}"
                    rows.append(_tried(what, [_kill_recorder(place, keys) for _ in range(each)]))
                    print(_line(rows[-1]), flush=True)
                what = f"kill -9 of a session with its stage, {'busy' if busy else 'idle'}"
                rows.append(_tried(what, [_kill_session(place) for _ in range(max(given.kills // 2, 1))]))
                print(_line(rows[-1]), flush=True)
                what = f"kill -9 of a camera's process, {'busy' if busy else 'idle'}"
                rows.append(_tried(what, [_kill_sender(place) for _ in range(max(given.kills // 10, 1))]))
                print(_line(rows[-1]), flush=True)
        if sys.platform == "linux":
            for kind in ("synced", "some", "garbage"):
                told = {"synced": "only what was synced is left", "some": "some of the rest", "garbage": "and garbage"}
                for name, keys in FORMATS.items():
                    cuts = [_cut(place, keys, kind) for _ in range(max(given.kills // 20, 1))]
                    rows.append(_tried(f"power cut, {told[kind]}, {name}", [one for some in cuts for one in some]))
                    print(_line(rows[-1]), flush=True)
    print("\n| fault | times | frames sent | lost beyond the bound | wrong pixels | recovery, s (median, worst) |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(_line(row))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(any(row["lost"] or row["wrong"] for row in rows))


def _line(row: dict[str, Any]) -> str:
    seconds = f"{row['median_s']:.2f}, {row['worst_s']:.2f}"
    return f"| {row['fault']} | {row['times']} | {row['sent']} | {row['lost']} | {row['wrong']} | {seconds} |"


def _tried(fault: str, tries: list[tuple[int, int, int, float]]) -> dict[str, Any]:
    sent, lost, wrong, took = zip(*tries, strict=True)
    row = {"fault": fault, "times": len(tries), "sent": sum(sent), "lost": sum(lost), "wrong": sum(wrong)}
    return row | {"median_s": statistics.median(took), "worst_s": max(took)}


@contextlib.contextmanager
def _busy(busy: bool) -> Iterator[None]:
    burners = [start("while True: pass") for _ in range((os.cpu_count() or 1) * busy)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.communicate()


def _judge(folder: Path, owed: int, sent: int) -> tuple[int, int, int, float]:
    """Recover and compare; return frames sent, owed and lost, wrong, seconds."""
    begun = time.perf_counter()
    try:
        recover(folder)
    except SinkError:
        return sent, owed, 0, time.perf_counter() - begun
    took = time.perf_counter() - begun
    seen = found(folder)
    wrong = sum(not right for frames in seen.values() for right in frames.values())
    lost = sum(i not in frames for frames in seen.values() for i in range(owed))
    return sent, lost, wrong, took


def _kill_recorder(place: Path, keys: dict[str, Any]) -> tuple[int, int, int, float]:
    folder = place / "rec"
    shutil.rmtree(folder, ignore_errors=True)
    written = kill_after(start(RECORD, str(folder.absolute()), repr(keys)), random.randint(1, 80))
    return _judge(folder, written, written)


def _config(place: Path, source: str) -> Path:
    config = place / "run.toml"
    config.write_text(
        f'[source]\n{source}\n[[stages]]\nkind = "deconvolve"\npsf = {{ kind = "gaussian", fwhm_px = 3 }}\n'
        f'[[sinks]]\nkind = "recorder"\nshard_frames = 8\npath = "{(place / "rec").absolute().as_posix()}"\n'
        '[session]\nrestore = "every"\n'
    )
    return config


def _quiet(*words: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "pellucid", *words]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for(journal: Path, process: subprocess.Popen[bytes], nbytes: int = 4000) -> None:
    while not (journal.exists() and journal.stat().st_size > nbytes):
        time.sleep(0.005)
        if process.poll() is not None:
            raise SystemExit("the session ended by itself")


def _kill_session(place: Path) -> tuple[int, int, int, float]:
    """Kill a command line; its frames are not known here, so they are held against their checksums."""
    folder = place / "rec"
    shutil.rmtree(folder, ignore_errors=True)
    process = _quiet("run", str(_config(place, 'kind = "simulated"\nshape = [64, 64]\nfps = 300')), "--headless")
    _wait_for(folder / "journal", process)
    time.sleep(random.random() * 0.5)
    process.kill()
    process.wait()
    return _checked(folder)


def _checked(folder: Path) -> tuple[int, int, int, float]:
    from pellucid.recording.verify import verify

    begun = time.perf_counter()
    told = recover(folder)
    took = time.perf_counter() - begun
    # What the journal names was written; a line of the plane that was being written does not exist.
    return told.frames, told.torn + len(told.gone), len(verify(folder).faults), took


def _kill_sender(place: Path) -> tuple[int, int, int, float]:
    folder = place / "rec"
    shutil.rmtree(folder, ignore_errors=True)
    port = random.randint(20_000, 50_000)
    address = f"tcp://127.0.0.1:{port}"
    session = _quiet("run", str(_config(place, f'kind = "wire"\nbind = "{address}"')), "--headless")
    sender = _quiet("send", "--to", address, "--simulated", "--fps", "300", "--set", "shape=[64,64]")
    try:
        _wait_for(folder / "journal", session)
        time.sleep(random.random() * 0.5)
    finally:
        sender.kill()
        sender.wait()
    session.wait(60)
    from pellucid.recording.verify import verify

    told = verify(folder)  # the session has ended by itself, with all that came
    return told.frames, 0, len(told.faults), 0.0


def _cut(place: Path, keys: dict[str, Any], kind: str) -> list[tuple[int, int, int, float]]:
    """Record, commit now and then, cut the power now and then."""
    rng = random.Random()
    folder = place / "rec"
    shutil.rmtree(folder, ignore_errors=True)
    run = Run(folder.absolute(), disk := PoweredDisk(folder.absolute()), commit_every_s=3600, **keys)
    owed, out = 0, []
    try:
        for _ in range(10):
            run.give(rng.randint(1, 9))
            while run.ledger.recorded < run.sent or any(part.pending for part in run.recorder._parts or ()):
                time.sleep(0.001)
            if rng.random() < 0.6:
                run.recorder._grow()
                disk.commit()
                owed = run.sent
            left = place / "left"
            shutil.rmtree(left, ignore_errors=True)
            disk.cut(left, kind, rng)
            if left.exists():
                out.append(_judge(left, owed, run.sent))
    finally:
        run.end()
    return out


if __name__ == "__main__":
    main()
