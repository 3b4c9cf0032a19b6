"""Figures of this computer, each as a ratio within one run: machines are noisy, ratios less so."""

from __future__ import annotations

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

PARTS = ("wire", "path", "remote", "bridge", "deconvolution")


def run_benchmarks(*, quick: bool = False, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and the same as JSON, and return it.

    Parameters
    ----------
    quick
        Fewer repetitions: seconds instead of a minute or two.
    only
        Some of ``wire``, ``path``, ``remote``, ``bridge``, ``deconvolution``.

    Raises
    ------
    ConfigError
        Where another part is named.
    """
    parts = list(only or PARTS)
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"--only {part}: no such benchmark. Allowed: {', '.join(PARTS)}")
    threads = torch.get_num_threads()
    figures: dict[str, Any] = {"date": date.today().isoformat(), "hardware": _hardware()}
    if "wire" in parts or "path" in parts:
        from pellucid.bench.transport import measure_path, measure_wire

        if "wire" in parts:
            figures["wire"] = [measure_wire(side, quick) for side in (2048, 512)]
        if "path" in parts:
            figures["path"] = [measure_path(side, quick) for side in (2048, 512)]
    if "remote" in parts:
        from pellucid.bench.transport import measure_remote

        figures["remote"] = measure_remote(2048, quick)
    if "bridge" in parts:
        from pellucid.bench.bridge import measure_bridge

        try:
            figures["bridge"] = [measure_bridge(side, quick) for side in (2048, 512)]
        except MissingExtra as error:
            if only:
                raise
            say(f"bridge: not measured. {error}")
    if "deconvolution" in parts:
        from pellucid.bench.deconvolution import measure_deconvolution

        torch.set_num_threads(threads)  # the sessions above took one core less
        figures["deconvolution"] = measure_deconvolution(quick)
    for title in PARTS:
        if title in figures:
            _print(title, figures[title])
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
