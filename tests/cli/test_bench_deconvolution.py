"""The deconvolution part of ``pellucid bench``, on tiny pictures, and the figures by which it judges."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pellucid.bench import deconvolution, peers
from pellucid.bench.deconvolution import Case, measure_case
from pellucid.bench.own import fewest_steps
from pellucid.bench.quality import Truth, correlation, flux_error, frc_px, psnr_db
from pellucid.bench.tables import markdown
from pellucid.optics import specimen

pytest.importorskip("skimage", reason='needs pip install "pellucid[bench]"')
PLANE = Case("plane", (96, 96), lambda: specimen.thin_psf(33), 100)
STACK = Case("stack", (12, 40, 40), lambda: specimen.stack_psf(9, 25), 100, shells=True)


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, np.ndarray]:
    return specimen.case((96, 128), specimen.thin_psf(33), np.random.default_rng(3))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(peers, "_MOST", {2: 12, 3: 12})
    monkeypatch.setattr(peers, "_MOST_WB", 4)


@pytest.mark.parametrize("case", [PLANE, STACK], ids=["plane", "stack"])
def test_a_case_compares_programs_that_keep_the_light(case):
    before = torch.get_num_threads()
    row = measure_case(case, rounds=1)
    assert torch.get_num_threads() == before
    programs = {p["program"]: p for p in row["programs"]}
    for which in ("tuned", "fast"):
        own = programs[f"pellucid {which}"]
        assert abs(own["flux_error"]) < 0.01
        assert own["PSNR_dB"] > programs["the picture itself"]["PSNR_dB"]
        assert own["ms"] > 0
    assert abs(row["flux_error_pellucid"]) < 0.01
    assert programs["scikit-image RL, best"]["PSNR_dB"] >= programs["scikit-image RL, -0.1 dB"]["PSNR_dB"]
    for key in ("ratio_to_scikit", "ratio_tuned", "ratio_to_nearest_peer", "gain_dB", "load", "reached_by"):
        assert key in row
    assert row["ratio_tuned"] > 0
    if row["reached_by"]:
        good = programs[row["reached_by"]]["PSNR_dB"]
        assert good >= programs["scikit-image RL, -0.1 dB"]["PSNR_dB"] - 1e-3
        assert row["ratio_to_scikit"] > 0
    json.dumps(row)
    assert "scikit-image RL, best" in markdown(row["programs"])


def test_what_is_not_installed_has_a_row_that_says_what_to_type(monkeypatch):
    def none(name):
        raise ImportError(name)

    monkeypatch.setattr(peers, "import_module", none)
    row = measure_case(PLANE, rounds=1)
    notes = {p["program"]: p["note"] for p in row["programs"]}
    assert notes["scikit-image RL"] == 'not installed; type: pip install "pellucid[bench]"'
    assert notes["cubic WB"] == "not installed; type: pip install cubic"
    assert notes["RedLionfish RL"] == "takes stacks only"
    assert row["ratio_to_scikit"] is row["gain_dB"] is row["best_peer"] is None


def test_the_peer_s_written_out_loop_is_the_peer(seen):
    image, truth = seen
    judge = Truth(truth)
    tuned = peers.PEERS[0].tune(image, specimen.thin_psf(33), judge)
    assert tuned.within <= tuned.best <= 12
    assert judge.psnr_db(tuned.run(tuned.within)) == pytest.approx(tuned.within_db, abs=1e-3)


def test_the_fewest_steps_reach_what_was_asked_and_one_less_does_not(seen):
    image, truth = seen
    judge = Truth(truth)
    raw = judge.psnr_db(image)
    found = fewest_steps(image, specimen.thin_psf(33), judge, {"low": raw + 0.1, "never": 200.0})
    assert found["never"] == []
    assert all(judge.psnr_db(p.run()) >= raw + 0.1 for p in found["low"])


def test_quick_measures_the_small_cases_only(monkeypatch):
    asked = []
    monkeypatch.setattr(deconvolution, "measure_case", lambda case, rounds: asked.append(case) or {})
    deconvolution.measure_deconvolution(True)
    assert [case.shape for case in asked] == [(512, 512), (32, 128, 128)]
    asked.clear()
    deconvolution.measure_deconvolution(False)
    assert {(2048, 2048), (64, 256, 256)} < {case.shape for case in asked}
    assert {10, 100, 1000} == {case.photons for case in asked}


# The figures


def test_a_scaled_and_shifted_truth_is_perfect(seen):
    _, truth = seen
    judge = Truth(truth)
    assert judge.psnr_db(3 * truth + 7) > 100
    assert judge.ssim(3 * truth + 7) == pytest.approx(1)
    assert judge.frc_px(3 * truth + 7) == 2.0
    assert correlation(-2 * truth + 1, truth) == pytest.approx(-1)
    assert flux_error(1.1 * truth, truth) == pytest.approx(0.1, abs=1e-5)


def test_psnr_and_ssim_are_scikit_image_s_after_the_fit(seen):
    metrics = pytest.importorskip("skimage.metrics")
    image, truth = seen
    low, high = np.percentile(truth, (0.1, 99.9))
    wanted = (truth.astype(float) - low) / (high - low)
    slope, offset = np.polyfit(image.ravel().astype(float), wanted.ravel(), 1)
    fitted = slope * image.astype(float) + offset
    assert psnr_db(image, truth) == pytest.approx(metrics.peak_signal_noise_ratio(wanted, fitted, data_range=1))
    ssim = metrics.structural_similarity(
        wanted, fitted, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    )
    assert Truth(truth).ssim(image) == pytest.approx(ssim)


@pytest.mark.parametrize("shape", [(128, 128), (127, 150), (3, 96, 96)])
def test_the_ring_correlation_ends_where_the_common_detail_ends(shape):
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1]))

    def noise(part):
        return np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * part).real

    common = noise(frequency < 0.2)
    one, two = (common + noise(frequency >= 0.2) for _ in range(2))
    assert frc_px(one, two) == pytest.approx(1 / 0.2, rel=0.1)
    assert frc_px(rng.normal(size=shape), rng.normal(size=shape)) > 20


def test_a_black_truth_is_refused():
    with pytest.raises(ValueError, match="constant"):
        Truth(np.zeros((8, 8)))
    lonely = np.zeros((64, 64))
    lonely[3, 3] = 1
    assert Truth(lonely).psnr_db(lonely) > 100
