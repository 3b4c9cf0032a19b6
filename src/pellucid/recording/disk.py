"""The recorder's file operations: all of them, so that what the disk has can be told, and every fault can be tried.

What was written is on the disk only after `Disk.commit`: it syncs each file that was written since the last one, and
each folder in which a name was made, changed or removed. After a sync that failed nobody knows what the disk has, and
a second one would succeed without having written anything (the system has forgotten the pages): so a disk that failed
once stays failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Disk", "Growing"]

Buffer = Any
"""What has the buffer protocol: bytes, a contiguous array."""


class Disk:
    """A folder's file operations; safe from several threads.

    Methods that start with an underscore are the ones that touch the system, for subclasses that inject faults.

    Attributes
    ----------
    written_bytes : int
        So far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._committing = threading.Lock()
        self._files: set[Path] = set()
        self._folders: set[Path] = set()
        self._named: set[Path] = set()
        self._failed: OSError | None = None
        self.written_bytes = 0
        self.root: Path | None = None
        """A folder that is never made again, once it is gone."""

    # ---------------------------------------------------------------- names

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it that are missing; one that is there is none's mistake."""
        if self.root is not None and self.root in path.parents and not self.root.is_dir():
            # Made anew it would hold the rest of a recording whose beginning is gone.
            raise FileNotFoundError(errno.ENOENT, "the folder of the recording is gone", str(self.root))
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            self._mkdir(folder)
            self.note_folder(folder.parent)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file its name; one of that name is replaced. Its bytes keep being owed to the next commit."""
        self._rename(old, new)
        with self._lock:
            self._named.add(new)
            if old in self._files:
                self._files.discard(old)
                self._files.add(new)
            self._folders.update((old.parent, new.parent))

    def remove(self, path: Path) -> None:
        """Remove a file, which may be gone already."""
        try:
            self._unlink(path)
        except FileNotFoundError:
            return
        with self._lock:
            self._files.discard(path)
            self._folders.add(path.parent)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder and all that is in it, which nobody uses; waits for a commit that goes on."""
        with self._committing:
            shutil.rmtree(path, ignore_errors=True)
            with self._lock:
                for owed in (self._files, self._folders, self._named):
                    owed -= {each for each in owed if each == path or path in each.parents}
                self._folders.add(path.parent)

    # ---------------------------------------------------------------- bytes

    def write_new(self, path: Path, parts: Sequence[Buffer]) -> int:
        """Write a whole file that must not exist yet; return its bytes. Its folder is made where it is missing.

        Raises
        ------
        OSError
        """
        try:
            handle = self._create(path)
        except FileNotFoundError:
            self.make_folder(path.parent)
            handle = self._create(path)
        try:
            count = self._write_all(handle, parts, 0)
            self._hurry(handle, 0, count)
        except BaseException:
            self._close(handle)
            self._abandon(path)
            raise
        self._close(handle)
        with self._lock:
            self._files.add(path)
            self._folders.add(path.parent)
        return count

    def replace(self, path: Path, data: bytes) -> None:
        """Write a small file in place of an old one: readers, and a power cut, see the one or the other, whole."""
        beside = path.with_name(f"{path.name}.new")
        self._abandon(beside)
        handle = self._create(beside)
        try:
            self._write_all(handle, [data], 0)
            self._sync_once(handle)
        except BaseException:
            self._close(handle)
            self._abandon(beside)
            raise
        self._close(handle)
        self._rename(beside, path)
        with self._lock:
            self._named.add(path)
        self.note_folder(path.parent)

    def grow(self, path: Path, *, at: int | None = None) -> Growing:
        """Return a file that is written from its end on: a new one, or one of which the first `at` bytes are kept."""
        if at is None:
            try:
                handle = self._create(path)
            except FileNotFoundError:
                self.make_folder(path.parent)
                handle = self._create(path)
            self.note_folder(path.parent)
            at = 0
        else:
            handle = self._reopen(path)
            self._truncate(handle, at)
        return Growing(self, path, handle, at)

    # ---------------------------------------------------------------- the disk

    def commit(self) -> set[Path]:
        """Everything that was written before this call is on the disk when it returns.

        Returns
        -------
        set of pathlib.Path
            Of the files that are.

        Raises
        ------
        OSError
            Now and ever after.
        """
        with self._committing:
            return self._commit()

    def _commit(self) -> set[Path]:
        if self._failed is not None:
            raise self._failed
        with self._lock:
            files, self._files = self._files, set()
            folders, self._folders = self._folders, set()
            named, self._named = self._named, set()
        try:
            for path in files:
                self._sync_path(path, write=True)
            for folder in folders:
                self._sync_path(folder, write=False)
        except FileNotFoundError as error:
            self._failed = OSError(error.errno, "what was written is not there any more", str(error.filename))
            raise self._failed from None
        except OSError as error:
            self._failed = error
            raise
        return files | named

    @property
    def failed(self) -> OSError | None:
        """The fault after which nothing can be promised; None while all is well."""
        return self._failed

    @property
    def uncommitted(self) -> int:
        """Files that the next commit will sync."""
        return len(self._files)

    def note_folder(self, path: Path) -> None:
        """Owe a folder to the next commit: a name in it was made, changed or removed."""
        with self._lock:
            self._folders.add(path)

    def note_file(self, path: Path) -> None:
        """Owe a file to the next commit: others have written it."""
        with self._lock:
            self._files.add(path)

    def _write_all(self, handle: int, parts: Sequence[Buffer], at: int) -> int:
        """Write all of `parts` from `at` on: the system may take less than it was given."""
        begun = at
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:
                taken = self._write(handle, rest, at)
                at += taken
                rest = rest[taken:]
        with self._lock:
            self.written_bytes += at - begun
        return at - begun

    def _sync_path(self, path: Path, *, write: bool) -> None:
        if sys.platform == "win32" and not write:
            return  # NTFS keeps names in its own journal; a folder cannot be opened for a flush
        handle = self._reopen(path) if write else os.open(path, os.O_RDONLY)
        try:
            self._sync_once(handle)
        finally:
            self._close(handle)

    def _sync_once(self, handle: int) -> None:
        try:
            self._sync(handle)
        except OSError as error:
            self._failed = self._failed or error
            raise

    def _abandon(self, path: Path) -> None:
        try:
            self._unlink(path)
        except OSError:
            pass

    # ---------------------------------------------------------------- the system

    def _mkdir(self, path: Path) -> None:
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise

    def _create(self, path: Path) -> int:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o666)

    def _reopen(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | _BINARY)

    def _write(self, handle: int, data: Buffer, at: int) -> int:
        return _pwrite(handle, data, at)

    def _truncate(self, handle: int, length: int) -> None:
        os.ftruncate(handle, length)

    def _sync(self, handle: int) -> None:
        os.fsync(handle)

    def _hurry(self, handle: int, at: int, count: int) -> None:
        """Have the system begin to write, so that a commit finds little left to do; no promise, no fault."""
        _begin_writing(handle, at, count)

    def _close(self, handle: int) -> None:
        os.close(handle)

    def _rename(self, old: Path, new: Path) -> None:
        for wait_s in (0.01, 0.05, 0.2, 0.7, 1.0) if sys.platform == "win32" else ():
            # Whoever reads the file in this moment (a viewer, a virus scanner) keeps it from being replaced there.
            try:
                os.replace(old, new)
            except PermissionError:
                time.sleep(wait_s)
            else:
                return
        os.replace(old, new)

    def _unlink(self, path: Path) -> None:
        path.unlink()


