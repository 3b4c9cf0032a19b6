"""A network learns, goes on after a kill with the same weights, and comes out as a package that can be used."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.errors import ConfigError, RunError
from pellucid.models import shelf
from pellucid.training.clean import Clean
from pellucid.training.command import psnr
from pellucid.training.config import TrainingConfig
from pellucid.training.export import Facts, export
from pellucid.training.frames import Frames
from pellucid.training.loop import Settings, Training
from pellucid.training.noise import Camera
from pellucid.training.pairs import Pairs
from pellucid.training.repeats import Repeats, align_brightness
from pellucid.training.rln import RLN
from pellucid.training.specimens import KINDS, draw_plane
from pellucid.training.unet import UNet

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs/train").glob("*.toml"))
TINY = """
[network]
channels = [4, 8]
[[data]]
kind = "simulated"
count = 3
side = 64
[training]
steps = {steps}
batch = 2
side_px = 32
precision = "float32"
save_every = 5
validate_every = 10
[export]
name = "tiny"
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_twice_the_light_gives_twice_the_result():
    torch.manual_seed(0)
    net = UNet((8, 16)).eval()
    torch.nn.init.normal_(net.head.weight, std=0.1)
    x = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(net(2 * x), 2 * net(x), atol=1e-5)
        assert not torch.allclose(net(x), x, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_specimens_are_finite_and_have_structure(kind):
    plane = kind(96, np.random.default_rng(3))
    assert plane.shape == (96, 96)
    assert np.isfinite(plane).all()
    assert plane.std() > 0.01 * plane.max() > 0
    assert draw_plane(64, np.random.default_rng(1)).dtype == np.float32


def test_repeats_are_brought_to_one_brightness():
    rng = np.random.default_rng(0)
    clean = draw_plane(128, rng) * 100 + 20
    captures = np.stack([clean * g + b for g, b in ((1, 0), (1.3, 5), (0.8, -3))])
    gain, offset = align_brightness(captures)
    even = gain[:, None, None] * captures + offset[:, None, None]
    assert np.abs(even - even.mean(0)).max() < 1


def test_given_and_target_share_no_noise():
    rng = np.random.default_rng(0)
    captures = rng.normal(100, 10, (4, 128, 128))
    batch = Repeats([captures], zoom=(1, 1), more_noise=0, mean_of_two=0).draw(16, 64, torch.Generator().manual_seed(0))
    a = batch.given - batch.given.mean((1, 2, 3), keepdim=True)
    b = batch.target - batch.target.mean((1, 2, 3), keepdim=True)
    assert abs(float((a * b).mean() / (a.std() * b.std()))) < 0.02


def test_movies_are_causal():
    movie = np.arange(20)[:, None, None] * np.ones((20, 48, 48)) + np.random.default_rng(0).normal(
        0, 0.01, (20, 48, 48)
    )
    batch = Frames([movie], frames=3, zoom=(1, 1)).draw(4, 32, torch.Generator().manual_seed(0))
    means = torch.cat([batch.given, batch.target], 1).mean((2, 3))
    assert (means.diff(dim=1) > 0).all()  # the target comes after all that is given
    with pytest.raises(ConfigError, match="more than 5 frames"):
        Frames([movie[:5]], frames=5)


def test_pairs_that_do_not_fit_are_named(tmp_path):
    import tifffile

    for name, side in (("a", 32), ("b", 48)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "x.tif", np.eye(side, dtype=np.uint16))
    with pytest.raises(ConfigError, match=r"32x32 in .*48x48"):
        Pairs.read(tmp_path / "a", tmp_path / "b", scale=2)


@pytest.mark.parametrize("path", CONFIGS, ids=[p.stem for p in CONFIGS])
def test_the_configs_are_in_order(path):
    config = TrainingConfig.load(path)
    assert config.settings.steps > 1000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[data]]\nkind = 'simulatd'", "simulated"),
        ("[[data]]\nkind = 'simulated'\ncont = 3", "count"),
        ("[network]\nkind = 'unet'", "at least one"),
        ("[[data]]\nkind = 'simulated'\n[training]\nsteps = 0", "training.steps"),
        ("[[data]]\nkind = 'repeats'\npath = 'nowhere'", "no folder"),
    ],
)
def test_configs_that_are_refused(tmp_path, text, told):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        TrainingConfig.load(path).make()
    assert "\n" not in str(caught.value)


