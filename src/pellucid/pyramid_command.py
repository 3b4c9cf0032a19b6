"""``pellucid pyramid FOLDER``: coarser levels for every OME-Zarr image of a recording."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pellucid.errors import SinkError
from pellucid.process.progress import FrameBar
from pellucid.recording.amounts import amount
from pellucid.recording.contents import look_whether_here
from pellucid.recording.disk import Disk
from pellucid.recording.journal import NAME as JOURNAL
from pellucid.recording.pyramid import Pyramid
from pellucid.recording.rows import NAME as ROWS

__all__ = ["add_levels", "find_images"]

_REPORT, _PROCESS = "report.json", ".process"
_ABOVE = 5
"""Folders between a recording and a position of one of its images, at most."""


def add_levels(folder: Path, stop: Callable[[], bool], say: Callable[[str], None]) -> bool:
    """Add levels to every image that has none; False where it was stopped.

    Parameters
    ----------
    folder
        A recording, a folder of them, or an OME-Zarr.
    stop
        Asked after each plane; what was made is kept, and the next call goes on.
    say
        Takes lines for the user.

    Raises
    ------
    SinkError
        One line: what cannot be given levels, and why.
    """
    if not folder.is_dir():
        raise SinkError(f"{folder} is no folder. Give a recording, or an OME-Zarr folder")
    try:
        return _add_levels(folder, stop, say)
    except OSError as error:
        where = error.filename or folder
        raise SinkError(
            f"{where}: {error.strerror or error}. Level 0 was not touched; mend it and type the same command again"
        ) from None


def _add_levels(folder: Path, stop: Callable[[], bool], say: Callable[[str], None]) -> bool:
    _look_whether_finished(folder)
    groups = list(find_images(folder))
    if not groups:
        raise SinkError(f"{folder} holds no OME-Zarr image of version 0.5, and only those can be given levels")
    for group in groups:
        _look_whether_finished(group)
    disk = Disk()
    todo = [pyramid for pyramid in (Pyramid(group, disk) for group in groups) if pyramid.needed]
    if not todo:
        say(f"nothing to do: the images of {folder} ({len(groups)}) have levels, or are small enough without")
        return True
    needed, free = sum(pyramid.nbytes for pyramid in todo), shutil.disk_usage(folder).free
    if needed > free:
        raise SinkError(f"{folder}: the levels take {amount(needed)} and {amount(free)} are free. Free some space")
    planes, done = sum(pyramid.planes for pyramid in todo), sum(pyramid.done for pyramid in todo)
    if done:
        say(f"{done} of {planes} planes were done by an earlier call")
    with FrameBar(planes, done) as bar:
        for pyramid in todo:
            if not pyramid.make(stop, bar.advance):
                say("stopped: what is made is kept. Type the same command again to go on")
                return False
    say(f"levels were added to {len(todo)} of {len(groups)} images, {planes} planes: {folder}")
    return True


def find_images(folder: Path) -> Iterator[Path]:
    """Yield the OME-Zarr images in a folder, those of positions and plates as well; hidden folders are passed over."""
    try:
        told = json.loads((folder / "zarr.json").read_text("utf-8"))
        array = told["node_type"] == "array"
        image = "multiscales" in (told.get("attributes") or {}).get("ome", {})
    except FileNotFoundError:
        array = image = False
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SinkError(f"{folder / 'zarr.json'} is not readable ({error})") from None
    if array:
        return
    if image:
        yield folder
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
            yield from find_images(below)


def _look_whether_finished(folder: Path) -> None:
    """Refuse a recording that is being made, or that something else than its recorder has ended."""
    for above in [folder.absolute(), *folder.absolute().parents[:_ABOVE]]:
        finished = (above / _REPORT).is_file()
        if (above / _PROCESS).is_dir() and not finished:
            raise SinkError(f"{above} is not finished: type the pellucid process command that began it first")
        begun = (above / JOURNAL).is_file() or (above / ROWS).is_file()
        if begun and (not finished or (above / JOURNAL).is_file()):
            raise SinkError(f"{above} is not finished: type pellucid recover {above} first")
        if begun:
            look_whether_here(above)
            return
