"""What engines took long to make, kept on the disk and never trusted.

An entry is one file: a line that says what it is, a line of JSON (key, length and SHA-256 of what follows, facts), and
the engine's own bytes. Its name is its key: a hash over everything that the bytes depend on. It is written beside its
place and moved there whole. Whatever does not fit (another key, another length, another hash) counts as absent: it is
told, and built again. Of two sessions that want the same one, one builds and the other waits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pellucid.models.places import cache_folder

__all__ = ["FORMAT", "Cache", "Entry", "key_of"]

FORMAT = 2
"""Of the files and of what engines put into them; a new number makes all entries anew."""
_MAGIC = b"pellucid engine, format %d\n" % FORMAT
_SUFFIX = ".engine"
_LONGEST_HEAD = 1 << 20

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """One engine in the cache.

    Parameters
    ----------
    key
    data
        The engine's own bytes; empty where there is nothing but facts, and in a listing.
    facts
        ``kind``, ``model``, ``precision``, ``shape``, ``library``, ``device``, ``made`` (when), ``took_s``,
        ``fidelity``; JSON types.
    nbytes
        Of the file.
    """

    key: str
    data: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)
    nbytes: int = 0


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key for everything that an engine depends on, ours and torch's JSON types only."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class Cache:
    """A folder of entries.

    Parameters
    ----------
    folder
        None: ``engines`` in the folder that `pellucid.models.places.cache_folder` gives (``PELLUCID_CACHE``).
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "engines"

    def path(self, key: str) -> Path:
        """Return the file of an entry."""
        return self.folder / f"{key}{_SUFFIX}"

    def read(self, key: str, tell: Tell | None = None) -> Entry | None:
        """Return an entry, or None where there is none; one that is damaged or foreign is told and counts as none."""
        path = self.path(key)
        try:
            with path.open("rb") as file:
                head, why = _head(file)
                data = b"" if why else file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            head, data, why = {}, b"", error.strerror or str(error)
        if not why and head["key"] != key:
            why = "it belongs to another engine"
        if not why and len(data) != head["bytes"]:
            why = f"{len(data)} bytes of {head['bytes']}"
        if not why and hashlib.sha256(data).hexdigest() != head["sha256"]:
            why = "its checksum is wrong"
        if why:
            if tell:
                tell(f"engine cache: {path.name} is not used, it is built again: {why}")
            return None
        with contextlib.suppress(OSError):  # when it was last used, for `prune`
            os.utime(path)
        return Entry(key, data, head["facts"], len(data))

    def write(self, key: str, data: bytes, facts: Mapping[str, Any]) -> Entry:
        """Put an entry into its place, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        known = json.loads(json.dumps(dict(facts)))
        head = {"key": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "facts": known}
        head["head"] = _sum_of(head)
        handle, name = tempfile.mkstemp(prefix=f".{key[:12]}-", suffix=".part", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + json.dumps(head).encode() + b"\n" + data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        return Entry(key, data, dict(facts), len(data))

    def fetch(
        self, key: str, make: Callable[[], bytes], facts: Mapping[str, Any], tell: Tell | None = None
    ) -> tuple[Entry, bool]:
        """Return the entry and whether it was there; else make it, once among all sessions of this computer.

        Where the folder cannot be written, it is made, told and not kept.
        """
        if entry := self.read(key, tell):
            return entry, True
        try:
            with self._alone(key, tell):
                if entry := self.read(key):  # by the one that was waited for
                    return entry, True
                return self._make(key, make, facts, tell), False
        except _Unwritable as error:
            if tell:
                tell(f"engine cache: {self.folder} cannot be written ({error}); the engine is not kept")
            began = time.perf_counter()
            data = make()
            return Entry(key, data, {**facts, "took_s": round(time.perf_counter() - began, 3)}, len(data)), False

    def _make(self, key: str, make: Callable[[], bytes], facts: Mapping[str, Any], tell: Tell | None) -> Entry:
        began = time.perf_counter()
        data = make()
        known = {
            **facts,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.perf_counter() - began, 3),
        }
        try:
            return self.write(key, data, known)
        except OSError as error:
            if tell:
                tell(f"engine cache: {self.folder} cannot be written ({error.strerror}); the engine is not kept")
            return Entry(key, data, known, len(data))

    @contextlib.contextmanager
    def _alone(self, key: str, tell: Tell | None) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f"{key}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if tell:
                    tell("engine cache: another session builds this engine; waiting for it")
                lock.acquire()
        except OSError as error:
            raise _Unwritable(error.strerror or str(error)) from None
        try:
            yield
        finally:
            lock.release()

    def note(self, entry: Entry, **facts: Any) -> Entry:
        """Add facts to an entry, where it is kept."""
        known = {**entry.facts, **facts}
        if self.path(entry.key).exists():
            with contextlib.suppress(OSError):
                return self.write(entry.key, entry.data, known)
        return Entry(entry.key, entry.data, known, entry.nbytes)

    def forget(self, key: str) -> None:
        """Take an entry out."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    def entries(self) -> list[tuple[Entry, float]]:
        """Return what is kept, without its data, and when each was last used (seconds since 1970), latest first.

        One that is damaged is listed with ``facts = {"damaged": why}``.
        """
        rows = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                head, why = _head(file)
                at = os.fstat(file.fileno())
                facts = {"damaged": why} if why else head["facts"]
                rows.append((Entry(path.stem, b"", facts, at.st_size), at.st_mtime))
        return sorted(rows, key=lambda row: -row[1])

    def prune(self, older_than_days: float = 90.0) -> list[Entry]:
        """Remove what was not used for so long, what is damaged, and what a killed session left; return it."""
        limit = time.time() - older_than_days * 86400
        gone = [entry for entry, used in self.entries() if used < limit or "damaged" in entry.facts]
        for entry in gone:
            self.forget(entry.key)
        day_ago = time.time() - 86400
        for path in (*self.folder.glob("*.part"), *self.folder.glob("*.lock")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < day_ago:
                    path.unlink()
        return gone


class _Unwritable(Exception):
    """The folder of the cache cannot be written."""


def _sum_of(head: Mapping[str, Any]) -> str:
    """Return the checksum of a head: an error bound that was changed on the disk would be believed."""
    return hashlib.sha256(json.dumps(dict(head), sort_keys=True).encode()).hexdigest()


def _head(file: Any) -> tuple[dict[str, Any], str]:
    """Return the line of JSON and ``""``, or nothing and what is wrong."""
    magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        return {}, "it is empty" if not magic else "it is not an engine of this format"
    try:
        head = json.loads(file.readline(_LONGEST_HEAD))
        if not (isinstance(head["facts"], dict) and isinstance(head["bytes"], int)):
            raise TypeError
        if head.pop("head") != _sum_of(head):
            return {}, "the checksum of its head is wrong"
        return {"key": head["key"], "bytes": head["bytes"], "sha256": head["sha256"], "facts": head["facts"]}, ""
    except (ValueError, KeyError, TypeError):
        return {}, "its head is damaged"
