"""Colour maps, gamma, histograms with limits that can be dragged, and pictures of which none can be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pellucid.sinks.window import Window

pytestmark = pytest.mark.screen


@pytest.fixture(scope="module")
def found(screen, tmp_path_factory):
    # A process of its own: Qt and the X server must not outlive each other in this one.
    script = Path(__file__).with_name("window_tones.py")
    out = subprocess.run(
        [sys.executable, script, tmp_path_factory.mktemp("settings")],
        capture_output=True, text=True, timeout=110, check=False, env={**os.environ, "PELLUCID_SETTINGS": "off"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def near(*colours: list[int]) -> list:
    return [pytest.approx(colour, abs=2) for colour in colours]


def test_colour_map_and_gamma_from_the_config(found):
    import cmap

    viridis = [255 * part for part in cmap.Colormap("viridis")(0.25).rgba[:3]]
    assert found["config"] == near([127.5] * 3, viridis)  # a quarter with gamma 0.5 is a half
    assert found["caption"] == ["gamma 0.5", "viridis"]


def test_keys_go_through_the_maps_and_change_gamma(found):
    assert found["gray"] == near([128] * 3, [128] * 3)
    assert found["green"] == [near([0, 128, 0], [0, 128, 0]), ["green", "green"]]
    assert found["of_one"] == ["green", "magenta"]  # the cursor is over the other
    gammas, colours = found["gamma_up"]
    assert gammas == pytest.approx([2, 2])
    assert colours == near([0, 64, 0], [64, 0, 64])
    assert found["gamma_back"] == [[1, 1], near([0, 128, 0], [128, 0, 128])]
    assert found["gamma_least"] == [0.1, 0.1]


def test_histograms_of_both_planes(found):
    assert found["hidden"]
    assert found["histograms"] == [True, True, "raw", "restored"]
    pixels, bins = found["even"]
    assert pixels == 96 * 128
    assert bins == 128  # a ramp of 128 values
    assert found["auto_limits"] == pytest.approx([0, 1000], abs=10)
    assert found["log"] == [True, False]


def test_a_limit_is_dragged_and_let_go_by_a_double_click(found):
    limit, auto, other = found["dragged"]
    assert limit == pytest.approx(500, abs=10)
    assert (auto, other) == (False, True)
    assert found["brighter"] == near([255] * 3, [127] * 3)
    assert found["tool_auto"] == "fixed"
    assert found["stops"]  # at the other limit
    assert found["released"] == [True, pytest.approx(1000, abs=10)]


def test_a_constant_picture_and_one_of_nan_are_shown_and_said(found):
    assert found["constant"] == [True, True]
    assert found["nan"] == [0, True]
    assert found["some_nan"] == [True, True]


def test_a_picture_larger_than_the_graphics_take_is_thinned_and_says_so(found):
    thin, colours, said = found["thin"]
    assert thin == 3
    assert colours == [0, 0, 255, 255]  # where it is, not three times as large
    assert said == ["every 3rd pixel: the graphics take no more"] * 2
    assert found["thin_values"] == [[100.0], [100.0]]


def test_they_are_remembered_and_odd_memories_are_left_alone(found):
    assert found["kept"]["raw"] == {"colormap": "viridis", "gamma": pytest.approx(2**0.25)}
    assert found["recalled"] == [["viridis", pytest.approx(2**0.25)]] * 2
    assert found["odd_memory"] == ["gray", "gray"]


@pytest.mark.parametrize("given", ["virids", {"raw": "no such map"}])
def test_a_map_that_nobody_knows_is_refused_in_a_line(given):
    with pytest.raises(ValidationError, match="is no colour map"):
        Window(colormap=given)


@pytest.mark.parametrize("gamma", [0, -1, 11, {"raw": float("nan")}])
def test_a_gamma_out_of_range_is_refused(gamma):
    with pytest.raises(ValidationError):
        Window(gamma=gamma)


def test_counts_of_any_sample():
    from pellucid.viewer.histogram import BINS, counts_of

    counts, low, high = counts_of(np.zeros(0), None)
    assert counts.sum() == 0
    assert low < high
    counts, low, high = counts_of(np.full(10, -3.0), None)
    assert counts.sum() == 10
    assert low < -3 < high
    counts, low, high = counts_of(np.arange(100, dtype="uint16"), (-50.0, 200.0))
    assert len(counts) == BINS
    assert low < -50
    assert high > 200
