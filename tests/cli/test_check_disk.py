"""What ``pellucid check`` says of a recorder's disk: what it takes, and how long the run lasts on it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from pellucid.check import check_config
from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.recording.rate import measure

RECORDER = '[[sinks]]\nkind = "recorder"\npath = "PATH"\n'
SIMULATED = '[source]\nkind = "simulated"\nshape = [64, 64]\n'
WIRE = '[source]\nkind = "wire"\n'
CAMERA = '[source]\nkind = "micromanager"\nconfig = "demo"\n'


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    """Check a config; return whether it would run, and the rows, none of them wrapped.

    The disk is written, but briefly, and others write to it as well: so it is said to take 500 MB/s.
    """

    def briefly(*given, **keys):
        return replace(measure(*given, **keys, seconds=0.05), bytes_s=5e8, planes_s=6e4)

    monkeypatch.setattr("pellucid.demand.measure", briefly)
    monkeypatch.setattr("pellucid.terminal.console._width", 10_000)

    def run(text, *sets, fps=None, shape="64x64"):
        config = Config.parse((text + RECORDER).replace("PATH", f"{tmp_path}/new/rec-{{time}}"), tmp_path, sets)
        fine = check_config(config, shape, "uint16", fps)
        return fine, re.sub(r" +", " ", capsys.readouterr().out)

    return run


def disk(out):
    return out[out.index("disk ") :]


def test_the_disk_and_how_long_the_run_lasts(check, tmp_path):
    fine, out = check(SIMULATED)
    assert fine
    first, second, *_ = disk(out).splitlines()
    assert re.search(rf"disk {tmp_path}: \S+ .?B/s \(\S+ planes/s\), .* free; p99 of a write .* ms, of a commit", first)
    assert re.search(r"fits .* free at 410 kB/s\); 50 frames/s \(fps\), 8\.2 kB a frame", second)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "sets", "fps", "says"),
    [
        (SIMULATED, ["source.frames=100"], None, "fits 2 s, to its end (819 kB"),
        (SIMULATED, ["session.frames=50"], None, "fits 1 s, to its end (410 kB"),
        (SIMULATED, ["session.seconds=5"], None, "fits 5 s, to its end (2.0 MB"),
        (SIMULATED, ["source.fps=1e6"], None, "the disk falls behind: 8.2 GB/s needed"),
        (SIMULATED, ["source.fps=1e6", "sinks.0.when_full=stop"], None, "then the run stops"),
        (SIMULATED, ["source.fps=1e6", "source.on_full=wait"], None, "the source could give 8.2 GB/s and waits"),
        (SIMULATED, ["sinks.0.compression=zstd"], None, "8.2 kB a frame, compressed as measured"),
        (WIRE, [], None, "the frame rate is not known: tell it with --fps; 8.2 kB a frame"),
        (WIRE, [], 100.0, "free at 819 kB/s); 100 frames/s (--fps)"),
        (CAMERA, ["source.exposure_ms=20"], None, "50 frames/s (exposure 20 ms, at most)"),
        (CAMERA, ["source.interval_ms=2000", "source.frames=10"], None, "fits 20 s, to its end (82 kB"),
        (
            CAMERA,
            ['source.sequence={channels=[{config="DAPI",exposure=5},"FITC"],z_plan={range=2,step=1},time_plan={interval=1,loops=4}}'],
            None,
            "to its end (197 kB",
        ),
    ],
)  # fmt: skip
def test_the_rate_is_taken_from_what_the_config_says(check, text, sets, fps, says):
    assert says in disk(check(text, *sets, fps=fps)[1])


def test_what_does_not_fit_is_refused_and_what_only_falls_behind_is_not(check):
    fine, out = check(SIMULATED, "source.frames=1000000000", "source.on_full=wait")
    assert not fine
    assert "does not fit" in out
    assert check(SIMULATED, "source.fps=1e6")[0]


def test_memory_that_does_not_hold_the_seconds_before_a_start_is_told(check):
    armed = ['sinks.0.start="armed"', "sinks.0.before_s=10", "sinks.0.buffer_mb=2"]
    fine, out = check(SIMULATED, *armed)
    assert fine
    assert "before_s = 10 needs 4.1 MB of memory; buffer_mb gives 2.0 MB, which holds 4.9 s" in out
    assert "before_s" not in check(SIMULATED, *armed[:-1], "sinks.0.buffer_mb=5")[1]


def test_results_count_and_stacks_are_told_by_the_plane(check):
    stage = '[[stages]]\nkind = "deconvolve"\npsf = { kind = "gaussian", fwhm_px = 3 }\n'
    assert "25 kB a frame" in disk(check(SIMULATED + stage)[1])
    sequence = "source.sequence={z_plan={range=3,step=1},time_plan={interval=1,loops=2}}"
    out = disk(check(CAMERA, sequence, 'session.unit="stack"', "source.exposure_ms=10")[1])
    assert "100 frames/s (exposure 10 ms, at most), 8.2 kB a frame" in out
    assert "to its end (66 kB" in out


def test_a_rate_that_is_none(check):
    with pytest.raises(ConfigError, match="--fps -1: frames a second are needed, such as 50"):
        check(WIRE, fps=-1.0)


def test_a_folder_that_cannot_be_written_is_told_and_not_measured(check, tmp_path):
    (tmp_path / "new").touch()
    fine, out = check(SIMULATED)
    assert not fine
    assert "is a file, not a folder" in out
    assert "disk " not in out


def test_a_disk_that_refuses(tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, to mount a disk that refuses")
    (tmp_path / "run.toml").write_text(SIMULATED + RECORDER.replace("PATH", f"{tmp_path}/disk/rec"))
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=64m,nr_inodes=2 tmpfs {tmp_path}/disk && touch {tmp_path}/disk/a && exec "
    command = f"{mount} {sys.executable} -m pellucid check {tmp_path}/run.toml"
    out = subprocess.run([unshare, "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)
    if "mount" in out.stderr or "unshare" in out.stderr:
        pytest.skip(f"needs a small disk: {out.stderr.strip()}")
    assert out.returncode == 2
    assert "cannot be written: No space left on device" in " ".join(out.stdout.split())


def test_a_disk_that_is_full(tmp_path):
    """In a run as well: one line that says what to do, and no traceback."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, to mount a disk that is full")
    (tmp_path / "run.toml").write_text(SIMULATED + RECORDER.replace("PATH", f"{tmp_path}/disk/rec"))
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}/disk && exec "
    for what, code in (("check", 2), ("run --headless --frames 5", 2)):
        command = f"{mount} {sys.executable} -m pellucid {what} {tmp_path}/run.toml"
        out = subprocess.run([unshare, "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)
        if "mount" in out.stderr or "unshare" in out.stderr:
            pytest.skip(f"needs a small disk: {out.stderr.strip()}")
        assert out.returncode == code
        told = " ".join((out.stdout + out.stderr).split())
        assert ("the disk is full: 1.0 MB free" if what == "check" else "is full. Make room") in told
        assert "Traceback" not in told
