"""The iteration: every method, start and acceleration against the formulas, written out with numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.bench.deconvolution import psnr_db
from pellucid.deconvolution import Deconvolver, Recipe
from pellucid.deconvolution.variation import curvature
from pellucid.optics import projectors, specimen
from pellucid.optics.psf import Gaussian

METHODS = ("wiener-butterworth", "richardson-lucy", "gaussian", "butterworth")


def restore(image, psf, recipe, **keys) -> np.ndarray:
    deconvolver = Deconvolver(image.shape, image.dtype.name, psf, recipe, "cpu", **keys)
    result = torch.zeros(image.shape)
    deconvolver(torch.from_numpy(np.ascontiguousarray(image)), result)
    return result.numpy()


def filtered(x, kernel) -> np.ndarray:
    return np.fft.irfftn(np.fft.rfftn(x) * kernel, x.shape, range(x.ndim))


@pytest.fixture(scope="module")
def plane():
    return specimen.case((160, 192), specimen.thin_psf(33), np.random.default_rng(5))


@pytest.fixture(scope="module")
def stack():
    """Simulated: spots and a slab in a Gaussian's blur, with noise."""
    rng = np.random.default_rng(7)
    truth = np.zeros((24, 56, 64), np.float32)
    for z, y, x in rng.integers((3, 6, 6), (21, 50, 58), (40, 3)):
        truth[z, y, x] += rng.uniform(40, 100)
    truth[10:12, 20:36, 20:44] += 2
    small = Gaussian(fwhm_px=1.6, fwhm_z_px=1.6).sample(None, "truth", 1.0, 9)
    truth = np.maximum(filtered(truth, projectors.otf(small, truth.shape)), 0).astype(np.float32)
    psf = Gaussian(fwhm_px=3.5, fwhm_z_px=5).sample(None, "psf", 1.0, 25)
    around = np.pad(truth, 12)
    blurred = filtered(around, projectors.otf(psf, around.shape))[12:-12, 12:-12, 12:-12]
    mean = np.maximum(blurred, 0) * (200 / blurred.max())
    return rng.poisson(mean).astype(np.float32), truth, psf


def by_hand(image, psf, kernel, steps, start, extrapolation, limits, floor=1e-4):
    """The formulas once more, in double precision, on a picture with a dark border so that no padding matters."""
    forward = projectors.otf(psf, image.shape).astype(complex)

    y = image / image.mean(dtype=float)
    e = {"flat": np.ones_like(y), "image": y, "blurred": filtered(y, forward)}[start]
    e = np.maximum(e, floor)
    before, steps_made = e.copy(), []
    if start == "flat":
        before = np.ones_like(e)
    for k in range(steps):
        if extrapolation == "momentum":
            v = np.maximum(np.clip(e / before, 0.1, 10) ** 0.75 * e, floor) if k else e
        elif extrapolation == "biggs-andrews" and len(steps_made) > 1 and k > (start == "flat"):
            a = np.vdot(steps_made[-1], steps_made[-2]) / max(np.vdot(steps_made[-2], steps_made[-2]), 1e-20)
            v = np.maximum(e + np.clip(a, 0, 1) * (e - before), floor)
        else:
            v = e
        ratio = y / np.maximum(filtered(v, forward), floor)
        new = np.maximum(v * np.clip(filtered(ratio, kernel), *limits), floor)
        before, e = e, new
        steps_made.append(new - v if k or start != "flat" else np.zeros_like(new))
    return e * image.mean(dtype=float)


@pytest.mark.parametrize("start", ["flat", "image", "blurred"])
@pytest.mark.parametrize("acceleration", ["none", "momentum", "biggs-andrews"])
@pytest.mark.parametrize("method", ["richardson-lucy", "wiener-butterworth"])
def test_the_iteration_is_the_formula(start, acceleration, method):
    rng = np.random.default_rng(3)
    psf = Gaussian(fwhm_px=3).sample(None, "psf")
    image = np.zeros((48, 56), np.float32)  # both fast sizes, so that without pads the grid is the picture
    image[16:32, 16:40] = rng.poisson(80, (16, 24))
    recipe = replace(
        Recipe.of(method, 2, "published"), iterations=5, start=start, acceleration=acceleration, pads=(0, 0), alpha=0.05
    )
    kernel = (
        np.conj(projectors.otf(psf, image.shape))
        if method == "richardson-lucy"
        else projectors.wiener_butterworth(psf, image.shape, alpha=0.05, order=10, epsilon="authors")
    ).astype(complex)
    expected = by_hand(image, psf, kernel, 5, start, acceleration, (recipe.lowest, recipe.highest))
    got = restore(image, psf, recipe, conserve=False)
    np.testing.assert_allclose(got, expected, atol=2e-3 * expected.max(), rtol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_nearer_to_the_truth_in_planes(plane, method):
    image, truth = plane
    result = restore(image, specimen.thin_psf(33), Recipe.of(method, 2))
    assert psnr_db(result, truth) > psnr_db(image, truth) + 3


@pytest.mark.parametrize("method", [*METHODS, "wiener"])
def test_every_method_comes_nearer_to_the_truth_in_stacks(stack, method):
    image, truth, psf = stack
    result = restore(image, psf, Recipe.of(method, 3))
    assert psnr_db(result, truth) > psnr_db(image, truth) + 0.5
    assert result.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-4)


