"""``pellucid view``: real windows in processes of their own, on sessions of this process that have none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from real_window import wait_for

import pellucid
from pellucid.controls.views import Views
from pellucid.errors import PellucidError
from pellucid.wire.control_client import ControlClient

CONFIG = """
[source]
kind = "simulated"
shape = [64, 96]
fps = 30
[[stages]]
kind = "deconvolve"
psf = { kind = "gaussian", fwhm_px = 3.0 }
[[sinks]]
kind = "recorder"
path = "rec-{time}"
"""


class Run:
    """A session that runs in this process until it is told to stop."""

    def __init__(self, config) -> None:
        self.live = pellucid.open(config, headless=True, policy="latest")
        self.session = self.live.session
        self.thread = threading.Thread(target=self._go)
        self.thread.start()

    def _go(self) -> None:
        with self.live:
            for _ in self.live:
                pass

    @property
    def views(self) -> list:
        return [place.sink for place in self.session._onlookers._there.values()]

    def drawn(self) -> int:
        return sum(view.drawn for view in self.views)

    def end(self) -> dict:
        self.live.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.live.report


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "live.toml").write_text(CONFIG)
    runs: list[Run] = []

    def begin() -> Run:
        runs.append(Run(tmp_path / "live.toml"))
        return runs[-1]

    yield begin
    for one in runs:
        one.end()


@pytest.fixture
def view(screen):
    processes: list[subprocess.Popen] = []

    def begin(*args: str) -> subprocess.Popen:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "pellucid", "view", *args],
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def accounted(report: dict) -> None:
    """Every frame is accounted for, and each one is on the disk."""
    frames = report["frames"]
    assert frames["unaccounted"] == 0
    assert frames["received"] == frames["recorded"] > 0
    assert report["sinks"]["recorder"]["lost"] == 0


@pytest.mark.screen
def test_a_headless_session_is_looked_at_and_its_next_run_as_well(run, view):
    window = view("--wait")
    first = run()
    wait_for(lambda: first.drawn() > 3)
    assert "view 1" in first.session._onlookers.names
    accounted(first.end())
    assert window.poll() is None
    second = run()
    wait_for(lambda: second.drawn() > 3)
    window.send_signal(signal.SIGTERM)
    assert window.wait(30) == 0, window.stderr.read()
    wait_for(lambda: not second.views)
    report = second.end()
    accounted(report)
    assert report["frames"]["displayed"] == 0  # whoever looks on is not the run's own window
    assert set(report["sinks"]) == {"recorder", "python"}


@pytest.mark.screen
def test_two_windows_one_killed_one_standing_still_cost_no_frame(run, view):
    session = run()
    windows = [view(), view()]
    wait_for(lambda: len(session.views) == 2 and all(one.drawn > 3 for one in session.views))
    windows[0].send_signal(signal.SIGSTOP)
    before = session.session.ledger.received
    wait_for(lambda: session.session.ledger.received > before + 30)
    windows[1].kill()
    wait_for(lambda: len(session.views) == 1)
    accounted(session.end())


def test_too_many_are_refused_in_a_line(run, monkeypatch):
    session = run()
    wait_for(lambda: session.session.ledger.received > 0)
    monkeypatch.setattr("pellucid.runtime.onlookers.MOST", 0)
    with pytest.raises(PellucidError, match="look at this session already"):
        Views(session.session, "")._attach({"endpoint": "tcp://127.0.0.1:9"})


@pytest.mark.parametrize(
    "given",
    [{}, {"endpoint": 5}, {"endpoint": "tcp://192.168.1.5:5600"}, {"endpoint": "ipc:///tmp/x"},
     {"endpoint": "tcp://127.0.0.1:9", "max_fps": 0}, {"endpoint": "tcp://127.0.0.1:9", "max_fps": "x"},
     {"endpoint": "tcp://127.0.0.1:9", "stack": "all"}],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_a_line(run, given):
    session = run()
    with pytest.raises(PellucidError) as caught:
        Views(session.session, "")._attach(given)
    assert "\n" not in str(caught.value)


def test_a_window_that_does_not_answer_costs_nothing(run, unused_port, monkeypatch):
    monkeypatch.setattr("pellucid.sinks.attached.CONNECT_S", 0.3)
    session = run()
    wait_for(lambda: session.session.ledger.received > 0)
    with ControlClient.find(str(os.getpid())) as client, pytest.raises(PellucidError):
        client.ask("view.attach", {"endpoint": f"tcp://127.0.0.1:{unused_port}"})
    assert session.views == []
    accounted(session.end())


def test_where_nothing_runs_it_says_what_to_type(screen):
    out = subprocess.run(
        [sys.executable, "-m", "pellucid", "view"], capture_output=True, text=True, timeout=60, check=False
    )
    assert out.returncode == 2
    assert "no session of yours runs" in out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_without_a_screen_it_says_so():
    bare = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    }
    out = subprocess.run(
        [sys.executable, "-m", "pellucid", "view"], capture_output=True, text=True, timeout=60, check=False, env=bare
    )
    assert out.returncode == 2
    assert "there is no screen" in out.stderr
