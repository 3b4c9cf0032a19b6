"""One plane as an OME-Zarr image, through ome-writers: of one stream, or of all channels of an experiment.

ome-writers appends in the order of the acquisition. Here frames come in another one: the channels of an
experiment have chains of their own, and the faster one overtakes; a frame that was lost leaves a hole; an
experiment may last longer than was said. So each plane is put where its axes say, through the writer's own
backend (``write``, which lets the array grow), and ome-writers keeps the layout, the metadata and the files.
A public ``write_at`` there would serve the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.protocols import COLOURS, FrameInfo, Spec, Stream

__all__ = ["PlaneWriter"]

_UNKNOWN: Mapping[str, Any] = {"x_um": None, "y_um": None, "z_um": None, "z_first_um": None, "planes": ()}
_COLOUR_CODES = {"R": "FF0000", "G": "00FF00", "B": "0000FF"}


class PlaneWriter:
    """One image: axes t, c, z where there is one, y, x; a group for each position, or field of a grid at a position.

    Where the streams' details say which positions and fields there are (``positions``), only those have a group.

    Parameters
    ----------
    path
        Folder to make.
    streams
        Whose planes it takes, one for each channel.
    spec
        Of the plane.
    backend, compression
        Of ome-writers.
    run
        As a sink's ``open`` gets it.

    Attributes
    ----------
    length : int
        Along the first axis, so far.
    """

    def __init__(
        self,
        path: Path,
        streams: Sequence[Stream],
        spec: Spec,
        backend: str,
        compression: str,
        run: Mapping[str, Any],
    ) -> None:
        import ome_writers

        first = streams[0]
        sizes = first.sizes
        self._colours = len(COLOURS) if spec.is_colour else 1
        self._stack = spec.axes == "zyx"
        self._has_z = self._stack or "z" in sizes
        groups = _groups(first)
        positions = len(groups)
        self._groups = {group: i for i, group in enumerate(groups)}
        self._streams = list(streams)
        channels = self._channels = _channels(streams, first)
        labels = [f"{name} {c}" if len(channels) > 1 else c for name in channels for c in COLOURS]
        labels = labels if spec.is_colour else channels
        self._written: set[tuple[int, ...]] | None = set() if sizes else None
        self._positions = positions
        self._counts: Counter[tuple[int, int]] = Counter()
        self._last_t: dict[int, int] = {}
        self._times: Counter[int] = Counter()
        self._depth = spec.shape[0] if self._stack else 1
        self.length = 0
        self._first_ns = self._last_ns = 0
        dimensions: list[dict[str, Any]] = [
            {"name": "t", "count": sizes.get("t", 1) if positions > 1 else None, "type": "time", "unit": "second"},
            {"name": "c", "count": len(labels), "type": "channel", "coords": None},
        ]
        if self._has_z:
            dimensions.append(_space("z", spec.shape[0] if self._stack else sizes["z"], first.z_um))
        pixel_um = None if first.pixel_um is None else first.pixel_um / spec.zoom
        dimensions += [_space(axis, n, pixel_um) for axis, n in zip("yx", spec.shape[-2:], strict=True)]
        if positions > 1:
            names = _position_names(first, groups)
            dimensions.insert(0, {"name": "p", "type": "position", "coords": names})
        self._stream = ome_writers.create_stream(
            ome_writers.AcquisitionSettings.model_validate(
                {
                    "root_path": str(path),
                    "dtype": spec.dtype,
                    "format": {"name": "ome-zarr", "backend": backend},
                    "compression": None if compression == "none" else compression,
                    "dimensions": dimensions,
                }
            )
        )
        self._backend = self._stream._backend
        self._name_channels(labels, spec)
        self._exposures_s = {s.index: s.exposure_ms * 1e-3 for s in streams if s.exposure_ms is not None}
        self._facts = {
            "version": run.get("version", ""),
            "config_sha256": run.get("config_sha256", ""),
            "camera": first.camera,
            "channel": first.channel,
            "channels": [],
            "pixel_um": pixel_um,
            "z_um": first.z_um,
            "exposure_ms": first.exposure_ms,
            "bit_depth": first.bit_depth,
            "plane": path.name.removesuffix(".ome.zarr"),
            "values": dict(spec.facts),
            "details": dict(first.details),
        }
        self._tell()

    def _tell(self) -> None:
        rows = [{"name": s.channel, "stream": s.index, "exposure_ms": s.exposure_ms} for s in self._streams]
        self._facts["channels"] = rows
        self._stream.set_global_metadata("pellucid", self._facts)

    def take_in(self, stream: Stream) -> None:
        """Take the planes of one more stream, which began during the run."""
        if stream.index not in {s.index for s in self._streams}:
            self._streams.append(stream)
            if stream.exposure_ms is not None:
                self._exposures_s[stream.index] = stream.exposure_ms * 1e-3
            self._tell()

    def append(self, plane: NDArray[Any], info: FrameInfo) -> int:
        """Hot: put the plane of the next frame into its place; return that along the first axis."""
        at = self._place(info)
        self.put(at, plane, info.stream)
        if at[1] >= self.length:
            if not self.length:
                self._first_ns = info.camera_ns
            self.length, self._last_ns = at[1] + 1, info.camera_ns
        if info.planes:  # of a stack that was put together some may be missing
            self._counts[at[0], at[2]] -= len(info.missing_z)
        return at[1]

    def put(self, at: tuple[int, ...], plane: NDArray[Any], stream: int) -> None:
        """Hot: write a plane at ``(position, t, c)`` or ``(position, t, c, z)``."""
        # The exposure is the same for all frames of a stream; kept with the first, since ome-writers holds
        # the metadata of every frame in memory until the end.
        exposure_s = self._exposures_s.pop(stream, None)
        note = None if exposure_s is None else {"exposure_time": exposure_s}
        position, t, c, *z = at
        self._counts[position, c] += self._depth
        if t > self._last_t.get(position, -1):
            self._last_t[position] = t
            self._times[position] += 1
        write = self._backend.write
        if self._colours > 1:
            for i, colour in enumerate(plane):
                write(position, (t, c * self._colours + i, *z), colour, frame_metadata=note)
                note = None
        else:
            write(position, (t, c, *z), plane, frame_metadata=note)
        self._stream._state["has_appended"] = True

    def _place(self, info: FrameInfo) -> tuple[int, ...]:
        """Return where a frame goes; a place that is taken is never written again, its frame comes after the last."""
        written = self._written
        if written is None:
            info.place = (0, self.length, 0)
            return info.place
        axes = info.axes or {}
        position = self._groups.get((axes.get("p", 0), axes.get("g", 0)), self._positions)
        z = (axes.get("z", 0),) if self._has_z and not self._stack else ()
        at = (position, axes.get("t", 0) if axes else self.length, axes.get("c", 0), *z)
        if at in written or position >= self._positions:
            at = (min(position, self._positions - 1), self.length, *at[2:])
        written.add(at)
        info.place = at
        return at

    def finish(self, length: int, interval_s: float | None, *, counted: bool = False) -> None:
        """Make the array as long as raw, note the measured time between frames, and close it.

        Parameters
        ----------
        length
            Along t.
        interval_s
        counted
            Every plane that is in it came through here: note how many of each position and channel there are, since
            the others are zeros like those of a dark picture.
        """
        for position in range(self._positions if length else 0):
            self._backend.advance([(position, (length - 1, 0))])
        self.length = max(length, self.length)
        if counted:
            self._tell()  # what the source has come to know of the details meanwhile
        tree = self._stream.get_metadata()
        if interval_s is not None:
            for group in tree.values():
                for scale in group["ome"]["multiscales"]:
                    for level in scale["datasets"]:
                        level["coordinateTransformations"][0]["scale"][0] = interval_s
        if counted:
            rows = _rows(self._streams[0])
            for (place, position), group in zip(self._groups.items(), tree.values(), strict=True):
                told = self._position(place, position, rows.get(place))
                group["pellucid"] = {**group.get("pellucid", {}), **told}
        self._stream.update_metadata(tree)
        self._stream.close()

    def _position(self, place: tuple[int, int], position: int, row: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return where a position is, and how much of it was written."""
        first = self._streams[0]
        names = first.names.get("p", ())
        facts: dict[str, Any] = {"name": names[place[0]]} if place[0] < len(names) else {}
        facts |= {axis: at for axis, at in zip("pg", place, strict=True) if axis in first.sizes}
        written = {name: self._counts[position, c] for c, name in enumerate(self._channels)}
        expected: dict[str, int] = {}
        if row is not None:
            facts |= {key: row[key] for key in _UNKNOWN if key.endswith("_um") and row[key] is not None}
            expected = dict(zip(self._channels, row["planes"], strict=False))
        elif self._positions == 1:
            expected = {s.channel: s.frames for s in self._streams if s.frames is not None and s.channel in written}
        told = {"position": facts, "planes_written": written, "time_points": self._times[position]}
        # A second acquisition that goes on where the first one ended has more than anybody expected.
        return told | ({"planes_expected": expected} if all(written[c] <= n for c, n in expected.items()) else {})

    @property
    def interval_s(self) -> float | None:
        """Measured between two places along t; None where there is but one."""
        if self.length < 2:
            return None
        return max(self._last_ns - self._first_ns, 0) * 1e-9 / (self.length - 1)

    def abandon(self) -> None:
        """Close as far as it goes: what cannot be written now never can be."""
        try:
            self._stream.close()
        except Exception:
            # The first fault has been told; ome-writers would try again, aloud, when the interpreter ends.
            self._stream._finalizer.detach()

    def _name_channels(self, labels: Sequence[str], spec: Spec) -> None:
        # ome-writers 0.3.2 asks numpy for the integer range of any type when channels have names, which
        # fails for float32, and it has no colours for them: so they are named here.
        top = float(np.iinfo(spec.dtype).max) if spec.dtype[0] in "ui" else 65535
        low = float(np.iinfo(spec.dtype).min) if spec.dtype[0] == "i" else 0
        window = {"min": low, "max": top, "start": low, "end": top}
        tree = self._stream.get_metadata()
        for group in tree.values():
            group["ome"]["omero"] = {
                "channels": [
                    {
                        "label": label,
                        "color": _COLOUR_CODES[label[-1]] if spec.is_colour else "FFFFFF",
                        "window": dict(window),
                    }
                    for label in labels
                ]
            }
        self._stream.update_metadata(tree)


