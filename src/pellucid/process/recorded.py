"""IN: its streams, the units that stages are given (planes or z-stacks), where each belongs, and its pixels.

One image of IN is one image of OUT for each plane. A recording of pellucid may have several (``raw-NAME-1.ome.zarr``),
and an image may have its positions in folders of their own, which are put together here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.config import Config
from pellucid.errors import SinkError, SourceError
from pellucid.process.facts import Facts, Rows, attributes, facts_of, load_rows
from pellucid.process.images import image_folders, level_folder, open_image, position_folders, position_names
from pellucid.process.written import Written, ended
from pellucid.protocols import Spec, Stream
from pellucid.recording.about import NAME as ABOUT
from pellucid.recording.about import About
from pellucid.sources._stored import Stored

__all__ = ["Image", "Recorded", "open_recorded"]

_T, _P, _C, _Z = 1, 2, 3, 4


@dataclass(frozen=True)
class Image:
    """One image of IN.

    Parameters
    ----------
    stored
    end
        What its name has after ``raw``, such as ``"-camera-1"``.
    facts
    sizes
        Along t, p, c and z.
    first
        Of the frames of IN, the number of its first.
    """

    stored: Stored
    end: str
    facts: Facts
    sizes: tuple[int, ...]
    first: int


class Recorded:
    """What is stored at a path, cut into units.

    Parameters
    ----------
    path
        A recording of pellucid, an OME-Zarr, an NDTiff or a TIFF.
    dataset
        Which of several images; None for the only one, or for all positions.
    unit
        ``"plane"``, or ``"stack"``: the z-stack of a time point, position and channel at once.
    pixel_um
        In place of what the file says.

    Attributes
    ----------
    streams : tuple of Stream
    images : list of Image
    image_of : list of int
        For each stream.
    rows : Rows or None
    remark : str
        What is worth a line to the user; empty where nothing is.

    Raises
    ------
    SourceError
        Where it cannot be read, or has no stacks and `unit` asks for them.
    """

    def __init__(self, path: Path, dataset: int | str | None, unit: str, pixel_um: float | None = None) -> None:
        self.path, self.unit = path, unit
        self.images: list[Image] = []
        self.image_of: list[int] = []
        self._ats: list[NDArray[np.int64]] = []
        self._seqs: list[NDArray[np.int64]] = []
        streams: list[Stream] = []
        told: dict[int, list[int]] = {}
        where: list[NDArray[np.int64]] = []
        try:
            for folder, end in image_folders(path, dataset):
                self._take_in(folder, end, dataset, pixel_um, streams, told, where)
        except BaseException:
            self.close()
            raise
        self.streams = tuple(streams)
        self._where = np.concatenate(where)
        firsts = np.concatenate([np.where(ats < 0, len(self._where), ats).min(axis=1) for ats in self._ats])
        ranks = np.empty(len(firsts), np.int64)
        ranks[np.argsort(firsts, kind="stable")] = np.arange(len(firsts))
        self._seqs = np.split(ranks, np.cumsum([len(ats) for ats in self._ats])[:-1])
        played: Any = getattr(self.images[0].stored, "rows", None)  # of a recording that is played by its rows
        self.rows: Rows | None = None
        if played is not None:
            seq, camera_number, camera_time = played
            self.rows = Rows(seq, camera_number, camera_time, complete=True)
        elif path.is_dir():
            self.rows = load_rows(path, told, self._where)
        self.remark = ""
        self._gone = np.zeros(len(self._where), bool)
        if self.rows is not None and self.rows.complete:
            self._gone = self.rows.seq < 0
        elif path.is_dir():
            self._look_for_written()

    def _look_for_written(self) -> None:
        """Find the planes that a recording has room for and that were never written, since it was not ended."""
        folders = [position_folders(image.stored) for image in self.images]
        if not all(folders) or ended(self.path, [folder for row in folders for folder in row]):
            return
        for image, row in zip(self.images, folders, strict=True):
            written = [Written(folder) for folder in row]
            for at in range(image.first, image.first + image.stored.count):
                if self.rows is not None and self.rows.seq[at] >= 0:
                    continue
                axes = image.stored.locate(at - image.first)[1]
                self._gone[at] = axes not in written[axes.get("p", 0)]
        if gone := int(self._gone.sum()):
            self.remark = (
                f"IN was not finished: {gone} of its {len(self._gone)} planes were never written; "
                "they count as lost and stay empty"
            )

    def _take_in(
        self,
        folder: Path,
        end: str,
        dataset: int | str | None,
        pixel_um: float | None,
        streams: list[Stream],
        told: dict[int, list[int]],
        where: list[NDArray[np.int64]],
    ) -> None:
        stored = open_image(folder, dataset)
        first, base = sum(image.stored.count for image in self.images), len(streams)
        facts = facts_of(level_folder(folder), stored)
        self.images.append(Image(stored, end, facts, (), first))
        table = np.zeros((stored.count, 5), np.int64)
        for at in range(stored.count):
            stream, axes = stored.locate(at)
            table[at] = stream, axes.get("t", 0), axes.get("p", 0), axes.get("c", 0), axes.get("z", -1)
        has_z = bool((table[:, _Z] >= 0).any())
        if self.unit == "stack" and not has_z and facts.unnamed and not table[:, _P].any():
            table[:, _Z], table[:, _T], has_z = table[:, _T], 0, True
        if self.unit == "stack" and not has_z:
            raise SourceError(
                f'{folder} has no z-stacks: no axis of it is z. Leave out unit = "stack", or name the axes in the file'
            )
        table[:, _Z] = np.maximum(table[:, _Z], 0)
        pellucid = attributes(folder).get("pellucid", {})
        channels = pellucid.get("channels", [])
        coloured = [s.channel[-1:] for s in stored.streams] == list("RGB") * len(channels)
        for i in range(len(stored.streams)):
            mine = np.flatnonzero(table[:, 0] == i)
            self._ats.append(self._units(table, mine, folder))
            # A colour picture is recorded as three channels of one stream.
            row = i // 3 if coloured else i
            told.setdefault(channels[row].get("stream", base + i) if row < len(channels) else base + i, []).append(
                base + i
            )
        # Frames at the same place (an axis that nobody knows) may have moved along t, so sizes are known only now.
        sizes = tuple(int(n) + 1 for n in table[:, 1:].max(axis=0))
        self.images[-1] = image = Image(stored, end, facts, sizes, first)
        for i, given in enumerate(stored.streams):
            streams.append(self._stream(given, base + i, image, has_z, pellucid, pixel_um, folder))
            self.image_of.append(len(self.images) - 1)
            ats = self._ats[base + i]
            ats[ats >= 0] += first
        table[:, 0] += base
        where.append(table)

    def _units(self, table: NDArray[np.int64], mine: NDArray[np.int64], folder: Path) -> NDArray[np.int64]:
        """Return the frames of each unit of a stream, along z; -1 where a plane of a stack is not there."""
        places = table[mine][:, [_T, _P, _Z]]
        doubled = len(np.unique(places, axis=0)) < len(places)
        if self.unit == "plane":
            if doubled:
                table[mine, _T], table[mine, _P], table[mine, _Z] = np.arange(len(mine)), 0, 0
            return mine[:, None]
        if doubled:
            raise SourceError(f'{folder} has several planes at one place of a z-stack. Leave out unit = "stack"')
        keys, inverse = np.unique(places[:, :2], axis=0, return_inverse=True)
        ats = np.full((len(keys), int(table[:, _Z].max()) + 1), -1, np.int64)
        ats[inverse.reshape(-1), places[:, 2]] = mine
        return ats

    def _stream(
        self,
        stream: Stream,
        index: int,
        image: Image,
        has_z: bool,
        pellucid: dict[str, Any],
        pixel_um: float | None,
        folder: Path,
    ) -> Stream:
        t, p, c, z = image.sizes
        sizes = {"t": t} | ({"p": p} if p > 1 else {}) | {"c": c}
        spec = stream.spec
        if self.unit == "stack":
            spec = Spec((z, *spec.shape), spec.dtype)
        elif has_z:
            sizes["z"] = z
        mine: dict[str, Any] = next((c for c in pellucid.get("channels", []) if c.get("name") == stream.channel), {})
        names = {"c": tuple(s.channel for s in image.stored.streams)}
        if p > 1:
            names["p"] = tuple(position_names(folder, p))
        return replace(
            stream,
            spec=spec,
            index=index,
            camera=pellucid.get("camera") or (folder.name.split(".")[0] if p > 1 else stream.camera),
            pixel_um=pixel_um or stream.pixel_um,
            z_um=stream.z_um or image.facts.z_um,
            exposure_ms=mine.get("exposure_ms", stream.exposure_ms),
            bit_depth=pellucid.get("bit_depth") or stream.bit_depth,
            frames=len(self._ats[index]),
            sizes=sizes,
            names=names,
            details={**pellucid.get("details", {}), **stream.details},
        )

    # ---------------------------------------------------------------- units

    def units(self, stream: int) -> int:
        """Return how many there are of a stream."""
        return len(self._ats[stream])

    def place(self, stream: int, unit: int) -> tuple[int, tuple[int, ...]]:
        """Return the position of a unit, and its index along t, c and, for planes of a z-stack, z."""
        _, t, p, c, z = self._where[self._ats[stream][unit].max()].tolist()
        return p, (t, c, z) if "z" in self.streams[stream].sizes else (t, c)

    def axes(self, stream: int, unit: int) -> dict[str, int]:
        """Return the place of a unit by name."""
        _, *at = self._where[self._ats[stream][unit].max()].tolist()
        return {name: n for name, n in zip("tpcz", at, strict=True) if name in self.streams[stream].sizes}

    def row(self, stream: int, unit: int) -> dict[str, Any]:
        """Return what a row of ``frames.jsonl`` says of a unit before anything is done with it."""
        at = int(self._ats[stream][unit].max() if self.unit == "plane" else self._first(stream, unit))
        axes = self.axes(stream, unit)
        out: dict[str, Any] = {"seq": int(self._seqs[stream][unit]), "stream": stream, "index": axes.get("t", 0)}
        rows = self.rows
        if rows is not None and rows.seq[at] >= 0:
            out |= {"in_seq": int(rows.seq[at]), "camera_number": int(rows.camera_number[at])}
            if not np.isnan(rows.camera_time[at]):
                out["camera_time"] = float(rows.camera_time[at])
        return out | {"axes": axes}

    def lack(self, stream: int, unit: int) -> str:
        """Say what of a unit never arrived in IN; empty where all is there."""
        ats = self._ats[stream][unit]
        gone = (ats < 0) | self._gone[ats]
        if not gone.any():
            return ""
        return "not in IN" if gone.all() else f"IN lacks z = {', '.join(map(str, np.flatnonzero(gone)))}"

    def read(self, stream: int, unit: int, plane: NDArray[Any]) -> None:
        """Copy a unit into `plane`; raises SourceError where IN is damaged."""
        image = self.images[self.image_of[stream]]
        ats = self._ats[stream][unit] - image.first
        if self.unit == "plane":
            image.stored.read(int(ats[0]), plane)
            return
        for at, slice_ in zip(ats, plane, strict=True):
            image.stored.read(int(at), slice_)

    def _first(self, stream: int, unit: int) -> int:
        ats = self._ats[stream][unit]
        return int(ats[ats >= 0].min())

    def close(self) -> None:
        """Close the files."""
        for image in self.images:
            image.stored.close()
        self.images = []


def look_whether_ended(path: Path) -> None:
    """Refuse a recording that still runs, or that died: what is not ended yet would be taken for black pictures.

    Raises
    ------
    SourceError
    """
    for folder in (path, path.parent, path.parent.parent):
        if (folder / ABOUT).is_file():
            try:
                state = About.read(folder).state
            except SinkError as error:
                raise SourceError(str(error)) from None
            if state == "recording":
                raise SourceError(f"{folder} was not ended. If nothing records to it: type pellucid recover {folder}")
            return


def open_recorded(config: Config, unit: str) -> Recorded:
    """Open IN, which is the source of the config."""
    source: Any = config.source
    look_whether_ended(source.path)
    dataset = source.series if source.dataset is None else source.dataset
    return Recorded(source.path, dataset, unit, source.pixel_um)
