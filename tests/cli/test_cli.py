"""The command line as a user meets it: real processes, real files, one line for a mistake."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIMULATED = """
[source]
kind = "simulated"
shape = [64, 64]
fps = 100
frames = {frames}
[[stages]]
kind = "deconvolve"
psf = {{ kind = "gaussian", fwhm_px = 3 }}
[[sinks]]
kind = "recorder"
path = "{path}"
"""


def pellucid(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pellucid", *args], capture_output=True, text=True, cwd=cwd, timeout=100, check=False
    )


def config(folder: Path, frames: int = 20, extra: str = "") -> Path:
    path = folder / "run.toml"
    path.write_text(SIMULATED.format(frames=frames, path=(folder / "rec").as_posix()) + extra)
    return path


def assert_one_line(out: subprocess.CompletedProcess[str], says: str) -> None:
    assert out.returncode == 2, out
    assert "Traceback" not in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert says in out.stderr, out.stderr


def test_run_records_reports_and_exits_with_0(tmp_path):
    out = pellucid("run", str(config(tmp_path)), "--set", "stages.0.iterations=2")
    assert out.returncode == 0, out.stderr
    assert "unaccounted" in out.stdout
    assert str(tmp_path / "rec") in out.stdout
    report = json.loads((tmp_path / "rec/report.json").read_text())
    assert report["frames"]["recorded"] == 20
    assert report["frames"]["unaccounted"] == 0
    assert set(report["latency_ms"]["disk"]) == {"p50", "p95", "p99", "max", "n"}
    assert len(report["config_sha256"]) == 64
    assert "iterations = 2" in (tmp_path / "rec/config.toml").read_text()
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    assert [row["seq"] for row in rows] == list(range(20))
    assert sorted(p.name for p in (tmp_path / "rec").iterdir()) == [
        "config.toml",
        "frames.jsonl",
        "raw.ome.zarr",
        "recording.json",
        "report.json",
        "restored.ome.zarr",
    ]


def test_frames_and_seconds_end_a_run(tmp_path):
    out = pellucid("run", str(config(tmp_path, 100000)), "--frames", "15")
    assert out.returncode == 0, out.stderr
    assert json.loads((tmp_path / "rec/report.json").read_text())["frames"]["recorded"] == 15
    out = pellucid("run", str(tmp_path / "run.toml"), "--seconds", "0.5", "--set", f"sinks.0.path={tmp_path}/two")
    assert out.returncode == 0, out.stderr
    assert json.loads((tmp_path / "two/report.json").read_text())["ended"] == "0.5 s"


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C cannot be sent to one process there")
def test_ctrl_c_drains_and_exits_with_0(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "run", str(config(tmp_path, 100000))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(lambda: (tmp_path / "rec/frames.jsonl").exists() and (tmp_path / "rec/frames.jsonl").stat().st_size)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopping" in err
    report = json.loads((tmp_path / "rec/report.json").read_text())
    assert report["ended"] == "stopped by Ctrl-C"
    assert report["frames"]["unaccounted"] == 0
    assert report["frames"]["recorded"] == report["frames"]["received"] > 0
    assert "stopped by Ctrl-C" in out


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C cannot be sent to one process there")
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    """A stage that needs minutes for a frame would be waited for; the second Ctrl-C does not wait."""
    (tmp_path / "slow.toml").write_text(
        f"""
        plugins = ["{(ROOT / "tests/parts.py").as_posix()}"]
        source = {{ kind = "counting", frames = 1000, every_s = 0.01 }}
        stages = [{{ kind = "scale", hang_s = 120 }}]
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        session = {{ stall_s = 300 }}
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "run", str(tmp_path / "slow.toml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(lambda: (tmp_path / "rec/raw.ome.zarr/0/c/0").exists())
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    _wait_for(lambda: "stopping" in process.stderr.readline())
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C cannot be sent to one process there")
def test_ctrl_c_while_waiting_for_a_sender_leaves_nothing(tmp_path):
    path = tmp_path / "wire.toml"
    port = free_port()
    path.write_text(
        f'source = {{ kind = "wire", bind = "tcp://127.0.0.1:{port}" }}\n'
        f'sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "run", str(path)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _wait_for(lambda: not port_is_free(port))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert not (tmp_path / "rec").exists()


def test_a_second_process_sends_and_every_frame_is_accounted_for(tmp_path):
    port = free_port()
    path = tmp_path / "wire.toml"
    path.write_text(
        f'source = {{ kind = "wire", bind = "tcp://127.0.0.1:{port}" }}\n'
        f'sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]'
    )
    session = subprocess.Popen([sys.executable, "-m", "pellucid", "run", str(path)], stdout=subprocess.PIPE, text=True)
    sent = pellucid(
        "send", "--simulated", "--to", f"tcp://127.0.0.1:{port}", "--fps", "100", "--frames", "40", "--set",
        "shape=[64, 64]", "--set", "seed=5", "--once",
    )  # fmt: skip
    out, _ = session.communicate(timeout=60)
    assert sent.returncode == 0, sent.stderr
    assert session.returncode == 0, out
    report = json.loads((tmp_path / "rec/report.json").read_text())
    frames = report["frames"]
    assert frames["unaccounted"] == 0
    assert frames["totals_confirmed"]
    assert frames["received"] + sum(frames["dropped"].values()) == frames["produced"] >= 40
    assert "shared memory" in sent.stdout


def test_lossless_sends_every_frame_to_a_slow_session(tmp_path):
    port = free_port()
    path = tmp_path / "slow.toml"
    path.write_text(
        f"""
        plugins = ["{(ROOT / "tests/parts.py").as_posix()}"]
        source = {{ kind = "wire", bind = "tcp://127.0.0.1:{port}" }}
        sinks = [{{ kind = "keep", slow_s = 0.03 }}, {{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        session = {{ slots = 3 }}
        """
    )
    session = subprocess.Popen([sys.executable, "-m", "pellucid", "run", str(path)], stdout=subprocess.DEVNULL)
    sent = pellucid(
        "send", "--simulated", "--lossless", "--to", f"tcp://127.0.0.1:{port}", "--frames", "50", "--fps", "200",
        "--set", "shape=[32, 32]", "--once",
    )  # fmt: skip
    assert session.wait(60) == 0
    assert "sent 50, dropped 0" in sent.stdout, sent.stdout + sent.stderr
    frames = json.loads((tmp_path / "rec/report.json").read_text())["frames"]
    assert frames["received"] == 50
    assert frames["lost"] == {}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "nowhere.toml"], "cannot read the config nowhere.toml"),
        (["run"], "Missing argument"),
        (["run", "x.toml", "--frames", "many"], "--frames"),
        (["rnu"], "rnu"),
        (["send"], "nothing to send: give one of --cfg demo"),
        (["send", "--simulated", "--cfg", "demo"], "were given"),
        (["send", "--replay", "nowhere.tif"], "nowhere.tif"),
        (["send", "--simulated", "--to", "elsewhere"], "elsewhere"),
        (["send", "--simulated", "--to", "tcp://192.168.1.4:5599"], "keys"),
        (["send", "--simulated", "--set", "shpae=[3,3]"], 'Did you mean "shape"'),
        (["send", "--simulated", "--wait", "0.3", "--to", "tcp://127.0.0.1:9"], "nobody answers"),
        (["bench", "--only", "everything"], "no such benchmark"),
        (["bench", "everything"], "everything: no such benchmark"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(args, says, tmp_path):
    assert_one_line(pellucid(*args, cwd=tmp_path), says)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["stages.0.iterations=many"], "stages[0].iterations"),
        (["stages.0.psf.fwhm_px=-1"], "stages[0].psf"),
        (['stages.0.psf="none.tif"'], "none.tif"),
        (["stages.0.psf.fwhm_px=400"], "stages[0] deconvolve"),
        (["sinks.0.path=/proc/nothing/here"], "sinks.0.path"),
        (["sinks.0.path={frames}"], "only {time}"),
        (["session.device=cuda:7"], "CUDA"),
        (["source.path=x"], "source.path"),
    ],
)
def test_a_wrong_value_leaves_nothing_half_written(sets, says, tmp_path):
    path = config(tmp_path)
    options = [part for change in sets for part in ("--set", change)]
    assert_one_line(pellucid("run", str(path), *options, cwd=tmp_path), says)
    assert [p.name for p in tmp_path.iterdir()] == ["run.toml"]


