"""Zoom to the cursor, pan and double click work in every arrangement of raw and restored, with channels over each
other and beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.screen

ALL = [f"{name}{over}" for over in ("", " overlay") for name in ("side", "split", "blink", "raw", "restored")]


@pytest.fixture(scope="module")
def found(screen):
    # A process of its own: Qt and the X server must not outlive each other in this one.
    script = Path(__file__).with_name("window_zoomed.py")
    out = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=110, check=False,
        env={**os.environ, "PELLUCID_SETTINGS": "off"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def test_every_arrangement_was_tried(found):
    assert list(found) == ALL


@pytest.mark.parametrize("name", ALL)
def test_the_wheel_keeps_what_is_under_the_cursor_and_a_drag_takes_it_along(found, name):
    one = found[name]
    before, zoomed = one["cursor"]
    assert len(before) == 2
    assert one["closer"] < 0.8
    assert zoomed == pytest.approx(before, abs=0.3)
    assert one["dragged"] == pytest.approx(before, abs=0.3)
    assert one["moved"]
    assert one["linked"]  # all planes of all streams, seen or not


@pytest.mark.parametrize("name", ALL)
def test_a_double_click_shows_one_stream_alone_and_all_again(found, name):
    assert len(found[name]["alone"]) == 1
    assert found[name]["again"] == [0, 1]
