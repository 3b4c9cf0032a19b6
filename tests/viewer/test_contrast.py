"""Display limits: fixed ones stay, automatic ones follow slowly, and a strange picture breaks nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.viewer.contrast import Contrast, contrast_for, subsample

S = 1_000_000_000


def flat(value: float) -> np.ndarray:
    return np.linspace(value, value + 1000, 10_000, dtype=np.float32)


def test_subsample_is_small_finite_and_a_copy():
    plane = np.arange(1000 * 900, dtype=np.float32).reshape(1000, 900)
    plane[::2, ::3] = np.nan
    plane[1, 1] = np.inf
    values = subsample(plane, at_most=10_000)
    assert 0 < values.size <= 10_000
    assert np.isfinite(values).all()
    small = np.ones((4, 5), np.uint16)
    values = subsample(small)
    small[:] = 9
    assert values.tolist() == [1] * 20


def test_fixed_limits_do_not_follow():
    contrast = Contrast([100, 500])
    assert not contrast.learn(flat(3000), 1 * S)
    assert contrast.limits == (100, 500)
    assert not contrast.auto


def test_first_picture_sets_automatic_limits_at_once():
    contrast = Contrast("auto")
    assert contrast.limits is None
    assert contrast.learn(flat(100), 1 * S)
    assert contrast.limits == pytest.approx((101, 1099), abs=1)


def test_automatic_limits_follow_slowly_and_arrive():
    contrast = Contrast("auto", tau_s=1.5)
    contrast.learn(flat(0), 1 * S)
    before = contrast.limits
    contrast.learn(flat(1000), 1 * S + S // 60)
    assert before is not None
    assert contrast.limits is not None
    # One frame at 60 Hz moves about one percent of the way: a flash does not make the picture pump.
    assert 0 < contrast.limits[0] - before[0] < 20
    contrast.learn(flat(1000), 1 * S + S // 60 + 3 * S // 2)
    assert contrast.limits[0] == pytest.approx(before[0] + 1000 * (1 - np.exp(-1)), abs=20)
    for second in range(3, 30):
        contrast.learn(flat(1000), second * S)
    assert contrast.limits == pytest.approx((1001, 1999), abs=1)


def test_extreme_values_of_few_pixels_count_little():
    values = flat(0)
    values[::5000] = 60_000
    contrast = Contrast("auto")
    contrast.learn(values, S)
    assert contrast.limits is not None
    assert contrast.limits[1] < 1100


@pytest.mark.parametrize("value", [0.0, -5.0, 1e-12, 65535.0])
def test_a_flat_picture_keeps_limits_apart(value):
    contrast = Contrast("auto")
    contrast.learn(np.full(100, value), S)
    assert contrast.limits is not None
    assert contrast.limits[0] < contrast.limits[1]


def test_no_values_change_nothing():
    contrast = Contrast("auto")
    assert not contrast.learn(np.empty(0), S)
    assert contrast.limits is None


def test_switching_goes_to_automatic_and_back_to_the_given_limits():
    contrast = Contrast([100, 500])
    contrast.learn(flat(3000), S)  # remembered, so that switching works while no frame comes
    contrast.switch()
    assert contrast.auto
    assert contrast.limits == pytest.approx((3001, 3999), abs=1)
    contrast.switch()
    assert contrast.limits == (100, 500)


def test_switching_off_holds_automatic_limits():
    contrast = Contrast("auto")
    contrast.learn(flat(0), S)
    held = contrast.limits
    contrast.switch()
    contrast.learn(flat(5000), 100 * S)
    assert contrast.limits == held


def test_contrast_for_takes_one_value_or_a_table():
    assert contrast_for("auto", "raw").auto
    assert contrast_for([1, 2], "restored").limits == (1, 2)
    table = {"raw": [1, 2], "restored": "auto"}
    assert contrast_for(table, "raw").limits == (1, 2)
    assert contrast_for(table, "restored").auto
    assert contrast_for(table, "trust").auto


def test_another_view_of_the_specimen_is_taken_over_at_once():
    contrast = Contrast("auto")
    contrast.learn(flat(0), 1 * S)
    contrast.restart()
    contrast.learn(flat(5000), 1 * S + 1)
    assert contrast.limits == pytest.approx((5001, 5999), abs=1)
    contrast.switch()
    contrast.restart()
    assert not contrast.learn(flat(0), 2 * S)  # limits that are held are held


def test_limits_that_are_held_before_the_first_picture_are_those_of_it():
    contrast = Contrast("auto")
    contrast.switch()
    assert contrast.learn(flat(0), 1 * S)
    assert not contrast.learn(flat(5000), 99 * S)


def test_black_of_a_colour_picture_is_zero():
    """Another black would give other hues."""
    contrast = contrast_for("auto", "raw", is_colour=True)
    contrast.learn(subsample(np.stack([flat(50).reshape(100, 100)] * 3)), 1 * S)
    assert contrast.limits == pytest.approx((0, 1049), abs=1)
    assert contrast_for({"raw": [5, 9]}, "raw", is_colour=True).limits == (5, 9)