def test_a_busy_port_is_one_line(tmp_path):
    path = tmp_path / "wire.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path.write_text(f'source = {{ kind = "wire", bind = "tcp://127.0.0.1:{taken.getsockname()[1]}" }}')
        assert_one_line(pellucid("run", str(path)), "is taken")


def test_an_open_bind_without_keys_is_refused(tmp_path):
    path = tmp_path / "wire.toml"
    path.write_text('source = { kind = "wire", bind = "tcp://0.0.0.0:5599" }')
    assert_one_line(pellucid("run", str(path)), "keys")


def test_check_tells_shapes_and_memory_and_starts_nothing(tmp_path):
    out = pellucid("check", str(config(tmp_path)), cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "64x64 uint16" in out.stdout
    assert "restored 64x64 float32" in out.stdout
    assert "MB at most" in out.stdout
    assert "in 16 slots" in out.stdout
    assert "nothing was started" in out.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["run.toml"]
    (tmp_path / "rec").mkdir()
    out = pellucid("check", str(tmp_path / "run.toml"))
    assert out.returncode == 2
    assert "never overwritten" in out.stdout


def test_list_names_every_part_with_its_keys():
    out = pellucid("list")
    assert out.returncode == 0, out.stderr
    for word in ("micromanager", "wire", "replay", "simulated", "deconvolve", "recorder", "window", "null"):
        assert f"  {word}  " in out.stdout, word
    assert "cannot be imported" not in out.stdout
    for key in ("path: ", "fps: ", "iterations: ", "psf: ", "background: ", "method: "):
        assert key in out.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait_for(condition, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
