"""PSFs measured from beads whose PSF is known: simulation."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.optics.bead_mean import mean_bead
from pellucid.optics.beads import find_beads
from pellucid.optics.psf import Scalar, Vectorial
from pellucid.optics.resample import resampled
from pellucid.optics.widths import bead_free_um, fwhm

LENS = {"na": 1.1, "wavelength_nm": 520, "index": 1.33}


def relative(one, other) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def put(psf: np.ndarray, places, shape, rng, photons: float, brightness=None) -> np.ndarray:
    """Beads at exact places, with photon and read noise on a camera's offset of 100."""
    light = np.zeros(shape)
    for n, place in enumerate(places):
        corner = np.round(place).astype(int)
        centre = [s // 2 - (p - c) for s, p, c in zip(psf.shape, place, corner, strict=True)]
        bead = resampled(psf, centre, psf.shape, (1.0,) * psf.ndim, (False,) * psf.ndim)
        to, of = [], []
        for c, s, n_all in zip(corner, psf.shape, shape, strict=True):
            start = c - s // 2
            low, high = max(0, start), min(n_all, start + s)
            to.append(slice(low, high))
            of.append(slice(low - start, high - start))
        light[tuple(to)] += bead[tuple(of)] * (1 if brightness is None else brightness[n])
    light *= photons / psf.max()
    return np.clip(rng.poisson(np.maximum(light, 0)) + rng.normal(100, 2, shape), 0, 65535).astype(np.uint16)


def grid(rng, z: float | None, side: int, step: int) -> np.ndarray:
    at = np.stack(np.meshgrid(*[np.arange(step // 2, side, step)] * 2, indexing="ij"), -1).reshape(-1, 2)
    at = at + rng.uniform(-0.5, 0.5, at.shape)
    return at if z is None else np.column_stack([z + rng.uniform(-0.8, 0.8, len(at)), at])


@pytest.fixture(scope="module")
def psf() -> np.ndarray:
    return Vectorial(**LENS, size_px=61, planes=23).sample(0.1, "psf", 0.25).astype(float)


@pytest.mark.parametrize(("photons", "most"), [(150, 0.08), (3000, 0.03)])
def test_a_stack_of_beads_gives_back_its_psf(psf, photons, most):
    rng = np.random.default_rng(0)
    image = put(psf, grid(rng, 11.0, 250, 50), (23, 250, 250), rng, photons)
    beads = find_beads(image, size_px=31, planes=15)
    assert len(beads.places) == 25
    assert not beads.left_out
    wanted = psf[4:-4, 15:-15, 15:-15]
    wanted = wanted / wanted.sum()
    plain, round_ = (mean_bead(image, beads, radial=radial) for radial in (False, True))
    assert round_.used == 25
    inner = (slice(None), slice(3, -3), slice(3, -3))  # the edges are soft
    errors = [relative(m.psf[inner] / m.psf[inner].sum(), wanted[inner] / wanted[inner].sum()) for m in (plain, round_)]
    assert errors[1] < most
    assert errors[1] < errors[0]  # why averaging along circles is the default
    assert fwhm(round_.psf) == pytest.approx(fwhm(wanted), rel=0.04)
    assert max(round_.scatter_px) < 0.02
    assert round_.psf.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    assert 1 < round_.noise / (2 / photons / 5) < 4  # read noise of 25 beads, and that of their photons


def test_a_plane_of_beads_gives_back_its_psf():
    psf = Scalar(**LENS, size_px=61).sample(0.1, "psf").astype(float)
    rng = np.random.default_rng(1)
    image = put(psf, grid(rng, None, 300, 50), (300, 300), rng, 2000)
    beads = find_beads(image)
    found = mean_bead(image, beads, radial=True)
    assert found.used == 36
    n = (61 - found.psf.shape[0]) // 2
    wanted = psf[n : 61 - n, n : 61 - n]
    assert relative(found.psf, wanted / wanted.sum()) < 0.02


def test_sums_of_unaligned_beads_would_be_wider(psf):
    """Alignment is worth something: the mean on whole pixels has a wider peak."""
    rng = np.random.default_rng(2)
    image = put(psf, grid(rng, 11.0, 250, 50), (23, 250, 250), rng, 3000)
    beads = find_beads(image, size_px=31, planes=15)
    boxes = [image[tuple(slice(p - h, p + h + 1) for p, h in zip(at, beads.half, strict=True))] for at in beads.places]
    coarse = np.mean(boxes, axis=0) - 100
    assert fwhm(coarse)[2] > 1.02 * fwhm(mean_bead(image, beads, radial=False).psf)[2]


def test_beads_that_would_spoil_it_are_left_out_and_counted(psf):
    rng = np.random.default_rng(3)
    places = grid(rng, 11.0, 250, 50)
    brightness = np.ones(len(places))
    extra = [[11.0, 25.0, 37.0], [11.0, 3.0, 125.0], [2.0, 200.0, 50.0]]  # a pair, at the border, at the first plane
    brightness[12], brightness[13] = 6.0, 150.0  # a cluster, and one that saturates
    image = put(psf, np.vstack([places, extra]), (23, 250, 250), rng, 1500, np.r_[brightness, 1, 1, 1])
    beads = find_beads(image, size_px=31, planes=15)
    assert beads.left_out["saturated"] == 1
    assert beads.left_out["too bright: several in one place"] == 1
    assert beads.left_out["too close to the border"] == 1
    assert beads.left_out["too close to the first or last plane"] == 1
    assert beads.left_out["too close to another bead"] >= 2
    assert len(beads.places) >= 18
    found = mean_bead(image, beads, radial=True)
    wanted = psf[4:-4, 15:-15, 15:-15]
    assert relative(found.psf, wanted / wanted.sum()) < 0.08


def test_hot_pixels_and_a_drifting_lamp_do_no_harm():
    psf = np.exp(-0.5 * sum((np.indices((15, 31, 31)) - np.array([7, 15, 15])[:, None, None, None]) ** 2 / 2.0**2))
    rng = np.random.default_rng(4)
    image = put(psf, grid(rng, 10.0, 200, 40), (21, 200, 200), rng, 2000)
    image += np.linspace(0, 60, 21).astype(np.uint16)[:, None, None]
    hot = tuple(rng.integers(0, n, 800) for n in image.shape)
    image[hot] += 300
    beads = find_beads(image, size_px=25, planes=13)
    found = mean_bead(image, beads, radial=True)
    assert found.used >= 20
    assert fwhm(found.psf) == pytest.approx((4.71, 4.71, 4.71), rel=0.02)
    assert found.psf[:, :2].max() < 1e-3 * found.psf.max()


@pytest.mark.parametrize(
    "image", [np.full((40, 40), 7, np.uint16), np.random.default_rng(0).normal(100, 3, (9, 64, 64))]
)
def test_where_there_are_none_there_are_none(image):
    assert len(find_beads(image).places) == 0


def test_one_bead_is_enough(psf):
    rng = np.random.default_rng(5)
    image = put(psf, [[11.2, 40.3, 39.6]], (23, 80, 80), rng, 5000)
    found = mean_bead(image, find_beads(image, size_px=31, planes=15), radial=True)
    assert found.used == 1
    assert np.isnan(found.noise)
    assert fwhm(found.psf)[1:] == pytest.approx(fwhm(psf)[1:], rel=0.03)


def test_a_bead_adds_its_size_to_the_width():
    ball = np.indices((41, 41, 41)) - 20
    ball = (np.sqrt((ball**2).sum(0)) <= 10.0).astype(float)  # 2 um at 0.1 um
    assert np.sqrt((ball.sum((1, 2)) * (np.arange(41) - 20) ** 2).sum() / ball.sum()) == pytest.approx(
        2.0 / np.sqrt(20) * 10, rel=0.02
    )
    assert bead_free_um(np.hypot(0.3, 2.3548 * 0.2 / np.sqrt(20)), 0.2) == pytest.approx(0.3, rel=1e-4)
