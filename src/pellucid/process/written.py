"""Which planes of a recording that was not ended are there: one that was never written reads as zeros.

Its rows lag behind its pixels, so a plane without a row may be there all the same; what tells is its file. Pixels that
are all zero have no file either, which is why a recording that was ended, and a plane with a row, is never asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.process.facts import attributes

__all__ = ["Written", "ended"]

_ABSENT = 2**64 - 1
"""Place and length of a chunk that a shard does not have."""


def ended(recording: Path, images: Sequence[Path]) -> bool:
    """Tell whether a recording was ended, or what is there is none of pellucid's.

    Parameters
    ----------
    recording
        What was given.
    images
        Its images, as folders; one of them may be what was given.
    """
    for image in images:
        # The group of a position does not always say whose it is; the one around it does.
        root = next((f for f in (image, image.parent) if "pellucid" in attributes(f)), None)
        if root is None:
            return True
        if any((f / "recording.json").is_file() for f in (root.parent, recording)):
            return True  # `open_recorded` has looked at it
        if (root.parent / "report.json").is_file() or (recording / "report.json").is_file():
            return True
        alone = not (recording / "frames.jsonl").is_file()
        if alone and "planes_written" in attributes(image).get("pellucid", {}):
            return True
    return False


class Written:
    """The planes that one image holds.

    Parameters
    ----------
    image
        Folder of an OME-Zarr 0.5, as pellucid writes it.
    """

    def __init__(self, image: Path) -> None:
        import zarr

        told = attributes(image)
        level = told.get("ome", told).get("multiscales", [{}])[0].get("datasets", [{}])[0].get("path", "0")
        self._folder = image / str(level)
        array = zarr.open_array(str(self._folder), mode="r", zarr_format=3)
        self._names = [name or "" for name in getattr(array.metadata, "dimension_names", None) or ()]
        self._names = self._names or list("tczyx" if array.ndim == 5 else "tcyx")
        self._key = array.metadata.encode_chunk_key
        self._shape, self._files, self._chunks = array.shape, array.shards or array.chunks, array.chunks
        self._sharding = _sharding(array)
        self._indices: dict[str, np.ndarray[Any, Any] | None] = {}

    def __contains__(self, axes: dict[str, int]) -> bool:
        """Tell whether anything was written of the plane at these places along t, c and z."""
        first = [axes.get(name, 0) for name in self._names[:-2]]
        ends = [range(-(-n // c)) for n, c in zip(self._shape[-2:], self._chunks[-2:], strict=True)]
        return any(
            self._has([*(at // n for at, n in zip(first, self._chunks[:-2], strict=True)), y, x])
            for y in ends[0]
            for x in ends[1]
        )

    def _has(self, chunk: Sequence[int]) -> bool:
        """Tell whether a chunk is there, alone in a file or in a shard."""
        each = [n // c for n, c in zip(self._files, self._chunks, strict=True)]
        key = self._key(tuple(at // n for at, n in zip(chunk, each, strict=True)))
        file = self._folder / key
        if self._sharding is None:
            return file.is_file() and file.stat().st_size > 0
        if key not in self._indices:
            self._indices = {key: self._index(file, each)}  # planes come shard after shard
        index = self._indices[key]
        return index is not None and bool(index[tuple(at % n for at, n in zip(chunk, each, strict=True))])

    def _index(self, file: Path, each: Sequence[int]) -> np.ndarray[Any, Any] | None:
        """Return which chunks a shard has; None where the shard itself is not there, or was cut off."""
        assert self._sharding is not None
        at_start, beside = self._sharding
        size = 16 * math.prod(each) + beside
        try:
            if file.stat().st_size < size:
                return None
            with file.open("rb") as opened:
                opened.seek(0 if at_start else -size, 0 if at_start else 2)
                content = opened.read(size - beside)
        except FileNotFoundError:
            return None
        places = np.frombuffer(content, "<u8").reshape(*each, 2)
        return np.asarray((places != _ABSENT).any(-1))


def _sharding(array: Any) -> tuple[bool, int] | None:
    """Return of a sharded array whether the index comes first, and the bytes of its checksum."""
    if not array.shards:
        return None
    codec = next(c.to_dict() for c in array.metadata.codecs if c.to_dict()["name"] == "sharding_indexed")
    told = codec["configuration"]
    sums = [c for c in told.get("index_codecs", ()) if c["name"] == "crc32c"]
    where = told.get("index_location", "end")
    return getattr(where, "value", where) == "start", 4 * len(sums)
