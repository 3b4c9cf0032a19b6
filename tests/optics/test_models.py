"""The models against analytic optics, against one another in their limits, and against another program."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pydantic import TypeAdapter

from pellucid.errors import StageError
from pellucid.optics.bessel import j0_j1_j2
from pellucid.optics.lens import Lens
from pellucid.optics.products import sheet_fwhm_um
from pellucid.optics.psf import Confocal, Gaussian, GibsonLanni, LightSheet, Psf, Scalar, Vectorial
from pellucid.optics.radial import best_focus_um, light, on_pixels, radii_um
from pellucid.optics.widths import airy_fwhm_um, axial_fwhm_um, fwhm, line_fwhm

WHERE = 'stage "deconvolve": psf'
OIL = {"na": 1.4, "wavelength_nm": 520, "index": 1.515}
WATER = {"na": 1.2, "wavelength_nm": 520, "index": 1.33}
DRY = {"na": 0.3, "wavelength_nm": 520, "index": 1.0}
BARE = {"coverslip_um": 0, "coverslip_design_um": 0}

MODELS = {
    "scalar": Scalar(**WATER),
    "gibson-lanni": GibsonLanni(**OIL, index_sample=1.33, depth_um=5),
    "vectorial": Vectorial(**OIL, index_sample=1.33),
    "confocal": Confocal(**OIL, excitation_nm=488),
    "light-sheet": LightSheet(**WATER, sheet_um=1.5, thickness_um=4),
    "gaussian": Gaussian(fwhm_um=0.3, fwhm_z_um=0.8),
}


def relative(one, other) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def profile(lens: Lens, z, *, um=0.52, reach=3.0, vectorial=False) -> tuple[np.ndarray, np.ndarray]:
    r = radii_um(reach, lens.na, um)
    return r, light(lens, um, r, np.atleast_1d(z), vectorial=vectorial)


def test_bessel_functions_are_their_integrals():
    x = np.concatenate([np.linspace(0, 20, 401), [2.9999, 3.0, 3.0001, 75.3, 312.5]])
    turn = (np.arange(2000) + 0.5) * np.pi / 2000
    for n, got in enumerate(j0_j1_j2(x)):
        np.testing.assert_allclose(got, np.cos(n * turn - x[:, None] * np.sin(turn)).mean(1), atol=2e-7)


# What every model gives


@pytest.mark.parametrize("kind", MODELS)
def test_planes_and_stacks_are_odd_centred_positive_and_sum_to_one(kind):
    model = MODELS[kind]
    plane, stack = model.sample(0.1, WHERE), model.sample(0.1, WHERE, 0.25)
    fewer = model.sample(0.1, WHERE, 0.25, 6)
    assert plane.ndim == 2
    assert stack.ndim == fewer.ndim == 3
    assert fewer.shape[0] == min(5, stack.shape[0])
    for psf in (plane, stack, fewer):
        assert psf.dtype == np.float32
        assert all(n % 2 for n in psf.shape)
        assert psf.min() >= 0
        assert psf.sum(dtype=float) == pytest.approx(1, abs=1e-5)
        assert np.unravel_index(psf.argmax(), psf.shape) == tuple(n // 2 for n in psf.shape)
        for other in (psf[..., ::-1], psf[..., ::-1, :], psf.swapaxes(-1, -2)):
            np.testing.assert_allclose(psf, other, atol=1e-6 * psf.max())


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"gibson-lanni"}))
def test_without_aberration_a_stack_is_the_same_above_and_below(kind):
    # Light beyond the critical angle of a thinner medium is delayed at its face: that is an aberration too.
    model = Vectorial(**OIL) if kind == "vectorial" else MODELS[kind]
    psf = model.sample(0.1, WHERE, 0.2, 21)
    np.testing.assert_allclose(psf, psf[::-1], atol=1e-6 * psf.max())


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"gaussian"}))
def test_the_sizes_come_from_the_table_before_the_stream_and_one_is_needed(kind):
    keys = {name: getattr(MODELS[kind], name) for name in ("na", "wavelength_nm", "index")}
    keys |= {"excitation_nm": 488} if kind == "confocal" else {"sheet_um": 1.5} if kind == "light-sheet" else {}
    model = TypeAdapter(Psf).validate_python({"kind": kind, **keys, "pixel_um": 0.1, "z_um": 0.3, "planes": 5})
    np.testing.assert_array_equal(model.sample(9.0, WHERE, 9.0), model.sample(None, WHERE, None, 5))
    bare = TypeAdapter(Psf).validate_python({"kind": kind, **keys})
    with pytest.raises(StageError, match=r"Add pixel_um = 0\.1"):
        bare.sample(None, WHERE, 0.3)
    with pytest.raises(StageError, match=r"Add z_um = 0\.3"):
        bare.sample(0.1, WHERE, None, 5)


def test_slips_of_the_unit_are_told():
    with pytest.raises(StageError, match="mend z_um"):
        Scalar(**DRY, size_px=255).sample(0.65, WHERE, 1e-3)
    with pytest.raises(StageError, match=r"Add fwhm_z_um = 0.9"):
        Gaussian(fwhm_px=3).sample(0.1, WHERE, 0.3)
    with pytest.raises(StageError, match="planes wide; at most 1000"):
        Gaussian(fwhm_px=3, fwhm_z_um=5).sample(0.1, WHERE, 1e-3)


# Analytic optics


@pytest.mark.parametrize("na", [0.1, 0.5, 0.9, 1.2])
def test_in_focus_the_scalar_model_is_airys_pattern(na):
    r, plane = profile(Lens(na=na, index=1.33), 0.0, reach=2.0)
    v = 2 * np.pi * na / 0.52 * r[1:]
    airy = (2 * j0_j1_j2(v)[1] / v) ** 2
    np.testing.assert_allclose(plane[0, 1:] / plane[0, 0], airy, atol=1e-5)
    width_um = line_fwhm(np.r_[airy[::-1], 1, airy]) * r[1]
    assert width_um == pytest.approx(airy_fwhm_um(na, 520), rel=2e-3)


def test_along_the_axis_a_small_aperture_is_a_sinc():
    """Born and Wolf 8.8: I(z) = sinc^2(u / 4)."""
    na, index = 0.3, 1.0
    z = np.linspace(-15, 15, 301)
    axis = light(Lens(na=na, index=index), 0.52, np.zeros(1), z, vectorial=False)[:, 0]
    cycles = z / 0.52 * (index - np.sqrt(index**2 - na**2))
    np.testing.assert_allclose(axis / axis.max(), np.sinc(cycles) ** 2, atol=1e-3)
    psf = Scalar(**DRY).sample(0.4, WHERE, 0.5, 41)
    assert fwhm(psf)[0] * 0.5 == pytest.approx(axial_fwhm_um(0.3, 520, 1.0), rel=0.02)


@pytest.mark.parametrize("vectorial", [False, True])
@pytest.mark.parametrize("depth_um", [0.0, 3.0])
def test_each_plane_has_the_same_light(vectorial, depth_um):
    lens = Lens(na=1.0, index=1.33, index_sample=1.4, depth_um=depth_um)
    r, planes = profile(lens, [-1.5, 0.0, 0.8], reach=25.0, vectorial=vectorial)
    energy = (planes * r).sum(1)
    np.testing.assert_allclose(energy, energy[1], rtol=0.015)  # the rest lies farther out


def test_sums_over_pixels_are_the_integral_over_their_area():
    r, plane = profile(Lens(na=0.8, index=1.0), 0.0, reach=4.0)
    coarse, fine = on_pixels(plane, r[1], 15, 0.3, 3), on_pixels(plane, r[1], 45, 0.1)
    np.testing.assert_allclose(coarse[0], fine[0].reshape(15, 3, 15, 3).sum((1, 3)), rtol=1e-6, atol=1e-9 * fine.max())


def test_the_thickness_of_a_specimen_is_the_mean_of_its_planes():
    thick = Vectorial(**WATER, thickness_um=1.1).sample(0.1, WHERE)
    planes = Vectorial(**WATER, planes=11).sample(0.1, WHERE, 0.1).sum(0)
    assert relative(thick, planes / planes.sum()) < 1e-4


# Limits


def test_at_low_aperture_the_vectorial_model_is_the_scalar_one():
    for na, apart in ((0.1, 0.003), (0.2, 0.01)):  # the difference grows as na^2
        for z_um, planes in ((None, None), (4.0, 9)):
            lens = {**DRY, "na": na}
            one = Vectorial(**lens, **BARE).sample(0.6, WHERE, z_um, planes)
            assert relative(one, Scalar(**lens).sample(0.6, WHERE, z_um, planes)) < apart
    high = Vectorial(**OIL, size_px=31).sample(0.05, WHERE), Scalar(**OIL, size_px=31).sample(0.05, WHERE)
    assert fwhm(high[0])[1] > 1.05 * fwhm(high[1])[1]  # the axial component of the field fills the centre's rim


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"index_sample": 1.515, "depth_um": 20},
        {"index_sample": 1.33},
        {"coverslip_um": 150, "coverslip_design_um": 150},
        {"index_coverslip": 1.515, "coverslip_um": 200, "coverslip_design_um": 120},
    ],
)
def test_with_matched_layers_gibson_and_lanni_is_the_scalar_model(same):
    got = GibsonLanni(**OIL, **same).sample(0.1, WHERE, 0.2, 15)
    np.testing.assert_allclose(got, Scalar(**OIL).sample(0.1, WHERE, 0.2, 15), atol=1e-6 * got.max())


def test_depth_in_water_aberrates_an_oil_lens():
    depths = [
        GibsonLanni(**OIL, index_sample=1.33, depth_um=d, size_px=65, planes=41).sample(0.1, WHERE, 0.2)
        for d in (0, 5, 15)
    ]
    peaks = [psf.max() for psf in depths]
    assert peaks[0] > 1.5 * peaks[1] > 1.5 * peaks[2]
    deep = depths[2]
    assert relative(deep, deep[::-1]) > 0.3
    turned = GibsonLanni(**OIL, index_sample=1.33, depth_um=15, planes=41, deeper=False).sample(0.1, WHERE, 0.2)
    np.testing.assert_allclose(turned, deep[::-1], atol=1e-7)


def test_the_focus_of_an_aberrated_lens_is_its_brightest_plane():
    lens = Lens(na=1.3, index=1.515, index_sample=1.45, depth_um=12.0, coverslip_um=175)
    for vectorial in (False, True):
        focus = best_focus_um(lens, 0.6, vectorial=vectorial)
        z = focus + np.linspace(-3, 3, 601)
        axis = light(lens, 0.6, np.zeros(1), z, vectorial=vectorial)[:, 0]
        assert z[axis.argmax()] == pytest.approx(focus, abs=0.02)


def test_the_nominal_focus_lies_less_deep_than_the_stage_moved():
    """Paraxially an oil lens moves n_oil / n_water times the depth: what the layers' thickness takes into account."""
    lens = Lens(na=0.4, index=1.515, index_sample=1.33, depth_um=10.0)
    assert lens.layers[3][0] == pytest.approx(150 - 10 * 1.515 / 1.33)
    assert abs(best_focus_um(lens, 0.52, vectorial=False)) < 0.2


