"""The simulated specimen: the truth that other tests and benches are measured against."""

from __future__ import annotations

import numpy as np

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
