"""What a run says in the terminal: the live line, the summary, and the tables of ``list`` and ``check``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pellucid.ledger import Ledger
from pellucid.marks import WAY
from pellucid.metrics import now_ns
from pellucid.protocols import RAW

__all__ = ["LiveLine", "network_lines", "networks_of", "print_summary", "say"]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print one line as it is, never wrapped and never read as markup."""
    console.print(Text(text), soft_wrap=True)


class LiveLine:
    """One line, four times a second: frames, rate, latency, what was dropped or lost, and new notes above it.

    Where the output is no terminal a plain line comes every two seconds instead.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._over = threading.Event()
        self._told = 0
        self._began_ns = now_ns()
        self._thread = threading.Thread(target=self._run, name="pellucid live line", daemon=True)

    def __enter__(self) -> LiveLine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._new_notes()

    def _run(self) -> None:
        if not sys.stdout.isatty():
            while not self._over.wait(2.0):
                self._new_notes()
                console.print(self._line(), soft_wrap=True)
            return
        with Live(self._line(), console=console, auto_refresh=False, transient=True) as live:
            while not self._over.wait(0.25):
                self._new_notes()
                live.update(self._line(), refresh=True)

    def notes_since(self) -> None:
        """Print what was noted after the line had ended."""
        self._new_notes()

    def _new_notes(self) -> None:
        notes = self._ledger.notes
        while self._told < len(notes):
            console.print(Text("! " + notes[self._told], style="yellow"), soft_wrap=True)
            self._told += 1

    def _line(self) -> Text:
        ledger = self._ledger
        line = Text(f"{(now_ns() - self._began_ns) * 1e-9:6.1f} s  ")
        if not ledger.received:
            return line.append("waiting for the first frame", style="dim")
        line.append(f"{ledger.received} frames  {ledger.arrivals.per_s():6.1f}/s", style="bold")
        latency = ledger.latency
        for mark in _shown(latency):
            h = latency[mark]
            if h.count:
                line.append(f"  {mark} {h.quantile_ms(0.5):.1f} (p99 {h.quantile_ms(0.99):.1f}) ms", style="cyan")
        ends = ledger.cameras()
        for state in ("dropped", "lost"):
            text = _told(ends, state)
            line.append(f"  {state} {text or 0}", style="bold red" if text else "green")
        if text := _told(ends, "not_recorded"):
            line.append(f"  not recorded {text}", style="bold red")
        if ledger.raw_only:
            line.append(f"  raw only {ledger.raw_only.total()}", style="bold red")
        return line


def _told(cameras: Mapping[str, Mapping[str, Any]], state: str) -> str:
    """Return ``12 (camera 10, wire 2)``; with several cameras the name of the one before each place."""
    counts = [
        (place if len(cameras) == 1 else f"{name} {place}", n)
        for name, ends in cameras.items()
        for place, n in ends[state].items()
        if n
    ]
    total = sum(n for _, n in counts)
    return f"{total} ({', '.join(f'{place} {n}' for place, n in counts)})" if counts else ""


def _shown(marks: Mapping[str, Any]) -> list[str]:
    """Return the marks worth a place in the line: the last stage, the disk, the screen."""
    ends = [m for m in marks if m not in WAY][-1:]
    return (ends or ["received"]) + [m for m in ("disk", "display") if m in marks]


def network_lines(stage: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of the network of a stage, as the report has it; nothing where it has none."""
    made, model = stage.get("engine"), stage.get("model")
    if not made or not model:
        return []
    where = made["device"]
    lines = [f"{model['name']} ({model['sha256'][:12]}) on {made['library']}, {made['precision']}, {where}"]
    if (near := made.get("fidelity")) is not None:
        lines.append(
            f"differs from {near['reference']} by {near['largest']:.1e} of the range at most, {near['rms']:.1e} rms, "
            f"on {near['frames']} real frames"
        )
    else:
        lines.append("that is what other engines are compared with")
    tiles = stage.get("tiles") or {}
    if tiles.get("of_each_picture", 1) > 1 or tiles.get("batch", 1) > 1:
        side = "x".join(map(str, tiles["tile"]))
        lines.append(f"{tiles['of_each_picture']} tiles of {side} a picture, {tiles['batch']} at once")
    return lines