# Products


def test_confocal_is_the_product_of_excitation_and_detection():
    common = {"na": 1.2, "index": 1.33, "size_px": 33, "pixel_um": 0.05}
    point = Confocal(**common, wavelength_nm=520, excitation_nm=488, pinhole_au=0).sample(None, WHERE, 0.2, 9)
    one, other = (Vectorial(**common, wavelength_nm=nm).sample(None, WHERE, 0.2, 9).astype(float) for nm in (520, 488))
    product = one * other
    assert relative(point, product / product.sum()) < 1e-4
    small, one_au, wide = (
        Confocal(**common, wavelength_nm=520, excitation_nm=488, pinhole_au=au).sample(None, WHERE, 0.2, 9)
        for au in (0.1, 1.0, 10.0)
    )
    assert relative(small, point) < 0.02
    assert fwhm(point)[1] < fwhm(one_au)[1] < fwhm(wide)[1]
    assert fwhm(wide)[1] == pytest.approx(fwhm(other)[1], rel=0.01)  # an open pinhole leaves the excitation


def test_a_pinhole_sums_what_falls_on_it():
    from pellucid.optics.products import through_pinhole

    r, plane = profile(Lens(na=1.0, index=1.33), 0.0, reach=3.0)
    got = through_pinhole(plane, r[1], 0.25, 200)
    fine = on_pixels(plane, r[1], 301, 0.01)[0]
    y, x = np.indices(fine.shape) - 150
    for at in (0, 40):
        inside = np.hypot(y, x - at) * 0.01 <= 0.25
        there = np.interp(at * 0.01, r[: got.shape[1]], got[0])
        assert there == pytest.approx(fine[inside].mean(), rel=0.02)  # pixels make no exact disc


