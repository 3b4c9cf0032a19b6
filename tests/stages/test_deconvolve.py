"""The stage "deconvolve": against scikit-image, against the truth, at the borders, and with what nobody hopes for."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pellucid.bench.deconvolution import psnr_db
from pellucid.errors import StageError
from pellucid.optics import specimen
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.runtime.chain import Chain
from pellucid.stages.deconvolve import TYPES, Deconvolve
from pellucid.testing import LocalRing, check_stage

METHODS = ("wiener-butterworth", "richardson-lucy")
ALL = (*METHODS, "gaussian", "butterworth", "wiener")
NARROW = {"kind": "gaussian", "fwhm_px": 3.5}
DATA = Path(__file__).resolve().parents[2].parent / "shared/data"


def opened(shape, dtype="float32", **keys) -> tuple[Deconvolve, torch.Tensor]:
    """A bound stage and the memory of its result."""
    stage = Deconvolve(**{"psf": NARROW, **keys})
    spec = Spec(shape, dtype)
    out = stage.open(Stream(spec), spec, "cpu")
    return stage, torch.zeros(out.shape, dtype=getattr(torch, out.dtype))


def restore(image, **keys) -> np.ndarray:
    stage, result = opened(image.shape, image.dtype.name, **keys)
    stage(torch.from_numpy(np.array(image)), result)
    return result.numpy()


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with light from outside the field, and its truth."""
    return specimen.case((256, 256), specimen.thin_psf(), np.random.default_rng(1))


# The contract


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("output", ["float32", "uint16"])
@pytest.mark.parametrize("photometry", ["conserve", "as-published"])
def test_keeps_the_contract_of_a_stage(method, output, photometry):
    check_stage(
        lambda: Deconvolve(psf=NARROW, method=method, output=output, photometry=photometry, iterations=3),
        [Spec((48, 64), "uint16"), Spec((33, 41), "float32")],
    )


@pytest.mark.parametrize("start", ["flat", "blurred", "image"])
def test_keeps_the_contract_from_every_start(start):
    check_stage(lambda: Deconvolve(psf=NARROW, start=start, background=3), [Spec((40, 31), "float32")])


# Against others and against the truth


