"""NDTiff images: as ndstorage and Micro-Manager read them, and what recovery makes of what a kill left."""

from __future__ import annotations

import contextlib
import errno
import io
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ndstorage
import numpy as np
import pytest
import tifffile

from pellucid.errors import SinkError
from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Ending, Plan, Where
from pellucid.recording.ndtiff_image import NDTiffImage

FACTS = {"camera": "Andor", "version": "1.2", "bit_depth": 12, "details": {"objective": "60x oil"}}


def plan(**keys) -> Plan:
    some = {"plane": "raw", "name": "raw", "dtype": "uint16", "size": (15, 23), "channels": ("GFP",), "facts": FACTS}
    return Plan(**{**some, "pixel_um": 0.1, "exposure_ms": (20.0,), **keys})


KINDS = {
    "uint16": {},
    "uint8, an odd number of pixels": {"dtype": "uint8"},
    "stacks": {"depth": 3, "channels": ("GFP", "RFP"), "z_um": 0.3},
    "positions": {"positions": ("left", "right"), "channels": ("GFP", "RFP"), "time_points": 2},
    "colours": {"channels": ("R", "G", "B"), "is_colour": True, "dtype": "uint8"},
    "a part": {"name": "part-0001/raw"},
}


def plane(of: Plan, at: At) -> np.ndarray:
    rng = np.random.default_rng([at.p, at.t, at.c, at.z])
    return (rng.integers(1, 200, of.size) + at.t).astype(of.dtype)


def places(of: Plan, times: int) -> list[At]:
    return [
        At(p, t, c, z)
        for t in range(times)
        for p in range(max(len(of.positions), 1))
        for c in range(len(of.channels))
        for z in range(of.depth or 1)
    ]


def axes(of: Plan, at: At) -> dict[str, int]:
    told = {"time": at.t, "channel": at.c}
    told |= {"z": at.z} if of.depth else {}
    return told | ({"position": at.p} if of.positions else {})


def ending(of: Plan, times: int) -> Ending:
    groups = [{"position": {"x_um": 1.0}} for _ in range(max(len(of.positions), 1))]
    return Ending([times] * max(len(of.positions), 1), 0.5, "2026-11-23T15:40:00+00:00", [], groups, {"more": "known"})


@contextlib.contextmanager
def opened(folder: Path, of: Plan):
    """Open it with ndstorage, which tells of its progress."""
    with contextlib.redirect_stdout(io.StringIO()):
        data = ndstorage.Dataset(str(folder / f"{of.name}.ndtiff"))
    try:
        yield data
    finally:
        data.close()


def check(folder: Path, of: Plan, there, *, ended: bool = True) -> None:
    """Look at every plane with ndstorage, and along the directories with tifffile."""
    with opened(folder, of) as data:
        assert {frozenset(key) for key in data.index} == {frozenset(axes(of, at).items()) for at in there}
        for at in there:
            np.testing.assert_array_equal(data.read_image(**axes(of, at)), plane(of, at))
            told = data.read_metadata(**axes(of, at))
            assert told["Axes"] == axes(of, at)
            assert told.get("ElapsedTime-ms", at.t * 500.0) == at.t * 500.0
        assert data.summary_metadata["PixelSize_um"] == 0.1
        assert ended == ("Interval_ms" in data.summary_metadata)
    if not ended:
        return
    found = []
    for path in sorted((folder / f"{of.name}.ndtiff").glob("*.tif")):
        with open(path, "rb") as file:
            file.seek(4)
            empty = file.read(4) == bytes(4)
        if not empty:
            with tifffile.TiffFile(path) as tiff:
                assert all(page.bitspersample == np.dtype(of.dtype).itemsize * 8 for page in tiff.pages)
                found += [page.asarray().tobytes() for page in tiff.pages]
    assert sorted(found) == sorted(plane(of, at).tobytes() for at in there)


@pytest.mark.parametrize("kind", KINDS)
def test_planes_in_any_order_from_several_threads(kind, tmp_path):
    of = plan(**KINDS[kind])
    image = NDTiffImage(tmp_path, of, disk := Disk())
    image.create()
    check(tmp_path, of, [], ended=False)
    there = [at for at in places(of, 9) if (at.t * 7 + at.c + at.z) % 5]  # some are never written
    random.Random(kind).shuffle(there)
    with ThreadPoolExecutor(3) as threads:
        wheres = list(threads.map(lambda at: image.put(at, plane(of, at), at.t * 0.5), there))
    assert {where.file for where in wheres} == {f"{of.name}.ndtiff/NDTiffStack.tif"}
    check(tmp_path, of, there, ended=False)  # it opens while it grows
    image.finish(ending(of, 9))
    disk.commit()
    check(tmp_path, of, there)


