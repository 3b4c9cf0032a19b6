"""A recording started and stopped with a key in the window of a real run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from x11 import close_windows_titled, press_in_windows_titled

pytestmark = [pytest.mark.screen, pytest.mark.usefixtures("screen")]

CONFIG = """
[source]
kind = "simulated"
shape = [64, 80]
fps = 50
frames = 100000

[[sinks]]
kind = "recorder"
path = "rec"
start = "armed"
before_s = 1.0

[[sinks]]
kind = "window"
title = "press here"
screenshot = "window.png"
"""


def record(folder: Path, what: str) -> str:
    asked = [sys.executable, "-m", "pellucid", "record", what]
    out = subprocess.run(asked, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return out.stdout + out.stderr


def until(condition, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def press_until(folder: Path, said: str) -> None:
    """Press R until it has had its effect: a window that has just come up may not hear a key yet."""
    for _ in range(10):
        assert press_in_windows_titled("press here", "r") <= 1
        for _ in range(6):
            time.sleep(0.5)
            if said in record(folder, "status"):
                return
    raise AssertionError(f"it did not say {said}")


def test_a_key_in_the_window_starts_and_stops_a_take(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_RUNTIME", str(tmp_path / "runtime"))
    (tmp_path / "run.toml").write_text(CONFIG)
    run = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "run", "run.toml"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: "armed" in record(tmp_path, "status"))
        press_until(tmp_path, "recording: ")
        time.sleep(1)
        press_until(tmp_path, "armed")
        assert close_windows_titled("press here") == 1
        until(lambda: (tmp_path / "window.png").exists())
        # The run goes on without its window, and can be recorded still.
        assert "recording to" in record(tmp_path, "start")
        assert "recorded" in record(tmp_path, "stop")
    finally:
        run.terminate()
        out, err = run.communicate(timeout=60)
    assert "Traceback" not in out + err, out + err

    takes = sorted(path for path in (tmp_path / "rec").iterdir() if path.is_dir())
    assert len(takes) == 2, takes
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    first = [row for row in rows if row.get("part") == min(row["part"] for row in rows if "part" in row)]
    raw = zarr.open_array(takes[0] / "raw.ome.zarr/0", mode="r")
    assert raw.shape[0] == len(first) > 50  # a second before the key, and a second after it
    numbers = [row["seq"] for row in first]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert np.asarray(raw[0]).any()
