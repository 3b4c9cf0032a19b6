"""A disk whose power can be cut: what was not synced is gone, or there in part, or garbage.

The model is the one that file systems promise to programs (POSIX ``fsync``): the bytes of a file are on the disk after
its sync, the names in a folder after the folder's. What was not synced may be on the disk all the same, in any part and
any order; so each cut draws, for each file and each name, what became of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pellucid.recording.disk import Disk

__all__ = ["PoweredDisk"]


class PoweredDisk(Disk):
    """Keeps beside the folder what the disk would have after a cut.

    Parameters
    ----------
    root
        Only what lies in it is kept.
    moment
        Called before and after every operation, with its name, from whichever thread does it: the power may be cut
        right there.
    """

    def __init__(self, root: Path, moment: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self.moment = moment
        self._root = root
        self._mutex = threading.RLock()
        self._ids: dict[int, int] = {}
        """Inode -> number of a file; inodes are used again, these are not."""
        self._count = 0
        self._node: dict[int, int] = {}
        """Open handle -> number."""
        self._synced: dict[int, bytes] = {}
        """Number -> bytes that are on the disk."""
        self._names: dict[Path, int] = {}
        """Name -> number, as its folder was synced."""
        self._kept_folders: set[Path] = set()

    def adopt(self) -> None:
        """All that is in the root now is on the disk, as after a start of the computer."""
        with self._mutex:
            for folder, folders, names in os.walk(self._root):
                self._kept_folders.update(Path(folder, name) for name in folders)
                for name in names:
                    path = Path(folder, name)
                    number = self._names[path] = self._number(path.stat().st_ino, new=True)
                    self._synced[number] = path.read_bytes()

    # ---------------------------------------------------------------- the system

    @contextlib.contextmanager
    def _one(self, what: str) -> Iterator[None]:
        """Do one operation; the power may be cut before it and after it."""
        with self._mutex:
            if self.moment is not None:
                self.moment(f"before {what}")
            yield
            if self.moment is not None:
                self.moment(f"after {what}")

    def _number(self, inode: int, *, new: bool = False) -> int:
        if new or inode not in self._ids:
            self._count += 1
            self._ids[inode] = self._count
        return self._ids[inode]

    def _opened(self, handle: int, *, new: bool = False) -> int:
        with self._mutex:
            self._node[handle] = self._number(os.fstat(handle).st_ino, new=new)
        return handle

    def _create(self, path: Path) -> int:
        with self._one("create"):
            return self._opened(super()._create(path), new=True)

    def _reopen(self, path: Path) -> int:
        return self._opened(super()._reopen(path))

    def _mkdir(self, path: Path) -> None:
        with self._one("mkdir"):
            super()._mkdir(path)

    def _write(self, handle: int, data: Any, at: int) -> int:
        with self._one("write"):
            return super()._write(handle, data, at)

    def _truncate(self, handle: int, length: int) -> None:
        with self._one("truncate"):
            super()._truncate(handle, length)

    def _rename(self, old: Path, new: Path) -> None:
        with self._one("rename"):
            super()._rename(old, new)

    def _unlink(self, path: Path) -> None:
        with self._one("unlink"):
            super()._unlink(path)

    def _sync(self, handle: int) -> None:
        with self._one("sync"):
            super()._sync(handle)
            status = os.fstat(handle)
            if handle in self._node:
                self._synced[self._node[handle]] = os.pread(handle, status.st_size, 0)
            else:  # a folder
                folder = Path(os.readlink(f"/proc/self/fd/{handle}"))
                self._names = {path: node for path, node in self._names.items() if path.parent != folder}
                self._kept_folders = {path for path in self._kept_folders if path.parent != folder}
                for entry in os.scandir(folder):
                    if entry.is_dir():
                        self._kept_folders.add(Path(entry.path))
                    else:
                        self._names[Path(entry.path)] = self._number(entry.inode())

    def _close(self, handle: int) -> None:
        with self._mutex:
            self._node.pop(handle, None)
            super()._close(handle)

    # ---------------------------------------------------------------- the cut

    def cut(self, into: Path, kind: str, rng: random.Random) -> None:
        """Write to a new folder what is left.

        Parameters
        ----------
        into
        kind
            ``"synced"``: only that; ``"some"``: of the rest some names and some bytes; ``"garbage"``: the same, and
            bytes that were promised room but not written are zeros or garbage.
        rng
        """
        with self._mutex:
            now = {Path(path): self._number(os.stat(path).st_ino) for path in _files(self._root)}
            names = {path: node for path, node in self._names.items() if self._reached(path)}
            by_node = {node: path for path, node in now.items()}
            if kind != "synced":
                for path, node in now.items():
                    if names.get(path) != node and rng.random() < 0.5:
                        names[path] = node
                for path, node in list(names.items()):
                    # A rename happens as one: whoever has lost the old name has the new one.
                    moved = by_node.get(node, path)
                    if path not in now and (moved == path or names.get(moved) == node) and rng.random() < 0.5:
                        del names[path]
            for path, node in names.items():
                kept = self._synced.get(node, b"")
                current = by_node.get(node)
                if kind != "synced" and current is not None:
                    kept = _some(kept, current.read_bytes(), kind, rng)
                target = into / path.relative_to(self._root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(kept)

    def _reached(self, path: Path) -> bool:
        """Tell whether a name that was synced lies in folders whose names were synced as well."""
        above = [folder for folder in path.parents if self._root in folder.parents]
        return self._root in path.parents and all(folder in self._kept_folders for folder in above)


def _files(root: Path) -> list[str]:
    """Return all but the reserve, which only takes time to copy."""
    return [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names if name != ".reserve"]


def _some(kept: bytes, current: bytes, kind: str, rng: random.Random) -> bytes:
    """Return a file of which more than what was synced may be there."""
    if len(current) < len(kept):
        return rng.choice([kept, current])
    block = 512
    out = bytearray(current[: rng.randint(len(kept), len(current))])
    if current[: len(kept)] != kept:  # written over: each block is the old one or the new one
        for at in range(0, len(kept), block):
            end = min(at + block, len(kept))
            out[at:end] = rng.choice([kept, current])[at:end]
    if kind == "garbage":
        for at in range(len(kept) - len(kept) % block + block, len(out), block):
            if rng.random() < 0.3:
                count = min(block, len(out) - at)
                out[at : at + count] = bytes(count) if rng.random() < 0.5 else rng.randbytes(count)
    return bytes(out)
