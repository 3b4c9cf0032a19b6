"""A recording that was killed has room for planes that were never written; they are no black pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from pellucid.errors import RunError
from pellucid.process.written import Written
from tests.process.conftest import pixels, report, rows

SOURCE = 'source = {{ kind = "experiment", sizes = {{ {sizes} }} }}\nstages = [{{ kind = "scale" }}]\n'


def kill(rec, first_lost: int, rows_behind: int) -> None:
    """Leave a recording as a process leaves it that was killed: rows lag behind the pixels, nobody wrote a report."""
    (rec / "report.json").unlink()
    (rec / "recording.json").unlink()  # as versions before 0.2 left them
    told = rows(rec)
    for row in told[first_lost:]:
        at = row["axes"]
        group = "left_well/" if at["p"] == 0 else "right/"
        (rec / f"raw.ome.zarr/{group}0/c/{at['t']}/{at['c']}/{at['z']}/0/0").unlink()
    kept = [json.dumps(row) for row in told[: first_lost - rows_behind]]
    (rec / "frames.jsonl").write_text("\n".join(kept) + '\n{"seq": 4, "str')


@pytest.fixture
def rec(bench):
    rec = bench.record(SOURCE.format(sizes="t = 3, p = 2, c = 2, z = 3"), shard_frames=1)
    assert len(rows(rec)) == 36
    kill(rec, 28, 3)
    return rec


@pytest.mark.parametrize("given", ["rec", "rec/raw.ome.zarr"])
def test_planes_that_were_never_written_are_lost(bench, rec, given):
    if given != "rec":  # of such an image, moved elsewhere, nothing but its chunks can tell
        for name in ("left_well", "right"):
            file = rec / f"raw.ome.zarr/{name}/zarr.json"
            tree = json.loads(file.read_text())
            tree["attributes"].pop("pellucid")
            file.write_text(json.dumps(tree))
    out = bench.process(given, bench.config('kind = "trail"\nhistory = 0'))
    frames = report(out)["frames"]
    assert (frames["processed"], frames["lost"], frames["unaccounted"]) == (28, {"not in IN": 8}, 0)
    says = "IN was not finished: 8 of its 36 planes were never written; they count as lost and stay empty"
    assert [line.strip() for line in bench.said].count(says) == 1
    assert report(out)["notes"] == [says]
    for position in ("left_well", "right"):
        raw = pixels(rec, f"raw.ome.zarr/{position}")
        np.testing.assert_array_equal(pixels(out, f"restored.ome.zarr/{position}"), raw)


def test_a_stack_that_was_not_written_to_its_end_stays_empty(bench, rec):
    with pytest.raises(RunError, match="of 12 frames failed and are empty in OUT: IN lacks z = "):
        bench.process("rec", bench.config(unit="stack"))
    out = bench.folder / "out"
    for row in rows(out):
        t, p, c = (row["axes"][name] for name in "tpc")
        restored = pixels(out, f"restored.ome.zarr/{('left_well', 'right')[p]}")[t, c]
        raw = pixels(rec, f"raw.ome.zarr/{('left_well', 'right')[p]}")[t, c]
        assert restored.any() == raw.any((1, 2)).all() == (row["state"] == "processed")


def test_a_black_plane_with_a_row_and_a_recording_with_its_end_are_not_asked(bench):
    rec = bench.record(SOURCE.format(sizes="t = 3, z = 3"), shard_frames=1)
    (rec / "raw.ome.zarr/0/c/1/0/1/0/0").unlink()  # zeros have no file
    out = bench.process("rec", bench.config('kind = "trail"\nhistory = 0'))
    assert report(out)["frames"]["processed"] == 9
    (rec / "report.json").unlink()
    (rec / "recording.json").unlink()
    again = bench.process("rec", bench.config('kind = "trail"\nhistory = 0'), "again")
    assert report(again)["frames"]["processed"] == 9
    assert not [line for line in bench.said if "not finished" in line]


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_shard_is_asked_for_its_chunks(tmp_path, where):
    array = zarr.create_array(
        str(tmp_path / "a/0"),
        shape=(7, 2, 16, 20),
        shards={"shape": (3, 2, 16, 20), "index_location": where},
        chunks=(1, 1, 16, 20),
        dtype="uint16",
        dimension_names=list("tcyx"),
    )
    there = {(0, 1), (2, 0), (6, 1)}
    for t, c in there:
        array[t, c] = 5
    (tmp_path / "a/zarr.json").write_text('{"attributes": {"ome": {"multiscales": [{"datasets": [{"path": "0"}]}]}}}')
    written = Written(tmp_path / "a")
    assert {(t, c) for t in range(7) for c in range(2) if {"t": t, "c": c} in written} == there
    shard = tmp_path / "a/0/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:50])  # cut off by the power
    assert {"t": 0, "c": 1} not in Written(tmp_path / "a")
