"""Recorded frames, compared with what independent readers give."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image

from pellucid.config import Config
from pellucid.errors import ConfigError, MissingExtra, PellucidError, SourceError
from pellucid.live import make_session
from pellucid.sources.replay import Replay
from pellucid.testing import check_source
from tests.sources.source_parts import Play, play

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RNG = np.random.default_rng(5)


def noise(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return RNG.normal(100, 30, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype=np.dtype(dtype).newbyteorder("="), endpoint=True)


def refused(path: Path, error: type[PellucidError] = SourceError, **keys) -> str:
    with pytest.raises(error) as caught:
        play(Replay(path=path, **keys))
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


def assert_one_line(error: Exception) -> None:
    assert "\n" not in str(error)
    assert str(error)


def real(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"real image {name} is not here: put it at {path}")
    return path


# -------------------------------------------------------------------- TIFF


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_plain_tiff_gives_its_pixels_in_either_byte_order(tmp_path, dtype, order):
    given = noise((7, 33, 20), dtype)
    tifffile.imwrite(tmp_path / "stack.tif", given, byteorder=order, photometric="minisblack", metadata=None)
    seen = play(Replay(path=tmp_path / "stack.tif"))
    (stream,) = seen.streams
    assert (stream.spec.shape, stream.spec.dtype, stream.frames) == ((33, 20), dtype, 7)
    assert seen.planes[0].dtype.isnative
    np.testing.assert_array_equal(seen.planes, given)
    assert seen.axes == [{"t": i} for i in range(7)]
    seen.explained()


def test_float64_becomes_float32(tmp_path):
    given = noise((3, 16, 16), "float64")
    tifffile.imwrite(tmp_path / "stack.tif", given, photometric="minisblack")
    seen = play(Replay(path=tmp_path / "stack.tif"))
    assert seen.streams[0].spec.dtype == "float32"
    np.testing.assert_array_equal(seen.planes, given.astype(np.float32))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"bigtiff": True},
        {"tile": (16, 16), "compression": "zlib", "byteorder": ">"},
    ],
)
def test_pages_may_be_compressed_or_in_pieces(tmp_path, options):
    given = noise((5, 48, 35), "uint16")
    tifffile.imwrite(tmp_path / "stack.tif", given, photometric="minisblack", **options)
    np.testing.assert_array_equal(play(Replay(path=tmp_path / "stack.tif")).planes, given)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_another_program_wrote_page_by_page(tmp_path, dtype):
    given = noise((4, 30, 41), dtype)
    pages = [Image.fromarray(plane) for plane in given]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(play(Replay(path=tmp_path / "pages.tif")).planes, given)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_imagej_hyperstack_gives_streams_axes_and_pixel_size(tmp_path, dtype):
    given = noise((3, 2, 4, 24, 30), dtype)  # t z c y x
    tifffile.imwrite(
        tmp_path / "hyper.tif",
        given,
        imagej=True,
        resolution=(1 / 0.065, 1 / 0.065),
        metadata={"axes": "TZCYX", "unit": "um"},
    )
    seen = play(Replay(path=tmp_path / "hyper.tif"))
    assert [s.index for s in seen.streams] == [0, 1, 2, 3]
    assert [s.frames for s in seen.streams] == [6] * 4
    assert seen.streams[0].pixel_um == pytest.approx(0.065, rel=1e-3)
    assert seen.axes == [{"t": t, "z": z, "c": c} for t in range(3) for z in range(2) for c in range(4)]
    for info, plane in zip(seen.infos, seen.planes, strict=True):
        assert info.stream == info.axes["c"]
        np.testing.assert_array_equal(plane, given[info.axes["t"], info.axes["z"], info.axes["c"]])


@pytest.mark.parametrize("axes", ["TCZYX", "CTZYX", "ZCTYX", "CZYX", "TYX"])
def test_an_ome_tiff_is_played_in_the_order_of_an_experiment(tmp_path, axes):
    sizes = {"T": 3, "C": 2, "Z": 4, "Y": 18, "X": 22}
    given = noise(tuple(sizes[a] for a in axes), "uint16")
    metadata = {"axes": axes, "PhysicalSizeX": 108.0, "PhysicalSizeXUnit": "nm"}
    if "C" in axes:
        metadata["Channel"] = {"Name": ["DAPI", "GFP"]}
    tifffile.imwrite(tmp_path / "image.ome.tif", given, photometric="minisblack", metadata=metadata)
    seen = play(Replay(path=tmp_path / "image.ome.tif"))
    assert seen.streams[0].pixel_um == pytest.approx(0.108)
    if "C" in axes:
        assert [s.channel for s in seen.streams] == ["DAPI", "GFP"]
    order = [[info.axes.get(a, 0) for a in "tzc"] for info in seen.infos]
    assert order == sorted(order)
    assert len(order) == given[..., 0, 0].size
    for info, plane in zip(seen.infos, seen.planes, strict=True):
        np.testing.assert_array_equal(plane, given[tuple(info.axes[a.lower()] for a in axes[:-2])])


def test_a_series_is_chosen_by_number_or_name(tmp_path):
    small, large = noise((2, 16, 16), "uint8"), noise((3, 32, 24), "uint16")
    with tifffile.TiffWriter(tmp_path / "two.ome.tif") as writer:
        writer.write(small, photometric="minisblack", metadata={"axes": "TYX", "Name": "small"})
        writer.write(large, photometric="minisblack", metadata={"axes": "TYX", "Name": "large"})
    path = tmp_path / "two.ome.tif"
    for keys, given in (({"dataset": 0}, small), ({"series": 1}, large), ({"dataset": "large"}, large)):
        np.testing.assert_array_equal(play(Replay(path=path, **keys)).planes, given)
    assert refused(path).endswith(
        'holds several images: 0 "small" (TYX 2x16x16), 1 "large" (TYX 3x32x24). Say which one: dataset = 0'
    )
    assert 'Did you mean "large"?' in refused(path, dataset="lage")
    assert "it has 2, counted from 0" in refused(path, series=2)


def test_a_plane_in_a_file_of_one_page(tmp_path):
    given = noise((40, 50), "uint16")
    tifffile.imwrite(tmp_path / "one.tif", given)
    seen = play(Replay(path=tmp_path / "one.tif", pixel_um=0.2))
    assert seen.streams[0].pixel_um == 0.2
    assert seen.streams[0].frames == 1
    np.testing.assert_array_equal(seen.planes, given[None])


# -------------------------------------------------------------------- OME-Zarr, NDTiff, a recording


def write_zarr(path: Path, given: np.ndarray, axes: str, version: int, **keys) -> None:
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=version)
    array = group.create_array("0", shape=given.shape, dtype=given.dtype, **keys)
    array[...] = given
    units = {"y": {"unit": "nanometer"}, "x": {"unit": "nanometer"}}
    scales = {
        "axes": [{"name": a, "type": "space", **units.get(a, {})} for a in axes],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * (len(axes) - 1) + [65.0]}]}
        ],
    }
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    if version == 2:
        group.attrs.update({"multiscales": [{**scales, "version": "0.4"}], "omero": omero})
    else:
        group.attrs.update({"ome": {"version": "0.5", "multiscales": [scales], "omero": omero}})


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("axes", "dtype", "keys"),
    [
        ("tcyx", "uint16", {"chunks": (1, 1, 20, 31)}),
        ("tczyx", "uint8", {"chunks": (2, 1, 2, 16, 16)}),
        ("tyx", "float32", {"chunks": (4, 9, 9)}),
        ("cyx", ">u2", {"chunks": (1, 20, 31)}),
    ],
)
def test_ome_zarr_of_both_versions(tmp_path, version, axes, dtype, keys):
    sizes = {"t": 5, "c": 2, "z": 3, "y": 20, "x": 31}
    native = np.dtype(dtype).newbyteorder("=").name
    given = noise(tuple(sizes[a] for a in axes), native)
    write_zarr(tmp_path / "a.ome.zarr", given.astype(dtype) if version == 2 else given, axes, version, **keys)
    seen = play(Replay(path=tmp_path / "a.ome.zarr"))
    assert seen.streams[0].pixel_um == pytest.approx(0.065)
    assert seen.streams[0].spec.dtype == native
    if "c" in axes:
        assert [s.channel for s in seen.streams] == ["DAPI", "GFP"]
    assert len(seen.infos) == given[..., 0, 0].size
    for info, plane in zip(seen.infos, seen.planes, strict=True):
        np.testing.assert_array_equal(plane, given[tuple(info.axes[a] for a in axes[:-2])])
    seen.explained()


def test_a_plain_zarr_array_and_one_of_several_images(tmp_path):
    import zarr

    given = noise((3, 12, 14), "uint16")
    zarr.open_array(tmp_path / "plain.zarr", mode="w", shape=given.shape, dtype="uint16")[...] = given
    np.testing.assert_array_equal(play(Replay(path=tmp_path / "plain.zarr")).planes, given)
    zarr.open_group(tmp_path / "series.zarr", mode="w", zarr_format=3)
    for name in ("0", "1"):
        write_zarr(tmp_path / "series.zarr" / name, given + int(name), "tyx", 3)
    assert 'dataset = "0"' in refused(tmp_path / "series.zarr")
    np.testing.assert_array_equal(play(Replay(path=tmp_path / "series.zarr", dataset="1")).planes, given + 1)
    assert "Its images: 0, 1" in refused(tmp_path / "series.zarr", dataset="7")


WRITE_NDTIFF = """
import sys
import numpy as np
from ndstorage import NDTiffDataset
given = np.load(sys.argv[1])
writer = NDTiffDataset(sys.argv[2], summary_metadata={"PixelSize_um": 0.11}, name="run", writable=True)
for t in range(given.shape[0]):
    for c, channel in enumerate(("DAPI", "GFP")):
        writer.put_image({"time": t, "channel": channel}, given[t, c], {"t": t})