def _space(axis: str, count: int, um: float | None) -> dict[str, Any]:
    known: dict[str, Any] = {} if um is None else {"unit": "micrometer", "scale": um}
    return {"name": axis, "count": count, "type": "space", **known}


def _channels(streams: Sequence[Stream], first: Stream) -> list[str]:
    """Return the names along c; more places than names are numbered."""
    if not first.sizes:
        return [first.channel]
    names = list(first.names.get("c", ())) or [stream.channel for stream in streams]
    count = max(first.sizes.get("c", 1), 1)
    return [names[i] if i < len(names) else f"channel {i}" for i in range(count)]


def _rows(first: Stream) -> dict[tuple[int, int], dict[str, Any]]:
    """Return what a stream says of its positions (see `pellucid.sources._positions`), for each place along p and g."""
    table: Any = first.details.get("positions")
    try:
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        told = {(int(row["p"]), int(row["g"])): {**_UNKNOWN, **row} for row in rows}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    # Details outlive their experiment (they are copied where a recording is processed): only those that fit count.
    size = (first.sizes.get("p", 1), first.sizes.get("g", 1))
    fit = told and tuple(max(axis) + 1 for axis in zip(*told, strict=True)) == size and min(map(min, told)) >= 0
    return told if fit and first.sizes else {}


def _groups(first: Stream) -> list[tuple[int, int]]:
    """Return the places along p and g that have a group: those that the experiment has, else all there can be."""
    p, g = first.sizes.get("p", 1), first.sizes.get("g", 1)
    return sorted(_rows(first)) or [(a, b) for a in range(p) for b in range(g)]


def _position_names(first: Stream, groups: Sequence[tuple[int, int]]) -> list[str]:
    """Return a name for each position that a folder can have, all different."""
    given = list(first.names.get("p", ()))
    fields = Counter(p for p, _ in groups)
    names: list[str] = []
    for i, (p, g) in enumerate(groups):
        raw = given[p] if p < len(given) and given[p] else f"p{p}"
        name = "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in raw).strip(".") or f"p{p}"
        name += f"_g{g}" if fields[p] > 1 else ""
        names.append(name if name not in names else f"{name}_{i}")
    return names
