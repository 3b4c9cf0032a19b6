"""What a person gets wrong when training: one line each, that names the file or the key and says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from pellucid.errors import ConfigError
from pellucid.training.command import train
from pellucid.training.config import TrainingConfig
from pellucid.training.images import read_movie, read_plane, read_planes

RNG = np.random.default_rng(8)
NET = '[network]\nkind = "unet"\nchannels = [4, 8]\nfold = 1\n'
SHORT = "[training]\nsteps = 2\nbatch = 1\nside_px = 32\nvalidate_every = 1\n"


def noisy(*shape):
    return RNG.poisson(30, shape).astype(np.uint16)


def config(folder, data, more="", sets=()):
    (folder / "t.toml").write_text(f"{NET}{more}\n{data}\n")
    return TrainingConfig.load(folder / "t.toml", sets)


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((64, 64), np.uint16), r"p_1\.tif: is 0 everywhere"),
        (np.full((64, 64), np.nan, np.float32), r"p_1\.tif: 4096 of 4096 pixels are NaN"),
        (None, r"p_1\.tif: cannot be read as a picture"),
        (noisy(48, 64), r"p_2\.tif: is 64x64, and p_1\.tif is 48x64; repeats are of one size"),
    ],
)
def test_a_picture_that_teaches_nothing_is_named(picture, says, tmp_path):
    tifffile.imwrite(tmp_path / "p_2.tif", noisy(64, 64))
    if picture is None:
        (tmp_path / "p_1.tif").write_bytes((tmp_path / "p_2.tif").read_bytes()[:2000])
    else:
        tifffile.imwrite(tmp_path / "p_1.tif", picture)
    with pytest.raises(ConfigError, match=says) as caught:
        config(tmp_path, '[[data]]\nkind = "repeats"\npath = "."').make()
    assert "\n" not in str(caught.value)


def test_colours_and_palettes_are_seen_as_brightness(tmp_path):
    green = np.zeros((40, 40, 3), np.uint8)
    green[..., 1] = noisy(40, 40)
    Image.fromarray(green).save(tmp_path / "green.png")
    np.testing.assert_allclose(read_plane(tmp_path / "green.png"), green[..., 1] / 3, rtol=1e-6)
    assert read_planes(tmp_path / "green.png").shape == (3, 40, 40)
    grey = Image.fromarray(green[..., 1])
    palette = grey.convert("P")
    palette.save(tmp_path / "palette.png")
    assert np.corrcoef(read_plane(tmp_path / "palette.png").ravel(), green[..., 1].ravel())[0, 1] > 0.99
    grey.convert("LA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_plane(tmp_path / "alpha.png"), green[..., 1])


def test_channels_are_no_frames(tmp_path):
    tifffile.imwrite(tmp_path / "tc.tif", noisy(8, 2, 32, 32), imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(ConfigError, match="has the axes TCYX; a movie of one channel"):
        read_movie(tmp_path / "tc.tif")
    tifffile.imwrite(tmp_path / "t.tif", noisy(8, 32, 32), imagej=True, metadata={"axes": "TYX"})
    assert read_movie(tmp_path / "t.tif").shape == (8, 32, 32)


def test_enlarged_noise_is_not_learned(tmp_path):
    tifffile.imwrite(tmp_path / "small.tif", noisy(40, 40))
    text = '[[data]]\nkind = "noise2void"\nfiles = ["*.tif"]'
    with pytest.raises(ConfigError, match=r"40x40 is smaller than training.side_px = 64.*--set training.side_px=32"):
        train(config(tmp_path, text, SHORT, ["training.side_px=64"]), tmp_path / "out")


def test_a_training_goes_on_for_longer_and_shows_what_it_does(tmp_path):
    """Without pictures to judge by, and smaller than the halo that the card has to allow."""
    tifffile.imwrite(tmp_path / "small.tif", noisy(40, 40))
    text = '[[data]]\nkind = "noise2void"\nfiles = ["small.tif"]'
    train(config(tmp_path, text, SHORT), tmp_path / "out")
    package = train(config(tmp_path, text, SHORT, ["training.steps=4"]), tmp_path / "out")
    rows = (tmp_path / "out/curve.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    for name in ("validation.png", "curve.png"):
        assert np.asarray(Image.open(tmp_path / "out" / name).convert("L")).std() > 0
    assert np.load(package / "test_input.npy").shape[-1] >= 64
    with pytest.raises(ConfigError, match="was trained with another config"):
        train(config(tmp_path, text, SHORT, ["training.seed=5"]), tmp_path / "out")
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        train(config(tmp_path, text, SHORT), tmp_path / "out", device="cuda:7")


def test_a_typed_root_is_seen_from_where_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "c").mkdir()
    monkeypatch.chdir(tmp_path)
    text = '[[data]]\nkind = "noise2void"\nfiles = ["*.tif"]'
    assert config(tmp_path / "c", text, sets=["root=d"]).root == tmp_path / "d"
    assert config(tmp_path / "c", text).root == tmp_path / "c"
