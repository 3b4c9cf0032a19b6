"""``pellucid psf``: what it prints, saves and draws, and what it says of mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pellucid import cli
from pellucid.config import Config
from pellucid.optics.psf import Measured, Vectorial
from pellucid.optics.psf_file import read
from pellucid.optics.resample import resampled
from pellucid.optics.widths import fwhm

LENS = ("--na", "1.2", "--wavelength-nm", "520", "--index", "1.33")


@pytest.fixture
def psf(capsys, monkeypatch):
    """Call the command in this process: text on stdout, or the one line of a mistake."""

    def call(*args: str, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["pellucid", "psf", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out = capsys.readouterr()
        assert end.value.code == (2 if fails else 0), out.err
        if not fails:
            assert not out.err
            return str(out.out)
        assert len(out.err.strip().splitlines()) == 1, out.err
        return str(out.err)

    return call


def assert_picture(path: Path) -> None:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 300
    assert pixels.max() > 200
    assert pixels.std() > 10


@pytest.fixture(scope="module")
def beads(tmp_path_factory) -> Path:
    """A stack of 16 beads, simulated."""
    psf = Vectorial(na=1.2, wavelength_nm=520, index=1.33, size_px=49, planes=17).sample(0.1, "psf", 0.25)
    rng = np.random.default_rng(0)
    light = np.zeros((17, 240, 240))
    for y in range(30, 240, 60):
        for x in range(30, 240, 60):
            dy, dx = rng.uniform(-0.5, 0.5, 2)
            bead = resampled(psf, (8, 24 - dy, 24 - dx), psf.shape, (1.0,) * 3, (False,) * 3)
            light[:, y - 24 : y + 25, x - 24 : x + 25] += bead
    counts = rng.poisson(np.maximum(light, 0) * (2000 / psf.max())) + rng.normal(100, 2, light.shape)
    path = tmp_path_factory.mktemp("beads") / "beads.tif"
    tifffile.imwrite(path, counts.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    return path


@pytest.mark.parametrize(
    "more",
    [
        ("scalar",),
        ("vectorial", "--z-um", "0.3"),
        ("gibson-lanni", "--z-um", "0.3", "--index-sample", "1.4", "--depth-um", "5"),
        ("confocal", "--z-um", "0.2", "--excitation-nm", "488", "--pinhole-au", "0.8"),
        ("light-sheet", "--sheet-um", "1.5", "--thickness-um", "4", "--size-px", "41"),
    ],
    ids=lambda more: more[0],
)
def test_models_are_saved_with_a_picture_and_serve_a_config(psf, tmp_path, more):
    path = tmp_path / "psf.tif"
    said = psf("model", "--kind", *more, *LENS, "--pixel-um", "0.1", "-o", path)
    assert "ideal 0.223 um" in said
    assert "nothing that was found" in said
    assert_picture(tmp_path / "psf.png")
    file = read(path, "psf")
    assert file.pixel_um == pytest.approx(0.1)
    z_um = float(more[more.index("--z-um") + 1]) if "--z-um" in more else None
    assert file.z_um == (pytest.approx(z_um) if z_um else None)
    assert more[0] in file.note
    kept = Measured(path=path).sample(0.1, "psf", z_um)
    np.testing.assert_allclose(kept, file.values, atol=1e-6 * kept.max())
    if z_um is None:
        text = f'[source]\nkind = "simulated"\n[[stages]]\nkind = "deconvolve"\npsf = "{path.as_posix()}"'
        assert Config.parse(text + '\n[[sinks]]\nkind = "null"\n')


def test_beads_become_a_psf(psf, beads, tmp_path):
    path = tmp_path / "psf.ome.tif"
    said = psf("measure", beads, "--pixel-um", "0.1", "--z-um", "0.25", *LENS, "--bead-um", "0.1", "-o", path)
    assert "beads        16 used" in said
    assert "without the bead" in said
    assert "ideal 0.223 um" in said
    assert_picture(tmp_path / "psf.png")
    wanted = Vectorial(na=1.2, wavelength_nm=520, index=1.33).sample(0.1, "psf", 0.25, 9)
    got = Measured(path=path).sample(0.1, "psf", 0.25, 9)
    assert fwhm(got) == pytest.approx(fwhm(wanted), rel=0.03)
    assert "nothing that was found" in psf("show", path)


def test_beads_that_cannot_be_used_say_why(psf, beads, tmp_path):
    stack = tifffile.imread(beads)
    out = ("-o", tmp_path / "psf.tif")
    steps = ("--pixel-um", "0.1", "--z-um", "0.25")
    assert "--pixel-um 0.1" in psf("measure", beads, *out, fails=True)
    assert "--z-um 0.3" in psf("measure", beads, "--pixel-um", "0.1", *out, fails=True)
    assert "such as 33" in psf("measure", beads, *steps, "--size-px", "32", *out, fails=True)
    assert "larger than the picture" in psf("measure", beads, *steps, "--planes", "19", *out, fails=True)
    assert "too close to another bead" in psf("measure", beads, *steps, "--size-px", "119", *out, fails=True)
    assert "both --na" in psf("measure", beads, *steps, "--na", "1.2", *out, fails=True)
    assert "no folder" in psf("measure", beads, *steps, "-o", tmp_path / "nowhere/psf.tif", fails=True)
    assert "ends in .tif" in psf("measure", beads, *steps, "-o", tmp_path / "psf.png", fails=True)
    for name, image, told in (
        ("noise", np.random.default_rng(0).normal(100, 3, (9, 64, 64)), "nothing was found above the noise"),
        ("flat", np.full((64, 64), 500, np.uint16), "is flat"),
        ("nan", np.full((64, 64), np.nan), "NaN"),
        ("saturated", np.minimum(stack * 10, 4095), "saturated"),
        ("channels", np.stack([stack, stack]), "--channel 0 to --channel 1"),
    ):
        np.save(tmp_path / f"{name}.npy", image)
        assert told in psf("measure", tmp_path / f"{name}.npy", *steps, *out, fails=True)
    assert "16 used" in psf("measure", tmp_path / "channels.npy", "--channel", "1", *steps, *out)
    plane = stack[8]
    np.save(tmp_path / "plane.npy", plane)
    assert "16 used" in psf("measure", tmp_path / "plane.npy", "--pixel-um", "0.1", "--no-radial", *out)
    assert read(tmp_path / "psf.tif", "psf").values.ndim == 2


def test_show_says_what_is_wrong(psf, tmp_path):
    y, x = np.indices((40, 40))
    bead = np.exp(-((y - 15.5) ** 2) / 18 - (x - 22.3) ** 2 / 8)
    np.save(tmp_path / "bad.npy", 500 + 5000 * bead + np.random.default_rng(0).normal(0, 80, bead.shape))
    said = psf("show", tmp_path / "bad.npy", "--pixel-um", "0.1")
    for part in ("even number of pixels", "y -4.0", "x +2.", "background of 9", "noise of 1", "astigmatism"):
        assert part in said, said
    assert_picture(tmp_path / "bad.png")
    sharp = np.exp(-((y - 15.5) ** 2) / 1.2 - (x - 22.3) ** 2 / 1.2)
    negative = sharp - 0.02 * (x == 2)
    np.save(tmp_path / "bad.npy", negative / negative.sum())
    said = psf("show", tmp_path / "bad.npy", "-o", tmp_path / "here.png")
    for part in ("does not tell the size of its pixels", "negative values", "coarsely sampled"):
        assert part in said, said
    assert_picture(tmp_path / "here.png")
    np.save(tmp_path / "bad.npy", np.zeros((9, 9)))
    assert "only zeros" in psf("show", tmp_path / "bad.npy", fails=True)
    assert "no such file" in psf("show", tmp_path / "none.tif", fails=True)
    np.save(tmp_path / "tiny.npy", np.pad([[1.0]], 1))
    psf("show", tmp_path / "tiny.npy")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--kind", "vectorail", *LENS), 'Did you mean "vectorial"?'),
        (("--kind", "vectorial", "--na", "1.2"), "--wavelength-nm is missing"),
        (("--kind", "vectorial", "--na", "1.2", "--wavelength-nm", "520"), "no such lens"),
        (("--kind", "scalar", *LENS, "--pinhole-au", "1"), "scalar has no such key"),
        (("--kind", "scalar", *LENS, "--wavelength-nm", "0.52"), "--wavelength-nm 0.52"),
        (("--kind", "scalar", *LENS, "--set", "coverslip"), "give key=value"),
        (("--kind", "vectorial", *LENS, "--set", "coverslip_nm=3"), 'Did you mean "coverslip_um"?'),
        (("--kind", "light-sheet", *LENS), "give sheet_um = 1.5"),
    ],
)
def test_models_that_cannot_be_say_why(psf, tmp_path, given, told):
    assert told in psf("model", *given, "--pixel-um", "0.1", "-o", tmp_path / "psf.tif", fails=True)
    assert not (tmp_path / "psf.tif").exists()


def test_a_model_needs_its_pixel(psf, tmp_path):
    assert "--pixel-um 0.1" in psf("model", *LENS, "-o", tmp_path / "psf.tif", fails=True)
    psf("model", *LENS, "--pixel-um", "0.1", "--set", "coverslip_um=180", "--size-px", "21", "-o", tmp_path / "psf.tif")


def test_it_is_a_command_of_its_own(tmp_path):
    command = [sys.executable, "-m", "pellucid", "psf", "model", *LENS, "--pixel-um", "0.1", "-o", "psf.tif"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert out.returncode == 0, out.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["psf.png", "psf.tif"]
