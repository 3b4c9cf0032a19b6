"""Run the whole system for a long time and look at what grows: the table of BENCHMARKS.md.

    python tools/soak.py [--minutes 30] [--fps 20] [--side 512] [--json FILE] [--folder FOLDER] [--headless]

A camera's process (Micro-Manager's DemoCamera, a simulation by Micro-Manager), the wire, live deconvolution, a
recorder that checks and compresses, metrics that somebody reads, and a window where there is a screen: each is a
process as in an experiment, and is looked at from outside every second: memory, threads, handles. Latencies come
from the recording's own rows, minute by minute. At the end the recording is verified and removed (``--keep``).

Exit code 1 where something grew, leaked, drifted or was lost.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from pellucid.runtime.report import hardware
from pellucid.sinks.window import Window

CONFIG = """\
[source]
kind = "wire"
bind = "tcp://127.0.0.1:{port}"

[[stages]]
kind = "deconvolve"
method = "wiener-butterworth"
iterations = 2
alpha = 0.003
resolution_px = 6
psf = {{ kind = "gaussian", fwhm_px = 10.2 }}

[[sinks]]
kind = "recorder"
path = "{recording}"
compression = "blosc-lz4"
part_minutes = 0.5

[[sinks]]
kind = "window"
max_fps = 20

[session]
seconds = {seconds}
slots = 32
"""
GROWTH = 0.01
"""Of memory, from the second minute to the last."""
DRIFT = 0.10
"""Of the median latency, from the first third of the minutes to the last."""
DRIFT_MS = 1.0
"""A drift below this is none: the median of a minute moves by as much from one to the next."""


def main() -> None:
    """Run, print the tables, write JSON, tell by the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--fps", type=float, default=20, help="of the camera")
    parser.add_argument("--side", type=int, default=512, help="of its frames, in pixels")
    parser.add_argument("--json", type=Path, help="write everything that was measured")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to record meanwhile")
    parser.add_argument("--headless", action="store_true", help="no window")
    parser.add_argument("--keep", action="store_true", help="leave the recording there")
    given = parser.parse_args()
    if given.minutes <= 0 or given.fps <= 0 or not 16 <= given.side <= 4096:
        parser.error("--minutes and --fps are above 0, --side is 16 to 4096")
    if not given.folder.is_dir():
        parser.error(f"--folder {given.folder}: there is no such folder")
    why = "--headless" if given.headless else Window.why_not()
    if why:
        print(f"without a window: {why}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="soak-", dir=given.folder.absolute()))
    try:
        found = soak(place, given.minutes * 60, given.fps, given.side, headless=bool(why))
    finally:
        if not given.keep:
            shutil.rmtree(place, ignore_errors=True)
    show(found)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(found["faults"]))