@pytest.mark.parametrize("kind", KINDS)
def test_what_micro_manager_asks_for(kind, tmp_path):
    # Its reader takes whole numbers along all axes, and looks for all of AxisOrder in each plane.
    of = plan(**KINDS[kind])
    image = NDTiffImage(tmp_path, of, disk := Disk())
    image.create()
    for at in places(of, 2):
        image.put(at, plane(of, at), at.t * 0.5)
    image.finish(ending(of, 2))
    disk.commit()
    with opened(tmp_path, of) as data:
        told = data.summary_metadata
        for key in data.index:
            assert {name for name, _ in key} == set(told["AxisOrder"])
            assert all(type(value) is int for _, value in key)
        assert told["ChNames"] == list(of.channels)
        assert told["IntendedDimensions"]["time"] == 2
        assert told["Interval_ms"] == 500.0
        assert told["pellucid"]["details"] == {"objective": "60x oil"}
        assert told["pellucid"]["more"] == "known"
        metadata = data.read_metadata(**axes(of, places(of, 2)[-1]))
        assert metadata["ElapsedTime-ms"] == 500.0
        assert metadata["Camera"] == "Andor"
        assert metadata["Channel"] == of.channels[-1]
        first = data.read_metadata(**axes(of, At(0, 0, 0)))
        assert first["Exposure-ms"] == 20.0
        assert data.index[frozenset(axes(of, At(0, 0, 0)).items())].get_bit_depth() == (
            8 if of.dtype == "uint8" else 12
        )


def test_every_file_is_known_to_the_next_commit(tmp_path):
    image = NDTiffImage(tmp_path, plan(), disk := Disk())
    image.create()
    disk.commit()
    assert disk.uncommitted == 0
    image.put(At(0, 0, 0), plane(plan(), At(0, 0, 0)), 0.0)
    assert disk.uncommitted == 2
    image.abandon()
    image.abandon()
    with pytest.raises(OSError, match="closed"):
        image.put(At(0, 1, 0), plane(plan(), At(0, 1, 0)), 0.0)


def test_a_file_that_is_full_is_followed_by_the_next(tmp_path):
    of = plan()
    image = NDTiffImage(tmp_path, of, Disk())
    image.create()
    wheres = []
    for at in places(of, 6):
        wheres.append((at, image.put(at, plane(of, at), at.t * 0.5)))
        if at.t in (1, 3):
            image._file.length = (1 << 32) - 5_000_000  # so much ndstorage leaves free
    image.abandon()
    names = [Path(where.file).name for _, where in wheres]
    assert names == ["NDTiffStack.tif"] * 2 + ["NDTiffStack_1.tif"] * 2 + ["NDTiffStack_2.tif"] * 2
    for path in (tmp_path / "raw.ndtiff").glob("*.tif"):
        assert path.stat().st_size < 1 << 20
    late = At(0, 7, 0)
    kept = end(tmp_path, of, [plane for plane in wheres if plane[0].t not in (2, 3)], [late])
    check(tmp_path, of, kept)


class Full(Disk):
    """Takes no more than so many bytes."""

    room = 1 << 40

    def _write(self, handle, data, at):
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)
        return super()._write(handle, data, at)


@pytest.mark.parametrize("room", [0, 100, 200, 900, 1200])
def test_a_plane_that_the_disk_did_not_take_is_written_over_by_the_next(room, tmp_path):
    of = plan()
    image = NDTiffImage(tmp_path, of, disk := Full())
    image.create()
    there = [At(0, 0, 0), At(0, 2, 0)]
    image.put(there[0], plane(of, there[0]), 0.0)
    disk.room = room
    with pytest.raises(OSError, match="No space"):
        image.put(At(0, 1, 0), plane(of, At(0, 1, 0)), 0.5)
    disk.room = 1 << 40
    image.put(there[1], plane(of, there[1]), 1.0)
    image.finish(ending(of, 3))
    check_index(tmp_path, of, there)


def check_index(folder: Path, of: Plan, there) -> None:
    with opened(folder, of) as data:
        assert len(data.index) == len(there)
        for at in there:
            np.testing.assert_array_equal(data.read_image(**axes(of, at)), plane(of, at))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"dtype": "float32"}, 'uint8 or uint16, these planes are float32. Give the stage output = "uint16"'),
        ({"dtype": "int16"}, "these planes are int16"),
        ({"compression": "zstd"}, "is not compressed"),
        ({"size": (1 << 16, 1 << 16)}, "below 2 GiB"),
    ],
)
def test_what_an_ndtiff_cannot_hold_is_refused(keys, words, tmp_path):
    with pytest.raises(SinkError, match=words):
        NDTiffImage(tmp_path, plan(**keys), Disk())


