"""OUT: made in one step, locked while somebody works on it, gone on with, never overwritten.

::

    OUT/
      restored.ome.zarr ...    as in a recording
      config.toml
      .process/                until OUT is finished
        plan.json, arrays.json
        rows/0000012.jsonl     a block that is done
        lock, stop
      frames.jsonl             when all blocks are done
      report.json              the very last

OUT is made under another name beside its place and gets its own when its plan and all of its arrays are there, so an
OUT that can be seen can always be gone on with.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pellucid.errors import RunError, SinkError
from pellucid.process.plan import PLACE

__all__ = ["OutFolder", "not_written"]


class OutFolder:
    """The folder OUT.

    Parameters
    ----------
    path
        Absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = path / PLACE

    @property
    def begun(self) -> bool:
        """It is there, and an earlier call did not come to its end.

        Raises
        ------
        SinkError
            Where something else is there, or it is finished.
        """
        try:
            there = self.path.exists() or self.path.is_symlink()
        except OSError as error:
            raise SinkError(f"OUT {self.path}: {error.strerror}. Give another folder") from None
        if not there:
            return False
        what = "exists"
        if (self.place / "plan.json").is_file():
            if not (self.path / "report.json").is_file():
                return True
            self.clean()
        if (self.path / "report.json").is_file():
            what = "exists and is finished"
        raise SinkError(f"OUT {self.path} {what}; it is never overwritten. Give another folder, or move this one away")

    def check(self, given: Path) -> None:
        """Look whether OUT can be made beside IN.

        Raises
        ------
        SinkError
            Where it is IN, lies within it, or cannot be made there.
        """
        mine, others = self.path.resolve(), given.resolve()
        if mine == others:
            raise SinkError(f"OUT is IN, {given}, which is never written to. Give another folder for OUT")
        if others in mine.parents:
            raise SinkError(f"OUT {self.path} lies within IN, {given}, which is never written to. Give another folder")
        if self.path.exists():
            return
        parent = self._parent()
        if not parent.is_dir():
            raise SinkError(f"OUT {self.path}: {parent} is a file, not a folder. Give another folder")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise SinkError(f"OUT {self.path}: you may not write to {parent}. Give a folder that you may write to")

    def look_for_room(self, nbytes: int) -> None:
        """Refuse what would not fit on the disk, before anything is written."""
        free = shutil.disk_usage(self._parent()).free
        if nbytes > free:
            raise SinkError(
                f"OUT {self.path} needs {nbytes / 1e9:.2f} GB and {free / 1e9:.2f} GB are free on its disk. "
                "Free some space, or give a folder on another disk"
            )

    def _parent(self) -> Path:
        parent = self.path if self.path.exists() else self.path.parent
        while not parent.exists():
            parent = parent.parent
        return parent

    def make(self, fill: Callable[[Path], None]) -> None:
        """Make OUT: `fill` is given a folder, which becomes OUT when it returns.

        Raises
        ------
        SinkError
            Where the folder cannot be made.
        """
        half = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for left in self.path.parent.glob(f".{self.path.name}.[0-9]*"):
                if left.name.rpartition(".")[2].isdigit():
                    shutil.rmtree(left)  # of a call that was killed
            (half / PLACE / "rows").mkdir(parents=True)
            fill(half)
            if self.path.exists():
                raise SinkError(f"OUT {self.path} was made by somebody else just now. Give another folder")
            half.rename(self.path)
        except OSError as error:
            shutil.rmtree(half, ignore_errors=True)
            raise SinkError(f"OUT {self.path} cannot be made: {error.strerror or error}. Give another folder") from None
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise

    def done(self) -> set[int]:
        """Return the numbers of the blocks that are done."""
        return {int(file.stem) for file in (self.place / "rows").glob("*.jsonl")}

    def stop(self) -> None:
        """Ask everybody who works on a block to leave it after the frame."""
        (self.place / "stop").touch()

    def sweep(self) -> None:
        """Remove what a killed call left half written."""
        (self.place / "stop").unlink(missing_ok=True)
        for left in (self.place / "rows").glob("*.jsonl.*"):
            left.unlink()
        for image in self.path.glob("*.ome.zarr"):
            for left in image.rglob("*.partial"):
                left.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what is only needed until OUT is finished."""
        shutil.rmtree(self.place, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from working on the same OUT; the system lets go of it when this process ends, however.

        Raises
        ------
        RunError
            Where somebody does.
        """
        try:
            file = open(self.place / "lock", "a+b")  # noqa: SIM115
        except OSError as error:
            raise SinkError(f"OUT {self.path}: you may not write to it ({error.strerror})") from None
        try:
            try:
                _lock(file.fileno())
            except OSError:
                raise RunError(f"OUT {self.path} is being worked on by another pellucid process. Wait for it") from None
            yield
        finally:
            file.close()


def not_written(out: Path, error: OSError) -> RunError:
    """Return what to raise where the disk does not take what belongs into OUT."""
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
    return RunError(
        f"{out} cannot be written: {error.strerror or error}. "
        f"{'Free some space' if full else 'Mend that'} and type the same command again: it goes on from there"
    )


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
