"""OME-Zarr 0.5, laid out by ome-writers; its pixels are written here.

ome-writers makes the groups, the arrays and their metadata. Its backends write pixels in the order of the acquisition,
and either hand each plane to the system before they go on (half of the disk's speed) or queue planes without a bound
(fast, and a kill loses the queue). Here frames come in another order (the channels of an experiment overtake each
other, a lost frame leaves a hole), and both speed and safety are wanted: so planes go into shards, each of them a plain
sequential file until it is full. What upstream would need: ``write_at(position, index, plane)`` that says where the
bytes went, a ``sync()``, and a public way to grow an array.

A shard is called ``<its key>.partial`` until its last plane and its index are on the disk; no reader sees half of one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError
from pellucid.recording.disk import Disk, Growing
from pellucid.recording.image import At, Ending, Plan, Where
from pellucid.recording.zarr_codec import Codec
from pellucid.recording.zarr_shard import Shard, read_index

__all__ = ["UNKNOWN", "ZarrImage", "warm_up"]

_COLOUR_CODES = {"R": "FF0000", "G": "00FF00", "B": "0000FF"}
_OPEN_FILES = 64
"""Shards that are open at once; an experiment of many slices and channels fills many at a time."""
_STAMPS = 20_000
"""So many planes have their times in the metadata, which every reader parses; of more the rows alone have them."""
_PARTIAL = ".partial"
UNKNOWN = "unknown"
"""Where recovery puts files of which no journal tells, within the recording."""
_ASIDE = ".metadata"
"""Where metadata is made again."""


class ZarrImage:
    """One OME-Zarr (see `pellucid.recording.image.Image`): ``<name>.ome.zarr``, a group for each position.

    Parameters
    ----------
    folder
        The recording's.
    plan
        With ``shard_frames`` 1 each plane is a file of its own, at once seen by every reader.
    disk
    """

    def __init__(self, folder: Path, plan: Plan, disk: Disk) -> None:
        self._folder, self._plan, self._disk = folder, plan, disk
        self.path = folder / f"{plan.name}.ome.zarr"
        groups = [self.path / name for name in plan.positions] or [self.path]
        self._groups = groups
        self._arrays = [group / "0" for group in groups]
        self._keys = [f"{array.relative_to(folder).as_posix()}/" for array in self._arrays]
        self._codec = Codec(())
        self._shard = (1, 1)
        self._extent = [[0, 0, 0] for _ in groups]
        """Seen along t, c, z of each position."""
        self._told: list[list[int]] = []
        self._lock = threading.Lock()
        self._shards: OrderedDict[str, Shard] = OrderedDict()
        self._ended: set[str] = set()
        """Those that were ended before they were full; what each holds is in its file alone."""
        self._full: list[str] = []
        self._synced: list[str] = []

    # ---------------------------------------------------------------- begin

    def create(self) -> None:
        """Make the groups and arrays; raises OSError, SinkError."""
        import ome_writers

        plan = self._plan
        across_t, across_z = _shard_of(plan)
        dimensions: list[dict[str, Any]] = [
            {"name": "t", "count": plan.time_points if plan.positions else None, "type": "time", "unit": "second"},
            {"name": "c", "count": len(plan.channels), "type": "channel", "coords": None},
        ]
        if plan.depth is not None:
            dimensions.append(_space("z", plan.depth, plan.z_um))
        dimensions += [_space(axis, n, plan.pixel_um) for axis, n in zip("yx", plan.size, strict=True)]
        if across_t * across_z > 1:
            dimensions[0]["shard_size_chunks"] = across_t
            dimensions[1]["shard_size_chunks"] = 1
            if plan.depth is not None:
                dimensions[2]["shard_size_chunks"] = across_z
        if plan.positions:
            dimensions.insert(0, {"name": "p", "type": "position", "coords": list(plan.positions)})
            dimensions[1]["count"] = plan.time_points or 1
        self._disk.make_folder(self.path.parent)
        stream = ome_writers.create_stream(
            ome_writers.AcquisitionSettings.model_validate(
                {
                    "root_path": str(self.path),
                    "dtype": plan.dtype,
                    "format": {"name": "ome-zarr", "backend": "zarr-python"},
                    "compression": None if plan.compression == "none" else plan.compression,
                    "dimensions": dimensions,
                }
            )
        )
        # It would end the files once more, aloud, when the interpreter ends.
        stream._finalizer.detach()
        for group in {self.path, *self._groups}:
            facts = {} if group != self.path else {"pellucid": dict(plan.facts)}
            self._attributes(group, facts, self._omero() if group in self._groups else {})
        for found in self.path.rglob("*"):
            (self._disk.note_folder if found.is_dir() else self._disk.note_file)(found)
        self._disk.note_folder(self.path)
        self._disk.note_folder(self.path.parent)
        self.look()

    @property
    def codec(self) -> Codec:
        """What makes bytes of a plane."""
        return self._codec

    def look(self) -> None:
        """Take the layout from the arrays' own metadata; change nothing, so that `read` works while others write."""
        told = _json(self._arrays[0] / "zarr.json")
        self._told = [[*_json(array / "zarr.json")["shape"][:-2]] for array in self._arrays]
        grid = told["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = told["codecs"]
        if codecs[0]["name"] == "sharding_indexed":
            codecs = codecs[0]["configuration"]["codecs"]
        self._codec = Codec(codecs)
        self._shard = (grid[0], grid[2] if len(grid) == 5 else 1)

    def _omero(self) -> dict[str, Any]:
        # ome-writers 0.3.2 asks numpy for the integer range of any type when channels have names, which fails for
        # float32, and it has no colours for them.
        plan = self._plan
        kind = plan.dtype[0]
        top = float(np.iinfo(plan.dtype).max) if kind in "ui" else 65535.0
        low = float(np.iinfo(plan.dtype).min) if kind == "i" else 0.0
        window = {"min": low, "max": top, "start": low, "end": top}
        colours = [_COLOUR_CODES[label[-1]] if plan.is_colour else "FFFFFF" for label in plan.channels]
        rows = [
            {"label": label, "color": colour, "active": True, "window": dict(window)}
            for label, colour in zip(plan.channels, colours, strict=True)
        ]
        return {"omero": {"channels": rows}}

    # ---------------------------------------------------------------- planes

    def put(self, at: At, plane: NDArray[Any], camera_s: float) -> Where:
        """Hot: write a plane at a place that was never written; say where its bytes are."""
        data = self._codec.encode(plane)
        key, inner = self._key(at)
        extent = self._extent[at.p]
        if self._shard == (1, 1):
            count = self._disk.write_new(self._folder / key, [data])
            with self._lock:
                extent[:] = map(max, extent, (at.t + 1, at.c + 1, at.z + 1))
            return Where(key, 0, count)
        with self._lock:
            extent[:] = map(max, extent, (at.t + 1, at.c + 1, at.z + 1))
            shard = self._shards.get(key)
            if shard is None:
                shard = self._shards[key] = self._again(key) if key in self._ended else self._new_shard()
            file = self._opened(key, shard)
            offset = file.append([data])
            count = file.length - offset
            shard.add(inner, offset, count)
            if shard.full:
                self._end(key)
        return Where(key, offset, count)

    def _key(self, at: At) -> tuple[str, int]:
        """Return the file of a plane, and its place in it."""
        across_t, across_z = self._shard
        (t, in_t), (z, in_z) = divmod(at.t, across_t), divmod(at.z, across_z)
        along_z = "" if self._plan.depth is None else f"{z}/"
        return f"{self._keys[at.p]}c/{t}/{at.c}/{along_z}0/0", in_t * across_z + in_z

    def _opened(self, key: str, shard: Shard) -> Growing:
        self._shards.move_to_end(key)
        if shard.file is None:
            path = self._folder / f"{key}{_PARTIAL}"
            if shard.end and not path.exists():  # it had its name: a plane came after it was given up
                self._disk.rename(self._folder / key, path)
            self._full = [other for other in self._full if other != key]
            self._synced = [other for other in self._synced if other != key]
            shard.file = self._disk.grow(path, at=shard.end if shard.end else None)
            open_now = [other for other in self._shards.values() if other.file is not None]
            if len(open_now) > _OPEN_FILES:
                open_now[0].close()
        return shard.file

    def _end(self, key: str) -> None:
        """Write the index of a shard; it gets its name when that is on the disk."""
        shard = self._shards.pop(key)
        file = self._opened_for_index(key, shard)
        file.append([shard.index()])
        file.cut()  # a plane that was torn may reach further, and readers look for the index at the end
        file.close()
        shard.close()
        if not shard.full:
            self._ended.add(key)
        self._full.append(key)

    def _new_shard(self) -> Shard:
        return Shard(self._shard[0] * self._shard[1])

    def _again(self, key: str) -> Shard:
        """Go on with a shard that was given up: behind its index, which says what it holds."""
        shard = self._new_shard()
        for path in (self._folder / f"{key}{_PARTIAL}", self._folder / key):
            if (entries := read_index(path, shard.places)) is not None:
                self._ended.discard(key)
                shard.entries = entries
                shard.end = path.stat().st_size
                return shard
        raise OSError(errno.EIO, "the index of a shard is gone, or torn", str(path))

    def _opened_for_index(self, key: str, shard: Shard) -> Growing:
        return shard.file or self._disk.grow(self._folder / f"{key}{_PARTIAL}", at=shard.end)

    def _name(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._disk.rename(self._folder / f"{key}{_PARTIAL}", self._folder / key)

    def grow(self, lengths: Sequence[int]) -> None:
        """Before a commit: give shards that the last one has put on the disk their names, and arrays their length."""
        with self._lock:
            self._name(self._synced)
            self._synced, self._full = self._full, []
            for key in self._late():
                self._end(key)
        self._reshape(lengths)

    def _late(self) -> list[str]:
        """Return shards whose missing planes will hardly come any more: others are two shards further along t."""
        late = []
        for key in self._shards:
            p = next(i for i, start in enumerate(self._keys) if key.startswith(f"{start}c/"))
            t = int(key[len(self._keys[p]) :].split("/")[1])
            if (t + 3) * self._shard[0] < self._extent[p][0]:
                late.append(key)
        return late

    def _reshape(self, lengths: Sequence[int]) -> None:
        for p, array in enumerate(self._arrays):
            length = lengths[p] if p < len(lengths) else 0
            t, c, z = self._extent[p]
            seen = [max(t, length), c, z] if self._plan.depth is not None else [max(t, length), c]
            shape = [max(a, b) for a, b in zip(self._told[p], seen, strict=True)]
            if shape != self._told[p]:
                self._set_shape(array, shape)
                self._told[p] = shape

    def _set_shape(self, array: Path, shape: Sequence[int]) -> None:
        told = _json(array / "zarr.json")
        told["shape"] = [*shape, *told["shape"][-2:]]
        self._disk.replace(array / "zarr.json", _text(told))

    # ---------------------------------------------------------------- end

    def finish(self, ending: Ending) -> None:
        """Write the index of every shard, the length of every array, and what is known of its planes."""
        with self._lock:
            for key in list(self._shards):
                self._end(key)
            names, self._synced, self._full = [*self._synced, *self._full], [], []
            self._ended.clear()
        if names:
            self._disk.commit()
            self._name(names)
        for p, array in enumerate(self._arrays):
            length = ending.lengths[p] if p < len(ending.lengths) else 0
            _, c, z = self._extent[p]
            seen = [c, z] if self._plan.depth is not None else [c]
            shape = [max(length, 1), *map(max, self._told[p][1:], seen)]
            if shape != self._told[p]:
                self._set_shape(array, shape)
                self._told[p] = shape
        times = self._times(ending)
        for p, group in enumerate(self._groups):
            told = dict(ending.groups[p]) if p < len(ending.groups) else {}
            more: dict[str, Any] = {"pellucid": told} if told else {}
            if p in times:
                more["ome_writers"] = {"frame_metadata": times[p]}
            self._attributes(group, more, {}, ending.interval_s)
        if self._plan.positions:
            # The convention of bioformats2raw, which names the groups twice: napari reads them here.
            self._disk.replace(self.path / "OME" / "METADATA.ome.xml", self._series())
        if ending.facts:
            self._attributes(self.path, {"pellucid": ending.facts}, {})

    def _series(self) -> bytes:
        """Return OME-XML with an image for each position."""
        root = Xml.Element("OME", xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06")
        kind = {"float32": "float", "float64": "double"}.get(self._plan.dtype, self._plan.dtype)
        for p, name in enumerate(self._plan.positions):
            t, c, *z = self._told[p]
            image = Xml.SubElement(root, "Image", ID=f"Image:{name}", Name=name)
            y, x = self._plan.size
            sizes = {f"Size{axis}": str(n) for axis, n in zip("XYZCT", (x, y, z[0] if z else 1, c, t), strict=True)}
            pixels = Xml.SubElement(
                image, "Pixels", {"ID": f"Pixels:{p}", "DimensionOrder": "XYZCT", "Type": kind} | sizes
            )
            Xml.SubElement(pixels, "MetadataOnly")
        text: bytes = Xml.tostring(root, "utf-8")
        return text

    def _times(self, ending: Ending) -> dict[int, list[dict[str, Any]]]:
        """Return the times and exposures of all planes, as ome-writers keeps them; those of a great many are left out.

        ``frames.jsonl`` has those of all.
        """
        exposures = self._plan.exposure_ms
        out: dict[int, list[dict[str, Any]]] = {}
        for stamp in sorted(ending.stamps) if len(ending.stamps) <= _STAMPS else ():
            at = stamp.at
            place = [at.t, at.c] if self._plan.depth is None else [at.t, at.c, at.z]
            row: dict[str, Any] = {"storage_index": place}
            if stamp.camera_s is not None:
                row["delta_t"] = round(stamp.camera_s, 6)
            channel = at.c // 3 if self._plan.is_colour else at.c
            if channel < len(exposures) and exposures[channel] is not None:
                row["exposure_time"] = (exposures[channel] or 0.0) * 1e-3
            out.setdefault(at.p, []).append(row)
        return out

    def _attributes(
        self, group: Path, more: Mapping[str, Any], ome: Mapping[str, Any], interval_s: float | None = None
    ) -> None:
        told = _json(group / "zarr.json")
        attributes = told.setdefault("attributes", {})
        attributes.get("ome", {}).update(ome)
        for key, value in more.items():
            attributes[key] = {**attributes.get(key, {}), **value}
        if interval_s is not None:
            for scale in attributes.get("ome", {}).get("multiscales", []):
                for level in scale["datasets"]:
                    level["coordinateTransformations"][0]["scale"][0] = interval_s
        self._disk.replace(group / "zarr.json", _text(told))

    def abandon(self) -> None:
        """Close what is open; write nothing."""
        with self._lock:
            for shard in self._shards.values():
                shard.close()
            self._shards.clear()

    # ---------------------------------------------------------------- recovery

    def reopen(self) -> None:
        """Find what a recorder left that died; metadata that is not there, or torn, is made again from the plan.

        Raises
        ------
        OSError, SinkError
        """
        wanted = {self.path, *self._groups, *self._arrays}
        if not all(_is_whole(folder / "zarr.json") for folder in wanted):
            self._make_again()
        try:
            self.look()
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise SinkError(f"{self.path} has no readable metadata ({type(error).__name__}: {error})") from None

    def _make_again(self) -> None:
        aside = self._folder / _ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        try:
            made = ZarrImage(aside, self._plan, Disk())
            made.create()
            for file in made.path.rglob("zarr.json"):
                own = self._folder / file.relative_to(aside)
                if not _is_whole(own):
                    self._disk.make_folder(own.parent)
                    self._disk.replace(own, file.read_bytes())
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def read(self, at: At, where: Where) -> NDArray[Any] | None:
        """Return a plane that a journal says was written; None where its bytes are not all there."""
        for path in (self._folder / where.file, self._folder / f"{where.file}{_PARTIAL}"):
            try:
                with open(path, "rb") as file:
                    file.seek(where.offset)
                    data = file.read(where.nbytes)
            except OSError:
                continue
            if len(data) == where.nbytes:
                return self._codec.decode(data, self._plan.dtype, self._plan.size)
        return None

    def keep(self, planes: Sequence[tuple[At, Where]]) -> None:
        """After `reopen`: these planes are good. Files of which no journal tells are put aside, nothing is deleted."""
        good: dict[str, list[tuple[int, Where]]] = {}
        for at, where in planes:
            self._extent[at.p][:] = map(max, self._extent[at.p], (at.t + 1, at.c + 1, at.z + 1))
            good.setdefault(where.file, []).append((self._key(at)[1], where))
        for array in self._arrays:
            for path in [p for p in (array / "c").rglob("*") if p.is_file()]:
                key = path.relative_to(self._folder).as_posix()
                if key.removesuffix(_PARTIAL) not in good:
                    aside = self._folder / UNKNOWN / key
                    self._disk.make_folder(aside.parent)
                    self._disk.rename(path, aside)
        if self._shard == (1, 1):
            return
        for key, rows in good.items():
            self._keep_in(key, rows)

    def _keep_in(self, key: str, rows: Sequence[tuple[int, Where]]) -> None:
        final, partial = self._folder / key, self._folder / f"{key}{_PARTIAL}"
        shard = Shard(self._shard[0] * self._shard[1])
        for inner, where in rows:
            shard.add(inner, where.offset, where.nbytes)
        if final.is_file():
            if read_index(final, shard.places) == shard.entries:
                if not shard.full:
                    self._ended.add(key)
                return
            if not partial.exists():
                self._disk.rename(final, partial)
        # Bytes that nobody knows stay where they are, before the index: a reader goes by that.
        file = self._disk.grow(partial, at=partial.stat().st_size)
        file.append([shard.index()])
        file.close()
        if not shard.full:
            self._ended.add(key)
        self._full.append(key)


def warm_up() -> None:
    """Import what makes images: half a second that nobody has when frames come."""
    import ome_writers  # noqa: F401
    import zarr  # noqa: F401


def _shard_of(plan: Plan) -> tuple[int, int]:
    """Return the planes of a shard along t and z: a whole stack where there are any, since it ends with one."""
    if plan.shard_frames == 1:
        return 1, 1
    if plan.depth is not None and plan.depth > 1:
        return 1, min(plan.depth, max(plan.shard_frames, 2))
    return plan.shard_frames, 1


def _space(axis: str, count: int, um: float | None) -> dict[str, Any]:
    known: dict[str, Any] = {} if um is None else {"unit": "micrometer", "scale": um}
    return {"name": axis, "count": count, "type": "space", **known}


def _json(path: Path) -> dict[str, Any]:
    told = json.loads(path.read_text("utf-8"))
    if not isinstance(told, dict):
        raise ValueError(f"{path} is no table")
    return told


def _is_whole(path: Path) -> bool:
    try:
        return bool(_json(path))
    except (OSError, ValueError):
        return False


def _text(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, indent=1).encode()


assert sys.byteorder == "little", os.name
