"""Recordings in the programs of others, and as a source."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr

from pellucid.errors import SinkError, SourceError
from pellucid.recording.image import At, Plan
from pellucid.recording.opened import open_image
from pellucid.recording.verify import verify
from pellucid.reproduce import reproduce
from pellucid.sources._stored import open_stored
from pellucid.sources.replay import Replay
from tests.recording.made_recordings import COLOUR, EXPERIMENT, SCALE, SIMULATED, STACKS, record, rows
from tests.sources.source_parts import play

COUNTING = 'kind = "counting"\nframes = 12\nheight = 8\nwidth = 8'


def pixels(folder, image="raw.ome.zarr"):
    return np.asarray(zarr.open_array(str(folder / image / "0"), mode="r")[:])


def elsewhere(script, *words, path=""):
    """Run a few lines in a process of their own: what other programs import and warn of is their affair."""
    env = os.environ | ({"PYTHONPATH": path} if path else {})
    line = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a plain recording and an experiment; that all their planes are right is `test_verify`'s."""
    folder = tmp_path_factory.mktemp("made")
    plain = record(folder / "plain", SIMULATED, SCALE, shard_frames=4, compression="blosc-lz4")
    return plain, record(folder / "experiment", EXPERIMENT, SCALE)


# ---------------------------------------------------------------- programs of others


@pytest.mark.parametrize("compression", ["none", "blosc-lz4", "blosc-zstd", "zstd"])
@pytest.mark.parametrize("shard", [1, 5])
def test_tensorstore_sees_what_zarr_python_sees(compression, shard, tmp_path):
    ts = pytest.importorskip("tensorstore", reason='tensorstore is not installed: pip install "pellucid[replay]"')
    rec = record(tmp_path / "rec", SIMULATED, compression=compression, shard_frames=shard)
    store = {"driver": "file", "path": f"{rec / 'raw.ome.zarr/0'}/"}
    array = ts.open({"driver": "zarr3", "kvstore": store}, open=True, read=True).result()
    given = pixels(rec)
    assert given.shape == (12, 1, 48, 64)
    assert len({plane.tobytes() for plane in given}) == 12
    np.testing.assert_array_equal(array.read().result(), given)


def test_yaozarrs_reads_the_models_of_every_image(made):
    import yaozarrs

    plain, experiment = made
    image = yaozarrs.open_group(str(plain / "raw.ome.zarr")).ome_metadata()
    assert [axis.name for axis in image.multiscales[0].axes] == ["t", "c", "y", "x"]
    assert image.omero.channels[0].label == "simulated"
    for name in ("raw.ome.zarr", "restored.ome.zarr"):
        yaozarrs.validate_zarr_store(str(experiment / name))
    series = yaozarrs.open_group(str(experiment / "raw.ome.zarr/OME")).ome_metadata()
    assert list(series.series) == ["left_well", "right"]


def test_bioio_opens_a_recording(made):
    pytest.importorskip("bioio_ome_zarr", reason="bioio-ome-zarr is not installed: pip install bioio-ome-zarr")
    plain, experiment = made
    script = """
import json, sys, numpy as np, bioio_ome_zarr
from bioio import BioImage
out = []
for path in sys.argv[1:]:
    image = BioImage(path, reader=bioio_ome_zarr.Reader)
    size = image.physical_pixel_sizes
    out.append([image.dims.order, image.shape, str(image.dtype), [str(n) for n in image.channel_names],
                [size.Z, size.Y, size.X], int(image.data.astype(np.float64).sum())])
print(json.dumps(out))
"""
    first, second = elsewhere(script, plain / "raw.ome.zarr", experiment / "raw.ome.zarr/left_well")
    total = int(pixels(plain).astype(np.float64).sum())
    assert first == ["TCZYX", [12, 1, 1, 48, 64], "uint16", ["simulated"], [None, 0.1, 0.1], total]
    total = int(pixels(experiment, "raw.ome.zarr/left_well").astype(np.float64).sum())
    assert second == ["TCZYX", [2, 2, 3, 16, 24], "uint16", ["DAPI", "FITC"], [0.5, 0.1, 0.1], total]


