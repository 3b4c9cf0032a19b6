"""The power fails: what was committed is there, and nothing that is called there is wrong."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from pellucid.errors import SinkError
from pellucid.recording.recover import recover
from tests.faults.cut_power import PoweredDisk
from tests.faults.frames_told import Run, found

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the power is cut on Linux: it reads /proc/self/fd")

KEYS = {
    "shards": {},
    "small shards": {"shard_frames": 4},
    "a file a plane": {"shard_frames": 1},
    "zstd, parts": {"compression": "zstd", "shard_frames": 3, "part_frames": 7},
    "tiff": {"format": "ome-tiff"},
}


@pytest.mark.parametrize("kind", ["synced", "some", "garbage"])
@pytest.mark.parametrize("keys", KEYS)
def test_what_was_committed_survives_a_power_cut(keys, kind, tmp_path):
    rng = random.Random(f"{keys} {kind}")
    run = Run(tmp_path / "rec", disk := PoweredDisk(tmp_path / "rec"), commit_every_s=3600, **KEYS[keys])
    try:
        committed = _cuts(run, disk, rng, kind, tmp_path)
    finally:
        run.end()
    assert committed <= run.sent
    left = tmp_path / "end"
    disk.cut(left, "synced", rng)
    assert {len(seen) for seen in found(left).values()} == {run.sent}
    assert all(all(seen.values()) for seen in found(left).values())


def _cuts(run: Run, disk: PoweredDisk, rng: random.Random, kind: str, tmp_path: Path) -> int:
    committed = 0
    for cut in range(6):
        run.give(rng.randint(1, 9))
        _wait(run)
        if rng.random() < 0.6:
            # As the committer does it, at a moment that is known here.
            run.recorder._grow()
            disk.commit()
            run.recorder._journal.add({"commit": 0})
            committed = run.sent
        left = tmp_path / f"cut{cut}"
        disk.cut(left, kind, rng)
        if not left.exists():
            assert not committed
            continue
        _check(left, committed, run.sent)
    return committed


def _wait(run: Run) -> None:
    """Until all that was given is written."""
    while run.ledger.recorded < run.sent or run.recorder._parts is None or any(p.pending for p in run.recorder._parts):
        pass


def _check(left, committed: int, sent: int) -> None:
    try:
        told = recover(left)
    except SinkError as error:
        if committed:
            raise AssertionError(f"committed frames are lost: {error}") from error
        return
    for plane, seen in found(left).items():
        wrong = [i for i, right in seen.items() if not right]
        assert not wrong, f"{plane}: wrong pixels in {wrong}"
        lost = [i for i in range(committed) if i not in seen]
        assert not lost, f"{plane}: committed and lost: {lost}; {list(told.lines())}"
        assert len(seen) <= sent
    assert recover(left).state == "recovered"
