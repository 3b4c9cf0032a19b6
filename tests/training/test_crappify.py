"""What a crappifier adds is what the paper's formulas say, and a batch of it fits a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.errors import ConfigError
from pellucid.training.crappify import (
    Blur,
    Crappified,
    Crappifier,
    LocalNoise,
    Photons,
    ReadNoise,
    SaltAndPepper,
    crappifier,
    gaussian,
)

EM = Path(__file__).resolve().parents[2].parent / "shared/data/em"


@pytest.fixture
def chance():
    return torch.Generator().manual_seed(3)


def flat(value, side=256, count=1):
    return torch.full((count, 1, side, side), float(value))


@pytest.mark.parametrize("strength", [0.05, 0.5])
def test_local_noise_has_the_variance_of_the_formula(chance, strength):
    added = LocalNoise(strength)(flat(0.4), chance) - 0.4
    assert float(added.var()) == pytest.approx(strength * 0.4, rel=0.03)
    assert float(added.mean()) == pytest.approx(0, abs=0.01)


def test_local_noise_follows_the_blurred_brightness(chance):
    halves = flat(0.1)
    halves[..., 128:] = 0.9
    added = LocalNoise(0.05)(halves, chance) - halves
    # Far from the step the blur does not mix the halves.
    ratio = added[..., 160:].var() / added[..., :96].var()
    assert float(ratio) == pytest.approx(9, rel=0.1)


def test_the_blur_is_the_one_of_scipy():
    from scipy import ndimage

    plane = np.random.default_rng(1).random((40, 50), np.float32)
    for sigma in (0.7, 5.0):
        ours = gaussian(torch.from_numpy(plane)[None, None], torch.tensor([sigma]))[0, 0].numpy()
        theirs = ndimage.gaussian_filter(plane, sigma, mode="nearest", truncate=3.0)
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_salt_and_pepper_hit_half_a_percent_each(chance):
    spoiled = SaltAndPepper()(flat(0.5, 512), chance)
    assert float((spoiled == 1).float().mean()) == pytest.approx(0.005, rel=0.1)
    assert float((spoiled == 0).float().mean()) == pytest.approx(0.005, rel=0.1)
    assert float((spoiled == 0.5).float().mean()) == pytest.approx(0.99, abs=0.001)


def test_photons_give_the_variance_of_poisson(chance):
    counted = Photons((50.0, 50.0))(flat(0.5), chance)
    assert float(counted.mean()) == pytest.approx(0.5, rel=0.01)
    assert float(counted.var()) == pytest.approx(0.5 / 50, rel=0.03)


def test_read_noise_and_blur_do_what_they_are_told(chance):
    noisy = ReadNoise((0.1, 0.1))(flat(0.5), chance)
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.03)
    spot = flat(0, 33)
    spot[..., 16, 16] = 1
    blurred = Blur((1.0, 1.0))(spot, chance)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-4)
    assert float(blurred[..., 16, 16] / blurred[..., 16, 17]) == pytest.approx(np.exp(0.5), rel=1e-3)


def test_steps_come_in_their_order(chance):
    double, add = (lambda x, _: x * 2), (lambda x, _: x + 0.1)
    assert float(Crappifier((double, add))(flat(0.2, 8), chance).mean()) == pytest.approx(0.5)
    assert float(Crappifier((add, double))(flat(0.2, 8), chance).mean()) == pytest.approx(0.6)


def test_fluorescence_restores_the_maximum(chance):
    # Salt is at the maximum that the plane had, however bright that was.
    spoiled = crappifier("fluorescence")(7 * torch.rand((2, 1, 128, 128), generator=chance), chance)
    assert spoiled.amax((1, 2, 3)).tolist() == pytest.approx([7, 7], rel=1e-3)
    assert float(spoiled.min()) == 0


def test_electron_microscopy_is_noise_of_a_twentieth(chance):
    spoiled = crappifier("em")(flat(0.5), chance)
    assert float((spoiled - 0.5).var()) == pytest.approx(0.05 * 0.5, rel=0.05)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("name", ["em", "fluorescence"])
def test_batches_fit_a_network(chance, name, scale):
    rng = np.random.default_rng(0)
    source = Crappified([rng.random((150, 170))], crappifier(name, scale))
    batch = source.draw(3, 24, chance)
    assert batch.given.shape == (3, 1, 24, 24)
    assert batch.target.shape == (3, 1, 24 * scale, 24 * scale)
    assert batch.given.dtype == batch.target.dtype == torch.float32
    assert batch.noise.shape == (3,)
    assert (batch.noise > 0).all()


def test_sampled_pixels_keep_their_noise_and_binned_ones_lose_it(chance):
    sampled = Crappifier((ReadNoise((0.1, 0.1)),), 4)(flat(0.5), chance)
    binned = Crappifier((ReadNoise((0.1, 0.1)),), 4, reduce="binned")(flat(0.5), chance)
    assert float(sampled.std()) == pytest.approx(0.05, rel=0.05)  # half-way between four pixels
    assert float(binned.std()) == pytest.approx(0.025, rel=0.05)  # the mean of sixteen


def test_given_and_target_show_the_same_place(chance):
    y, x = np.mgrid[:128, :128] / 128
    source = Crappified([np.sin(9 * x) ** 2 * np.cos(5 * y) ** 2], Crappifier((), 2))
    batch = source.draw(4, 16, chance)
    small = torch.nn.functional.avg_pool2d(batch.target, 2)
    assert float((small - batch.given).abs().max()) < 1e-5
    assert float(batch.noise.max()) < 1e-10


def test_the_same_seed_gives_the_same_patches():
    source = Crappified([np.random.default_rng(0).random((64, 64))], crappifier("em", 2))
    first, second = (source.draw(2, 16, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.given, second.given)
    assert torch.equal(first.target, second.target)


def test_mistakes_are_one_line():
    with pytest.raises(ConfigError, match='Did you mean "fluorescence"') as told:
        crappifier("fluorescense")
    assert "\n" not in str(told.value)
    with pytest.raises(ConfigError, match="1, 2 or 4"):
        crappifier("em", 3)
    with pytest.raises(ConfigError, match="no planes"):
        Crappified([], crappifier("em"))


@pytest.mark.skipif(not EM.is_dir(), reason="shared/data/em is not here")
def test_real_electron_micrographs(chance):
    source = Crappified.read(sorted(EM.glob("*.tif"))[:2], crappifier("em", 4))
    batch = source.draw(2, 32, chance)
    assert batch.target.shape == (2, 1, 128, 128)
    # They are noisier than they were, and still the same pictures.
    clean = torch.nn.functional.interpolate(batch.target, scale_factor=0.25, mode="bilinear")
    alike = torch.corrcoef(torch.stack([clean.flatten(), batch.given.flatten()]))[0, 1]
    assert 0.3 < float(alike) < 0.999
