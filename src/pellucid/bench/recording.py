"""The recorder against a plain file and against other writers, on the disk of the folder you are in.

All write the same frames from the same memory, in turn, in an order that alternates; before each the memory that the
system will take for the file is touched, and what was written is removed after it. Rates are medians of raw data over
the time until all of it is on the disk, ends of files, checksums and journal included.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pellucid.bench.killed import recover_killed
from pellucid.bench.lane import noisy_frames
from pellucid.bench.recorded import Feed, frame_cost
from pellucid.bench.saturated import Load, loop_load
from pellucid.bench.tables import show
from pellucid.bench.writers import PLAIN, WRITERS, Writer, remove, touch_memory
from pellucid.errors import SinkError
from pellucid.metrics import now_ns
from pellucid.terminal import console

__all__ = ["Size", "measure_recording"]

OURS = "recorder"
_SLOTS = 16
_COMPRESSIONS = ("blosc-lz4", "blosc-zstd", "zstd")
_ASKED_PLAIN, _ASKED_PEER, _ASKED_LOOP_MS, _ASKED_RECOVERY_S = 0.90, 1.0, 1.0, 10.0
_TOUCHED = 2.0
"""More bytes are touched than a file has: the system takes memory from where it likes."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Parameters
    ----------
    side
        Of the frames, in pixels.
    frames, rounds
        Of each writer.
    small_side, small_frames
        What is recovered after a kill.
    recoveries
        How often.
    loop_s
        Of each session with a saturated disk.
    loops
        How many, with and without a recorder.
    """

    side: int = 2048
    frames: int = 150
    rounds: int = 5
    small_side: int = 256
    small_frames: int = 10_000
    recoveries: int = 3
    loop_s: float = 2.0
    loops: int = 5

    @property
    def nbytes(self) -> int:
        """Of the raw data of one run."""
        return self.frames * self.side**2 * 2

    @property
    def needs(self) -> int:
        """Bytes of free disk: for one run, for the recovery's raw and restored planes, for what a fast disk takes."""
        return max(2 * self.nbytes, 8 * self.small_frames * self.small_side**2, round(self.loop_s * 4e9))


QUICK = Size(frames=60, rounds=3, small_frames=2000, recoveries=1, loop_s=1.5, loops=1)


class Table(list[dict[str, Any]]):
    """Rows of a table that was printed; as text, how many."""

    def __str__(self) -> str:
        return f"{len(self)} rows"


@dataclass
class _Run:
    """One write of a writer: its MB/s, and how much smaller than its pixels it is on the disk."""

    mb_s: float
    factor: float


def measure_recording(
    quick: bool, size: Size | None = None, writers: Sequence[Writer] = WRITERS
) -> list[dict[str, Any]]:
    """Measure the recorder and print its tables: writers, compression, and what was asked beside what was measured.

    Parameters
    ----------
    quick
        Fewer and shorter runs.
    size
        How much; left out: by `quick`.
    writers
        What is compared; the first is the measure of all.

    Returns
    -------
    list of dict
        One row: ``ratio_to_plain`` and ``ratio_to_peer`` (the recorder's MB/s over the others'), ``loop_p99_ms_added``,
        ``recovery_s`` of ``recovery_frames``, ``journal_us`` and ``checksum_us`` for a frame, and the tables.

    Raises
    ------
    SinkError
        Where the disk has no room, or a frame is missing afterwards.
    """
    size = size or (QUICK if quick else Size())
    free = shutil.disk_usage(Path.cwd()).free
    if free < size.needs:
        raise SinkError(
            f"{size.needs / 1e9:.1f} GB have to be free to measure the disk of {Path.cwd()}, {free / 1e9:.1f} GB are. "
            "Change to a folder with more room: cd FOLDER"
        )
    with tempfile.TemporaryDirectory(prefix=".pellucid-bench-", dir=Path.cwd(), ignore_cleanup_errors=True) as place:
        return [_measure(Path(place), size, writers)]


