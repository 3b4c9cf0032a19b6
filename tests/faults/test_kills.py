"""Processes are killed at a random moment: what was written is there, whole, and recovery can be killed as well."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pellucid.errors import SinkError
from pellucid.recording.recover import recover
from pellucid.recording.verify import verify
from tests.faults.frames_told import found

ROOT = Path(__file__).parents[2]
KILL = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL

RECORD = """
import sys, time
from pathlib import Path
from tests.faults.frames_told import Run
run = Run(Path(sys.argv[1]), **eval(sys.argv[2]))
for _ in range(100_000):
    run.give(1)
    while run.ledger.recorded < run.sent or any(part.pending for part in run.recorder._parts):
        time.sleep(0.0005)
    print(run.sent, flush=True)
"""

RECOVER = """
import sys
from pathlib import Path
from pellucid.recording.recover import recover
from pellucid.recording.verify import verify
print("begun", flush=True)
recover(Path(sys.argv[1]), check_all=True)
"""

KEYS = {
    "shards": {},
    "small shards, often committed": {"shard_frames": 4, "commit_every_s": 0.02},
    "a file a plane": {"shard_frames": 1},
    "zstd, parts": {"compression": "zstd", "shard_frames": 3, "part_frames": 9},
    "tiff": {"format": "ome-tiff"},
}


def start(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def kill_after(process: subprocess.Popen[str], lines: int) -> int:
    """Kill a recording process once it has said so often that a frame is written; return the last that it said."""
    assert process.stdout is not None
    last = 0
    for line in process.stdout:
        last = int(line)
        if last >= lines:
            process.send_signal(KILL)
            break
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    return int(rest[-1]) if rest else last


def check(folder: Path, written: int) -> None:
    for plane, seen in found(folder).items():
        assert [i for i, right in seen.items() if not right] == [], f"{plane}: wrong pixels"
        assert [i for i in range(written) if i not in seen] == [], f"{plane}: lost although it was written"


@pytest.mark.parametrize("keys", KEYS)
def test_what_was_written_survives_the_kill_of_the_recorder(keys, tmp_path):
    rng = random.Random()
    for turn in range(2):
        folder = tmp_path / f"rec{turn}"
        written = kill_after(start(RECORD, str(folder), repr(KEYS[keys])), rng.randint(1, 60))
        told = recover(folder)
        assert told.state == "recording"
        assert told.recorded >= written
        check(folder, written)
        assert [fault for fault in verify(folder).faults if "config.toml" not in fault] == []
        before = (folder / "frames.jsonl").read_bytes()
        assert recover(folder).state == "recovered"
        assert (folder / "frames.jsonl").read_bytes() == before


def test_a_kill_before_the_first_frame_leaves_nothing_that_harms(tmp_path):
    for turn in range(3):
        folder = tmp_path / f"rec{turn}"
        process = start(RECORD, str(folder), "{}")
        while not folder.exists():
            time.sleep(0.001)
        time.sleep(random.random() * 0.1)
        process.send_signal(KILL)
        process.communicate()
        if not (folder / "recording.json").exists():
            with pytest.raises(SinkError, match="is no recording"):
                recover(folder)
            continue
        told = recover(folder)
        assert told.recorded == told.frames
        check(folder, 0)


def test_recovery_may_be_killed_and_done_again(tmp_path):
    whole = tmp_path / "whole"
    written = kill_after(start(RECORD, str(whole), "{'shard_frames': 4}"), 40)
    for turn in range(4):
        folder = tmp_path / f"turn{turn}"
        shutil.copytree(whole, folder)
        process = start(RECOVER, str(folder))
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.random() * 0.08)
        process.send_signal(KILL)
        process.communicate()
        recover(folder)
        check(folder, written)
        assert not (folder / "journal").exists()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_session_that_is_killed_with_its_stages(busy, tmp_path):
    """The command line, with a stage, in its own process; busy processors delay every thread."""
    config = tmp_path / "run.toml"
    folder = tmp_path / "rec"
    config.write_text(
        '[source]\nkind = "simulated"\nshape = [64, 64]\nfps = 200\n[[stages]]\nkind = "deconvolve"\n'
        'psf = { kind = "gaussian", fwhm_px = 3 }\n[[sinks]]\nkind = "recorder"\nshard_frames = 8\n'
        f'path = "{folder.as_posix()}"\n[session]\nrestore = "every"\n'
    )
    burners = [start("while True: pass") for _ in range((os.cpu_count() or 1) * busy)]
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pellucid", "run", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not (folder / "journal").exists() or (folder / "journal").stat().st_size < 20_000:
            time.sleep(0.01)
            assert process.poll() is None
        time.sleep(random.random())
        process.send_signal(KILL)
        process.wait()
    finally:
        for burner in burners:
            burner.kill()
            burner.communicate()
    told = recover(folder, check_all=True)
    assert told.torn <= 2  # a plane that was being written when it died has no line
    assert told.recorded > 20
    assert recover(folder).state == "recovered"
    out = subprocess.run(
        [sys.executable, "-m", "pellucid", "process", str(folder), str(tmp_path / "again"), str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
