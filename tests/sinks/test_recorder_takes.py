"""Recording on demand and in parts: takes, the seconds before a start, rotation."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import zarr

import pellucid
from pellucid.errors import ConfigError, SinkError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.recording.verify import verify
from pellucid.sinks.recorder import Recorder
from pellucid.testing import LocalRing
from tests.process.conftest import PARTS, RUN_PARTS

STREAM = Stream(Spec((16, 24), "uint16"), camera="cam", channel="GFP", pixel_um=0.1)
PLANES = {"raw": STREAM.spec, "restored": Spec((16, 24), "float32")}


class Run:
    """A recorder that is given frames whose pixels are their number."""

    def __init__(self, path, *, frame_s: float = 0.0, **keys):
        self.recorder = Recorder(path=str(path), **keys)
        self.path = path
        self.ledger = Ledger()
        self.said: list[str] = []
        sha256 = hashlib.sha256(b"# c\n").hexdigest()
        run = {"config": "# c\n", "config_sha256": sha256, "ledger": self.ledger, "tell": self.said.append}
        self.recorder.open([STREAM], [PLANES], run)
        self.ring = LocalRing(STREAM, 2, {"restored": PLANES["restored"]})
        self.next = 0
        self.now = now_ns()
        self.step = round(frame_s * 1e9)
        self.offered = 0

    def give(self, frames: int) -> None:
        for _ in range(frames):
            i = self.next
            self.next += 1
            slot = self.ring.slots[i % 2]
            slot.planes["raw"][...] = i
            slot.planes["restored"][...] = i / 2
            self.now += self.step
            slot.info = FrameInfo(i, camera_ns=self.now, received_ns=self.now)
            self.ledger.arrived(slot.info, STREAM.spec.nbytes)
            self.recorder.write(slot, ("raw",))
            self.recorder.write(slot, ("restored",))
            self.offered += 2
            self.ledger.ended(slot.info, "processed")
            self.ledger.finish(slot.info)

    def ask(self, what: str, **given) -> dict:
        return dict(self.recorder.commands()[f"record.{what}"](given))

    def end(self) -> list[dict]:
        self.recorder.finish()
        self.recorder.close({"frames": self.ledger.frames()})
        self.ring.close()
        return [json.loads(line) for line in (self.path / "frames.jsonl").read_text().splitlines()]


class Experiment(Run):
    """The same, with frames of an experiment whose positions are acquired one after the other."""

    def __init__(self, path, **keys):
        self.stream = replace(STREAM, sizes={"p": 2, "t": 8, "c": 2}, names={"p": ("a", "b"), "c": ("x", "y")})
        self.recorder = Recorder(path=str(path), **keys)
        self.path, self.next = path, 0
        self.ledger = Ledger()
        run = {"config": "# c\n", "config_sha256": "0", "version": "0", "ledger": self.ledger}
        self.recorder.open([self.stream], [{"raw": self.stream.spec}], run)
        self.ring = LocalRing(self.stream, 2, {})

    def give(self, p: int, t: int, c: int) -> None:
        slot = self.ring.slots[self.next % 2]
        slot.planes["raw"][...] = self.next
        slot.info = FrameInfo(self.next, camera_ns=now_ns(), received_ns=now_ns(), axes={"p": p, "t": t, "c": c})
        self.next += 1
        self.ledger.arrived(slot.info, 1)
        self.recorder.write(slot, ("raw",))
        self.ledger.ended(slot.info, "processed")
        self.ledger.finish(slot.info)


def until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def numbers(folder, plane: str = "raw") -> list[float]:
    array = zarr.open_array(str(folder / f"{plane}.ome.zarr/0"), mode="r")[:, 0]
    assert (array == array[:, :1, :1]).all()
    return [float(v) for v in array[:, 0, 0]]


def test_an_armed_recorder_records_takes_and_every_frame_has_its_row(tmp_path):
    run = Run(tmp_path / "rec", start="armed")
    run.give(3)
    assert not list((tmp_path / "rec").glob("part-*"))
    assert "not recording" in run.ask("status")["text"]
    assert run.ask("start")["part"] == 1
    run.give(4)
    assert "4 frames" in run.ask("status")["text"]
    assert run.ask("stop")["frames"] == 4
    run.give(2)
    run.ask("start", name="the second / one")
    run.give(1)
    rows = run.end()
    assert numbers(tmp_path / "rec/part-0001") == [3, 4, 5, 6]
    assert numbers(tmp_path / "rec/part-0001", "restored") == [1.5, 2, 2.5, 3]
    assert numbers(tmp_path / "rec/part-0002-the_second___one") == [9]
    assert [row["seq"] for row in rows] == list(range(10))
    assert [row.get("part") for row in rows] == [None] * 3 + [1] * 4 + [None] * 2 + [2]
    assert [row["index"] for row in rows] == [None] * 3 + [0, 1, 2, 3] + [None] * 2 + [0]
    assert all(("xxh3" in row) == (row["index"] is not None) for row in rows)
    assert run.recorder.skipped == 2 * 5
    assert run.ledger.recorded == 5


def test_the_seconds_before_a_start_are_in_the_take(tmp_path):
    run = Run(tmp_path / "rec", frame_s=0.1, start="armed", before_s=0.45)
    run.give(20)
    told = run.ask("start")
    assert told["frames_before"] == 5
    assert "from before the start" in told["text"]
    run.give(2)
    run.ask("stop")
    run.give(30)
    run.ask("start")
    run.give(1)
    rows = run.end()
    assert numbers(tmp_path / "rec/part-0001") == [15, 16, 17, 18, 19, 20, 21]
    assert numbers(tmp_path / "rec/part-0001", "restored") == [n / 2 for n in range(15, 22)]
    assert numbers(tmp_path / "rec/part-0002") == [47, 48, 49, 50, 51, 52]
    assert [row["seq"] for row in rows if row.get("part") == 1] == list(range(15, 22))
    assert run.recorder.skipped == run.offered - 2 * 13
    assert run.recorder.lost == 0


def test_the_memory_for_frames_from_before_a_start_is_bounded(tmp_path):
    frame = (16 * 24) * (2 + 4)
    run = Run(tmp_path / "rec", frame_s=0.01, start="armed", before_s=60, buffer_mb=4.5 * frame / 1e6)
    run.give(50)
    assert run.ask("start")["frames_before"] == 4
    run.end()
    assert numbers(tmp_path / "rec/part-0001") == [46, 47, 48, 49]


def test_what_cannot_be_asked_is_one_line(tmp_path):
    run = Run(tmp_path / "rec", start="armed")
    with pytest.raises(SinkError, match="type pellucid record start"):
        run.ask("stop")
    run.ask("start")
    with pytest.raises(SinkError, match="already recording part-0001/: type pellucid record stop first"):
        run.ask("start")
    run.end()
    with pytest.raises(SinkError, match="the run is over"):
        run.ask("stop")
    always = Run(tmp_path / "always")
    with pytest.raises(SinkError, match='start = "armed"'):
        always.ask("start")
    always.give(1)
    always.end()
    for key, value, says in (
        ("before_s", 3, 'add start = "armed"'),
        ("compression", "blosc-lz4", 'compression is for "ome-zarr"'),
        ("start", "later", "Allowed|armed"),
    ):
        file_format = {"format": "ome-tiff"} if key == "compression" else {}
        keys = {"kind": "recorder", key: value, **file_format}
        with pytest.raises(ConfigError, match=says):
            pellucid.open({"source": {"kind": "simulated"}, "sinks": [keys]})


def test_parts_begin_by_frames_and_by_bytes(tmp_path):
    by_frames = Run(tmp_path / "frames", part_frames=4)
    by_frames.give(10)
    rows = by_frames.end()
    folder = tmp_path / "frames"
    assert [numbers(folder / f"part-000{i}") for i in (1, 2, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert numbers(folder / "part-0003", "restored") == [4, 4.5]
    assert [(row["part"], row["index"]) for row in rows] == [(1 + i // 4, i % 4) for i in range(10)]
    by_bytes = Run(tmp_path / "bytes", part_gb=2.5 * 16 * 24 * 6 / 1e9)
    by_bytes.give(7)
    by_bytes.end()
    assert [len(numbers(p)) for p in sorted((tmp_path / "bytes").glob("part-*"))] == [3, 3, 1]


def test_parts_of_an_experiment_begin_between_time_points(tmp_path):
    config = {
        "plugins": [str(PARTS), str(RUN_PARTS)],
        "source": {"kind": "experiment", "sizes": {"t": 5, "c": 2, "z": 3}},
        "sinks": [{"kind": "recorder", "path": str(tmp_path / "rec"), "part_frames": 8}],
    }
    with pellucid.open(config) as session:
        for _ in session:
            pass
    shapes = [
        zarr.open_array(str(part / "raw.ome.zarr/0"), mode="r").shape[:3]
        for part in sorted((tmp_path / "rec").glob("part-*"))
    ]
    assert shapes == [(2, 2, 3), (2, 2, 3), (1, 2, 3)]
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["axes"]["t"] == (row["part"] - 1) * 2 + row["at"][1]


def test_without_a_session_pixels_are_copied_before_write_returns(tmp_path):
    run = Run(tmp_path / "rec", shard_frames=1)
    run.give(40)  # the ring has two slots, written over at once
    run.end()
    np.testing.assert_array_equal(numbers(tmp_path / "rec"), range(40))


def test_positions_one_after_the_other_keep_their_time_points_in_parts(tmp_path):
    """Time begins anew at each position: a part then begins where that position's first frame in it is."""
    run = Experiment(tmp_path / "rec", part_frames=6)
    for p in range(2):
        for t in range(8):
            for c in range(2):
                run.give(p, t, c)
    rows = run.end()
    assert len({(row["part"], *row["at"]) for row in rows}) == len(rows)
    first: dict[tuple[int, int], int] = {}
    for row in rows:
        p, t = row["axes"]["p"], row["axes"]["t"]
        begins = first.setdefault((row["part"], p), t)
        assert row["at"][:3] == [p, t - begins, row["axes"]["c"]]
    parts = {(row["axes"]["p"], row["axes"]["t"]): row["part"] for row in rows}
    assert all(parts[row["axes"]["p"], row["axes"]["t"]] == row["part"] for row in rows), "a time point was cut"
    assert len(set(parts.values())) > 3


