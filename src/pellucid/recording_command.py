"""``pellucid recover``, ``verify``, ``reproduce`` and ``report``: what is done with a recording after the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pellucid.errors import PellucidError, SinkError

__all__ = ["recover", "report", "reproduce", "verify"]

Folder = Annotated[Path, typer.Argument(help="The folder of a recording.")]


def recover(
    folder: Folder,
    spill: Annotated[
        Path | None, typer.Option(help="The spill file, where it is not any more where the recorder had it.")
    ] = None,
    without_spill: Annotated[
        bool, typer.Option("--without-spill", help="Give up what waited in a spill file that is gone.")
    ] = False,
    check_all: Annotated[
        bool, typer.Option("--all", help="Hold every pixel against its checksum, not only those of the last commit.")
    ] = False,
) -> None:
    """End a recording that something else ended: a kill, a full disk, a power cut. Safe to type again."""
    from pellucid.recording.recover import recover as run
    from pellucid.terminal import say

    with _bar("planes") as tell:
        found = run(folder, spill=spill, without_spill=without_spill, check_all=check_all, tell=tell)
    for line in found.lines():
        say(line)


def verify(folder: Folder) -> None:
    """Look whether every frame of a recording is there and to the last bit what arrived; exit 0, or 1 and a list."""
    from pellucid.recording.verify import verify as run
    from pellucid.terminal import say

    with _damage(folder), _bar("planes") as tell:
        found = run(folder, tell)
    for line in found.lines():
        say(line)
    if found.faults:
        raise typer.Exit(1)


def reproduce(folder: Folder) -> None:
    """Restore a recording's raw frames again, with its config; exit 0 where all are the same bit for bit, else 1."""
    from pellucid.reproduce import reproduce as run
    from pellucid.terminal import say

    try:
        with _damage(folder), _bar("frames") as tell:
            found = run(folder, tell, say)
    except PellucidError as error:
        if error.exit_code == 2:
            raise
        raise SinkError(f"{folder} cannot be reproduced: {error}") from None  # 1 would mean that frames differ
    for line in found.lines():
        say(line)
    if found.different:
        raise typer.Exit(1)


def report(
    folder: Folder,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write; left out: report.html there.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write a page about a recording: latency, where the time goes, losses, pictures; also of one that was killed."""
    from pellucid.report_page import write_report
    from pellucid.terminal import say

    with _damage(folder), _bar("rows") as tell:
        path = write_report(folder, to, lambda n: tell(n, n))
    say(f"report  {path}")
    if show:
        import webbrowser

        if not webbrowser.open(path.absolute().as_uri()):
            say("no browser could be opened: open that file yourself")


@contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Say in a line that facts of a recording are not what they are in any."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SinkError(f"{folder} is damaged: {type(error).__name__}: {error}") from error


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far it is, in a terminal; yields what takes how many are done, and of how many."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from pellucid.terminal import console

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        shown = 0

        def tell(done: int, total: int) -> None:
            nonlocal shown
            if done >= total or (done - shown) * 200 > total:
                shown = done
                bar.update(task, completed=done, total=total)

        yield tell
