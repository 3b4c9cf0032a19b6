"""The window with damaged settings, with streams that begin late, and with stacks of odd shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.screen

USUAL = [[1280, 740], "side", "max", ""]
CANNOT = "the window's settings cannot be "
HUGE = '{"size": [30000, 20000]}'
HOSTILE = {
    '{"arrangement": ["x"], "stack": {}, "overlay": 3, "texts": null}': USUAL,
    '{"arrangement": "upside down", "stack": "heap"}': USUAL,
    '{"size": [1000000000000, 5]}': USUAL,
    '{"size": [true, true]}': USUAL,
    '{"size": "large"}': USUAL,
    "[1, 2]": [*USUAL[:3], CANNOT],
    "[" * 100_000: [*USUAL[:3], CANNOT],
    "\0": [*USUAL[:3], CANNOT],
}
GRAY_60 = pytest.approx(153, abs=2)


@pytest.fixture(scope="module")
def found(screen, tmp_path_factory):
    # A process of its own: Qt and the X server must not outlive each other in this one.
    script, folder = Path(__file__).with_name("window_hostile.py"), tmp_path_factory.mktemp("settings")
    out = subprocess.run(
        [sys.executable, script, folder, json.dumps([*HOSTILE, HUGE])],
        capture_output=True, text=True, timeout=150, check=False, env={**os.environ, "PELLUCID_SETTINGS": str(folder)},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert "Traceback" not in out.stderr
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:30].replace("\0", "zero"))
def test_nonsense_in_the_settings_is_not_taken(found, text):
    size, *others = found["hostile"][text]
    assert size == [min(a, b) for a, b in zip(USUAL[0], found["screen"], strict=True)]
    assert others == HOSTILE[text][1:]


def test_a_window_of_a_larger_screen_is_as_large_as_this_one(found):
    assert found["hostile"][HUGE][0] == found["screen"]


def test_the_config_holds_for_channels_and_stacks_that_begin_later(found):
    assert found["one_channel"] == [2, ""]
    assert found["late_channel"] == [2, "#3fdc5a", ""]
    cells, word = found["late_volume"]
    assert cells == 3  # beside each other: the one is turned, the other moved
    assert word.startswith("a volume and a plane cannot lie over each other")
    assert found["late_stack"] == ["volume", GRAY_60]
    before, fitted = found["late_stack_fits"]
    assert before == pytest.approx(fitted)


def test_a_channel_that_no_longer_fits_over_the_others_is_said(found):
    cells, word = found["unlike"]
    assert cells == 3  # raw and restored of the first, raw of the other
    assert "128x96, 60x40" in word


def test_the_deepest_stack_is_gone_through_to_its_end(found):
    assert found["depths"] == [[4, 8], 8]
    assert found["depths_back"] == [2, 2]


def test_volumes_with_axes_longer_than_a_texture_are_drawn(found):
    assert found["long_axes"] == [GRAY_60] * 3


def test_the_first_stack_has_its_contrast_at_once(found):
    assert found["first_limits"] == pytest.approx([700, 800])


def test_the_scale_bar_of_a_volume_is_that_of_the_volume(found):
    zooms = []
    for measured, zoom, um, (x, y) in found["volume_scale"]:
        assert measured == pytest.approx(zoom, rel=0.05)
        assert um == pytest.approx(0.5 / zoom)
        assert max(x, y) < 0.5  # neither mirrored nor turned
        zooms.append(zoom)
    assert [zooms[1] / zooms[0], zooms[2] / zooms[1]] == pytest.approx([1.25, 0.5])


def test_a_narrow_window_leaves_out_whole_parts_of_its_header_and_never_the_recording(found):
    bars = found["bars"]
    assert [across for across, *_ in bars.values()] == [int(width) for width in bars]
    assert all(recording for *_, recording, _cut in bars.values())
    assert bars["1280"][1:] == [True, True, []]  # as before, after it was narrow
    assert bars["640"][3] == []
    assert bars["480"][1] is False
