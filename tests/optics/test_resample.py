"""PSFs on other grids: what must not change, and what an unfit file comes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import StageError
from pellucid.optics.levels import background, reach_px
from pellucid.optics.psf import Measured, Scalar, Vectorial
from pellucid.optics.psf_file import read, write
from pellucid.optics.resample import centre_px, cut, nearest_positive, radial_mean, resampled
from pellucid.optics.widths import fwhm, line_fwhm

WHERE = 'stage "deconvolve": psf'
DATA = Path(__file__).resolve().parents[2].parent / "shared/data"
LENS = {"na": 1.0, "wavelength_nm": 520, "index": 1.33}


def relative(one, other) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    return Scalar(**LENS, size_px=33, planes=17).sample(0.1, WHERE, 0.25)


def moved(psf: np.ndarray, *by: float) -> np.ndarray:
    centre = [n // 2 - d for n, d in zip(psf.shape, by, strict=True)]
    return resampled(psf, centre, psf.shape, (1.0,) * psf.ndim, (False,) * psf.ndim)


# The pieces


@settings(deadline=None, max_examples=25)
@given(dy=st.floats(-0.5, 0.5), dx=st.floats(-0.5, 0.5), sigma=st.floats(1.0, 4.0))
def test_the_centre_is_found_between_pixels(dy, dx, sigma):
    y, x = np.arange(41) - 20 - dy, np.arange(36) - 17 - dx
    psf = np.exp(-(y[:, None] ** 2 + x**2) / (2 * sigma**2))
    assert centre_px(psf) == pytest.approx((20 + dy, 17 + dx), abs=0.01)
    noisy = psf + np.random.default_rng(0).normal(0, 0.02, psf.shape)
    assert centre_px(noisy) == pytest.approx((20 + dy, 17 + dx), abs=0.15)


def test_moving_there_and_back_changes_nothing(stack):
    away = moved(stack, 0.3, -0.4, 0.5)
    assert centre_px(away) == pytest.approx((8.3, 15.6, 16.5), abs=0.03)
    back = moved(away, -0.3, 0.4, -0.5)
    assert relative(back[2:-2, 4:-4, 4:-4], stack[2:-2, 4:-4, 4:-4]) < 0.01


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.25])
def test_resampling_there_and_back_changes_nothing(ratio):
    psf = Scalar(**LENS, size_px=65).sample(0.08, WHERE).astype(float)
    size = 2 * int(32 / ratio) + 1
    other = resampled(psf, (32.0, 32.0), (size, size), (ratio, ratio), (True, True))
    back = resampled(other, (size // 2,) * 2, (65, 65), (1 / ratio,) * 2, (True, True))
    assert relative(back[4:-4, 4:-4], psf[4:-4, 4:-4]) < 0.005


def test_pixels_three_times_as_long_are_the_sum_of_three():
    psf = Scalar(**LENS, size_px=63).sample(0.05, WHERE).astype(float)
    got = resampled(psf, (31.0, 31.0), (21, 21), (3.0, 3.0), (True, True))
    wanted = psf.reshape(21, 3, 21, 3).sum((1, 3))
    assert relative((got / got.sum())[1:-1, 1:-1], (wanted / wanted.sum())[1:-1, 1:-1]) < 1e-3


def test_planes_are_points_along_z(stack):
    every_other = resampled(stack, (8.0, 16.0, 16.0), (9, 33, 33), (2.0, 1.0, 1.0), (False, True, True))
    np.testing.assert_allclose(every_other, stack[::2], atol=1e-6 * stack.max())


def test_a_step_at_the_border_does_not_ring():
    flat = np.ones((21, 21))
    got = resampled(flat, (10.4, 10.0), (21, 21), (1.0, 1.0), (False, False))
    np.testing.assert_allclose(got[:20], 1, atol=0.01)


def test_circles_are_averaged_without_a_wider_peak():
    psf = Scalar(na=1.35, wavelength_nm=520, index=1.515, size_px=33).sample(0.1, WHERE).astype(float)
    assert relative(radial_mean(psf), psf) < 0.005
    assert fwhm(radial_mean(psf))[1] == pytest.approx(fwhm(psf)[1], rel=0.003)
    noise = np.random.default_rng(1).normal(0, 0.01 * psf.max(), psf.shape)
    assert relative(radial_mean(psf + noise), psf) < 0.4 * relative(psf + noise, psf)


def test_noise_below_zero_is_no_light():
    """What is cut at 0 keeps the upper half of the noise; the nearest positive picture keeps the sum."""
    rng = np.random.default_rng(2)
    bead = 100 * Scalar(**LENS, size_px=129).sample(0.1, WHERE).astype(float)
    seen = bead + rng.normal(0, 0.01 * bead.max(), bead.shape)
    seen += (bead.sum() - seen.sum()) / bead.size
    got = nearest_positive(seen)
    assert got.min() >= 0
    assert got.sum() == pytest.approx(bead.sum())
    assert np.maximum(seen, 0).sum() > 1.5 * bead.sum()
    assert relative(got, bead) < 0.5 * relative(np.maximum(seen, 0), bead)
    already = np.array([[0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_array_equal(nearest_positive(already), already)


def test_a_cut_has_soft_edges_and_holds_its_light():
    psf = Scalar(**LENS, size_px=129).sample(0.1, WHERE).astype(float)
    reach = reach_px(psf, 0.98)
    ring = np.hypot(*(np.indices(psf.shape) - 64)) <= reach[0] + 0.5
    assert psf[ring].sum() == pytest.approx(0.98, abs=0.01)
    edge = cut(psf, (32, 32), (True, True))
    assert edge.shape == (65, 65)
    np.testing.assert_array_equal(edge[4:-4, 4:-4], psf[36:-36, 36:-36])
    assert edge[0].max() < 0.2 * psf[32].max()
    np.testing.assert_array_equal(cut(psf, (3, 3), (True, True)), psf[61:68, 61:68])  # no room for an edge


def test_a_line_has_the_width_of_its_curve():
    x = np.arange(31) - 15.3
    assert line_fwhm(np.exp(-(x**2) / 8), 15) == pytest.approx(2.3548 * 2, rel=2e-3)
    assert np.isnan(line_fwhm(np.ones(9)))


def test_the_background_is_that_of_a_dark_zone_or_of_each_plane(stack):
    counts = 100 + 20000 * stack / stack.max()
    neighbour = counts.copy()
    neighbour[:, :, -4:] += 3000
    assert background(neighbour) == pytest.approx(100, abs=5)
    narrow = np.zeros((9, 41, 41))
    narrow[:, 18:23, 18:23] = 5000
    drift = np.linspace(90, 120, 9)[:, None, None]
    np.testing.assert_allclose(background(narrow + drift), drift)


# Files


@pytest.mark.parametrize("name", ["psf.tif", "psf.ome.tif"])
def test_a_saved_psf_keeps_its_steps_and_comes_back_as_it_is(tmp_path, stack, name):
    write(tmp_path / name, stack, 0.1, 0.25, "made by a test")
    file = read(tmp_path / name, "psf")
    assert (file.pixel_um, file.z_um) == pytest.approx((0.1, 0.25))
    assert file.values.dtype == np.float32
    psf = Measured(path=tmp_path / name).sample(0.1, WHERE, 0.25)
    np.testing.assert_allclose(psf, stack, atol=1e-6 * stack.max())
    write(tmp_path / name, stack[8] / stack[8].sum(), 0.1, None)
    assert (read(tmp_path / name, "psf").pixel_um, read(tmp_path / name, "psf").z_um) == (pytest.approx(0.1), None)


def test_a_file_is_resampled_to_the_camera(tmp_path, stack):
    write(tmp_path / "psf.tif", stack, 0.1, 0.25)
    for pixel_um, z_um in ((0.065, 0.25), (0.16, 0.5), (0.1, 0.2)):
        got = Measured(path=tmp_path / "psf.tif").sample(pixel_um, WHERE, z_um)
        # The file's pixels were points; those of the camera are areas, as far as they are larger.
        blur = max(0.0, (pixel_um**2 - 0.1**2) * 8 * np.log(2) / 12)
        wanted = fwhm(stack)
        assert fwhm(got)[0] * z_um == pytest.approx(wanted[0] * 0.25, rel=0.04)
        assert fwhm(got)[1] * pixel_um == pytest.approx(np.hypot(wanted[1] * 0.1, blur**0.5), rel=0.04)
        assert got.sum(dtype=float) == pytest.approx(1, abs=1e-5)
        assert all(n % 2 for n in got.shape)
    assert Measured(path=tmp_path / "psf.tif").sample(0.1, WHERE, 0.25, 6).shape[0] == 5
    cropped = Measured(path=tmp_path / "psf.tif", size_px=21, planes=9).sample(0.1, WHERE, 0.25)
    assert cropped.shape == (9, 21, 21)


def test_a_plane_out_of_a_stack_is_the_focus_or_a_mean(tmp_path, stack):
    write(tmp_path / "psf.tif", stack, 0.1, 0.25)
    focus = Measured(path=tmp_path / "psf.tif", thickness_um=0).sample(0.1, WHERE)
    np.testing.assert_allclose(focus, stack[8] / stack[8].sum(), atol=1e-5 * focus.max())
    thick = Measured(path=tmp_path / "psf.tif", thickness_um=1.25).sample(0.1, WHERE)
    wanted = stack[6:11].sum(0)
    np.testing.assert_allclose(thick, wanted / wanted.sum(), atol=1e-5 * thick.max())


def refused(call, *wanted: str) -> None:
    with pytest.raises(StageError) as caught:
        call()
    for part in (WHERE, *wanted):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_fit_say_what_to_type(tmp_path, stack):
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "plane.npy", stack[8])
    np.save(tmp_path / "one.npy", stack[8:9])

    def sample(name: str, *args, **keys):
        return lambda: Measured(path=tmp_path / name, **keys).sample(*args[:1], WHERE, *args[1:])

    refused(sample("stack.npy", 0.1), "thickness_um = 0", "thickness_um = 2.5")
    refused(sample("stack.npy", 0.1, thickness_um=2), "Add z_um = 0.1")
    refused(sample("stack.npy", 0.1, 0.3), "how far apart its planes", "Add z_um")
    refused(sample("plane.npy", 0.1, 0.3), "one plane", 'kind = "vectorial"')
    refused(sample("one.npy", 0.1, None, 9), "one plane")
    refused(
        sample("plane.npy", 0.1, pixel_um=6.5), "pixel_um = 6.5 and the frames 0.1", "factor of 20", "Mend pixel_um"
    )
    refused(sample("stack.npy", 0.1, 0.01, z_um=0.3), "z_um = 0.3 and the frames 0.01")
    assert sample("plane.npy", 0.1)().shape == (33, 33)  # without any word its pixel is that of the camera
    assert sample("stack.npy", 0.1, 0.3, z_um=0.25)().ndim == 3


def test_a_real_bead_of_a_light_sheet():
    """A stack of 61x128x128 px with hot pixels, a background that drifts, and a bead off its middle."""
    path = DATA / "pycudadecon/psf.tif"
    if not path.is_file():
        pytest.skip(f"no {path}: the bead of pycudadecon is not on this computer")
    raw = tifffile.imread(path).astype(float)
    for radial in (False, True):
        psf = Measured(path=path, pixel_um=0.1, z_um=0.1, radial=radial).sample(0.1, WHERE, 0.1)
        assert max(psf.shape) < 50  # no frame full of noise
        assert np.unravel_index(psf.argmax(), psf.shape)[1:] == (psf.shape[1] // 2, psf.shape[2] // 2)
        widths = np.array(fwhm(psf)) * 0.1
        assert widths == pytest.approx((0.68, 0.31, 0.30), abs=0.03)
        # The light near the bead, measured plainly, is nearly all of the PSF.
        near = (slice(18, 43), slice(59, 84), slice(52, 77))
        counts = raw[near] - np.median(raw[:, 90:, :], axis=(1, 2))[near[0], None, None]
        plain = counts.max() / counts.sum()
        assert psf.max() == pytest.approx(plain, rel=0.12)
    slab = Measured(path=path, pixel_um=0.1, z_um=0.1, thickness_um=1.0).sample(0.13, WHERE)
    assert slab.ndim == 2
    coarse = Measured(path=path, pixel_um=0.1, z_um=0.1).sample(0.2, WHERE, 0.4)
    assert fwhm(coarse)[0] * 0.4 == pytest.approx(0.68, abs=0.1)


def test_a_file_of_a_model_gives_what_the_model_gives(tmp_path):
    """With aberration too: its brightest plane stays the middle one."""
    model = Vectorial(na=1.4, wavelength_nm=520, index=1.515, index_sample=1.33, depth_um=5, size_px=33, planes=21)
    psf = model.sample(0.1, WHERE, 0.2)
    write(tmp_path / "psf.tif", psf, 0.1, 0.2)
    np.testing.assert_array_equal(Measured(path=tmp_path / "psf.tif").sample(0.1, WHERE, 0.2), psf)
