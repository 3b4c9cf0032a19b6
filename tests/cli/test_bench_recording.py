"""The recording part of ``pellucid bench``, on tiny frames: what it measures is right before it is fast."""

from __future__ import annotations

import errno
import json
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
import zarr

from pellucid.bench import recording
from pellucid.bench.killed import recover_killed
from pellucid.bench.recorded import Feed
from pellucid.bench.recording import Size, measure_recording
from pellucid.bench.saturated import loop_load
from pellucid.bench.writers import PLAIN, WRITERS, Writer, remove, touch_memory
from pellucid.errors import SinkError
from pellucid.recording.about import About
from pellucid.recording.disk import Disk
from pellucid.sinks.recorder import Recorder

TINY = Size(side=48, frames=9, rounds=2, small_side=16, small_frames=40, recoveries=1, loop_s=0.2, loops=1)


@pytest.fixture
def frames():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 4096, (40, 48), np.uint16) for _ in range(4)]


@pytest.fixture
def feed(frames):
    feed = Feed(frames, {"restored": [frame.astype(np.float32) / 2 for frame in frames]})
    yield feed
    feed.close()


def test_all_figures_are_measured_and_nothing_is_left_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    absent = Writer("ome-writers none", lambda *_: None, "no_such_module", "pip install none")
    (row,) = measure_recording(True, TINY, (WRITERS[0], WRITERS[3], absent))
    assert not list(tmp_path.iterdir())
    writers = {told["writer"]: told for told in row["writers"]}
    assert writers[PLAIN]["times_plain"] == 1
    assert writers["recorder"]["times_plain"] == row["ratio_to_plain"] > 0
    assert row["fastest_peer"] == WRITERS[3].name
    assert row["ratio_to_peer"] == pytest.approx(row["recorder_MB_s"] / writers[WRITERS[3].name]["MB_s"])
    assert writers[absent.name]["MB_s"] is None
    assert writers[absent.name]["note"] == "not installed; type: pip install none"
    for told in writers.values():
        assert told["MB_s"] is None or told["least"] <= told["MB_s"] <= told["most"]
    assert {told["compression"] for told in row["compression"]} == {"blosc-lz4", "blosc-zstd", "zstd"}
    assert all(told["factor"] > 0 for told in row["compression"])
    for key in ("recovery_s", "journal_us", "checksum_us", "loop_p99_ms"):
        assert row[key] > 0
    assert [told["asked"] for told in row["asked"]] == ["at least 0.9", "at least 1", "less than 1", "less than 10"]
    json.dumps(row)
    assert "times a plain file" in capsys.readouterr().out


def test_without_any_peer_there_is_no_ratio_to_one():
    asked = recording._asked(
        {
            "ratio_to_plain": 0.9,
            "ratio_to_peer": None,
            "fastest_peer": None,
            "loop_p99_ms_added": 1.0,
            "recovery_frames": 1,
            "recovery_s": 9.0,
        }
    )
    assert [told["met"] for told in asked] == ["yes", "-", "no", "yes"]
    assert "none is installed" in asked[1]["figure"]


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SinkError, match=r"GB have to be free .* cd FOLDER"):
        measure_recording(False, Size(frames=10**12))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_writer_writes_what_it_was_given(writer, frames, tmp_path):
    if writer.missing:
        pytest.skip(f"needs {writer.install}")
    writer.write(tmp_path / "frames", frames, 6)
    (path,) = tmp_path.iterdir()
    if path.is_dir():
        node = zarr.open(path, mode="r")
        got = np.asarray(node["0"] if isinstance(node, zarr.Group) else node)
    elif path.suffix == ".tiff":
        got = tifffile.imread(path)
    else:
        got = np.fromfile(path, np.uint16).reshape(-1, *frames[0].shape)
    assert np.array_equal(got, [frames[i % 4] for i in range(6)])
    remove(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_writer_says_what_to_type():
    for writer in WRITERS:
        assert writer.missing in ("", writer.install)
        assert bool(writer.missing) == (bool(writer.needs) and find_spec(writer.needs) is None)


def test_the_recorder_gets_its_frames_as_from_a_session(feed, frames, tmp_path):
    seconds, recorder = feed.record(tmp_path / "recording", 11)
    assert seconds > 0
    assert recorder.skipped == 0
    assert feed.ledger.recorded == 11
    assert About.read(tmp_path / "recording").state == "finished"
    raw = zarr.open(tmp_path / "recording" / "raw.ome.zarr" / "0", mode="r")
    restored = zarr.open(tmp_path / "recording" / "restored.ome.zarr" / "0", mode="r")
    assert raw.shape == restored.shape == (11, 1, 40, 48)
    rows = (tmp_path / "recording" / "frames.jsonl").read_text().splitlines()
    assert len(rows) == 11
    assert np.array_equal(np.asarray(restored), np.asarray(raw, np.float32) / 2)
    assert all(any(np.array_equal(plane, frame) for frame in frames) for plane in raw[:, 0])
    again, _ = feed.record(tmp_path / "again", 3, compression="zstd", shard_frames=1)
    assert again > 0


def test_a_recorder_that_fails_is_no_figure(feed, tmp_path):
    class Full(Disk):
        def _write(self, handle, data, at):
            if len(data) > 3000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super()._write(handle, data, at)

    recorder = Recorder(path=str(tmp_path / "recording"))
    recorder.disk = Full()
    branch = feed.begin(recorder)

    def record():
        feed.give(branch, 8)
        recorder.finish()

    try:
        with pytest.raises(SinkError, match="No space left"):
            record()
    finally:
        recorder.close({})


def test_what_a_killed_process_wrote_is_there(tmp_path):
    found = recover_killed(tmp_path / "recording", 16, 30)
    assert (found.frames, found.restored) == (30, 30)
    assert found.seconds > 0
    assert About.read(tmp_path / "recording").state == "recovered"
    assert zarr.open(tmp_path / "recording" / "raw.ome.zarr" / "0", mode="r").shape[0] == 30


def test_a_process_that_cannot_record_is_told(tmp_path):
    (tmp_path / "recording").mkdir()
    with pytest.raises(SinkError, match=r"ended by itself: .*never overwritten"):
        recover_killed(tmp_path / "recording", 16, 30)


def test_the_loop_is_measured_with_and_without_a_recorder(tmp_path):
    without = loop_load(32, 400, 0.3, None)
    recorded = loop_load(32, 400, 0.3, tmp_path / "recording")
    for load in (without, recorded):
        assert load.frames > 5
        assert load.loop_ms > 0
        assert load.late_ms >= 0
        assert load.starved <= load.frames
    assert without.not_recorded == 0
    report = json.loads((tmp_path / "recording" / "report.json").read_text())
    assert report["frames"]["unaccounted"] == 0


def test_memory_is_touched_within_bounds():
    touch_memory(1 << 20)
