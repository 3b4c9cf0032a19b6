"""The images of IN: those of a recording, and those of an experiment whose positions lie in folders of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pellucid.errors import SourceError
from pellucid.process.facts import attributes
from pellucid.sources._stored import Grid, Stored, open_stored

__all__ = ["image_folders", "level_folder", "open_image", "position_folders", "position_names"]


def image_folders(path: Path, dataset: int | str | None) -> list[tuple[Path, str]]:
    """Return each image of IN and the end of its name; all those of a recording, in the order of its streams."""
    if dataset is not None or not (path / "raw.ome.zarr").is_dir():
        return [(path, "")]
    ends = []
    for folder in path.glob("raw*.ome.zarr"):
        end = folder.name.removeprefix("raw").removesuffix(".ome.zarr")
        number = re.search(r"-(\d+)$", end)
        if not end or number:
            ends.append((int(number[1]) if number else 0, folder, end))
    return [(folder, end) for _, folder, end in sorted(ends)]


def open_image(folder: Path, dataset: int | str | None) -> Stored:
    """Open an image, or the images of all its positions as one."""
    told = attributes(folder) if folder.is_dir() else {}
    if dataset is None and "bioformats2raw.layout" in told.get("ome", told):
        series = attributes(folder / "OME").get("ome", attributes(folder / "OME")).get("series") or []
        names = [name for name in series if (folder / name).is_dir()]
        if len(names) > 1:
            images: list[Stored] = []
            try:
                images.extend(open_stored(folder / name, None, planes=True) for name in names)
                return _Positions(images)
            except SourceError as error:
                for image in images:
                    image.close()
                raise SourceError(f"{folder}: {error}. Give one image of it: --set source.dataset={names[0]}") from None
    try:
        return open_stored(folder, dataset, planes=True)
    except SourceError as error:
        # Here it is no config that says which, since [source] of a config is not used.
        before, says, which = str(error).partition("Say which one: dataset = ")
        hint = f"{says.partition(':')[0]}: --set source.dataset={which.strip(chr(34))}" if says else ""
        raise SourceError(before + hint) from None


def level_folder(folder: Path) -> Path:
    """Return the folder whose metadata speak of the pixels: of the first position, where there are several."""
    series = attributes(folder / "OME").get("ome", {}).get("series") if folder.is_dir() else None
    return folder / series[0] if series else folder


def position_names(folder: Path, count: int) -> list[str]:
    """Return a name for each position; as in the file, as far as it has any."""
    names = attributes(folder / "OME").get("ome", {}).get("series") or [] if folder.is_dir() else []
    return [*names, *(f"p{i}" for i in range(len(names), count))]


def position_folders(stored: Stored) -> list[Path]:
    """Return the folder of each position of an OME-Zarr, in their order; empty for any other format."""
    images = stored._images if isinstance(stored, _Positions) else [stored]
    told = [image.streams[0].details for image in images]
    return [Path(str(t["file"])) for t in told if str(t.get("format", "")).startswith("OME-Zarr")]


class _Positions:
    """Images of equal size, one for each position, as one (see `pellucid.sources._stored.Stored`)."""

    def __init__(self, images: Sequence[Stored]) -> None:
        self._images = images
        first = images[0]
        axes = first.locate(first.count - 1)[1]
        self._sizes = {name: axes[name] + 1 for name in "tzc" if name in axes}
        for image in images:
            if (image.count, [s.spec for s in image.streams]) != (first.count, [s.spec for s in first.streams]):
                raise SourceError("its images differ in size or type, so they are no positions of one experiment")
        self._grid = Grid(("p", *self._sizes), (len(images), *self._sizes.values()))
        self.count = self._grid.count
        self.streams = first.streams

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        return self._grid.locate(at)

    def read(self, at: int, plane: NDArray[Any]) -> None:
        axes = self._grid.locate(at)[1]
        within = 0
        for name, size in self._sizes.items():
            within = within * size + axes[name]
        self._images[axes["p"]].read(within, plane)

    def close(self) -> None:
        for image in self._images:
            image.close()