def test_a_light_sheet_cuts_the_planes_outside_of_it():
    common = {**WATER, "size_px": 33, "pixel_um": 0.1}
    sheet = LightSheet(**common, sheet_um=0.8, planes=13).sample(None, WHERE, 0.2)
    free = Vectorial(**common, **BARE, planes=13).sample(None, WHERE, 0.2)
    z = (np.arange(13) - 6) * 0.2
    wanted = free * np.exp2(-((2 * z / 0.8) ** 2))[:, None, None]
    assert relative(sheet, wanted / wanted.sum()) < 1e-5
    assert sheet_fwhm_um(0.1, 0.488) == pytest.approx(1.83, abs=0.01)
    by_aperture = LightSheet(**common, sheet_na=0.1, excitation_nm=488, planes=13).sample(None, WHERE, 0.2)
    by_width = LightSheet(**common, sheet_um=sheet_fwhm_um(0.1, 0.488), planes=13).sample(None, WHERE, 0.2)
    np.testing.assert_allclose(by_aperture, by_width, rtol=1e-5)


# Another program


@pytest.mark.parametrize("depth_um", [0.0, 2.0])
@pytest.mark.parametrize("kind", ["scalar", "vectorial"])
def test_psfmodels_agrees(kind, depth_um):
    psfmodels = pytest.importorskip("psfmodels", reason="psfmodels (GPL, a reference only) is not installed")
    z = np.linspace(-3, 3, 13)
    theirs = getattr(psfmodels, f"{kind}_psf")(
        z,
        nx=51,
        dxy=0.05,
        pz=depth_um,
        wvl=0.52,
        params={"NA": 1.2, "ns": 1.33, "ng": 1.5255, "ng0": 1.5255, "ni": 1.515, "ni0": 1.515},
        normalize=False,
    )
    lens = Lens(na=1.2, index=1.515, index_sample=1.33, depth_um=depth_um)
    r, planes = profile(lens, z - depth_um, reach=2.0, vectorial=kind == "vectorial")
    ours = on_pixels(planes, r[1], 51, 0.05, 3)
    ours *= (theirs * ours).sum() / (ours * ours).sum()
    assert relative(ours, theirs) < 0.01


def test_a_stack_of_good_size_takes_no_coffee_break():
    start = time.perf_counter()
    Vectorial(**OIL, index_sample=1.33, depth_um=2, size_px=127, planes=61).sample(0.1, WHERE, 0.1)
    assert time.perf_counter() - start < 10  # 0.2 s on one free core
