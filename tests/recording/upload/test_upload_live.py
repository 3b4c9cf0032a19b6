"""A recorder that puts what it commits into a bucket, while the line comes and goes."""

from __future__ import annotations

import time

import pytest

from pellucid.errors import SinkError
from pellucid.upload_command import upload_folder
from tests.faults.frames_told import Run
from tests.recording.upload.s3_server import here, there


def give(run: Run, frames: int, seconds: float) -> None:
    for _ in range(frames):
        run.give(1)
        time.sleep(seconds / frames)


def test_what_is_committed_is_put_while_the_run_lasts_and_a_pulled_cable_costs_nothing(cable, store, tmp_path):
    run = Run(tmp_path / "run", shard_frames=4, commit_every_s=0.1, upload="s3://lab/day 1")
    give(run, 30, 1.0)
    end = time.monotonic() + 20
    while not any("/c/" in name for name in there(store)):
        assert time.monotonic() < end, "nothing came before the end of the run"
        time.sleep(0.02)
    cable.pull()
    give(run, 30, 1.0)
    cable.plug()
    give(run, 10, 0.5)
    run.end()
    assert there(store) == here(tmp_path / "run")
    assert any("files are in s3://lab/day 1/run" in line for line in run.said)


def test_what_is_not_there_at_the_end_is_said_and_put_later(cable, store, tmp_path):
    run = Run(tmp_path / "run", commit_every_s=0.1, upload="s3://lab", upload_wait_s=0.5)
    cable.pull()
    give(run, 10, 0.3)
    run.end()
    says = next(line for line in run.said if "are not yet" in line)
    url = says.split()[-1]
    cable.plug()
    assert f"type pellucid upload {tmp_path / 'run'} {url}" in says
    assert upload_folder(tmp_path / "run", url, lambda: False)
    assert there(store, url) == here(tmp_path / "run")


def test_a_bucket_that_is_none_is_said_before_the_run(store, tmp_path):
    with pytest.raises(SinkError, match="nobody"):
        Run(tmp_path / "run", upload="s3://nobody/has this")
    assert not (tmp_path / "run").exists()
