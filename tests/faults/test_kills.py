"""Processes are killed at a random moment: what was written is there, whole, and recovery can be killed as well.

More of the same, and the table of BENCHMARKS.md: ``python tools/faults.py``.
"""

from __future__ import annotations

import random

import pytest

from tests.faults.fault_parts import KEYS, busy
from tests.faults.killed_runs import Sessions, kill_recorder, kill_recovery, unfinished


@pytest.mark.parametrize("keys", KEYS)
def test_what_was_written_survives_the_kill_of_the_recorder(keys, tmp_path):
    rng = random.Random()
    tries = [kill_recorder(tmp_path, KEYS[keys], rng) for _ in range(4)]
    assert [one for one in tries if not one.good] == []


def test_recovery_may_be_killed_and_done_again(tmp_path):
    written = unfinished(tmp_path / "whole", KEYS["shards of 8, often committed"], 40)
    assert len(written) >= 40
    out = kill_recovery(tmp_path, tmp_path / "whole", written, random.Random(), times=5)
    assert out.good, out


@pytest.fixture(scope="module")
def sessions(tmp_path_factory) -> Sessions:
    return Sessions(tmp_path_factory.mktemp("sessions"))


@pytest.mark.parametrize("burning", [False, True], ids=["idle", "busy"])
def test_a_session_that_is_killed_with_its_stage(burning, sessions):
    rng = random.Random()
    with busy(burning):
        tries = [sessions.kill(KEYS[keys], rng) for keys in ("shards of 8, often committed", "NDTiff", "shards")]
    assert [one for one in tries if not one.good] == []
    assert sum(one.sent for one in tries) > 0


def test_a_session_whose_camera_is_killed(sessions):
    out = sessions.kill_camera(KEYS["zstd, parts"], random.Random())
    assert out.good, out
    assert out.sent > 0


@pytest.mark.screen
@pytest.mark.usefixtures("screen")
def test_a_session_whose_window_is_killed(sessions):
    out = sessions.kill_window(KEYS["OME-TIFF"], random.Random())
    assert out.good, out
