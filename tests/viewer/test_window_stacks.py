"""Z-stacks in the window: their maximum, by slice, as volumes that turn together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.screen


def gray(*percent: int) -> list[int]:
    return pytest.approx([2.55 * one for one in percent], abs=1.5)


@pytest.fixture(scope="module")
def found(screen):
    # A process of its own: Qt and the X server must not outlive each other in this one.
    script = Path(__file__).with_name("window_stacks.py")
    out = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=110, check=False,
        env={**os.environ, "PELLUCID_SETTINGS": "off"},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def test_the_maximum_is_what_is_seen_first(found):
    seen, taken, button = found["max"]
    assert seen == gray(60, 80)
    assert taken == ["maximum of z 1–6"] * 2
    assert button == "Maximum"
    assert found["slider_hidden"]


def test_slices_by_key_and_slider_raw_and_restored_together(found):
    assert found["slice"] == [gray(40, 60), ["z 4/6"] * 2, True]
    assert found["up"] == [gray(50, 70), ["z 5/6"] * 2]
    assert found["bottom"] == [gray(10, 30), ["z 1/6"] * 2]  # it stops there
    assert found["slider"] == [gray(50, 70), ["z 5/6"] * 2]


def test_the_next_stack_shows_the_same_slice_and_its_values(found):
    assert found["next_stack"] == [gray(55, 75), ["z 5/6"] * 2]
    assert found["values"] == [[50.0], [70.0]]


def test_a_volume_is_drawn_follows_the_stack_and_turns_with_the_other(found):
    seen, taken, slider_hidden = found["volume"]
    assert seen == gray(60, 80)  # from above, the brightest along z
    assert taken == ["volume of z 1–6"] * 2
    assert slider_hidden
    assert found["volume_next"] == gray(80, 100)
    assert found["from_above"] == [[0.0, 90.0]] * 2
    one, other = found["turned"]
    assert one == other != [0.0, 90.0]
    assert found["no_pixel_under"]


def test_volumes_may_be_split(found):
    assert found["volume_split"] == "split"
    left, right = found["volume_halves"]
    assert left < right


def test_back_to_the_maximum_with_the_newest_stack(found):
    assert found["max_again"] == [gray(80, 100), ["maximum of z 1–6"] * 2]
    assert found["max_next"] == gray(60, 80)


def test_without_a_stack_it_says_what_makes_one(found):
    word, button = found["no_stack"]
    assert 'unit = "stack"' in word
    assert not button
