"""What a disk takes, for how long, and when it is nearly full.

How a burst is told from a rate: bytes count when a commit that covers them has come back, never when a write call has.
What the system holds in its memory (the page cache) is thus paid for by the commit that ends the measurement. The rate
is the slower one of the whole and of its second half: the first half may have gone into a memory within the drive. A
drive with a memory that is larger than what is written here (most SSDs have one, of many GB) is judged too fast; only a
run as long as yours would tell, and `Space` and the run's own report do.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pellucid.metrics import Histogram, now_ns
from pellucid.recording.amounts import amount, span
from pellucid.recording.disk import Disk, Growing

__all__ = ["RESERVE_BYTES", "Rate", "Space", "measure", "nearest"]

RESERVE_BYTES = 64 << 20
"""Of a disk that should never be filled: rows, the report and what others write have to go somewhere."""
MOST_BYTES, MOST_SHARE = 2 * 10**9, 0.05
_FEWEST, _MOST, _PLANES_BYTES = 4, 4096, 64 << 20
_NAME, _STALE_S = ".pellucid-rate-", 3600.0
_WARN_S = (600.0, 120.0, 30.0)


@dataclass(frozen=True)
class Rate:
    """What a disk takes.

    Parameters
    ----------
    bytes_s
        Sustained: committed bytes a second; None where the disk has no room for a measurement.
    planes_s
        Likewise.
    free_bytes
        Before the measurement.
    accepted_bytes_s
        As fast as the system took them into its memory, which lasts for a burst.
    write_ms, commit_ms
        The 99th percentile of one write and of one commit, in ms; of few commits it is the longest.
    written_bytes
        For this measurement.
    """

    bytes_s: float | None
    planes_s: float | None
    free_bytes: int
    accepted_bytes_s: float | None = None
    write_ms: float | None = None
    commit_ms: float | None = None
    written_bytes: int = 0


def nearest(folder: Path) -> Path:
    """Return the folder, or the first above it that there is."""
    folder = folder.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def measure(
    folder: Path,
    plane_bytes: int,
    *,
    seconds: float = 1.5,
    commit_every_s: float = 1.0,
    planes_in_file: int = 1,
    disk: Disk | None = None,
) -> Rate:
    """Write as a recorder does and commit at the bound; remove it all.

    Parameters
    ----------
    folder
        Where there is none yet, the first above it that there is.
    plane_bytes
        Of one plane; its pixels are noise, which no drive can make smaller.
    seconds
        To spend, but for a disk so slow that a single plane takes longer, or one that becomes slow while it works off
        what it was given. What is written is at most 2 GB and at most a twentieth of the free space.
    commit_every_s
        The recorder's bound; at most a quarter of `seconds`, since one commit alone tells little.
    planes_in_file
        Written one after the other; a file for each costs a small plane most of its time.
    disk
        For tests: one that is slow, or fails.

    Raises
    ------
    OSError
        Where the folder cannot be written.
    """
    folder = nearest(folder)
    _sweep(folder)
    free = shutil.disk_usage(folder).free
    budget = min(int(min(MOST_BYTES, free * MOST_SHARE)) // max(plane_bytes, 1), _MOST * planes_in_file)
    if budget < _FEWEST:
        return Rate(None, None, free)
    planes = _noise(plane_bytes, budget)
    with _hidden(folder) as place, ThreadPoolExecutor(1, "pellucid rate") as committer:
        measurement = _Measurement(disk or Disk(), place, planes, planes_in_file, committer)
        try:
            return measurement.run(budget, seconds, commit_every_s, free)
        finally:
            measurement.close()


class _Measurement:
    """Batches of planes: one is written while the one before is committed, so the disk never waits for the writer.

    The first is a single plane. The next are as large as a commit within the bound allows, so that neither a slow disk
    nor one that takes milliseconds for each file holds the caller up.
    """

    def __init__(
        self, disk: Disk, place: Path, planes: Sequence[bytes], in_file: int, committer: ThreadPoolExecutor
    ) -> None:
        self._disk, self._place, self._planes, self._committer = disk, place, planes, committer
        self._in_file = in_file
        self._file: Growing | None = None
        self._marks = [(now_ns(), 0)]
        self._writes, self._commits = Histogram(), Histogram()
        self._written = 0

    def run(self, budget: int, seconds: float, commit_every_s: float, free: int) -> Rate:
        begun = now_ns()
        target_s = min(commit_every_s, seconds / 4)
        batch = 1
        owed: Future[float] | None = None
        while True:
            plane_s = self._write(batch, now_ns() + round(target_s * 1e9))
            first = owed is None
            if owed is not None:
                plane_s = max(owed.result(), plane_s)
            owed = self._committer.submit(self._commit, self._written)
            # What was written last is still to be committed; a guess from small batches may be far too long.
            left_s = seconds - (now_ns() - begun) * 1e-9 - plane_s * batch
            if first or left_s < plane_s:
                plane_s = owed.result()
                left_s = seconds - (now_ns() - begun) * 1e-9
            most = min(target_s, left_s) / plane_s, 4 * batch, max(budget // 16, 1), budget - self._written
            batch = int(min(most))
            if batch < 1:
                break
        owed.result()
        return self._rate(free)

    def _write(self, count: int, until_ns: int) -> float:
        """Write planes; return the seconds of one."""
        begun = now_ns()
        for i in range(count):
            before = now_ns()
            self._write_plane(self._planes[self._written % len(self._planes)])
            self._written += 1
            now = now_ns()
            self._writes.add(now - before)
            if now > until_ns:
                return (now - begun) * 1e-9 / (i + 1)
        return max(now_ns() - begun, 1) * 1e-9 / count

    def _write_plane(self, plane: bytes) -> None:
        path = self._place / f"{self._written // 1000}" / f"{self._written}"
        if self._in_file == 1:
            self._disk.write_new(path, [plane])
            return
        if self._written % self._in_file == 0:
            self.close()
            self._file = self._disk.grow(path)
        assert self._file is not None
        self._file.append([plane])

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()

    def _commit(self, planes: int) -> float:
        """Commit what was written; return the seconds of one plane."""
        before = now_ns()
        self._disk.commit()
        now = now_ns()
        self._commits.add(now - before)
        count = planes - self._marks[-1][1]
        self._marks.append((now, planes))
        return (now - before) * 1e-9 / count

    def _rate(self, free: int) -> Rate:
        nbytes = len(self._planes[0])
        (begin, _), (end, planes) = self._marks[0], self._marks[-1]
        rates = [planes / max((end - begin) * 1e-9, 1e-9)]
        half, had = next(mark for mark in self._marks if 2 * mark[1] >= planes)
        if half < end:
            rates.append((planes - had) / ((end - half) * 1e-9))
        return Rate(
            bytes_s=min(rates) * nbytes,
            planes_s=min(rates),
            free_bytes=free,
            accepted_bytes_s=planes * nbytes / max(self._writes.sum_ns * 1e-9, 1e-9),
            write_ms=self._writes.quantile_ms(0.99),
            commit_ms=self._commits.quantile_ms(0.99),
            written_bytes=planes * nbytes,
        )


def _noise(nbytes: int, budget: int) -> list[bytes]:
    """Return a few planes of noise; memory that was never touched would slow the first writes down tenfold."""
    rng = np.random.default_rng()
    return [rng.bytes(nbytes) for _ in range(max(1, min(_PLANES_BYTES // nbytes, budget, 16)))]


@contextmanager
def _hidden(folder: Path) -> Iterator[Path]:
    place = folder / f"{_NAME}{os.getpid()}-{now_ns()}"
    try:
        place.mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a measurement left that was killed."""
    for left in folder.glob(f"{_NAME}*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            pass


class Space:
    """Warns during a run before the disk is full: 10 min, 2 min and 30 s before, and when only a reserve is left.

    Each is said once; after space was made, again.

    Parameters
    ----------
    folder
        That is written to; where it is not there yet, the first above it.
    reserve_bytes

    Attributes
    ----------
    left_s : float or None
        Until only the reserve is left, at the rate that was seen last; None where that is not known.
    """

    def __init__(self, folder: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._folder, self._reserve = folder, reserve_bytes
        self._told = 0
        self._free_then = 0
        self._lost = False
        self.left_s: float | None = None

    def look(self, bytes_per_s: float) -> str | None:
        """Return a line for the user where there is something new to say.

        Parameters
        ----------
        bytes_per_s
            Written at present; 0 for none, which warns of nothing but the reserve.
        """
        try:
            free = shutil.disk_usage(nearest(self._folder)).free
        except OSError as error:
            lost, self._lost = self._lost, True
            return None if lost else f"the space on the disk of {self._folder} cannot be told: {error.strerror}"
        self._lost = False
        left_s = (free - self._reserve) / bytes_per_s if bytes_per_s > 0 else float("inf")
        self.left_s = max(left_s, 0.0) if bytes_per_s > 0 else None
        level = len(_WARN_S) + 1 if free < self._reserve else sum(left_s < limit for limit in _WARN_S)
        if level > self._told:
            self._told, self._free_then = level, free
            return self._line(free, left_s, bytes_per_s)
        # The rate goes up and down; only space that somebody made begins a new descent.
        if free > self._free_then + self._reserve / 2 and self._told:
            easy = sum(left_s < 1.5 * limit for limit in _WARN_S) if free >= self._reserve else self._told
            if easy < self._told:
                self._told, self._free_then = easy, free
        return None

    def _line(self, free: int, left_s: float, bytes_per_s: float) -> str:
        if free < self._reserve:
            return (
                f"the disk of {self._folder} is as good as full: {amount(free)} are free, "
                f"less than the {amount(self._reserve)} that are kept as a reserve"
            )
        return (
            f"the disk of {self._folder} is full in {span(left_s)}: {amount(free)} are free, "
            f"{amount(bytes_per_s)}/s are written"
        )
