"""``pellucid run`` on one computer, who looks on another: network namespaces with a cable between them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from two_computers import namespaces
from view_parts import accounted, make_keys, seen, until, write_config
from wire_parts import LONG_S

PORT = 5610


class Lab:
    """Both computers' processes."""

    def __init__(self, folder: Path, network: Any) -> None:
        self.folder, self.network = folder, network
        self.address = network.bind.replace("5599", str(PORT))
        self.status = folder / "seen.json"
        make_keys(folder)
        write_config(folder, f"tcp://0.0.0.0:{PORT}")
        self.running: list[subprocess.Popen[str]] = []

    def start(self, where: tuple[str, ...], *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*where, sys.executable, *args],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(process)
        return process

    def run(self, name: str) -> subprocess.Popen[str]:
        where = f"--set=sinks.0.path={name}"
        return self.start(self.network.session, "-m", "pellucid", "run", "live.toml", "--headless", where)

    def look(self) -> subprocess.Popen[str]:
        looker = str(Path(__file__).parent / "looker.py")
        return self.start(self.network.camera, looker, self.address, "laptop.keys", str(self.status), "lz4")

    @property
    def frames(self) -> int:
        return int(seen(self.status)["frames"])

    def end(self, session: subprocess.Popen[str], name: str) -> str:
        session.terminate()
        out = session.communicate(timeout=LONG_S)[0]
        accounted(json.loads((self.folder / name / "report.json").read_text()))
        return out

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    network = namespaces()
    if network is None:
        pytest.skip("needs the right to make network namespaces")
    made = Lab(tmp_path, network)
    yield made
    made.close()
    network.close()


def test_the_window_survives_a_pulled_cable_and_a_restart(lab):
    first = lab.run("first")
    lab.look()
    until(lambda: lab.frames > 10)
    lab.network.cut()
    until(lambda: seen(lab.status)["why"])
    before = lab.frames
    lab.network.mend()
    until(lambda: lab.frames > before + 10)
    out = lab.end(first, "first")
    assert "a window on another computer (tcp://10.211.7.2:5611) looks on" in out
    assert "is closed, or cannot be reached any more" in out
    before = lab.frames
    second = lab.run("second")
    until(lambda: lab.frames > before + 10)
    second.kill()  # as a crash: it says no good-bye
    until(lambda: seen(lab.status)["why"])
    before = lab.frames
    third = lab.run("third")
    until(lambda: lab.frames > before + 10)
    lab.end(third, "third")
    assert seen(lab.status)["sessions"] >= 4


def test_a_firewall_that_swallows_everything_is_named(lab):
    lab.network.firewall("5611-5614", on=True)
    session = lab.run("run")
    lab.look()
    until(lambda: "Open port 5611 in the firewall here" in seen(lab.status)["why"])
    lab.network.firewall("5611-5614", on=False)
    until(lambda: lab.frames > 3)
    lab.end(session, "run")
