"""Recorded data through stages: what comes out, and that it is a recording like any other."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from pellucid.errors import ConfigError, RunError, StageError
from pellucid.process.bound import BoundChain
from tests.process.conftest import files, pixels, report, rows

RNG = np.random.default_rng(3)


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    """Counts from 1000 on, which no stage here is fussy about."""
    return RNG.integers(1000, 4000, shape).astype(dtype)


WRITE_NDTIFF = """
import sys
import numpy as np
from ndstorage import NDTiffDataset
given = np.load(sys.argv[1])
facts = {"PixelSize_um": 0.2, "z-step_um": 0.4}
writer = NDTiffDataset(sys.argv[2], summary_metadata=facts, name="run", writable=True)
for t in range(given.shape[0]):
    for c, channel in enumerate(("DAPI", "GFP")):
        writer.put_image({"time": t, "channel": channel}, given[t, c], {"t": t})
writer.finish()
writer.close()
"""


def softened(picture: np.ndarray) -> np.ndarray:
    """What the stage of the tests does, for one frame, in one thread."""
    axes = [torch.fft.fftfreq(n) for n in picture.shape[:-1]] + [torch.fft.rfftfreq(picture.shape[-1])]
    squares = sum(f.reshape([-1 if i == j else 1 for j in range(len(axes))]) ** 2 for i, f in enumerate(axes))
    given = torch.from_numpy(picture.astype(np.float32))
    soft = torch.fft.irfftn(torch.fft.rfftn(given) * torch.exp(-20 * squares), s=given.shape)
    return (soft * (1000 / given.sum()) / soft.std()).numpy()


def test_a_recording_processed_again_is_what_the_run_restored(bench):
    rec = bench.record(
        '[source]\nkind = "simulated"\nshape = [64, 48]\nfps = 1000\nframes = 40\non_full = "wait"\n'
        '[[stages]]\nkind = "soften"\n[session]\nthreads = 1\nrestore = "every"'
    )
    out = bench.process("rec", bench.config(), with_raw=True)
    frames = len(rows(rec))
    assert frames > 3
    np.testing.assert_array_equal(pixels(out), pixels(rec))
    np.testing.assert_array_equal(pixels(out, "raw.ome.zarr"), pixels(rec, "raw.ome.zarr"))
    made = {p.name for p in rec.iterdir()} - {"recording.json"}
    assert {p.name for p in out.iterdir()} == made
    given, made = (json.loads((f / "restored.ome.zarr/zarr.json").read_text())["attributes"] for f in (rec, out))
    assert made["ome"]["omero"] == given["ome"]["omero"]
    scales = [tree["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"] for tree in (given, made)]
    np.testing.assert_allclose(scales[1][0]["scale"], scales[0][0]["scale"], rtol=1e-9)
    for key in ("camera", "channel", "pixel_um", "exposure_ms", "bit_depth", "plane"):
        assert made["pellucid"][key] == given["pellucid"][key], key
    for was, now in zip(rows(rec), rows(out), strict=True):
        assert (now["in_seq"], now["camera_time"]) == (was["seq"], was["camera_time"])
        assert (now["state"], now["index"]) == ("processed", was["index"])
    told = report(out)
    assert told["frames"]["processed"] == told["frames"]["produced"] == frames
    assert told["frames"]["unaccounted"] == 0
    assert told["process"]["in"] == str(rec)
    assert told["hardware"]["threads"] == 1
    assert 'kind = "replay"' in (out / "config.toml").read_text()


def test_an_experiment_keeps_axes_names_positions_and_what_was_lost(bench):
    rec = bench.record(
        'source = { kind = "experiment", sizes = { t = 2, p = 2, c = 2, z = 3 }, lost = [7] }\n'
        'stages = [{ kind = "scale" }]\nsession = { restore = "every" }'
    )
    out = bench.process("rec", bench.config('kind = "trail"\nhistory = 0'))
    for position in ("left_well", "right"):
        given = pixels(rec, f"raw.ome.zarr/{position}")
        np.testing.assert_array_equal(pixels(out, f"restored.ome.zarr/{position}"), given.astype(np.float32))
        told = [
            json.loads((f / f"restored.ome.zarr/{position}/zarr.json").read_text())["attributes"]["ome"]
            for f in (rec, out)
        ]
        assert told[0] == told[1]
    by_axes = {tuple(row["axes"].values()): row for row in rows(out)}
    assert len(by_axes) == 24
    lost = [row for row in by_axes.values() if row["state"] == "lost"]
    assert [(row["axes"], row["where"]) for row in lost] == [({"t": 0, "p": 1, "c": 0, "z": 1}, "not in IN")]
    assert report(out)["frames"]["lost"] == {"not in IN": 1}
    assert [(s["channel"], s["exposure_ms"], s["z_um"]) for s in report(out)["streams"]] == [
        ("DAPI", 10.0, 0.5),
        ("FITC", 20.0, 0.5),
    ]


def test_several_cameras_keep_their_images(bench):
    rec = bench.record(
        'source = { kind = "counting", frames = 12, cameras = 2, height = 16, width = 16 }\n'
        'stages = [{ kind = "scale" }]\nsession = { restore = "every" }'
    )
    out = bench.process("rec", bench.config('kind = "trail"\nhistory = 0\ncameras = ["cam1"]'))
    assert [p.name for p in sorted(out.glob("*.zarr"))] == ["restored-cam1-1.ome.zarr"]
    np.testing.assert_array_equal(pixels(out, "restored-cam1-1.ome.zarr"), pixels(rec, "raw-cam1-1.ome.zarr"))
    assert [row["state"] for row in rows(out)].count("raw_only") == 6
    assert report(out)["frames"]["raw_only"] == {"no stage": 6}
    with pytest.raises(StageError, match=r'cameras of IN are cam0, cam1\. Did you mean "cam1"'):
        bench.process("rec", bench.config('kind = "trail"\ncameras = ["cam11"]'), "out2")


def test_channels_have_stages_of_their_own(bench):
    given = noise(3, 2, 16, 20)
    bench.tiff("two.ome.tif", given, metadata={"axes": "TCYX", "Channel": {"Name": ["DAPI", "GFP"]}})
    config = bench.config(
        'kind = "trail"\nhistory = 0\nwrites = "copy"',
        'kind = "trail"\nhistory = 1\nreads = "raw"\nwrites = "restored"\nchannels = ["GFP"]',
    )
    out = bench.process("two.ome.tif", config)
    np.testing.assert_array_equal(pixels(out, "copy.ome.zarr"), given)
    restored = pixels(out)
    assert not restored[:, 0].any()
    before = np.concatenate([np.zeros((1, 16, 20)), given[:-1, 1]])
    np.testing.assert_allclose(restored[:, 1], given[:, 1] + 0.1 * before, rtol=1e-6)


def test_stacks_are_given_whole(bench):
    given = noise(2, 5, 2, 16, 20)
    bench.tiff(
        "hyper.tif",
        given,
        imagej=True,
        resolution=(10, 10),
        metadata={"axes": "TZCYX", "unit": "um", "spacing": 0.3, "finterval": 2.5},
    )
    out = bench.process("hyper.tif", bench.config(unit="stack"))
    restored = pixels(out)
    assert restored.shape == (2, 2, 5, 16, 20)
    for t in range(2):
        for c in range(2):
            np.testing.assert_array_equal(restored[t, c], softened(given[t, :, c]))
    told = json.loads((out / "restored.ome.zarr/zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    np.testing.assert_allclose(
        told["datasets"][0]["coordinateTransformations"][0]["scale"], [2.5, 1, 0.3, 0.1, 0.1], rtol=1e-6
    )
    assert [row["axes"] for row in rows(out)] == [{"t": t, "c": c} for t in range(2) for c in range(2)]


def test_a_stack_of_a_recording_that_lacks_a_plane_is_not_restored(bench):
    rec = bench.record(
        'source = { kind = "experiment", sizes = { t = 3, z = 4 }, lost = [6] }\nstages = [{ kind = "scale" }]\n'
        'session = { restore = "every" }'
    )
    with pytest.raises(RunError, match="1 of 3 frames failed and are empty in OUT: IN lacks z = 2"):
        bench.process("rec", bench.config(unit="stack"))
    raw, restored = pixels(rec, "raw.ome.zarr"), pixels(bench.folder / "out")
    np.testing.assert_array_equal(restored[2, 0], softened(raw[2, 0]))
    assert not restored[1].any()


def test_a_stage_is_told_which_frame_it_is_given(bench):
    bench.tiff("z.tif", noise(2, 5, 16, 20), imagej=True, metadata={"axes": "TZYX"})
    out = bench.process("z.tif", bench.config('kind = "placed"'))
    assert (pixels(out)[:, 0, :, 0, 0] == range(5)).all()
    kept = json.loads((out / "restored.ome.zarr/zarr.json").read_text())["attributes"]["pellucid"]
    assert kept["values"] == {"unit": "place along z"}


def test_a_tiff_that_does_not_name_its_axis_is_one_stack(bench):
    given = noise(6, 16, 20)
    bench.tiff("stack.tif", given, photometric="minisblack", metadata=None)
    out = bench.process("stack.tif", bench.config(unit="stack"))
    np.testing.assert_array_equal(pixels(out)[0, 0], softened(given))
    planes = bench.process("stack.tif", bench.config(), "planes")
    np.testing.assert_array_equal(pixels(planes)[3, 0], softened(given[3]))


def test_an_ndtiff_is_processed(bench):
    pytest.importorskip("ndstorage", reason="ndstorage is not installed: pip install pellucid[replay]")
    given = noise(3, 2, 16, 20)
    np.save(bench.folder / "given.npy", given)
    # In a process of its own: ndstorage's writer leaves files open, which would be a warning here.
    subprocess.run([sys.executable, "-c", WRITE_NDTIFF, bench.folder / "given.npy", bench.folder], check=True)
    folder = next(p.parent for p in bench.folder.rglob("NDTiff.index"))
    out = bench.process(folder.relative_to(bench.folder), bench.config())
    np.testing.assert_array_equal(pixels(out)[2, 1], softened(given[2, 1]))
    assert [(s["pixel_um"], s["z_um"]) for s in report(out)["streams"]] == [(0.2, 0.4)] * 2


def test_stages_that_look_back_see_the_frames_before_their_block(bench):
    given = noise(70, 8, 9)
    given[30, 0, 0] = 111
    bench.tiff("long.tif", given, metadata={"axes": "TYX"})
    stages = (
        'kind = "fussy"\nwrites = "same"',
        'kind = "trail"\nhistory = 2\nwrites = "first"',
        'kind = "trail"\nhistory = 1',
    )
    with pytest.raises(RunError, match="1 of 70"):
        bench.process("long.tif", bench.config(*stages))
    out = bench.folder / "out"
    # The frame that raised never came to the stages after it.
    seen = np.delete(given.astype(np.float32), 30, axis=0)
    first = seen.copy()
    for weight, lag in ((1, 2), (2, 1)):
        first[lag:] += np.float32(0.1 * weight) * seen[:-lag]
    second = first.copy()
    second[1:] += np.float32(0.1) * first[:-1]
    np.testing.assert_allclose(np.delete(pixels(out)[:, 0], 30, axis=0), second, rtol=1e-6)
    assert not pixels(out)[30].any()


def test_a_frame_that_fails_stays_empty_and_the_run_goes_on(bench):
    given = noise(50, 8, 9)
    given[7, 0, 0], given[31, 0, 0] = 111, 222
    bench.tiff("some.tif", given, metadata={"axes": "TYX"})
    with pytest.raises(RunError, match="2 of 50 frames failed and are empty in OUT: stages"):
        bench.process("some.tif", bench.config('kind = "fussy"'))
    out = bench.folder / "out"
    restored = pixels(out)[:, 0]
    bad = {7: "stages[0] fussy raised RuntimeError: the network is on fire", 31: "stages[0] fussy returned NaN"}
    for i in range(50):
        row = rows(out)[i]
        if i in bad:
            assert not restored[i].any()
            assert row["state"] == "raw_only"
            assert row["where"].startswith(bad[i])
        else:
            np.testing.assert_array_equal(restored[i], given[i])
            assert row["state"] == "processed"
    frames = report(out)["frames"]
    assert (frames["processed"], sum(frames["raw_only"].values()), frames["unaccounted"]) == (48, 2, 0)


def test_a_background_above_the_pictures_is_told(bench):
    given = noise(5, 16, 17)
    given[2] += 5000
    bench.tiff("some.tif", given, metadata={"axes": "TYX"})
    black = "returned a black picture: the mean of the frame is not above background = 4000"
    config = bench.config('kind = "deconvolve"\npsf = { kind = "gaussian", fwhm_px = 2 }\nbackground = 4000')
    out = bench.process("some.tif", config)
    assert report(out)["notes"] == [f"in 4 of 5: stages[0] deconvolve {black}"]
    assert ["remark" in row for row in rows(out)] == [True, True, False, True, True]
    np.testing.assert_array_equal(pixels(out)[:, 0].any((1, 2)), [False, False, True, False, False])


def test_a_damaged_frame_of_in_is_named_and_the_run_goes_on(bench):
    rec = bench.record(
        'source = { kind = "counting", frames = 5, height = 16, width = 16 }\nstages = [{ kind = "scale" }]\n',
        shard_frames=1,
    )
    (rec / "raw.ome.zarr/0/c/2/0/0/0").write_bytes(b"torn")
    with pytest.raises(RunError, match="1 of 5 frames failed and are empty in OUT: IN cannot be read"):
        bench.process("rec", bench.config('kind = "fussy"'))
    row = rows(bench.folder / "out")[2]
    assert (row["state"], row["where"]) == ("lost", "IN cannot be read")
    assert "frame 2" in row["error"]


def test_a_session_s_threads_and_no_other_have_a_say(bench):
    """The number of threads stands in the plan, whatever this process did before."""
    bench.tiff("big.tif", noise(5, 256, 256), metadata={"axes": "TYX"})
    one = bench.process("big.tif", bench.config())
    torch.set_num_threads(2)
    two = bench.process("big.tif", bench.config(), "two")
    assert torch.get_num_threads() == 1
    assert files(one) == files(two)


def test_the_stages_are_opened_once_for_many_blocks(bench, monkeypatch):
    made = []
    init = BoundChain.__init__
    monkeypatch.setattr(BoundChain, "__init__", lambda self, *args: (made.append(1), init(self, *args))[1])
    bench.tiff("some.tif", noise(64, 8, 9), metadata={"axes": "TYX"})
    bench.process("some.tif", bench.config())
    assert len(made) == 2  # to look, and to work


def test_what_a_config_has_no_use_for_is_said(bench):
    bench.tiff("some.tif", noise(2, 8, 9), photometric="minisblack", metadata={"axes": "TYX"})
    config = bench.config()
    config.write_text(config.read_text() + '\n[source]\nkind = "simulated"\n[[sinks]]\nkind = "null"\n')
    bench.process("some.tif", config)
    assert "[source] and [[sinks]]" in bench.said[0]
    with pytest.raises(ConfigError, match="no such key"):
        bench.process("some.tif", config, "out2", sets=["stages.0.slwo_s=1"])
