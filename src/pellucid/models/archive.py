"""Zips from elsewhere, unpacked where they can do no harm."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from pellucid.errors import StageError
from pellucid.models.content import hash_files
from pellucid.models.places import cache_folder

__all__ = ["unpack"]

MOST_BYTES = 4 << 30
MOST_FILES = 1000


def unpack(path: Path, where: str) -> Path:
    """Unpack a zip into the cache, under its own hash, and return the folder; again costs nothing.

    Raises
    ------
    StageError
        A zip that is none or cut off, that wants to write outside of its folder, holds links, or is too large.
    """
    try:
        target = cache_folder() / "packages" / hash_files([path])[:32]
        if target.is_dir():
            return _inner(target)
        with zipfile.ZipFile(path) as archive:
            _harmless(archive.infolist(), where)
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
            try:
                archive.extractall(scratch)
                try:
                    os.replace(scratch, target)
                except OSError:
                    if not target.is_dir():  # another program may have been first
                        raise
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise StageError(f"{where}: not a zip, or cut off ({error}). Fetch it again") from None
    except OSError as error:
        raise StageError(f"{where}: cannot be unpacked: {error.strerror or error}") from None
    return _inner(target)


def _inner(folder: Path) -> Path:
    """Return the one folder in a zip that holds nothing else, as some programs make them."""
    inside = [p for p in folder.iterdir() if p.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _harmless(entries: list[zipfile.ZipInfo], where: str) -> None:
    if len(entries) > MOST_FILES or sum(e.file_size for e in entries) > MOST_BYTES:
        raise StageError(f"{where}: would be more than {MOST_FILES} files or {MOST_BYTES >> 30} GB unpacked")
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts
        if outside:
            raise StageError(f'{where}: wants to write to "{entry.filename}", outside of its folder; not unpacked')
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise StageError(f'{where}: holds a link, "{entry.filename}"; not unpacked')
