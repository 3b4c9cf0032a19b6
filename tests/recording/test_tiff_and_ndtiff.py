"""OME-TIFF and NDTiff: read by tifffile, ome-types and ndstorage; what a kill leaves of them, and recovery."""

from __future__ import annotations

import contextlib
import io
import warnings

import ndstorage
import numpy as np
import ome_types
import pytest
import tifffile

from pellucid.errors import SinkError
from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Ending, Plan, Stamp
from pellucid.recording.journal import checksum
from pellucid.recording.ndtiff_image import NDTiffImage
from pellucid.recording.tiff_image import TiffImage

FACTS = {"camera": "Andor", "version": "9", "bit_depth": 12, "details": {"objective": "60x oil", "objective_na": 1.4}}


def plan(**keys) -> Plan:
    some = {"plane": "raw", "name": "raw", "dtype": "uint16", "size": (24, 32), "channels": ("GFP",), "facts": FACTS}
    return Plan(**{**some, "pixel_um": 0.1, "exposure_ms": (20.0,), **keys})


KINDS = {
    "time": {},
    "8 bit": {"dtype": "uint8"},
    "signed": {"dtype": "int16"},
    "32 bit": {"dtype": "uint32"},
    "float": {"dtype": "float32"},
    "stacks": {"depth": 3, "channels": ("GFP", "RFP"), "z_um": 0.3},
    "positions": {"positions": ("left", "right"), "time_points": 2},
    "colours": {"channels": ("R", "G", "B"), "is_colour": True, "dtype": "uint8"},
}
IN_NDTIFF = [kind for kind, keys in KINDS.items() if keys.get("dtype", "uint16") in ("uint8", "uint16")]


def places(of: Plan, times: int = 5) -> list[At]:
    return [
        At(p, t, c, z)
        for t in range(times)
        for p in range(max(len(of.positions), 1))
        for c in range(len(of.channels))
        for z in range(of.depth or 1)
    ]


def plane(of: Plan, at: At) -> np.ndarray:
    return np.random.default_rng(list(at)).integers(1, 250, of.size).astype(of.dtype)


def ending(of: Plan, times: int, there: list[At]) -> Ending:
    stamps = [Stamp(at, at.t * 0.5, i) for i, at in enumerate(there)]
    return Ending([times] * max(len(of.positions), 1), 0.5, "2026-11-23T10:00:00+00:00", stamps)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiff_is_what_others_expect(kind, tmp_path):
    of = plan(**KINDS[kind])
    image = TiffImage(tmp_path, of, disk := Disk())
    image.create()
    there = [at for at in places(of) if (at.t, at.c, at.z) != (2, 0, 0)]
    for at in reversed(there):
        image.put(at, plane(of, at), 0.0)
    image.finish(ending(of, 6, there))
    disk.commit()
    with tifffile.TiffFile(tmp_path / "raw.ome.tif") as file:
        assert file.is_ome
        assert not file.is_bigtiff  # it fits into 4 GiB: every program reads it
        assert len(file.series) == max(len(of.positions), 1)
        for p, series in enumerate(file.series):
            pixels = series.asarray().reshape(6, len(of.channels), of.depth or 1, *of.size)
            assert pixels.dtype == of.dtype
            for at in places(of, 6):
                want = plane(of, at) if at in there else 0
                if at.p == p:
                    np.testing.assert_array_equal(pixels[at.t, at.c, at.z], want)
    told = ome_types.from_tiff(tmp_path / "raw.ome.tif")
    assert len(told.images) == max(len(of.positions), 1)
    pixels = told.images[0].pixels
    assert [channel.name for channel in pixels.channels] == list(of.channels)
    assert pixels.physical_size_x == 0.1
    assert pixels.physical_size_x_unit.value == "µm"
    assert pixels.time_increment == 0.5
    assert told.instruments[0].objectives[0].lens_na == 1.4
    assert told.instruments[0].detectors[0].model == "Andor"
    first = pixels.planes[0]
    assert (first.delta_t, first.exposure_time) == (0.0, 0.02)
    assert len(pixels.planes) == sum(at.p == 0 for at in there)
    assert told.images[0].acquisition_date.year == 2026
    if of.depth:
        assert pixels.physical_size_z == 0.3
    if of.is_colour:
        assert pixels.channels[0].color.as_rgb_tuple() == (255, 0, 0)


@pytest.mark.parametrize("kind", IN_NDTIFF)
def test_an_ndtiff_is_what_micro_manager_expects(kind, tmp_path):
    of = plan(**KINDS[kind])
    image = NDTiffImage(tmp_path, of, disk := Disk())
    image.create()
    there = [at for at in places(of) if (at.t, at.c, at.z) != (2, 0, 0)]
    for at in there:
        image.put(at, plane(of, at), at.t * 0.5)
    image.finish(ending(of, 5, there))
    disk.commit()
    check_ndtiff(tmp_path, of, there)
    with tifffile.TiffFile(tmp_path / "raw.ndtiff/NDTiffStack.tif") as file:
        assert file.pages[0].bitspersample == np.dtype(of.dtype).itemsize * 8
        np.testing.assert_array_equal(file.pages[1].asarray(), plane(of, there[1]))