def networks_of(streams: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the name of each stage with a network and its lines; streams that have the same are told once."""
    found: list[tuple[str, list[str]]] = []
    for stream in streams:
        for stage in stream.get("stages", ()):
            told = stage["stage"], network_lines(stage)
            if told[1] and told not in found:
                found.append(told)
    return found


def print_summary(report: Mapping[str, Any]) -> None:
    """Print the table that ends a run."""
    frames = report["frames"]
    table = Table(title=f"pellucid {report['version']}: {report['ended']}", title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column()
    counts = [f"{frames[k]} {k}" for k in ("produced", "received", "processed", "recorded", "displayed")]
    table.add_row("frames", ", ".join(counts))
    if report.get("stacks"):
        table.add_row("in stacks", ", ".join(f"{n} {what}" for what, n in report["stacks"].items()))
    for state in ("raw_only", "dropped", "lost"):
        for where, n in frames[state].items():
            table.add_row(state.replace("_", " "), Text(f"{n} at {where}", style="yellow"))
    for why, n in frames.get("not_recorded", {}).items():
        table.add_row("not recorded", Text(f"{n} frames: {why}; their rows say which", style="bold red"))
    for plane, n in frames.get("planes_not_recorded", {}).items():
        if plane != RAW:
            table.add_row("not recorded", Text(f"{n} {plane} planes; their rows say which, and why", style="bold red"))
    if len(report["cameras"]) > 1:
        for camera, ends in report["cameras"].items():
            texts = [f"{ends['produced']} produced, {ends['processed']} processed"]
            texts += [
                f"{n} {state.replace('_', ' ')} at {place}"
                for state in ("raw_only", "dropped", "lost")
                for place, n in ends[state].items()
            ]
            table.add_row(camera, Text(", ".join(texts)))
    bad = frames["unaccounted"]
    table.add_row("unaccounted", Text(str(bad), style="bold red" if bad else "green"))
    if not frames["totals_confirmed"]:
        table.add_row("", Text("the camera's side went without its totals", style="yellow"))
    for why, n in report["ignored_messages"].items():
        table.add_row("ignored", Text(f"{n} messages: {why}", style="yellow"))
    for name, lines in networks_of(report["streams"]):
        for i, line in enumerate(lines):
            table.add_row("" if i else name, Text(line))
    rate = report["throughput"]
    table.add_row("throughput", f"{rate['frames_per_s']:.1f} frames/s, {rate['megabytes_per_s']:.1f} MB/s raw")
    console.print(table)
    _print_latency(report)


def _print_latency(report: Mapping[str, Any]) -> None:
    """Print the percentiles until each mark, a table for each stream."""
    streams = [stream for stream in report["streams"] if stream.get("latency_ms")]
    for stream in streams or [report]:
        title = "latency from the camera, ms"
        if len(streams) > 1:
            title += f": {stream['camera']}, {stream['channel']}"
        marks = Table(title=Text(title), title_justify="left")
        for column in ("until", "p50", "p95", "p99", "max"):
            marks.add_column(column, justify="left" if column == "until" else "right")
        for mark, row in stream["latency_ms"].items():
            if row["n"]:
                marks.add_row(mark, *(f"{row[k]:.2f}" for k in ("p50", "p95", "p99", "max")))
        console.print(marks)
        if unsure := stream.get("clock_unsure_ms"):
            known = f"± {unsure['p50']:.2g} ms ({unsure['max']:.2g} at most)"
            say(f"each {known}: the camera's clock is another computer's, and known so well")
