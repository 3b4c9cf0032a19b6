"""What windows cost a run that records: nothing of its frames, and how much of its latency.

The same session again and again, in turns: without a window, with one, with two, with one that stands still, as under
a debugger or a dialog of the window system. Its camera gives frames at a fixed rate from memory, there is no chain, and
every frame is recorded. Where the screen is drawn without a GPU the windows take the processor's time, which is what
the last column of the table shows: how many frames a second came to the screen.

Then the way from the camera to the screen, with a deconvolution on it.
"""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pellucid.bench.saturated import Flood
from pellucid.config import Config
from pellucid.errors import MissingExtra
from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.runtime.session import Session, Settings
from pellucid.sinks.recorder import Recorder
from pellucid.sinks.window import Window

__all__ = ["measure_display", "measure_screen"]

_SLOTS = 32
_WARM_S = 2.0
"""A window comes up, and compiles its shaders."""
_CASES: Mapping[str, tuple[int, bool]] = {
    "no window": (0, False),
    "a window": (1, False),
    "two windows": (2, False),
    "a window that stands still": (1, True),
}
_DECONVOLVE = """
[[stages]]
kind = "deconvolve"
method = "wiener-butterworth"
preset = "published"
iterations = {iterations}
psf = {{ kind = "gaussian", fwhm_px = 3.0 }}
background = 100
"""
_LOOKS: tuple[tuple[int, Mapping[str, Any]], ...] = (
    (1, {"size": (400, 300), "arrangement": "restored"}),
    (1, {}),
    (2, {}),
)
"""Iterations, and how the window is: a small one of the restored picture alone, and as it opens."""


def measure_display(quick: bool) -> list[dict[str, Any]]:
    """Record 2048x2048 uint16 at 100 frames/s beside windows; medians of runs that take turns.

    Frames that come while a window still comes up count where they are lost, not in the times. The recording lies in
    the folder that the bench is called in: one in memory shows what windows cost, without what a disk's stalls do.

    Raises
    ------
    MissingExtra
        Where there can be no window.
    """
    _look_for_screen()
    rounds, seconds = (3, 4.0) if quick else (7, 8.0)
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in _CASES}
    for _ in range(rounds):
        for name, (windows, stopped) in _CASES.items():
            taken[name].append(_record(2048, 100.0, seconds, windows, stopped=stopped))
    rows = []
    for name, runs in taken.items():
        row: dict[str, Any] = {"windows": name}
        row |= {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append(row)
    for row in rows:
        row["recorded p99, times without"] = row["recorded p99, ms"] / rows[0]["recorded p99, ms"]
    return rows


def measure_screen(side: int, quick: bool) -> list[dict[str, Any]]:
    """Time the way from the camera's stamp to the screen, with one or two steps of Wiener-Butterworth on it.

    The camera gives 100 frames/s and waits for nobody; nothing is recorded.
    """
    _look_for_screen()
    taken: list[list[dict[str, float]]] = [[] for _ in _LOOKS]
    for _ in range(3 if quick else 5):
        for runs, (iterations, look) in zip(taken, _LOOKS, strict=True):
            runs.append(_screen(side, 100.0, 4.0 if quick else 10.0, iterations, look))
    rows = []
    for runs, (iterations, look) in zip(taken, _LOOKS, strict=True):
        width, height = look.get("size", (1280, 740))
        name = f"{side}x{side}, {iterations} step{'s'[: iterations - 1]}, window {width}x{height}"
        rows.append({"frame": name} | {key: statistics.median(run[key] for run in runs) for key in runs[0]})
    return rows


def _look_for_screen() -> None:
    if (why := Window.why_not()) is not None:
        raise MissingExtra(why)


def _record(side: int, fps: float, seconds: float, windows: int, *, stopped: bool) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="pellucid-bench-", dir="."))
    try:
        sinks: dict[str, Any] = {"recorder": Recorder(path=str(folder / "rec"), when_full="drop")}
        sinks |= {f"window {i}": Window() for i in range(windows)}
        kept = sinks["kept"] = _Kept()
        source, session = _run(sinks, {}, side, fps, seconds + _WARM_S, stopped=stopped)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = session.report
    assert report is not None
    frames = report["frames"]
    recorded = [(info.recorded_ns - info.camera_ns) * 1e-6 for info in kept.warm() if info.recorded_ns]
    lost = sum(frames["dropped"].values()) + sum(frames["lost"].values()) + sum(frames["not_recorded"].values())
    return {
        "frames": frames["produced"],
        "not on the disk": float(lost),
        "unaccounted": float(frames["unaccounted"]),
        "loop p99, ms": float(np.percentile(source.loop_ns[round(_WARM_S * fps) :], 99)) * 1e-6,
        **_percentiles("recorded", recorded),
        "to the screen, frames/s": sum(info.displayed_ns > 0 for info in kept.warm()) / seconds,
    }


def _screen(side: int, fps: float, seconds: float, iterations: int, look: Mapping[str, Any]) -> dict[str, float]:
    text = f'[source]\nkind = "simulated"\n{_DECONVOLVE.format(iterations=iterations)}'
    make = Config.parse(text).make_stages
    kept = _Kept()
    sinks = {"window": Window(max_fps=1000, **look), "kept": kept}
    _run(sinks, make, side, fps, seconds + _WARM_S, stopped=False)
    warm = kept.warm()
    restored = [(info.processed_ns - info.camera_ns) * 1e-6 for info in warm if info.state == "processed"]
    drawn = [(info.displayed_ns - info.camera_ns) * 1e-6 for info in warm if info.displayed_ns]
    return {
        "restored": len(restored) / max(len(warm), 1),
        **_percentiles("restored", restored),
        **_percentiles("drawn", drawn),
        "to the screen, frames/s": len(drawn) / seconds,
    }


class _Kept:
    """A sink that keeps what is known of each frame."""

    policy = "block"
    early = False

    def __init__(self) -> None:
        self.infos: list[FrameInfo] = []

    def warm(self) -> list[FrameInfo]:
        """Return those that came when the windows were up."""
        return [info for info in self.infos if info.camera_ns > self.infos[0].camera_ns + _WARM_S * 1e9]

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        pass

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        self.infos.append(slot.info)

    def finish(self) -> None:
        pass

    def close(self, report: Mapping[str, Any] | None) -> None:
        pass


def _percentiles(what: str, ms: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(ms, (50, 99)) if ms else (math.nan, math.nan)
    return {f"{what} p50, ms": float(p50), f"{what} p99, ms": float(p99)}


def _run(
    sinks: Mapping[str, Any], stages: Any, side: int, fps: float, seconds: float, *, stopped: bool
) -> tuple[Flood, Session]:
    source = Flood(side, fps)
    settings = Settings(device="cpu", slots=_SLOTS, seconds=seconds)
    make = stages if callable(stages) else lambda _stream: {}
    session = Session(source, make, sinks, settings, {"config": ""}, tell=lambda _: None)
    processes: list[psutil.Process] = []
    others = set(psutil.Process().children(recursive=True))  # a window of the run before may still be closing
    still = threading.Timer(_WARM_S * 0.75, lambda: [process.suspend() for process in processes])
    try:
        session.open()
        mine = set(psutil.Process().children(recursive=True)) - others
        processes += [process for process in mine if "pellucid.viewer" in _line_of(process)]
        if stopped:
            still.start()
        session.run()
    finally:
        still.cancel()
        if still.ident is not None:
            still.join()
            for process in processes:
                process.resume()
        session.close()
    return source, session


def _line_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # one of somebody else's that ended at this moment
        return ""
