"""The whole way with real parts: MMCore in one process, a session in another, files, and a killed camera."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

import pellucid


def start(*args: str, **more) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pellucid", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def wait_for(condition, timeout_s: float = 60.0):
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def test_demo_restores_beads_and_accounts_for_every_frame(tmp_path):
    demo = start("demo", "--headless", "--seconds", "2", "--path", "rec", cwd=tmp_path)
    out, err = demo.communicate(timeout=100)
    assert demo.returncode == 0, out + err
    report = json.loads((tmp_path / "rec/report.json").read_text())
    frames = report["frames"]
    assert frames["unaccounted"] == 0
    assert frames["totals_confirmed"]
    assert frames["received"] == frames["recorded"] > 10
    assert frames["processed"] > 0
    assert report["streams"][0]["details"]["device"] == "DemoCamera DCam"
    assert set(report) >= {"frames", "latency_ms", "throughput", "config_sha256", "version", "hardware"}
    for mark in ("received", "deconvolve", "disk"):
        assert 0 < report["latency_ms"][mark]["p50"] <= report["latency_ms"][mark]["p99"]

    raw = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")
    restored = zarr.open_array(tmp_path / "rec/restored.ome.zarr/0", mode="r")
    assert raw.shape == restored.shape == (frames["recorded"], 1, 512, 512)
    at = next(row["index"] for row in rows(tmp_path / "rec") if row["state"] == "processed")
    # Sharper beads: the same light on fewer pixels.
    before, after = (np.sort(a[at, 0].astype(float).ravel())[::-1] for a in (raw, restored))
    assert after[:2000].sum() / after.sum() > 1.5 * before[:2000].sum() / before.sum()
    assert after.sum() == pytest.approx(before.sum(), rel=0.01)

    sequence = [row["seq"] for row in rows(tmp_path / "rec")]
    assert sequence == list(range(len(sequence)))
    with Image.open(tmp_path / "rec/before-after.png") as picture:
        assert picture.width > 600
    assert "before-after.png" in out
    assert "frames/s" in out


def session_config(folder: Path, port: int) -> Path:
    path = folder / "session.toml"
    path.write_text(
        f"""
        source = {{ kind = "wire", bind = "tcp://127.0.0.1:{port}", linger_s = 1.0 }}
        stages = [{{ kind = "deconvolve", psf = {{ kind = "gaussian", fwhm_px = 3 }}, iterations = 1 }}]
        sinks = [{{ kind = "recorder", path = "{(folder / "rec").as_posix()}" }}]
        """
    )
    return path


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and SIGSTOP")
@pytest.mark.parametrize("in_band", [False, True])
def test_a_killed_camera_process_ends_the_run_with_all_that_came(in_band, tmp_path, unused_port):
    session = start("run", str(session_config(tmp_path, unused_port)))
    options = ["--in-band"] if in_band else []
    camera = start(
        "send", "--cfg", "demo", "--to", f"tcp://127.0.0.1:{unused_port}", "--set", "exposure_ms=10", *options
    )
    wait_for(lambda: (tmp_path / "rec/frames.jsonl").exists() and len(rows(tmp_path / "rec")) > 10)
    camera.kill()
    camera.communicate()
    out, err = session.communicate(timeout=60)
    assert session.returncode == 0, out + err
    frames = json.loads((tmp_path / "rec/report.json").read_text())["frames"]
    assert frames["unaccounted"] == 0
    assert not frames["totals_confirmed"]
    assert "without its totals" in out
    assert frames["recorded"] == frames["received"]
    assert zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r").shape[0] == frames["recorded"]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and SIGSTOP")
def test_a_camera_that_stood_still_goes_on_in_the_same_run(tmp_path, unused_port):
    path = session_config(tmp_path, unused_port)
    session = start("run", str(path), "--set", "source.linger_s=60")
    camera = start("send", "--cfg", "demo", "--to", f"tcp://127.0.0.1:{unused_port}", "--set", "exposure_ms=10")
    wait_for(lambda: (tmp_path / "rec/frames.jsonl").exists() and len(rows(tmp_path / "rec")) > 10)
    camera.send_signal(signal.SIGSTOP)
    time.sleep(4.5)
    camera.send_signal(signal.SIGCONT)
    before = len(rows(tmp_path / "rec"))
    wait_for(lambda: len(rows(tmp_path / "rec")) > before + 20)
    session.send_signal(signal.SIGINT)
    out, err = session.communicate(timeout=60)
    assert session.returncode == 0, out + err
    camera.send_signal(signal.SIGINT)
    camera.communicate(timeout=30)
    frames = json.loads((tmp_path / "rec/report.json").read_text())["frames"]
    assert frames["unaccounted"] == 0
    assert frames["produced"] == frames["processed"] + sum(
        sum(frames[k].values()) for k in ("raw_only", "dropped", "lost")
    )


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and SIGSTOP")
def test_a_killed_session_leaves_what_was_written_and_the_camera_goes_on_with_the_next(tmp_path, unused_port):
    path = session_config(tmp_path, unused_port)
    session = start("run", str(path))
    camera = start("send", "--cfg", "demo", "--to", f"tcp://127.0.0.1:{unused_port}", "--set", "exposure_ms=10")
    wait_for(lambda: (tmp_path / "rec/frames.jsonl").exists() and len(rows(tmp_path / "rec")) > 10)
    session.kill()
    session.communicate()
    written = len(rows(tmp_path / "rec"))
    assert zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r").shape[0] >= written
    again = start("run", str(path), "--frames", "20", "--set", f"sinks.0.path={(tmp_path / 'two').as_posix()}")
    out, err = again.communicate(timeout=90)
    assert again.returncode == 0, out + err
    frames = json.loads((tmp_path / "two/report.json").read_text())["frames"]
    assert frames["recorded"] == 20
    assert frames["unaccounted"] == 0
    sent, err = camera.communicate(timeout=60)
    assert camera.returncode == 0, sent + err
    assert "session is gone" in sent


def test_python_reads_a_camera_in_this_process():
    """Five lines, a real core, and restored frames as arrays."""
    config = {
        "source": {
            "kind": "micromanager",
            "config": "demo",
            "exposure_ms": 5,
            "properties": {"Camera.Mode": "Fluorescent Beads", "Camera.PixelType": "16bit"},
        },
        "stages": [{"kind": "deconvolve", "psf": {"kind": "gaussian", "fwhm_px": 3}, "iterations": 1}],
        "session": {"frames": 8, "restore": "every"},
    }
    with pellucid.open(config) as session:
        seen = [(frame.info.camera_number, frame["restored"].shape) for frame in session]
    assert seen == [(i, (512, 512)) for i in range(8)]
    assert session.report["frames"]["unaccounted"] == 0


@pytest.fixture
def small_disk(tmp_path):
    """Mount a real file system of 12 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if mounted:
        mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
    if not mounted:
        pytest.skip("needs root on Linux, to mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_ends_the_run_loudly_and_keeps_what_it_has(small_disk, tmp_path):
    config = Path(__file__).parents[2] / "configs/simulated.toml"
    run = start("run", str(config), "--set", f"sinks.0.path={(small_disk / 'rec').as_posix()}", cwd=tmp_path)
    out, err = run.communicate(timeout=90)
    assert run.returncode == 1, out + err
    assert "Traceback" not in err
    assert "No space left" in err
    report = json.loads((small_disk / "rec/report.json").read_text())
    assert report["frames"]["unaccounted"] == 0
    assert report["sinks"]["recorder"]["lost"] > 0
    written = [row for row in rows(small_disk / "rec") if row["index"] is not None]
    assert len(written) == report["frames"]["recorded"] > 3
    raw = zarr.open_array(small_disk / "rec/raw.ome.zarr/0", mode="r")
    assert all(raw[row["index"]].any() for row in written)
