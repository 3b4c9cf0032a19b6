"""Back projectors against the formulas, written out once more frequency by frequency."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.optics.projectors import butterworth_epsilon2, fast_size, flipped, fwhm_px, otf, wiener_butterworth
from pellucid.optics.psf import Gaussian, Scalar

SHAPE = (64, 96)
WIDTH = 4.0
SIGMA = WIDTH / math.sqrt(8 * math.log(2))


def gaussian_otf(k: float) -> float:
    """|O| of a Gaussian, in closed form."""
    return math.exp(-2 * (math.pi * SIGMA * k) ** 2)


@pytest.fixture(scope="module")
def psf() -> np.ndarray:
    return Gaussian(fwhm_px=WIDTH).sample(None, "psf")


@pytest.fixture(scope="module")
def lopsided() -> np.ndarray:
    image = np.random.default_rng(3).random((7, 5))
    return image / image.sum()


@given(st.integers(1, 5000))
def test_fast_sizes_are_even_and_of_small_primes(n):
    size = fast_size(n)
    assert size >= n
    assert size % 2 == 0
    rest = size
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1


def test_the_otf_is_the_transform_about_the_centre(lopsided):
    got = otf(lopsided, SHAPE)
    assert got.shape == (64, 49)
    y, x = np.mgrid[-3:4, -2:3]
    for v, u in ((0, 0), (5, 7), (-9, 48), (32, 1)):
        exact = (lopsided * np.exp(-2j * np.pi * (v * y / 64 + u * x / 96))).sum()
        assert got[v, u] == pytest.approx(exact, abs=1e-6)


def test_flipped_is_the_otf_of_the_psf_turned_round(lopsided):
    forward = otf(lopsided, SHAPE)
    np.testing.assert_array_equal(flipped(forward), np.conj(forward))
    np.testing.assert_allclose(flipped(forward), otf(lopsided[::-1, ::-1], SHAPE), atol=1e-6)


@pytest.mark.parametrize("epsilon", ["theory", "authors"])
@pytest.mark.parametrize(("alpha", "beta", "order"), [(0.05, "auto", 4), (0.001, 0.1, 10), (0.01, 0.05, 7)])
def test_wiener_butterworth_by_the_formula(psf, epsilon, alpha, beta, order):
    cut = 1 / WIDTH
    at_cut = gaussian_otf(cut)
    gain = at_cut / (at_cut**2 + alpha)
    wanted = at_cut if beta == "auto" else beta
    epsilon2 = (gain / wanted) ** 2 - 1 if epsilon == "theory" else gain / wanted**2 - 1
    got = wiener_butterworth(psf, SHAPE, alpha=alpha, beta=beta, order=order, epsilon=epsilon, resolution_px=WIDTH)
    for v, u in ((0, 0), (1, 0), (0, 5), (16, 0), (0, 24), (10, 11), (-7, 20), (32, 48)):
        ky, kx = v / SHAPE[0], u / SHAPE[1]
        o = gaussian_otf(math.hypot(ky, kx))
        r2 = (ky**2 + kx**2) / cut**2
        exact = (1 + alpha) * o / (o**2 + alpha) / math.sqrt(1 + epsilon2 * r2**order)
        assert got[v, u] == pytest.approx(exact, rel=5e-3, abs=2e-5)


def test_with_theory_the_gain_at_the_cut_off_is_beta(psf):
    got = wiener_butterworth(psf, SHAPE, alpha=0.01, beta=0.02, order=4, resolution_px=WIDTH)
    for at in ((16, 0), (0, 24)):
        assert abs(got[at]) / (1 + 0.01) == pytest.approx(0.02, rel=2e-3)  # undoing the sum of 1


@given(st.floats(1e-3, 100), st.floats(1e-3, 1), st.sampled_from(["theory", "authors"]))
def test_epsilon_is_never_the_root_of_something_negative(gain, beta, epsilon):
    assert butterworth_epsilon2(gain, beta, epsilon) >= 0


def test_each_axis_has_its_own_cut_off():
    line_y, line_x = (np.exp(-0.5 * (np.arange(-20, 21) / s) ** 2) for s in (1.5, 3.0))
    psf = np.outer(line_y, line_x)
    psf /= psf.sum()
    wide = 2 * math.sqrt(2 * math.log(2))
    assert fwhm_px(psf) == pytest.approx((1.5 * wide, 3.0 * wide), rel=0.02)
    got = abs(wiener_butterworth(psf, (128, 128)))
    for k in (8, 16, 24):
        assert got[2 * k, 0] == pytest.approx(got[0, k], rel=0.03)


def test_the_kernel_of_a_lopsided_psf_undoes_its_shift(lopsided):
    product = wiener_butterworth(lopsided, SHAPE) * otf(lopsided, SHAPE)
    assert abs(product.imag).max() < 1e-6
    assert product.real.min() >= 0
    assert product[0, 0] == pytest.approx(1, abs=1e-6)


def test_a_psf_without_a_half_and_one_of_a_single_pixel_have_kernels():
    for psf in (np.full((9, 9), 1 / 81), np.pad([[1.0]], 1)):
        assert np.isfinite(wiener_butterworth(psf, SHAPE)).all()
    assert fwhm_px(np.full((9, 9), 1 / 81)) == (9, 9)


def test_a_beta_of_nearly_zero_does_not_blow_up():
    lens = Scalar(na=1.0, wavelength_nm=520, index=1.33, pixel_um=0.1, thickness_um=2.5, size_px=33)
    kernel = wiener_butterworth(lens.sample(None, "psf"), SHAPE, alpha=1e-4, beta="auto", resolution_px=2.0)
    assert np.isfinite(kernel).all()
