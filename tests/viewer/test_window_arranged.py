"""Planes that share a place: split, blinking, alone, channels over each other; the tool bar; what is remembered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.screen

LOW, HIGH = [64, 64, 64], [191, 191, 191]
BLUE, GREEN = [77, 125, 255], [63, 220, 90]


@pytest.fixture(scope="module")
def found(screen, tmp_path_factory):
    # A process of its own: Qt and the X server must not outlive each other in this one.
    script = Path(__file__).with_name("window_arranged.py")
    out = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("settings")],
        capture_output=True, text=True, timeout=110, check=False, env={**os.environ, "PELLUCID_SETTINGS": "off"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def test_side_by_side_and_back(found):
    assert found["side"] == found["side_again"] == [LOW, HIGH, ["raw", "restored"]]


def test_split_shows_raw_left_and_restored_right_of_a_line_in_one_place(found):
    assert found["split"] == [LOW, HIGH, ["raw", "restored"], "split"]
    place, canvas = found["split_whole"]
    assert place == [0, 0, *canvas]
    assert found["split_bars"] == [False, True]  # one picture, one scale bar
    assert found["split_under"] == ["raw", "restored"]
    left, right = found["split_where"]
    assert 0 < left < 64 < right < 128
    assert found["split_next"] == [[128] * 3, [255] * 3]


def test_the_line_is_dragged_and_the_picture_is_not(found):
    split, left, right, line = found["dragged"]
    assert split == pytest.approx(0.65)
    assert (left, right) == (LOW, HIGH)
    assert line == pytest.approx(0.65 * 900)
    assert found["not_moved"]
    assert found["moved"]  # beside the line the mouse moves the picture


def test_blinking_shows_both_by_turns_and_says_which(found):
    assert found["blink"] == [[[128] * 3, "raw"], [[255] * 3, "restored"]]
    assert found["blink_drawn"]


def test_one_of_them_alone(found):
    assert found["raw"] == [LOW, ["raw"]]
    assert found["restored"] == [HIGH, ["restored"]]


def test_channels_over_each_other_add_up_in_their_colours(found):
    raw, restored, names = found["overlay"]
    assert (raw, restored, names) == (BLUE, GREEN, ["raw", "restored"])
    assert found["overlay_sum"] == [min(255, a + b) for a, b in zip(BLUE, GREEN, strict=True)]
    assert found["overlay_parts"] == [[["DAPI", "#4d7dff"], ["FITC", "#3fdc5a"]]] * 2
    assert found["overlay_values"].split("   ")[1:] == ["30", "60"]
    left, right = found["overlay_split"]
    assert left != right
    assert found["overlay_off"] == [False, 2]
    assert found["overlay_gone"] == [255, 255, 255]  # gray as before


def test_channels_that_do_not_match_stay_beside_each_other_with_a_word(found):
    assert found["overlay_of_one"] == [False, "there is one channel here: nothing to lay over it"]
    assert found["unlike"] == 3
    assert "128x96, 60x40" in found["unlike_said"]


def test_the_tool_bar_does_what_keys_do(found):
    assert found["tool"] == ["Side by side", False]
    assert found["tool_clicked"] == ["split", "Split"]
    assert {"V", "O", "A", "R", "T", "F, Space", "?, H, F1", "drag the line"} <= set(found["help"])


def test_figures(found):
    rates, late, time = found["figures"]
    assert re.fullmatch(r"camera 99\.5   restored 49\.7   shown [\d.]+ /s", rates)
    assert re.fullmatch(r"latency p50 [\d.]+, p99 [\d.]+ ms", late)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", time)


def test_it_remembers_how_it_was_and_the_config_wins(found):
    assert found["begins"] == [[1280, 740], "side"]
    assert found["kept"] == {"texts": False, "size": [700, 444], "arrangement": "split"}
    assert found["recalled"] == [[700, 444], "split", False]
    assert found["config_wins"] == [[900, 500], "raw"]
    assert found["config_is_not_kept"] == found["kept"]


def test_damaged_settings_are_said_and_begun_anew(found):
    arrangement, word = found["damaged"]
    assert arrangement == "side"
    assert "cannot be read and are begun anew" in word
