"""Whatever ends a run, the next call goes on, and OUT is as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pellucid.errors import RunError, SinkError, StageError
from pellucid.process.arrays import Arrays
from pellucid.process.block import BlockRunner
from pellucid.process.folder import OutFolder
from pellucid.process.plan import Plan
from pellucid.runtime.chain import Chain
from tests.process.conftest import files, pixels, report, rows

RNG = np.random.default_rng(4)
SLOW = 'kind = "soften"\nslow_s = 0.02'


@pytest.fixture
def given(bench):
    bench.tiff("given.tif", RNG.integers(1000, 4000, (60, 32, 40)).astype("uint16"), metadata={"axes": "TYX"})
    return "given.tif"


def blocks_of(out) -> int:
    return len(list(out.glob(".process/rows/*.jsonl")))


def wait_for(what, process: subprocess.Popen[str], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C cannot be sent to one process there")
def test_ctrl_c_and_kill_9_leave_what_the_next_call_ends(bench, given):
    config, out = bench.config(SLOW), bench.folder / "out"
    whole = bench.process(given, config, "whole")
    process = bench.start(given, config)
    wait_for(lambda: blocks_of(out) >= 2, process)
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=30)
    assert process.returncode == 0, wrong
    assert "of 60 frames are done. Type the same command again to go on" in said
    assert "Traceback" not in wrong
    assert not (out / "report.json").exists()
    before = blocks_of(out)
    # Again, and now with no time to end anything.
    process = bench.start(given, config)
    wait_for(lambda: blocks_of(out) >= before + 3, process)
    process.kill()
    process.communicate()
    before = blocks_of(out)
    assert before < 30
    # What a write that was cut off leaves, and a chunk of a block that was not done.
    (out / "restored.ome.zarr/0/c/59/0/0").mkdir(parents=True, exist_ok=True)
    (out / "restored.ome.zarr/0/c/59/0/0/0").write_bytes(b"torn")
    (out / "restored.ome.zarr/0/c/59/0/0/0.77.partial").write_bytes(b"torn")
    bench.process(given, config)
    assert f"{2 * before} frames were done by an earlier call" in bench.said
    assert files(out) == files(whole)
    assert [row["seq"] for row in rows(out)] == list(range(60))
    assert report(out)["frames"] == report(whole)["frames"]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())
    with pytest.raises(SinkError, match="exists and is finished; it is never overwritten"):
        bench.process(given, config)


def begun(bench, given, config) -> None:
    """Leave an OUT of which some blocks are done."""

    class Off(Exception):
        pass

    def write(self, stream, plane, place, picture):
        if place[1][0] == 20:
            raise Off
        before(self, stream, plane, place, picture)

    before, Arrays.write = Arrays.write, write
    try:
        with pytest.raises(Off):
            bench.process(given, config)
    finally:
        Arrays.write = before


def test_another_in_config_or_plan_is_refused(bench, given):
    config = bench.config()
    text = config.read_text()
    begun(bench, given, config)
    out = bench.folder / "out"
    assert blocks_of(out) == 10
    with pytest.raises(SinkError, match=r"the config has changed\. Type that one again"):
        bench.process(given, config, sets=["stages.0.slow_s=0.001"])
    with pytest.raises(SinkError, match="with-raw was False, now True"):
        bench.process(given, config, with_raw=True)
    shutil.copy(bench.folder / given, bench.folder / "other.tif")
    with pytest.raises(SinkError, match=r"IN was .*given.tif, now .*other.tif"):
        bench.process("other.tif", config)
    plan = out / ".process/plan.json"
    was = plan.read_text()
    plan.write_text(was.replace('"torch": "', '"torch": "1.'))
    with pytest.raises(SinkError, match="it was begun with pellucid"):
        bench.process(given, config)
    plan.write_text("{")
    with pytest.raises(SinkError, match="its plan cannot be read"):
        bench.process(given, config)
    plan.write_text(was)
    picture = (bench.folder / given).read_bytes()
    (bench.folder / given).write_bytes(picture[:-2] + b"\0\0")
    with pytest.raises(SinkError, match=r"given.tif has changed"):
        bench.process(given, config)
    assert blocks_of(out) == 10
    assert config.read_text() == text


def test_two_at_once_are_refused(bench, given):
    begun(bench, given, bench.config())
    with (
        OutFolder(bench.folder / "out").locked(),
        pytest.raises(RunError, match="is being worked on by another pellucid process"),
    ):
        bench.process(given, bench.config())


def test_a_disk_that_is_full_ends_in_one_line_and_can_be_gone_on_with(bench, given, monkeypatch):
    def write(self, stream, plane, place, picture):
        if place[1][0] == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        before(self, stream, plane, place, picture)

    before = Arrays.write
    with monkeypatch.context() as patched:
        patched.setattr(Arrays, "write", write)
        with pytest.raises(RunError, match="Free some space and type the same command again"):
            bench.process(given, bench.config())
    out = bench.process(given, bench.config())
    assert len(rows(out)) == 60
    assert pixels(out).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", ["frames.jsonl", "report.json"])
def test_a_disk_that_is_full_at_the_very_end(bench, given, monkeypatch, name):
    def replace(half, end):
        if end == bench.folder / "out" / name:
            raise OSError(errno.ENOSPC, "No space left on device")
        before(half, end)

    before = os.replace
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(RunError, match=r"No space left on device\. Free some space and type the same"):
            bench.process(given, bench.config())
    out = bench.process(given, bench.config())
    assert len(rows(out)) == report(out)["frames"]["processed"] == 60
    assert not (out / ".process").exists()


def test_tiles_that_the_memory_allows_are_those_of_the_beginning(bench, given, monkeypatch):
    config = bench.config('kind = "halves"\nwrites = "half"', 'kind = "soften"')
    monkeypatch.setenv("PELLUCID_TEST_TILE", "16x40")
    begun(bench, given, config)
    out = bench.folder / "out"
    plan = json.loads((out / ".process/plan.json").read_text())
    assert plan["tiles"] == [[[16, 40], None]]
    monkeypatch.delenv("PELLUCID_TEST_TILE")
    says = "stages[0] halves takes whole frames in the memory there is here, and OUT was begun with tiles of 16x40"
    with pytest.raises(SinkError, match=re.escape(says) + ".*memory_gb = 8 .* in that stage") as caught:
        bench.process(given, config)
    assert "\n" not in str(caught.value)
    # A worker on another computer, which was not there when the call looked.
    runner = BlockRunner(out)
    with pytest.raises(RunError, match=f"{re.escape(says)}.*memory_gb"):
        runner.run(15)
    runner.close()
    monkeypatch.setenv("PELLUCID_TEST_TILE", "16x40")
    assert report(bench.process(given, config))["frames"]["processed"] == 60


def test_the_tiles_of_deconvolve_are_in_the_plan(bench):
    bench.tiff("big.tif", RNG.integers(1000, 4000, (21, 300, 300)).astype("uint16"), metadata={"axes": "TYX"})
    psf = 'kind = "deconvolve"\niterations = 1\npsf = { kind = "gaussian", fwhm_px = 2 }\n'
    begun(bench, "big.tif", bench.config(psf + "memory_gb = 0.003"))
    ((tile,),) = json.loads((bench.folder / "out/.process/plan.json").read_text())["tiles"]
    assert len(tile) == 2
    assert tile != [300, 300]


def test_memory_that_runs_out_fails_no_frame(bench, given, monkeypatch):
    config = bench.config('kind = "fussy"')
    begun(bench, given, config)

    def submit(self, slot):
        raise StageError("stages[0] fussy raised MemoryError") from MemoryError()

    with monkeypatch.context() as patched:
        patched.setattr(Chain, "submit", submit)
        with pytest.raises(RunError, match="when there is more memory"):
            bench.process(given, config)
    assert report(bench.process(given, config))["frames"]["processed"] == 60


def test_an_out_that_was_not_made_to_the_end_leaves_nothing(bench, given, monkeypatch):
    def broken(*args, **keys):
        raise KeyboardInterrupt

    (bench.folder / ".out.4711/restored.ome.zarr").mkdir(parents=True)  # of a call that was killed
    with monkeypatch.context() as patched:
        patched.setattr("pellucid.process.command.make_arrays", broken)
        with pytest.raises(KeyboardInterrupt):
            bench.process(given, bench.config())
    assert sorted(p.name for p in bench.folder.iterdir()) == ["given.tif", "process.toml"]


def test_blocks_cover_every_frame_once(bench):
    plan = Plan(
        "", {}, "", "", "plane", 1, "cpu", False, {}, [100, 0, 7, 5], [32, 32, 3, 1], [{"a": {}}] * 3 + [{}], []
    )
    seen = [(b.stream, u) for b in plan.blocks() for u in range(b.first, b.first + b.count)]
    assert seen == [(0, u) for u in range(100)] + [(2, u) for u in range(7)]
    assert [b.number for b in plan.blocks()] == list(range(7))
    assert json.loads(plan.text())["units"] == [100, 0, 7, 5]
