"""OME-TIFF images: written in any order, read by programs of others, and what recovery makes of what a kill left."""

from __future__ import annotations

import errno
import json
import random
import shutil
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile

from pellucid.errors import SinkError
from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Ending, Plan, Stamp, Where
from pellucid.recording.tiff_image import TiffImage
from pellucid.recording.tiff_tail import EMPTY, header, is_big, tail

VALIDATE = bool(find_spec("lxml") or find_spec("xmlschema"))
"""Against the schema itself; without these packages ome-types looks at the types alone."""
FACTS = {
    "camera": "Cam\0era",
    "version": "1.2",
    "bit_depth": 8,
    "config_sha256": "ab" * 32,
    "details": {"objective": "Plan Apo 60x <oil>", "objective_na": "1.4", "binning": "2", "device": "Demo DCam"},
}


def plan(**keys) -> Plan:
    some = {"plane": "raw", "name": "raw", "dtype": "uint16", "size": (16, 24), "channels": ("GFP",), "facts": FACTS}
    return Plan(**{**some, "pixel_um": 0.1, "exposure_ms": (20.0,), **keys})


def plane(of: Plan, at: At) -> np.ndarray:
    rng = np.random.default_rng([at.p, at.t, at.c, at.z])
    return (rng.integers(1, 120, of.size) + at.t).astype(of.dtype)


def places(of: Plan, times: int) -> list[At]:
    return [
        At(p, t, c, z)
        for t in range(times)
        for p in range(max(len(of.positions), 1))
        for c in range(len(of.channels))
        for z in range(of.depth or 1)
    ]


def ending(of: Plan, times: int, there, **keys) -> Ending:
    stamps = [Stamp(at, at.t * 0.5, i) for i, at in enumerate(there)]
    groups = [{"position": {"x_um": 10.0 * p, "y_um": -1.5}} for p in range(max(len(of.positions), 1))]
    lengths = [times] * max(len(of.positions), 1)
    return Ending(lengths, 0.5, "2026-11-23T15:40:00.5+01:00", stamps, groups, **keys)


def check(path: Path, of: Plan, times: int, there) -> None:
    """Look at every plane with tifffile."""
    with tifffile.TiffFile(path) as file:
        assert len(file.series) == max(len(of.positions), 1)
        shape = (times, len(of.channels), of.depth or 1, *of.size)
        pixels = [series.asarray().reshape(shape) for series in file.series]
    assert all(found.dtype == of.dtype for found in pixels)
    for at in places(of, times):
        want = plane(of, at) if at in there else 0
        np.testing.assert_array_equal(pixels[at.p][at.t, at.c, at.z], want)


