"""What a disk takes, how long a run lasts on it, and the warnings before it is full."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.recording.amounts import amount, span
from pellucid.recording.disk import Disk
from pellucid.recording.prediction import predict
from pellucid.recording.rate import Rate, Space, measure, nearest

GB, MB, RESERVE = 10**9, 10**6, 10**8


# -------------------------------------------------------------------- measuring


@pytest.mark.parametrize("in_file", [1, 16])
def test_it_measures_and_leaves_nothing(tmp_path, in_file):
    rate = measure(tmp_path, 1 << 20, seconds=0.3, planes_in_file=in_file)
    assert list(tmp_path.iterdir()) == []
    assert rate.written_bytes <= min(2 * GB, shutil.disk_usage(tmp_path).free // 20 + 1)
    assert rate.written_bytes % (1 << 20) == 0
    assert 0 < rate.bytes_s < math.inf
    assert rate.bytes_s == pytest.approx(rate.planes_s * (1 << 20))
    assert rate.accepted_bytes_s > 0
    assert rate.write_ms > 0
    assert rate.commit_ms > 0
    assert rate.free_bytes > 0


def test_of_a_folder_that_is_not_there_yet_the_first_above_it(tmp_path):
    measure(tmp_path / "a" / "b", 4096, seconds=0.05)
    assert list(tmp_path.iterdir()) == []
    assert nearest(tmp_path / "a" / "b") == tmp_path


class Slow(Disk):
    """Takes bytes at once, as a page cache does, and commits so many a second once a cache of its own is full."""

    def __init__(self, bytes_s: float, cache: int = 0) -> None:
        super().__init__()
        self._bytes_s, self._cache, self.created = bytes_s, cache, []

    def _create(self, path):
        self.created.append(path)
        return super()._create(path)

    def _sync(self, handle):
        size = os.fstat(handle).st_size
        hidden = min(size, self._cache)
        self._cache -= hidden
        time.sleep((size - hidden) / self._bytes_s)


def test_what_the_system_only_took_into_its_memory_does_not_count(tmp_path):
    disk = Slow(20 * MB)
    rate = measure(tmp_path, 100_000, seconds=1.0, disk=disk)
    assert rate.bytes_s < 20 * MB < rate.accepted_bytes_s
    assert rate.written_bytes < 25 * MB  # it did not write a GB to a disk on which that takes a minute


def test_a_memory_in_the_drive_that_is_full_after_the_first_half_does_not_count(tmp_path):
    rate = measure(tmp_path, 100_000, seconds=0.5, disk=Slow(20 * MB, cache=4 * MB))
    whole = rate.written_bytes / (rate.written_bytes - 4 * MB) * 20 * MB
    assert rate.bytes_s < whole


def test_a_disk_on_which_one_plane_takes_long_is_given_few(tmp_path):
    disk = Slow(2 * MB)
    measure(tmp_path, MB, seconds=0.2, disk=disk)
    assert len(disk.created) <= 2


def test_a_fault_is_told_and_nothing_is_left(tmp_path):
    class Failing(Slow):
        def _sync(self, handle):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        measure(tmp_path, 4096, seconds=0.2, disk=Failing(1))
    assert list(tmp_path.iterdir()) == []


def test_after_ctrl_c_nothing_is_left(tmp_path):
    class Interrupted(Disk):
        def _create(self, path):
            if "/0/7" in path.as_posix():
                raise KeyboardInterrupt
            return super()._create(path)

    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, 4096, seconds=0.2, disk=Interrupted())
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_measurement_left_is_removed_later(tmp_path):
    for name, age_s in ("old", 4000), ("new", 0):
        left = tmp_path / f".pellucid-rate-{name}"
        left.mkdir()
        os.utime(left, (time.time() - age_s,) * 2)
    measure(tmp_path, 4096, seconds=0.02)
    assert [path.name for path in tmp_path.iterdir()] == [".pellucid-rate-new"]


ON_TMPFS = """
import sys
from pathlib import Path
from pellucid.recording.rate import measure, Space
place = Path(sys.argv[1])
print(measure(place, 1 << 20).bytes_s)
print(measure(place, 4096, seconds=0.1).bytes_s)
space = Space(place, reserve_bytes=8 << 20)
print(space.look(0))
(place / "file").write_bytes(bytes(20 << 20))
print(space.look(1e6))
(place / "more").write_bytes(bytes(8 << 20))
print(space.look(1e6))
try:
    (place / "last").write_bytes(bytes(8 << 20))
except OSError:
    pass