def test_it_learns(tmp_path):
    camera = Camera(photons=(10, 11), read=(0.01, 0.011), correlated=0, grey_values=0)
    torch.manual_seed(0)
    net = UNet((8, 16))
    source = Clean.simulated(12, 96, 1, camera)
    settings = Settings(
        steps=150, batch=4, side_px=48, rate=3e-3, average=0.97, precision="float32", validate_every=150
    )
    averaged = Training(net, [(source, 1.0)], settings, tmp_path).run()
    clean = torch.from_numpy(draw_plane(96, np.random.default_rng(99)))[None, None]
    noisy, wanted = camera.expose(clean, torch.Generator().manual_seed(5))
    with torch.inference_mode():
        restored = averaged(noisy)
    gained = psnr(restored[0, 0].numpy(), wanted[0, 0].numpy()) - psnr(noisy[0, 0].numpy(), wanted[0, 0].numpy())
    assert gained > 1, gained
    assert (tmp_path / "curve.csv").read_text().startswith("step,")


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    (tmp_path / "t.toml").write_text(TINY.format(steps=40))
    code = (
        "import sys, torch; from pathlib import Path; from pellucid.training.config import TrainingConfig\n"
        "from pellucid.training.loop import Training\n"
        "torch.set_num_threads(1); c = TrainingConfig.load(Path(sys.argv[1])); n, s = c.make()\n"
        "import time\n"
        "slow = (lambda p: time.sleep(0.05)) if sys.argv[3] == 'slow' else None\n"
        "Training(n, s, c.settings, Path(sys.argv[2]), identity='x').run(slow)\n"
    )
    config, cut, whole = tmp_path / "t.toml", tmp_path / "cut", tmp_path / "whole"
    first = subprocess.Popen([sys.executable, "-c", code, config, cut, "slow"])
    until = time.monotonic() + 60
    while not (cut / "last.pt").exists() and time.monotonic() < until:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
    first.wait()
    assert torch.load(cut / "last.pt", weights_only=True)["progress"]["step"] < 40
    for folder in (cut, whole):
        subprocess.run([sys.executable, "-c", code, config, folder, "fast"], check=True)
    states = [torch.load(f / "last.pt", weights_only=True) for f in (cut, whole)]
    assert [s["progress"]["step"] for s in states] == [40, 40]
    for a, b in zip(states[0]["averaged"].values(), states[1]["averaged"].values(), strict=True):
        assert torch.equal(a, b)
    network, sources = TrainingConfig.load(config).make()
    with pytest.raises(ConfigError, match="another config"):
        Training(network, sources, Settings(steps=40), cut, identity="y").resume()


def test_a_loss_that_is_no_number_ends_it(tmp_path):
    network = UNet((4, 8))
    source = Clean([np.full((64, 64), np.nan, np.float32)], Camera(photons=(10, 11), correlated=0, grey_values=0))
    source.draw = lambda *_: type("B", (), {k: torch.full((1, 1, 16, 16), np.nan) for k in ("given", "target")} | {
        "noise": torch.ones(1), "mask": None})()  # fmt: skip
    with pytest.raises(RunError, match="step 1"):
        Training(network, [(source, 1.0)], Settings(steps=3, precision="float32"), tmp_path).run()


@pytest.mark.parametrize(
    "net", [UNet((4, 8), scale=2, fold=1), UNet((4, 8), frames=3), RLN(4)], ids=["x2", "frames", "rln"]
)
def test_a_package_comes_out(tmp_path, net, monkeypatch):
    pytest.importorskip("onnxscript")
    frame = np.random.default_rng(0).poisson(30, (96, 96)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(net, tmp_path / "p", Facts("tiny", "a test"), frame)
    model = shelf.find(str(tmp_path / "p"))
    assert (model.name, model.scale, model.frames) == ("tiny", net.scale, net.frames)
    assert model.given.channels == net.frames
    assert [o.name for o in model.before] == ["scale_range"]
