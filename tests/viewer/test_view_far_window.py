"""The real window of ``pellucid view ADDRESS``, over a network of this computer with keys."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from real_window import wait_for

import pellucid
from pellucid.wire.keyfile import tend_keys
from pellucid.wire.keys import Curve

CONFIG = """
[source]
kind = "simulated"
shape = [64, 96]
fps = 30
[[stages]]
kind = "deconvolve"
psf = {{ kind = "gaussian", fwhm_px = 3.0 }}
[session.view]
address = "tcp://127.0.0.1:{port}"
keys = "scope.keys"
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

    def drawn(self) -> int:
        return sum(place.sink.drawn for place in list(self.session._onlookers._there.values()))

    def end(self) -> dict:
        self.live.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.live.report


@pytest.fixture
def folder(tmp_path, unused_port, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tend_keys(tmp_path / "scope.keys", None, [])
    tend_keys(tmp_path / "laptop.keys", Curve.load(tmp_path / "scope.keys").public, [])
    tend_keys(tmp_path / "scope.keys", None, [Curve.load(tmp_path / "laptop.keys").public])
    (tmp_path / "live.toml").write_text(CONFIG.format(port=unused_port))
    return tmp_path


@pytest.fixture
def said(tmp_path) -> Path:
    """What windows write into their terminal."""
    path = tmp_path / "said.txt"
    path.touch()
    return path


@pytest.fixture
def view(folder, unused_port, screen, said):
    processes: list[subprocess.Popen] = []

    def begin(*args: str) -> subprocess.Popen:
        line = ["view", f"tcp://127.0.0.1:{unused_port}", "--keys", "laptop.keys", *args]
        with said.open("w") as into:
            processes.append(
                subprocess.Popen([sys.executable, "-m", "pellucid", *line], stdout=subprocess.DEVNULL, stderr=into)
            )
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.screen
def test_a_session_is_seen_from_elsewhere_and_its_next_run_as_well(folder, view):
    first = Run(folder / "live.toml")
    window = view()
    try:
        wait_for(lambda: first.drawn() > 3)
    finally:
        report = first.end()
    assert report["frames"]["unaccounted"] == 0
    assert report["frames"]["displayed"] == 0
    assert window.poll() is None
    second = Run(folder / "live.toml")
    try:
        wait_for(lambda: second.drawn() > 3)
        window.send_signal(signal.SIGTERM)
        assert window.wait(30) == 0
        wait_for(lambda: not second.session._onlookers.names)
    finally:
        report = second.end()
    assert report["frames"]["unaccounted"] == 0


@pytest.mark.screen
def test_with_wait_it_says_what_it_waits_for(folder, view, said):
    view("--wait")
    wait_for(lambda: "nobody answers" in said.read_text())
    run = Run(folder / "live.toml")
    try:
        wait_for(lambda: run.drawn() > 3)
    finally:
        run.end()
    assert said.read_text().count("nobody answers") == 1


@pytest.mark.screen
def test_where_it_cannot_come_in_it_ends_with_a_line(folder, view, said):
    made = Curve.make(folder / "stranger.keys", Curve.load(folder / "laptop.keys").server)
    run = Run(folder / "live.toml")
    try:
        wait_for(lambda: run.session.ledger.received > 0)
        window = view("--keys", "stranger.keys")
        assert window.wait(60) == 2
    finally:
        run.end()
    assert f"pellucid keys SESSION.keys --allow {made.public}" in said.read_text()
    assert "Traceback" not in said.read_text()


BUTTON = """
from PySide6.QtWidgets import QApplication
from pellucid.viewer.recording import RecordingBar

app = QApplication([])
bar = RecordingBar(lambda command: None)
for told in ({"only_look": True}, {}):
    bar.tell({"on": False, "switch": True, **told})
    bar.press()
    bar.answered()
    print(bar.button.isEnabled())
"""


@pytest.mark.screen
def test_the_button_is_grey_where_it_may_only_look(screen):
    out = subprocess.run([sys.executable, "-c", BUTTON], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.split() == ["False", "True"]