print(measure(place, 4096).bytes_s, sorted(path.name for path in place.iterdir()))
"""


def test_a_small_and_a_full_disk(tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, to mount a small disk without being root")
    mount = f"mount -t tmpfs -o size=32m tmpfs {tmp_path} && exec {sys.executable} -c '{ON_TMPFS}' {tmp_path}"
    out = subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if "mount" in out.stderr or "unshare" in out.stderr:
        pytest.skip(f"needs a small disk: {out.stderr.strip()}")
    assert out.returncode == 0, out.stderr
    large, small, quiet, soon, reserve, full = out.stdout.splitlines()
    assert large == "None"  # a twentieth of 32 MB has no room for four planes of 1 MB
    assert float(small) > 0
    assert quiet == "None"
    assert "full in 4" in soon
    assert "1.0 MB/s are written" in soon
    assert "as good as full" in reserve
    assert full == "None ['file', 'last', 'more']"


# -------------------------------------------------------------------- predictions


def rate(mb_s, free=1300 * GB):
    return Rate(None if mb_s is None else mb_s * MB, None, free)


def told(needed_mb_s, measured_mb_s, free=1300 * GB, memory=4 * GB, **keys):
    needed = None if needed_mb_s is None else needed_mb_s * MB
    return predict(needed, rate(measured_mb_s, free), free, memory, RESERVE, **keys)


CASES = {
    "no end": ((520, 1400), {}, "fits", "fits 41 min (1.3 TB free at 520 MB/s)"),
    "hardly": ((520, 540), {}, "fits", "fits 41 min (1.3 TB free at 520 MB/s; the disk takes 540 MB/s, hardly more)"),
    "behind": (
        (840, 610),
        {},
        "behind",
        "the disk falls behind: 840 MB/s needed, 610 MB/s measured; "
        "the 4.0 GB that may wait last 17 s, then frames are lost",
    ),
    "behind, stops": (
        (840, 610),
        {"memory": 0, "then": "the run stops"},
        "behind",
        "the disk falls behind: 840 MB/s needed, 610 MB/s measured; the run stops at once",
    ),
    "behind, but the disk is full before": (
        (840, 610),
        {"free": 6 * GB},
        "full",
        "fits 9.6 s (6.0 GB free at 840 MB/s)",
    ),
    "behind, but ends before": (
        (840, 610),
        {"run_s": 10.0},
        "fits",
        "fits 10 s, to its end (1.3 TB free at 840 MB/s; "
        "the disk takes 610 MB/s, the 4.0 GB that may wait the rest)",
    ),
    "behind, and ends after": ((840, 610), {"run_s": 60.0}, "behind", None),
    "waits": (
        (840, 610),
        {"waits": True},
        "fits",
        "fits 35 min (1.3 TB free at 610 MB/s; the source could give 840 MB/s and waits for the disk)",
    ),
    "finite": ((500, 1400), {"run_s": 600.0}, "fits", "fits 10 min, to its end (300 GB, 1.3 TB free at 500 MB/s)"),
    "finite, bytes": (
        (500, 1400),
        {"run_bytes": 5 * GB},
        "fits",
        "fits 10 s, to its end (5.0 GB, 1.3 TB free at 500 MB/s)",
    ),
    "too long": (
        (500, 1400),
        {"run_s": 3600.0},
        "full",
        "does not fit: the disk is full after 43 min of 60 min: 1.8 TB are needed, 1.3 TB free at 500 MB/s",
    ),
    "full": ((500, 1400), {"free": RESERVE}, "full", "the disk is full: 100 MB free, 100 MB are kept as a reserve"),
    "not measured": (
        (500, None),
        {"free": 2 * GB},
        "fits",
        "fits 3.8 s (2.0 GB free at 500 MB/s; the disk has no room to be measured)",
    ),
    "any rate": (
        (None, 610),
        {"frame_bytes": 8 * MB},
        "unknown",
        "fits 35 min where frames come as fast as they can be written: the disk takes 610 MB/s (76.2 frames/s), "
        "1.3 TB free; the frame rate is not known: tell it with --fps",
    ),
    "any rate, waits": (
        (None, 610),
        {"waits": True},
        "unknown",
        "fits 35 min where frames come as fast as they can be written: the disk takes 610 MB/s, 1.3 TB free",
    ),
    "any rate, finite": (
        (None, 610),
        {"run_bytes": 5 * GB},
        "unknown",
        "fits: 5.0 GB are needed, 1.3 TB free; whether it is fast enough depends on the rate: "
        "the disk takes 610 MB/s; the frame rate is not known: tell it with --fps",
    ),
    "any rate, finite, waits": (
        (None, 610),
        {"run_bytes": 5 * GB, "waits": True},
        "fits",
        "fits: 5.0 GB are needed, 1.3 TB free; the disk takes 610 MB/s, and the source waits for it",
    ),
    "any rate, too many": (
        (None, 610),
        {"run_bytes": 5000 * GB},
        "full",
        "does not fit: 5.0 TB are needed, 1.3 TB free",
    ),
    "any rate, some time": (
        (None, 610),
        {"run_s": 60.0},
        "unknown",
        "fits 60 s, to its end, at any rate that the disk keeps up with: the disk takes 610 MB/s; "
        "the frame rate is not known: tell it with --fps",
    ),
    "any rate, some time, waits": (
        (None, 610),
        {"run_s": 60.0, "waits": True},
        "fits",
        "fits 60 s, to its end, at any rate that the disk keeps up with: the disk takes 610 MB/s",
    ),
    "nothing known": (
        (None, None),
        {"free": 2 * GB},
        "unknown",
        "the frame rate is not known: tell it with --fps; 2.0 GB free; the disk has no room to be measured",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_predictions(case):
    at, keys, end, text = CASES[case]
    prediction = told(*at, **keys)
    assert prediction.end == end
    assert text is None or prediction.text == text
    assert prediction.fits == (end == "fits")


@settings(deadline=None)
@given(
    needed=st.none() | st.floats(0, 1e12),
    takes=st.none() | st.floats(1, 1e12),
    free=st.integers(0, 10**15),
    memory=st.integers(0, 10**12),
    run_bytes=st.none() | st.floats(0, 1e18),
    run_s=st.none() | st.floats(0, 1e9),
    waits=st.booleans(),
)
def test_no_figures_break_a_prediction(needed, takes, free, memory, run_bytes, run_s, waits):
    keys = {"run_bytes": run_bytes, "run_s": run_s, "waits": waits, "frame_bytes": 100}
    prediction = predict(needed, Rate(takes, None, free), free, memory, RESERVE, **keys)
    assert "\n" not in prediction.text
    assert not {"nan", "inf", "-"} & set(prediction.text.replace("--fps", "").split())
    assert prediction.lasts_s is None or prediction.lasts_s >= 0
    if waits:
        assert prediction.end != "behind"


@pytest.mark.parametrize(
    ("given", "says"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (9.96e6, "10 MB"), (999.6e6, "1.0 GB"), (1.3e12, "1.3 TB")],
)
def test_amounts(given, says):
    assert amount(given) == says


@pytest.mark.parametrize(
    ("given", "says"),
    [(-1, "0 s"), (1.96, "1.9 s"), (119, "119 s"), (2479, "41 min"), (7200, "2 h"), (3e5, "3.4 days"), (1e12, "years")],
)
def test_spans(given, says):
    assert span(given) == says


# -------------------------------------------------------------------- space


Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(monkeypatch):
    """A disk of which the free space is told by the test."""

    class Told:
        free = 0

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, Told.free))
    return Told


def test_space_warns_once_on_each_step_of_its_way_down(disk, tmp_path):
    space = Space(tmp_path, reserve_bytes=100)
    lines = []
    for disk.free in range(1000, 0, -1):  # a byte a second
        lines.append((disk.free, space.look(1.0)))
    said = [(free, line) for free, line in lines if line]
    assert [free for free, _ in said] == [699, 219, 129, 99]
    assert "full in 9 min" in said[0][1]
    assert "full in 119 s" in said[1][1]
    assert "full in 29 s" in said[2][1]
    assert "as good as full" in said[3][1]
    assert str(tmp_path) in said[0][1]


def test_a_rate_that_goes_up_and_down_says_nothing_twice(disk, tmp_path):
    space = Space(tmp_path, reserve_bytes=100)
    disk.free = 650
    assert space.look(1.0)
    assert not any(space.look(speed) for speed in (0.0, 0.1, 1.0, 0.5, 1.1))
    disk.free = 10_000  # somebody made room
    assert space.look(1.0) is None
    disk.free = 650
    assert space.look(1.0)


def test_a_sudden_end_says_the_last_word_only(disk, tmp_path):
    space = Space(tmp_path, reserve_bytes=100)
    disk.free = 120
    assert "full in 20 s" in space.look(1.0)
    assert space.look(1.0) is None


def test_nothing_is_written_and_little_is_left(disk, tmp_path):
    disk.free = 101
    space = Space(tmp_path, reserve_bytes=100)
    assert space.look(0.0) is None
    disk.free = 99
    assert "reserve" in space.look(0.0)


def test_a_drive_that_is_gone_is_told_once(monkeypatch, tmp_path):
    space = Space(tmp_path)

    def gone(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", gone)
        assert "cannot be told: Input/output error" in space.look(1.0)
        assert space.look(1.0) is None
    assert space.look(1.0) is None


def test_the_real_disk(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert Space(tmp_path / "not there").look(free / 1000) is None
    assert "full in" in Space(Path(tmp_path)).look(free / 100)
