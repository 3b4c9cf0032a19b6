"""To the disk: raw and restored beside each other, and a row for every frame that was ever known of.

::

    <path>/
      raw.ome.zarr         every frame that arrived, as it arrived
      restored.ome.zarr    the same frame at the same place; zeros where a frame stayed raw only
      raw-NAME-1.ome.zarr  further streams: another camera, another channel, a ROI that changed
      part-0001/           takes, or parts: each with images of its own
      frames.jsonl         one row a frame: numbers, times, checksums, how it ended; frames that did not arrive as well
      recording.json       what recovery and verification have to know: images, streams, hashes, state
      journal              only while it runs: a line for every plane, see `pellucid.recording.journal`
      config.toml          as run, overrides included
      changes.jsonl        where parameters were changed during the run: from which frame on, from what to what
      report.json          counts, latencies, hardware

The channels of an experiment share an image: its axes are t, c, z as acquired, a group for each position. A frame that
did not arrive leaves a hole of zeros there, and its row says why.

This thread takes each frame (its checksum, its place) and leaves the rest to those of `pellucid.recording`: what waits,
what is written, what is committed. A plane is written from the slot itself, without a copy, as long as the disk keeps
up.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from json import dumps
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import psutil
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import SinkError
from pellucid.ledger import Ledger, Recording
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Slot, Spec, Stream
from pellucid.recording.about import NAME as ABOUT
from pellucid.recording.about import About
from pellucid.recording.backlog import Backlog, Full, Piece
from pellucid.recording.changes import ChangeRows
from pellucid.recording.commit import Bound, Committer
from pellucid.recording.disk import Disk
from pellucid.recording.intake import FAILED, Intake
from pellucid.recording.journal import NAME as JOURNAL
from pellucid.recording.journal import Journal
from pellucid.recording.part import Part
from pellucid.recording.parts import Length, Parts
from pellucid.recording.plan import shard_frames, why_not_everywhere
from pellucid.recording.rate import Space, nearest
from pellucid.recording.recover import LOCK, lock_recording
from pellucid.recording.rows import NAME as ROWS
from pellucid.recording.rows import FrameRows
from pellucid.recording.spill import Spill
from pellucid.recording.takes import Takes
from pellucid.recording.zarr_image import warm_up

if TYPE_CHECKING:
    from pellucid.recording.upload import Uploader

__all__ = ["MEMORY_BYTES", "Recorder"]

_RESERVE, _RESERVE_BYTES = ".reserve", 4 << 20
"""Kept free while the run lasts, so that a disk that is full still takes the last rows and the report."""
MEMORY_BYTES = 2 << 30
"""For frames that wait, at most, where the user does not say."""


@dataclass(config=ConfigDict(extra="forbid"))
class Recorder:
    """Record all planes of all streams.

    Parameters
    ----------
    path
        Folder to make, relative to where you are; ``{time}`` becomes the date and time. It must not exist.
    format
        ``"ome-zarr"``, ``"ome-tiff"`` or ``"ndtiff"`` (Micro-Manager's own).
    compression
        Lossless, of an OME-Zarr: ``"none"``, ``"blosc-lz4"``, ``"blosc-zstd"`` or ``"zstd"``.
    commit_every_s, commit_every_frames
        What was written is on the disk, safe from a power cut, within this time; and after so many frames.
    shard_frames
        Planes in one file of an OME-Zarr; 1: a file for each, which others can read while the run lasts. Left out:
        about 256 MB of them.
    buffer_mb
        Memory for frames that wait for a slow disk. Left out: a quarter of what is free, at most 2 GB.
    spill
        Folder on another disk for frames that the memory has no room for.
    spill_gb
        How much, at most.
    when_full
        When all of that is full: ``"stop"`` the run, ``"drop"`` frames, or ``"wait"``. Left out: drop where the source
        does not wait, else wait.
    part_frames, part_gb, part_minutes
        Begin new images after so many frames, gigabytes or minutes.
    start
        ``"now"``, or ``"armed"``: nothing is recorded before you say so (``pellucid record start``).
    before_s
        Of an armed recorder: how many seconds before the start are recorded as well; they wait in `buffer_mb`.
    threads
        That compress and write. Left out: 1, with compression up to 4.
    upload
        ``"s3://BUCKET/PREFIX"``: what is committed here is put there as well while the run lasts, in a folder of the
        recording's name. What is not there at the end ``pellucid upload`` puts.
    upload_wait_s
        How long the end of a run waits for it.
    """

    path: str = "recordings/{time}"
    format: Literal["ome-zarr", "ome-tiff", "ndtiff"] = "ome-zarr"
    compression: Literal["none", "blosc-lz4", "blosc-zstd", "zstd"] = "none"
    commit_every_s: float = Field(default=1.0, gt=0, le=3600)
    commit_every_frames: int | None = Field(default=None, ge=1)
    shard_frames: int | None = Field(default=None, ge=1, le=1 << 20)
    buffer_mb: float | None = Field(default=None, ge=0, le=1e7)
    spill: str = ""
    spill_gb: float = Field(default=50.0, gt=0, le=1e6)
    when_full: Literal["stop", "drop", "wait"] | None = None
    part_frames: int | None = Field(default=None, ge=1)
    part_gb: float | None = Field(default=None, gt=0, le=1e6)
    part_minutes: float | None = Field(default=None, gt=0, le=1e7)
    start: Literal["now", "armed"] = "now"
    before_s: float = Field(default=0.0, ge=0, le=3600)
    threads: int | None = Field(default=None, ge=1, le=64)
    upload: str = ""
    upload_wait_s: float = Field(default=30.0, ge=0, le=1e6)
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
        if "://" in path:
            raise ValueError(f'a folder of this computer is needed; to put it elsewhere as well: upload = "{path}"')
        path = os.path.expanduser(path)
        if why := why_not_everywhere(re.split(r"[/\\]" if os.name == "nt" else "/", path.rstrip("/"))[-1]):
            raise ValueError(f"{why}, which Windows cannot read: choose another name")
        return path

    @field_validator("spill")
    @classmethod
    def _at_home(cls, spill: str) -> str:
        return os.path.expanduser(spill)

    @model_validator(mode="after")
    def _fit(self) -> Recorder:
        if self.before_s and self.start == "now":
            raise ValueError('before_s is for an armed recorder: add start = "armed"')
        if self.format != "ome-zarr" and self.compression != "none":
            raise ValueError(f'format = "{self.format}" is written uncompressed: compression is for "ome-zarr"')
        if self.format != "ome-zarr" and self.shard_frames is not None:
            raise ValueError(f'format = "{self.format}" is one file: shard_frames is for "ome-zarr"')
        return self

    def __post_init__(self) -> None:
        self.folder: Path | None = None
        self.disk: Disk = Disk()
        self.skipped = 0
        self._about = About()
        self._tell: Callable[[str], None] = _nothing
        self._parts: Parts | None = None
        self._intake: Intake | None = None
        self._rows: FrameRows | None = None
        self._changes: ChangeRows | None = None
        self._journal: Journal | None = None
        self._committer: Committer | None = None
        self._backlog: Backlog | None = None
        self._lock: Any = None
        self._taking = threading.RLock()
        self._takes: Takes | None = None
        self._ledger = Ledger()
        self._made = self._begun = self._ended = self._whole = False
        self._next_rows_ns = 0
        self._space: Space | None = None
        self._uploader: Uploader | None = None
        self._space_seen = (0, 0)
        self._since = (-1, 0)

    # ---------------------------------------------------------------- open

    def ready(self) -> None:
        """Raise what `open` would, where it can be known before a frame's shape is; make nothing."""
        try:
            if "{time}" not in self.path and Path(self.path).exists():
                raise self._exists(Path(self.path))
            parent = Path(self.path).absolute().parent
            while not parent.exists():
                parent = parent.parent
        except OSError as error:
            raise SinkError(
                f'path = "{self.path[:80]}": {error.strerror}. Give another: --set sinks.0.path=...'
            ) from None
        if not parent.is_dir():
            raise SinkError(f'path = "{self.path}": {parent} is a file, not a folder')
        if not os.access(parent, os.W_OK):
            raise SinkError(
                f'path = "{self.path}": you may not write to {parent}. '
                "Give a folder that you may write to: --set sinks.0.path=..."
            )
        if self.spill and not _takes_files(Path(self.spill)):
            raise SinkError(f'spill = "{self.spill}": there is no such folder that you may write to')
        if self.upload:
            from pellucid.recording.upload_store import Bucket, Unreachable

            try:
                Bucket(self.upload).reach()
            except Unreachable:
                pass  # a line that is down now may be up in an hour; what is recorded here waits

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
            Where the folder exists or cannot be made, or its disk takes nothing.
        """
        self.ready()
        place = nearest(Path(self.path).parent)
        disk = shutil.disk_usage(place)
        if disk.total and disk.free < _FEWEST_BYTES:
            raise SinkError(
                f'path = "{self.path}": the disk of {place} is full. '
                "Make room there, or give a folder on another disk: --set sinks.0.path=..."
            )
        try:
            self._open(streams, planes, run)
        except OSError as error:
            raise SinkError(
                f'path = "{self.path}": the disk of {self.folder} takes nothing: {error.strerror or error}. '
                "Make room there, or give a folder on another disk: --set sinks.0.path=..."
            ) from None

    def _open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        folder = self.folder = self._make_folder()
        self._made = True
        self.disk.root = folder
        self._lock = lock_recording(folder)
        tell = run.get("tell", _nothing)
        self._tell = lambda text: tell(f"recorder: {text}")
        ledger = self._ledger = run["ledger"]
        (folder / _RESERVE).write_bytes(b"\0" * _RESERVE_BYTES)
        self.disk.note_folder(folder.parent)
        self.disk.replace(folder / "config.toml", run["config"].encode())
        self._rows = FrameRows(folder / ROWS, ledger, self.disk)
        self._changes = ChangeRows(folder, ledger, self.disk)
        self._journal = Journal(folder / JOURNAL, self.disk)
        self._about = About(
            version=run.get("version", ""),
            began=datetime.now(UTC).isoformat(),
            file_format=self.format,
            commit_every_s=self.commit_every_s,
            hashes={"config_sha256": run.get("config_sha256", "")},
        )
        length = Length(self.part_frames, self.part_gb, self.part_minutes)
        shard = self.shard_frames
        self._parts = Parts(
            folder,
            self._about,
            length,
            self.start == "armed",
            self.compression,
            lambda spec: shard or shard_frames(spec),
            self.disk,
            run,
            self._journal,
        )
        self._parts.open(streams, planes)
        self._space = Space(folder)
        if self.start == "now":
            self._parts.begin()
        elif self.format == "ome-zarr":
            warm_up()  # now, not when somebody presses the button
        self._parts.write_about()
        self.disk.commit()
        bound = Bound(self.commit_every_s, self.commit_every_frames)
        self._committer = Committer(self.disk, self._journal, bound, self._grow, self._committed, self._commit_failed)
        self._backlog = self._make_backlog(run)
        self._backlog.reserve([size for some in planes for size in _plane_bytes(some)])
        # As long as a frame may wait in its slot, others need some: the camera, the chain, the window.
        keep = max(1, int(run.get("slots", 2)) // 2)
        if self.upload:
            from pellucid.recording.upload import Uploader

            url = f"{self.upload.rstrip('/')}/{folder.absolute().name}"
            self._uploader = Uploader(folder, url, tell=self._tell)
        self._intake = Intake(ledger, self._rows, self._journal, self._committer, self._backlog, run.get("hold"), keep)
        if self.start == "armed":
            self._takes = Takes(folder, self._parts, self._backlog, self.before_s, self._take, self._taking, self._tell)
        self._tell_state()

    def most_waiting_bytes(self, *, live: bool) -> int:
        """Return how much memory frames may wait in, beside the slots; `live` says that the source does not wait."""
        if self.buffer_mb is not None:
            return int(self.buffer_mb * 1e6)
        if self.start == "now" and not live and self.when_full in (None, "wait"):
            return 0  # a source that waits gains nothing by copies
        return int(min(MEMORY_BYTES, psutil.virtual_memory().available // 4))

    @property
    def writers(self) -> int:
        """Threads that write."""
        return self.threads or (1 if self.compression == "none" else min(4, os.cpu_count() or 1))

    def _make_backlog(self, run: Mapping[str, Any]) -> Backlog:
        live = bool(run.get("live"))
        limit = self.most_waiting_bytes(live=live)
        when_full = self.when_full or ("drop" if live else "wait")
        spill = self._make_spill if self.spill else None
        return Backlog(run.get("release", _nothing), self.writers, limit, spill, when_full, self._tell)

    def _make_folder(self) -> Path:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path(self.path.replace("{time}", stamp))
        again = 1
        while "{time}" in self.path and folder.exists():
            again += 1
            folder = Path(self.path.replace("{time}", f"{stamp}-{again}"))
        try:
            self.disk.make_folder(folder.parent)
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
        return folder

    def _make_spill(self) -> Spill:
        assert self.folder is not None
        assert self._parts is not None
        path = Path(self.spill) / f"{self.folder.absolute().name}-{os.getpid()}.spill"
        self._about.spill = str(path.absolute())
        self._parts.write_about()
        return Spill(path, self.disk, int(self.spill_gb * 1e9))

    def extend(self, stream: Stream, planes: Mapping[str, Spec]) -> None:
        """Make the arrays of a stream that begins during the run."""
        assert self._parts is not None
        with self._taking:
            self._parts.extend(stream, planes)

    # ---------------------------------------------------------------- takes

    def commands(self) -> dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
        """Offer ``record.start``, ``record.stop`` and ``record.status``."""
        return {f"record.{what}": partial(self._command, what) for what in ("start", "stop", "status")}

    def _command(self, what: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.start != "armed":
            if what == "status" and self._parts is not None:
                frames, nbytes = self._parts.amount_of(0)
                return {"text": f"recording all the time: {frames} frames ({nbytes / 1e6:.0f} MB) in {self.folder}"}
            raise SinkError('this recorder records all the time. To start and stop it: start = "armed"')
        if self._takes is None:
            raise SinkError("the run has not begun")
        answer: Mapping[str, Any] = getattr(self._takes, what)(given)
        self._tell_state()
        return answer

    # ---------------------------------------------------------------- frames

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot: take planes; the raw one gives the frame its place, the others follow to the same.

        Raises
        ------
        SinkError
            Where there is no room to wait any more, and the user has chosen to stop then.
        """
        try:
            self._write(slot, names)
        except BaseException:
            self._ledger.recordings[str(self.folder)] = Recording(on=False, failed=True)
            raise

    def _write(self, slot: Slot, names: tuple[str, ...]) -> None:
        parts, info = self._parts, slot.info
        assert parts is not None
        self._begun = True
        if self._changes is not None:
            self._changes.write()  # before the planes that were made with them
        with self._taking:
            if RAW in names:
                parts.rotate(info)
            part = parts.of(info) if info.place else parts.now if RAW in names else None
            if part is not None and info.stream in part.of:
                self._take(part, slot, info, names)
            else:
                self.skipped += 1
                if self._takes is not None and parts.now is None and not info.place:
                    self._takes.hold_back(slot, info, names)
        now = now_ns()
        if now > self._next_rows_ns and self._rows is not None:
            self._next_rows_ns = now + 250_000_000
            self._rows.write()
            self._tell_state()

    def missed(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Note planes that came when this recorder had failed, so that their rows say why they are not there."""
        info, parts = slot.info, self._parts
        if self._intake is not None and parts is not None and (info.place or (RAW in names and parts.now is not None)):
            self._intake.missed(info, names, FAILED)

    def _take(self, part: Part, slot: Slot, info: FrameInfo, names: tuple[str, ...], kept: Piece | None = None) -> None:
        assert self._intake is not None
        if RAW not in names and not info.place:
            # Its raw plane is not recorded either.
            if kept is None:
                self.skipped += 1
            elif self._backlog is not None:
                self._backlog.give_up(kept)
            return
        try:
            taken = self._intake.take(part, slot, info, names, kept)
        except Full:
            raise SinkError(
                "the disk is too slow, and all room for frames that wait is full. Give the recorder a larger "
                'buffer_mb, a spill folder on another disk, or when_full = "drop"'
            ) from None
        if kept is None:
            self.skipped += not taken
        else:  # it counted as skipped while it was held
            self.skipped -= taken

    def _tell_state(self) -> None:
        """Let those who watch know what is being recorded."""
        parts, takes = self._parts, self._takes
        if parts is None or self._ended:
            return
        part = parts.now
        frames, nbytes = parts.amount_of(part.take) if part is not None else (0, 0)
        if part is not None and self._since[0] != part.take:
            self._since = part.take, now_ns()
        self._ledger.recordings[str(self.folder)] = Recording(
            on=part is not None,
            switch=takes is not None,
            frames=frames,
            nbytes=nbytes,
            left_s=self._space.left_s if self._space is not None else None,
            held_s=takes.held_s if takes is not None and part is None else 0.0,
            since_ns=self._since[1] if part is not None else 0,
        )

    # ---------------------------------------------------------------- in other threads

    def _grow(self) -> None:
        """In the committer's thread, before each commit."""
        if self._backlog is not None:
            self._backlog.committing()
        if self._changes is not None:
            self._changes.write()
        if self._parts is not None and self._rows is not None:
            self._parts.grow(self._rows.wall_s)
        self._look_for_space()

    def _look_for_space(self) -> None:
        """Warn before the disk is full, about once a second."""
        now, written = now_ns(), self.disk.written_bytes
        before_ns, had = self._space_seen
        if self._space is None or now - before_ns < 900_000_000:
            return
        self._space_seen = (now, written)
        if before_ns and (text := self._space.look((written - had) / (now - before_ns) * 1e9)) is not None:
            self._tell(text)

    def _committed(self, paths: set[Path]) -> None:
        if self._backlog is not None:
            self._backlog.committed()
        # Files of the other formats grow until the end: they would be sent whole again and again.
        if self._uploader is not None and self.format == "ome-zarr":
            self._uploader.offer(path for path in paths if self.folder in path.parents)

    def _commit_failed(self, error: BaseException) -> None:
        self._tell(f"the disk does not keep what is written: {error}")
        if self._backlog is not None:
            self._backlog.fail(error)

    @property
    def busy_since_ns(self) -> int:
        """Since when a write goes on; 0 where none does."""
        return self._backlog.busy_since_ns if self._backlog is not None else 0

    @property
    def waiting(self) -> tuple[int, int]:
        """Planes that wait for the disk, and the bytes of those that were copied out of their slots."""
        return self._backlog.waiting if self._backlog is not None else (0, 0)

    @property
    def lost(self) -> int:
        """Writes that were taken and could not be done."""
        return self._backlog.lost if self._backlog is not None else 0

    # ---------------------------------------------------------------- end

    def finish(self) -> None:
        """Write all that waits, end the images, commit; all that can be done is, then the first fault is raised."""
        if self.folder is None or self._ended or self._backlog is None:
            return
        self._ended = True
        backlog, committer, parts, rows = self._backlog, self._committer, self._parts, self._rows
        assert committer is not None
        assert parts is not None
        assert rows is not None
        assert self._journal is not None
        if self._takes is not None:
            self._takes.over = True
            self._takes.forget_all()
        before = self._ledger.recordings.get(str(self.folder))
        self._ledger.recordings[str(self.folder)] = Recording(on=False, failed=before is not None and before.failed)
        waiting, _ = backlog.waiting
        if waiting > 100:
            self._tell(f"writing {waiting} frames that wait for the disk")
        faults: list[BaseException] = []
        if not backlog.drain(self._moving):
            faults.append(SinkError("the disk stands still: what was not written is lost"))
        if not committer.close():
            faults.append(SinkError("the disk does not answer: the last commit did not end"))
        (self.folder / _RESERVE).unlink(missing_ok=True)
        if backlog.failed is not None:
            faults.append(backlog.failed)
        if not faults or isinstance(backlog.failed, OSError):
            faults += parts.finish(rows.wall_s)
        try:
            self._end_changes()
            rows.write(all_of_them=True)
            rows.close()
            self._rows = None
            self._journal.close()
            if not faults:
                self.disk.commit()
                self._whole = True
                backlog.close()
        except OSError as error:
            faults.append(error)
        if faults:
            first = faults[0]
            why = str(first) if isinstance(first, SinkError) else f"{type(first).__name__}: {first}"
            if not (self.folder / ABOUT).exists():
                raise SinkError(f"{why}. {self.folder}, with what was in it, was removed or is not connected") from None
            raise SinkError(f"{why}. What was written is kept: type pellucid recover {self.folder}") from None

    def _end_changes(self) -> None:
        """Write the last of them."""
        changes, self._changes = self._changes, None
        if changes is not None:
            try:
                changes.write()
            finally:
                changes.close()

    def _moving(self) -> bool:
        """Whether the writers get on, however slowly."""
        assert self._backlog is not None
        since = self._backlog.busy_since_ns
        return not since or now_ns() - since < _STANDS_STILL_NS

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Write ``report.json``; without a report, and without a frame, leave nothing behind.

        A write may stand still on a disk that hangs: then the images are left to it.
        """
        if self._backlog is not None and not self._ended:
            self._ended = True
            self._backlog.fail(SinkError("the run was given up"))
            self._backlog.drain(lambda: False)
            if self._committer is not None:
                self._committer.close(2.0)
            if not self.busy_since_ns and self._parts is not None:
                self._parts.abandon()
        with contextlib.suppress(OSError):  # then it is in the report, where that can be written
            self._end_changes()
        if self._rows is not None:
            self._rows.write(all_of_them=True)
            self._rows.close()
            self._rows = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if not self._made or self.folder is None:
            return
        self._made = False
        try:
            self._leave(report)
        except OSError as error:
            raise SinkError(
                f"the report cannot be written to {self.folder}: {error.strerror or error}. "
                f"What was written before is kept: type pellucid recover {self.folder}"
            ) from None
        finally:
            if self._lock is not None:
                self._lock.release()
                (self.folder / LOCK).unlink(missing_ok=True)
        self._end_upload()

    def _leave(self, report: Mapping[str, Any] | None) -> None:
        """Write the last facts, the state at the very last; or nothing at all."""
        assert self.folder is not None
        if report is None and not self._begun:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        (self.folder / _RESERVE).unlink(missing_ok=True)
        if report is not None:
            told = {**report, "recording": self._told()}
            self.disk.replace(self.folder / "report.json", (dumps(told, indent=2) + "\n").encode())
            if self._whole and self._parts is not None:
                self._about.state = "finished"
                self._parts.write_about()
                self.disk.commit()  # before the journal goes, by which alone an unfinished one can be told
                self.disk.remove(self.folder / JOURNAL)
                self.disk.commit()

    def _end_upload(self) -> None:
        """Put what is not there yet, as long as the user wants to wait."""
        if self._uploader is None or self.folder is None:
            return
        from pellucid.recording.upload_state import walk

        uploader, self._uploader = self._uploader, None
        try:
            if self._about.state == "finished":
                uploader.offer(self.folder / name for name in walk(self.folder))
                told = uploader.finish(self.upload_wait_s)
                left = len(told.missing)
                self._tell(
                    f"{told.files} files are in {told.url}"
                    + (f", {left} are not yet: type pellucid upload {self.folder} {told.url}" if left else "")
                )
        finally:
            uploader.close()

    def _told(self) -> dict[str, Any]:
        """Return what the report says of the recording."""
        committer, backlog = self._committer, self._backlog
        assert committer is not None
        assert backlog is not None
        return {
            "folder": str(self.folder),
            "commit_every_s": self.commit_every_s,
            "commits": committer.commits,
            "commit_ms": committer.took.summary(),
            "longest_uncommitted_s": round(committer.longest_ns * 1e-9, 3),
            "waited_ms": backlog.waited.summary(),
            "most_waiting_mb": round(backlog.most_bytes / 1e6, 1),
            "written_mb": round(self.disk.written_bytes / 1e6, 1),
            "not_recorded": dict(self._intake.unrecorded) if self._intake is not None else {},
            "planes_not_recorded": dict(self._intake.planes_unrecorded) if self._intake is not None else {},
            "parts": len(self._parts) if self._parts is not None else 0,
        }


_FEWEST_BYTES = 4 << 20
"""Free on a disk, below which a run is not begun: rows and the report need room as well."""
_STANDS_STILL_NS = 30_000_000_000


def _takes_files(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _plane_bytes(planes: Mapping[str, Spec]) -> list[int]:
    """Return the bytes of each (y, x) plane of a frame: of a stack, and of a colour picture, there are several."""
    return [
        spec.nbytes // max(prod(spec.shape[:-2]), 1) for spec in planes.values() for _ in range(prod(spec.shape[:-2]))
    ]


def _nothing(*_: Any) -> None:
    """Stand in for what a session gives."""
