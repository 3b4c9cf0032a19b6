"""What a trial measures, in a process of its own: the pictures, then the latency, then the throughput.

The first restores a few frames, one after the other, and compares them with those of the unchanged config. The second
is a run as the microscope's would be: frames come at their time whether there is room or not. What its first moments
took is left out, since engines and files warm up once. The third asks how many frames a second there could be.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pellucid.config import Config
from pellucid.errors import RunError
from pellucid.live import make_session
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Slot, Spec, Stream
from pellucid.terminal import networks_of
from pellucid.tuning.goal import Measured

__all__ = ["Trial", "measure", "psnr_db"]

Image = np.ndarray[Any, Any]
_PICTURE_BYTES = 512 << 20
_WARM_S, _WINDOW_S = 0.5, 2.5
"""Left out at the beginning; a window takes longer to be there."""
_LEAST_FRAMES = 16


@dataclass(frozen=True)
class Trial:
    """What is to be measured.

    Parameters
    ----------
    text, folder
        A config with a replay for its source, and where its relative paths begin.
    fps
        Frames a second, all streams together.
    seconds
        Of the run whose latency is measured, the warming up not counted.
    throughput_s
        Of that with a camera that waits; 0: it is left out.
    frames
        To be restored for the pictures; 0: they are left out.
    reference
        File of the unchanged config's pictures (.npz).
    scratch
        Folder for recordings, on the disk on which the config's would be; each is removed when it was measured.
    first
        This is the unchanged config: the file is made.
    windows
        Windows are shown.
    camera
        The run with latencies is one with the source that stands in `text`, whatever that is.
    wire
        Keys of a wire source: the run with latencies gets its frames from a process of its own.
    """

    text: str
    folder: str
    fps: float
    seconds: float
    throughput_s: float
    frames: int
    reference: str
    scratch: str
    first: bool = False
    windows: bool = False
    camera: bool = False
    wire: Mapping[str, Any] | None = None


def measure(trial: Trial) -> Measured:
    """Measure a config.

    Raises
    ------
    PellucidError
        Where it cannot run.
    """
    quality = _pictures(trial) if trial.frames else math.nan
    latency, way, gone, report = _paced(trial)
    memory = psutil.Process().memory_info().rss / 1e6
    throughput = _throughput(trial) if trial.throughput_s else math.nan
    made = [lines[0] for _, lines in networks_of(report["streams"])]
    return Measured("", quality, latency, way, gone, throughput, memory, tuple(made), tuple(report["notes"][:5]))


def psnr_db(one: Image, reference: Image) -> float:
    """Return the PSNR of a picture against another, in dB, over the other's range.

    NaN in both is alike; in one alone it is as wrong as can be.
    """
    if one.shape != reference.shape:
        return -math.inf
    first, second = one.astype(np.float64), reference.astype(np.float64)
    there = np.isfinite(second)
    if not np.array_equal(np.isfinite(first), there):
        return -math.inf
    if not there.any():
        return math.inf
    error = float(np.mean((first[there] - second[there]) ** 2))
    if error == 0:
        return math.inf
    low, high = np.percentile(second[there], (0.1, 99.9))
    return 10 * math.log10(max(float(high - low), 1e-12) ** 2 / error)


# ------------------------------------------------------------------ pictures


class _Pictures:
    """Keeps restored planes."""

    policy = "block"
    early = False

    def __init__(self) -> None:
        self.kept: dict[str, Image] = {}
        self.came: dict[int, int] = {}
        self._nbytes = 0

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Nothing to make ready."""

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Keep a copy of what is no raw plane, as long as there is room."""
        number = self.came.get(slot.stream.index, 0)
        self.came[slot.stream.index] = number + 1
        for name in names:
            if name != RAW and self._nbytes < _PICTURE_BYTES:
                self.kept[f"{slot.stream.index} {number} {name}"] = slot.planes[name].copy()
                self._nbytes += slot.planes[name].nbytes

    def finish(self) -> None:
        """All is here."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Keep what is there."""


def _pictures(trial: Trial) -> float:
    pictures = _Pictures()
    config = _config(trial, fps=None, sinks=False, restore="every", end=f"frames={trial.frames}")
    _run(trial, config, {"pictures": pictures})
    if trial.first:
        arrays: Any = pictures.kept
        np.savez(trial.reference, **arrays)
        return math.inf if pictures.kept else math.nan
    with np.load(trial.reference) as kept:
        if not kept.files:
            return math.nan
        if missing := [name for name in kept.files if name not in pictures.kept]:
            raise RunError(f"{len(missing)} of {len(kept.files)} pictures were not restored")
        return min(psnr_db(pictures.kept[name], kept[name]) for name in kept.files)


# ------------------------------------------------------------------ latency


class _Times:
    """Keeps what is known of each frame, and where the counts stood when the warming up was over."""

    policy = "block"
    early = False

    def __init__(self, warm_s: float) -> None:
        self.infos: list[FrameInfo] = []
        self.before: tuple[int, int] | None = None
        self._warm_ns = round(warm_s * 1e9)
        self._begin_ns = 0
        self._ledger: Any = None

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Take the ledger."""
        self._ledger = run["ledger"]

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Keep a frame's times, once it is warm."""
        if not self._begin_ns:
            self._begin_ns = now_ns() + self._warm_ns
        if slot.info.camera_ns < self._begin_ns:
            return
        if self.before is None:
            ledger = self._ledger
            self.before = ledger.received + ledger.dropped.total() + ledger.lost.total(), ledger.processed
        self.infos.append(slot.info)

    def finish(self) -> None:
        """All is here."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Keep what is there."""


