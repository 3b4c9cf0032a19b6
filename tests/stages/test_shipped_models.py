"""The models that come with pellucid: what they gain, what they leave alone, and `configs/denoise.toml`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

import pellucid
from pellucid.bench.quality import psnr_db
from pellucid.engines.torch import Torch
from pellucid.models.frames import real_frames
from pellucid.optics import specimen
from pellucid.process import process_recorded
from pellucid.protocols import Spec, Stream
from pellucid.stages.restore import Restore

ROOT = Path(__file__).parents[2]
FMD = ROOT.parent / "shared/data/fmd"
CONFIG = ROOT / "configs/denoise.toml"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))


def restored(image, model="denoise", **keys):
    stage = Restore(model=model, engine=Torch(mode="eager", precision="float32"), adapt_frames=0, **keys)
    spec = Spec(image.shape, str(image.dtype))
    out = stage.open(Stream(spec), spec, "cpu")
    given, result = torch.from_numpy(image), torch.zeros(out.shape)
    with torch.inference_mode():
        stage(given, result)
    stage.close()
    return result.numpy()


def blurred(rng):
    """Return a simulated specimen as a lens shows it, without noise, from 0 to 1."""
    drawn = specimen.draw((256, 256), rng, shells=True)
    light = specimen.expose(drawn, specimen.thin_psf(33), rng, photons=1e9, read_noise=0)
    return (light - light.min()) / np.ptp(light)


@pytest.mark.parametrize(("photons", "gain"), [(10, 5.0), (50, 4.0), (400, 2.0)])
def test_a_specimen_that_it_never_saw_gets_cleaner(photons, gain):
    """Simulated: filaments, spots and shells through a thin PSF, photon and read noise."""
    rng = np.random.default_rng(99)
    light = blurred(rng)
    noisy = 100 + rng.poisson(light * photons) + rng.normal(0, 1.5, light.shape)
    noisy = noisy.clip(0).astype(np.uint16)
    before, after = psnr_db(noisy, light), psnr_db(restored(noisy), light)
    assert after - before > gain


def test_a_clean_picture_is_hardly_changed():
    rng = np.random.default_rng(3)
    clean = (1000 + 60000 * blurred(rng)).astype(np.uint16)
    assert psnr_db(restored(clean), clean) > 38


def test_counts_stay_counts():
    frame = real_frames()[0].astype(np.float32)
    result = restored(frame)
    assert abs(result.mean() / frame.mean() - 1) < 0.02
    np.testing.assert_allclose(restored(3 * frame + 50), 3 * result + 50, rtol=0, atol=3e-3 * np.ptp(frame))


@pytest.mark.skipif(not FMD.is_dir(), reason="shared/data/fmd is not here")
def test_each_capture_of_real_microscopes_gets_better():
    gains = {}
    for path in sorted((FMD / "raw").glob("*_1.png")):
        raw, truth = (np.array(Image.open(folder / path.name)) for folder in (FMD / "raw", FMD / "gt"))
        gains[path.stem] = psnr_db(restored(raw), truth) - psnr_db(raw, truth)
    assert len(gains) == 6
    assert min(gains.values()) > 3.5, gains
    assert np.mean([gain for name, gain in gains.items() if "Wide" not in name]) > 6.0, gains


def test_twice_the_pixels_of_a_specimen_that_it_never_saw():
    rng = np.random.default_rng(5)
    light = blurred(rng)
    small = light.reshape(128, 2, 128, 2).mean((1, 3))
    noisy = (100 + rng.poisson(small * 200) + rng.normal(0, 1.5, small.shape)).clip(0).astype(np.uint16)
    cubic = torch.nn.functional.interpolate(
        torch.from_numpy(noisy.astype(np.float32))[None, None], scale_factor=2, mode="bicubic"
    )[0, 0].numpy()
    assert psnr_db(restored(noisy, "super-resolve"), light) - psnr_db(cubic, light) > 1.5


def test_the_config_denoises_a_file(tmp_path):
    """As the README has it: pellucid process IN OUT configs/denoise.toml, on the engine that is best here."""
    frames = np.stack([f.astype(np.uint16) for f in real_frames()[:2]])
    tifffile.imwrite(tmp_path / "in.tif", frames, photometric="minisblack")
    process_recorded(tmp_path / "in.tif", tmp_path / "out", CONFIG, say=lambda line: None)
    result = np.asarray(zarr.open_array(tmp_path / "out/restored.ome.zarr/0", mode="r")[:]).reshape(frames.shape)
    for given, got in zip(frames, result, strict=True):
        want = restored(given)
        assert np.abs(got - want).max() < 0.02 * np.ptp(want)


def test_the_config_runs_on_recorded_frames(tmp_path):
    """The replay of the config's own header."""
    (tmp_path / "in").mkdir()
    for i, frame in enumerate(real_frames()[:3]):
        Image.fromarray(frame.astype(np.uint16)).save(tmp_path / f"in/f_{i}.png")
    sets = [
        "source.kind=replay",
        f"source.path={(tmp_path / 'in').as_posix()}",
        "stages.0.adapt_frames=0",
        f"sinks.0.path={(tmp_path / 'out').as_posix()}",
    ]
    with pellucid.open(CONFIG, sets=sets, headless=True) as session:
        pairs = [(frame["raw"].copy(), frame["restored"].copy()) for frame in session]
    for given, got in pairs:
        want = restored(given)
        assert np.abs(got - want).max() < 0.02 * np.ptp(want)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (len(pairs), report["frames"]["unaccounted"]) == (3, 0)
    stage = report["streams"][0]["stages"][0]
    assert stage["model"]["name"] == "denoise"
    assert stage["engine"]["fidelity"]["largest"] < 0.01
