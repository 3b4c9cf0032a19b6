"""The simulated camera, and the truth that it promises."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pellucid.config import Config
from pellucid.errors import ConfigError, SourceError
from pellucid.sources.simulated import Simulated
from pellucid.stages.deconvolve import Deconvolve
from pellucid.testing import check_source
from tests.sources.source_parts import Play, play

SMALL = {"shape": (96, 128), "fps": None}


def ncc(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def shift_of(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return by how many pixels (y, x) `b` lies further on than `a`: the centre of the peak of their correlation."""
    a, b = ((p - p.mean()) * np.outer(np.hanning(p.shape[0]), np.hanning(p.shape[1])) for p in (a, b))
    peak = np.fft.fftshift(np.fft.irfft2(np.fft.rfft2(b) * np.conj(np.fft.rfft2(a)), a.shape))
    y, x = np.unravel_index(peak.argmax(), peak.shape)
    return float(y - a.shape[0] // 2), float(x - a.shape[1] // 2)


@pytest.mark.parametrize(
    "keys", [{"frames": 20}, {"frames": 30, "fps": 300.0, "on_full": "wait"}, {"fps": 200.0}, {"bit_depth": 8}]
)
def test_the_contract(keys):
    seen = check_source(lambda: Simulated(**{**SMALL, **keys}))
    assert seen.account.produced == len(seen.infos) + len(seen.account.numbers())
    assert seen.streams[0].details["simulated"] is True


def test_the_same_seed_gives_the_same_frames_and_another_one_others():
    first, again, other = (play(Simulated(**SMALL, frames=5, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.planes, again.planes)
    assert ncc(first.planes[0], other.planes[0]) < 0.5
    assert not np.array_equal(first.planes[0], first.planes[1])


def test_frames_do_not_depend_on_what_was_left_out():
    every = play(Simulated(**SMALL, frames=40))
    with Play(Simulated(**{**SMALL, "fps": 500.0}, frames=40), slots=2) as some:
        some.offer_all().take(5)
        time.sleep(0.02)
        some.take()
    for info, plane in zip(some.infos, some.planes, strict=True):
        np.testing.assert_array_equal(plane, every.planes[info.seq])
        assert (info.camera_number, info.axes) == (info.seq, {"t": info.seq})


def test_the_truth_is_what_deconvolution_comes_close_to():
    import torch

    source = Simulated(shape=(256, 256), fps=None, frames=12, photons=300.0, seed=1)
    seen = play(source)
    (stream,) = seen.streams
    stage = Deconvolve(psf={"kind": "gaussian", "fwhm_px": source.psf_fwhm_px}, background=source.offset)
    spec = stage.open(stream, stream.spec, "cpu")
    result = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype))
    for seq in (0, 5, 11):
        stage(torch.from_numpy(seen.planes[seq]), result)
        truth = source.truth(seq)
        raw, restored = ncc(seen.planes[seq], truth), ncc(result.numpy(), truth)
        assert 1 - restored < 0.8 * (1 - raw), f"frame {seq}: raw {raw:.3f}, restored {restored:.3f}"
        # It belongs to this frame and no other.
        assert restored > ncc(result.numpy(), source.truth(seq + 25)) + 0.05
    stage.close()


def test_blurring_the_truth_gives_the_light_of_the_frame():
    keys = {
        "shape": (200, 240),
        "fps": None,
        "frames": 1,
        "photons": 1e4,
        "read_noise": 0.0,
        "bit_depth": 16,
        "gain": 1.0,
    }
    source = Simulated(**keys, psf_fwhm_px=4.0)
    (plane,) = play(source).planes
    truth = source.truth(0).astype(float)
    kernel_y, kernel_x = (np.exp(-0.5 * (np.fft.fftfreq(n, 1 / n) / (4.0 / 2.3548)) ** 2) for n in truth.shape)
    otf = np.fft.fft(kernel_y / kernel_y.sum())[:, None] * np.fft.fft(kernel_x / kernel_x.sum())[None, :]
    blurred = np.fft.ifft2(np.fft.fft2(truth) * otf).real + source.background + source.offset
    inner = (slice(12, -12), slice(12, -12))  # the truth knows nothing of what lies beside the frame
    difference = (plane - blurred)[inner]
    # What is left is photon noise, of the variance of the light.
    sigma = np.sqrt(np.maximum(blurred[inner] - source.offset, 1))
    assert abs(np.mean(difference / sigma)) < 0.05
    assert np.std(difference / sigma) == pytest.approx(1, abs=0.05)
    assert blurred[inner].sum() == pytest.approx(plane[inner].sum(), rel=2e-3)


def test_the_specimen_drifts_with_the_promised_speed():
    source = Simulated(shape=(256, 256), fps=None, speed_px=np.sqrt(2), psf_fwhm_px=0.0)
    specimen = source._draw()
    # Filaments move along one diagonal, spots at 0.6 of the speed along the other one.
    for layer, expected in ((0, (20.0, 20.0)), (1, (12.0, -12.0))):
        moved = []
        for number in (3, 23):
            phase, y, x = specimen.place(layer, number)
            part = np.empty((256, 256), np.float32)
            specimen._crop(specimen._drawn(layer, phase), y, x, part)
            moved.append(part)
        assert shift_of(*moved) == pytest.approx(expected, abs=1.0)
    still = Simulated(shape=(64, 64), fps=None, speed_px=0.0)
    np.testing.assert_array_equal(still.truth(0), still.truth(50))


def test_quarters_of_a_pixel_are_kept():
    source = Simulated(shape=(64, 64), fps=None, speed_px=0.25 * np.sqrt(2))
    assert [source._draw().place(0, n)[0] for n in range(6)] == [0, 1, 2, 3, 0, 1]
    assert not np.array_equal(source.truth(0), source.truth(1))


def test_noise_is_as_promised():
    keys = {"shape": (256, 256), "fps": None, "frames": 1, "photons": 100.0, "speed_px": 0.0, "offset": 100.0}
    noisy = Simulated(**keys, read_noise=3.0, gain=2.0, background=10.0)
    (plane,) = play(noisy).planes
    # Where the specimen is dark there is background and read noise only: counts, their mean and spread.
    blank = Simulated(**{**keys, "photons": 1e-6}, read_noise=3.0, gain=2.0, background=10.0)
    (dark,) = play(blank).planes
    assert dark.mean() == pytest.approx(100 + 2 * 10, abs=0.3)
    assert dark.std() == pytest.approx(2 * np.sqrt(10 + 9), rel=0.03)
    assert plane.mean() > dark.mean() + 5
    # White: neighbours know nothing of each other.
    z = (dark - dark.mean()) / dark.std()
    assert abs(np.mean(z[:, 1:] * z[:, :-1])) < 0.02
    assert abs(np.mean(z[1:] * z[:-1])) < 0.02


def test_noise_differs_from_frame_to_frame():
    seen = play(Simulated(shape=(128, 128), fps=None, frames=12, photons=1e-6, speed_px=0.0))
    z = np.stack(seen.planes).astype(float).reshape(12, -1)
    correlation = np.corrcoef(z) - np.eye(12)
    assert np.abs(correlation).max() < 0.05


def test_bright_pixels_saturate_and_dark_ones_do_not_wrap():
    (bright,) = play(Simulated(**SMALL, frames=1, photons=1e6, bit_depth=12)).planes
    assert bright.max() == 4095
    (byte,) = play(Simulated(**SMALL, frames=1, photons=1e5, bit_depth=8)).planes
    assert (byte.dtype, byte.max()) == (np.uint8, 255)
    (dark,) = play(Simulated(**SMALL, frames=1, photons=1e-6, offset=0.0, read_noise=5.0)).planes
    assert dark.min() == 0
    assert dark.max() < 200


def test_the_truth_is_in_the_file_before_the_first_frame(tmp_path):
    source = Simulated(**SMALL, frames=6, truth_path=tmp_path / "truth.npy")
    with Play(source) as one:
        truth = np.load(tmp_path / "truth.npy")
        one.offer_all().take()
    assert truth.shape == (6, 96, 128)
    assert truth.dtype == np.float32
    for seq in range(6):
        np.testing.assert_array_equal(truth[seq], source.truth(seq))
    assert ncc(one.planes[5], truth[5]) > 0.3


def test_opening_it_touches_nothing(tmp_path):
    assert Simulated.passive is True
    source = Simulated(**SMALL, frames=6, truth_path=tmp_path / "truth.npy")
    (stream,) = source.open()
    source.close()
    assert (stream.spec.shape, stream.frames, stream.bit_depth) == ((96, 128), 6, 16)
    assert list(tmp_path.iterdir()) == []


def test_a_truth_that_cannot_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / "truth.npy").mkdir()
    source = Simulated(**SMALL, frames=2, truth_path=tmp_path / "truth.npy")
    with pytest.raises(SourceError, match=r"the truth cannot be written to .*truth\.npy"):
        play(source)
    source.close()