def test_the_reader_of_napari_opens_a_recording(made):
    # Beside the tests and not among them: what napari brings to pytest does not pass with warnings as errors.
    napari = os.environ.get("PELLUCID_NAPARI")
    if napari is None:
        pytest.skip("napari: pip install --target FOLDER napari napari-ome-zarr, then PELLUCID_NAPARI=FOLDER")
    script = """
import json, sys, numpy as np
from napari_ome_zarr import napari_get_reader
out = []
for path in sys.argv[1:]:
    for data, told, kind in napari_get_reader(path)(path):
        data = np.asarray(data[0] if isinstance(data, list) else data)
        out.append([kind, data.shape, told["name"], told["channel_axis"], int(data.astype(np.float64).sum())])
print(json.dumps(out))
"""
    plain, experiment = made
    words = plain / "raw.ome.zarr", experiment / "raw.ome.zarr/left_well"
    first, second = elsewhere(script, *words, path=napari)
    total = int(pixels(plain).astype(np.float64).sum())
    assert first == ["image", [12, 1, 48, 64], ["simulated"], 1, total]
    assert second[:4] == ["image", [2, 2, 3, 16, 24], ["DAPI", "FITC"], 1]


# ---------------------------------------------------------------- as a source


def played(path, **keys):
    one = play(Replay(path=path, **keys))
    return one, [(info.stream, info.axes) for info in one.infos]


def test_a_recording_is_played_as_it_came(made):
    plain, _ = made
    one, where = played(plain)
    assert where == [(0, {"t": i, "c": 0}) for i in range(12)]
    np.testing.assert_array_equal(np.stack(one.planes), pixels(plain)[:, 0])
    (stream,) = one.streams
    assert (stream.camera, stream.channel, stream.pixel_um, stream.frames) == ("simulated", "simulated", 0.1, 12)
    assert stream.sizes == {"t": 12, "c": 1}


def test_an_experiment_comes_with_its_positions_and_without_what_was_lost(made):
    _, experiment = made
    one, where = played(experiment)
    there = [row for row in rows(experiment) if row["state"] != "lost"]
    assert where == [(row["stream"], row["axes"]) for row in there]
    assert [int(plane[0, 0]) for plane in one.planes] == [row["seq"] + 1 for row in there]
    assert one.streams[1].sizes == {"t": 2, "p": 2, "c": 2, "z": 3}
    assert one.streams[1].names["c"] == ("DAPI", "FITC")


def test_parts_come_one_after_the_other_or_one_alone(tmp_path):
    rec = record(tmp_path / "rec", COUNTING, part_frames=5)
    one, where = played(rec)
    assert [int(plane[0, 0]) for plane in one.planes] == list(range(1, 13))
    assert [axes["t"] for _, axes in where] == list(range(12))
    one, where = played(rec / "part-0002")
    assert [int(plane[0, 0]) for plane in one.planes] == list(range(6, 11))
    assert [axes["t"] for _, axes in where] == list(range(5))
    experiment = record(tmp_path / "experiment", EXPERIMENT, part_frames=7)  # a time point has twelve
    one, where = played(experiment / "part-0002")
    assert one.streams[0].sizes == {"t": 1, "p": 2, "c": 2, "z": 3}
    assert where[0] == (0, {"t": 0, "p": 0, "c": 0, "z": 0})
    assert [int(plane[0, 0]) for plane in one.planes] == list(range(13, 25))
    (rec / "part-0009").mkdir()
    with pytest.raises(SourceError, match="part-0009 holds no frames"):
        played(rec / "part-0009")


