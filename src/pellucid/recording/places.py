"""Where each frame goes in its images, and how much of each there is.

ome-writers appends in the order of the acquisition. Here frames come in another one: the channels of an experiment
have chains of their own, and the faster one overtakes; a frame that was lost leaves a hole; an experiment may last
longer than was said. So each frame has its place from its axes, or the next one where it has none.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from pellucid.protocols import FrameInfo, Stream
from pellucid.recording.image import At, Plan, Stamp
from pellucid.recording.plan import position_rows, positions_of

__all__ = ["Places", "Written"]


class Places:
    """Gives the frames of the streams that share an image their places along p, t, c, z.

    Parameters
    ----------
    first
        Of those streams.
    plan
        Of their raw image.
    parted
        The image is one of several parts: it begins where its first frame is, not at t = 0.

    Attributes
    ----------
    length : int
        Along t, so far.
    first_ns, last_ns : int
        Camera times of the first frame, and of that with the largest t.
    """

    def __init__(self, first: Stream, plan: Plan, *, parted: bool = False) -> None:
        self._parted = parted
        self._begins: dict[int, int] = {}
        """Of each position the first time point that came: a part begins there."""
        self._times: set[int] = set()
        groups = positions_of(first)
        self._groups = {group: i for i, group in enumerate(groups)}
        self._taken: set[At] | None = set() if first.sizes else None
        self._axis_z = plan.depth is not None and first.spec.axes != "zyx"
        self.length = 0
        self.first_ns = self.last_ns = 0

    def place(self, info: FrameInfo) -> At:
        """Return where a frame goes; a place that is taken is never given again: its frame comes after the last."""
        if self._taken is None:
            at = At(0, self.length, 0)
        else:
            axes = info.axes or {}
            p = self._position(axes)
            time = axes.get("t", 0)
            begins = self._begins.setdefault(p, time if self._parted else 0)
            self._times.add(time)
            at = At(
                p,
                max(time - begins, 0) if axes else self.length,
                axes.get("c", 0),
                axes.get("z", 0) if self._axis_z else 0,
            )
            if at in self._taken or p >= len(self._groups):
                at = At(min(p, len(self._groups) - 1), self.length, at.c, at.z)
            self._taken.add(at)
        if at.t >= self.length:
            if not self.length:
                self.first_ns = info.camera_ns
            self.length, self.last_ns = at.t + 1, info.camera_ns
        return at

    def may_end_before(self, info: FrameInfo) -> bool:
        """Tell whether a frame may be the first of the next part: all of a time point belongs together."""
        if self._taken is None:
            return True
        axes = info.axes or {}
        return axes.get("t", 0) not in self._times or self._position(axes) not in self._begins

    def must_end_before(self, info: FrameInfo) -> bool:
        """Tell whether a frame has no place here: time begins again, where t is not the slowest axis, before it did."""
        axes = info.axes or {}
        return self._taken is not None and axes.get("t", 0) < self._begins.get(self._position(axes), 0)

    def _position(self, axes: Mapping[str, int]) -> int:
        return self._groups.get((axes.get("p", 0), axes.get("g", 0)), len(self._groups))

    def take_back(self, at: At) -> None:
        """Note that nothing comes to a place that was given; of frames that just follow one another the next has it."""
        if self._taken is None and at.t == self.length - 1:
            self.length -= 1

    def put(self, at: At, camera_ns: int) -> None:
        """Note a frame that has its place already, where a recording is recovered."""
        if not self.length:
            self.first_ns = camera_ns
        if at.t >= self.length:
            self.length, self.last_ns = at.t + 1, camera_ns

    @property
    def interval_s(self) -> float | None:
        """Measured between two places along t; None where there is but one."""
        if self.length < 2:
            return None
        return max(self.last_ns - self.first_ns, 0) * 1e-9 / (self.length - 1)


class Written(Sequence[Stamp]):
    """The planes of one image that were written, in 32 bytes each: a run may last for days."""

    def __init__(self) -> None:
        self._places = array("i")
        self._numbers = array("q")
        self._seconds = array("d")

    def add(self, stamp: Stamp) -> None:
        """Note a plane."""
        self._places.extend(stamp.at)
        self._numbers.append(stamp.seq)
        self._seconds.append(math.nan if stamp.camera_s is None else stamp.camera_s)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, i: int) -> Stamp: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Stamp]: ...
    def __getitem__(self, i: int | slice) -> Stamp | Sequence[Stamp]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        seconds = self._seconds[i]
        at = At(*self._places[4 * i : 4 * i + 4])
        return Stamp(at, None if math.isnan(seconds) else seconds, self._numbers[i])

    def groups(self, plan: Plan, first: Stream, streams: Sequence[Stream]) -> list[dict[str, Any]]:
        """Return what is kept beside each position: where it is, and how much of it was written.

        Parameters
        ----------
        plan
        first
            Of the streams, with what the source has come to know of its details meanwhile.
        streams
            All whose planes are in the image.
        """
        rows = position_rows(first)
        per = 3 if plan.is_colour else 1
        names = (
            list(plan.channels)
            if not plan.is_colour
            else [c[:-2] if len(c) > 1 else first.channel for c in plan.channels[::3]]
        )
        at = np.frombuffer(self._places, np.int32).reshape(-1, 4)
        counts = Counter(map(tuple, (at[:, [0, 2]] // [1, per]).tolist()))
        times = Counter(np.unique(at[:, :2], axis=0)[:, 0].tolist())
        places = positions_of(first)
        return [
            self._group(
                first,
                streams,
                place,
                [counts[p, c] // per for c in range(len(names))],
                times[p],
                names,
                rows.get(place),
                len(places),
            )
            for p, place in enumerate(places)
        ]

    def _group(
        self,
        first: Stream,
        streams: Sequence[Stream],
        place: tuple[int, int],
        counts: Sequence[int],
        times: int,
        channels: Sequence[str],
        row: Mapping[str, Any] | None,
        positions: int,
    ) -> dict[str, Any]:
        names = first.names.get("p", ())
        facts: dict[str, Any] = {"name": names[place[0]]} if place[0] < len(names) else {}
        facts |= {axis: at for axis, at in zip("pg", place, strict=True) if axis in first.sizes}
        written = dict(zip(channels, counts, strict=True))
        expected: dict[str, int] = {}
        if row is not None:
            facts |= {key: row[key] for key in row if key.endswith("_um") and row[key] is not None}
            expected = dict(zip(channels, row["planes"], strict=False))
        elif positions == 1:
            expected = {s.channel: s.frames for s in streams if s.frames is not None and s.channel in written}
        told = {"position": facts, "planes_written": written, "time_points": times}
        # A second acquisition that goes on where the first one ended has more than anybody expected.
        return told | ({"planes_expected": expected} if all(written[c] <= n for c, n in expected.items()) else {})
