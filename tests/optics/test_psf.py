"""PSFs: the models, and what is said of bad descriptions and bad files."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pellucid.errors import StageError
from pellucid.optics.measured import prepared
from pellucid.optics.projectors import fwhm_px
from pellucid.optics.psf import Gaussian, Measured, Psf, Scalar
from pellucid.optics.resample import centre_px

WHERE = 'stage "deconvolve": psf'
PSF = TypeAdapter(Psf)


def assert_usable(psf: np.ndarray) -> None:
    assert psf.dtype == np.float32
    assert all(n % 2 for n in psf.shape)
    assert psf.min() >= 0
    assert psf.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    assert psf.max() == psf[psf.shape[0] // 2, psf.shape[1] // 2]


def assert_symmetrical(psf: np.ndarray) -> None:
    for other in (psf[::-1], psf[:, ::-1], psf.T):
        np.testing.assert_allclose(psf, other, atol=1e-6 * psf.max())


def refused(call, *wanted: str) -> str:
    """One line that names the place and everything in `wanted`."""
    with pytest.raises(StageError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in (WHERE, *wanted):
        assert part in text, f"{part!r} is not in: {text}"
    return text


def gaussian(shape=(33, 33), at=(0.0, 0.0), sigma=2.0) -> np.ndarray:
    y, x = (np.arange(n) - (n - 1) / 2 - a for n, a in zip(shape, at, strict=True))
    return np.exp(-(y[:, None] ** 2 + x**2) / (2 * sigma**2))


# Models


@settings(deadline=None, max_examples=30)
@given(st.floats(0.3, 40))
def test_a_gaussian_is_usable_and_as_wide_as_asked(width):
    psf = Gaussian(fwhm_px=width).sample(None, WHERE)
    assert_usable(psf)
    assert_symmetrical(psf)
    if width >= 4:  # narrower ones are no straight lines between pixels
        assert fwhm_px(psf) == pytest.approx((width, width), rel=0.02)


def test_a_gaussian_in_micrometres_takes_the_pixel_of_the_table_then_of_the_stream():
    one = Gaussian(fwhm_um=0.4, pixel_um=0.1).sample(99.0, WHERE)
    np.testing.assert_array_equal(one, Gaussian(fwhm_um=0.4).sample(0.1, WHERE))
    np.testing.assert_array_equal(one, Gaussian(fwhm_px=4).sample(None, WHERE))
    refused(lambda: Gaussian(fwhm_um=0.4).sample(None, WHERE), "fwhm_um", "Add pixel_um = 0.1")
    refused(lambda: Gaussian(fwhm_um=0.4).sample(1e-6, WHERE), "at most 1000 px", "pixel_um")


@settings(deadline=None, max_examples=15)
@given(
    na=st.floats(0.1, 1.25),
    wavelength_nm=st.floats(400, 800),
    pixel_um=st.floats(0.05, 1.0),
    thickness_um=st.sampled_from([0.0, 0.35, 2.0]),
    defocus_um=st.sampled_from([0.0, 0.5]),
)
def test_the_scalar_model_is_usable_whatever_the_lens(na, wavelength_nm, pixel_um, thickness_um, defocus_um):
    psf = Scalar(
        na=na,
        wavelength_nm=wavelength_nm,
        index=1.33,
        pixel_um=pixel_um,
        thickness_um=thickness_um,
        defocus_um=defocus_um,
        size_px=21,
    ).sample(None, WHERE)
    assert psf.shape == (21, 21)
    assert psf.sum(dtype=float) == pytest.approx(1, abs=1e-5)
    assert psf.min() >= 0
    assert_symmetrical(psf)
    if defocus_um == 0:
        assert_usable(psf)


@pytest.mark.parametrize(("na", "index", "wavelength_nm"), [(0.3, 1.0, 650), (0.95, 1.0, 488), (1.2, 1.33, 520)])
def test_in_focus_the_scalar_model_is_as_wide_as_airy(na, index, wavelength_nm):
    airy_um = 0.5145 * wavelength_nm * 1e-3 / na
    psf = Scalar(na=na, wavelength_nm=wavelength_nm, index=index, size_px=65).sample(airy_um / 12, WHERE)
    assert np.mean(fwhm_px(psf)) / 12 == pytest.approx(1, rel=0.02)


def test_coarse_pixels_collect_the_light_of_their_area():
    fine = Scalar(na=0.8, wavelength_nm=500, size_px=45).sample(0.05, WHERE)
    coarse = Scalar(na=0.8, wavelength_nm=500, size_px=15).sample(0.15, WHERE)
    summed = fine.reshape(15, 3, 15, 3).sum((1, 3))
    np.testing.assert_allclose(coarse / coarse.max(), summed / summed.max(), atol=0.03)


def test_defocus_and_thickness_spread_the_light():
    lens = {"na": 1.0, "wavelength_nm": 520, "index": 1.33, "pixel_um": 0.1, "size_px": 41}
    focus, slab, off = (
        Scalar(**lens, **more).sample(None, WHERE).max() for more in ({}, {"thickness_um": 2}, {"defocus_um": 1})
    )
    assert focus > slab > off
    up, down = (Scalar(**lens, defocus_um=z).sample(None, WHERE) for z in (0.7, -0.7))
    np.testing.assert_allclose(up, down, atol=1e-7)


def test_a_slip_of_the_unit_is_told_before_it_fills_the_memory():
    lens = Scalar(na=1.2, wavelength_nm=520, index=1.33, defocus_um=100, size_px=65)
    refused(lambda: lens.sample(1e-3, WHERE), "grid", "pixel_um = 0.001", "mend pixel_um")
    refused(lambda: lens.sample(None, WHERE), "size of a pixel", "Add pixel_um = 0.1")


# Descriptions


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ({"kind": "gaussian"}, "give either fwhm_px = 3.0 or fwhm_um = 0.3"),
        ({"kind": "gaussian", "fwhm_px": 3, "fwhm_um": 0.3}, "give either"),
        ({"kind": "gaussian", "fwhm_px": 0}, "greater than 0"),
        ({"kind": "gaussian", "fwhm_px": "nan"}, "greater than 0|finite"),
        ({"kind": "gaussian", "fwhm_px": 3, "pixel": 0.1}, "pixel"),
        ({"kind": "scalar", "wavelength_nm": 500}, "na"),
        ({"kind": "scalar", "na": 1.2, "wavelength_nm": 500}, "no such lens. Give the index of the immersion"),
        ({"kind": "scalar", "na": 0.8, "wavelength_nm": 0.5}, "greater than or equal to 100"),
        ({"kind": "scalar", "na": 0.8, "wavelength_nm": 500, "size_px": 64}, "even; give an odd one, such as 65"),
        ({"kind": "airy"}, "'gaussian', 'scalar', 'gibson-lanni', 'vectorial', 'confocal', 'light-sheet', 'file'"),
        ({"kind": "gaussian", "fwhm_px": 3, "fwhm_z_px": 3, "fwhm_z_um": 1}, "give either fwhm_z_px"),
        ({"kind": "vectorial", "na": 1.2, "wavelength_nm": 500, "index": 1.33, "planes": 4}, "such as 5"),
        ({"kind": "vectorial", "na": 1.2, "wavelength_nm": 500, "index": 1.33, "depth_um": 900}, "working distance"),
        ({"kind": "confocal", "na": 1.2, "wavelength_nm": 500, "index": 1.33}, "excitation_nm"),
        ({"kind": "light-sheet", "na": 1.0, "wavelength_nm": 500, "index": 1.33}, "give sheet_um = 1.5, or sheet_na"),
        (
            {"kind": "light-sheet", "na": 1.0, "wavelength_nm": 500, "index": 1.33, "sheet_na": 0.1},
            "give excitation_nm = 488",
        ),
        ({"kind": "file", "path": "psf.tif", "size_px": 64}, "such as 65"),
        ({"fwhm_px": 3}, "kind"),
        (3, "dictionary"),
    ],
)
def test_bad_descriptions_name_what_is_allowed(description, told):
    with pytest.raises(ValidationError, match=told):
        PSF.validate_python(description)


def test_a_string_is_a_file_in_the_folder_of_the_config(tmp_path):
    np.save(tmp_path / "bead.npy", gaussian())
    short = PSF.validate_python("bead.npy", context={"folder": tmp_path})
    assert isinstance(short, Measured)
    assert short == PSF.validate_python({"kind": "file", "path": str(tmp_path / "bead.npy")})
    assert_usable(short.sample(None, WHERE))


# Files


@pytest.mark.parametrize("name", ["bead.tif", "bead.TIFF", "bead.npy"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_files_are_read_freed_of_background_and_scaled(tmp_path, name, dtype):
    image = (100 + 5000 * gaussian()).astype(dtype)
    path = tmp_path / name
    np.save(path, image) if name.endswith("npy") else tifffile.imwrite(path, image)
    psf = Measured(path=path).sample(None, WHERE)
    assert_usable(psf)
    cut = (33 - psf.shape[0]) // 2  # lines of zeros are taken off
    wanted = gaussian()[cut : 33 - cut, cut : 33 - cut] / gaussian().sum()
    np.testing.assert_allclose(psf, wanted, atol=1e-4)


def test_axes_of_length_one_are_nothing(tmp_path):
    np.save(tmp_path / "bead.npy", gaussian()[None, None])
    assert_usable(Measured(path=tmp_path / "bead.npy").sample(None, WHERE))


@settings(deadline=None, max_examples=40)
@given(
    h=st.integers(12, 40),
    w=st.integers(12, 40),
    dy=st.integers(-4, 4),
    dx=st.integers(-4, 4),
    background=st.sampled_from([0.0, 100.0]),
)
def test_even_sizes_and_sharp_beads_off_the_centre_are_centred_without_losing_light(h, w, dy, dx, background):
    bead = np.zeros((h, w))
    y, x = h // 2 + dy, w // 2 + dx
    bead[y - 1 : y + 2, x - 1 : x + 2] = [[1, 2, 1], [2, 8, 2], [1, 2, 1]]
    psf = prepared(bead + background, WHERE)
    assert_usable(psf)
    middle = tuple(slice(n // 2 - 1, n // 2 + 2) for n in psf.shape)
    np.testing.assert_allclose(psf[middle], bead[y - 1 : y + 2, x - 1 : x + 2] / bead.sum(), rtol=1e-4)


@settings(deadline=None, max_examples=30)
@given(dy=st.floats(-3, 3), dx=st.floats(-3, 3), even=st.booleans())
def test_a_peak_between_pixels_is_moved_into_one(dy, dx, even):
    image = 100 + 5000 * gaussian((40 - even, 44 + even), (dy, dx))
    psf = prepared(image, WHERE)
    assert_usable(psf)
    assert centre_px(psf) == pytest.approx([n // 2 for n in psf.shape], abs=0.06)
    wanted = gaussian(psf.shape)
    inner = tuple(slice(n // 2 - 4, n // 2 + 5) for n in psf.shape)  # the edges are soft
    np.testing.assert_allclose((psf / psf.max())[inner], wanted[inner], atol=0.035)


def test_a_peak_too_sharp_to_be_moved_stays_on_its_pixels():
    lopsided = np.zeros((9, 9), np.float32)
    lopsided[4, 3:7] = (1, 8, 4, 3)
    psf = prepared(lopsided, WHERE)
    assert psf[psf.shape[0] // 2, psf.shape[1] // 2] == pytest.approx(0.5)
    assert psf.min() >= 0


def test_one_hot_pixel_is_no_bead():
    image = gaussian((33, 33), (0, 0), 3)
    image[4, 28] = 2.0
    psf = prepared(image, WHERE)
    middle = tuple(slice(n // 2 - 3, n // 2 + 4) for n in psf.shape)
    wanted = gaussian((7, 7), (0, 0), 3)
    np.testing.assert_allclose(psf[middle] / psf[psf.shape[0] // 2, psf.shape[1] // 2], wanted, atol=0.02)


def test_what_sums_to_one_is_taken_as_it_is():
    psf = gaussian()
    psf = (psf + 0.01) / (psf + 0.01).sum()
    np.testing.assert_allclose(prepared(psf, WHERE), psf, rtol=1e-5)


BAD = {
    "nan": (np.full((9, 9), np.nan), "nothing but NaN"),
    "nan inside": (np.where(np.arange(81).reshape(9, 9) == 3, np.nan, 1.0), "1 of 81 values are NaN"),
    "infinite": (np.where(np.arange(81).reshape(9, 9) == 3, np.inf, 1.0), "np.nan_to_num(psf)"),
    "3D": (np.multiply.outer([1, 2, 3, 2, 1], gaussian((9, 9))), "5x9x9", "thickness_um = 0", "thickness_um = 2.5"),
    "4D": (np.ones((2, 5, 9, 9)), "2x5x9x9", "one grey picture (y, x)"),
    "colour": (np.ones((9, 9, 2)), "9x9x2", "at least 3x3", "one channel"),
    "1D": (np.ones(9), "(y, x) of at least 3x3"),
    "one number": (np.ones((1, 1)), "(y, x) of at least 3x3"),
    "zeros": (np.zeros((9, 9)), "only zeros", "0 or more and some are not 0"),
    "negative": (np.full((9, 9), -1.0), "nothing above 0"),
    "corner": (np.fft.ifftshift(gaussian()), "in a corner", "np.fft.fftshift(psf)"),
    "border": (gaussian((21, 21), (0, 10)), "at the border along x", "whole bead"),
    "flat": (np.full((9, 9), 7), "is flat", "with the bead inside"),
    "saturated": (np.minimum(gaussian() * 9000, 4095).astype("uint16"), "saturated", "4095", "less light"),
    "complex": (np.ones((9, 9), complex), "complex128", "uint16 or float32"),
    "text": (np.full((9, 9), "a"), "real numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_pictures_that_are_no_psf_are_refused(tmp_path, case):
    image, *told = BAD[case]
    path = tmp_path / "bead.npy"
    np.save(path, image)
    refused(lambda: Measured(path=path).sample(None, WHERE), "bead.npy", *told)


def test_files_that_are_none_are_refused(tmp_path):
    def sample(name: str):
        return lambda: Measured(path=tmp_path / name).sample(None, WHERE)

    refused(sample("bead.tif"), "bead.tif", "no such file", "Give a TIFF or NPY")
    tifffile.imwrite(tmp_path / "other.tif", np.ones((3, 3), "uint8"))
    refused(sample("bead.tif"), "In that folder: other.tif")
    (tmp_path / "bead.png").write_bytes(b"x")
    refused(sample("bead.png"), ".tif, .tiff, .npy", "save it as")
    (tmp_path / "broken.tif").write_bytes(b"no picture")
    refused(sample("broken.tif"), "cannot be read as an image", "save it again")
    (tmp_path / "broken.npy").write_bytes(b"")
    refused(sample("broken.npy"), "cannot be read as an image")
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    refused(sample("pickled.npy"), "cannot be read as an image")
    refused(sample("."), "no such file")
