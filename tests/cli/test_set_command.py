"""``pellucid set`` as it is typed: real processes, a real run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pellucid.wire.control_file import running_sessions

TEXT = """\
source = { kind = "simulated", shape = [48, 64], fps = 50, on_full = "wait" }
[[stages]]
kind = "deconvolve"
psf = { kind = "gaussian", fwhm_px = 3.0 }
iterations = 2  # of them
[session]
threads = 1
"""


def pellucid(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pellucid", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A session in a process of its own; its config."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("set")
        patch.setenv("PELLUCID_RUNTIME", str(folder / "sessions"))
        path = folder / "live.toml"
        path.write_text(TEXT)
        command = [sys.executable, "-m", "pellucid", "run", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            try:
                until = time.monotonic() + 60
                while not running_sessions() and time.monotonic() < until:
                    time.sleep(0.05)
                yield path
            finally:
                run.terminate()
                run.communicate(timeout=60)


@pytest.mark.parametrize("words", [(), ("live",), ("--session", "live.toml")])
def test_a_key_is_set_and_its_frame_told(running, words):
    for value in (3, 2):
        out = pellucid("set", *words, f"stages.0.iterations={value}")
        assert (out.returncode, out.stderr) == (0, "")
        assert out.stdout.startswith(f"stages.0.iterations {5 - value} -> {value}, from frame ")


def test_what_can_be_set_is_listed_with_its_bounds(running):
    out = pellucid("set", "--list")
    assert out.returncode == 0, out
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.stdout.splitlines() if line.strip()}
    assert lines["stages.0.on"] == "true true or false"
    assert lines["stages.0.iterations"] == "2 whole number, 1 to 1000, auto"
    assert lines["stages.0.tv"] == "- number, 0 to 0.1"
    assert "stages.0.reads" not in lines
    assert "stages.0.output" not in lines


def test_what_runs_is_saved(running):
    assert pellucid("set", "deconvolve.iterations=4", "--save").stdout.splitlines()[1].startswith("saved stages.0.iter")
    assert running.read_text() == TEXT.replace("= 2 ", "= 4 ")
    pellucid("set", "deconvolve.iterations=2", "--save")
    assert running.read_text() == TEXT


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("stages.0.iterations=0",), " = 0: input should be greater than or equal to 1"),
        (("stages.0.iteration=3",), 'Did you mean "iterations"'),
        (("session.slots=4",), "while a session runs the keys of its stages can be changed"),
        (("stages.0.iterations=",), "give key=value"),
        (("gone", "stages.0.iterations=3"), "no such session"),
        (("a", "b", "stages.0.iterations=3"), "one session is needed"),
        ((), "nothing to set"),
    ],
)
def test_mistakes_are_one_line(running, words, says):
    out = pellucid("set", *words)
    assert (out.returncode, out.stdout) == (2, ""), out
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert says in out.stderr


def test_a_snap_of_the_running_session(running, tmp_path):
    out = pellucid("snap", "live", "--to", str(tmp_path / "snaps"))
    assert (out.returncode, out.stderr) == (0, "")
    files = [Path(line) for line in out.stdout.splitlines()]
    assert len(files) == 4
    assert all(path.parent == tmp_path / "snaps" and path.stat().st_size > 100 for path in files)
    assert pellucid("snap", "gone").returncode == 2
