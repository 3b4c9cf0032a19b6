"""Recorded frames, played as if a camera gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import psutil
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import SourceError, did_you_mean
from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Ring, Slot, Stream
from pellucid.sources._pace import Pace
from pellucid.sources._paths import from_folder
from pellucid.sources._stored import Stored, open_stored

__all__ = ["Replay"]


@dataclass(config=ConfigDict(extra="forbid"))
class Replay:
    """Replay a TIFF (plain, ImageJ, OME, Micro-Manager), an OME-Zarr, an NDTiff, or a recording of pellucid.

    Also a PNG, and a folder of PNG or TIFF files of one plane each, all of one size and type: in the order of their
    names, of which numbers count as numbers.

    Channels become streams, and so do the colours of a picture. Frames come in the order of an experiment: time
    outermost, then position, depth, channel; those of an NDTiff in the order they were acquired. An axis that the file
    does not name is time.

    Parameters
    ----------
    path
        File or folder; seen from the folder of the config that names it.
    fps
        Frames each second, all streams together; None for as fast as slots are offered.
    on_full
        What happens when no slot is free: ``"wait"`` gives every frame, ``"drop"`` (needs `fps`) leaves a
        frame out when its time has come, as a camera would, and tells the account. Left out: ``"drop"``
        with `fps`, ``"wait"`` without.
    loop
        How often the file is played; 0 for ever. Axis ``t`` goes on counting.
    dataset
        Which of several images: number or name of a TIFF series, path within a Zarr (``"1"``, ``"A/1/0"``). A file
        of several is not replayed without it.
    series
        Another word for `dataset`.
    preload
        Read everything into memory when it is opened, so that the disk does not limit the rate.
    pixel_um
        Size of a pixel in micrometres, in place of what the file says.

    Raises
    ------
    SourceError
        From ``open`` where the file cannot be replayed, from ``read`` where a frame of it is damaged.
    """

    path: Path
    fps: float | None = Field(default=None, ge=1e-4, le=1e6, allow_inf_nan=False)
    on_full: Literal["wait", "drop"] | None = None
    loop: int = Field(default=1, ge=0)
    dataset: int | str | None = None
    series: int | str | None = None
    preload: bool = False
    pixel_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    passive: ClassVar[bool] = True
    """``open`` touches nothing but files, so `pellucid check` may call it to learn the shape."""

    @field_validator("loop", mode="before")
    @classmethod
    def _times(cls, given: Any) -> Any:
        if isinstance(given, bool):
            raise ValueError(f"a number is needed: {'0 plays it for ever' if given else '1 plays it once'}")
        return given

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path, info: ValidationInfo) -> Path:
        path = from_folder(path, info)
        try:
            there = path.exists()
        except OSError as error:
            raise ValueError(f"{error.strerror}") from None
        if not there:
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ValueError(f"{path} does not exist.{did_you_mean(path.name, beside)}")
        return path

    def __post_init__(self) -> None:
        if self.on_full == "drop" and self.fps is None:
            raise ValueError('on_full = "drop" needs fps: without a clock no frame is ever too late')
        if self.dataset is not None and self.series is not None and self.dataset != self.series:
            raise ValueError("dataset and series are one and the same: give one of them")
        self.live = (self.on_full or ("drop" if self.fps else "wait")) == "drop"
        self.shares_memory = False
        self.finished = False
        self._stored: Stored | None = None
        self._held: list[np.ndarray[Any, Any]] = []

    def open(self) -> tuple[Stream, ...]:
        """Open the file; return one stream for each channel."""
        self.close()
        stored = open_stored(self.path, self.series if self.dataset is None else self.dataset)
        self._stored = stored
        try:
            if self.preload:
                self._load(stored)
        except BaseException:
            self.close()
            raise
        self._count = stored.count
        self._steps = 1 + max(stored.locate(i)[1].get("t", 0) for i in (0, stored.count - 1))
        total = self._count * self.loop if self.loop else None
        self._pace = Pace(self.fps, self.live, total, lambda seq: stored.locate(seq % stored.count)[0])
        self.finished = False
        streams = stored.streams
        replayed = {"replay_fps": self.fps, "replay_loop": self.loop}
        # Frames that are left out would be holes in the recording; without them the axes lie as in the file.
        last = stored.locate(stored.count - 1)[1]
        sizes = getattr(stored, "sizes", None) or {axis: at + 1 for axis, at in reversed(last.items())}
        sizes = {} if self.live else sizes
        names = {"c": tuple(stream.channel for stream in streams)}
        return tuple(
            replace(
                stream,
                pixel_um=self.pixel_um or stream.pixel_um,
                frames=stream.frames * self.loop if stream.frames and self.loop else None,
                sizes=sizes,
                names=names if "c" in sizes else {},
                details={**stream.details, **replayed},
            )
            for stream in streams
        )

    def _load(self, stored: Stored) -> None:
        specs = [stream.spec for stream in stored.streams]
        needed = sum(s.spec.nbytes * (s.frames or 0) for s in stored.streams)
        free = psutil.virtual_memory().available
        if needed > 0.8 * free:
            raise SourceError(
                f"{self.path} takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of memory are free: "
                "leave out preload = true"
            )
        for at in range(stored.count):
            spec = specs[stored.locate(at)[0]]
            plane = np.empty(spec.shape, spec.dtype)
            stored.read(at, plane)
            self._held.append(plane)

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Begin; the clock starts with the first ``read``."""
        self._pace.start(len(rings), account)

    def offer(self, slot: Slot) -> None:
        """Hand over a free slot."""
        self._pace.offer(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame; ``camera_ns`` is when it was due (when it was taken, if the source waits)."""
        due = self._pace.take(timeout_s)
        if due is None:
            self.finished = self._pace.finished
            return None
        seq, slot, camera_ns = due
        stored = self._stored
        assert stored is not None
        turn, at = divmod(seq, self._count)
        plane = slot.planes["raw"]
        if self._held:
            np.copyto(plane, self._held[at])
        else:
            stored.read(at, plane)
        stream, axes = stored.locate(at)
        if self.loop != 1:
            axes = {**axes, "t": axes.get("t", 0) + turn * self._steps}
        slot.info = FrameInfo(seq, stream, -1, camera_ns, 0, now_ns(), axes=axes)
        self.finished = self._pace.finished
        return slot

    def stop(self) -> None:
        """Give no further frame."""
        if self._stored is not None:
            self._pace.stop()
        self.finished = True

    def close(self) -> None:
        """Close the file."""
        self._held = []
        if self._stored is not None:
            self._stored.close()
            self._stored = None
