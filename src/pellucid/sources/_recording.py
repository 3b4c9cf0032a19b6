"""A recording of pellucid, whatever its format: its frames in the order in which they came.

What ``recording.json`` and ``frames.jsonl`` say is believed: which streams there were, which frames are there, where
each lies. So several cameras, positions, parts and takes are replayed as one run, and a frame that was lost is left
out and not replayed as a black picture. A stack that the session had put together comes as its planes again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import SinkError, SourceError
from pellucid.protocols import COLOURS, RAW, Spec, Stream
from pellucid.recording.contents import Contents
from pellucid.recording.image import At, Plan
from pellucid.recording.journal import checksum
from pellucid.recording.opened import shown_name
from pellucid.sources._stored import Stored, open_stored

__all__ = ["StoredRecording", "recording_of"]


@dataclass(slots=True)
class _Frame:
    stream: int
    image: str
    at: At
    axes: dict[str, int]
    row: int
    sums: list[str]
    """Of its planes, as they were when they arrived."""


def recording_of(path: Path) -> tuple[Path, int | None] | None:
    """Return the folder of the recording that lies at a path, and of which part; None where there is none."""
    if (path / "recording.json").is_file():
        return path, None
    number = path.name.removeprefix("part-")
    if path.name != number and number.isdigit() and (path.parent / "recording.json").is_file():
        return path.parent, int(number)
    return None


class StoredRecording:
    """The raw frames of a recording, or of a part of it (see `pellucid.sources._stored.Stored`).

    Parameters
    ----------
    folder
    part
        Number of the one that is replayed; None for all, one after the other.
    planes
        Give the red, green and blue of a colour picture as three streams, and not as one picture.

    Attributes
    ----------
    sizes : dict of str to int
        Places along each axis of the experiment, the slowest first; empty where frames just followed one another.
    rows : tuple of numpy.ndarray
        For each frame its number, the camera's own, and the camera's time (seconds; NaN where unknown).

    Raises
    ------
    SourceError
        Where it was not ended, or has no frames.
    """

    def __init__(self, folder: Path, part: int | None = None, *, planes: bool = False) -> None:
        self._what = str(folder if part is None else folder / f"part-{part:04d}")
        try:
            contents = self._contents = Contents(folder)
            contents.look_whether_ended()
            rows = [row for row in contents.rows() if contents.has_raw(row)]
        except SinkError as error:
            raise SourceError(str(error)) from None
        rows = sorted((row for row in rows if part in (None, row.get("part", 0))), key=lambda row: row["seq"])
        used = sorted({row.get("stream", 0) for row in rows})
        if not rows or not set(used) <= set(contents.streams):
            raise SourceError(f"{self._what} holds no frames")
        given = [contents.streams[index] for index in used]
        self._planes = planes
        self._number: dict[int, int] = {}
        for stream in given:
            self._number[stream.index] = sum(map(self._count, given[: len(self._number)]))
        self._experiment = any(stream.sizes for stream in given)
        self._begins: dict[int, int] = {}
        self._end = 0
        # A part of an experiment that is played by itself begins with t = 0.
        self._first = 0 if part is None else min((row.get("axes") or {}).get("t", 0) for row in rows)
        self._frames = [frame for i, row in enumerate(rows) for frame in self._frames_of(row, i)]
        of = [frame.row for frame in self._frames]
        self.rows = (
            np.array([row["seq"] for row in rows], np.int64)[of],
            np.array([row.get("camera_number", -1) for row in rows], np.int64)[of],
            np.array([row.get("camera_time", np.nan) for row in rows], np.float64)[of],
        )
        self.count = len(self._frames)
        self.sizes = self._sizes(given)
        self.streams = tuple(self._stream(stream, i) for stream in given for i in range(self._count(stream)))
        self._open: dict[tuple[str, int], tuple[Stored, dict[At, int] | None]] = {}

    def _frames_of(self, row: dict[str, Any], i: int) -> list[_Frame]:
        contents, number = self._contents, self._number[row.get("stream", 0)]
        name = contents.images(row)[RAW]
        places = contents.places(row, name)
        given = row["xxh3"][RAW]
        sums = [given] if isinstance(given, str) else list(given)
        axes = dict(row.get("axes") or {}) if self._experiment else {}
        if "t" in axes:
            axes["t"] -= self._first
        if not self._experiment and len(self._number) == 1:
            axes = {"t": self._so_far(row), "c": 0}
        if contents.plans[name].is_colour:
            if not self._planes:
                return [_Frame(number, name, places[0], axes, i, sums)]
            channels = [axes | ({"c": axes["c"] * 3 + k} if "c" in axes else {}) for k in range(3)]
            return [_Frame(number + k, name, places[k], channels[k], i, sums[k : k + 1]) for k in range(3)]
        if contents.streams[row.get("stream", 0)].spec.axes == "zyx":
            return [_Frame(number, name, at, {**axes, "z": at.z}, i, sums[k : k + 1]) for k, at in enumerate(places)]
        return [_Frame(number, name, places[0], axes, i, sums)]

    def _so_far(self, row: dict[str, Any]) -> int:
        """Return the place along t over all parts; those of each begin with 0."""
        part, t = row.get("part", 0), int(row["at"][1])
        if part not in self._begins:
            self._begins[part] = self._end
        t += self._begins[part]
        self._end = max(self._end, t + 1)
        return t

    def _sizes(self, given: list[Stream]) -> dict[str, int]:
        if not self._experiment:
            return {"t": self._end, "c": self._count(given[0])} if len(given) == 1 else {}
        sizes = dict(max((stream.sizes for stream in given), key=lambda sizes: len(dict(sizes))))
        if any(stream.spec.axes == "zyx" for stream in given):
            sizes["z"] = max(stream.spec.shape[0] for stream in given if stream.spec.axes == "zyx")
        if self._first:
            sizes["t"] = 1
        return {axis: max(n, max(frame.axes.get(axis, 0) for frame in self._frames) + 1) for axis, n in sizes.items()}

    def _count(self, stream: Stream) -> int:
        """Return how many streams one is here."""
        return len(COLOURS) if self._planes and stream.spec.is_colour else 1

    def _stream(self, stream: Stream, i: int) -> Stream:
        spec, index, channel = stream.spec, self._number[stream.index] + i, stream.channel
        if spec.axes == "zyx" or self._count(stream) > 1:
            spec = Spec(spec.shape[1:], spec.dtype)
        if self._count(stream) > 1:
            channel = COLOURS[i] if len(self._number) == 1 else f"{channel} {COLOURS[i]}"
        return replace(
            stream,
            spec=spec,
            channel=channel,
            index=index,
            frames=sum(frame.stream == index for frame in self._frames),
            replaces=None,
            details={**stream.details, "file": self._what, "format": f"recording ({self._contents.about.file_format})"},
        )

    def locate(self, at: int) -> tuple[int, dict[str, int]]:
        """Return stream and axes of frame `at`."""
        frame = self._frames[at]
        return frame.stream, frame.axes

    def read(self, at: int, plane: np.ndarray[Any, Any]) -> None:
        """Copy frame `at` into `plane`."""
        frame = self._frames[at]
        into = [plane] if plane.ndim == 2 else list(plane)
        for i, one in enumerate(into):
            self._read(frame.image, frame.at._replace(c=frame.at.c + i), one)
            if i < len(frame.sums) and f"{checksum(one):016x}" != frame.sums[i]:
                folder = self._contents.folder
                path = folder / shown_name(self._contents.plans[frame.image], self._contents.about.file_format)
                raise SourceError(
                    f"{self._what}: frame {self.rows[0][at]} is not what arrived (its checksum differs). "
                    f"Type: pellucid verify {folder}. To play it all the same give {path}"
                )

    def _read(self, name: str, at: At, plane: np.ndarray[Any, Any]) -> None:
        plan = self._contents.plans[name]
        stored, places = self._image(name, at.p)
        if places is not None:
            number = places.get(at._replace(p=0), -1)
        else:  # in the order of an experiment: t, then z, then c
            number = (at.t * (plan.depth or 1) + at.z) * len(plan.channels) + at.c
        if not 0 <= number < stored.count:
            raise SourceError(f"{self._what}: {name} has no plane at {tuple(at)}. Type: pellucid verify {self._what}")
        stored.read(number, plane)

    def _image(self, name: str, p: int) -> tuple[Stored, dict[At, int] | None]:
        if (name, p) not in self._open:
            plan, file_format = self._contents.plans[name], self._contents.about.file_format
            path = self._contents.folder / shown_name(plan, file_format)
            self._open[name, p] = _opened(path, plan, p, file_format)
        return self._open[name, p]

    def close(self) -> None:
        """Close the files."""
        for stored, _ in self._open.values():
            stored.close()
        self._open = {}


def _opened(path: Path, plan: Plan, p: int, file_format: str) -> tuple[Stored, dict[At, int] | None]:
    """Open one position of an image; of an NDTiff, which has no order, with the number of each plane."""
    if file_format == "ome-zarr":
        return open_stored(path, plan.positions[p] if plan.positions else None), None
    if file_format == "ome-tiff":
        return open_stored(path, p if plan.positions else None), None
    stored = open_stored(path, None)
    places: dict[At, int] = {}
    for number in range(stored.count):
        channel, axes = stored.locate(number)
        if axes.get("p", 0) == p:
            c = plan.channels.index(stored.streams[channel].channel)
            places[At(0, axes.get("t", 0), c, axes.get("z", 0))] = number
    return stored, places