class Growing:
    """A file that is written from its end on; from one thread at a time.

    Attributes
    ----------
    path : pathlib.Path
    length : int
        In bytes.
    """

    def __init__(self, disk: Disk, path: Path, handle: int, length: int) -> None:
        self.path = path
        self.length = length
        self._disk = disk
        self._handle: int | None = handle

    def append(self, parts: Sequence[Buffer]) -> int:
        """Write `parts` one after the other; return where they begin. What was written in part is taken back.

        Raises
        ------
        OSError
        """
        assert self._handle is not None
        at = self.length
        try:
            count = self._disk._write_all(self._handle, parts, at)
        except BaseException:
            with contextlib.suppress(OSError):
                self.cut()
            raise
        if count >= _LARGE:
            self._disk._hurry(self._handle, at, count)
        self.length = at + count
        self._disk.note_file(self.path)
        return at

    def cut(self) -> None:
        """Have the file end where what was written as a whole ends; raises OSError."""
        assert self._handle is not None
        self._disk._truncate(self._handle, self.length)

    def patch(self, at: int, data: bytes) -> None:
        """Write over what is there, such as a pointer in a header."""
        assert self._handle is not None
        self._disk._write_all(self._handle, [data], at)
        self._disk.note_file(self.path)

    def close(self) -> None:
        """Close it; safe more than once. What it holds is owed to the next commit."""
        if self._handle is not None:
            self._disk._close(self._handle)
            self._handle = None


_BINARY = getattr(os, "O_BINARY", 0)
_LARGE = 1 << 16

if hasattr(os, "pwrite"):

    def _pwrite(handle: int, data: Buffer, at: int) -> int:
        return os.pwrite(handle, data, at)

else:  # Windows: each handle has one user at a time, so its position is ours

    def _pwrite(handle: int, data: Buffer, at: int) -> int:
        os.lseek(handle, at, os.SEEK_SET)
        return os.write(handle, data[: 1 << 28])


def _linux_hurry() -> Callable[[int, int, int], None] | None:
    """Return Linux's ``sync_file_range`` where there is one: writing begins, nobody waits."""
    try:
        call = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    begin_only = 2
    return lambda handle, at, count: call(handle, at, count, begin_only) and None


_hurry = _linux_hurry() if sys.platform.startswith("linux") else None


def _begin_writing(handle: int, at: int, count: int) -> None:
    if _hurry is not None:
        _hurry(handle, at, count)