def check_ndtiff(folder, of: Plan, there: list[At]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        data = ndstorage.Dataset(str(folder / "raw.ndtiff"))
    try:
        assert len(data.index) == len(there)
        for at in there:
            axes = {"time": at.t, "channel": at.c}
            axes |= {"z": at.z} if of.depth else {}
            axes |= {"position": at.p} if of.positions else {}
            np.testing.assert_array_equal(data.read_image(**axes), plane(of, at))
            metadata = data.read_metadata(**axes)
            assert metadata.get("ElapsedTime-ms", at.t * 500) == at.t * 500
            assert metadata["PixelSizeUm"] == 0.1
        assert not there or data.summary_metadata["PixelSize_um"] == 0.1
    finally:
        data.close()


@pytest.mark.parametrize("cut", [0, 1, 700, 5000])
@pytest.mark.parametrize("kind", ["time", "stacks", "positions", "8 bit"])
@pytest.mark.parametrize("make", [TiffImage, NDTiffImage])
def test_what_a_kill_leaves_is_ended_with_what_is_whole(make, kind, cut, tmp_path):
    of = plan(**KINDS[kind])
    image = make(tmp_path, of, Disk())
    image.create()
    there = places(of)
    wheres = {at: image.put(at, plane(of, at), at.t * 0.5) for at in there}
    image.abandon()
    file = tmp_path / wheres[there[-1]].file
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - cut])
    for _ in range(2):  # and again, as if recovery had been killed before it was noted
        again = make(tmp_path, of, disk := Disk())
        again.reopen()
        good = [at for at in there if _right(again.read(at, wheres[at]), plane(of, at))]
        assert len(good) >= len(there) - 1 - cut // (24 * 32)
        again.keep([(at, wheres[at]) for at in good])
        again.finish(ending(of, 5, good))
        disk.commit()
        if make is NDTiffImage:
            check_ndtiff(tmp_path, of, good)
        else:
            check_tiff(tmp_path, of, good)
    more = make(tmp_path, of, disk := Disk())
    more.reopen()
    more.keep([(at, wheres[at]) for at in good])
    late = At(0, 5, 0)
    more.put(late, plane(of, late), 2.5)
    more.finish(ending(of, 6, [*good, late]))
    disk.commit()
    (check_ndtiff if make is NDTiffImage else check_tiff)(tmp_path, of, [*good, late])


def check_tiff(folder, of: Plan, there: list[At]) -> None:
    with tifffile.TiffFile(folder / "raw.ome.tif") as file:
        for at in there:
            series = file.series[at.p]
            pixels = series.asarray().reshape(-1, len(of.channels), of.depth or 1, *of.size)
            np.testing.assert_array_equal(pixels[at.t, at.c, at.z], plane(of, at))


def _right(found: np.ndarray | None, want: np.ndarray) -> bool:
    return found is not None and checksum(found) == checksum(want)


def test_many_planes_are_ended_at_once_and_what_cannot_be_is_said(tmp_path):
    of = plan(size=(4, 4))
    image = TiffImage(tmp_path, of, disk := Disk())
    image.create()
    there = places(of, 10_000)
    for at in there:
        image.put(at, np.full((4, 4), at.t, np.uint16), 0.0)
    image.finish(ending(of, 10_000, there))
    disk.commit()
    with warnings.catch_warnings():
        pixels = tifffile.imread(tmp_path / "raw.ome.tif")
    np.testing.assert_array_equal(pixels[:, 0, 0], range(10_000))
    with pytest.raises(SinkError, match='Give the stage output = "uint16"'):
        NDTiffImage(tmp_path, plan(dtype="float32"), disk)
    with pytest.raises(SinkError, match="is not compressed"):
        NDTiffImage(tmp_path, plan(compression="zstd"), disk)


def test_a_file_that_is_full_is_followed_by_the_next(tmp_path, monkeypatch):
    import ndstorage.ndtiff_file as written

    monkeypatch.setattr(written, "MAX_FILE_SIZE", 5_000_000 + 8000)
    of = plan()
    image = NDTiffImage(tmp_path, of, disk := Disk())
    image.create()
    there = places(of, 20)
    for at in there:
        image.put(at, plane(of, at), at.t * 0.5)
    image.finish(ending(of, 20, there))
    disk.commit()
    assert len(list((tmp_path / "raw.ndtiff").glob("*.tif"))) > 3
    check_ndtiff(tmp_path, of, there)
