"""To the disk: raw and restored beside each other, and a row for every frame that was ever known of.

::

    <path>/
      raw.ome.zarr         every frame that arrived, as it arrived
      restored.ome.zarr    the same frame at the same index; zeros where a frame stayed raw only
      frames.jsonl         one row a frame: numbers, times, how it ended; frames that did not arrive as well
      config.toml          as run, overrides included
      report.json          counts, latencies, hardware

Pixels go through ome-writers with the zarrs backend: of those measured it is the fastest that has handed a
frame to the system before it says so, which is what "recorded" means here. A plane is written from the slot
itself, without a copy.
"""

from __future__ import annotations

import heapq
import itertools
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import SinkError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Slot, Spec, Stream

__all__ = ["Recorder"]

_HOLD_NS = 1_000_000_000
"""A row waits so long for late marks (the window draws after the disk has the frame)."""
_RESERVE, _RESERVE_BYTES = ".reserve", 4 << 20
"""Kept free while the run lasts, so that a disk that is full still takes the last rows and the report."""
_ROWS_HELD = 10_000
"""So many rows wait for one with a smaller number; then they are written without it."""


@dataclass(config=ConfigDict(extra="forbid"))
class Recorder:
    """Record all planes of all streams.

    Parameters
    ----------
    path
        Folder to make, relative to where you are; ``{time}`` becomes the date and time. It must not exist.
    compression
        Lossless: ``"none"``, ``"blosc-lz4"``, ``"blosc-zstd"`` or ``"zstd"``.
    backend
        Of ome-writers.
    """

    path: str = "recordings/{time}"
    compression: Literal["none", "blosc-lz4", "blosc-zstd", "zstd"] = "none"
    backend: Literal["zarrs-python", "zarr-python"] = Field(default="zarrs-python")
    policy: ClassVar[str] = "block"
    early: ClassVar[bool] = True

    @field_validator("path")
    @classmethod
    def _named(cls, path: str) -> str:
        if not path.strip():
            raise ValueError('a folder is needed, such as path = "recordings/{time}"')
        unknown = set(re.findall(r"\{(.*?)\}", path)) - {"time"}
        if unknown:
            raise ValueError(f"only {{time}} is filled in, not {{{unknown.pop()}}}")
        return path

    def __post_init__(self) -> None:
        self.folder: Path | None = None
        self._writers: list[dict[str, _PlaneWriter]] = []
        self._log: IO[str] | None = None
        self._ledger: Ledger | None = None
        self._made = False
        self._next_log_ns = 0
        self._next_seq = 0
        self._held: list[tuple[int, int, FrameInfo | dict[str, Any]]] = []
        self._tie = itertools.count()
        self._wall_s = 0.0
        self._disk: Any = None

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Make the folder, the arrays, and ``config.toml``.

        Raises
        ------
        SinkError
            Where the folder exists or cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path(self.path.replace("{time}", stamp))
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not folder.exists() or not folder.parent.is_dir():
                raise SinkError(f'path = "{self.path}": {folder.parent} is a file, not a folder') from None
            raise SinkError(
                f'path = "{self.path}": {folder} exists and is never overwritten. '
                "Give another: --set sinks.0.path=recordings/{time}"
            ) from None
        except OSError as error:
            raise SinkError(
                f'path = "{self.path}": cannot make the folder {folder}: {error.strerror}. '
                "Give a folder that you may write to: --set sinks.0.path=..."
            ) from None
        self.folder = folder
        self._made = True
        (folder / _RESERVE).write_bytes(b"\0" * _RESERVE_BYTES)
        (folder / "config.toml").write_text(run["config"], encoding="utf-8")
        self._log = (folder / "frames.jsonl").open("w", encoding="utf-8")
        ledger: Ledger = run["ledger"]
        ledger.keep_rows = True
        ledger.histogram("disk_raw")
        self._ledger = ledger
        self._disk = ledger.histogram("disk")
        self._raw_disk = ledger.histogram("disk_raw")
        self._wall_s = time.time() - now_ns() * 1e-9
        for stream, specs in zip(streams, planes, strict=True):
            writers = {}
            for plane, spec in specs.items():
                end = "" if stream.index == 0 else f"-{re.sub(r'[^A-Za-z0-9_.-]', '_', stream.camera)}-{stream.index}"
                name = re.sub(r"[^A-Za-z0-9_.-]", "_", plane) + end
                writers[plane] = _PlaneWriter(
                    folder / f"{name}.ome.zarr", stream, spec, self.backend, self.compression, run
                )
            self._writers.append(writers)

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Write planes; the raw one gives the frame its index, the others follow at the same."""
        info = slot.info
        writers = self._writers[info.stream]
        ledger = self._ledger
        assert ledger is not None
        for name in names:
            if name == RAW:
                info.index = writers[RAW].append(slot.planes[RAW])
            else:
                writers[name].append_at(info.index, slot.planes[name])
        now = info.recorded_ns = now_ns()
        if RAW in names:
            ledger.recorded += 1
            self._raw_disk.add(now - info.camera_ns)
        if len(names) == len(writers) or RAW not in names:
            self._disk.add(now - info.camera_ns)
        if now > self._next_log_ns:
            self._next_log_ns = now + 250_000_000
            self._write_rows(now - _HOLD_NS)

    def finish(self) -> None:
        """Close the arrays and write the last rows; all that can be closed is, then the first fault is raised."""
        ledger = self._ledger
        if self.folder is not None:
            (self.folder / _RESERVE).unlink(missing_ok=True)
        faults: list[Exception] = []
        seconds = (ledger.last_ns - ledger.first_ns) * 1e-9 if ledger else 0.0
        interval_s = seconds / (ledger.received - 1) if ledger and ledger.received > 1 else None
        for writers in self._writers:
            length = writers[RAW].length
            for writer in writers.values():
                try:
                    writer.finish(length, interval_s)
                except Exception as fault:
                    faults.append(fault)
                    writer.abandon()
        self._writers = []
        self._write_rows(now_ns(), all_of_them=True)
        if self._log is not None:
            self._log.close()
            self._log = None
        if faults:
            raise faults[0]

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Write ``report.json``; without a report (the run never began) leave nothing behind."""
        for writers in self._writers:
            for writer in writers.values():
                writer.abandon()
        self._writers = []
        if self._log is not None:
            self._log.close()
            self._log = None
        if not self._made or self.folder is None:
            return
        self._made = False
        if report is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        (self.folder / _RESERVE).unlink(missing_ok=True)
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def _write_rows(self, before_ns: int, *, all_of_them: bool = False) -> None:
        """Write, in order of their numbers, the rows of frames that arrived before `before_ns`.

        Frames are let go in another order (one that skips the stages overtakes those in them), but every
        number gets its row, so the next one can be waited for.
        """
        if self._ledger is None or self._log is None:
            return
        rows, held = self._ledger.rows, self._held
        while rows:
            row = rows.popleft()
            heapq.heappush(held, (row.seq if isinstance(row, FrameInfo) else row["seq"], next(self._tie), row))
        lines = []
        while held:
            seq, _, row = held[0]
            if not all_of_them:
                young = isinstance(row, FrameInfo) and row.received_ns > before_ns
                if young or (seq > self._next_seq and len(held) < _ROWS_HELD):
                    break
            heapq.heappop(held)
            if isinstance(row, FrameInfo):
                row = self._row(row)
            self._next_seq = max(self._next_seq, row.get("to_seq", seq) + 1)
            lines.append(json.dumps(row))
        if lines:
            self._log.write("\n".join(lines) + "\n")
            self._log.flush()

    def _row(self, info: FrameInfo) -> dict[str, Any]:
        row: dict[str, Any] = {
            "seq": info.seq,
            "camera_number": info.camera_number,
            "stream": info.stream,
            "state": info.state,
            "index": info.index if info.index >= 0 else None,
            "camera_time": round(self._wall_s + info.camera_ns * 1e-9, 6),
        }
        if info.where:
            row["where"] = info.where
        if info.axes:
            row["axes"] = dict(info.axes)
        for mark in ("sent", "received", "processed", "recorded", "displayed"):
            ns = getattr(info, f"{mark}_ns")
            if ns:
                row[f"{mark}_ms"] = round((ns - info.camera_ns) * 1e-6, 3)
        return row


