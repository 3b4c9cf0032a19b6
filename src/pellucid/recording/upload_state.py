"""``upload.jsonl``: which files of a folder are in which bucket, so that an upload goes on where it ended.

A line says ``{"url": ...}``, and those that follow, up to the next such, are of files there::

    {"path": "raw.ome.zarr/0/c/0/0/0/0", "size": 8388608, "mtime_ns": 1925110471000000000, "etag": "..."}

The last line of a path counts. ``"freed": true`` says that the file was removed here after it had arrived there. The
lines only spare work: before anything is left out, what the bucket itself lists is compared.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from pellucid.errors import SinkError
from pellucid.recording.journal import NAME as JOURNAL

__all__ = ["NAME", "Sent", "UploadState", "freed_in", "is_chunk", "is_wanted", "still", "walk"]

NAME = "upload.jsonl"
_OWN = {NAME, JOURNAL, ".lock", ".reserve"}
_UNFINISHED = (".partial", ".new")
_TICK_NS = 100_000_000


class Sent(NamedTuple):
    """A file that is in the bucket: as it was when it was read, and what the bucket calls it.

    `mtime_ns` is 0 where the file had been written so shortly before that its time would not tell a further change.
    """

    size: int
    mtime_ns: int
    etag: str
    freed: bool = False


class UploadState:
    """The lines of one folder and one URL; from one thread.

    Attributes
    ----------
    sent : dict of str to Sent
        By name relative to the folder, with ``/``.

    Raises
    ------
    SinkError
        There are lines and they cannot be read.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._path = folder / NAME
        self._url = url
        self._file: IO[bytes] | None = None
        self.sent: dict[str, Sent] = {}
        self._ends = True
        self._last_url = ""
        try:
            self._load()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SinkError(f"{self._path} lists what was sent, and cannot be read: {error.strerror}") from None

    def _load(self) -> None:
        with self._path.open("rb") as file:
            for line in file:
                self._ends = line.endswith(b"\n")
                try:
                    row = json.loads(line)
                    if "url" in row:
                        self._last_url = row["url"]
                    elif self._last_url == self._url:
                        sent = Sent(row["size"], row["mtime_ns"], row["etag"], bool(row.get("freed")))
                        self.sent[row["path"]] = sent
                except (ValueError, KeyError, TypeError):
                    continue  # a kill has cut it

    def add(self, name: str, sent: Sent) -> None:
        """Note a file; raises OSError where the line cannot be written, and knows it nevertheless."""
        self.sent[name] = sent
        row = {"path": name, "size": sent.size, "mtime_ns": sent.mtime_ns, "etag": sent.etag}
        line = json.dumps(row | ({"freed": True} if sent.freed else {})).encode() + b"\n"
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        if self._last_url != self._url:
            line = json.dumps({"url": self._url}).encode() + b"\n" + line
        self._file.write(line if self._ends else b"\n" + line)
        self._ends, self._last_url = True, self._url

    def free(self, path: Path, name: str, sent: Sent, mtime_ns: int) -> int:
        """Remove a local file that is in the bucket, unless it has changed; return its bytes. Raises OSError."""
        about = path.stat()
        if (about.st_size, about.st_mtime_ns) != (sent.size, mtime_ns):
            return 0
        self.add(name, sent._replace(freed=True))  # first: a file that is gone and nobody knows where would be lost
        path.unlink()
        return sent.size

    def close(self) -> None:
        """Close the file; safe more than once."""
        if self._file is not None:
            self._file.close()
            self._file = None


def still(about: os.stat_result) -> int:
    """Return a file's time in nanoseconds, 0 where it is so young that a further change could have the same one."""
    return about.st_mtime_ns if time.time_ns() - about.st_mtime_ns > _TICK_NS else 0


def is_wanted(name: str) -> bool:
    """Say whether a file belongs in the bucket: not what a recorder keeps for itself, nor what is being written."""
    *folders, last = name.split("/")
    return last not in _OWN and not last.endswith(_UNFINISHED) and not any(part.startswith(".") for part in folders)


def is_chunk(folder: Path, name: str) -> bool:
    """Say whether a file holds nothing but pixels of a Zarr 3 array: below its ``c``, every name a number."""
    parts = name.split("/")
    at = max((i for i, part in enumerate(parts) if part == "c"), default=-1)
    if at < 1 or at + 1 == len(parts) or not all(part.isdecimal() for part in parts[at + 1 :]):
        return False
    try:
        told = json.loads(folder.joinpath(*parts[:at], "zarr.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and told.get("node_type") == "array"


def freed_in(folder: Path) -> tuple[str, int] | None:
    """Return where files are that were removed here after they had arrived there, and how many; None: all are here.

    They may have been fetched again: only those count that do not exist.
    """
    freed: dict[str, str] = {}
    url = ""
    try:
        with (folder / NAME).open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                    url = row.get("url", url)
                    if row.get("freed") is True:
                        freed[row["path"]] = url
                except (ValueError, KeyError, AttributeError):
                    continue  # a kill has cut it
    except OSError:
        return None
    gone = [name for name in freed if not (folder / name).exists()]
    return (freed[gone[0]], len(gone)) if gone else None


def walk(folder: Path) -> Iterator[str]:
    """Yield the files of a folder that belong in a bucket, pixels first: who sees metadata there finds what it tells.

    Raises
    ------
    OSError
        Where a folder cannot be read.
    """
    late = []
    for root, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            name = (Path(root) / file).relative_to(folder).as_posix()
            if not is_wanted(name):
                continue
            if file.isdecimal():
                yield name
            else:
                late.append(name)
    yield from sorted(late, key=lambda name: (-name.count("/"), name))


def _raise(error: OSError) -> None:
    raise error