def _measure(place: Path, size: Size, writers: Sequence[Writer]) -> dict[str, Any]:
    feed = Feed(noisy_frames(size.side, _SLOTS))
    try:
        runs = _take_turns(place, size, feed, writers)
        journal_us, checksum_us = frame_cost(place / "journal", feed.frames[0])
        remove(place)
    finally:
        feed.close()
    rate = {name: statistics.median(run.mb_s for run in found) for name, found in runs.items()}
    plain = rate[PLAIN]
    table = Table(_writer_row(name, runs.get(name), plain) for name in [OURS, *(writer.name for writer in writers)])
    for writer, row in zip(writers, table[1:], strict=True):
        row["note"] = writer.missing and f"not installed; type: {writer.install}"
    peers = {name: rate[name] for name in rate if name.startswith("ome-writers")}
    fastest = max(peers, key=lambda name: peers[name], default="")
    compressed = Table(_compression_row(name, runs[name], rate[OURS]) for name in _COMPRESSIONS)
    fps = 1.5 * max(rate.values()) * 1e6 / (size.side**2 * 2)
    loops = _loops(place, size, fps)
    recoveries = []
    for i in range(size.recoveries):
        touch_memory(8 * size.small_frames * size.small_side**2)
        recoveries.append(recover_killed(place / f"killed{i}", size.small_side, size.small_frames))
        remove(place)
    figures: dict[str, Any] = {
        "recording": f"{size.frames} frames of {size.side}x{size.side}",
        "plain_MB_s": plain,
        "recorder_MB_s": rate[OURS],
        "ratio_to_plain": rate[OURS] / plain,
        "fastest_peer": fastest or None,
        "ratio_to_peer": rate[OURS] / peers[fastest] if fastest else None,
        **loops,
        "recovery_s": statistics.median(found.seconds for found in recoveries),
        "recovery_frames": size.small_frames,
        "journal_us": journal_us,
        "checksum_us": checksum_us,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    show(console, f"Recording, {figures['recording']}, all on the disk; medians of {size.rounds}", table)
    show(console, "Lossless, raw data", compressed)
    asked = _asked(figures)
    show(console, "Asked", asked)
    return figures | {"writers": table, "compression": compressed, "asked": asked}


# ---------------------------------------------------------------- writers in turn


def _take_turns(place: Path, size: Size, feed: Feed, writers: Sequence[Writer]) -> dict[str, list[_Run]]:
    """Run every writer in every round, in an order that alternates."""
    ways: dict[str, Callable[[], _Run]] = {}
    for writer in writers:
        if not writer.missing:
            ways[writer.name] = partial(_other, writer, place, feed, size)
    ways[OURS] = partial(_own, place, feed, size)
    for compression in _COMPRESSIONS:
        ways[compression] = partial(_own, place, feed, size, compression=compression)
    runs: dict[str, list[_Run]] = {name: [] for name in ways}
    for turn in range(size.rounds):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            # The recorder may keep as many bytes again in memory, until the disk has them.
            touch_memory(round(_TOUCHED * size.nbytes))
            runs[name].append(ways[name]())
            remove(place)
    return runs


def _other(writer: Writer, place: Path, feed: Feed, size: Size) -> _Run:
    before = now_ns()
    writer.write(place / "frames", feed.frames, size.frames)
    return _Run(size.nbytes / (now_ns() - before) * 1e3, 1.0)


def _own(place: Path, feed: Feed, size: Size, **options: Any) -> _Run:
    seconds, _ = feed.record(place / "recording", size.frames, **options)
    image = place / "recording" / "raw.ome.zarr"
    return _Run(size.nbytes / seconds * 1e-6, size.nbytes / sum(p.stat().st_size for p in image.rglob("*")))


def _writer_row(name: str, runs: Sequence[_Run] | None, plain: float) -> dict[str, Any]:
    rates = [run.mb_s for run in runs or ()]
    middle = statistics.median(rates) if rates else None
    return {
        "writer": name,
        "MB_s": middle,
        "least": min(rates, default=None),
        "most": max(rates, default=None),
        "times_plain": None if middle is None else middle / plain,
        "note": "",
    }


def _compression_row(name: str, runs: Sequence[_Run], uncompressed: float) -> dict[str, Any]:
    middle = statistics.median(run.mb_s for run in runs)
    return {"compression": name, "MB_s": middle, "to_uncompressed": middle / uncompressed, "factor": runs[0].factor}


# ---------------------------------------------------------------- the loop, what was asked


def _loops(place: Path, size: Size, fps: float) -> dict[str, Any]:
    """Return what the recorder adds to a session's loop while the disk is saturated."""
    without: list[Load] = []
    recorded: list[Load] = []
    for _ in range(size.loops):
        without.append(loop_load(size.side, fps, size.loop_s, None))
        touch_memory(round(_TOUCHED * size.nbytes))
        recorded.append(loop_load(size.side, fps, size.loop_s, place / "recording"))
        remove(place)
        time.sleep(_REST_S)

    def middle(loads: Sequence[Load], what: str) -> float:
        return statistics.median(float(getattr(load, what)) for load in loads)

    frames = sum(load.frames for load in recorded)
    return {
        "loop_fps": fps,
        "loop_p99_ms": middle(recorded, "loop_ms"),
        "loop_p99_ms_added": middle(recorded, "loop_ms") - middle(without, "loop_ms"),
        "received_p99_ms_added": middle(recorded, "late_ms") - middle(without, "late_ms"),
        "loop_not_recorded": sum(load.not_recorded for load in recorded) / max(frames, 1),
        "loop_starved": sum(load.starved for load in recorded) / max(frames, 1),
        "loop_starved_without": sum(load.starved for load in without) / max(sum(w.frames for w in without), 1),
    }


_REST_S = 0.5


def _asked(row: dict[str, Any]) -> Table:
    """Return what was asked of the recorder beside what was measured."""
    least, most = "at least", "less than"
    figures = [
        ("times a plain file", row["ratio_to_plain"], least, _ASKED_PLAIN),
        (
            f"times the fastest peer ({row['fastest_peer'] or 'none is installed'})",
            row["ratio_to_peer"],
            least,
            _ASKED_PEER,
        ),
        ("added to the loop while the disk is saturated, p99 ms", row["loop_p99_ms_added"], most, _ASKED_LOOP_MS),
        (f"recovery of {row['recovery_frames']} frames, s", row["recovery_s"], most, _ASKED_RECOVERY_S),
    ]
    return Table(
        {"figure": name, "measured": value, "asked": f"{how} {bound:g}", "met": _met(value, how == least, bound)}
        for name, value, how, bound in figures
    )


def _met(value: float | None, least: bool, bound: float) -> str:
    if value is None:
        return "-"
    return "yes" if (value >= bound if least else value < bound) else "no"
