"""The window without the wire: linked views, keys, notices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.screen


@pytest.fixture(scope="module")
def found(screen):
    # A process of its own: Qt and the X server must not outlive each other in this one.
    script = Path(__file__).with_name("window_alone.py")
    out = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100, check=False)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def test_views_are_linked_both_ways(found):
    assert found["fitted"] == [[0, 0, 128, 96]] * 2
    assert found["first_moved"] == [[10, 20, 30, 40]] * 2
    assert found["second_moved"] == [[5, 6, 7, 8]] * 2


def test_fit_and_wheel(found):
    assert found["key_fit"] == found["key_space"] == [[0, 0, 128, 96]] * 2
    one, other = found["wheel"]
    assert one == other
    assert one[2] < 128
    assert [one[0] + one[2] / 2, one[1] + one[3] / 2] == pytest.approx([64, 48], abs=1.0)  # zooms where the cursor is


def test_a_resize_fits_again_unless_the_user_has_zoomed(found):
    whole, before, after = found["resized"]
    assert whole == [[0, 0, 128, 96]] * 2
    assert after > before
    assert found["resized_zoomed"] == [[32, 24, 64, 48]] * 2


def test_cursor_is_in_pixels_of_the_raw_plane(found):
    name, x, y = found["under_cursor"]
    assert name == "restored"
    assert (x, y) == pytest.approx((64, 48), abs=1.0)


def test_contrast_keys(found):
    assert found["limits"][0] == [0, 100]
    assert found["auto_off"] == ["fixed", "fixed"]
    assert found["auto_on"] == ["auto", "auto"]


def test_help_key(found):
    assert found["help"] is True
    assert found["help_again"] is False


def test_scale_bar_only_where_the_pixel_is_known_and_titles(found):
    assert found["projections"] == ["maximum of z 1–5", ""]
    assert found["captions"] == [["raw", True], ["restored", True]]


def test_a_missing_plane_is_said_after_a_moment(found):
    assert found["held"] == ["", ""]  # single frames without it do not flicker
    assert found["missing"] == ["", "raw only: why not"]
    assert found["state"] == "raw only: why not"
    assert found["back"] == ["", ""]
    assert found["live"] == "live"


def test_drawing_is_stamped_and_a_key_closes(found):
    assert found["stamp_after_start"]
    assert found["closed"] == [1, False]


def test_streams_are_told_apart_and_new_panes_take_over_the_zoom(found):
    assert found["put_names"] == ["DAPI  raw", "DAPI  restored", "FITC  raw"]
    assert found["put_title"] == "t - pellucid"
    assert found["put_zoom"] == [[32, 24, 64, 48]] * 3


def test_places_of_an_experiment_are_over_the_pane(found):
    assert found["taken"] == ["t 12/60   p A1 (2/2)   z 3/7"] * 2 + ["t 12/60   p 2/2   z 4/7"]


def test_losses_have_a_line_of_their_own(found):
    assert found["losses"] == "lost 12 (camera buffer 10, wire 2)   dropped 3 (ring 3)"
    assert found["losses_seen"]


def test_the_recording_light_says_what_is_true(found):
    assert found["rec_hidden"] == [True, "no recorder here"]
    assert found["rec_armed"] == [
        "#8b96a3",
        "not recording   the last 5 s would be in it",
        "Record",
    ]
    assert found["rec_on"] == ["#ff4a4a", "1:01:01   1\u202f204 frames   12.3 GB   disk full in 60 s", "Stop"]
    assert found["rec_failed"] == ["#e6aa5c", "recording failed: frames are not recorded", False]
    assert found["rec_always"] == ["#ff4a4a", "0:05   9 frames   1 MB", False]


def test_the_button_and_the_key_ask_once_until_the_session_answers(found):
    assert found["rec_asked"] == ["record.start", "record.stop"]
    assert found["rec_said"] == ["cannot: no disk", "recording to a/b", ""]
    assert found["rec_light_seen"]


def test_another_roi_is_shown_whole_and_zooms_by_itself(found):
    assert found["gone"] == [False, True]
    assert found["cut"] == [[32, 24, 64, 48]] * 2 + [[0, 0, 60, 40]]
    assert found["cut_moved"] == [[10, 20, 30, 40]] * 2 + [[0, 0, 60, 40]]


def test_colours_have_one_contrast_and_three_values(found):
    images, values, limits = found["colour"]
    assert images == 3
    assert values == [[9, 9, 9]]
    assert limits[0] == limits[1] == limits[2] == [0, 100]
    assert found["three_names"] == ["cam  DAPI  raw", "cam  DAPI  restored", "cam  FITC  raw", "other  RGB  raw"]


def test_a_double_click_shows_one_stream_alone(found):
    shown, size, canvas = found["alone"]
    assert shown == [False, False, False, True]
    assert size[1] == canvas[1]
    assert size[0] >= canvas[0] / 2 - 5
    assert found["beside_drawn"]  # what is not shown goes on, or its frames would wait
    assert found["all_again"]
    assert found["texts_off"] is False