def test_momentum_is_ahead_of_plain_richardson_lucy(plane):
    image, truth = plane
    recipe = replace(Recipe.of("richardson-lucy", 2), iterations=6)
    plain = restore(image, specimen.thin_psf(33), replace(recipe, acceleration="none"))
    assert psnr_db(restore(image, specimen.thin_psf(33), recipe), truth) > psnr_db(plain, truth) + 0.5


def test_part_of_a_step_lies_between_two(plane):
    image, _ = plane
    recipe = Recipe.of("wiener-butterworth", 2)
    three, part, four = (restore(image, specimen.thin_psf(33), replace(recipe, iterations=n)) for n in (3, 3.5, 4))
    np.testing.assert_allclose(part, (three + four) / 2, atol=1e-2 * four.max())


def test_more_light_gets_more_steps_and_the_unit_does_not_matter():
    truth = specimen.draw((200, 200), np.random.default_rng(1))
    psf = specimen.thin_psf(33)
    steps = []
    for photons in (20, 100, 1000):
        image = specimen.expose(truth, psf, np.random.default_rng(2), photons=photons)
        for factor in (1, 7.3):
            deconvolver = Deconvolver(image.shape, "float32", psf, Recipe.of("wiener-butterworth", 2), "cpu")
            deconvolver(torch.from_numpy(image * np.float32(factor)), torch.zeros(image.shape))
            steps.append(deconvolver.iterations)
    np.testing.assert_allclose(steps[::2], steps[1::2], rtol=1e-3)
    assert 2 <= steps[0] < steps[2] < steps[4] <= 10


def test_the_stop_rule_ends_sooner_and_later(plane):
    image, _ = plane
    done = []
    for change in (0.0, 1e-3, 0.05):
        recipe = replace(Recipe.of("richardson-lucy", 2), iterations=40, stop_change=change)
        deconvolver = Deconvolver(image.shape, "float32", specimen.thin_psf(33), recipe, "cpu")
        deconvolver(torch.from_numpy(image), torch.zeros(image.shape))
        done.append(deconvolver.iterations)
    assert done[0] == 40 > done[1] > done[2] >= 2


def test_total_variation_smooths_and_keeps_edges(plane):
    image, _ = plane
    recipe = replace(Recipe.of("richardson-lucy", 2), iterations=12)
    rough, smooth = (
        restore(image, specimen.thin_psf(33), replace(recipe, tv=tv)).astype(np.float64) for tv in (0.0, 0.02)
    )

    def variation(x):
        return sum(abs(np.diff(x, axis=a)).sum() for a in (0, 1)) / x.sum()

    assert variation(smooth) < 0.97 * variation(rough)
    assert smooth.sum() == pytest.approx(rough.sum(), rel=1e-4)
    assert np.corrcoef(rough.ravel(), smooth.ravel())[0, 1] > 0.9


def test_curvature_is_that_of_a_ball_and_none_of_a_plane():
    y, x = np.mgrid[-20:20, -20:20].astype(np.float32)
    cone = torch.from_numpy(np.hypot(y, x))  # |grad| = 1, so the divergence of its direction is 1 / r
    np.testing.assert_allclose(curvature(cone)[20, 24:34].numpy(), 1 / np.arange(4, 14), rtol=0.1)
    assert abs(curvature(torch.full((8, 9, 10), 3.0))).max() == 0


def test_wiener_is_linear():
    rng = np.random.default_rng(0)
    psf = Gaussian(fwhm_px=3).sample(None, "psf")
    one, two = rng.random((2, 40, 50)).astype(np.float32)
    keys = {"psf": psf, "recipe": Recipe.of("wiener", 2), "conserve": False}
    total = restore(one + 3 * two, **keys)
    np.testing.assert_allclose(total, restore(one, **keys) + 3 * restore(two, **keys), atol=1e-4)


