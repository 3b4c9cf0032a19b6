"""PNG files, and folders of PNG or TIFF files of one plane each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import SourceError
from pellucid.protocols import COLOURS, Stream
from pellucid.sources._stored import Grid, plane_spec

__all__ = ["StoredPictures", "pictures_in"]

_PNG = (".png",)
_TIFF = (".tif", ".tiff")
_MODES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "F": "float32", "RGB": "uint8", "RGBA": "uint8"}
"""Of pillow: those that are read, and the type of their pixels."""
_DEPTH_AT = 24
"""Of a PNG, the byte that tells the bits of a colour."""


def pictures_in(path: Path) -> list[Path]:
    """Return the pictures that `path` is or holds, in the order of their names; empty where there are none.

    A folder's are those of one kind: PNG, where there are any, else TIFF.
    """
    if path.is_file():
        return [path] if path.suffix.lower() in _PNG else []
    if not path.is_dir():
        return []
    for kind in (_PNG, _TIFF):
        found = [p for p in path.iterdir() if p.suffix.lower() in kind and not p.name.startswith(".")]
        if found:
            return sorted(found, key=lambda p: _natural(p.name))
    return []


class StoredPictures:
    """Files of one plane, or of three colours, each (see `pellucid.sources._stored.Stored`).

    Only their heads are read when they are opened, so that all are known to be alike. The last picture that was decoded
    is kept for its other colours.
    """

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self._files = list(files)
        first = _head(files[0])
        for file in files[1:]:
            if (head := _head(file)) != first:
                raise SourceError(
                    f"{path}: {file.name} is {_told(head)}, {files[0].name} is {_told(first)}; one stream has one "
                    "shape and type. Put pictures of other kinds into folders of their own"
                )
        (height, width), dtype, colours = first
        spec = plane_spec((height, width), dtype, str(path))
        self._grid = Grid(("t", "c") if colours else ("t",), (len(files), len(COLOURS)) if colours else (len(files),))
        self.count = self._grid.count
        self._at, self._planes = -1, np.empty(0)
        self.streams = tuple(
            Stream(
                spec=spec,
                camera=path.stem,
                channel=channel,
                index=i,
                bit_depth=8 if dtype == "uint8" else None,
                frames=len(files),
                details={"file": str(path), "format": f"{files[0].suffix[1:].upper()} pictures"},
            )
            for i, channel in enumerate(COLOURS if colours else ("channel",))
        )

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        """Return stream and axes of frame `at`."""
        return self._grid.locate(at)

    def read(self, at: int, plane: np.ndarray[Any, Any]) -> None:
        """Copy frame `at` into `plane`."""
        stream, axes = self._grid.locate(at)
        number = axes["t"]
        if number != self._at:
            self._at = -1
            self._planes = _pixels(self._files[number])
            self._at = number
        found = self._planes[stream]
        if found.shape != plane.shape:
            raise SourceError(f"{self._files[number]} has changed since it was opened: it is {found.shape} now")
        np.copyto(plane, found, casting="same_kind")

    def close(self) -> None:
        """Let go of the pixels."""
        self._at, self._planes = -1, np.empty(0)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts ``cell_2`` before ``cell_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def _told(head: tuple[tuple[int, int], str, bool]) -> str:
    return f"{head[0][0]}x{head[0][1]} {'RGB ' if head[2] else ''}{head[1]}"


def _head(file: Path) -> tuple[tuple[int, int], str, bool]:
    """Return height and width, type, and whether it is in colour."""
    try:
        if file.suffix.lower() in _TIFF:
            import tifffile

            with tifffile.TiffFile(file) as opened:
                page, count = opened.pages.first, len(opened.pages)
                if count != 1 or page.axes not in ("YX", "YXS"):
                    raise SourceError(
                        f"{file} holds {count} pages with the axes {page.axes}; in a folder of pictures each file is "
                        "one plane. Give the file itself"
                    )
                return (page.shape[0], page.shape[1]), np.dtype(page.dtype).name, page.axes == "YXS"
        from PIL import Image

        with Image.open(file) as picture, file.open("rb") as content:
            mode, deep = picture.mode, content.read(_DEPTH_AT + 1)[_DEPTH_AT] > 8
            if mode not in _MODES or (deep and mode in ("RGB", "RGBA")):
                raise SourceError(
                    f"{file} has pixels of another kind (pillow: {mode}); grey ones of 8 or 16 bits are read, and RGB "
                    "of 8. Save it as a TIFF"
                )
            return (picture.height, picture.width), _MODES[mode], mode in ("RGB", "RGBA")
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{file} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None


def _pixels(file: Path) -> np.ndarray[Any, Any]:
    """Return its planes: one, or red, green and blue."""
    try:
        if file.suffix.lower() in _TIFF:
            import tifffile

            whole = np.asarray(tifffile.imread(file))
        else:
            from PIL import Image

            with Image.open(file) as picture:
                whole = np.asarray(picture)
    except Exception as error:
        raise SourceError(f"{file} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None
    return np.moveaxis(whole[..., : len(COLOURS)], -1, 0) if whole.ndim == 3 else whole[None]