def test_relative_paths_are_seen_from_the_folder_of_the_config(tmp_path):
    text = '[source]\nkind = "simulated"\nframes = 1\nshape = [16, 16]\ntruth_path = "truth.npy"\n'
    assert Config.parse(text, tmp_path).source.truth_path == tmp_path / "truth.npy"


def test_waiting_and_dropping():
    with Play(Simulated(**{**SMALL, "fps": 200.0}, frames=30, on_full="wait"), slots=1) as waits:
        assert waits.source.live is False
        waits.source.read(0.0)
        time.sleep(0.1)
        waits.offer_all().take()
    waits.explained()
    assert waits.seqs == list(range(30))
    with Play(Simulated(**{**SMALL, "fps": 200.0}, frames=60), slots=60) as drops:
        assert drops.source.live is True
        assert drops.source.read(0.0) is None
        time.sleep(0.1)
        drops.offer_all().take(give_back=False)
    drops.explained()
    dropped = drops.missed("dropped", "ring")
    assert dropped >= 20
    assert drops.account.numbers() == list(range(dropped))


@pytest.mark.parametrize(
    "line",
    [
        "shape = [8, 512]",
        "shape = [512]",
        "fps = 0",
        "frames = 0",
        'on_full = "drop"\nfps = nan',
        "photons = -1",
        "bit_depth = 17",
        "psf_fwhm_px = -2",
        "seed = -1",
        'truth_path = "truth.npy"',
        'truth_path = "truth.tif"\nframes = 3',
        'truth_path = "nowhere/truth.npy"\nframes = 3',
        "phtons = 3",
    ],
)
def test_keys_are_checked(line, tmp_path):
    with pytest.raises(ConfigError) as caught:
        Config.parse(f'[source]\nkind = "simulated"\n{line}\n', tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
