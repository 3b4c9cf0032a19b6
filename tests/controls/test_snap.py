"""Pictures and data of the newest frame of a session that runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

import pellucid
from pellucid.controls import snap as snapping
from pellucid.errors import PellucidError, RunError
from tests.controls.runs import PARTS, config, deconvolve, plain


def snap_in(table, at, **given):
    """Run a config and snap when frame `at` has come; return the answer and all frames."""
    frames, answers = {}, []
    with pellucid.open(table) as session:
        for frame in session:
            frames[frame.info.stream, frame.info.seq] = frame
            if frame.info.seq == at:
                answers.append(session.controls.commands()["snap"](given))
    return answers[0], frames


def test_a_frame_is_written_as_it_was_computed(tmp_path):
    table = config(tmp_path, deconvolve())
    table["source"]["pixel_um"] = 0.25
    answer, frames = snap_in(table, 5, to=str(tmp_path / "a" / "b"))
    files = [tmp_path / "a" / "b" / path for path in sorted(p.name for p in (tmp_path / "a" / "b").iterdir())]
    assert sorted(answer["files"]) == [str(path) for path in files]
    names = [path.name.split("frame")[1] for path in files]
    number = int(names[0][:6])
    assert number > 5
    assert names == [f"{number:06d}-{n}" for n in ("raw.ome.tif", "raw.png", "restored.ome.tif", "restored.png")]
    assert answer["text"].startswith(f"frame {number}: 4 files in ")
    for name, path in (("raw", files[0]), ("restored", files[2])):
        with tifffile.TiffFile(path) as file:
            np.testing.assert_array_equal(file.asarray(), frames[0, number][name])
            assert file.asarray().dtype == frames[0, number][name].dtype
            assert 'PhysicalSizeX="0.25"' in file.ome_metadata
    np.testing.assert_array_equal(frames[0, number]["restored"], plain(config(tmp_path, deconvolve()))[number])


def test_a_picture_has_the_limits_of_whoever_sees_it_and_a_scale_bar(tmp_path):
    table = config(tmp_path, deconvolve())
    table["source"]["pixel_um"] = 0.25
    limits = [{"camera": "movie", "channel": "channel", "plane": "raw", "limits": [280, 320]}]
    answer, frames = snap_in(table, 5, to=str(tmp_path / "to"), limits=limits)
    path = next(p for p in answer["files"] if p.endswith("raw.png"))
    number = int(path.split("frame")[1][:6])
    frame = frames[0, number]
    limits[0] |= {"camera": frame.stream.camera, "channel": frame.stream.channel}
    answer, frames = snap_in(table, 5, to=str(tmp_path / "to"), limits=limits)
    path = next(p for p in answer["files"] if p.endswith("raw.png"))
    raw = frames[0, int(path.split("frame")[1][:6])]["raw"].astype(float)
    image = Image.open(path)
    picture = np.asarray(image)
    assert picture.shape == (48 * 6, 64 * 6, 3)
    expected = np.clip((raw - 280) / 40 * 255, 0, 255)
    upper = picture[: 30 * 6 : 6, ::6, 0].astype(float)  # away from the bar
    assert np.abs(upper - expected[:30]).max() <= 1
    assert image.text["Description"].endswith("shown from 280 to 320, 0.25 um a pixel")
    # A quarter of 64 px of 0.25 um are 4 um: a bar of 2 um, 8 px, each drawn as 6.
    row = (picture[-10:-7] == 255).all(axis=-1)
    runs = [len(run) for run in "".join("#" if on else " " for on in row[1]).split()]
    assert max(runs) in range(8 * 6 - 2, 8 * 6 + 3)


def test_nothing_is_overwritten(tmp_path, monkeypatch):
    frame = snapping.Snapped(
        pellucid.protocols.Stream(pellucid.protocols.Spec((8, 8), "uint16")),
        pellucid.protocols.FrameInfo(3),
        {"raw": np.arange(64, dtype=np.uint16).reshape(8, 8)},
        {"raw": pellucid.protocols.Spec((8, 8), "uint16")},
    )

    noon = snapping.datetime.fromisoformat("2026-01-01T12:00:00")
    when = type("Noon", (), {"now": staticmethod(lambda: noon)})
    monkeypatch.setattr(snapping, "datetime", when)
    first = snapping.write([frame], tmp_path)
    before = {path: path.read_bytes() for path in first}
    second = snapping.write([frame], tmp_path)
    assert [path.name for path in first] == [
        "snap-20260101-120000-frame000003-raw.png",
        "snap-20260101-120000-frame000003-raw.ome.tif",
    ]
    assert [path.name for path in second] == [
        "snap-20260101-120000-frame000003-raw-2.png",
        "snap-20260101-120000-frame000003-raw-2.ome.tif",
    ]
    assert {path: path.read_bytes() for path in first} == before


@pytest.mark.parametrize("level", [0.0, 7.0, np.nan, np.inf])
def test_pictures_of_one_level_and_of_nan(level, tmp_path):
    spec = pellucid.protocols.Spec((300, 300), "float32")
    frame = snapping.Snapped(
        pellucid.protocols.Stream(spec, pixel_um=0.1),
        pellucid.protocols.FrameInfo(0),
        {"raw": np.full((300, 300), level, np.float32)},
        {"raw": spec},
    )
    png, _ = snapping.write([frame], tmp_path)
    assert np.asarray(Image.open(png)).shape == (300, 300, 3)


def test_every_stream_and_its_name(tmp_path):
    table = config(tmp_path, {"kind": "scale", "factor": 2.0}, plugins=[PARTS.as_posix()])
    table["source"] = {"kind": "counting", "frames": 200, "cameras": 2, "every_s": 0.004, "height": 8, "width": 8}
    answer, _ = snap_in(table, 20, to=str(tmp_path / "to"))
    ends = sorted(path.partition("-frame0000")[2].partition("-")[2] for path in answer["files"])
    assert ends == sorted(
        f"{camera}-channel-{plane}{end}"
        for camera in ("cam0", "cam1")
        for plane in ("raw", "restored")
        for end in (".png", ".ome.tif")
    )


def test_a_stack_and_its_projection(tmp_path):
    spec = pellucid.protocols.Spec((5, 300, 320), "uint16")
    stack = np.zeros(spec.shape, np.uint16)
    stack[2, 100, 100] = 1000
    frame = snapping.Snapped(
        pellucid.protocols.Stream(spec, pixel_um=0.1, z_um=0.5),
        pellucid.protocols.FrameInfo(0),
        {"raw": stack},
        {"raw": spec},
    )
    png, tiff = snapping.write(
        [frame], tmp_path, [{"camera": "camera", "channel": "channel", "plane": "raw", "limits": [0, 1000]}]
    )
    assert np.asarray(Image.open(png))[100, 100].tolist() == [255, 255, 255]
    with tifffile.TiffFile(tiff) as file:
        np.testing.assert_array_equal(file.asarray(), stack)
        assert 'PhysicalSizeZ="0.5"' in file.ome_metadata


def test_what_cannot_be_snapped_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    table = config(tmp_path, deconvolve())
    with pellucid.open(table) as session:
        snap = session.controls.commands()["snap"]
        with pytest.raises(RunError, match=r"no frame came within 0\.05 s"):
            snapping.newest(session.session, 0.05)
        for given in ({"to": 3}, {"limits": 4}, {"to": ""}):
            with pytest.raises(PellucidError, match=r"^snap: "):
                snap(given)
        for frame in session:
            if frame.info.seq == 3:
                with pytest.raises(PellucidError, match="cannot be written"):
                    snap({"to": str(tmp_path / "file")})
    assert json.dumps(session.report["frames"]["unaccounted"]) == "0"
