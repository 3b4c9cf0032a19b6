"""The long run: what it says of processes that grow, and a short one for real."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples(seconds=600, memory=lambda s: 100.0, threads=lambda s: 20, handles=lambda s: 40 + s % 3):
    return [
        {
            "at_s": float(s),
            "metrics": True,
            "session": {
                "private_mb": memory(s), "rss_mb": memory(s), "threads": threads(s), "handles": handles(s),
            },
        }
        for s in range(seconds)
    ]  # fmt: skip


def found(soak, taken, minutes=None, **frames):
    counts = {"unaccounted": 0, "dropped": {}, "lost": {}, "not_recorded": {}} | frames
    flat = [{"minute": m, "n": 1200, "processed_ms": {"p50": 10.0 + m % 2 * 0.3}} for m in range(10)]
    return {
        "asked": {"window": False},
        "frames": counts,
        "notes": [],
        "processes": {name: soak.summary(taken, name) for name in soak.names_of(taken)},
        "minutes": flat if minutes is None else minutes,
        "samples": taken,
    }


def test_what_stays_as_it_is_is_no_fault(soak):
    assert soak.judge(found(soak, samples())) == []


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (samples(memory=lambda s: 100 + s * 0.01), "private_mb grew"),
        (samples(threads=lambda s: 20 + s // 200), "threads grew by 2"),
        (samples(handles=lambda s: 40 + s % 3 + s // 60), "handles grew"),
    ],
)
def test_what_grows_is_told(soak, taken, said):
    wrong = soak.judge(found(soak, taken))
    assert any(said in line for line in wrong), wrong


def test_the_first_minute_may_grow(soak):
    warm = samples(memory=lambda s: min(50 + s, 100), threads=lambda s: min(s, 20), handles=lambda s: min(s, 40))
    assert soak.judge(found(soak, warm)) == []


def test_a_drifting_latency_and_lost_frames_are_told(soak):
    later = [{"minute": m, "n": 1200, "processed_ms": {"p50": 10.0 + m}} for m in range(10)]
    assert any("drifted" in line for line in soak.judge(found(soak, samples(), later)))
    assert soak.judge(found(soak, samples(), lost={"wire": 3})) == ["lost: {'wire': 3}"]
    assert soak.judge(found(soak, samples(), unaccounted=2)) == ["2 frames are not accounted for"]


def test_a_short_run_of_the_whole_system(tmp_path):
    out = tmp_path / "soak.json"
    command = [
        sys.executable,
        str(TOOL),
        "--minutes",
        "0.2",
        "--headless",
        "--folder",
        str(tmp_path),
        "--json",
        str(out),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    told = json.loads(out.read_text())
    # Twelve seconds are too short to judge memory by; everything else holds.
    assert [line for line in told["faults"] if "grew" not in line and "drifted" not in line] == [], ran.stdout
    assert told["frames"]["received"] == told["frames"]["recorded"] > 20
    assert set(told["processes"]) == {"camera", "session"}
    assert told["processes"]["session"]["threads"]["late"] > 5
    assert any(row.get("metrics") for row in told["samples"])
    assert list(tmp_path.glob("soak-*")) == []


def test_nonsense_is_refused_in_a_line(tmp_path):
    for asked, said in ((["--minutes", "0"], "above 0"), (["--folder", str(tmp_path / "no")], "no such folder")):
        ran = subprocess.run(
            [sys.executable, str(TOOL), *asked], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 2
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