def test_richardson_lucy_is_that_of_scikit_image():
    restoration = pytest.importorskip("skimage.restoration", reason="scikit-image is not installed")
    rng = np.random.default_rng(2)
    truth = np.zeros((160, 160), np.float32)
    # Dark all round, so that zeros (theirs) and mirrors (ours) beyond the border are the same.
    truth[40:120, 40:120] = specimen.draw((80, 80), rng)
    psf = specimen.thin_psf(33)
    image = specimen.expose(truth, psf, rng, photons=400, read_noise=0)
    ours = restore(
        image, psf=specimen.thin_lens(33), method="richardson-lucy", preset="published", iterations=10, start="flat"
    )
    theirs = restoration.richardson_lucy(image, psf, num_iter=10, clip=False)
    np.testing.assert_allclose(ours[20:-20, 20:-20], theirs[20:-20, 20:-20], atol=2e-3 * theirs.max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("output", ["float32", "uint16"])
def test_the_result_is_nearer_to_the_truth(seen, method, output):
    image, truth = seen
    scale = 100 if output == "uint16" else 1  # so that rounding is no matter
    result = restore(image * scale, psf=specimen.thin_lens(), method=method, output=output)
    assert psnr_db(result, truth) > psnr_db(image, truth) + 4.5


def test_four_steps_of_wiener_butterworth_do_what_twenty_of_richardson_lucy_do(seen):
    image, truth = seen
    few, many = (psnr_db(restore(image, psf=specimen.thin_lens(), method=m), truth) for m in METHODS)
    assert few > many - 0.3


def test_the_wrong_direction_of_the_psf_would_be_seen(tmp_path):
    """A lopsided PSF: deconvolved with itself turned round, the picture would move."""
    psf = np.zeros((9, 9), np.float32)
    psf[4, 3:7] = (1, 8, 4, 3)
    truth = np.zeros((64, 64), np.float32)
    truth[20, 20] = truth[40, 30] = 1
    image = specimen.expose(truth, psf / psf.sum(), np.random.default_rng(0), photons=1e5, read_noise=0)
    np.save(tmp_path / "psf.npy", psf)
    for method in METHODS:
        result = restore(image, psf=tmp_path / "psf.npy", method=method, iterations=10)
        assert set(np.argsort(result.ravel())[-2:]) == {20 * 64 + 20, 40 * 64 + 30}


# Light


@pytest.mark.parametrize("preset", ["tuned", "fast", "published"])
@pytest.mark.parametrize("method", ALL)
def test_light_is_conserved(seen, method, preset):
    image, _ = seen
    kept = restore(image, psf=specimen.thin_lens(), method=method, preset=preset, photometry="conserve")
    assert kept.sum(dtype=float) / image.sum(dtype=float) == pytest.approx(1, abs=1e-4)


def test_as_published_the_light_that_is_gained_stays(seen):
    image, _ = seen
    keys = {"psf": specimen.thin_lens(), "preset": "published"}
    published, kept = restore(image, **keys), restore(image, **keys, photometry="conserve")
    gain = published.sum(dtype=float) / image.sum(dtype=float)
    assert gain > 1.1
    np.testing.assert_allclose(kept * gain, published, rtol=1e-4, atol=1e-3)
    plain = restore(image, **keys, method="richardson-lucy")
    assert plain.sum(dtype=float) / image.sum(dtype=float) == pytest.approx(1, abs=0.01)


@settings(deadline=None, max_examples=15)
@given(
    factor=st.floats(1e-3, 1e4),
    method=st.sampled_from(METHODS),
    photometry=st.sampled_from(["conserve", "as-published"]),
)
def test_the_unit_of_the_counts_does_not_matter(seen, factor, method, photometry):
    image = seen[0][:64, :80] + np.float32(1)
    keys = {"method": method, "photometry": photometry, "iterations": 4}
    one, scaled = restore(image, **keys), restore(image * np.float32(factor), **keys)
    np.testing.assert_allclose(scaled / factor, one, rtol=1e-3, atol=1e-4 * one.max())


def test_twice_the_counts_give_twice_the_result(seen):
    counts = np.round(seen[0]).astype(np.uint16)
    one, two = restore(counts), restore(counts * 2)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_background_is_taken_off_before(seen, dtype):
    counts = np.round(seen[0])
    plain = restore(counts.astype(dtype))
    np.testing.assert_allclose(restore((counts + 100).astype(dtype), background=100), plain, atol=1e-3)
    below = restore((counts + 100).astype(dtype), background=1e4)
    assert not below.any()


def test_uint16_is_float32_rounded_and_clipped(seen):
    image = seen[0] * 800
    floats, rounded = restore(image), restore(image, output="uint16")
    assert rounded.dtype == np.uint16
    assert floats.max() > 65535
    np.testing.assert_array_equal(rounded, np.clip(np.round(floats), 0, 65535))


# Borders


@pytest.mark.parametrize("method", METHODS)
def test_a_field_shifted_a_little_gives_the_same_inside(method):
    image, _ = specimen.case((300, 300), specimen.thin_psf(), np.random.default_rng(4))
    # A number of steps: by itself each crop takes the one that is best for what it shows.
    keys = {"psf": specimen.thin_lens(), "method": method, "photometry": "as-published", "iterations": 4}
    one = restore(image[:260, :260], **keys)[40:, 24:]
    two = restore(image[40:, 24:], **keys)[:220, :236]
    inside = (slice(32, -32), slice(32, -32))
    # Of a bright spot a few steps make much of little (and the two crops measure their noise for themselves).
    assert np.sqrt(np.mean((one[inside] - two[inside]) ** 2)) < 2e-3 * one.max()
    assert abs(one[inside].sum() / two[inside].sum() - 1) < 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_the_outermost_pixels_gain_too(seen, method):
    image, truth = seen
    result = restore(image, psf=specimen.thin_lens(), method=method)
    edge = np.ones(image.shape, bool)
    edge[13:-13, 13:-13] = False  # 5% of the side
    gain_edge = psnr_db(result[edge], truth[edge]) - psnr_db(image[edge], truth[edge])
    gain_inside = psnr_db(result[~edge], truth[~edge]) - psnr_db(image[~edge], truth[~edge])
    assert gain_edge > gain_inside - 2


def test_light_at_one_side_does_not_come_in_at_the_other():
    image = np.zeros((96, 96), np.float32)
    image[:, :3] = 1000
    for method in METHODS:
        result = restore(image, psf=specimen.thin_lens(), method=method)
        assert result[:, -20:].max() < 1e-3 * result.max()


@pytest.mark.parametrize("shape", [(13, 17), (16, 127), (200, 31), (101, 211)])
def test_odd_and_narrow_frames(shape):
    flat = restore(np.full(shape, 50, np.uint16))
    np.testing.assert_allclose(flat, 50, rtol=1e-3)


# Types, repetition, memory


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_gives_the_same(dtype):
    counts = np.random.default_rng(6).integers(0, 120, (48, 56))
    np.testing.assert_allclose(restore(counts.astype(dtype)), restore(counts.astype("float32")), rtol=1e-4, atol=1e-3)


def test_repeats_to_the_last_bit(seen):
    stage, result = opened(seen[0].shape)
    image = torch.from_numpy(seen[0])
    results = []
    for other in (image, image * 3, image):
        stage(other, result)
        results.append(result.clone())
    assert torch.equal(results[0], results[2])
    np.testing.assert_array_equal(results[0].numpy(), restore(seen[0]))


@pytest.mark.parametrize("iterations", [1, 25])
@pytest.mark.parametrize("method", METHODS)
def test_one_lit_pixel_and_full_frames_stay_finite(method, iterations):
    spot = np.zeros((64, 64), np.uint16)
    spot[30, 40] = 65535
    for image in (spot, spot * 0, np.full_like(spot, 65535), 65535 - spot):
        result = restore(image, psf=specimen.thin_lens(33), method=method, iterations=iterations)
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=0.01)