@pytest.mark.parametrize("factor", [2.0, 3.7])
@pytest.mark.parametrize("method", ["wiener-butterworth", "wiener"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_twice_the_counts_give_twice_the_result(plane, stack, factor, method, ndim):
    image, psf = (plane[0], specimen.thin_psf(33)) if ndim == 2 else (stack[0], stack[2])
    one = restore(image, psf, Recipe.of(method, ndim))
    more = restore(image * np.float32(factor), psf, Recipe.of(method, ndim))
    np.testing.assert_allclose(more / factor, one, atol=1e-3 * one.max())


# What real pictures have


def bead_on_haze(seed=0):
    """Simulated: a bright bead on a hazy ground; the counts of the bead alone are 10,000."""
    psf = Gaussian(fwhm_px=3).sample(None, "psf")
    truth = np.full((128, 128), 50.0)
    truth[64, 64] += 10_000
    mean = np.maximum(filtered(truth, projectors.otf(psf, truth.shape)), 0)
    y, x = np.mgrid[:128, :128]
    return np.random.default_rng(seed).poisson(mean).astype(np.float32), psf, np.hypot(y - 64, x - 64) <= 8


@pytest.mark.parametrize("preset", ["tuned", "fast"])
@pytest.mark.parametrize("method", METHODS)
def test_a_bright_bead_on_haze_stays_a_bead_with_its_light(method, preset):
    image, psf, near = bead_on_haze()
    result = restore(image, psf, Recipe.of(method, 2, preset))
    assert result.argmax() == 64 * 128 + 64
    assert result.max() > image.max()
    assert result[near].sum() - result[~near].mean() * near.sum() == pytest.approx(10_000, rel=0.2)


@pytest.mark.parametrize("method", [*METHODS, "wiener"])
@pytest.mark.parametrize(("photons", "read_noise"), [(100, 2), (20, 2), (10, 5)])
def test_noise_below_the_background_is_no_light(method, photons, read_noise):
    rng = np.random.default_rng(4)
    psf = Gaussian(fwhm_px=3).sample(None, "psf")
    truth = np.maximum(filtered(specimen.draw((192, 192), rng), projectors.otf(psf, (192, 192))), 0)
    light = rng.poisson(truth * (photons / truth.max()))
    counts = np.round(light + 100 + rng.normal(0, read_noise, light.shape)).astype(np.uint16)
    result = restore(counts, psf, Recipe.of(method, 2), background=100)
    assert result.sum(dtype=float) == pytest.approx(counts.sum(dtype=float) - 100 * counts.size, rel=0.01)


@pytest.mark.parametrize("at", [(40, 40), (80, 97)])
def test_a_hot_pixel_does_not_spoil_the_rest(plane, at):
    image, truth = plane
    psf = specimen.thin_psf(33)
    hot = image.copy()
    hot[at] = 65535
    far = np.ones(image.shape, bool)
    far[max(0, at[0] - 24) : at[0] + 25, max(0, at[1] - 24) : at[1] + 25] = False
    good = restore(image, psf, Recipe.of("wiener-butterworth", 2))
    bad = restore(hot, psf, Recipe.of("wiener-butterworth", 2))
    assert psnr_db(bad[far], truth[far]) > psnr_db(good[far], truth[far]) - 1.5


def test_a_stack_does_not_remember_those_before(stack):
    image, _, psf = stack
    rng = np.random.default_rng(2)
    dim, bright = rng.poisson(image / 20).astype(np.float32), image * 1000
    recipe = replace(Recipe.of("wiener-butterworth", 3), iterations=4)
    one = Deconvolver(image.shape, "float32", psf, recipe, "cpu")
    results = []
    for given in (dim, bright, image, dim, np.full_like(dim, np.nan), dim):
        results.append(torch.zeros(image.shape))
        one(torch.from_numpy(given), results[-1])
    assert torch.equal(results[0], results[3])
    assert results[4].isnan().all()
    assert torch.equal(results[0], results[5])
    np.testing.assert_array_equal(results[2].numpy(), restore(image, psf, recipe))


def test_the_border_of_a_deep_stack_is_not_led_astray_by_its_padding():
    """Light of what lies outside is there: the padding may not be believed for long."""
    psf = specimen.stack_psf(17, 33)
    image, truth = specimen.case((24, 64, 64), psf, np.random.default_rng(3), 1000)
    recipe = replace(Recipe.of("wiener-butterworth", 3), iterations=16)
    believed = replace(recipe, trust=1.0)
    edge = np.ones(truth.shape, bool)
    edge[2:-2, 4:-4, 4:-4] = False
    ours, before = (psnr_db(restore(image, psf, r)[edge], truth[edge]) for r in (recipe, believed))
    assert ours > before + 0.5