def _paced(trial: Trial) -> tuple[dict[str, dict[str, float]], dict[str, float], float, Mapping[str, Any]]:
    warm_s = max(_WINDOW_S if trial.windows else _WARM_S, 3 / trial.fps)
    seconds = max(trial.seconds, _LEAST_FRAMES / trial.fps)
    times = _Times(warm_s)
    end = f"seconds={seconds + warm_s}"
    if trial.wire is None:
        config = _config(trial, fps=trial.fps, sinks=True, restore=None, end=end)
        report = _run(trial, config, {"times": times})
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        config = _config(trial, fps=trial.fps, sinks=True, restore=None, end=end, wire=(endpoint, trial.wire))
        with _sender(trial, endpoint):
            report = _run(trial, config, {"times": times})
    if times.before is None or not times.infos:
        raise RunError(f"no frame came through within {seconds + warm_s:g} s")
    frames = report["frames"]
    produced, processed = frames["produced"] - times.before[0], frames["processed"] - times.before[1]
    ends = {"restored": "processed_ns", "disk": "recorded_ns", "display": "displayed_ns"}
    latency = {}
    for point, mark in ends.items():
        ms = [(getattr(i, mark) - i.camera_ns) * 1e-6 for i in times.infos if getattr(i, mark)]
        if ms:
            p50, p95, p99 = np.percentile(ms, (50, 95, 99))
            latency[point] = {"p50": p50, "p95": p95, "p99": p99, "max": max(ms), "n": float(len(ms))}
    gone = min(max(1 - processed / produced, 0.0), 1.0) if produced > 0 else 1.0
    return latency, _way(times.infos), gone, report


def _way(infos: Sequence[FrameInfo]) -> dict[str, float]:
    """Return the mean frame's way in pieces, in ms."""
    sums: dict[str, float] = {}
    restored = [info for info in infos if info.uploaded_ns and info.processed_ns]
    for info in restored:
        marks = [("to the session", info.received_ns), ("waiting", info.uploaded_ns)]
        marks += [(name, ns) for name, ns in zip(info.stages, info.stages_ns, strict=True) if ns]
        marks += [("back", info.processed_ns)]
        before = info.camera_ns
        for name, ns in marks:
            sums[name] = sums.get(name, 0.0) + (ns - before) * 1e-6
            before = ns
    return {name: total / len(restored) for name, total in sums.items()}


@contextlib.contextmanager
def _sender(trial: Trial, endpoint: str) -> Iterator[None]:
    """Have a process send the frames, as the camera's side of a wire would."""
    path = Config.parse(trial.text, Path(trial.folder), headless=True).source.path  # type: ignore[attr-defined]
    command = [
        sys.executable,
        "-m",
        "pellucid",
        "send",
        "--replay",
        str(path),
        "--fps",
        str(trial.fps),
        "--to",
        endpoint,
    ]
    command += ["--set", "preload=true", "--set", "loop=0", "--once", "--background"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )  # fmt: skip
    try:
        yield
    finally:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ------------------------------------------------------------------ throughput


def _throughput(trial: Trial) -> float:
    """Return how many frames a second come out; nan where too few did to tell."""
    config = _config(trial, fps=None, sinks=True, restore="every", end=f"seconds={trial.throughput_s}")
    times = _Times(0.0)
    _run(trial, config, {"times": times})
    # Not those that went in: the first fill all slots at once.
    ends = sorted(info.processed_ns for info in times.infos if info.processed_ns)
    return (len(ends) - 1) / max((ends[-1] - ends[0]) * 1e-9, 1e-9) if len(ends) > 2 else math.nan


# ------------------------------------------------------------------ all three


def _config(
    trial: Trial,
    *,
    fps: float | None,
    sinks: bool,
    restore: str | None,
    end: str,
    wire: tuple[str, Mapping[str, Any]] | None = None,
) -> Config:
    sets = ["source.loop=0", "source.preload=true", f"session.{end}"]
    if trial.camera:
        sets = [f"session.{end}"]
    elif wire is not None:
        sets = ["source.kind=wire", f'source.bind="{wire[0]}"', f"session.{end}"]
        sets += [f"source.{key}={value}" for key, value in wire[1].items()]
    elif fps is not None:
        sets += [f"source.fps={fps}", 'source.on_full="drop"']
    if restore is not None:
        sets.append(f'session.restore="{restore}"')
    for i, sink in enumerate(tomllib.loads(trial.text).get("sinks", [])):
        if sink["kind"] == "recorder":
            sets.append(f"sinks.{i}.path={json.dumps(str(Path(trial.scratch) / 'recording'))}")
    config = Config.parse(trial.text, Path(trial.folder), sets, headless=not trial.windows, name="the candidate")
    if not sinks:
        config.sinks.clear()
    if fps is None:
        for name in [name for name in config.sinks if name.startswith("window")]:
            del config.sinks[name]
    return config


def _run(trial: Trial, config: Config, sink: Mapping[str, Any]) -> Mapping[str, Any]:
    session = make_session(config, sink, _silent)
    try:
        session.open()
        session.run()
    finally:
        session.close()
        shutil.rmtree(Path(trial.scratch) / "recording", ignore_errors=True)
    report = session.report
    if report is None:
        raise RunError("the run told nothing")
    if not report["frames"]["received"]:
        raise RunError("no frame came")
    return report


def _silent(line: str) -> None:
    """Lines for a user are in the report."""