KINDS = {
    "uint8": {"dtype": "uint8"},
    "uint16": {},
    "int16": {"dtype": "int16"},
    "uint32": {"dtype": "uint32"},
    "float32": {"dtype": "float32", "plane": "restored"},
    "stacks": {"depth": 3, "channels": ("GFP", "RFP"), "z_um": 0.3},
    "positions": {"positions": ("left", "right"), "channels": ("GFP", "RFP"), "time_points": 2},
    "colours": {"channels": ("R", "G", "B"), "is_colour": True, "dtype": "uint8"},
    "zstd": {"compression": "zstd", "depth": 2},
    "zstd, float32": {"compression": "zstd", "dtype": "float32", "positions": ("a", "b")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_planes_in_any_order_from_several_threads(kind, tmp_path):
    of = plan(**KINDS[kind])
    image = TiffImage(tmp_path, of, disk := Disk())
    image.create()
    there = [at for at in places(of, 9) if (at.t * 7 + at.c + at.z) % 5]  # some are never written
    random.Random(kind).shuffle(there)
    with ThreadPoolExecutor(3) as threads:
        wheres = dict(zip(there, threads.map(lambda at: image.put(at, plane(of, at), 0.0), there), strict=True))
    for at, where in wheres.items():
        assert where.file == "raw.ome.tif"
        assert where.offset % 4096 == 0
        np.testing.assert_array_equal(image.read(at, where), plane(of, at))
    image.finish(ending(of, 10, there))
    disk.commit()
    check(image.path, of, 10, there)


@pytest.mark.parametrize("kind", KINDS)
def test_its_description_is_valid_and_says_what_is_known(kind, tmp_path):
    of = plan(**KINDS[kind])
    image = TiffImage(tmp_path, of, disk := Disk())
    image.create()
    there = places(of, 3)[1:]
    for at in there:
        image.put(at, plane(of, at), 0.0)
    image.finish(ending(of, 3, there, facts={"channels": [{"name": "GFP"}]}))
    disk.commit()
    with tifffile.TiffFile(image.path) as file:
        text = file.ome_metadata
    told = ome_types.from_xml(text, validate=VALIDATE)
    assert [each.name for each in told.images] == list(of.positions or ["raw"])
    pixels = told.images[0].pixels
    assert (pixels.physical_size_x, pixels.physical_size_x_unit.value) == (0.1, "µm")
    assert pixels.physical_size_z == of.z_um
    assert pixels.time_increment == 0.5
    assert pixels.significant_bits == (8 if of.dtype[0] == "u" else None)
    assert [channel.name for channel in pixels.channels] == list(of.channels)
    assert pixels.channels[0].detector_settings.binning.value == "2x2"
    if of.is_colour:
        assert [channel.color.as_rgb_tuple() for channel in pixels.channels] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert {(each.the_t, each.the_c, each.the_z) for each in pixels.planes} == {
        (at.t, at.c, at.z) for at in there if at.p == 0
    }
    last = pixels.planes[-1]
    assert last.delta_t == 1.0
    assert pixels.planes[0].exposure_time == (0.02 if pixels.planes[0].the_c == 0 or of.is_colour else None)
    assert told.images[0].acquisition_date.isoformat() == "2026-11-23T14:40:00.500000+00:00"
    assert (told.images[-1].stage_label.x, told.images[0].stage_label.y) == (10.0 * (len(told.images) - 1), -1.5)
    objective = told.instruments[0].objectives[0]
    assert (objective.model, objective.lens_na) == ("Plan Apo 60x <oil>", 1.4)
    assert told.instruments[0].detectors[0].model == "Cam\ufffdera"
    kept = {each.k: each.value for each in told.structured_annotations[0].value.ms}
    assert kept["config_sha256"] == "ab" * 32
    assert json.loads(kept["channels"]) == [{"name": "GFP"}]


def test_an_image_without_any_facts_and_without_planes(tmp_path):
    of = Plan("raw", "part-0001/raw", "uint16", (4, 4), ("GFP",))
    image = TiffImage(tmp_path, of, disk := Disk())
    image.create()
    image.finish(Ending([1]))
    disk.commit()
    assert image.path == tmp_path / "part-0001/raw.ome.tif"
    assert not tifffile.imread(image.path).any()
    with tifffile.TiffFile(image.path) as file:
        assert ome_types.from_xml(file.ome_metadata, validate=VALIDATE).images[0].name == "raw"


def test_more_than_was_planned(tmp_path):
    of = plan()
    image = TiffImage(tmp_path, of, disk := Disk())
    image.create()
    image.put(At(0, 3, 1, 0), plane(of, At(0, 3, 1, 0)), 0.0)
    image.finish(Ending([1]))
    disk.commit()
    pixels = tifffile.imread(image.path)
    assert pixels.shape == (4, 2, 16, 24)
    np.testing.assert_array_equal(pixels[3, 1], plane(of, At(0, 3, 1, 0)))
    assert pixels[:3].sum() == 0


# ---------------------------------------------------------------- classic and BigTIFF


def test_ten_thousand_planes_in_a_classic_tiff(tmp_path):
    of = plan(size=(4, 4))
    image = TiffImage(tmp_path, of, Disk())
    image.create()
    there = places(of, 10_000)
    for at in there:
        image.put(at, np.full((4, 4), at.t, np.uint16), 0.0)
    begun = time.perf_counter()
    image.finish(ending(of, 10_000, there))
    assert time.perf_counter() - begun < 20  # 0.2 on a quiet machine
    with tifffile.TiffFile(image.path) as file:
        assert not file.is_bigtiff
        np.testing.assert_array_equal(file.asarray()[:, 0, 0], range(10_000))


def test_beyond_4_gib_it_is_a_bigtiff(tmp_path):
    of = plan()
    planes = [plane(of, At(0, t, 0)) for t in range(3)]
    strips = np.array([[4096 + i * 4096, of.nbytes] for i in range(3)])
    data, first = tail(of, strips, b"<OME/>", 4 * 4096, True)
    body = b"".join(each.tobytes().ljust(4096, b"\0") for each in planes)
    (tmp_path / "big.tif").write_bytes(header(first, True).ljust(4096, b"\0") + body + data)
    with tifffile.TiffFile(tmp_path / "big.tif") as file:
        assert file.is_bigtiff
        assert [page.tags["ImageWidth"].value for page in file.pages] == [24] * 3
        assert file.pages[1].tags["XResolution"].value == (100_000_000, 1000)
        for page, want in zip(file.pages, planes, strict=True):
            np.testing.assert_array_equal(page.asarray(), want)
    assert not is_big((1 << 32) - (1 << 20), 1000, b"")
    assert is_big((1 << 32) - (1 << 20), 10_000, b"")
    assert is_big(1 << 32, 1, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="a file with a hole takes its whole size there")
def test_planes_on_both_sides_of_4_gib(tmp_path):
    of = plan()
    image = TiffImage(tmp_path, of, disk := Disk())
    image.create()
    image.put(At(0, 0, 0), plane(of, At(0, 0, 0)), 0.0)
    image._file.length = (1 << 32) + 8192
    image.put(At(0, 1, 0), plane(of, At(0, 1, 0)), 0.0)
    image.finish(ending(of, 2, places(of, 2)))
    disk.commit()
    with tifffile.TiffFile(image.path) as file:
        assert file.is_bigtiff
    check(image.path, of, 2, places(of, 2))


# ---------------------------------------------------------------- order, faults


class Watched(Disk):
    """Notes in which order bytes and syncs go to the system."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, int]] = []
        self.fail_at: int | None = None

    def _write(self, handle, data, at):
        if self.fail_at is not None and at >= self.fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.done.append(("write", at))
        return super()._write(handle, data, at)

    def _sync(self, handle):
        self.done.append(("sync", -1))
        super()._sync(handle)


def test_the_pointer_is_written_when_all_it_points_to_is_on_the_disk(tmp_path):
    of = plan()
    image = TiffImage(tmp_path, of, disk := Watched())
    image.create()
    image.put(At(0, 0, 0), plane(of, At(0, 0, 0)), 0.0)
    disk.commit()
    assert image.path.read_bytes()[:16] == EMPTY
    disk.done.clear()
    image.finish(ending(of, 1, [At(0, 0, 0)]))
    kinds = [kind for kind, _ in disk.done]
    assert disk.done[-1] == ("write", 0)
    assert "sync" in kinds
    assert max(i for i, (kind, at) in enumerate(disk.done) if kind == "write" and at) < kinds.index("sync")


def test_a_full_disk_in_the_end_and_in_recovery(tmp_path):
    of = plan()
    there = places(of, 4)
    image = TiffImage(tmp_path, of, disk := Watched())
    image.create()
    wheres = [(at, image.put(at, plane(of, at), 0.0)) for at in there]
    disk.fail_at = 5 * 4096
    with pytest.raises(OSError, match="No space"):
        image.finish(ending(of, 4, there))
    image.abandon()
    with pytest.raises(OSError, match="closed"):
        image.put(At(0, 9, 0), plane(of, there[0]), 0.0)
    assert image.path.read_bytes()[:16] == EMPTY
    end(tmp_path, of, wheres)
    again = TiffImage(tmp_path, of, disk := Watched())
    again.reopen()
    again.keep(wheres)
    disk.fail_at = 5 * 4096
    with pytest.raises(OSError, match="No space"):
        again.finish(ending(of, 4, there))
    again.abandon()
    check(image.path, of, 4, there)  # a file that was whole stays so


@pytest.mark.parametrize(
    ("keys", "words"), [({"compression": "blosc-lz4"}, '"none", "zstd"'), ({"dtype": "int64"}, "cannot hold int64")]
)
def test_what_a_tiff_cannot_hold_is_refused(keys, words, tmp_path):
    with pytest.raises(SinkError, match=words):
        TiffImage(tmp_path, plan(**keys), Disk())


# ---------------------------------------------------------------- recovery


def end(folder: Path, of: Plan, wheres, more=()) -> list[At]:
    """Do what a recovery does; return the planes that it kept."""
    image = TiffImage(folder, of, disk := Disk())
    image.reopen()
    good = []
    for at, where in wheres:
        found = image.read(at, where)
        if found is not None and np.array_equal(found, plane(of, at)):
            good.append((at, where))
    image.keep(good)
    kept = [at for at, _ in good]
    for at in more:
        image.put(at, plane(of, at), 0.0)
    kept += more
    image.finish(ending(of, max([at.t + 1 for at in kept], default=1), kept))
    disk.commit()
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_cut_anywhere(kind, tmp_path):
    of = plan(**KINDS[kind])
    there = places(of, 4)
    chance = random.Random(kind)
    image = TiffImage(tmp_path, of, Disk())
    image.create()
    wheres = [(at, image.put(at, plane(of, at), 0.0)) for at in there]
    image.abandon()
    whole = image.path.read_bytes()
    for cut in [0, 7, 4096, 5000, len(whole), *(chance.randrange(len(whole)) for _ in range(5))]:
        image.path.write_bytes(whole[:cut])
        for _ in range(2):
            kept = end(tmp_path, of, wheres)
            assert len(kept) == sum(where.offset + where.nbytes <= cut for _, where in wheres)
            check(image.path, of, max([at.t + 1 for at in kept], default=1), kept)
    image.path.unlink()
    assert end(tmp_path, of, wheres) == []


def test_a_plane_with_other_pixels_is_left_out_and_late_ones_come_behind(tmp_path):
    of = plan(channels=("GFP", "RFP"))
    image = TiffImage(tmp_path, of, Disk())
    image.create()
    wheres = [(at, image.put(at, plane(of, at), 0.0)) for at in places(of, 5)]
    image.abandon()
    with open(image.path, "r+b") as file:
        file.seek(wheres[3][1].offset + 40)
        file.write(b"torn")
    kept = end(tmp_path, of, wheres, [wheres[3][0], At(0, 5, 0)])
    assert len(kept) == 11
    check(image.path, of, 6, kept)


PUTS = """
import sys, numpy as np
from pathlib import Path
from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Plan
from pellucid.recording.{module} import {name} as Image
image = Image(Path(sys.argv[1]), Plan(**eval(sys.argv[2])), Disk())
image.create()
for t in range(1_000_000):
    for c in range(2):
        of = image._plan
        rng = np.random.default_rng([0, t, c, 0])
        where = image.put(At(0, t, c), (rng.integers(1, 120, of.size) + t).astype(of.dtype), 0.0)
        print(t, c, where.file, where.offset, where.nbytes, flush=True)
"""


def killed(folder: Path, of: Plan, module: str, name: str, after_s: float) -> list[tuple[At, Where]]:
    """Let a process put planes, kill it, and return what it said was written."""
    keys = {"plane": "raw", "name": of.name, "dtype": of.dtype, "size": of.size, "channels": of.channels}
    line = [sys.executable, "-c", PUTS.format(module=module, name=name), str(folder), repr(keys)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        said = (first + process.stdout.read()).splitlines(keepends=True)
    rows = [row.split() for row in said if row.endswith("\n")]
    return [(At(0, int(t), int(c)), Where(file, int(at), int(n))) for t, c, file, at, n in rows]


@pytest.mark.parametrize("after_s", [0.0, 0.03, 0.11, 0.3])
def test_a_process_that_is_killed_loses_nothing_that_was_put(after_s, tmp_path):
    of = plan(channels=("GFP", "RFP"), size=(64, 48))
    wheres = killed(tmp_path, of, "tiff_image", "TiffImage", after_s)
    assert wheres
    kept = end(tmp_path, of, wheres)
    assert len(kept) == len(wheres)
    check(tmp_path / "raw.ome.tif", of, kept[-1].t + 1, kept)


# ---------------------------------------------------------------- programs of others


def made(folder: Path, of: Plan, times: int = 3) -> list[At]:
    image = TiffImage(folder, of, disk := Disk())
    image.create()
    there = [at for at in places(of, times) if (at.t, at.c) != (1, 0)]
    for at in there:
        image.put(at, plane(of, at), 0.0)
    image.finish(ending(of, times, there))
    disk.commit()
    return there


@pytest.mark.parametrize("reader", ["bioio_ome_tiff", "bioio_tifffile"])
def test_bioio_opens_all_positions_as_scenes(reader, tmp_path):
    pytest.importorskip(reader, reason=f"{reader} is not installed: pip install {reader.replace('_', '-')}")
    of = plan(positions=("left", "right"), channels=("GFP", "RFP"), depth=2, z_um=0.3)
    there = made(tmp_path, of)
    script = """
import json, sys, importlib, numpy as np
from bioio import BioImage
image = BioImage(sys.argv[1], reader=importlib.import_module(sys.argv[2]).Reader)
out = []
for scene in image.scenes:
    image.set_scene(scene)
    size = image.physical_pixel_sizes
    data = image.get_image_data("TCZYX").astype(int)
    names = [str(n) for n in image.channel_names]
    out.append([data.shape, names, [size.Z, size.Y, size.X], data.sum((-1, -2)).tolist()])
print(json.dumps(out))
"""
    line = [sys.executable, "-c", script, str(tmp_path / "raw.ome.tif"), reader]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told) == 2
    for p, (shape, names, size, sums) in enumerate(told):
        assert shape == [3, 2, 2, 16, 24]
        if reader == "bioio_ome_tiff":
            assert names == ["GFP", "RFP"]
            assert size == [0.3, 0.1, 0.1]
        want = np.zeros((3, 2, 2), int)
        for at in there:
            if at.p == p:
                want[at.t, at.c, at.z] = plane(of, at).astype(int).sum()
        assert sums == want.tolist()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_imagej_without_any_plugin_sees_every_plane(dtype, tmp_path):
    jar = Path("/usr/share/java/ij.jar")
    if shutil.which("java") is None or not jar.is_file():
        pytest.skip("ImageJ is not installed: apt-get install imagej")
    of = plan(dtype=dtype, channels=("GFP", "RFP"))
    there = made(tmp_path, of)
    # `open` wants menus, which need a screen.
    macro = tmp_path / "look.ijm"
    macro.write_text(
        f'setBatchMode(true); call("ij.IJ.runPlugIn", "ij.plugin.FileInfoVirtualStack", "{tmp_path / "raw.ome.tif"}");'
        "for (i = 1; i <= nSlices; i++) { setSlice(i); getRawStatistics(n, mean, min, max);"
        'print("slice", getWidth(), getHeight(), n, mean, min, max, getPixel(5, 3)); }'
    )
    line = ["java", "-Djava.awt.headless=true", f"-Duser.home={tmp_path}", "-cp", str(jar), "ij.ImageJ", "-batch"]
    done = subprocess.run([*line, str(macro)], capture_output=True, text=True, check=False, timeout=60)
    told = [row.split()[1:] for row in done.stdout.splitlines() if row.startswith("slice")]
    assert len(told) == 6, done.stdout + done.stderr
    for at, row in zip(places(of, 3), told, strict=True):
        want = plane(of, at).astype(float) if at in there else np.zeros(of.size)
        numbers = [24, 16, 384, want.mean(), want.min(), want.max(), want[3, 5]]
        np.testing.assert_allclose([float(n) for n in row], numbers, atol=1e-3)


def test_an_unfinished_file_is_no_picture(tmp_path):
    of = plan()
    image = TiffImage(tmp_path, of, Disk())
    image.create()
    image.put(At(0, 0, 0), plane(of, At(0, 0, 0)), 0.0)
    image.abandon()
    image.abandon()
    assert struct.unpack("<2sHHHQ", image.path.read_bytes()[:16]) == (b"II", 43, 8, 0, 0)
