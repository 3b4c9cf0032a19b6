"""NDTiff folders, as Micro-Manager and pycro-manager write them; frames in the order they were acquired."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import SourceError, require
from pellucid.protocols import Spec, Stream
from pellucid.sources._stored import plane_spec

__all__ = ["StoredNDTiff"]

AXES = {"time": "t", "position": "p", "z": "z", "channel": "c"}
RGB = 2
BITS = {0: 8, 1: 16, 3: 10, 4: 12, 5: 14, 6: 11}
"""Pixel types of an NDTiff index."""


class StoredNDTiff:
    """A dataset of NDTiff version 3 (see `pellucid.sources._stored.Stored`).

    Its keys come in no order, so `sizes` (the places along each axis, the slowest first) is found by how often each
    changes from one frame to the next.

    The index is held in memory (some hundred bytes a frame), pixels are read one frame at a time. Channels
    become streams; of axes that are neither time, position, z nor channel the number is kept in the order
    of acquisition only.
    """

    def __init__(self, path: Path) -> None:
        ndstorage = require("ndstorage", "replay", f'source "replay" with the NDTiff {path}')
        self._what = str(path)
        self._data: Any = None
        try:
            # It reports its progress on standard output.
            with contextlib.redirect_stdout(io.StringIO()):
                self._data = ndstorage.NDTiffDataset(str(path))
        except Exception as error:
            raise SourceError(f"{path} cannot be read as NDTiff: {' '.join(str(error).split())}") from None
        try:
            self._open(path)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path) -> None:
        entries = [(dict(key), entry) for key, entry in self._data.index.items() if entry.filename]
        if not entries:
            raise SourceError(f"{path} holds no image")
        names = sorted({str(at.get("channel", 0)) for at, _ in entries}, key=_natural)
        first: dict[str, Any] = {}
        frames = dict.fromkeys(names, 0)
        ends: dict[str, int] = {}
        self._keys: list[dict[str, Any]] = []
        self._where: list[tuple[int, dict[str, int]]] = []
        for at, entry in entries:
            name = str(at.get("channel", 0))
            first.setdefault(name, entry)
            frames[name] += 1
            stream = names.index(name)
            axes = {AXES[k]: v for k, v in at.items() if k in AXES and isinstance(v, int)}
            self._keys.append(at)
            self._where.append((stream, axes | {"c": stream}))
            size = entry.image_width * entry.image_height * (1 if entry.pixel_type == 0 else 2)
            ends[entry.filename] = max(ends.get(entry.filename, 0), entry.pix_offset + size)
        for file, end in ends.items():
            if not (path / file).is_file() or os.path.getsize(path / file) < end:
                raise SourceError(f"{path / file} is cut short or missing: the index needs {end} bytes")
        self.count = len(self._keys)
        self.sizes = _sizes([axes for _, axes in self._where])
        summary = self._data.summary_metadata or {}
        pixel_um = float(summary.get("PixelSize_um") or summary.get("PixelSizeUm") or 0) or None
        known = [str(n) for n in summary.get("ChNames") or []]
        self.streams = tuple(
            Stream(
                spec=self._spec(first[name]),
                camera=path.name,
                channel=_channel(name, i, known),
                index=i,
                pixel_um=pixel_um,
                z_um=abs(float(summary.get("z-step_um") or 0)) or None,
                bit_depth=BITS[first[name].pixel_type],
                frames=frames[name],
                details={"file": self._what, "format": "NDTiff"},
            )
            for i, name in enumerate(names)
        )

    def _spec(self, entry: Any) -> Spec:
        if entry.pixel_type == RGB:
            raise SourceError(f"{self._what} holds colour pictures; only grey planes can be replayed")
        if entry.pixel_type not in BITS:
            raise SourceError(f"{self._what} holds an unknown pixel type ({entry.pixel_type})")
        dtype = "uint8" if entry.pixel_type == 0 else "uint16"
        return plane_spec((entry.image_height, entry.image_width), dtype, self._what)

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        """Return stream and axes of frame `at`."""
        return self._where[at]

    def read(self, at: int, plane: np.ndarray[Any, Any]) -> None:
        """Copy frame `at` into `plane`."""
        try:
            image = self._data.read_image(**self._keys[at])
        except Exception as error:
            why = " ".join(str(error).split())
            raise SourceError(f"{self._what}: frame {at} ({self._keys[at]}) cannot be read: {why}") from None
        if image.shape != plane.shape or image.dtype != plane.dtype:
            raise SourceError(
                f"{self._what}: frame {at} is {image.shape} {image.dtype}, the first of its channel is "
                f"{plane.shape} {plane.dtype}; one stream has one shape and type"
            )
        np.copyto(plane, image)

    def close(self) -> None:
        """Close the files."""
        if self._data is not None:
            self._data.close()
            self._data = None


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (-1, name)


def _sizes(places: Sequence[Mapping[str, int]]) -> dict[str, int]:
    changes = {axis: sum(a[axis] != b.get(axis) for a, b in pairwise(places) if axis in a) for axis in places[0]}
    return {axis: 1 + max(at.get(axis, 0) for at in places) for axis in sorted(changes, key=changes.__getitem__)}


def _channel(name: str, number: int, known: list[str]) -> str:
    """Return the name of a channel; older datasets number them and name them in the summary."""
    if not name.isdigit():
        return name
    return known[number] if number < len(known) else f"channel{name}"
