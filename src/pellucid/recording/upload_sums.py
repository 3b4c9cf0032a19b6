"""The entity tag that a store gives to what it was sent, made here: so what arrived is compared with what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["PART_BYTES", "Parts", "Sums", "etag_of", "part_bytes"]

PART_BYTES = 8 << 20
"""What is larger is put in parts of so much; a cut cable costs at most one of them, and memory holds a few."""
_PARTS = 9000


def part_bytes(size: int) -> int:
    """Return the bytes of a part of a file, 0 where it is put as a whole; a store takes 10000 parts at most."""
    whole_mb = -(-size // (_PARTS << 20))
    return max(PART_BYTES, whole_mb << 20) if size > PART_BYTES else 0


class Sums:
    """The entity tag that a store gives to bytes: their MD5; or of parts the MD5 of those of each, and how many.

    Parameters
    ----------
    part
        Bytes of each; 0 for what is put as a whole.

    Attributes
    ----------
    size : int
        Bytes so far.
    """

    def __init__(self, part: int) -> None:
        self.part = part
        self.size = 0
        self._done: list[bytes] = []
        self._now = hashlib.md5(usedforsecurity=False)
        self._room = self.part

    def add(self, data: Any) -> None:
        """Go on with bytes, in pieces of any length."""
        rest = memoryview(data).cast("B")
        self.size += len(rest)
        while self.part and len(rest) >= self._room:
            self._now.update(rest[: self._room])
            rest = rest[self._room :]
            self._end_part()
        self._now.update(rest)
        self._room -= len(rest)

    def _end_part(self) -> None:
        self._done.append(self._now.digest())
        self._now = hashlib.md5(usedforsecurity=False)
        self._room = self.part

    @property
    def etag(self) -> str:
        """Of all that came so far."""
        if not self.part:
            return self._now.hexdigest()
        done = [*self._done, self._now.digest()] if self._room < self.part else self._done
        return f"{hashlib.md5(b''.join(done), usedforsecurity=False).hexdigest()}-{len(done)}"


class Parts:
    """A file's parts, one after the other; the library asks for them from its own threads.

    Attributes
    ----------
    sums : Sums
        Of those that were asked for.
    error : OSError or None
        That ended the reading.
    """

    def __init__(self, path: Path, part: int) -> None:
        self.sums = Sums(part)
        self.error: OSError | None = None
        self._file = path.open("rb")

    def __iter__(self) -> Iterator[bytes]:
        try:
            while data := self._file.read(self.sums.part):
                self.sums.add(data)
                yield data
        except OSError as error:
            self.error = error
            raise

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def etag_of(path: Path, like: str) -> str:
    """Return the entity tag of a local file, in parts or not as that of `like`; raises OSError."""
    sums = Sums(part_bytes(path.stat().st_size) if "-" in like else 0)
    with path.open("rb") as file:
        while data := file.read(PART_BYTES):
            sums.add(data)
    return sums.etag
