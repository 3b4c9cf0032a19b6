"""Figures of this computer, each as a ratio within one run: machines are noisy, ratios less so."""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Sequence
from datetime import date
from typing import Any

import torch
from rich.table import Table

from pellucid.errors import ConfigError, MissingExtra
from pellucid.terminal import console, say

__all__ = ["run_benchmarks"]

MEASURES: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "wire": ("transport", "measure_wire", (2048, 512)),
    "path": ("transport", "measure_path", (2048, 512)),
    "remote": ("transport", "measure_remote", (2048,)),
    "core": ("core", "measure_core", (512, 2048)),
    "bridge": ("bridge", "measure_bridge", (2048, 512)),
    "deconvolution": ("deconvolution", "measure_deconvolution", ()),
    "restore": ("restore", "measure_engines", ()),
    "recording": ("recording", "measure_recording", ()),
    "overhead": ("overhead", "measure_overhead", ()),
    "display": ("display", "measure_display", ()),
    "screen": ("display", "measure_screen", (512, 2048)),
}
"""Module and function of each, and the sides of the frames for which it is called."""


def run_benchmarks(*, quick: bool = False, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and the same as JSON, and return it.

    Parameters
    ----------
    quick
        Fewer repetitions: seconds instead of a minute or two.
    only
        Some of `MEASURES`.

    Raises
    ------
    ConfigError
        Where another one is named.
    MissingExtra
        Where one was named whose packages are not installed; without a name it is left out, aloud.
    """
    for part in only or ():
        if part not in MEASURES:
            raise ConfigError(f"{part}: no such benchmark. Allowed: {', '.join(MEASURES)}")
    threads = torch.get_num_threads()
    figures: dict[str, Any] = {"date": date.today().isoformat(), "hardware": _hardware()}
    for part in only or MEASURES:
        module, name, sides = MEASURES[part]
        measure = getattr(importlib.import_module(f"pellucid.bench.{module}"), name)
        torch.set_num_threads(threads)  # a session takes one core less
        rows: list[dict[str, Any]] = []
        try:
            for side in sides:
                row = measure(side, quick)
                rows += row if isinstance(row, list) else [row]
            if not sides:
                rows = measure(quick)
        except MissingExtra as error:
            if only:
                raise
            say(f"{part}: not measured. {error}")
            continue
        figures[part] = rows
        _print(part, rows)
    say(json.dumps(figures))
    return figures


def _hardware() -> dict[str, Any]:
    from pellucid.runtime.report import hardware

    return hardware("cpu") | {"machine": platform.machine()}


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a column for each case and a line for each figure."""
    first, *figures = rows[0]
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(str(row[first]), justify="right")
    for key in figures:
        values = [row[key] for row in rows]
        table.add_row(key.replace("_", " "), *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    console.print(table)
