"""What the recorder leaves on the disk, read back by independent readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr

from pellucid.errors import SinkError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.sinks.recorder import Recorder
from pellucid.testing import LocalRing

STREAM = Stream(
    Spec((32, 48), "uint16"),
    camera="Andor",
    channel="GFP",
    pixel_um=0.065,
    exposure_ms=20.0,
    details={"objective": "60x"},
)
PLANES = {"raw": STREAM.spec, "restored": Spec((32, 48), "float32")}


def record(path: Path, *, frames: int = 6, skip: tuple[int, ...] = (), **keys) -> Ledger:
    recorder = Recorder(path=str(path), **keys)
    ledger = Ledger()
    recorder.open(
        [STREAM], [PLANES], {"config": "# a config\n", "config_sha256": "abc", "version": "9", "ledger": ledger}
    )
    ring = LocalRing(STREAM, 2, {"restored": PLANES["restored"]})
    rng = np.random.default_rng(0)
    for i in range(frames):
        slot = ring.slots[i % 2]
        slot.planes["raw"][...] = rng.integers(0, 60000, (32, 48))
        now = now_ns()
        slot.info = FrameInfo(i, camera_number=100 + i, camera_ns=now - 1_000_000, received_ns=now, axes={"t": i})
        ledger.arrived(slot.info, STREAM.spec.nbytes)
        recorder.write(slot, ("raw",))
        if i in skip:
            ledger.ended(slot.info, "raw_only", "chain busy")
        else:
            np.multiply(slot.planes["raw"], 0.5, out=slot.planes["restored"])
            ledger.ended(slot.info, "processed")
            recorder.write(slot, ("restored",))
        ledger.finish(slot.info)
    ledger.missing(frames, 3, "lost", "wire")
    recorder.finish()
    recorder.close({"frames": ledger.frames()})
    ring.close()
    return ledger


def test_raw_and_restored_share_their_index_and_are_valid_ome_zarr(tmp_path):
    ledger = record(tmp_path / "rec", skip=(1, 2, 5))
    raw = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")
    restored = zarr.open_array(tmp_path / "rec/restored.ome.zarr/0", mode="r")
    assert raw.shape == restored.shape == (6, 1, 32, 48)
    assert raw.dtype == "uint16"
    assert restored.dtype == "float32"
    want = np.random.default_rng(0).integers(0, 60000, (6, 32, 48))
    np.testing.assert_array_equal(raw[:, 0], want)
    for i in range(6):
        np.testing.assert_array_equal(restored[i, 0], 0 if i in (1, 2, 5) else want[i] * np.float32(0.5))
    for name, channel in (("raw", "GFP"), ("restored", "GFP")):
        yaozarrs.validate_zarr_store(str(tmp_path / f"rec/{name}.ome.zarr"))
        attributes = json.loads((tmp_path / f"rec/{name}.ome.zarr/zarr.json").read_text())["attributes"]
        image = attributes["ome"]["multiscales"][0]
        assert [axis["name"] for axis in image["axes"]] == ["t", "c", "y", "x"]
        assert image["axes"][-1]["unit"] == "micrometer"
        assert image["datasets"][0]["coordinateTransformations"][0]["scale"][2:] == [0.065, 0.065]
        assert image["datasets"][0]["coordinateTransformations"][0]["scale"][0] > 0
        assert attributes["ome"]["omero"]["channels"][0]["label"] == channel
        assert attributes["pellucid"]["exposure_ms"] == 20.0
        assert attributes["pellucid"]["camera"] == "Andor"
        assert attributes["pellucid"]["details"] == {"objective": "60x"}
        assert attributes["ome_writers"]["frame_metadata"][0]["exposure_time"] == 0.02
    assert ledger.recorded == 6


def test_there_is_a_row_for_every_frame_that_was_ever_known_of(tmp_path):
    record(tmp_path / "rec", skip=(1,))
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    assert [row["seq"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert rows[0]["camera_number"] == 100
    assert rows[0]["state"] == "processed"
    assert rows[0]["index"] == 0
    assert rows[0]["axes"] == {"t": 0}
    assert rows[0]["recorded_ms"] >= rows[0]["received_ms"] >= 1.0
    assert rows[1]["state"] == "raw_only"
    assert rows[1]["where"] == "chain busy"
    assert rows[6] == {"seq": 6, "state": "lost", "where": "wire", "to_seq": 8, "stream": 0}


@pytest.mark.parametrize("compression", ["blosc-lz4", "zstd"])
def test_compression_is_lossless(compression, tmp_path):
    record(tmp_path / "rec", compression=compression)
    raw = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")
    np.testing.assert_array_equal(raw[:, 0], np.random.default_rng(0).integers(0, 60000, (6, 32, 48)))


def test_time_is_filled_in_and_parents_are_made(tmp_path):
    recorder = Recorder(path=str(tmp_path / "a/b/{time}"))
    recorder.open([STREAM], [PLANES], {"config": "", "ledger": Ledger()})
    assert recorder.folder.parent == tmp_path / "a/b"
    assert recorder.folder.name[:2] == "20"
    recorder.close(None)
    assert not recorder.folder.exists(), "a run that never began left a folder"


def test_what_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path, says in (
        (tmp_path / "file/rec", "is a file|cannot make|Not a directory"),
        (tmp_path / "file", "exists and is never overwritten"),
        (Path("/proc/rec"), "cannot make the folder"),
    ):
        recorder = Recorder(path=str(path))
        with pytest.raises(SinkError, match=says):
            recorder.open([STREAM], [PLANES], {"config": "", "ledger": Ledger()})
        recorder.close(None)
    assert (tmp_path / "file").read_text() == ""
