"""``pellucid tune`` as it is typed: a stage whose best values are known, what cannot be reached, what is mistyped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile

from pellucid.config import Config

STAGE = '''\
import os
import time

from pydantic.dataclasses import dataclass

from pellucid.protocols import Spec


@dataclass
class Known:
    """Takes `work_ms`; the "quick" way takes 0.4 of that. Less work is a worse picture, the way is none."""

    work_ms: float = 100.0
    way: str = "slow"

    def __post_init__(self):
        self.reads = self.writes = None
        self.captures = False

    def open(self, stream, given, device):
        if self.way == "deadly":
            os._exit(3)
        return Spec(given.shape, "float32", device, given.axes)

    def __call__(self, given, result):
        time.sleep(self.work_ms * (0.4 if self.way == "quick" else 1.0) * 1e-3)
        result.copy_(given)
        result.add_(100 / self.work_ms)

    def close(self):
        pass


PELLUCID = {"stages": {"known": Known}}
'''

TEXT = """\
# my microscope
plugins = ["stage.py"]

[source]
kind = "replay"         # of yesterday
path = "frames.tif"
fps = 8

[[stages]]
kind = "known"
way = "slow"            # the careful one
work_ms = 100.0         # as in the paper
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "mine.toml").write_text(TEXT)
    ramp = np.tile(np.arange(1000, dtype=np.uint16), (6, 4, 1))
    tifffile.imwrite(tmp_path / "frames.tif", ramp.reshape(6, 40, 100))
    return tmp_path


def tune(folder, *words):
    command = [sys.executable, "-m", "pellucid", "tune", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=550, check=False)


class Page(HTMLParser):
    """Tags that are not closed, and what is shown."""

    def __init__(self, text):
        super().__init__()
        self.open, self.shown = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data


@pytest.mark.timeout(600)
def test_the_known_optimum_is_found_written_and_explained(folder):
    out = tune(
        folder, "mine.toml", "--target-latency-ms", "35", "--keep", "session", "--seconds", "1",
        "--try", 'stages.0.way="deadly","quick"', "--try", "stages.0.work_ms=100,50,25", "--min-psnr", "30",
    )  # fmt: skip
    assert (out.returncode, out.stderr) == (0, ""), out.stdout + out.stderr
    text = (folder / "mine-tuned.toml").read_text()
    # 100 ms the quick way take 40, 50 take 20: the first that is quick enough, not the quickest.
    config = Config.load(folder / "mine-tuned.toml")
    assert config.stages[0].keys == {"way": "quick", "work_ms": 50}
    assert "# my microscope" in text
    assert "# of yesterday" in text
    way, work = (next(line for line in text.splitlines() if line.startswith(key)) for key in ("way", "work_ms"))
    assert re.search(r'# tune: was "slow"; p99 .* instead of .*\. the careful one$', way)
    assert re.search(r"# tune: was 100\.0; p99 .*dB from the unchanged picture\. as in the paper$", work)
    assert "p99 within 35 ms until restored, at 8 frames/s" in text
    assert "its process died with 3" in out.stdout.replace("\n", " ")

    told = json.loads((folder / "mine-tuned.json").read_text())
    assert told["reached"] is True
    best = told["candidates"][told["best"]]
    assert best["changes"] == {"stages.0.way": "quick", "stages.0.work_ms": 50}
    assert not any(one["changes"].get("stages.0.work_ms") == 25 for one in told["candidates"])
    assert len(best["measured"]) == len(told["candidates"][0]["measured"]) == 3
    assert all(20 <= one["latency_ms"]["restored"]["p50"] < 100 for one in best["measured"])
    page = Page((folder / "mine-tuned.html").read_text())
    assert not page.open
    for words in ("reached", "target 35 ms", "unchanged", "best", "work_ms = 50", "frames.tif"):
        assert words in page.shown


@pytest.mark.timeout(400)
def test_what_cannot_be_reached_is_told_with_what_limits(folder):
    out = tune(
        folder, "mine.toml", "--target-latency-ms", "5", "--fps", "20", "--keep", "session", "--seconds", "0.5",
        "--try", 'stages.0.way="quick"', "-o", "other.toml",
    )  # fmt: skip
    assert out.returncode == 1
    assert out.stderr == ""
    shown = " ".join(out.stdout.split())
    assert "not reached: p99" in shown
    assert "the stage known, which takes 4" in shown
    text = (folder / "other.toml").read_text()
    assert "# NOT REACHED: p99" in text
    assert Config.load(folder / "other.toml").stages[0].keys["way"] == "quick"
    assert json.loads((folder / "other.json").read_text())["reached"] is False


@pytest.mark.timeout(400)
def test_frames_are_taken_from_a_source_that_is_no_file(folder):
    text = '[source]\nkind = "simulated"\nshape = [32, 48]\nfps = 50\n\n[[stages]]\nkind = "known"\nwork_ms = 1.0\n'
    (folder / "live.toml").write_text('plugins = ["stage.py"]\n' + text)
    out = tune(folder, "live.toml", "--target-latency-ms", "1000", "--keep", "session", "--seconds", "0.5",
               "--try", "stages.0.work_ms=0.5")  # fmt: skip
    assert (out.returncode, out.stderr) == (0, ""), out.stdout
    shown = " ".join(out.stdout.split())
    assert "64 frames taken from the config's own source: 32x48" in shown
    assert "changed nothing" in shown
    assert Config.load(folder / "live-tuned.toml").stages[0].keys["work_ms"] == 1.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.toml"], "none.toml"),
        (["mine.toml", "--iterations", "6:1"], "--iterations 6:1: least and most are needed"),
        (["mine.toml", "--try", "stages.0.way"], "--try stages.0.way: give a key and its values"),
        (["mine.toml", "--try", "stages.3.way=1,2"], "--try stages.3.way: no key of this config"),
        (["mine.toml", "--try", "source.fps=1,2"], "--try source.fps: no key of this config"),
        (["mine.toml", "--point", "display"], 'the config has no [[sinks]] kind = "window"'),
        (["mine.toml", "--point", "disk"], 'the config has no [[sinks]] kind = "recorder"'),
        (["mine.toml", "--frames", "gone.tif"], "--frames gone.tif: there is no such file"),
        (["mine.toml", "--frames", "frames.tif"], "give the camera's, such as --fps 100"),
        (["mine.toml", "-o", "mine.toml"], "mine.toml is there already, and nothing is overwritten"),
        (["mine.toml", "-o", "no/such.toml"], "there is no folder"),
        (["mine.toml", "--set", "stages.0.way=[1]"], "stages[0].way"),
    ],
)
def test_a_mistake_is_one_line(folder, words, says):
    before = sorted(p.name for p in folder.iterdir() if p.name != "__pycache__")
    out = tune(folder, *words)
    assert out.returncode == 2
    assert out.stderr.count("\n") == 1
    assert says in out.stderr
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == before


def test_a_config_that_cannot_run_is_one_line(folder):
    out = tune(folder, "mine.toml", "--set", 'stages.0.way="deadly"', "--keep", "session.threads")
    assert out.returncode == 1
    assert out.stderr.count("\n") == 1
    assert "the config cannot be measured as it is: its process died with 3" in out.stderr
    assert not (folder / "mine-tuned.toml").exists()
