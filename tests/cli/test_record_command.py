"""``pellucid record`` as it is typed: real second processes that speak to a session in this one, or to a real run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pellucid.errors import SinkError
from pellucid.wire.control import ControlServer
from pellucid.wire.control_file import running_sessions


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "run"
    monkeypatch.setenv("PELLUCID_RUNTIME", str(path))
    return path


def record(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pellucid", "record", *args], capture_output=True, text=True, timeout=100, check=False
    )


def assert_one_line(out: subprocess.CompletedProcess[str], says: str) -> None:
    assert out.returncode == 2, out
    assert out.stdout == ""
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert out.stderr.startswith("pellucid: "), out.stderr
    assert says in out.stderr, out.stderr


class Recorder:
    """Answers as a recorder does that waits to be started."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.takes = 0
        self.recording = False

    def start(self, given):
        self.asked.append(("start", dict(given)))
        if self.recording:
            raise SinkError(f"already recording take {self.takes}:\ntype pellucid record stop first")
        self.takes, self.recording = self.takes + 1, True
        return {"text": f"recording take {self.takes} to rec/µ; 4.0 s before the start are in it"}

    def stop(self, given):
        self.asked.append(("stop", dict(given)))
        self.recording = False
        return {"text": "recorded 12 frames"}

    def status(self, given):
        self.asked.append(("status", dict(given)))
        return {"text": "recording" if self.recording else "armed"}

    def commands(self):
        return {"record.start": self.start, "record.stop": self.stop, "record.status": self.status}


def test_start_status_and_stop_reach_the_session_and_print_its_line():
    recorder = Recorder()
    with ControlServer(recorder.commands(), config="live.toml"):
        for args, says in [
            (["status"], "armed"),
            (["start", "--name", "mitosis"], "recording take 1 to rec/µ; 4.0 s before the start are in it"),
            (["status", "--session", "live"], "recording"),
            (["stop", "--session", "live.toml"], "recorded 12 frames"),
        ]:
            out = record(*args)
            assert (out.returncode, out.stdout, out.stderr) == (0, says + "\n", ""), out
    assert recorder.asked == [("status", {}), ("start", {"name": "mitosis"}), ("status", {}), ("stop", {})]


def test_what_the_session_refuses_is_one_line_and_exit_2():
    recorder = Recorder()
    recorder.start({})
    with ControlServer(recorder.commands()):
        assert_one_line(record("start"), "pellucid: already recording take 1: type pellucid record stop first")


def test_no_session_several_sessions_and_a_wrong_name_are_one_line_each():
    assert_one_line(record("status"), "no session of yours runs on this computer")
    commands = Recorder().commands()
    with ControlServer(commands, config="a.toml"), ControlServer(commands, config="b.toml"):
        assert_one_line(record("start"), "2 sessions run: a.toml (pid")
        assert_one_line(record("start", "--session", "c"), '--session "c": no such session. Running: a.toml')
        assert record("status", "--session", "b").stdout == "armed\n"


def test_a_session_without_a_recorder_says_what_to_add():
    with ControlServer({}, config="live.toml"):
        assert_one_line(record("start"), 'kind = "recorder"')


def test_a_real_run_is_recorded_on_demand(tmp_path):
    """The whole way: an armed run in a process of its own, two takes from another one."""
    config = tmp_path / "armed.toml"
    config.write_text(
        '[source]\nkind = "simulated"\nshape = [64, 64]\nfps = 50\n[[sinks]]\nkind = "recorder"\n'
        f'path = "{(tmp_path / "rec").as_posix()}"\nstart = "armed"\nbefore_s = 1\n'
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "run", str(config), "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not running_sessions() and run.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert "armed" in record("status", "--session", str(run.pid)).stdout
        for _ in range(2):
            out = record("start")
            assert out.returncode == 0, out
            assert "recording" in out.stdout
            assert_one_line(record("start"), "already recording")
            out = record("stop", "--session", "armed")
            assert out.returncode == 0, out
        assert_one_line(record("stop"), "nothing is being recorded")
    finally:
        run.terminate()
        told = run.communicate(timeout=60)[0]
    assert "Traceback" not in told
    if sys.platform != "win32":  # there it is killed, and leaves its file to the next who looks
        assert run.returncode == 0, told
        about = json.loads((tmp_path / "rec/report.json").read_text())
        assert 0 < about["frames"]["recorded"] < about["frames"]["received"]
    assert running_sessions() == []
