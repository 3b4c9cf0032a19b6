"""``pellucid upload FOLDER s3://BUCKET/PREFIX``: what is not there yet is put there."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pellucid.errors import RunError, SinkError
from pellucid.metrics import now_ns
from pellucid.recording.amounts import amount
from pellucid.recording.upload import Uploader
from pellucid.recording.upload_fault import Fault
from pellucid.recording.upload_resume import look_whether_ended, settle
from pellucid.recording.upload_state import UploadState, freed_in
from pellucid.recording.upload_store import Bucket
from pellucid.terminal import console, say

__all__ = ["upload_folder"]

_LINE_NS = 2_000_000_000


def upload_folder(folder: Path, url: str, stop: Callable[[], bool], *, free_local: bool = False) -> bool:
    """Put what a bucket does not have yet, try for as long as it takes, and compare; False where something is missing.

    Parameters
    ----------
    folder
        A recording, a folder of them, or any other.
    url
        ``s3://bucket/prefix``; the files lie below it as they lie in the folder.
    stop
        Asked all the time; what is there then stays, and the next call goes on.
    free_local
        Remove files of nothing but pixels here, each after it has arrived and was compared.

    Raises
    ------
    ConfigError, MissingExtra, SinkError
        Before anything is put: bad URL, no credentials, no such bucket, no connection, a recording that is not ended.
    RunError
        The store took what it was given, and then refused.
    """
    if not folder.is_dir():
        raise SinkError(f"{folder} is no folder. Give a recording")
    bucket = Bucket(url)
    look_whether_ended(folder)
    bucket.reach()
    elsewhere = freed_in(folder)
    if elsewhere is not None and elsewhere[0] != bucket.url:
        url, count = elsewhere
        raise SinkError(
            f"{folder}: {count} files of pixels were removed here after their upload to {url}, so another copy "
            "would lack them. Copy it from there"
        )
    state = UploadState(folder, bucket.url)
    try:
        there = asyncio.run(bucket.list())
        found = settle(folder, state, there, stop, free_local=free_local)
    except Fault as fault:
        raise SinkError(f"{bucket.url}: {fault}") from None
    except OSError as error:
        raise SinkError(f"{error.filename or folder}: {error.strerror or error}. Nothing was sent") from None
    if len(found.todo) < found.files:
        say(f"{found.files - len(found.todo)} of {found.files} files are there already")
    total = sum(found.todo.values())
    uploader = Uploader(folder, url, free_local=free_local, tell=say, state=state)
    try:
        uploader.offer(folder / name for name in found.todo)
        with _Bar(total) as bar:
            while not stop() and uploader.waiting[0] and not (uploader.refused or uploader.hopeless):
                bar.show(total - uploader.waiting[1])
                time.sleep(0.1)
        if uploader.refused and uploader.waiting[0]:
            raise RunError(f"{bucket.url}: {uploader.refused}")
        report = uploader.finish(0.0 if stop() else None)
    finally:
        uploader.close()
    for line in report.lines():
        say(line)
    if freed := found.freed_bytes + uploader.freed_bytes:
        say(f"{amount(freed)} of pixels were removed here, since they are there")
    if report.missing:
        say("Type the same command again to go on")
    return not report.missing


class _Bar:
    """Shows bytes: a bar in a terminal, a plain line every two seconds elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._told_ns = now_ns()
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), TextColumn("left"))
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("upload", total=total)

    def show(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif now_ns() - self._told_ns > _LINE_NS:
            self._told_ns = now_ns()
            say(f"{amount(done)} of {amount(self._total)} are there")

    def __enter__(self) -> _Bar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