class _PlaneWriter:
    """One plane of one stream in one OME-Zarr image."""

    def __init__(
        self, path: Path, stream: Stream, spec: Spec, backend: str, compression: str, run: Mapping[str, Any]
    ) -> None:
        import ome_writers

        # ome-writers 0.3.2 asks numpy for the integer range of any type when channels have names, which
        # fails for float32; such planes get their channel's name below.
        whole = spec.dtype[0] in "ui"
        named = [ome_writers.Channel(name=stream.channel)] if whole else None
        space: dict[str, Any] = {"type": "space"}
        if stream.pixel_um is not None:
            space |= {"unit": "micrometer", "scale": stream.pixel_um}
        sizes = zip("zyx"[-len(spec.shape) :], spec.shape, strict=True)
        self._stream = ome_writers.create_stream(
            ome_writers.AcquisitionSettings.model_validate(
                {
                    "root_path": str(path),
                    "dtype": spec.dtype,
                    "format": {"name": "ome-zarr", "backend": backend},
                    "compression": None if compression == "none" else compression,
                    "dimensions": [
                        {"name": "t", "count": None, "type": "time", "unit": "second"},
                        {"name": "c", "count": 1, "type": "channel", "coords": named},
                        *({"name": axis, "count": n, **space} for axis, n in sizes),
                    ],
                }
            )
        )
        self.length = 0
        if not whole:
            self._name_channel(stream.channel)
        self._exposure_s = None if stream.exposure_ms is None else stream.exposure_ms * 1e-3
        self._stream.set_global_metadata(
            "pellucid",
            {
                "version": run.get("version", ""),
                "config_sha256": run.get("config_sha256", ""),
                "camera": stream.camera,
                "channel": stream.channel,
                "pixel_um": stream.pixel_um,
                "exposure_ms": stream.exposure_ms,
                "bit_depth": stream.bit_depth,
                "plane": path.name.removesuffix(".ome.zarr"),
                "details": dict(stream.details),
            },
        )

    def append(self, plane: Any) -> int:
        # The exposure is the same for all frames of a stream; kept with the first, since ome-writers holds
        # the metadata of every frame in memory until the end.
        first = {"exposure_time": self._exposure_s} if self._exposure_s is not None and not self.length else None
        self._stream.append(plane, frame_metadata=first)
        self.length += 1
        return self.length - 1

    def append_at(self, index: int, plane: Any) -> None:
        if index > self.length:
            self._stream.skip(frames=index - self.length)
            self.length = index
        self.append(plane)

    def finish(self, length: int, interval_s: float | None) -> None:
        """Make the array as long as raw, note the measured time between frames, and close it."""
        if length > self.length:
            self._stream.skip(frames=length - self.length)
            self.length = length
        if interval_s is not None:
            tree = self._stream.get_metadata()
            for group in tree.values():
                for scale in group["ome"]["multiscales"]:
                    for level in scale["datasets"]:
                        level["coordinateTransformations"][0]["scale"][0] = interval_s
            self._stream.update_metadata(tree)
        self._stream.close()

    def abandon(self) -> None:
        """Close as far as it goes: what cannot be written now never can be."""
        try:
            self._stream.close()
        except Exception:
            # The first fault has been told; ome-writers would try again, aloud, when the interpreter ends.
            self._stream._finalizer.detach()

    def _name_channel(self, name: str) -> None:
        tree = self._stream.get_metadata()
        for group in tree.values():
            group["ome"]["omero"] = {
                "channels": [
                    {"label": name, "color": "FFFFFF", "window": {"min": 0, "max": 65535, "start": 0, "end": 65535}}
                ]
            }
        self._stream.update_metadata(tree)
