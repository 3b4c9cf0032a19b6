"""A disk that is full, breaks, stands still, goes away: said in one line, counted, and what was there stays."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from pathlib import Path

import pytest

from pellucid.errors import SinkError
from pellucid.recording.disk import Disk
from pellucid.recording.recover import recover
from pellucid.recording.verify import verify
from tests.faults.frames_told import Run, found


class Faulty(Disk):
    """Breaks on demand.

    Attributes
    ----------
    no_room, broken, unsynced : bool
        Writing raises ENOSPC, or EIO; syncing raises EIO.
    go : threading.Event
        Writing waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.no_room = self.broken = self.unsynced = False
        self.go = threading.Event()
        self.go.set()
        self.only = ""

    def _write(self, handle: int, data, at: int) -> int:
        if len(data) > 4000:  # pixels; the reserve that is kept has room for the rest
            self.go.wait(30)
            if self.no_room:
                # In part at first, as a disk does.
                self.no_room = False
                self.broken_again = True
                super()._write(handle, data[: len(data) // 2], at)
                self.no_room = True
                raise OSError(errno.ENOSPC, "No space left on device")
            if self.broken:
                raise OSError(errno.EIO, "Input/output error")
        return super()._write(handle, data, at)

    def _sync(self, handle: int) -> None:
        if self.unsynced:
            raise OSError(errno.EIO, "Input/output error")
        super()._sync(handle)


def until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def give_until_it_fails(run: Run, most: int = 2000) -> str:
    for _ in range(most):
        try:
            run.give(1)
        except (SinkError, OSError) as error:
            return str(error)
        time.sleep(0.001)
    raise AssertionError("nobody noticed")


@pytest.mark.parametrize("keys", [{}, {"shard_frames": 1}], ids=["shards", "a file a plane"])
@pytest.mark.parametrize("fault", ["no_room", "broken"])
def test_a_write_that_fails_ends_the_recording_loudly_and_keeps_the_rest(fault, keys, tmp_path):
    run = Run(tmp_path / "rec", disk := Faulty(), **keys)
    run.give(20)
    until(lambda: run.ledger.recorded == 20)
    setattr(disk, fault, True)
    says = give_until_it_fails(run)
    assert "No space left" in says or "Input/output" in says
    setattr(disk, fault, False)
    with pytest.raises(SinkError, match="type pellucid recover"):
        run.end()
    assert any("writing failed" in line for line in run.said)
    assert run.recorder.lost > 0
    told = recover(tmp_path / "rec", check_all=True)
    assert told.recorded == run.ledger.recorded
    assert [fault for fault in verify(tmp_path / "rec").faults if "config.toml" not in fault] == []
    for seen in found(tmp_path / "rec").values():
        assert all(seen.values())
    assert set(range(20)) <= set(found(tmp_path / "rec")["raw"])


def test_a_sync_that_fails_is_an_error_for_ever(tmp_path):
    run = Run(tmp_path / "rec", disk := Faulty(), commit_every_s=0.05)
    run.give(5)
    until(lambda: run.recorder._committer.commits > 0)
    commits = run.recorder._committer.commits
    disk.unsynced = True
    says = give_until_it_fails(run)
    assert "Input/output error" in says
    disk.unsynced = False  # the next one would succeed, and would have written nothing
    with pytest.raises(OSError, match="Input/output"):
        disk.commit()
    with pytest.raises(SinkError, match="recover"):
        run.end()
    assert any("does not keep what is written" in line for line in run.said)
    assert run.recorder._committer.commits <= commits + 1
    recover(tmp_path / "rec")
    assert all(all(seen.values()) for seen in found(tmp_path / "rec").values())


@pytest.mark.parametrize("when_full", ["drop", "stop"])
def test_a_disk_that_stands_still_for_a_while(when_full, tmp_path):
    frame = 64 * 64 * (2 + 4)
    keys = {"buffer_mb": 5 * frame / 1e6, "when_full": when_full}
    run = Run(tmp_path / "rec", disk := Faulty(), **keys)
    run.recorder._intake._hold = None
    run.give(10)
    until(lambda: run.ledger.recorded == 10)
    ring, kept = run.ring, {}
    # With slots that are held, as in a session: two may wait, then memory, then it is full.
    run.recorder._intake._hold = lambda slot: kept.setdefault(id(slot), 0)
    disk.go.clear()
    if when_full == "stop":
        with pytest.raises(SinkError, match="larger buffer_mb, a spill folder"):
            run.give(40)
        disk.go.set()
        run.recorder.finish()
        run.leave()
    else:
        run.give(40)
        assert run.recorder.skipped > 0
        disk.go.set()
        run.end()
        assert run.recorder._intake.unrecorded["disk too slow"] > 20
    seen = found(tmp_path / "rec")
    assert set(range(10)) <= set(seen["raw"])
    assert len(seen["raw"]) < 40
    assert ring is run.ring


def test_a_folder_that_is_deleted_in_the_middle(tmp_path):
    run = Run(tmp_path / "rec", commit_every_s=0.05, shard_frames=1)
    run.give(10)
    (tmp_path / "rec").rename(tmp_path / "gone")  # at once, as a drive goes
    says = give_until_it_fails(run)
    assert says
    with pytest.raises(SinkError):
        run.end()
    assert len(says.splitlines()) == 1


def test_damage_after_the_fact_is_one_line(tmp_path):
    run = Run(tmp_path / "rec", shard_frames=4)
    run.give(10)
    until(lambda: run.ledger.recorded == 10)
    left = tmp_path / "left"
    shutil.copytree(tmp_path / "rec", left)
    run.end()

    def copy(name: str) -> Path:
        shutil.copytree(left, tmp_path / name)
        return tmp_path / name

    cut = copy("cut journal")
    data = (cut / "journal").read_bytes()
    (cut / "journal").write_bytes(data[: len(data) * 2 // 3])
    recover(cut)
    assert all(all(seen.values()) for seen in found(cut).values())
    garbage = copy("garbage in the journal")
    broken = bytearray(data)
    for at in range(100, len(broken), 701):
        broken[at] ^= 0x55
    (garbage / "journal").write_bytes(bytes(broken))
    recover(garbage)
    assert all(all(seen.values()) for seen in found(garbage).values())
    shard = copy("cut shard")
    file = next(p for p in (shard / "raw.ome.zarr/0/c/0").rglob("*") if p.is_file())
    file.write_bytes(file.read_bytes()[:20_000])
    told = recover(shard)
    assert told.torn > 0
    assert all(all(seen.values()) for seen in found(shard).values())
    (lacks := copy("no metadata")).joinpath("raw.ome.zarr/0/zarr.json").unlink()
    recover(lacks)
    assert all(all(seen.values()) for seen in found(lacks).values())
    (lacks := copy("no facts")).joinpath("recording.json").unlink()
    with pytest.raises(SinkError, match="is no recording") as error:
        recover(lacks)
    assert len(str(error.value).splitlines()) == 1
    (lacks := copy("no journal")).joinpath("journal").unlink()
    before = sorted(p.relative_to(lacks) for p in lacks.rglob("*") if p.name != ".lock")
    with pytest.raises(SinkError, match="has no journal"):
        recover(lacks)
    assert sorted(p.relative_to(lacks) for p in lacks.rglob("*") if p.name != ".lock") == before
    (empty := copy("empty journal")).joinpath("journal").write_bytes(b"")
    with pytest.raises(SinkError, match="a journal that cannot be read"):
        recover(empty)
    nonsense = copy("nonsense")
    (nonsense / "recording.json").write_text("[1, 2")
    with pytest.raises(SinkError, match="is damaged"):
        recover(nonsense)


def test_a_recording_that_runs_is_not_recovered(tmp_path):
    run = Run(tmp_path / "rec")
    run.give(3)
    with pytest.raises(SinkError, match="is being recorded"):
        recover(tmp_path / "rec")
    run.end()
    assert recover(tmp_path / "rec").state == "finished"
