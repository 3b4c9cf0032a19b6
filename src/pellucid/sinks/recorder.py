"""To the disk: raw and restored beside each other, and a row for every frame that was ever known of.

::

    <path>/
      raw.ome.zarr         every frame that arrived, as it arrived
      restored.ome.zarr    the same frame at the same place; zeros where a frame stayed raw only
      raw-NAME-1.ome.zarr  further streams: another camera, another channel, a ROI that changed
      frames.jsonl         one row a frame: numbers, times, how it ended; frames that did not arrive as well
      config.toml          as run, overrides included
      report.json          counts, latencies, hardware

The channels of an experiment share an image: its axes are t, c, z as acquired, a group for each position. A
frame that did not arrive leaves a hole of zeros there, and its row says why.

Pixels go through ome-writers with the zarrs backend: of those measured it is the fastest that has handed a
frame to the system before it says so, which is what "recorded" means here. A plane is written from the slot
itself, without a copy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import SinkError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, Slot, Spec, Stream
from pellucid.sinks._planes import PlaneWriter
from pellucid.sinks._rows import FrameRows

__all__ = ["Recorder"]

_RESERVE, _RESERVE_BYTES = ".reserve", 4 << 20
"""Kept free while the run lasts, so that a disk that is full still takes the last rows and the report."""


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
        if not path.strip() or "\0" in path:
            raise ValueError('a folder is needed, such as path = "recordings/{time}"')
        unknown = set(re.findall(r"\{(.*?)\}", path)) - {"time"}
        if unknown:
            raise ValueError(f"only {{time}} is filled in, not {{{unknown.pop()}}}")
        return path

    def __post_init__(self) -> None:
        self.folder: Path | None = None
        self._writers: list[dict[str, PlaneWriter]] = []
        self._images: dict[Any, PlaneWriter] = {}
        self._run: Mapping[str, Any] = {}
        self._rows: FrameRows | None = None
        self._ledger: Ledger | None = None
        self._made = self._begun = self._writing = False
        self._next_rows_ns = 0
        self._disk: Any = None

    def ready(self) -> None:
        """Raise what `open` would, where it can be known before a frame's shape is; make nothing."""
        if "{time}" not in self.path and Path(self.path).exists():
            raise self._exists(Path(self.path))
        parent = Path(self.path).absolute().parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            raise SinkError(f'path = "{self.path}": {parent} is a file, not a folder')
        if not os.access(parent, os.W_OK):
            raise SinkError(
                f'path = "{self.path}": you may not write to {parent}. '
                "Give a folder that you may write to: --set sinks.0.path=..."
            )

    def _exists(self, folder: Path) -> SinkError:
        return SinkError(
            f'path = "{self.path}": {folder} exists and is never overwritten. '
            "Give another: --set sinks.0.path=recordings/{time}"
        )

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Make the folder, the arrays, and ``config.toml``.

        Raises
        ------
        SinkError
            Where the folder exists or cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path(self.path.replace("{time}", stamp))
        again = 1
        while "{time}" in self.path and folder.exists():
            again += 1
            folder = Path(self.path.replace("{time}", f"{stamp}-{again}"))
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not folder.exists() or not folder.parent.is_dir():
                raise SinkError(f'path = "{self.path}": {folder.parent} is a file, not a folder') from None
            raise self._exists(folder) from None
        except OSError as error:
            raise SinkError(
                f'path = "{self.path}": cannot make the folder {folder}: {error.strerror}. '
                "Give a folder that you may write to: --set sinks.0.path=..."
            ) from None
        self.folder = folder
        self._made = True
        (folder / _RESERVE).write_bytes(b"\0" * _RESERVE_BYTES)
        (folder / "config.toml").write_text(run["config"], encoding="utf-8")
        ledger: Ledger = run["ledger"]
        self._rows = FrameRows(folder / "frames.jsonl", ledger)
        ledger.histogram("disk_raw")
        self._ledger = ledger
        self._disk = ledger.histogram("disk")
        self._raw_disk = ledger.histogram("disk_raw")
        self._run = run
        for stream, specs in zip(streams, planes, strict=True):
            self._take_in(stream, specs, streams)

    def extend(self, stream: Stream, planes: Mapping[str, Spec]) -> None:
        """Make the arrays of a stream that begins during the run."""
        self._take_in(stream, planes, [stream])

    def _take_in(self, stream: Stream, specs: Mapping[str, Spec], streams: Sequence[Stream]) -> None:
        """Give a stream its images: of its own, or those of the experiment that it is a channel of."""
        assert self.folder is not None
        writers = {}
        for plane, spec in specs.items():
            shared = _kin(stream, spec) if stream.sizes else stream.index
            key = (plane, shared)
            if key not in self._images:
                end = "" if stream.index == 0 else f"-{re.sub(r'[^A-Za-z0-9_.-]', '_', stream.camera)}-{stream.index}"
                name = re.sub(r"[^A-Za-z0-9_.-]", "_", plane) + end
                like = [s for s in streams if _kin(s, s.spec) == _kin(stream, stream.spec)]
                self._images[key] = PlaneWriter(
                    self.folder / f"{name}.ome.zarr",
                    like if stream.sizes else [stream],
                    spec,
                    self.backend,
                    self.compression,
                    self._run,
                )
            writers[plane] = self._images[key]
            writers[plane].take_in(stream)
        self._writers.append(writers)

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Write planes; the raw one gives the frame its index, the others follow at the same."""
        info = slot.info
        self._begun = self._writing = True
        writers = self._writers[info.stream]
        ledger = self._ledger
        assert ledger is not None
        for name in names:
            if name == RAW:
                info.index = writers[RAW].append(slot.planes[RAW], info)
            else:
                writers[name].put(info.place, slot.planes[name], info.stream)
        now = info.recorded_ns = now_ns()
        if RAW in names:
            ledger.recorded += info.count
            self._raw_disk.add(now - info.camera_ns)
        if len(names) == len(writers) or RAW not in names:
            self._disk.add(now - info.camera_ns)
        if now > self._next_rows_ns and self._rows is not None:
            self._next_rows_ns = now + 250_000_000
            self._rows.write()
        self._writing = False

    def finish(self) -> None:
        """Close the arrays and write the last rows; all that can be closed is, then the first fault is raised."""
        if self.folder is not None:
            (self.folder / _RESERVE).unlink(missing_ok=True)
        faults: list[Exception] = []
        done: set[int] = set()
        for writers in self._writers:
            raw = writers[RAW]
            interval_s = raw.interval_s
            for writer in writers.values():
                if id(writer) in done:
                    continue
                done.add(id(writer))
                try:
                    writer.finish(raw.length, interval_s, counted=True)
                except Exception as fault:
                    faults.append(fault)
                    writer.abandon()
        self._writers = []
        self._images = {}
        if self._rows is not None:
            self._rows.write(all_of_them=True)
            self._rows.close()
            self._rows = None
        if faults:
            raise faults[0]

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Write the last rows and ``report.json``; without a report, and without a frame, leave nothing behind.

        A write may stand still on a disk that hangs: then the arrays are left to it.
        """
        if not self._writing:
            for writer in self._images.values():
                writer.abandon()
            self._writers = []
            self._images = {}
        if self._rows is not None:
            self._rows.write(all_of_them=True)
            self._rows.close()
            self._rows = None
        if not self._made or self.folder is None:
            return
        self._made = False
        if report is None and not self._begun:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        (self.folder / _RESERVE).unlink(missing_ok=True)
        if report is not None:
            (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _kin(stream: Stream, spec: Spec) -> tuple[Any, ...]:
    """Return what the streams of an experiment have in common that share an image."""
    kin = (stream.camera, spec, tuple(stream.sizes.items()))
    if stream.replaces is None:
        return kin
    # One whose camera was changed shares an image with others after the same change, never with the one it replaces:
    # what is said of the image (pixel size, ROI) is true of all its planes.
    details = stream.details
    state = (stream.pixel_um, stream.bit_depth, str(details.get("binning")), str(details.get("roi")))
    return (*kin, "changed", *state)