def soak(place: Path, seconds: float, fps: float, side: int, *, headless: bool) -> dict[str, Any]:
    """Run for so long in a folder; return samples, minutes, the report's counts and what is wrong."""
    port, metrics = free_ports(2)
    config, recording = place / "soak.toml", place / "recording"
    config.write_text(CONFIG.format(port=port, recording=recording.as_posix(), seconds=seconds), encoding="utf-8")
    run = ["run", str(config), "--metrics-port", str(metrics), *(["--headless"] if headless else [])]
    send = ["send", "--to", f"tcp://127.0.0.1:{port}", "--cfg", "demo", "--once"]
    properties = (
        f'{{"Camera.Mode" = "Fluorescent Beads", "Camera.PixelType" = "16bit", '
        f'"Camera.OnCameraCCDXSize" = "{side}", "Camera.OnCameraCCDYSize" = "{side}"}}'
    )
    for change in (f"exposure_ms={1000 / fps:g}", "focus_um=10", 'channel="beads"', f"properties={properties}"):
        send += ["--set", change]
    with (place / "session.txt").open("w") as told, (place / "camera.txt").open("w") as told_camera:
        session = subprocess.Popen([sys.executable, "-m", "pellucid", *run], stdout=told, stderr=subprocess.STDOUT)
        camera = subprocess.Popen(
            [sys.executable, "-m", "pellucid", *send], stdout=told_camera, stderr=subprocess.STDOUT
        )
        try:
            samples = list(watch(session, camera, metrics))
        finally:
            for process in (session, camera):
                if process.poll() is None:
                    process.kill()
                process.wait()
    if not (recording / "report.json").exists():
        last = (place / "session.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
        sys.exit(f"the session ended with {session.returncode}: {(last or ['it said nothing'])[0]}")
    report = json.loads((recording / "report.json").read_text(encoding="utf-8"))
    rows = map(json.loads, (recording / "frames.jsonl").read_text(encoding="utf-8").splitlines())
    minutes = latency_by_minute(rows)
    verified = subprocess.run(
        [sys.executable, "-m", "pellucid", "verify", str(recording)], capture_output=True, text=True, check=False
    )
    found = {
        "hardware": hardware("cpu"),
        "asked": {"seconds": seconds, "fps": fps, "side": side, "window": not headless},
        "frames": report["frames"],
        "latency_ms": report["latency_ms"],
        "recording_mb": round(sum(f.stat().st_size for f in recording.rglob("*") if f.is_file()) * 1e-6, 1),
        "notes": report["notes"],
        "processes": {name: summary(samples, name) for name in names_of(samples)},
        "minutes": minutes,
        "samples": samples,
    }
    found["faults"] = [
        *(f"{what} exited with {code}" for what, code in (("session", session.returncode),) if code),
        *([] if verified.returncode == 0 else [f"verify: {verified.stdout.strip().splitlines()[-1]}"]),
        *judge(found),
    ]
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def watch(session: subprocess.Popen[bytes], camera: subprocess.Popen[bytes], metrics: int) -> Iterable[dict[str, Any]]:
    """Yield a sample a second until the session ends; read its metrics now and then, as Prometheus would."""
    began = time.monotonic()
    roots = {"session": psutil.Process(session.pid), "camera": psutil.Process(camera.pid)}
    while session.poll() is None:
        time.sleep(1)
        row: dict[str, Any] = {"at_s": round(time.monotonic() - began, 2)}
        for name, process in _processes(roots):
            try:
                with process.oneshot():
                    memory = process.memory_full_info()
                    handles = process.num_handles() if sys.platform == "win32" else process.num_fds()
                    row[name] = {
                        "private_mb": memory.uss * 1e-6,
                        "rss_mb": memory.rss * 1e-6,
                        "threads": process.num_threads(),
                        "handles": handles,
                    }
            except psutil.Error:  # it has just ended
                continue
        if round(row["at_s"]) % 5 == 0:
            row["metrics"] = _read_metrics(metrics)
        yield row


def _processes(roots: Mapping[str, psutil.Process]) -> Iterable[tuple[str, psutil.Process]]:
    for name, root in roots.items():
        yield name, root
        try:
            for child in root.children():
                if "pellucid.viewer" in child.cmdline():
                    yield "window", child
        except psutil.Error:
            continue


def _read_metrics(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return b"pellucid" in answer.read()
    except OSError:  # before the session has begun, or after its end
        return False


def names_of(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the processes that were seen."""
    return [name for name in ("camera", "session", "window") if any(name in row for row in samples)]


def summary(samples: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return what a process had in its second minute and in the last one, medians; nothing where it lived shorter.

    A run of under three minutes is cut in thirds instead.
    """
    rows = [(row["at_s"], row[name]) for row in samples if name in row]
    if len(rows) < 3:
        return {}
    first, last = rows[0][0], rows[-1][0]
    span = min(60.0, (last - first) / 3)
    early = [row for at, row in rows if first + span <= at < first + 2 * span]
    late = [row for at, row in rows if at > last - span]
    out: dict[str, Any] = {}
    for key in rows[0][1]:
        before, after = (statistics.median(row[key] for row in some) for some in (early, late))
        out[key] = {"early": round(before, 2), "late": round(after, 2), "most": round(max(r[key] for _, r in rows), 2)}
        if key.endswith("_mb"):
            out[key]["growth"] = round(after / before - 1, 5)
        else:  # files are opened and closed all the time: what is never given back is there in the best moment as well
            out[key]["leaked"] = min(row[key] for row in late) - max(row[key] for row in early)
    return out


def latency_by_minute(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return p50 and p99 of each minute, of frames that were restored and recorded, by the camera's time stamp."""
    minutes: dict[int, dict[str, list[float]]] = {}
    began: float | None = None
    for row in rows:
        at = row["camera_time"]
        began = at if began is None else began
        for mark in ("received_ms", "processed_ms", "recorded_ms"):
            if mark in row and row.get("state") == "processed":
                minutes.setdefault(int((at - began) // 60), {}).setdefault(mark, []).append(row[mark])
    return [
        {"minute": minute, "n": len(next(iter(marks.values())))}
        | {
            mark: dict(zip(("p50", "p99"), np.quantile(ms, (0.5, 0.99)).round(3).tolist(), strict=True))
            for mark, ms in marks.items()
        }
        for minute, marks in sorted(minutes.items())
    ]


def judge(found: Mapping[str, Any]) -> list[str]:
    """Return what must not be, a line each."""
    wrong = []
    frames = found["frames"]
    if frames["unaccounted"]:
        wrong.append(f"{frames['unaccounted']} frames are not accounted for")
    wrong += [f"{state}: {frames[state]}" for state in ("dropped", "lost", "not_recorded") if frames[state]]
    if found["asked"]["window"] and not any("window" in row for row in found["samples"][-5:]):
        wrong.append(f"the window did not last: {found['notes']}")
    answers = [row["metrics"] for row in found["samples"] if "metrics" in row]
    if not any(answers):
        wrong.append("the metrics never answered")
    for name, told in found["processes"].items():
        for key, row in told.items():
            if row.get("growth", 0) > GROWTH:
                wrong.append(f"{name}: {key} grew by {row['growth']:.1%}, from {row['early']} to {row['late']}")
            if row.get("leaked", 0) > 0:
                wrong.append(f"{name}: {key} grew by {row['leaked']:g}, from {row['early']:g} to {row['late']:g}")
    whole = [row for row in found["minutes"] if row["n"] > 0][1:-1]  # the first warms up, the last is a part
    third = len(whole) // 3
    if third:
        before, after = (
            statistics.median(r["processed_ms"]["p50"] for r in part) for part in (whole[:third], whole[-third:])
        )
        if after > before * (1 + DRIFT) and after - before > DRIFT_MS:
            wrong.append(f"the latency drifted: median of a frame {before:.2f} ms at first, {after:.2f} ms at last")
    return wrong


def show(found: Mapping[str, Any]) -> None:
    """Print the tables."""
    console = Console(highlight=False)
    asked = found["asked"]
    what = f"{asked['seconds'] / 60:g} min, {asked['side']}x{asked['side']} at {asked['fps']:g}/s"
    table = Table(title=f"soak: {what}, {'with' if asked['window'] else 'without'} window")
    for column in ("process", "", "second minute", "last minute", "most", "growth"):
        table.add_column(column)
    for name, told in found["processes"].items():
        for key, row in told.items():
            growth = f"{row['growth']:+.2%}" if "growth" in row else f"{row['late'] - row['early']:+g}"
            table.add_row(name, key, f"{row['early']:g}", f"{row['late']:g}", f"{row['most']:g}", growth)
    console.print(table)
    times = Table(title="latency from the camera's time stamp, ms: p50 / p99")
    marks = [key for key in (found["minutes"] or [{}])[0] if key.endswith("_ms")]
    for column in ("minute", "frames", *marks):
        times.add_column(column)
    for row in found["minutes"]:
        cells = [f"{row[m]['p50']:.1f} / {row[m]['p99']:.1f}" if m in row else "" for m in marks]
        times.add_row(str(row["minute"]), str(row["n"]), *cells)
    console.print(times)
    console.print(f"frames: {found['frames']}")
    for text in found["faults"]:
        console.print(f"! {text}", style="red")
    console.print("nothing grew, leaked, drifted or was lost" if not found["faults"] else "", style="green")


if __name__ == "__main__":
    main()
