"""OME-Zarr images: any order of planes, shards, growth, and what recovery leaves; read back by zarr-python."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import yaozarrs
import zarr

from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Ending, Plan, Stamp
from pellucid.recording.journal import checksum
from pellucid.recording.zarr_image import ZarrImage


def plan(**keys) -> Plan:
    return Plan(**{"plane": "raw", "name": "raw", "dtype": "uint16", "size": (16, 24), "channels": ("GFP",), **keys})


def plane(of: Plan, at: At) -> np.ndarray:
    rng = np.random.default_rng([at.p, at.t, at.c, at.z])
    return (rng.integers(0, 250, of.size) + at.t).astype(of.dtype)


def stored(folder, of: Plan, at: At) -> np.ndarray:
    group = f"{of.positions[at.p]}/" if of.positions else ""
    array = zarr.open_array(str(folder / f"{of.name}.ome.zarr/{group}0"), mode="r")
    return array[(at.t, at.c) if of.depth is None else (at.t, at.c, at.z)]


KINDS = {
    "planes": {"shard_frames": 1},
    "shards": {"shard_frames": 4},
    "stacks": {"shard_frames": 4, "depth": 3, "channels": ("a", "b")},
    "stacks, a file a plane": {"depth": 3, "channels": ("a", "b")},
    "positions": {"shard_frames": 5, "positions": ("left", "right"), "time_points": 2},
    "float32, zstd": {"shard_frames": 3, "dtype": "float32", "compression": "zstd"},
    "lz4": {"shard_frames": 3, "compression": "blosc-lz4", "dtype": "uint8"},
    "blosc-zstd": {"compression": "blosc-zstd", "dtype": "int16"},
    "colours": {"shard_frames": 3, "channels": ("R", "G", "B"), "is_colour": True, "dtype": "uint8"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_planes_in_any_order_from_several_threads(kind, tmp_path):
    of = plan(**KINDS[kind])
    image, disk = ZarrImage(tmp_path, of, disk := Disk()), disk
    image.create()
    places = [
        At(p, t, c, z)
        for p in range(max(len(of.positions), 1))
        for t in range(21)
        for c in range(len(of.channels))
        for z in range(of.depth or 1)
        if (t * 7 + c + z) % 11  # some are never written
    ]
    random.Random(kind).shuffle(places)
    with ThreadPoolExecutor(3) as threads:
        for begin in range(0, len(places), 17):
            some = places[begin : begin + 17]
            wheres = list(threads.map(lambda at: image.put(at, plane(of, at), 0), some))
            assert all(w.nbytes == of.nbytes or of.compression != "none" for w in wheres)
            image.grow([max(at.t for at in places[: begin + 17]) + 1] * 2)
            disk.commit()
    stamps = [Stamp(at, at.t * 0.5, i) for i, at in enumerate(places)]
    image.finish(Ending([23] * max(len(of.positions), 1), 0.5, "", stamps))
    disk.commit()
    assert not list(tmp_path.rglob("*.partial"))
    yaozarrs.validate_zarr_store(str(tmp_path / "raw.ome.zarr"))
    for at in places:
        np.testing.assert_array_equal(stored(tmp_path, of, at), plane(of, at))
    never = At(0, 22, 0)
    assert not stored(tmp_path, of, never).any()
    group = tmp_path / "raw.ome.zarr" / (of.positions[0] if of.positions else "")
    told = json.loads((group / "zarr.json").read_text())["attributes"]
    scale = told["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[0] == 0.5
    assert len(told["ome_writers"]["frame_metadata"]) == sum(at.p == 0 for at in places)


def test_a_plane_that_comes_long_after_its_shard_was_given_up(tmp_path):
    of = plan(shard_frames=3)
    image = ZarrImage(tmp_path, of, disk := Disk())
    image.create()
    for t in range(40):
        if t != 1:
            image.put(At(0, t, 0), plane(of, At(0, t, 0)), 0)
        image.grow([t + 1])
        disk.commit()
    assert (tmp_path / "raw.ome.zarr/0/c/0/0/0/0").is_file(), "others cannot read the first shard yet"
    image.put(At(0, 1, 0), plane(of, At(0, 1, 0)), 0)
    image.finish(Ending([40]))
    disk.commit()
    for t in range(40):
        np.testing.assert_array_equal(stored(tmp_path, of, At(0, t, 0)), plane(of, At(0, t, 0)))


def test_shards_have_their_names_only_when_they_are_whole_and_on_the_disk(tmp_path):
    of = plan(shard_frames=4)
    image = ZarrImage(tmp_path, of, disk := Disk())
    image.create()
    for t in range(4):
        image.put(At(0, t, 0), plane(of, At(0, t, 0)), 0)
        image.put(At(0, t, 0)._replace(t=t + 4), plane(of, At(0, t + 4, 0)), 0)
    key = tmp_path / "raw.ome.zarr/0/c/0/0/0/0"
    partial = key.with_name("0.partial")
    image.grow([8])
    assert partial.is_file()
    assert not key.exists()
    disk.commit()
    image.grow([8])
    assert key.is_file()
    assert not partial.exists()
    image.abandon()


def test_more_shards_than_files_may_be_open(tmp_path):
    of = plan(shard_frames=2, channels=tuple(f"c{i}" for i in range(100)), size=(4, 4))
    image = ZarrImage(tmp_path, of, disk := Disk())
    image.create()
    places = [At(0, t, c) for t in range(2) for c in range(100)]
    for at in places:
        image.put(at, plane(of, at), 0)
    image.finish(Ending([2]))
    disk.commit()
    for at in places:
        np.testing.assert_array_equal(stored(tmp_path, of, at), plane(of, at))


@pytest.mark.parametrize("kind", KINDS)
def test_recovery_keeps_what_is_good_and_can_be_done_again(kind, tmp_path):
    of = plan(**KINDS[kind])
    image = ZarrImage(tmp_path, of, Disk())
    image.create()
    places = [
        At(p, t, c, z)
        for t in range(11)
        for p in range(max(len(of.positions), 1))
        for c in range(len(of.channels))
        for z in range(of.depth or 1)
    ]
    wheres = {at: image.put(at, plane(of, at), 0) for at in places}
    image.abandon()
    torn = set(places[-2:])
    last = tmp_path / wheres[places[-1]].file
    last = last if last.exists() else last.with_name(last.name + ".partial")
    if of.shard_frames == 1:
        for at in torn:
            (tmp_path / wheres[at].file).write_bytes(b"torn")
    for _ in range(2):
        again = ZarrImage(tmp_path, of, disk := Disk())
        again.reopen()
        good = []
        for at in places:
            found = again.read(at, wheres[at])
            if found is not None and at not in torn:
                assert checksum(found) == checksum(plane(of, at))
                good.append((at, wheres[at]))
        assert len(good) == len(places) - 2
        again.keep(good)
        again.finish(Ending([11] * max(len(of.positions), 1)))
        disk.commit()
        assert not list((tmp_path / "raw.ome.zarr").rglob("*.partial"))
        for at in places:
            want = plane(of, at) if at not in torn else 0
            np.testing.assert_array_equal(stored(tmp_path, of, at), want)


@pytest.mark.parametrize("kind", ["positions", "stacks", "planes"])
def test_metadata_that_is_gone_or_torn_is_made_again(kind, tmp_path):
    of = plan(**KINDS[kind])
    image = ZarrImage(tmp_path, of, Disk())
    image.create()
    at = At(0, 3, 0)
    where = image.put(at, plane(of, at), 0)
    image.abandon()
    files = sorted((tmp_path / "raw.ome.zarr").rglob("zarr.json"))
    files[0].unlink()
    files[-1].write_bytes(files[-1].read_bytes()[:50])
    again = ZarrImage(tmp_path, of, disk := Disk())
    again.reopen()
    again.keep([(at, where)])
    again.finish(Ending([4] * max(len(of.positions), 1)))
    disk.commit()
    np.testing.assert_array_equal(stored(tmp_path, of, at), plane(of, at))
    yaozarrs.validate_zarr_store(str(tmp_path / "raw.ome.zarr"))
    assert [p.name for p in tmp_path.iterdir()] == ["raw.ome.zarr"]
