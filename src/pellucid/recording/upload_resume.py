"""What of a folder is in a bucket already: told by the bucket's own list, and by checksums where that is not enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pellucid.errors import SinkError
from pellucid.recording.journal import NAME as JOURNAL
from pellucid.recording.upload_state import Sent, UploadState, is_chunk, still, walk
from pellucid.recording.upload_store import Stored
from pellucid.recording.upload_sums import etag_of

__all__ = ["Settled", "look_whether_ended", "settle"]


@dataclass
class Settled:
    """How a folder and a bucket compare.

    Parameters
    ----------
    todo
        Files that are still to be put, pixels first, each with its bytes.
    files, nbytes
        Here, in all.
    freed_bytes
        Removed here just now.
    """

    todo: dict[str, int] = field(default_factory=dict)
    files: int = 0
    nbytes: int = 0
    freed_bytes: int = 0


def settle(
    folder: Path,
    state: UploadState,
    there: Mapping[str, Stored],
    stop: Callable[[], bool],
    *,
    free_local: bool = False,
) -> Settled:
    """Compare each file with what the bucket lists.

    A file is there where the list has its size, and the entity tag that was noted when it was put; or the one that its
    bytes make. Lines of `state` that do not hold are dropped.

    Parameters
    ----------
    folder
    state
    there
        What the bucket lists.
    stop
        Asked at each file.
    free_local
        Remove files of nothing but pixels that are there; each is read for it once more.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    found = Settled()
    for name in walk(folder):
        if stop():
            break
        path = folder / name
        about = path.stat()
        found.files += 1
        found.nbytes += about.st_size
        known, stored = state.sent.get(name), there.get(name)
        chunk = free_local and is_chunk(folder, name)
        is_there = False
        if stored is not None and stored.size == about.st_size:
            noted = known is not None and known.mtime_ns == about.st_mtime_ns and known.etag == stored.etag
            is_there = (noted and not chunk) or etag_of(path, stored.etag) == stored.etag
        if stored is None or not is_there:
            state.sent.pop(name, None)
            found.todo[name] = about.st_size
            continue
        sent = Sent(stored.size, still(about), stored.etag)
        if sent != known:
            state.add(name, sent)
        if chunk:
            found.freed_bytes += state.free(path, name, sent, about.st_mtime_ns)
    return found


def look_whether_ended(folder: Path) -> None:
    """Raise where a recording in the folder has not been ended: its bucket would get what recovery removes.

    Raises
    ------
    SinkError
        With what to type.
    """
    for journal in sorted(folder.rglob(JOURNAL)):
        if journal.is_file():
            raise SinkError(
                f"{journal.parent} is being recorded, or was not ended. When no session records to it any more, type: "
                f"pellucid recover {journal.parent}"
            )
