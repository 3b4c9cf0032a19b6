"""Frames from a computer with a clock of its own: their times are told on this one's, within what is stated."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slow_cable import SlowCable
from wire_parts import LONG_S, Session

from pellucid.metrics import now_ns
from pellucid.report_page import write_report
from pellucid.wire.clock import APART

HERE = Path(__file__).parent
HOURS_NS = 123_456_789_012_345


def start(ahead_ns: int, rate: float, *args: str, **keys) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "far.py"), str(ahead_ns), str(rate), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **keys,
    )


@pytest.mark.parametrize(
    ("ahead_ns", "rate", "there_s", "back_s"),
    [(HOURS_NS, 0.0, 0.0, 0.0), (-now_ns() // 2, 300e-6, 0.0, 0.04), (HOURS_NS, -300e-6, 0.04, 0.0)],
    ids=["near", "slow-answers", "slow-frames"],
)
def test_a_far_frame_was_taken_when_it_is_told_to_have_been(ahead_ns, rate, there_s, back_s):
    session = Session(shared=False)
    began = now_ns()
    with SlowCable(session.receiver.endpoint, there_s, back_s) as cable:
        options = {"frames": 120, "live": True, "fps": 60.0, "shared": False, "timeout_s": 20.0}
        camera = start(ahead_ns, rate, str(HERE / "timed_camera.py"), cable.endpoint, json.dumps(options))
        try:
            session.welcome()
            session.to_the_end()
            clock = session.receiver.clock
            out = camera.communicate(timeout=LONG_S)[0]
        finally:
            camera.kill()
            camera.communicate()
            session.close()
    taken = {int(number): ns for number, ns in json.loads(out.splitlines()[-1]).items()}
    assert len(session.seen) > 20, out
    errors = [info.camera_ns - taken[info.camera_number] for info in session.seen]
    for info, error in zip(session.seen, errors, strict=True):
        assert abs(error) <= info.unsure_ns
    assert clock["exchanges"] >= 2
    assert clock["round_trip_ms"] >= (there_s + back_s) * 1e3
    ran_ms = (now_ns() - began) * 1e-6
    assert clock["unsure_ms"] <= clock["round_trip_ms"] / 2 + APART * ran_ms
    assert clock["offset_ms"] == pytest.approx(ahead_ns * 1e-6, abs=clock["unsure_ms"] + abs(rate) * ran_ms)
    if there_s != back_s:  # the stated uncertainty is needed: the ways differ, and so the times are off
        assert abs(errors[-1]) > 0.3 * abs(there_s - back_s) / 2 * 1e9


def test_a_report_states_how_well_the_clock_is_known(tmp_path, unused_port):
    endpoint = f"tcp://127.0.0.1:{unused_port}"
    (tmp_path / "run.toml").write_text(
        f'source = {{ kind = "wire", bind = "{endpoint}" }}\nsinks = [{{ kind = "recorder", path = "rec" }}]\n'
    )
    session = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "run", "run.toml", "--headless"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    source = ("--simulated", "--set=frames=100", "--set=shape=[64,64]", "--fps=100")
    camera = start(
        HOURS_NS, 0.0, "pellucid", "send", "--to", endpoint, "--in-band", "--wait", "60", *source, cwd=tmp_path
    )
    try:
        said = camera.communicate(timeout=LONG_S)[0]
        out = session.communicate(timeout=LONG_S)[0]
    finally:
        for process in (camera, session):
            process.kill()
            process.communicate()
    assert (camera.returncode, session.returncode) == (0, 0), said + out
    report = json.loads((tmp_path / "rec" / "report.json").read_text())
    clock, unsure = report["clock"], report["streams"][0]["clock_unsure_ms"]
    assert abs(clock["offset_ms"] - HOURS_NS * 1e-6) <= clock["unsure_ms"] + 1e-3
    assert 0 < unsure["p50"] <= unsure["max"]
    assert unsure["n"] == report["frames"]["received"] > 0
    rows = [json.loads(line) for line in (tmp_path / "rec" / "frames.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "received_ms" in row]
    assert max(row["clock_unsure_us"] for row in rows) == pytest.approx(unsure["max"] * 1e3, abs=0.2)
    assert all(abs(row["camera_time"] - time.time()) < 2 * LONG_S for row in rows)  # on this computer's clock
    assert "another computer's" in out
    assert f"± {unsure['p50']:.2g} ms ({unsure['max']:.2g} at most)" in out
    page = write_report(tmp_path / "rec").read_text("utf-8")
    assert "another computer" in page
