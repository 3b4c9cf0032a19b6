"""Blind spots: how many, where from, and a warning where noise is shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from pellucid.errors import ConfigError
from pellucid.training.noise2void import Noise2Void, blind, shared_noise
from pellucid.training.specimens import draw_plane

RAW = Path(__file__).resolve().parents[2].parent / "shared/data/fmd/raw"


@pytest.fixture
def chance():
    return torch.Generator().manual_seed(4)


def places(n, side):
    """Every pixel's value is its own place, so that it can be seen where a value came from."""
    return torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side).repeat(n, 1, 1, 1)


def test_one_and_a_half_percent_are_masked_one_in_each_box(chance):
    _, mask = blind(torch.rand((5, 1, 64, 96), generator=chance), chance)
    assert float(mask.mean()) == pytest.approx(0.015, abs=0.001)
    in_boxes = torch.nn.functional.avg_pool2d(mask, 8) * 64
    assert torch.equal(in_boxes, torch.ones_like(in_boxes))


def test_every_place_of_a_box_is_masked_as_often(chance):
    _, mask = blind(torch.zeros((400, 1, 64, 64)), chance)
    times = mask.view(400, 8, 8, 8, 8).sum((0, 1, 3))
    assert times.sum() == 400 * 64
    assert float((times - 400).abs().max()) < 5 * 400**0.5


def test_a_masked_pixel_is_a_neighbour_and_never_itself(chance):
    side = 24
    planes = places(300, side)
    given, mask = blind(planes, chance)
    assert torch.equal(given[mask == 0], planes[mask == 0])
    here, there = planes[mask == 1].long(), given[mask == 1].long()
    down, right = there // side - here // side, there % side - here % side
    assert int(down.abs().max()) == int(right.abs().max()) == 2
    assert not bool(((down == 0) & (right == 0)).any())
    assert len(set(zip(down.tolist(), right.tolist(), strict=True))) == 24
    # Away from the border all neighbours are taken as often.
    inner = ((here // side) % (side - 2) >= 2) & ((here % side) % (side - 2) >= 2)
    _, times = torch.unique(torch.stack([down[inner], right[inner]]), dim=1, return_counts=True)
    assert float(times.max() / times.min()) < 1.8


def test_the_target_is_the_noisy_picture_and_the_loss_is_taken_at_the_mask(chance):
    source = Noise2Void([np.random.default_rng(0).normal(100, 5, (80, 90)).astype(np.uint16)])
    batch = source.draw(3, 64, chance)
    assert batch.given.shape == batch.target.shape == batch.mask.shape == (3, 1, 64, 64)
    same = batch.given == batch.target
    assert bool(same[batch.mask == 0].all())
    assert float(same[batch.mask == 1].float().mean()) < 0.3
    assert (batch.noise > 0).all()


def test_the_noise_it_tells_is_that_of_white_noise(chance):
    planes = [np.random.default_rng(0).normal(0, 1, (256, 256))]
    low, high = np.percentile(planes[0], (0.1, 99.9))
    batch = Noise2Void(planes).draw(4, 128, chance)
    assert float(batch.noise.mean()) == pytest.approx(1 / (high - low) ** 2, rel=0.05)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 0.7, 1.0])
def test_shared_noise_is_measured(sigma):
    white = np.random.default_rng(2).normal(size=(400, 400))
    noise = ndimage.gaussian_filter(white, sigma)
    true = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    # The quietest blocks are chosen, which makes it a little less than it is.
    assert shared_noise(noise) == pytest.approx(true, abs=0.05)


def test_noise_shared_along_one_axis_only_is_seen():
    white = np.random.default_rng(2).normal(size=(300, 300))
    for axis in (0, 1):
        assert shared_noise(ndimage.uniform_filter1d(white, 2, axis=axis)) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_structure_is_not_taken_for_shared_noise(seed):
    clean = draw_plane(256, np.random.default_rng(seed))
    noisy = np.random.default_rng(9).poisson(clean * 100 + 5)
    assert abs(shared_noise(noisy)) < 0.1
    assert Noise2Void([noisy]).warning == ""


def test_the_warning_is_one_line_with_the_figure():
    noise = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(200, 200)), 0.8)
    warning = Noise2Void([noise]).warning
    assert f"{shared_noise(noise):.2f}" in warning
    assert "\n" not in warning


def test_constant_pictures_have_no_noise_to_share():
    assert shared_noise(np.full((64, 64), 7)) == 0


@pytest.mark.parametrize("planes", [[], [np.zeros((10, 10))], [np.zeros((3, 64, 64))]])
def test_pictures_that_cannot_be_used_are_told_in_one_line(planes):
    with pytest.raises(ConfigError) as told:
        Noise2Void(planes)
    assert "\n" not in str(told.value)


@pytest.mark.skipif(not RAW.is_dir(), reason="shared/data/fmd/raw is not here")
def test_real_captures_are_told_apart():
    def warning(name):
        return Noise2Void.read([RAW / name]).warning

    assert warning("WideField_BPAE_G_1.png")
    for name in ("Confocal_BPAE_B_1.png", "Confocal_FISH_1.png", "TwoPhoton_MICE_1.png"):
        assert warning(name) == "", name
    # What repeats of the same field say, where the noise is the difference.
    a, b = (np.asarray(Image.open(RAW / f"WideField_BPAE_G_{i}.png"), float) for i in (1, 2))
    noise = a - b
    true = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert shared_noise(a) == pytest.approx(true, abs=0.15)
