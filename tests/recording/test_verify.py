"""A recording that is in order, and every way in which it can be made not to be."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil

import numpy as np
import pytest
import zarr

from pellucid.errors import SinkError, SourceError
from pellucid.recording.verify import verify
from pellucid.sources.replay import Replay
from tests.recording.made_recordings import (
    COLOUR,
    DECONVOLVE,
    EXPERIMENT,
    SCALE,
    SIMULATED,
    STACKS,
    record,
    rows,
    write_rows,
)
from tests.sources.source_parts import play


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return record(tmp_path_factory.mktemp("good") / "rec", SIMULATED, DECONVOLVE, shard_frames=4)


@pytest.fixture
def rec(good, tmp_path):
    return shutil.copytree(good, tmp_path / "rec")


def test_a_recording_is_in_order_and_every_plane_was_looked_at(rec):
    told = []
    found = verify(rec, lambda done, total: told.append((done, total)))
    assert found.faults == []
    assert (found.frames, found.recorded, found.planes, found.images) == (12, 12, 24, 2)
    assert found.nbytes == 12 * 48 * 64 * (2 + 4)
    assert told[-1] == (24, 24)
    (first, second) = found.lines()
    assert first == "in order: 12 frames have a row each, 12 are recorded"
    assert "24 planes in 2 images" in second
    assert "zarr-python" in second


@pytest.mark.parametrize(
    ("source", "session", "keys", "planes"),
    [
        (EXPERIMENT, "", {}, 46),
        (STACKS, 'unit = "stack"', {}, 23 + 20),
        (COLOUR, "", {}, 18),
        ('kind = "counting"\nframes = 10\ncameras = 2\nheight = 8\nwidth = 8', "", {}, 20),
        (SIMULATED, "", {"part_frames": 5, "compression": "blosc-zstd"}, 24),
        (SIMULATED, "", {"shard_frames": 1}, 24),
        ('kind = "changing"\nsteps = [["a", "b", 16, 16, "uint16", 4], ["a", "b", 8, 8, "uint8", 3]]', "", {}, 14),
    ],
    ids=["experiment", "stacks", "colour", "cameras", "parts", "a file a plane", "a camera that changes"],
)
def test_all_kinds_of_recordings_are_in_order(source, session, keys, planes, tmp_path):
    rec = record(tmp_path / "rec", source, SCALE, session=f'restore = "every"\n{session}', **keys)
    found = verify(rec)
    assert found.faults == []
    assert found.planes == planes
    assert found.frames == len({n for row in rows(rec) for n in range(row["seq"], row.get("to_seq", row["seq"]) + 1)})


def test_one_byte_is_named_with_its_frame_image_and_place(rec):
    shard = rec / "raw.ome.zarr/0/c/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[2 * 48 * 64 * 2 + 17] ^= 1  # of the third plane in the second shard of four
    shard.write_bytes(data)
    (fault,) = verify(rec).faults
    assert fault.startswith("frame 6: raw.ome.zarr at t=6, c=0 is not what arrived")


def test_a_file_that_is_cut_and_one_that_is_gone(rec):
    shard = rec / "raw.ome.zarr/0/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1000])
    (rec / "restored.ome.zarr/0/c/2/0/0/0").unlink()
    faults = verify(rec).faults
    assert len(faults) == 8
    for seq in range(4):
        assert any(f.startswith(f"frame {seq}: raw.ome.zarr at t={seq}, c=0 cannot be read") for f in faults)
    for seq in range(8, 12):
        assert f"frame {seq}: restored.ome.zarr at t={seq}, c=0 is empty: all zeros where a picture arrived" in faults


def test_planes_that_changed_places_are_named_with_whose_they_are(rec):
    array = zarr.open_array(str(rec / "raw.ome.zarr/0"), mode="r+")
    both = array[3:5]
    array[3:5] = both[::-1]
    faults = verify(rec).faults
    assert len(faults) == 2
    assert faults[0].startswith("frame 3: raw.ome.zarr at t=3, c=0 is not what arrived")
    assert faults[0].endswith("it is raw of frame 4")
    assert faults[1].endswith("it is raw of frame 3")


def test_a_row_that_is_missing_doubled_or_damaged(rec):
    good = rows(rec)
    write_rows(rec, [row for row in good if row["seq"] not in (4, 5)])
    assert "frames 4 to 5: no row tells of them" in verify(rec).faults
    write_rows(rec, [*good, good[3]])
    assert "frame 3: it has two rows" in verify(rec).faults
    write_rows(rec, good)
    with (rec / "frames.jsonl").open("a") as file:
        file.write('{"seq": 12, "sta')
    assert verify(rec).faults == ["frames.jsonl: line 13 is damaged"]
    without = [{k: v for k, v in row.items() if k != "xxh3"} for row in good]
    write_rows(rec, [good[0], without[1], *good[2:]])
    faults = verify(rec).faults
    assert "frame 1: its row has no checksum for raw, and does not say why" in faults
    assert "frame 1: its row has no checksum for restored, and does not say why" in faults


def test_rows_and_report_that_disagree(rec):
    report = json.loads((rec / "report.json").read_text())
    report["frames"] |= {"produced": 13, "lost": {"wire": 1}}
    (rec / "report.json").write_text(json.dumps(report))
    assert verify(rec).faults == [
        "report.json: says 13 produced, the rows say 12",
        "report.json: says 1 lost, the rows say 0",
    ]
    (rec / "report.json").unlink()
    assert verify(rec).faults == ["report.json: does not exist"]


def test_a_config_that_was_changed(rec):
    text = (rec / "config.toml").read_text()
    (rec / "config.toml").write_text(text.replace("iterations = 3", "iterations = 4"))
    faults = verify(rec).faults
    assert len(faults) == 2
    now = hashlib.sha256((rec / "config.toml").read_bytes()).hexdigest()
    assert all(fault.startswith(f"config.toml: was changed; its SHA-256 is {now[:12]}") for fault in faults)


def test_images_that_are_not_what_recording_json_says(rec):
    path = rec / "raw.ome.zarr/0/zarr.json"
    told = json.loads(path.read_text())
    told["shape"][0] = 11
    path.write_text(json.dumps(told))
    faults = verify(rec).faults
    assert faults[0] == "raw.ome.zarr: is 11 long along t, the rows say 12"
    assert faults[1].startswith("frame 11: raw.ome.zarr at t=11, c=0 cannot be read")
    shutil.rmtree(rec / "raw.ome.zarr")
    assert verify(rec).faults == ["raw.ome.zarr: cannot be opened: it does not exist"]


def test_metadata_that_is_no_ome_zarr(rec):
    path = rec / "restored.ome.zarr/zarr.json"
    told = json.loads(path.read_text())
    del told["attributes"]["ome"]["multiscales"][0]["axes"][1]["name"]
    path.write_text(json.dumps(told))
    assert any("its metadata is not valid OME-Zarr" in fault for fault in verify(rec).faults)


def test_the_first_twenty_faults_are_told_then_how_many_more(tmp_path):
    rec = record(tmp_path / "rec", 'kind = "counting"\nframes = 30\nheight = 8\nwidth = 8')
    array = zarr.open_array(str(rec / "raw.ome.zarr/0"), mode="r+")
    array[:] = np.full(array.shape, 7, np.uint16)
    lines = list(verify(rec).lines())
    assert len(lines) == 22
    assert lines[0].startswith("29 faults among 30 frames")
    assert lines[-1] == "  and 9 more"


def test_what_was_not_ended_and_what_is_no_recording(rec, tmp_path):
    told = json.loads((rec / "recording.json").read_text())
    (rec / "recording.json").write_text(json.dumps(told | {"state": "recording"}))
    assert verify(rec).faults == [f"{rec} was not ended: type pellucid recover {rec}"]
    with pytest.raises(SinkError, match="is no recording of pellucid"):
        verify(tmp_path)
    with pytest.raises(SinkError, match="is no folder"):
        verify(tmp_path / "nothing")


def nonsense():
    """Yield what may stand in a damaged recording.json: a path in it, and the value there."""
    for value in ([], 5, None, "x", [5]):
        yield "streams", value
        yield "parts", value
    for key, values in {
        "spec.shape": (["x"], [None, 128], [{}], [-1, 5], [2**80, 1]),
        "spec.dtype": (-1, "object", "U9"),
        "spec": ([], None),
        "camera": ({}, 5),
        "channel": ([{}],),
        "sizes": (5, [None], {"t": "x"}),
        "details": (-1,),
        "index": (7, "a", None),
    }.items():
        for value in values:
            yield f"streams.0.{key}", value
    for key, values in {
        "number": (5, -1, "x"),
        "of": ({}, {"9": {"raw": "raw"}}, {"0": {"raw": "nothing"}}, {"0": {}}, 5),
        "images.0.name": ("x", "../../etc", 5),
        "images.0.size": ([1, 1], ["a", 2]),
        "images.0.depth": ("x", -1),
        "images.0.channels": (-1, []),
        "images.0.dtype": ("float32", "nothing"),
    }.items():
        for value in values:
            yield f"parts.0.{key}", value
    yield "state", "done"
    yield "file_format", "jpeg"


@pytest.mark.parametrize(("path", "value"), list(nonsense()), ids=str)
def test_nonsense_in_recording_json_is_told_and_is_no_traceback(path, value, rec):
    told = json.loads((rec / "recording.json").read_text())
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = told
    for part in way:
        at = at[part]
    at[last] = value
    (rec / "recording.json").write_text(json.dumps(told))
    try:
        found = list(verify(rec).faults)
    except SinkError as error:
        found = [str(error)]
    assert found
    assert all(len(fault.splitlines()) == 1 for fault in found)
    with pytest.raises(SourceError) as error:
        Replay(path=rec).open()
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("at", 5), ("at", [0, 1]), ("at", [0, 1, 0, -1]), ("xxh3", []), ("xxh3", {"raw": "zz"}), ("seq", 2**70),
     ("stream", "x"), ("stream", 3), ("part", 9), ("state", None), ("missing_z", 5), ("axes", [1])],
)  # fmt: skip
def test_nonsense_in_a_row_is_told_and_is_no_traceback(key, value, rec):
    changed = rows(rec)
    changed[5][key] = value
    write_rows(rec, changed)
    assert verify(rec).faults
    with contextlib.suppress(SourceError):
        source = Replay(path=rec)
        source.open()
        source.close()


def test_a_pixel_size_that_was_changed(tmp_path):
    keys = {"ome-zarr": "zarr.json", "ome-tiff": ""}
    for file_format, inner in keys.items():
        rec = record(tmp_path / file_format, SIMULATED + "\npixel_um = 0.25", format=file_format)
        assert verify(rec).faults == []
        if inner:
            path = rec / "raw.ome.zarr" / inner
            told = json.loads(path.read_text())
            scale = told["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
            scale[-1] = 5.0
            path.write_text(json.dumps(told))
        else:
            path = rec / "raw.ome.tif"
            data = path.read_bytes()
            assert b'PhysicalSizeX="0.25"' in data
            path.write_bytes(data.replace(b'PhysicalSizeX="0.25"', b'PhysicalSizeX="5.25"'))
        assert any("recording.json says 0.25 um" in fault for fault in verify(rec).faults)


def test_pixels_that_are_elsewhere_and_a_journal_without_its_facts(rec):
    file = next(path for path in (rec / "raw.ome.zarr/0/c").rglob("*") if path.is_file())
    name = file.relative_to(rec).as_posix()
    lines = [{"url": "s3://lab/d1"}, {"path": name, "size": 1, "mtime_ns": 1, "etag": "x", "freed": True}]
    (rec / "upload.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verify(rec).faults == []  # it is here, again
    file.unlink()
    with pytest.raises(SinkError, match="are in s3://lab/d1"):
        verify(rec)
    with pytest.raises(SourceError, match="Fetch them"):
        Replay(path=rec).open()
    (rec / "journal").write_bytes(b"")
    (rec / "recording.json").unlink()
    with pytest.raises(SourceError, match="has lost its recording"):
        Replay(path=rec).open()


def test_pixels_that_were_changed_are_not_replayed(rec):
    array = zarr.open_array(str(rec / "raw.ome.zarr/0"), mode="r+")
    array[5, 0, 3, 3] = array[5, 0, 3, 3] ^ 1
    with pytest.raises(SourceError, match="frame 5 is not what arrived"):
        play(Replay(path=rec))
    assert len(play(Replay(path=rec / "raw.ome.zarr")).planes) == 12  # as the message says


@pytest.mark.parametrize("cut", [4, 8, 19, 4000])
def test_a_tiff_that_is_cut_short(cut, tmp_path):
    rec = record(tmp_path / "rec", SIMULATED, format="ome-tiff")
    path = rec / "raw.ome.tif"
    path.write_bytes(path.read_bytes()[:-cut])
    assert verify(rec).faults