def test_cameras_colours_stacks_and_a_camera_that_changed(tmp_path):
    rec = record(tmp_path / "cameras", f"{COUNTING}\ncameras = 2")
    one, where = played(rec)
    assert [(stream, int(plane[0, 0])) for (stream, _), plane in zip(where, one.planes, strict=True)] == [
        (i % 2, i + 1) for i in range(12)
    ]
    rec = record(tmp_path / "colour", COLOUR)
    one, _ = played(rec)
    assert one.streams[0].spec.is_colour
    assert [plane.shape for plane in one.planes] == [(3, 16, 24)] * 3
    with closing(open_stored(rec, None, planes=True)) as stored:
        assert [stream.channel for stream in stored.streams] == ["R", "G", "B"]
        assert [stored.locate(i) for i in range(9)] == [(i % 3, {"t": i // 3, "c": i % 3}) for i in range(9)]
        plane = np.empty((16, 24), np.uint8)
        stored.read(5, plane)
        np.testing.assert_array_equal(plane, one.planes[1][2])
    rec = record(tmp_path / "stacks", STACKS, session='unit = "stack"')
    one, where = played(rec)
    assert one.streams[0].spec.shape == (16, 24)
    assert one.streams[0].sizes == {"t": 3, "c": 2, "z": 4}
    assert sorted(int(plane[0, 0]) for plane in one.planes) == [n for n in range(1, 25) if n != 10]
    for (_, axes), plane in zip(where, one.planes, strict=True):
        assert int(plane[0, 0]) == (axes["t"] * 2 + axes["c"]) * 4 + axes["z"] + 1
    steps = '[["a", "b", 16, 16, "uint16", 4], ["a", "b", 8, 8, "uint8", 3]]'
    rec = record(tmp_path / "changing", f'kind = "changing"\nsteps = {steps}')
    one, where = played(rec)
    assert [plane.shape for plane in one.planes] == [(16, 16)] * 4 + [(8, 8)] * 3
    assert [stream.replaces for stream in one.streams] == [None, None]


def test_the_circle_closes(made, tmp_path):
    """What was recorded, replayed, restored and recorded again, is the same to the last bit."""
    for i, given in enumerate(made):
        source = f'kind = "replay"\npath = "{given.as_posix()}"'
        again = record(tmp_path / str(i), source, SCALE)
        was = [row["xxh3"] for row in rows(given) if "xxh3" in row]
        assert [row["xxh3"] for row in rows(again)] == was
        assert verify(again).faults == []
        assert reproduce(again).different == []


def test_a_recording_that_was_not_ended_is_no_source(made, tmp_path):
    rec = record(tmp_path / "rec", COUNTING)
    told = json.loads((rec / "recording.json").read_text())
    (rec / "recording.json").write_text(json.dumps(told | {"state": "recording"}))
    with pytest.raises(SourceError, match="was not ended"):
        Replay(path=rec).open()


# ---------------------------------------------------------------- the other formats


def test_ome_tiff_is_read_by_tifffile(tmp_path):
    given = np.random.default_rng(0).integers(0, 60000, (2, 4, 2, 3, 8, 6)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "raw.ome.tif", ome=True) as file:
        for position in given:
            file.write(position, photometric="minisblack", metadata={"axes": "TCZYX"})
    plan = Plan("raw", "raw", "uint16", (8, 6), ("a", "b"), depth=3, positions=("left", "right"))
    image = open_image(tmp_path, plan, "ome-tiff")
    assert image.found() == [((4, 2, 3, 8, 6), "uint16")] * 2
    for at in np.ndindex(2, 4, 2, 3):
        np.testing.assert_array_equal(image.read(At(*at)), given[at])
    with pytest.raises(SinkError, match="it ends at t = 3"):
        image.read(At(0, 4, 0, 0))
    image.close()


def test_ndtiff_is_read_by_ndstorage(tmp_path):
    pytest.importorskip("ndstorage", reason='ndstorage is not installed: pip install "pellucid[replay]"')
    given = np.random.default_rng(0).integers(0, 60000, (2, 3, 2, 8, 6)).astype(np.uint16)
    np.save(tmp_path / "given.npy", given)
    script = """
import sys, numpy as np
from ndstorage import NDTiffDataset
data = NDTiffDataset(sys.argv[1], name="raw.ndtiff", summary_metadata={}, writable=True)
given = np.load(sys.argv[1] + "/given.npy")
for p, t, c in np.ndindex(2, 3, 2):
    data.put_image({"position": p, "time": t, "channel": "ab"[c]}, given[p, t, c], {})
data.finish()
data.close()
print("null")
"""
    elsewhere(script, tmp_path)
    (index,) = tmp_path.rglob("NDTiff.index")
    index.parent.rename(tmp_path / "raw.ndtiff")
    plan = Plan("raw", "raw", "uint16", (8, 6), ("a", "b"), positions=("left", "right"))
    image = open_image(tmp_path, plan, "ndtiff")
    for p, t, c in np.ndindex(2, 3, 2):
        np.testing.assert_array_equal(image.read(At(p, t, c)), given[p, t, c])
    with pytest.raises(SinkError, match="its index has no such picture"):
        image.read(At(0, 3, 0))
    image.close()


@pytest.mark.parametrize(("file_format", "needs"), [("ome-tiff", "tiff_image"), ("ndtiff", "ndtiff_image")])
@pytest.mark.parametrize("source", [SIMULATED, EXPERIMENT, STACKS], ids=["plain", "experiment", "stacks"])
def test_every_format_is_verified_reproduced_and_played(file_format, needs, source, tmp_path):
    pytest.importorskip(f"pellucid.recording.{needs}")
    unit = 'unit = "stack"\n' if source == STACKS else ""
    psf = '{ kind = "gaussian", fwhm_px = 3.5, fwhm_z_px = 3 }'
    stage = f'kind = "deconvolve"\npsf = {psf}\niterations = 2\noutput = "uint16"'
    rec = record(tmp_path / "rec", source, stage, session=f'{unit}restore = "every"', format=file_format)
    found = verify(rec)
    assert found.faults == []
    assert found.planes >= 24
    assert reproduce(rec).different == []
    one, _ = played(rec)
    assert len(one.planes) == sum(row.get("planes", 1) for row in rows(rec) if "at" in row)