@pytest.mark.parametrize("output", ["float32", "uint16"])
def test_memory_neither_moves_nor_grows(output):
    stage, result = opened((256, 256), "uint16", output=output)
    image = torch.full((256, 256), 100, dtype=torch.uint16)
    lasting = [v for v in vars(stage._bound).values() if isinstance(v, torch.Tensor)]
    before = [t.data_ptr() for t in lasting]
    process = psutil.Process()

    def run(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                stage(image, result)

    run(20)
    tracemalloc.start()
    try:
        run(5)
        traced, rss = tracemalloc.get_traced_memory()[0], process.memory_info().rss
        run(100)
        assert tracemalloc.get_traced_memory()[0] - traced < 20_000
        assert process.memory_info().rss - rss < 16e6  # one transform kept for each frame would be 50 MB
    finally:
        tracemalloc.stop()
    held = [v for v in vars(stage._bound).values() if isinstance(v, torch.Tensor)]
    assert [t.data_ptr() for t in held] == before


# NaN


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_nan_goes_in_and_comes_out(method, bad):
    image = np.full((40, 50), 7, np.float32)
    image[11, 13] = bad
    assert np.isnan(restore(image, method=method)).all()
    stage, result = opened(image.shape, method=method, output="uint16")
    stage(torch.from_numpy(image), result)
    assert not result.numpy().any()
    assert stage.witness is not None
    assert not torch.isfinite(stage.witness)


def test_the_witness_lives_as_long_as_the_stage_is_open():
    stage, result = opened((40, 50), output="uint16")
    witness = stage.witness
    assert witness.shape == ()
    assert witness.dtype == torch.float32
    for value in (3.0, 9.0):
        stage(torch.full((40, 50), value), result)
        assert stage.witness is witness
        assert witness.item() == pytest.approx(value * 2000, rel=1e-3)
    stage.close()
    assert stage.witness is None
    assert opened((40, 50))[0].witness is None


@pytest.mark.parametrize("output", ["float32", "uint16"])
def test_a_chain_notices_nan(output):
    stream = Stream(Spec((40, 50), "float32"))
    chain = Chain({"deconvolve": Deconvolve(psf=NARROW, output=output)}, stream, "cpu")
    outputs = chain.open()
    ring = LocalRing(stream, 1, outputs)
    chain.bind(ring.slots, tuple(outputs))
    slot = ring.slots[0]
    said = []
    for value in (5, np.nan, 5):
        slot.planes["raw"].fill(7)
        slot.planes["raw"][3, 4] = value
        slot.info = FrameInfo(0)
        chain.submit(slot)
        said.append(chain.finish(slot))
    assert said == [None, "stages[0] deconvolve returned NaN or infinity", None]
    chain.close()
    del slot
    ring.close()


# What cannot be


def refused(shape, dtype, *wanted, pixel_um=None, **keys):
    spec = Spec(shape, dtype)
    with pytest.raises(StageError) as caught:
        Deconvolve(**{"psf": NARROW, **keys}).open(Stream(spec, pixel_um=pixel_um), spec, "cpu")
    text = str(caught.value)
    assert "\n" not in text
    for part in ('stage "deconvolve"', *wanted):
        assert part in text, f"{part!r} is not in: {text}"


def test_other_types_and_larger_psfs_are_refused():
    refused((5, 64, 64), "uint16", "no width along z", "fwhm_z_um = 0.9")
    refused((64, 64), "complex64", "complex64", "it takes uint8, uint16", "Convert the frames")
    lens = {"kind": "scalar", "na": 0.8, "wavelength_nm": 500}
    refused((64, 200), "uint16", "psf of 65x65", "64x200", "at most 63x63", psf=lens, pixel_um=0.1)
    refused((200, 21), "uint16", "at most 21x21", psf=lens, pixel_um=0.1)
    refused((64, 64), "uint16", "size of a pixel", "pixel_um = 0.1", psf=lens)
    refused((64, 64), "uint16", "nowhere.tif", "no such file", psf="nowhere.tif")


def test_a_psf_as_large_as_the_frame_is_taken():
    lens = {"kind": "scalar", "na": 0.8, "wavelength_nm": 500, "pixel_um": 0.1}
    assert np.isfinite(restore(np.full((65, 65), 9, np.uint16), psf=lens)).all()


@pytest.mark.parametrize(
    "keys",
    [
        {"iterations": 0},
        {"iterations": 1001},
        {"alpha": 0},
        {"beta": 1.5},
        {"beta": "none"},
        {"order": -1},
        {"resolution_px": 1},
        {"background": float("nan")},
        {"method": "rl"},
        {"output": "uint8"},
        {"photometry": "none"},
        {"sigma": 3},
    ],
)
def test_wrong_keys_are_refused(keys):
    with pytest.raises(ValidationError, match=next(iter(keys))):
        Deconvolve(psf=NARROW, **keys)


# Real data


def test_a_real_worm_becomes_sharper_and_still_explains_the_picture():
    path = DATA / "sdeconv/celegans.tif"
    if not path.is_file():
        pytest.skip(f"no {path}: the C. elegans plane of sdeconv is not on this computer")
    image = tifffile.imread(path)
    counts = np.maximum(image - np.percentile(image, 1), 0)
    for method in METHODS:
        psf = {"kind": "gaussian", "fwhm_px": 4.0}
        result = restore(image, psf=psf, method=method, background=np.percentile(image, 1))
        assert result.sum(dtype=float) == pytest.approx(counts.sum(dtype=float), rel=0.01)

        def sharpness(x):
            return np.sqrt(np.mean(np.square(np.gradient(x)))) / x.mean()

        assert sharpness(result) > 1.1 * sharpness(counts)
        stage, _ = opened(image.shape, psf=psf)
        kernel = stage.psf.sample(None, "psf")
        again = specimen._convolve(result, kernel)[16:-16, 16:-16]
        assert np.corrcoef(again.ravel(), counts[16:-16, 16:-16].ravel())[0, 1] > 0.998
