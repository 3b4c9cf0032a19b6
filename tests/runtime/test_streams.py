"""Streams that begin, change and end while a run goes on; channels, cameras, colours, experiments."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaozarrs
import zarr

from pellucid.config import Config
from pellucid.errors import ConfigError, StageError
from pellucid.live import make_session

PARTS = Path(__file__).parents[1] / "parts.py"


def run(text: str):
    config = Config.parse(f'plugins = ["{PARTS.as_posix()}"]\n{text}')
    session = make_session(config)
    session.open()
    try:
        session.run()
    finally:
        session.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pellucid")]
    return config, session


def image(path: Path, group: str = "0"):
    return zarr.open_array(path / group, mode="r")


def test_a_roi_that_changes_opens_a_new_stream_and_loses_nothing(tmp_path):
    config, session = run(
        f"""
        [source]
        kind = "changing"
        steps = [
            ["cam", "GFP", 32, 48, "uint16", 20],
            ["cam", "GFP", 16, 64, "uint16", 20],
            ["cam", "GFP", 32, 48, "uint8", 5],
        ]
        [[stages]]
        kind = "scale"
        [[sinks]]
        kind = "recorder"
        path = "{tmp_path.as_posix()}/rec"
        [[sinks]]
        kind = "keep"
        [session]
        slots = 4
        """
    )
    report = session.report
    assert report["frames"]["produced"] == report["frames"]["processed"] == report["frames"]["recorded"] == 45
    assert report["frames"]["unaccounted"] == 0
    assert [stream["replaces"] for stream in report["streams"]] == [None, 0, 1]
    assert [stream["planes"]["raw"] for stream in report["streams"]] == ["32x48 uint16", "16x64 uint16", "32x48 uint8"]
    assert [stream["stages"][0]["stage"] for stream in report["streams"]] == ["scale"] * 3
    assert [seq for seq, _ in config.sinks["keep"].got] == list(range(45))
    for seq, planes in config.sinks["keep"].got:
        assert (planes["raw"] == seq + 1).all()
        assert (planes["restored"] == 2 * (seq + 1)).all()
    first, second, third = (image(tmp_path / f"rec/{name}.ome.zarr") for name in ("raw", "raw-cam-1", "raw-cam-2"))
    assert (first.shape, second.shape, third.shape) == ((20, 1, 32, 48), (20, 1, 16, 64), (5, 1, 32, 48))
    np.testing.assert_array_equal(second[:, 0, 0, 0], np.arange(21, 41))
    np.testing.assert_array_equal(image(tmp_path / "rec/restored-cam-2.ome.zarr")[:, 0, 0, 0], 2 * np.arange(41, 46))
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    assert [(row["stream"], row["index"]) for row in rows[18:22]] == [(0, 18), (0, 19), (1, 0), (1, 1)]


def test_memory_of_a_stream_that_was_replaced_is_given_back():
    # In a process of its own: what other tests have left in pieces is filled in another order each time.
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    processed, peak = map(int, done.stdout.split())
    assert processed == 120
    # 16 slots of 2 MB, of which two are ever touched; all sixty streams at once would be 240 MB.
    assert peak < 120e6


def test_channels_have_stages_of_their_own_and_a_new_one_may_come(tmp_path):
    _, session = run(
        f"""
        source = {{ kind = "changing", steps = [["a", "DAPI", 8, 8, "uint16", 3], ["a", "FITC", 8, 8, "uint16", 3],
            ["a", "DAPI", 8, 8, "uint16", 3], ["b", "DAPI", 8, 8, "uint16", 3]] }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        [[stages]]
        kind = "scale"
        channels = ["DAPI"]
        cameras = ["a"]
        [[stages]]
        kind = "scale"
        factor = 3
        channels = ["FITC"]
        """
    )
    streams = session.report["streams"]
    assert [(s["camera"], s["channel"], s["replaces"]) for s in streams] == [
        ("a", "DAPI", None),
        ("a", "FITC", None),
        ("b", "DAPI", None),
    ]
    assert [[row["stage"] for row in s["stages"]] for s in streams] == [["scale"], ["scale 1"], []]
    np.testing.assert_array_equal(image(tmp_path / "rec/restored.ome.zarr")[:, 0, 0, 0], [2, 4, 6, 14, 16, 18])
    np.testing.assert_array_equal(image(tmp_path / "rec/restored-a-1.ome.zarr")[:, 0, 0, 0], [12, 15, 18])
    assert not (tmp_path / "rec/restored-b-2.ome.zarr").exists()
    cameras = session.report["cameras"]
    assert {name: c["produced"] for name, c in cameras.items()} == {"a": 9, "b": 3}
    assert all(c["produced"] == c["processed"] for c in cameras.values())


def test_losses_are_told_for_each_camera():
    _, session = run(
        """
        source = { kind = "experiment", sizes = { t = 10, c = 2 }, lost = [3, 4, 8] }
        sinks = [{ kind = "null" }]
        """
    )
    assert session.ledger.streams[0].lost == {"camera": 2}
    assert session.ledger.streams[1].lost == {"camera": 1}
    (camera,) = session.report["cameras"].values()
    assert camera["produced"] == camera["processed"] + sum(camera["lost"].values()) == 20


@pytest.mark.parametrize("sets", ["channels = ['DAPY']", "cameras = ['cam0', 'cam9']"])
def test_a_name_that_no_stream_has_is_said(sets):
    config = Config.parse(
        f'plugins = ["{PARTS.as_posix()}"]\nsource = {{ kind = "experiment", sizes = {{ c = 2 }} }}\n'
        f'[[stages]]\nkind = "scale"\n{sets}'
    )
    session = make_session(config)
    with pytest.raises(StageError, match=r'Did you mean "DAPI"|the cameras here are camera') as caught:
        session.open()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="a list of names is needed"):
        Config.parse('source = { kind = "simulated" }\nstages = [{ kind = "deconvolve", channels = "DAPI" }]')


def test_a_stage_that_cannot_work_on_the_new_roi_costs_no_frame(tmp_path):
    _, session = run(
        f"""
        source = {{ kind = "changing", steps = [["a", "x", 64, 64, "uint16", 5], ["a", "x", 8, 8, "uint16", 5]] }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        [[stages]]
        kind = "deconvolve"
        psf = {{ kind = "gaussian", fwhm_px = 5.0 }}
        """
    )
    frames = session.report["frames"]
    assert frames["processed"] == 5
    assert sum(frames["raw_only"].values()) == 5
    assert frames["recorded"] == 10
    assert any("larger than the frame" in note for note in session.report["notes"])
    assert image(tmp_path / "rec/raw-a-1.ome.zarr").shape == (5, 1, 8, 8)


def test_a_sink_that_cannot_follow_is_said_and_gets_nothing_of_the_new_stream(monkeypatch):
    from pellucid.sinks.null import Null

    monkeypatch.delattr(Null, "extend")
    _, session = run(
        """
        source = { kind = "changing", steps = [["a", "x", 8, 8, "uint16", 5], ["a", "y", 8, 8, "uint16", 5]] }
        sinks = [{ kind = "null" }]
        """
    )
    assert session.report["sinks"]["null"]["written"] == 5
    assert any("null cannot take streams" in note for note in session.report["notes"])


def test_an_experiment_is_one_image_with_its_axes(tmp_path):
    run(
        f"""
        source = {{ kind = "experiment", sizes = {{ t = 3, c = 2, z = 4 }}, lost = [5] }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        [[stages]]
        kind = "scale"
        slow_s = 0.002
        channels = ["DAPI"]
        [[stages]]
        kind = "scale"
        factor = 3
        channels = ["FITC"]
        """
    )
    assert sorted(p.name for p in (tmp_path / "rec").glob("*.zarr")) == ["raw.ome.zarr", "restored.ome.zarr"]
    want = np.arange(1, 25).reshape(3, 2, 4)
    want[0, 1, 1] = 0  # lost
    np.testing.assert_array_equal(image(tmp_path / "rec/raw.ome.zarr")[..., 0, 0], want)
    factor = np.array([2, 3])[None, :, None]
    np.testing.assert_array_equal(image(tmp_path / "rec/restored.ome.zarr")[..., 0, 0], want * factor)
    for name in ("raw", "restored"):
        yaozarrs.validate_zarr_store(str(tmp_path / f"rec/{name}.ome.zarr"))
        tree = json.loads((tmp_path / f"rec/{name}.ome.zarr/zarr.json").read_text())["attributes"]
        scale = tree["ome"]["multiscales"][0]
        assert [axis["name"] for axis in scale["axes"]] == ["t", "c", "z", "y", "x"]
        assert scale["datasets"][0]["coordinateTransformations"][0]["scale"][2:] == [0.5, 0.1, 0.1]
        assert [c["label"] for c in tree["ome"]["omero"]["channels"]] == ["DAPI", "FITC"]
        assert [c["exposure_ms"] for c in tree["pellucid"]["channels"]] == [10.0, 20.0]
        exposures = {tuple(m["storage_index"])[1]: m["exposure_time"] for m in tree["ome_writers"]["frame_metadata"]}
        assert exposures == {0: 0.01, 1: 0.02}
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    assert rows[23]["axes"] == {"t": 2, "c": 1, "z": 3}
    assert rows[5] == {"seq": 5, "state": "lost", "where": "camera", "stream": 1}


def test_positions_are_groups_and_keep_their_names(tmp_path):
    run(
        f"""
        source = {{ kind = "experiment", sizes = {{ t = 2, p = 2, c = 2 }} }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        """
    )
    path = tmp_path / "rec/raw.ome.zarr"
    yaozarrs.validate_zarr_store(str(path))
    want = np.arange(1, 9).reshape(2, 2, 2)
    np.testing.assert_array_equal(image(path, "left_well/0")[..., 0, 0], want[:, 0])
    np.testing.assert_array_equal(image(path, "right/0")[..., 0, 0], want[:, 1])


def test_what_lasts_longer_than_said_or_comes_twice_overwrites_nothing(tmp_path):
    run(
        f"""
        source = {{ kind = "experiment", sizes = {{ t = 3, z = 4 }}, told = {{ t = 1, z = 2 }}, again = 2 }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        """
    )
    got = image(tmp_path / "rec/raw.ome.zarr")[:, 0, :, 0, 0]
    np.testing.assert_array_equal(got[:3], np.arange(1, 13).reshape(3, 4))
    assert sorted(got[got > 0]) == list(range(1, 25))


def test_colours_are_restored_one_by_one_and_stored_as_channels(tmp_path):
    _, session = run(
        f"""
        source = {{ kind = "changing", steps = [["a", "x", 32, 40, "rgb", 4], ["a", "x", 32, 40, "uint16", 2]] }}
        stages = [{{ kind = "deconvolve", output = "uint16", psf = {{ kind = "gaussian", fwhm_px = 2.5 }} }}]
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        """
    )
    assert session.report["frames"]["processed"] == 6
    assert session.report["streams"][0]["planes"] == {"raw": "32x40 RGB uint8", "restored": "32x40 RGB uint16"}
    for name in ("raw", "restored"):
        got = image(tmp_path / f"rec/{name}.ome.zarr")
        assert got.shape == (4, 3, 32, 40)
        np.testing.assert_array_equal(got[:, :, 5, 5], [[1, 51, 1], [2, 52, 2], [3, 53, 3], [4, 54, 4]])
        yaozarrs.validate_zarr_store(str(tmp_path / f"rec/{name}.ome.zarr"))
        tree = json.loads((tmp_path / f"rec/{name}.ome.zarr/zarr.json").read_text())["attributes"]["ome"]
        assert [(c["label"], c["color"]) for c in tree["omero"]["channels"]] == [
            ("R", "FF0000"),
            ("G", "00FF00"),
            ("B", "0000FF"),
        ]


def test_colours_of_channels_share_an_experiments_image(tmp_path):
    run(
        f"""
        source = {{ kind = "experiment", sizes = {{ t = 2, c = 2 }}, colour = true }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        """
    )
    got = image(tmp_path / "rec/raw.ome.zarr")
    np.testing.assert_array_equal(got[:, :, 0, 0], [[1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]])


@pytest.mark.parametrize("sizes", ["t = 2, c = 2, z = 3", "p = 2, t = 2, c = 2"])
def test_a_recorded_experiment_is_replayed_with_its_axes(sizes, tmp_path):
    run(
        f"""
        source = {{ kind = "experiment", sizes = {{ {sizes} }} }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/first" }}]
        """
    )
    one, group = ('dataset = "right"', "right/0") if "p" in sizes else ("", "0")
    _, session = run(
        f"""
        source = {{ kind = "replay", path = "{tmp_path.as_posix()}/first", {one} }}
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/second" }}]
        """
    )
    assert [s["channel"] for s in session.report["streams"]] == ["DAPI", "FITC"]
    first = image(tmp_path / "first/raw.ome.zarr", group)
    second = image(tmp_path / "second/raw.ome.zarr")
    np.testing.assert_array_equal(second[...], first[...])
    tree = json.loads((tmp_path / "second/raw.ome.zarr/zarr.json").read_text())["attributes"]["ome"]
    assert [c["label"] for c in tree["omero"]["channels"]] == ["DAPI", "FITC"]
    if "z" in sizes:
        scale = tree["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale[2:] == [0.5, 0.1, 0.1]


def main() -> None:
    """Print how many frames sixty streams one after another had, and the memory they took at most, in bytes."""
    steps = [["cam", "GFP", 1024, 1024 + 2 * i, "uint16", 2] for i in range(60)]
    process, peak, over = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, process.memory_info().rss - before)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        _, session = run(f'source = {{ kind = "changing", steps = {steps} }}\nsinks = [{{ kind = "null" }}]')
    finally:
        over.set()
        looking.join()
    print(session.report["frames"]["processed"], peak)


if __name__ == "__main__":
    main()
