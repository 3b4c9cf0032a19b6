"""What an image in a recording is, whatever its format: the vocabulary between the recorder, a format and recovery.

An image has the axes p (positions), t, c, z (where there is one), y, x. Its unit is the plane: one (y, x) picture at
``(p, t, c, z)``, z = 0 where it has no z. A colour picture is three planes along c, a stack `depth` planes along z.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["At", "Ending", "Image", "Plan", "Stamp", "Where"]


class At(NamedTuple):
    """A plane's place: position, time point, channel, slice."""

    p: int
    t: int
    c: int
    z: int = 0


class Where(NamedTuple):
    """Where the bytes of a plane are: a file relative to the recording's folder, with ``/``; offset and count."""

    file: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Plan:
    """What is known of an image when it begins; JSON types, since ``recording.json`` keeps it for recovery.

    Parameters
    ----------
    plane
        ``"raw"``, ``"restored"`` or another plane's name.
    name
        Of its folder or file, without an ending: ``"raw"``, ``"raw-Andor-1"``; relative to the recording, with ``/``.
    dtype
        Name of a numpy type; little-endian on the disk.
    size
        ``(y, x)`` in pixels.
    channels
        Labels along c, at least one; a colour picture's are its R, G and B.
    is_colour
        Each channel is three of `channels`: R, G, B.
    depth
        Places along z; None where there is no z.
    positions
        Names, all different and fit for a folder; empty for an image without positions.
    time_points
        As expected; None where it is not known. An image grows all the same.
    pixel_um, z_um
        Of this image's pixels; None where unknown.
    exposure_ms
        By channel; None where unknown.
    facts
        What is kept beside it: ``camera``, ``details`` (objective ...), ``version``, hashes. JSON types.
    compression
        ``"none"``, ``"blosc-lz4"``, ``"blosc-zstd"`` or ``"zstd"``; lossless.
    shard_frames
        Time points in a file, of formats that put several there; 1 for a file for each plane.
    """

    plane: str
    name: str
    dtype: str
    size: tuple[int, int]
    channels: tuple[str, ...]
    is_colour: bool = False
    depth: int | None = None
    positions: tuple[str, ...] = ()
    time_points: int | None = None
    pixel_um: float | None = None
    z_um: float | None = None
    exposure_ms: tuple[float | None, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    compression: str = "none"
    shard_frames: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of one plane."""
        return self.size[0] * self.size[1] * np.dtype(self.dtype).itemsize


class Stamp(NamedTuple):
    """What is known of one plane that was written, in no order.

    `camera_s` is the camera's time in seconds since the recording's first frame; None where unknown.
    """

    at: At
    camera_s: float | None
    seq: int


@dataclass(frozen=True)
class Ending:
    """What is known of an image when it ends.

    Parameters
    ----------
    lengths
        Along t, of each position; at least 1 entry.
    interval_s
        Measured between time points; None where there is but one.
    began
        Date and time of the first frame, ISO 8601 with its zone; empty where unknown.
    stamps
        Of all planes that are there. A plane at a place without a stamp was never written: zeros for a reader.
    groups
        For each position what is kept beside it (``pellucid`` in OME-Zarr's attributes); JSON types.
    facts
        What became known since the plan was made; they replace those of its `facts`.
    """

    lengths: Sequence[int]
    interval_s: float | None = None
    began: str = ""
    stamps: Sequence[Stamp] = ()
    groups: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Image(Protocol):
    """A format: one image's files. `put` may be called from several threads, all else from one.

    A format is made with ``(folder, plan, disk)``: the recording's folder, a `Plan`, a `Disk`. Then comes ``create``
    or, after a fault, ``reopen``. What it changes on the disk goes through the `Disk`; it may read as it likes.
    """

    def create(self) -> None:
        """Make the files; what exists is never touched. Raises OSError, SinkError."""

    def put(self, at: At, plane: NDArray[Any], camera_s: float) -> Where:
        """Hot: write a plane, contiguous, at a place that was never written; say where its bytes are.

        `camera_s` is its time since the image's first plane, for formats that keep it beside each plane.
        """

    def grow(self, lengths: Sequence[int]) -> None:
        """Before a commit: let readers see so many time points of each position, where the format can."""

    def finish(self, ending: Ending) -> None:
        """Write what ends the files, so that any reader of the format opens them; called once."""

    def abandon(self) -> None:
        """Close what is open; write nothing. Safe at any time and more than once."""

    def reopen(self) -> None:
        """Find what a recorder left that died: open nothing for writing yet, change nothing."""

    def read(self, at: At, where: Where) -> NDArray[Any] | None:
        """Return a plane that a journal says was written; None where its bytes are not all there, or not readable."""

    def keep(self, planes: Sequence[tuple[At, Where]]) -> None:
        """After `reopen`: these planes are good. What else there is no reader sees any more, and nothing is deleted.

        After it planes may be `put` again (those that waited in a spill file), and `finish` ends the image.
        """