writer.finish()
writer.close()
"""


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_ndtiff_in_the_order_of_acquisition(tmp_path, dtype):
    pytest.importorskip("ndstorage", reason="ndstorage is not installed: pip install pellucid[replay]")
    given = noise((4, 2, 26, 37), dtype)
    np.save(tmp_path / "given.npy", given)
    # In a process of its own: ndstorage's writer leaves files open, which would be a warning here.
    subprocess.run(
        [sys.executable, "-c", WRITE_NDTIFF, tmp_path / "given.npy", tmp_path], check=True, capture_output=True
    )
    (folder,) = (p.parent for p in tmp_path.rglob("NDTiff.index"))
    seen = play(Replay(path=folder))
    assert [s.channel for s in seen.streams] == ["DAPI", "GFP"]
    assert seen.streams[0].pixel_um == pytest.approx(0.11)
    assert seen.streams[0].spec.dtype == dtype
    assert [(i.axes["t"], i.stream) for i in seen.infos] == [(t, c) for t in range(4) for c in (0, 1)]
    for info, plane in zip(seen.infos, seen.planes, strict=True):
        np.testing.assert_array_equal(plane, given[info.axes["t"], info.stream])
    assert "leave out the key dataset" in refused(folder, dataset=1)
    # As after a full disk.
    (file,) = folder.glob("*.tif")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cut short" in refused(folder)
    file.unlink()
    refused(folder)


def test_a_recording_of_pellucid_can_be_replayed(tmp_path):
    import zarr

    path = (tmp_path / "rec").as_posix()
    source = '[source]\nkind = "simulated"\nshape = [48, 64]\nframes = 6\nfps = 500\non_full = "wait"\n'
    config = Config.parse(f'{source}[[sinks]]\nkind = "recorder"\npath = "{path}"\n')
    session = make_session(config)
    session.open()
    try:
        report = session.run()
    finally:
        session.close()
    assert report["frames"]["recorded"] == 6
    seen = play(Replay(path=tmp_path / "rec"))
    raw = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")[...].reshape(6, 48, 64)
    np.testing.assert_array_equal(seen.planes, raw)
    assert seen.streams[0].pixel_um == pytest.approx(0.1)
    assert [a["t"] for a in seen.axes] == list(range(6))
    # And it is what the camera gave.
    again = play(config.source)
    np.testing.assert_array_equal(again.planes, raw)


# -------------------------------------------------------------------- real images


@pytest.mark.parametrize(
    "name",
    [
        "pycudadecon/im_raw.tif",
        "pycudadecon/otf.tif",
        "flowdec/bars-25pct_data.tif",
        "sdeconv/celegans.tif",
        "sdeconv/pollen.tif",
        "bian/cancer_cell_migration_crop.tif",
        "bian/BPAE_actin.tif",
        "bian/blobs_stitching1_overlap40.tif",
        "em/25879a72_ml-1692841717_9807255_eb.tif",
        "live/thunder_mouse_gcamp_500x64x64_int16.tif",
        "raw16/lyso_1.tif",
        "stardist/img3d.tif",
    ],
)
def test_real_files_give_what_other_readers_give(name):
    path = real(name)
    seen = play(Replay(path=path))
    whole = tifffile.imread(path)
    np.testing.assert_array_equal(seen.planes, whole.reshape(-1, *whole.shape[-2:]))
    seen.explained()
    if whole.dtype != np.int16:  # Pillow takes it for unsigned
        with Image.open(path) as image:
            for at in {0, getattr(image, "n_frames", 1) - 1}:
                image.seek(at)
                np.testing.assert_array_equal(seen.planes[at], np.asarray(image))


def test_a_real_image_of_several_channels():
    path = real("bian/IXMtest_A02_s9.tif")
    seen = play(Replay(path=path))
    assert len(seen.streams) == 3
    assert [i.stream for i in seen.infos] == [0, 1, 2]
    np.testing.assert_array_equal(seen.planes, tifffile.imread(path))


def test_a_real_colour_picture_is_red_green_and_blue():
    path = real("bian/hela-cells.tif")
    seen, whole = play(Replay(path=path)), tifffile.imread(path)
    assert [stream.channel for stream in seen.streams] == ["R", "G", "B"]
    np.testing.assert_array_equal(np.stack(seen.planes), np.moveaxis(whole, -1, 0))


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"compression": "zlib"}])
@pytest.mark.parametrize("samples", [3, 4])
def test_colours_are_streams(tmp_path, options, samples):
    given = noise((4, 20, 31, samples), "uint16")
    planes = np.moveaxis(given, -1, 1)
    keys = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    of_file = planes if "planarconfig" in options else given
    tifffile.imwrite(tmp_path / "rgb.tif", of_file, photometric="rgb", **options, **keys)
    seen = play(Replay(path=tmp_path / "rgb.tif"))
    assert [(i.stream, i.axes["t"]) for i in seen.infos] == [(c, t) for t in range(4) for c in range(3)]
    np.testing.assert_array_equal(np.stack(seen.planes), planes[:, :3].reshape(-1, 20, 31))


# ---------------------------------------------------------------- folders of pictures


@pytest.mark.parametrize(
    ("end", "dtype"), [("png", "uint8"), ("png", "uint16"), ("tif", "float32"), ("tiff", "uint16")]
)
def test_a_folder_of_pictures_is_played_in_the_order_of_its_numbers(tmp_path, end, dtype):
    given = noise((12, 16, 23), "uint8").astype(dtype) * (3 if dtype != "uint8" else 1)
    for i, plane in enumerate(given):
        path = tmp_path / f"cell_{i + 1}.{end}"
        Image.fromarray(plane).save(path) if end == "png" else tifffile.imwrite(path, plane)
    (tmp_path / "notes.txt").write_text("not a picture")
    seen = play(Replay(path=tmp_path))
    assert [i.axes["t"] for i in seen.infos] == list(range(12))
    assert str(seen.streams[0].spec) == f"16x23 {dtype}"
    np.testing.assert_array_equal(np.stack(seen.planes), given)


def test_one_png_in_colour(tmp_path):
    given = noise((9, 11, 3), "uint8")
    Image.fromarray(given).save(tmp_path / "one.png")
    seen = play(Replay(path=tmp_path / "one.png"))
    assert [stream.channel for stream in seen.streams] == ["R", "G", "B"]
    np.testing.assert_array_equal(np.stack(seen.planes), np.moveaxis(given, -1, 0))


def test_pictures_that_are_not_alike_or_damaged_are_told(tmp_path):
    Image.fromarray(noise((9, 11), "uint8")).save(tmp_path / "a.png")
    Image.fromarray(noise((9, 12), "uint8")).save(tmp_path / "b.png")
    assert "b.png is 9x12 uint8, a.png is 9x11 uint8" in refused(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    assert "b.png cannot be read" in refused(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(SourceError, match=r"b\.png cannot be read") as caught:
        play(Replay(path=tmp_path))
    assert "\n" not in str(caught.value)


def test_real_noisy_frames_of_a_folder():
    folder = real("fmd/raw/Confocal_BPAE_B_1.png").parent
    seen = play(Replay(path=folder))
    assert len(seen.planes) == len(list(folder.glob("*.png")))
    assert str(seen.streams[0].spec) == "512x512 uint8"


# -------------------------------------------------------------------- pace


@pytest.fixture
def forty(tmp_path) -> Path:
    """Forty frames of 16 x 16 pixels, each holding its number."""
    given = np.broadcast_to(np.arange(40, dtype=np.uint16)[:, None, None], (40, 16, 16))
    tifffile.imwrite(tmp_path / "forty.tif", np.ascontiguousarray(given), photometric="minisblack")
    return tmp_path / "forty.tif"


@pytest.mark.parametrize("keys", [{}, {"fps": 500.0, "on_full": "wait"}, {"fps": 100.0}, {"loop": 2}])
def test_the_contract(forty, keys):
    seen = check_source(lambda: Replay(path=forty, **keys))
    assert seen.account.produced == len(seen.infos) + len(seen.account.numbers())


def test_a_source_that_waits_loses_nothing_to_a_slow_reader(forty):
    with Play(Replay(path=forty, fps=400.0, on_full="wait"), slots=2) as one:
        assert one.source.live is False
        one.source.read(0.0)
        time.sleep(0.1)
        one.offer_all().take(10, pause_s=0.02)
        one.take()
    one.explained()
    assert one.seqs == list(range(40))
    assert one.account.missed == []
    # The clock stood still while nobody took frames: no burst afterwards.
    times = np.array([info.camera_ns for info in one.infos])
    assert times[39] - times[10] > 0.9 * 29 * 2.5e6


def test_a_source_that_drops_leaves_out_exactly_what_was_due_without_a_slot(forty):
    period_ns = 5e6
    with Play(Replay(path=forty, fps=1e9 / period_ns), slots=40) as one:
        assert one.source.live is True
        assert one.source.read(0.0) is None  # starts the clock
        time.sleep(0.06)
        one.offer_all()
        one.take(give_back=False)
    one.explained()
    dropped = one.missed("dropped", "ring")
    assert dropped >= 12  # those of the first 60 ms
    assert one.account.missed[0][0] == 0
    assert set(one.account.numbers()) == set(range(dropped)), "once there were slots for all, none may be left out"
    assert [int(plane[0, 0]) for plane in one.planes] == one.seqs
    # camera_ns is the due time, so latencies count a late reader.
    for info in one.infos:
        assert info.camera_ns - one.infos[0].camera_ns == pytest.approx(
            (info.seq - one.infos[0].seq) * period_ns, abs=2
        )


def test_a_late_reader_loses_nothing_while_slots_lay_ready(forty):
    with Play(Replay(path=forty, fps=400.0), slots=40) as one:
        one.offer_all().take(1, give_back=False)
        time.sleep(0.2)  # all frames became due
        one.take(give_back=False)
    assert one.seqs == list(range(40))
    assert one.account.missed == []
    # The reader's delay is part of the latency.
    assert one.infos[1].received_ns - one.infos[1].camera_ns > 150e6


def test_without_a_rate_frames_come_as_fast_as_slots_are_offered(forty):
    with Play(Replay(path=forty), slots=1) as one:
        assert one.source.live is False
        one.offer_all().take()
    assert one.seqs == list(range(40))
    assert one.account.missed == []
    one.explained()


def test_a_loop_plays_the_file_again_and_time_goes_on(forty):
    seen = play(Replay(path=forty, loop=3))
    assert seen.streams[0].frames == 120
    assert [int(plane[0, 0]) for plane in seen.planes] == list(range(40)) * 3
    assert [a["t"] for a in seen.axes] == list(range(120))
    seen.explained()


def test_an_endless_loop_ends_when_it_is_stopped(forty):
    with Play(Replay(path=forty, loop=0)) as one:
        assert one.streams[0].frames is None
        one.offer_all().take(95)
        one.source.stop()
        one.take()
    one.explained()
    assert [int(plane[0, 0]) for plane in one.planes] == [i % 40 for i in range(95)]


def test_preloaded_frames_come_from_memory(forty):
    source = Replay(path=forty, preload=True, loop=2)
    with Play(source) as one:
        with forty.open("r+b") as file:
            file.truncate(300)
        one.offer_all().take()
    assert [int(plane[0, 0]) for plane in one.planes] == list(range(40)) * 2


def test_the_same_source_can_be_opened_again(forty):
    source = Replay(path=forty, fps=1000.0, on_full="wait")
    for _ in range(3):
        assert play(source).seqs == list(range(40))


def test_opening_it_touches_nothing_but_files(forty):
    assert Replay.passive is True
    source = Replay(path=forty)
    source.open()
    source.close()
    assert [p.name for p in forty.parent.iterdir()] == ["forty.tif"]


# -------------------------------------------------------------------- what cannot be replayed


def test_a_huge_file_is_opened_without_being_read(tmp_path):
    import zarr

    zarr.create_array(tmp_path / "huge.zarr", shape=(2_000_000, 4096, 4096), chunks=(1, 1024, 1024), dtype="uint16")
    gc.collect()
    before = psutil.Process().memory_info().rss
    with Play(Replay(path=tmp_path / "huge.zarr"), slots=2) as one:
        assert one.streams[0].frames == 2_000_000
        one.offer_all().take(2)
    assert psutil.Process().memory_info().rss - before < 600e6
    assert not one.planes[1].any()  # chunks that were never written
    assert "leave out preload" in refused(tmp_path / "huge.zarr", preload=True)


def test_a_tiff_of_many_gigabytes_is_opened_without_being_read(tmp_path):
    path = tmp_path / "long.tif"
    header = tifffile.memmap(path, shape=(1000, 1024, 1024), dtype="uint16", bigtiff=True, photometric="minisblack")
    header[999, 3, 5] = 77
    header.flush()
    del header
    if path.stat().st_blocks * 512 > 1e9:
        pytest.skip("this file system has no sparse files")
    gc.collect()
    before = psutil.Process().memory_info().rss
    with Play(Replay(path=path), slots=2) as one:
        assert one.streams[0].frames == 1000
        one.offer_all().take(2)
        assert psutil.Process().memory_info().rss - before < 300e6
        plane = np.empty((1024, 1024), np.uint16)
        one.source._stored.read(999, plane)
    assert plane[3, 5] == 77


def test_a_missing_file_is_named_with_its_neighbour(forty):
    with pytest.raises(ConfigError) as caught:
        Config.parse('[source]\nkind = "replay"\npath = "fourty.tif"\n', forty.parent)
    text = str(caught.value)
    assert "\n" not in text
    assert 'Did you mean "forty.tif"?' in text
    Config.parse('[source]\nkind = "replay"\npath = "forty.tif"\n', forty.parent)


@pytest.mark.parametrize(
    "line", ['on_full = "drop"', "fps = 0", "fps = nan", "loop = -1", "series = 1\ndataset = 2", "pixel_um = 0"]
)
def test_keys_are_checked_before_the_file_is_opened(forty, line):
    with pytest.raises(ConfigError) as caught:
        Config.parse(f'[source]\nkind = "replay"\npath = "forty.tif"\n{line}\n', forty.parent)
    assert "\n" not in str(caught.value)


def test_a_file_that_goes_away_after_the_check(forty):
    source = Replay(path=forty)
    forty.unlink()
    with pytest.raises(SourceError, match="does not exist"):
        source.open()


@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a picture at all", bytes(4096), b"MM\0*" + b"\xff" * 100])
def test_what_is_no_tiff(tmp_path, content):
    (tmp_path / "bad.tif").write_bytes(content)
    refused(tmp_path / "bad.tif")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata": None},
        {"compression": "zlib"},
        {"compression": "zlib", "metadata": None},
        {"imagej": True},
        {"bigtiff": True},
        {"tile": (32, 32)},
        {"metadata": {"axes": "TYX"}, "ome": True},
        {"metadata": {"axes": "TYX"}, "ome": True, "compression": "zlib"},
    ],
)
@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.7, 0.97, 0.99])
def test_a_tiff_that_is_cut_short(tmp_path, options, part):
    path = tmp_path / "cut.tif"
    given = noise((20, 64, 64), "uint16")
    keys = {} if "imagej" in options else {"photometric": "minisblack"}
    tifffile.imwrite(path, given, **keys, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    # Where only the list of pages at the end is gone, all pixels may still be there; fewer are never passed off as all.
    try:
        seen = play(Replay(path=path))
    except SourceError as error:
        assert_one_line(error)
    else:
        assert part > 0.9
        np.testing.assert_array_equal(seen.planes, given)


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        (np.zeros((8, 9, 5), np.uint8), {"photometric": "rgb", "planarconfig": "contig"}, "several samples a pixel"),
        (np.zeros((8, 9), np.complex64), {}, "complex64, which cannot be replayed"),
        (np.zeros((8, 9), np.float16), {}, "float16, which cannot be replayed"),
        (np.zeros((8, 9), np.uint64), {}, "uint64, which cannot be replayed"),
    ],
)
def test_pictures_of_another_kind(tmp_path, given, options, says):
    tifffile.imwrite(tmp_path / "other.tif", given, **options)
    assert says in refused(tmp_path / "other.tif")


def test_damage_in_the_middle_is_an_error_of_that_frame(tmp_path):
    path = tmp_path / "hurt.tif"
    tifffile.imwrite(path, noise((6, 64, 64), "uint16"), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        at, length = file.pages[3].dataoffsets[0], file.pages[3].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[at : at + length] = bytes(length)
    path.write_bytes(content)
    with Play(Replay(path=path)) as one:
        with pytest.raises(SourceError, match=r"plane 3 cannot be read") as caught:
            one.offer_all().take()
        assert one.seqs == [0, 1, 2]
    assert "\n" not in str(caught.value)


def test_damage_that_hides_pages_is_told(tmp_path, caplog):
    path = tmp_path / "hurt.tif"
    tifffile.imwrite(path, noise((6, 512, 64), "uint16"), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        at = file.pages[4].offset
    content = bytearray(path.read_bytes())
    content[at : at + 300] = bytes(300)  # the chain of pages ends there, and nothing else is wrong
    path.write_bytes(content)
    assert "is damaged or cut short" in refused(path)
    assert not caplog.records


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_gives_frames_or_one_line(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "hurt.tif"
    options = [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"imagej": True}][seed % 4]
    keys = {} if "imagej" in options else {"photometric": "minisblack"}
    tifffile.imwrite(path, rng.integers(0, 9, (5, 32, 32), np.uint16), **keys, **options)
    content = bytearray(path.read_bytes())
    head = len(content) if seed % 3 else 400  # the header, or anywhere
    for at in rng.integers(0, min(head, len(content)), 6):
        content[at] = rng.integers(256)
    path.write_bytes(content)
    try:
        play(Replay(path=path))
    except SourceError as error:
        assert_one_line(error)


@pytest.mark.parametrize(
    ("name", "hurt"),
    [
        ("zarr.json", b"{ this is not json"),
        ("zarr.json", b"[]"),
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"multiscales": [{}]}}}'),
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"multiscales": 7}}}'),
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {"ome": 7}}'),
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": null}'),
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group"}'),
        ("zarr.json", b"\xff\xfe\x00"),
        ("0/zarr.json", b"{"),
        ("0/zarr.json", b'{"zarr_format": 3, "node_type": "array"}'),
    ],
)
def test_a_zarr_with_damaged_metadata(tmp_path, name, hurt):
    write_zarr(tmp_path / "a.zarr", noise((3, 12, 14), "uint16"), "tyx", 3)
    (tmp_path / "a.zarr" / name).write_bytes(hurt)
    refused(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("axes", "shape", "says"),
    [("tyxs", (2, 8, 9, 3), "y, x come last"), ("qyx", (2, 8, 9), "axis q"), ("tyx", (0, 8, 9), "no image")],
)
def test_a_zarr_of_another_kind(tmp_path, axes, shape, says):
    write_zarr(tmp_path / "a.zarr", np.zeros(shape, np.uint8), axes, 3, chunks=tuple(max(n, 1) for n in shape))
    assert says in refused(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_an_error_of_its_frame(tmp_path):
    write_zarr(tmp_path / "a.zarr", noise((4, 64, 64), "uint16"), "tyx", 3, chunks=(1, 64, 64))
    chunk = tmp_path / "a.zarr/0/c/2/0/0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with Play(Replay(path=tmp_path / "a.zarr")) as one:
        with pytest.raises(SourceError, match="frame 2") as caught:
            one.offer_all().take()
        assert one.seqs == [0, 1]
    assert "\n" not in str(caught.value)


def test_a_missing_level_and_a_folder_of_something_else(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    meta = {"axes": [{"name": a} for a in "tyx"], "datasets": [{"path": "0"}]}
    ome = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"multiscales": [meta]}}}
    (tmp_path / "a.zarr/zarr.json").write_text(json.dumps(ome))
    refused(tmp_path / "a.zarr")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"x")
    assert "none of what can be replayed" in refused(tmp_path / "photos")
    (tmp_path / "notes.txt").write_text("x")
    assert "none of what can be replayed" in refused(tmp_path / "notes.txt")


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 64, bytes(200)])
def test_an_ndtiff_with_a_damaged_index(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/NDTiff.index").write_bytes(content)
    refused(tmp_path / "run")


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    write_zarr(tmp_path / "a.zarr", noise((2, 8, 8), "uint8"), "tyx", 3)
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(MissingExtra, match=r"pellucid\[replay\]"):
        play(Replay(path=tmp_path / "a.zarr"))