# ---------------------------------------------------------------- recovery


def end(folder: Path, of: Plan, wheres, more=()) -> list[At]:
    """Do what a recovery does; return the planes that it kept."""
    image = NDTiffImage(folder, of, disk := Disk())
    image.reopen()
    good = []
    for at, where in wheres:
        found = image.read(at, where)
        if found is not None and np.array_equal(found, plane(of, at)):
            good.append((at, where))
    image.keep(good)
    kept = [at for at, _ in good]
    for at in more:
        image.put(at, plane(of, at), at.t * 0.5)
    kept += more
    image.finish(ending(of, max([at.t + 1 for at in kept], default=1)))
    disk.commit()
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_were_cut_anywhere(kind, tmp_path):
    of = plan(**KINDS[kind])
    chance = random.Random(kind)
    image = NDTiffImage(tmp_path, of, Disk())
    image.create()
    wheres = [(at, image.put(at, plane(of, at), at.t * 0.5)) for at in places(of, 4)]
    image.abandon()
    stack, index = image.path / "NDTiffStack.tif", image.path / "NDTiff.index"
    whole, rows = stack.read_bytes(), index.read_bytes()
    last = wheres[-1][1]
    cuts = [0, 7, 30, last.offset + last.nbytes, last.offset + last.nbytes + 9, len(whole)]
    for cut in [*cuts, *(chance.randrange(len(whole)) for _ in range(5))]:
        stack.write_bytes(whole[:cut])
        index.write_bytes(rows[: chance.randrange(len(rows))])
        for _ in range(2):
            kept = end(tmp_path, of, wheres)
            assert len(kept) == sum(where.offset + where.nbytes <= cut for _, where in wheres)
            check(tmp_path, of, kept)
        check(tmp_path, of, end(tmp_path, of, wheres, [At(0, 9, 0)]))
    stack.unlink()
    index.unlink()
    assert end(tmp_path, of, wheres) == []
    check(tmp_path, of, [])


@pytest.mark.parametrize("torn", ["header", "directory", "pixels", "metadata", "all of it"])
def test_what_a_power_cut_filled_with_zeros(torn, tmp_path):
    of = plan(channels=("GFP", "RFP"))
    image = NDTiffImage(tmp_path, of, Disk())
    image.create()
    wheres = [(at, image.put(at, plane(of, at), at.t * 0.5)) for at in places(of, 4)]
    image.abandon()
    where = wheres[3][1]
    begin, end_ = {
        "header": (0, 1000),
        "directory": (where.offset - 178, where.offset),
        "pixels": (where.offset, where.offset + 100),
        "metadata": (where.offset + where.nbytes, where.offset + where.nbytes + 50),
        "all of it": (0, wheres[4][1].offset - 178),
    }[torn]
    with open(tmp_path / where.file, "r+b") as file:
        file.seek(begin)
        file.write(bytes(end_ - begin))
    kept = end(tmp_path, of, wheres, [At(0, 4, 0)])
    assert len(kept) == {"pixels": 8, "all of it": 5}.get(torn, 9)
    check(tmp_path, of, kept)


PUTS = """
import sys, numpy as np
from pathlib import Path
from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Plan
from pellucid.recording.ndtiff_image import NDTiffImage
of = Plan(**eval(sys.argv[2]))
image = NDTiffImage(Path(sys.argv[1]), of, Disk())
image.create()
for t in range(1_000_000):
    for c in range(2):
        rng = np.random.default_rng([0, t, c, 0])
        where = image.put(At(0, t, c), (rng.integers(1, 200, of.size) + t).astype(of.dtype), t * 0.5)
        print(t, c, where.file, where.offset, where.nbytes, flush=True)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.2])
def test_a_process_that_is_killed_loses_nothing_that_was_put(after_s, tmp_path):
    of = plan(channels=("GFP", "RFP"))
    keys = {"plane": "raw", "name": "raw", "dtype": of.dtype, "size": of.size, "channels": of.channels, "pixel_um": 0.1}
    line = [sys.executable, "-c", PUTS, str(tmp_path), repr(keys)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        said = (first + process.stdout.read()).splitlines(keepends=True)
    rows = [row.split() for row in said if row.endswith("\n")]
    wheres = [(At(0, int(t), int(c)), Where(file, int(at), int(n))) for t, c, file, at, n in rows]
    assert wheres
    kept = end(tmp_path, of, wheres)
    assert len(kept) == len(wheres)
    check(tmp_path, of, kept)
