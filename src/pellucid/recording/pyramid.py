"""Coarser levels of an OME-Zarr image, made after the run: a viewer then opens a large picture at once.

All levels of a plane are made from one reading of it, in ``.pyramid`` within the image; how far it has come is noted
there after each commit, so that a call which was killed goes on where the disk has what was made. When all is there the
levels get their places, and only then does the metadata name them: no reader sees half of one. Level 0 is only read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from pellucid.errors import SinkError
from pellucid.metrics import now_ns
from pellucid.recording.disk import Disk
from pellucid.recording.levels import halve, level_metadata, level_sizes, name_levels, pick
from pellucid.recording.zarr_codec import Codec
from pellucid.recording.zarr_shard import Shard

__all__ = ["PLACE", "Pyramid"]

PLACE = ".pyramid"
_DONE, _LOCK = "done.json", "lock"
_COMMIT_NS = 2_000_000_000
_KINDS = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")


@dataclass(frozen=True)
class _Level:
    name: str
    size: tuple[int, int]
    metadata: bytes


class Pyramid:
    """The levels of one image.

    Parameters
    ----------
    group
        Its folder: the one whose metadata has ``multiscales``.
    disk

    Attributes
    ----------
    planes, done : int
        Of level 0, and those whose levels are on the disk already.
    nbytes : int
        That the levels take before any compression.

    Raises
    ------
    SinkError
        Where it is an image that cannot have levels here.
    """

    def __init__(self, group: Path, disk: Disk) -> None:
        self._group, self._disk = group, disk
        self._place = group / PLACE
        self.planes = self.done = self.nbytes = 0
        self._levels: list[_Level] = []
        try:
            self._open()
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SinkError(
                f"{group}: its metadata is not that of an image ({type(error).__name__}: {error})"
            ) from None

    def _open(self) -> None:
        group = self._group
        self._told = _json(group / "zarr.json")
        scales = self._told["attributes"]["ome"]["multiscales"]
        if len(scales) != 1:
            raise SinkError(f"{group} has {len(scales)} multiscales; only images with one can be given levels")
        self._scale = scales[0]
        datasets = self._scale["datasets"]
        if len(datasets) > 1:
            return  # it has them
        self._first = datasets[0]["path"]
        self._look(_json(group / self._first / "zarr.json"))

    @property
    def needed(self) -> bool:
        """There is something to do: it is larger than the coarsest level would be, and has none yet."""
        return bool(self._levels)

    def _look(self, told: dict[str, Any]) -> None:
        group, shape, dtype = self._group, told["shape"], told["data_type"]
        names = [axis["name"] for axis in self._scale["axes"]]
        if names[-2:] != ["y", "x"] or len(names) != len(shape):
            raise SinkError(f"{group} has the axes {','.join(names)} for the shape {tuple(shape)}; y, x come last")
        labels = "image-label" in self._told["attributes"]["ome"]
        self._smaller = pick if labels else halve
        if dtype not in _KINDS and not (labels and dtype in ("uint64", "int64")):
            raise SinkError(f"{group} holds {dtype}. Levels are made of: {', '.join(_KINDS)}")
        self._dtype = np.dtype(dtype).newbyteorder("<")
        grid, codecs = told["chunk_grid"]["configuration"]["chunk_shape"], told["codecs"]
        self._sharded = codecs[0]["name"] == "sharding_indexed"
        self._across = tuple(grid[:-2]) if self._sharded else (1,) * (len(shape) - 2)
        """Planes of a shard along each axis; a file for each plane where level 0 has no shards."""
        inner = codecs[0]["configuration"]["codecs"] if self._sharded else codecs
        compressors = [codec for codec in inner if codec["name"] != "bytes"]
        self._codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, *compressors]
        try:
            self._codec = Codec(self._codecs)
        except (SinkError, KeyError) as error:
            raise SinkError(f"{group / self._first}: {error}") from None
        self._lead = tuple(shape[:-2])
        self.planes = prod(self._lead)
        self._shards = tuple(ceil(n / a) for n, a in zip(self._lead, self._across, strict=True))
        sizes = level_sizes(shape[-2], shape[-1])
        shard = self._across if self._sharded else None
        for i, size in enumerate(sizes, 1):
            metadata = level_metadata(told, self._codecs, shard, size)
            self._levels.append(_Level(self._level_name(i), size, _text(metadata)))
        if not self._compressed:
            self.nbytes = self.planes * sum(prod(size) for size in sizes) * self._dtype.itemsize
        self._identity = hashlib.sha256(_text(told)).hexdigest()
        self._shards_done = self._resume()
        before = islice(np.ndindex(self._shards), self._shards_done)
        self.done = sum(1 for at in before for _ in self._inside(at))

    @property
    def _compressed(self) -> bool:
        return len(self._codecs) > 1

    def _level_name(self, level: int) -> str:
        number = re.fullmatch(r"(.*?)(\d+)", self._first)
        return f"{number[1]}{int(number[2]) + level}" if number else f"{self._first}-{level}"

    # ---------------------------------------------------------------- going on

    def _resume(self) -> int:
        """Return how many shards an earlier call has on the disk; what it left of another image is not gone on with."""
        noted: dict[str, Any] = {}
        try:
            noted = _json(self._place / _DONE)
        except (OSError, ValueError):
            pass
        self._begun = noted.get("of") == self._identity
        done = int(noted["shards"]) if self._begun else 0
        ended = self._begun and done == prod(self._shards)
        for level in self._levels:
            there, made = (self._group / level.name).exists(), (self._place / level.name).is_dir()
            if there and (made or not ended):
                raise SinkError(
                    f"{self._group / level.name} is in the way: the metadata does not name it. Move it away"
                )
            if ended and not there and not made:
                done, self._begun = 0, False
        return done

    def _note(self, shards: int) -> None:
        self._disk.commit()
        self._disk.replace(self._place / _DONE, _text({"of": self._identity, "shards": shards}))

    # ---------------------------------------------------------------- making

    def make(self, stop: Callable[[], bool], advance: Callable[[int], None]) -> bool:
        """Make the levels; False where it was stopped, to be gone on with.

        Parameters
        ----------
        stop
            Asked after each plane.
        advance
            Takes how many planes were done.

        Raises
        ------
        SinkError
            Where another call is at it, or a plane of level 0 cannot be read.
        OSError
            Where the disk takes no more.
        """
        self._place.mkdir(exist_ok=True)
        lock = FileLock(self._place / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise SinkError(f"another pellucid pyramid is at work in {self._group}: wait until it is done") from None
        try:
            if not self._make(stop, advance):
                return False
            self._list()
        finally:
            lock.release()
        shutil.rmtree(self._place, ignore_errors=True)
        return True

    def _make(self, stop: Callable[[], bool], advance: Callable[[int], None]) -> bool:
        import zarr

        if not self._begun:
            for left in self._place.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
            for level in self._levels:
                self._disk.write_new(self._place / level.name / "zarr.json", [level.metadata])
            self._disk.note_folder(self._group)
            self._note(0)
        array: Any = zarr.open_array(self._group / self._first, mode="r")
        noted_ns = now_ns()
        for number, at in enumerate(np.ndindex(self._shards)):
            if number < self._shards_done:
                continue
            if stop() or not self._make_shard(at, array, stop, advance):
                self._note(number)
                return False
            if now_ns() - noted_ns > _COMMIT_NS:
                self._note(number + 1)
                noted_ns = now_ns()
        self._note(prod(self._shards))
        return True

    def _inside(self, shard: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the planes of a shard: place in it, place in the image."""
        for inner, offset in enumerate(np.ndindex(self._across)):
            at = tuple(s * a + o for s, a, o in zip(shard, self._across, offset, strict=True))
            if all(i < n for i, n in zip(at, self._lead, strict=True)):
                yield inner, at

    def _make_shard(
        self, shard: tuple[int, ...], array: Any, stop: Callable[[], bool], advance: Callable[[int], None]
    ) -> bool:
        key = "/".join(["c", *map(str, shard), "0", "0"])
        files = [self._place / level.name / key for level in self._levels]
        made = [Shard(prod(self._across)) for _ in files]
        for path in files if self._begun else ():
            self._disk.remove(path)  # what was written after the last commit may be torn
        try:
            for inner, at in self._inside(shard):
                if stop():
                    return False
                plane = self._read(array, at)
                for path, its in zip(files, made, strict=True):
                    plane = self._smaller(plane)
                    if np.any(plane != array.fill_value):
                        self._put(path, its, inner, plane)
                advance(1)
            for its in made:
                if its.file is not None:
                    its.file.append([its.index()])
        finally:
            for its in made:
                its.close()
        return True

    def _read(self, array: Any, at: tuple[int, ...]) -> NDArray[Any]:
        try:
            return np.asarray(array[at])
        except Exception as error:  # whatever a codec raises
            where = f"{self._group / self._first}: the plane at {at}"
            raise SinkError(f"{where} cannot be read ({type(error).__name__}: {error})") from None

    def _put(self, path: Path, shard: Shard, inner: int, plane: NDArray[Any]) -> None:
        data = self._codec.encode(np.ascontiguousarray(plane, self._dtype))
        if not self._sharded:
            self._disk.write_new(path, [data])
            return
        if shard.file is None:
            shard.file = self._disk.grow(path)
        offset = shard.file.append([data])
        shard.add(inner, offset, shard.file.length - offset)

    # ---------------------------------------------------------------- the end

    def _list(self) -> None:
        """Give the levels their places, then name them in the metadata."""
        for level in self._levels:
            if (self._place / level.name).is_dir():
                self._disk.rename(self._place / level.name, self._group / level.name)
        self._disk.commit()
        name_levels(self._told, [level.name for level in self._levels], labels=self._smaller is pick)
        self._disk.replace(self._group / "zarr.json", _text(self._told))
        self._disk.commit()


def _json(path: Path) -> dict[str, Any]:
    told = json.loads(path.read_text("utf-8"))
    if not isinstance(told, dict):
        raise ValueError(f"{path} is no table")
    return told


def _text(told: dict[str, Any]) -> bytes:
    return json.dumps(told, indent=1).encode()
