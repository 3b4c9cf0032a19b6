"""The drawer of live parameters, and the snap key, in a window that speaks to a real session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.screen, pytest.mark.usefixtures("screen")]
ALONE = Path(__file__).with_name("knobs_alone.py")
CONFIG = """
source = { kind = "simulated", shape = [96, 128], fps = 40, on_full = "wait" }
[[stages]]
kind = "deconvolve"
psf = { kind = "gaussian", fwhm_px = 3.0 }
iterations = 2
background = 50.0
[session]
threads = 1
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory, screen):
    folder = tmp_path_factory.mktemp("knobs")
    (folder / "run.toml").write_text(CONFIG)
    out = subprocess.run(
        [sys.executable, str(ALONE), str(folder)],
        capture_output=True, text=True, timeout=110, check=False,
        env={**os.environ, "PELLUCID_RUNTIME": str(folder / "sessions")},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return {**json.loads(out.stdout.splitlines()[-1]), "folder": folder}


def test_there_is_a_field_for_each_key_with_its_bounds(found):
    assert found["fields"]
    assert found["keys"][0] == "stages.0.on"
    assert {"stages.0.iterations", "stages.0.background", "stages.0.method", "stages.0.tv"} <= set(found["keys"])
    assert not {"stages.0.psf", "stages.0.output", "stages.0.reads"} & set(found["keys"])
    assert found["iterations"] == ["QSpinBox", 2, 0, 1000]
    assert (found["special"], found["tv"]) == ("auto", "default")


def test_what_is_typed_takes_effect_when_it_is_complete(found):
    assert found["while typed"] == 0
    assert found["changed"]
    assert found["changes"][0] == ["stages.0.iterations", 2, 5, "window"]


def test_a_stage_is_switched_off_with_its_box(found):
    assert found["off"]
    assert found["changes"][1] == ["stages.0.on", None, False, "window"]


def test_it_shows_what_others_change(found):
    assert found["followed"]


def test_several_at_once_are_one_change(found):
    assert found["together"]
    assert found["changes"][-2:] == [
        ["stages.0.iterations", 5, 999, "window"],
        ["stages.0.tv", None, 0.1, "window"],
    ]


def test_keys_that_are_typed_in_it_are_not_the_windows(found):
    assert not found["typed in it"]
    assert found["closed"]


def test_the_snap_key_writes_what_is_seen(found):
    assert found["snapped"]
    assert found["files"] == ["raw.ome.tif", "raw.png", "restored.ome.tif", "restored.png"]
    (png,) = [path for path in (found["folder"] / "snaps").iterdir() if path.name.endswith("raw.png")]
    assert "shown from 0 to 500" in Image.open(png).text["Description"]
