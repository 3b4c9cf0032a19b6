"""``pellucid send`` and ``pellucid run`` with keys, over a network that fails: two namespaces, or a pulled cable."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from two_computers import Loopback, namespaces
from wire_parts import LONG_S

from pellucid.wire.keyfile import tend_keys
from pellucid.wire.keys import Curve


@pytest.fixture
def network(unused_port) -> Iterator[Any]:
    made: Any = namespaces() or Loopback(unused_port)
    yield made
    made.close()


class Lab:
    """Both computers' processes."""

    def __init__(self, folder: Path, network: Any) -> None:
        self.folder, self.network = folder, network
        tend_keys(folder / "session.keys", None, [])
        session = Curve.load(folder / "session.keys").public
        tend_keys(folder / "camera.keys", session, [])
        tend_keys(folder / "session.keys", None, [Curve.load(folder / "camera.keys").public])
        self.running: list[subprocess.Popen[str]] = []

    def start(self, where: tuple[str, ...], *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*where, sys.executable, "-m", "pellucid", *args],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(process)
        return process

    def run(self, name: str) -> subprocess.Popen[str]:
        (self.folder / f"{name}.toml").write_text(
            f'source = {{ kind = "wire", bind = "{self.network.bind}", keys = "session.keys", linger_s = 30 }}\n'
            f'sinks = [{{ kind = "recorder", path = "{name}" }}]\n'
        )
        return self.start(self.network.session, "run", f"{name}.toml", "--headless")

    def send(self, frames: int, *options: str) -> subprocess.Popen[str]:
        source = ("--simulated", f"--set=frames={frames}", "--set=shape=[64,64]", "--fps=200")
        way = ("--to", self.network.to, "--keys", "camera.keys", "--in-band", "--compress", "lz4", "--wait", "60")
        return self.start(self.network.camera, "send", *way, *source, *options)

    def rows(self, name: str) -> int:
        """Return how many frames have been recorded so far."""
        with contextlib.suppress(OSError):
            return (self.folder / name / "frames.jsonl").read_text().count("\n")
        return 0

    def report(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name / "report.json").read_text())["frames"]
        return found

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def lab(tmp_path, network) -> Iterator[Lab]:
    made = Lab(tmp_path, network)
    yield made
    made.close()


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + LONG_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("options", [[], ["--lossless"]], ids=["live", "lossless"])
def test_the_network_fails_for_a_while(lab, options):
    frames = 300
    session, camera = lab.run("run"), lab.send(frames, *options)
    until(lambda: lab.rows("run") > 50)
    lab.network.cut()
    time.sleep(3.5 if options else 0.3)  # longer than either side is patient; and shorter
    lab.network.mend()
    said = camera.communicate(timeout=LONG_S)[0]
    out = session.communicate(timeout=LONG_S)[0]
    assert (camera.returncode, session.returncode) == (0, 0), said + out
    report = lab.report("run")
    assert report["unaccounted"] == 0
    assert report["totals_confirmed"]
    assert report["produced"] == frames
    assert report["produced"] == report["received"] + sum(report["dropped"].values()) + sum(report["lost"].values())
    if options:
        assert (report["received"], report["dropped"], report["lost"]) == (frames, {}, {})
    else:
        assert set(report["dropped"]) <= {"sender"}
        assert set(report["lost"]) <= {"wire"}
    assert report["recorded"] == report["received"]
    assert "packed with lz4" in said


def test_either_side_dies_and_another_takes_its_place(lab):
    first, camera = lab.run("first"), lab.send(10**6)
    until(lambda: lab.rows("first") > 20)
    first.kill()
    first.wait()
    second = lab.run("second")
    until(lambda: lab.rows("second") > 20)
    camera.kill()
    camera.wait()
    seen = lab.rows("second")
    said = lab.send(40, "--set=shape=[48,80]").communicate(timeout=LONG_S)[0]  # another ROI than before
    out = second.communicate(timeout=LONG_S)[0]
    assert second.returncode == 0, said + out
    report = lab.report("second")
    assert report["unaccounted"] == 0
    assert report["produced"] == report["received"] + sum(report["dropped"].values()) + sum(report["lost"].values())
    assert report["received"] >= seen + 20
    assert "48x80" in (lab.folder / "second" / "report.json").read_text()