def test_results_that_come_long_after_their_part_was_over_are_in_it(tmp_path):
    run = Run(tmp_path / "rec", part_frames=2, commit_every_s=0.02)
    late = []
    for i in range(6):
        ring = LocalRing(STREAM, 1, {"restored": PLANES["restored"]})
        (slot,) = ring.slots
        slot.planes["raw"][...] = i
        slot.planes["restored"][...] = i / 2
        slot.info = FrameInfo(i, camera_ns=now_ns(), received_ns=now_ns())
        run.ledger.arrived(slot.info, STREAM.spec.nbytes)
        run.recorder.write(slot, ("raw",))
        late.append((ring, slot))
    time.sleep(0.5)  # many commits: all parts but the last are over, and wait
    for ring, slot in late:
        run.ledger.ended(slot.info, "processed")
        run.recorder.write(slot, ("restored",))
        run.ledger.finish(slot.info)
        time.sleep(0.05)
        ring.close()
    run.end()
    assert [numbers(tmp_path / f"rec/part-000{i}", "restored") for i in (1, 2, 3)] == [[0, 0.5], [1, 1.5], [2, 2.5]]
    assert not list((tmp_path / "rec").rglob("*.partial"))
    assert verify(tmp_path / "rec").faults == []


def test_a_take_in_several_parts_keeps_its_name_and_its_count(tmp_path):
    run = Run(tmp_path / "rec", start="armed", part_frames=3, commit_every_s=0.01)
    run.ask("start", name="mitosis")
    for _ in range(8):
        run.give(1)
        until(lambda: run.ledger.recorded == run.next)  # the next part is made meanwhile
    assert "8 frames" in run.ask("status")["text"]
    stopped = run.ask("stop")
    assert stopped["frames"] == 8
    assert "part-0001-mitosis/ to part-0003-mitosis/" in stopped["text"]
    run.ask("start")
    run.give(1)
    assert run.ask("stop")["frames"] == 1
    rows = run.end()
    assert [row["part"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 4]
    folders = sorted(path.name for path in (tmp_path / "rec").glob("part-*"))
    assert folders == ["part-0001-mitosis", "part-0002-mitosis", "part-0003-mitosis", "part-0004"]
    told = json.loads((tmp_path / "rec/recording.json").read_text())["parts"]
    assert [(part["take"], part["name"]) for part in told] == [(1, "mitosis")] * 3 + [(2, "")]
    assert not verify(tmp_path / "rec").faults


def test_frames_from_before_a_start_are_cut_into_parts_as_well(tmp_path):
    run = Run(tmp_path / "rec", start="armed", before_s=60, part_frames=3)
    run.give(8)
    run.ask("start", name="Zelle Müller")
    run.give(1)
    run.ask("stop")
    rows = run.end()
    assert [row["part"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert (tmp_path / "rec/part-0003-Zelle_Müller").is_dir()
    assert not verify(tmp_path / "rec").faults
    for row in rows:
        folder = next((tmp_path / "rec").glob(f"part-{row['part']:04d}*"))
        for plane, value in (("raw", row["seq"]), ("restored", row["seq"] / 2)):
            image = zarr.open_array(str(folder / f"{plane}.ome.zarr/0"), mode="r")
            assert np.asarray(image[row["at"][1]] == value).all()


def test_what_is_older_than_asked_is_not_in_a_take(tmp_path):
    run = Run(tmp_path / "rec", start="armed", before_s=0.5)
    run.give(3)
    time.sleep(0.7)  # the source stands still
    assert run.ask("start")["frames_before"] == 0
    run.give(2)
    run.ask("stop")
    assert ["at" in row for row in run.end()] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"path": "s3://lab/x"}, "upload = "),
        ({"path": "rec/a:b"}, "Windows cannot read"),
        ({"path": "rec/CON"}, "is that of a device"),
        ({"path": "rec/x."}, "ends with a"),
        ({"format": "ome-tiff", "shard_frames": 4}, "shard_frames is for"),
    ],
)
def test_keys_that_cannot_mean_what_they_say_are_refused(keys, says):
    with pytest.raises(ValueError, match=says):
        Recorder(**keys)


def test_a_path_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    run = Run(tmp_path / "mine")
    run.end()
    recorder = Recorder(path="~/mine")
    with pytest.raises(SinkError, match="exists and is never overwritten"):
        recorder.ready()


def test_those_who_watch_see_what_is_being_recorded(tmp_path):
    run = Run(tmp_path / "rec", start="armed", before_s=60)
    (now,) = run.ledger.recordings.values()
    assert (now.on, now.switch, now.frames) == (False, True, 0)
    run.give(2)
    run.ask("start")
    run.give(3)
    run.ask("status")
    (now,) = run.ledger.recordings.values()
    assert (now.on, now.switch, now.frames) == (True, True, 5)
    run.ask("stop")
    (now,) = run.ledger.recordings.values()
    assert not now.on
    run.end()
    (now,) = run.ledger.recordings.values()
    assert (now.on, now.switch, now.failed) == (False, False, False)
