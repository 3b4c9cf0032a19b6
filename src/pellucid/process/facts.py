"""What a file tells beside its pixels: z step, time between frames, and the rows of a recording."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pellucid.sources._tiff import complaints

__all__ = ["Facts", "Rows", "attributes", "facts_of", "load_rows"]

_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "nm": 1e-3, "mm": 1e3}
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "second": 1.0, "millisecond": 1e-3}


@dataclass(frozen=True)
class Facts:
    """What is known of all frames of one image.

    Parameters
    ----------
    z_um, interval_s
        Between planes, and between time points; None where the file does not tell.
    unnamed
        The file has planes behind each other and does not say along what: time or depth.
    """

    z_um: float | None = None
    interval_s: float | None = None
    unnamed: bool = False


def facts_of(path: Path, stored: Any) -> Facts:
    """Look into the metadata of what `stored` was opened from; whatever is damaged there is left out."""
    try:
        if path.is_file():
            return _tiff(path, stored._file.series.index(stored._series))
        if (path / "NDTiff.index").is_file():
            summary = stored._data.summary_metadata or {}
            z_um = float(summary.get("z-step_um") or 0) or None
            return Facts(z_um, (float(summary.get("Interval_ms") or 0) or math.nan) * 1e-3 or None)
        return Facts(None, _zarr_interval(path))
    except Exception:
        return Facts()


def attributes(folder: Path) -> dict[str, Any]:
    """Return the attributes of a Zarr group, of either version; empty where there are none."""
    for name in ("zarr.json", ".zattrs"):
        if (folder / name).is_file():
            try:
                tree = json.loads((folder / name).read_text("utf-8"))
            except (OSError, ValueError):
                return {}
            found = tree.get("attributes", {}) if name == "zarr.json" else tree
            return found if isinstance(found, dict) else {}
    return {}


def _zarr_interval(path: Path) -> float | None:
    """Return the scale along t, where it is a time: without a unit it counts places."""
    told = attributes(path)
    scales = told.get("ome", told)["multiscales"][0]
    names = [axis["name"] for axis in scales["axes"]]
    unit = _SECONDS.get(scales["axes"][names.index("t")].get("unit", ""))
    moves = scales["datasets"][0]["coordinateTransformations"]
    scale = next(move["scale"] for move in moves if move["type"] == "scale")
    return None if unit is None else float(scale[names.index("t")]) * unit


def _tiff(path: Path, at: int) -> Facts:
    import tifffile

    # What tifffile complains of was looked at when the file was opened for its pixels.
    with complaints(), tifffile.TiffFile(path) as file:
        axes = file.series[at].axes.replace("S", "")[:-2]
        unnamed = bool(axes) and not set(axes) & set("TZ")
        if file.is_ome:
            images = [e for e in ElementTree.fromstring(file.ome_metadata or "").iter() if e.tag.endswith("}Pixels")]
            pixels = images[min(at, len(images) - 1)]
            return Facts(
                _times(pixels.get("PhysicalSizeZ"), _UM.get(pixels.get("PhysicalSizeZUnit", "µm"))),
                _times(pixels.get("TimeIncrement"), _SECONDS.get(pixels.get("TimeIncrementUnit", "s"))),
                unnamed,
            )
        if file.is_micromanager:
            summary = (file.micromanager_metadata or {}).get("Summary", {})
            return Facts(_times(summary.get("z-step_um"), 1.0), _times(summary.get("Interval_ms"), 1e-3), unnamed)
        if file.is_imagej:
            meta = file.imagej_metadata or {}
            unit = _UM.get(str(meta.get("unit", "")).replace("\\u00B5", "µ"))
            return Facts(_times(meta.get("spacing"), unit), _times(meta.get("finterval"), 1.0), unnamed)
        return Facts(unnamed=unnamed)


def _times(value: Any, unit: float | None) -> float | None:
    return float(value) * unit or None if value and unit else None


@dataclass(frozen=True)
class Rows:
    """Of a recording's ``frames.jsonl``: number, camera's number and time of the frame at each place.

    Parameters
    ----------
    seq, camera_number, camera_time
        For each frame of IN in the order in which it is read; -1 and nan where nothing is known.
    complete
        The recording was ended, so that a frame without a row never arrived.
    """

    seq: NDArray[np.int64]
    camera_number: NDArray[np.int64]
    camera_time: NDArray[np.float64]
    complete: bool


def load_rows(folder: Path, streams: Mapping[int, Sequence[int]], where: NDArray[np.int64]) -> Rows | None:
    """Read the rows of a recording.

    Parameters
    ----------
    folder
        Of the recording.
    streams
        Number of a stream in the recording -> numbers here.
    where
        Of each frame: stream, t, p, c, z.

    Returns
    -------
    Rows or None
        None where there is no file of rows.
    """
    file = folder / "frames.jsonl"
    if not file.is_file():
        return None
    found: list[tuple[int, int, int, int, int, int, int]] = []
    times: list[float] = []
    gaps: list[Sequence[int]] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                if row.get("index") is None or row.get("stream") not in streams:
                    continue
                axes = row.get("axes") or {}
                at = (row["index"], axes.get("p", 0), axes.get("g", 0), axes.get("z", -1))
                for stream in streams[row["stream"]]:
                    found.append((stream, *at, row["seq"], row.get("camera_number", -1)))
                    times.append(row.get("camera_time", math.nan))
                    gaps.append(row.get("missing_z", ()))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # the last line of a recording that was killed
    rows = np.array(found, np.int64).reshape(-1, 7)
    grid = rows[:, 3].max(initial=0) + 1
    # Only the fields that an experiment has are images, in this order; without a table, all there can be.
    table = attributes(folder / "raw.ome.zarr").get("pellucid", {}).get("details", {}).get("positions") or {}
    images = {place: i for i, place in enumerate(zip(table.get("p", ()), table.get("g", ()), strict=False))}
    seq, number = np.full((2, len(where)), -1, np.int64)
    time = np.full(len(where), np.nan)
    by_place = {tuple(place): i for i, place in enumerate(where[:, [0, 1, 2, 4]].tolist())}
    depth = int(where[:, 4].max(initial=0)) + 1
    for one, when, gap in zip(rows.tolist(), times, gaps, strict=True):
        stream, t, p, g, z, *numbers = one
        # A stack that was put together has one row for all of its planes.
        for plane in [n for n in range(depth) if n not in gap] if z < 0 else (z,):
            frame = by_place.get((stream, t, images.get((p, g), p * grid + g), plane))
            if frame is not None:
                seq[frame], number[frame], time[frame] = *numbers, when
    return Rows(seq, number, time, (folder / "report.json").is_file())
