"""The simulated specimen: the truth that other tests and benches are measured against."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.optics import specimen


def test_a_case_repeats_and_is_as_bright_as_told():
    psf = specimen.thin_psf(33)
    (one, truth), (two, _) = (specimen.case((80, 120), psf, np.random.default_rng(5), photons=500) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == truth.shape == (80, 120)
    assert one.dtype == truth.dtype == np.float32
    assert truth.min() > -1e-4 * truth.max()
    assert one.min() >= 0
    assert one.max() < 650


def test_exposure_keeps_light_in_place():
    truth = np.zeros((65, 65), np.float32)
    truth[32, 32] = 1
    image = specimen.expose(truth, specimen.thin_psf(33), np.random.default_rng(0), photons=1e6, read_noise=0)
    y, x = np.indices(image.shape)
    assert abs((image * y).sum() / image.sum() - 32) < 0.01
    assert abs((image * x).sum() / image.sum() - 32) < 0.01


def test_a_stack_repeats_and_has_as_many_photons_as_told():
    psf = specimen.stack_psf(9, 25)
    (one, truth), (two, _) = (specimen.case((16, 48, 40), psf, np.random.default_rng(5), 500) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == truth.shape == (16, 48, 40)
    assert one.dtype == truth.dtype == np.float32
    assert truth.min() > -1e-4 * truth.max()
    assert 400 < one.max() < 650


def test_an_exposed_stack_keeps_light_in_place():
    truth = np.zeros((25, 41, 41), np.float32)
    truth[12, 20, 20] = 1
    psf = specimen.stack_psf(9, 25)
    image = specimen.expose(truth, psf, np.random.default_rng(0), photons=1e6, read_noise=0)
    for axis, middle in enumerate((12, 20, 20)):
        place = np.indices(image.shape)[axis]
        assert abs((image * place).sum() / image.sum() - middle) < 0.01


@pytest.mark.parametrize("make", [specimen.stack_psf, specimen.light_sheet_psf, specimen.confocal_psf])
def test_stacks_have_psfs_with_odd_sides_and_their_peak_in_the_middle(make):
    psf = make(15, 25)
    assert all(n % 2 for n in psf.shape)
    assert psf.shape[1:] == (25, 25)
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    assert np.unravel_index(psf.argmax(), psf.shape) == tuple(n // 2 for n in psf.shape)


@pytest.mark.parametrize("shape", [(96, 96), (24, 96, 96)], ids=["plane", "stack"])
def test_shells_are_added_to_the_same_filaments_and_spots(shape):
    without, both = (specimen.draw(shape, np.random.default_rng(2), shells=s) for s in (False, True))
    added = both - without
    assert added.min() > -1e-5
    assert 0.002 < (added > 0.01).mean() < 0.5
    assert added.sum() > 0.01 * without.sum()
