"""Rows of figures as a table for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

__all__ = ["markdown", "show"]

Row = Mapping[str, Any]


def show(console: Console, title: str, rows: Sequence[Row]) -> None:
    """Print a table with a line for each row; the columns are the keys of the first."""
    table = Table(title=title, title_justify="left")
    for k, key in enumerate(rows[0]):
        table.add_column(_heading(key), justify="right" if k else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    if not console.is_terminal:  # a file has room
        table.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table, crop=False)


def markdown(rows: Sequence[Row]) -> str:
    """Return the same for a Markdown file."""
    keys = list(rows[0])
    lines = [_line(_heading(key) for key in keys), _line("---" for _ in keys)]
    lines += [_line(_cell(row.get(key)) for key in keys) for row in rows]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _heading(key: str) -> str:
    return key.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-4:  # flux errors: rounding, not light
        return f"{value:.0e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"
