"""What the recorder is measured against: plain files, and ome-writers with each of its backends.

All end with everything on the disk. The plain files are synced every second, as the recorder commits; ome-writers never
syncs while it writes, so its files are synced once, at the end, which is the cheaper way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from pellucid.metrics import now_ns
from pellucid.recording.disk import Disk

__all__ = ["PLAIN", "WRITERS", "Writer", "remove", "touch_memory"]

Frames = Sequence[NDArray[Any]]
PLAIN = "plain file"
_PAGE = 4096
_SYNC_NS = 1_000_000_000


@dataclass(frozen=True)
class Writer:
    """A way to put frames on the disk.

    Parameters
    ----------
    name
    write
        Writes so many frames, the given ones over and over, to a path that is not there yet, and syncs them.
    needs
        Module without which it cannot run.
    install
        What to type then.
    """

    name: str
    write: Callable[[Path, Frames, int], None]
    needs: str = ""
    install: str = ""

    @property
    def missing(self) -> str:
        """What to type before it can run; empty where it can."""
        return self.install if self.needs and find_spec(self.needs) is None else ""


def _plain(path: Path, frames: Frames, count: int, *, hurry: bool = False) -> None:
    """Write one file from its beginning to its end, and nothing else."""
    disk = Disk()  # for what it syncs, and for its hurry
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
    try:
        at = 0
        synced = now_ns()
        for i in range(count):
            rest = frames[i % len(frames)].data.cast("B")
            nbytes = len(rest)
            while rest:
                rest = rest[os.write(handle, rest) :]
            if hurry:
                disk._hurry(handle, at, nbytes)
            at += nbytes
            if now_ns() - synced > _SYNC_NS:
                os.fsync(handle)
                synced = now_ns()
        os.fsync(handle)
    finally:
        os.close(handle)
    disk.note_folder(path.parent)
    disk.commit()


def _ome_writers(path: Path, frames: Frames, count: int, *, backend: str) -> None:
    """Append to ome-writers, a frame a chunk, their number told before: without it tensorstore takes twice as long."""
    import ome_writers

    tiff = backend == "tifffile"
    path = path.with_name(f"{path.name}.ome.{'tiff' if tiff else 'zarr'}")
    height, width = frames[0].shape
    dimensions: list[dict[str, Any]] = [{"name": "t", "count": count, "type": "time"}]
    dimensions += [
        {"name": axis, "count": n, "type": "space", "chunk_size": n} for axis, n in (("y", height), ("x", width))
    ]
    settings = {
        "root_path": str(path),
        "dtype": str(frames[0].dtype),
        "format": {"name": "ome-tiff" if tiff else "ome-zarr", "backend": backend},
        "dimensions": dimensions,
    }
    stream = ome_writers.create_stream(ome_writers.AcquisitionSettings.model_validate(settings))
    for i in range(count):
        stream.append(frames[i % len(frames)])
    stream.close()
    stream._finalizer.detach()
    disk = Disk()
    for found in [path, *(path.rglob("*") if path.is_dir() else ())]:
        (disk.note_folder if found.is_dir() else disk.note_file)(found)
    disk.note_folder(path.parent)
    disk.commit()


def _backend(name: str, needs: str) -> Writer:
    write = partial(_ome_writers, backend=name)
    return Writer(f"ome-writers {name}", write, needs, f'pip install "ome-writers[{name}]"')


WRITERS = (
    Writer(PLAIN, _plain),
    Writer("plain file, written out at once", partial(_plain, hurry=True)),
    _backend("tensorstore", "tensorstore"),
    _backend("zarrs-python", "zarrs"),
    _backend("zarr-python", "zarr"),
    _backend("tifffile", "tifffile"),
    _backend("acquire-zarr", "acquire_zarr"),
)
"""The first is the measure of all."""


def touch_memory(nbytes: int) -> None:
    """Have so much free memory be memory that was used a moment ago.

    The first writes to memory that was never used, or that a virtual machine gave back to its host, are up to ten times
    slower than to any other, and what a file's pages get is chance. So memory is taken, touched and let go again until
    that is as fast as it gets.
    """
    if hasattr(os, "sync"):
        os.sync()
    nbytes = min(nbytes, psutil.virtual_memory().available // 2)
    rates: list[float] = []
    while len(rates) < _FEWEST or (min(rates[-2:]) < max(rates) / 2 and len(rates) < _MOST):
        block = np.empty(nbytes, np.uint8)
        before = now_ns()
        block[::_PAGE] = 1
        rates.append(nbytes / max(now_ns() - before, 1))
        del block


_FEWEST, _MOST = 3, 8


def remove(folder: Path) -> None:
    """Empty a folder."""
    for path in list(folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
