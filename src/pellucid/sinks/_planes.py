"""One plane as an OME-Zarr image, through ome-writers: of one stream, or of all channels of an experiment.

ome-writers appends in the order of the acquisition. Here frames come in another one: the channels of an
experiment have chains of their own, and the faster one overtakes; a frame that was lost leaves a hole; an
experiment may last longer than was said. So each plane is put where its axes say, through the writer's own
backend (``write``, which lets the array grow), and ome-writers keeps the layout, the metadata and the files.
A public ``write_at`` there would serve the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.protocols import COLOURS, FrameInfo, Spec, Stream

__all__ = ["PlaneWriter"]

_COLOUR_CODES = {"R": "FF0000", "G": "00FF00", "B": "0000FF"}


class PlaneWriter:
    """One image: axes t, c, z where there is one, y, x; a group for each position.

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
        self._grid = sizes.get("g", 1)
        positions = sizes.get("p", 1) * self._grid
        channels = _channels(streams, first)
        labels = [f"{name} {c}" if len(channels) > 1 else c for name in channels for c in COLOURS]
        labels = labels if spec.is_colour else channels
        self._written: set[tuple[int, ...]] | None = set() if sizes else None
        self._positions = positions
        self.length = 0
        self._first_ns = self._last_ns = 0
        dimensions: list[dict[str, Any]] = [
            {"name": "t", "count": sizes.get("t", 1) if positions > 1 else None, "type": "time", "unit": "second"},
            {"name": "c", "count": len(labels), "type": "channel", "coords": None},
        ]
        if self._has_z:
            dimensions.append(_space("z", spec.shape[0] if self._stack else sizes["z"], first.z_um))
        dimensions += [_space(axis, n, first.pixel_um) for axis, n in zip("yx", spec.shape[-2:], strict=True)]
        if positions > 1:
            names = _position_names(first, positions, self._grid)
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
        self._stream.set_global_metadata(
            "pellucid",
            {
                "version": run.get("version", ""),
                "config_sha256": run.get("config_sha256", ""),
                "camera": first.camera,
                "channel": first.channel,
                "channels": [{"name": s.channel, "stream": s.index, "exposure_ms": s.exposure_ms} for s in streams],
                "pixel_um": first.pixel_um,
                "z_um": first.z_um,
                "exposure_ms": first.exposure_ms,
                "bit_depth": first.bit_depth,
                "plane": path.name.removesuffix(".ome.zarr"),
                "details": dict(first.details),
            },
        )

    def append(self, plane: NDArray[Any], info: FrameInfo) -> int:
        """Hot: put the plane of the next frame into its place; return that along the first axis."""
        at = self._place(info)
        self.put(at, plane, info.stream)
        if at[1] >= self.length:
            if not self.length:
                self._first_ns = info.camera_ns
            self.length, self._last_ns = at[1] + 1, info.camera_ns
        return at[1]

    def put(self, at: tuple[int, ...], plane: NDArray[Any], stream: int) -> None:
        """Hot: write a plane at ``(position, t, c)`` or ``(position, t, c, z)``."""
        # The exposure is the same for all frames of a stream; kept with the first, since ome-writers holds
        # the metadata of every frame in memory until the end.
        exposure_s = self._exposures_s.pop(stream, None)
        note = None if exposure_s is None else {"exposure_time": exposure_s}
        position, t, c, *z = at
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
        position = axes.get("p", 0) * self._grid + axes.get("g", 0)
        z = (axes.get("z", 0),) if self._has_z and not self._stack else ()
        at = (position, axes.get("t", 0) if axes else self.length, axes.get("c", 0), *z)
        if at in written or position >= self._positions:
            at = (min(position, self._positions - 1), self.length, *at[2:])
        written.add(at)
        info.place = at
        return at

    def finish(self, length: int, interval_s: float | None) -> None:
        """Make the array as long as raw, note the measured time between frames, and close it."""
        for position in range(self._positions if length else 0):
            self._backend.advance([(position, (length - 1, 0))])
        self.length = max(length, self.length)
        if interval_s is not None:
            tree = self._stream.get_metadata()
            for group in tree.values():
                for scale in group["ome"]["multiscales"]:
                    for level in scale["datasets"]:
                        level["coordinateTransformations"][0]["scale"][0] = interval_s
            self._stream.update_metadata(tree)
        self._stream.close()

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


def _position_names(first: Stream, positions: int, grid: int) -> list[str]:
    """Return a name for each position that a folder can have, all different."""
    given = list(first.names.get("p", ()))
    names: list[str] = []
    for i in range(positions):
        p, g = divmod(i, grid)
        raw = given[p] if p < len(given) and given[p] else f"p{p}"
        name = "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in raw).strip(".") or f"p{p}"
        name += f"_g{g}" if grid > 1 else ""
        names.append(name if name not in names else f"{name}_{i}")
    return names
