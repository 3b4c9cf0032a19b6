"""What a trial measures: real sessions, with frames from memory and over a wire."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile

from pellucid.tuning.measure import Trial, measure, psnr_db
from pellucid.tuning.trial import run_trial

TEXT = """\
[source]
kind = "replay"
path = "frames.tif"

[[stages]]
kind = "deconvolve"
iterations = {iterations}
psf = {{ kind = "gaussian", fwhm_px = 3.0 }}

[[sinks]]
kind = "recorder"
path = "never-made"
"""


@pytest.fixture
def folder(tmp_path):
    chance = np.random.default_rng(1)
    tifffile.imwrite(tmp_path / "frames.tif", chance.poisson(100, (12, 48, 64)).astype(np.uint16))
    (tmp_path / "scratch").mkdir()
    return tmp_path


def trial(folder, iterations=3, **given):
    keys = {"fps": 40.0, "seconds": 0.8, "throughput_s": 0.4, "frames": 5, "first": False} | given
    return Trial(
        TEXT.format(iterations=iterations), str(folder), reference=str(folder / "reference.npz"),
        scratch=str(folder / "scratch"), **keys,
    )  # fmt: skip


def test_a_config_is_measured_in_its_picture_its_latency_and_its_throughput(folder):
    base = measure(trial(folder, first=True))
    assert (base.error, base.psnr_db) == ("", math.inf)
    with np.load(folder / "reference.npz") as kept:
        assert kept.files == [f"0 {n} restored" for n in range(5)]
    for point in ("restored", "disk"):
        told = base.latency_ms[point]
        assert 0 < told["p50"] <= told["p95"] <= told["p99"] <= told["max"]
        assert told["n"] > 10
    assert base.latency_ms["restored"]["p50"] <= base.latency_ms["disk"]["p50"]
    assert list(base.way_ms) == ["to the session", "waiting", "deconvolve", "back"]
    assert sum(base.way_ms.values()) == pytest.approx(base.latency_ms["restored"]["p50"], rel=2)
    assert base.throughput_fps > 40
    # What comes out, not what goes into the slots.
    slow = measure(trial(folder, frames=0, throughput_s=3.0, iterations=200))
    assert slow.throughput_fps < base.throughput_fps / 3
    assert not list((folder / "scratch").iterdir())
    assert not (folder / "never-made").exists()

    assert measure(trial(folder)).psnr_db == math.inf
    fewer = measure(trial(folder, iterations=1))
    assert 0 < fewer.psnr_db < 60


def test_a_wire_is_measured_as_a_wire(folder):
    measure(trial(folder, first=True))
    told = measure(trial(folder, seconds=1.5, wire={"window": 2}))
    assert told.psnr_db == math.inf
    assert told.latency_ms["restored"]["n"] > 10
    assert told.gone < 1


def test_what_is_wrong_is_told_and_not_raised(folder):
    told = run_trial(trial(folder, iterations=0), 100, lambda: False)
    assert "iterations" in told.error
    assert "Traceback" not in told.error


def test_one_that_takes_too_long_is_ended(folder):
    assert run_trial(trial(folder, seconds=60.0), 0.3, lambda: False).error == "it took longer than 0.3 s"
    assert run_trial(trial(folder, seconds=60.0), 100, lambda: True).error == "stopped"


@pytest.mark.parametrize(
    ("one", "db"),
    [
        (lambda a: a, math.inf),
        (lambda a: a + 1.0, 20 * math.log10(99.8)),
        (lambda a: a[:-1], -math.inf),
        (lambda a: np.where(a == 50, np.nan, a), -math.inf),
    ],
)
def test_the_picture_is_told_in_decibels(one, db):
    reference = np.linspace(0, 100, 10_101).reshape(91, 111)
    assert psnr_db(one(reference), reference) == pytest.approx(db, abs=0.01)


def test_nan_in_both_is_alike():
    reference = np.full((4, 4), np.nan)
    assert psnr_db(reference, reference) == math.inf
