"""Parts for tests, written as a user would write them: a source that counts, stages and sinks that fail."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.errors import SinkError
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Slot, Spec, Stream


@dataclass(config=ConfigDict(extra="forbid"))
class Counting:
    """Frames whose pixels are their number; lossless, or dropping where no slot is free."""

    frames: int = 20
    height: int = 64
    width: int = 48
    dtype: str = "uint16"
    live: bool = False
    every_s: float = 0.0
    cameras: int = 1
    break_at: int = -1
    break_close: bool = False
    shares_memory: ClassVar[bool] = False
    passive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.finished = False
        self._slots: list[deque[Slot]] = [deque() for _ in range(self.cameras)]
        self._next = 0
        self._stopped = False

    def open(self) -> tuple[Stream, ...]:
        spec = Spec((self.height, self.width), self.dtype)
        return tuple(
            Stream(spec, camera=f"cam{i}", index=i, pixel_um=0.1, exposure_ms=5.0) for i in range(self.cameras)
        )

    def start(self, rings, account) -> None:
        self._account = account
        assert len(rings) == self.cameras

    def offer(self, slot: Slot) -> None:
        self._slots[slot.stream.index].append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        if self._stopped or self._next >= self.frames:
            if not self.finished:
                self._account.told(self._next)
            self.finished = True
            return None
        if self._next == self.break_at:
            raise ValueError("the cable was pulled")
        if self.every_s:
            time.sleep(self.every_s)
        camera = self._next % self.cameras
        if not self._slots[camera]:
            if self.live:
                self._account.missing(self._next, 1, "dropped", "ring")
                self._next += 1
            else:
                time.sleep(0.001)
            return None
        slot = self._slots[camera].popleft()
        now = now_ns()
        slot.planes["raw"].fill(1 + self._next % 200)
        slot.info = FrameInfo(self._next, camera, camera_number=self._next, camera_ns=now, received_ns=now_ns())
        self._next += 1
        return slot

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        for slots in self._slots:
            slots.clear()
        if self.break_close:
            raise RuntimeError("the driver hangs up on nobody")


@dataclass(config=ConfigDict(extra="forbid"))
class Changing:
    """Frames of one kind after another; pixels are the frame's number and one (from 200 on again from 1).

    Each step is ``[camera, channel, height, width, dtype, frames]``, ``"rgb"`` for a colour picture. Streams are
    told when their first frame is there, but for those of the first step.
    """

    steps: list[tuple[str, str, int, int, str, int]]
    live: ClassVar[bool] = False
    shares_memory: bool = False
    passive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.finished = False
        self.fresh: list[Stream] = []
        self._streams: list[Stream] = []
        self._now: dict[tuple[str, str], int] = {}
        self._slots: dict[int, deque[Slot]] = {}
        self._todo = [step[:5] for step in self.steps for _ in range(step[5])]
        self._next = 0

    def _stream(self, step) -> Stream:
        camera, channel, height, width, dtype = step
        spec = Spec((3, height, width), "uint8", axes="cyx") if dtype == "rgb" else Spec((height, width), dtype)
        replaces = self._now.get((camera, channel))
        stream = Stream(spec, camera, channel, len(self._streams), pixel_um=0.1, replaces=replaces)
        self._streams.append(stream)
        self._now[camera, channel] = stream.index
        self._slots[stream.index] = deque()
        if replaces is not None:
            self._slots[replaces].clear()
        return stream

    def open(self) -> tuple[Stream, ...]:
        return (self._stream(self._todo[0]),)

    def start(self, rings, account) -> None:
        self._account = account

    def extend(self, rings) -> None:
        assert [ring.slots[0].stream.index for ring in rings] == list(self._slots)[-len(rings) :]

    def offer(self, slot: Slot) -> None:
        self._slots[slot.stream.index].append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        if self._next >= len(self._todo):
            if not self.finished:
                self._account.told(self._next)
            self.finished = True
            return None
        step = self._todo[self._next]
        at = self._now.get(step[:2])
        spec = None if at is None else self._streams[at].spec
        if spec is None or spec.shape[-2:] != step[2:4] or (spec.dtype if not spec.is_colour else "rgb") != step[4]:
            self.fresh.append(self._stream(step))
            return None
        if not self._slots[at]:
            time.sleep(0.001)
            return None
        slot = self._slots[at].popleft()
        slot.planes["raw"].fill(1 + self._next % 200)
        if spec.is_colour:
            slot.planes["raw"][1] += 50
        slot.info = FrameInfo(self._next, at, camera_number=self._next, camera_ns=now_ns(), received_ns=now_ns())
        self._next += 1
        return slot

    def stop(self) -> None:
        self._next = len(self._todo)

    def close(self) -> None:
        self._slots.clear()


@dataclass(config=ConfigDict(extra="forbid"))
class Experiment:
    """All frames of an experiment in its order but those in `lost`; pixels are the frame's number and one."""

    sizes: dict[str, int]
    lost: list[int] = ()
    colour: bool = False
    told: dict[str, int] | None = None
    again: int = 1
    shares_memory: ClassVar[bool] = False
    live: ClassVar[bool] = False
    passive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.finished = False
        axes = [range(n) for n in self.sizes.values()]
        self._frames = [dict(zip(self.sizes, at, strict=True)) for at in itertools.product(*axes)] * self.again
        self._next = 0

    def open(self) -> tuple[Stream, ...]:
        spec = Spec((3, 16, 24), "uint8", axes="cyx") if self.colour else Spec((16, 24), "uint16")
        names = {"c": ["DAPI", "FITC"][: self.sizes.get("c", 1)], "p": ["left well", "right"]}
        self._slots = [deque() for _ in names["c"]]
        return tuple(
            Stream(
                spec,
                channel=channel,
                index=i,
                pixel_um=0.1,
                z_um=0.5,
                exposure_ms=10.0 * (i + 1),
                sizes=self.told or self.sizes,
                names=names,
            )
            for i, channel in enumerate(names["c"])
        )

    def start(self, rings, account) -> None:
        self._account = account

    def offer(self, slot: Slot) -> None:
        self._slots[slot.stream.index].append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        if self._next >= len(self._frames):
            self.finished = True
            return None
        axes = self._frames[self._next]
        channel = axes.get("c", 0)
        if self._next in self.lost:
            self._account.missing(self._next, 1, "lost", "camera", channel)
            self._next += 1
            return None
        if not self._slots[channel]:
            time.sleep(0.001)
            return None
        slot = self._slots[channel].popleft()
        slot.planes["raw"].fill(1 + self._next % 200)
        slot.info = FrameInfo(
            self._next, channel, camera_number=self._next, camera_ns=now_ns(), received_ns=now_ns(), axes=axes
        )
        self._next += 1
        return slot

    def stop(self) -> None:
        self._next = len(self._frames)

    def close(self) -> None:
        self._slots = []


@dataclass(config=ConfigDict(extra="forbid"))
class Scale:
    """Multiply; raise or return NaN from a given frame on; be slow."""

    factor: float = 2.0
    raise_at: int = -1
    nan_at: int = -1
    slow_s: float = 0.0
    hang_s: float = 0.0
    in_place: bool = False
    leak: bool = False
    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = True

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        self._calls = -2  # the chain warms up with two
        self._leaked = []
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result) -> None:
        result.copy_(given)
        result.mul_(self.factor)
        if self.hang_s and self._calls >= 0:
            time.sleep(self.hang_s)
        if self.in_place:
            given.zero_()
        if self.leak:
            self._leaked.append(result.clone())
        if self.slow_s:
            time.sleep(self.slow_s)
        if self.raise_at >= 0 and self._calls >= self.raise_at:
            raise RuntimeError("the network is on fire")
        if self.nan_at >= 0 and self._calls >= self.nan_at:
            result[3, 5] = float("nan")
        self._calls += 1

    def close(self) -> None:
        pass


@dataclass(config=ConfigDict(extra="forbid"))
class Keep:
    """Keep copies; be slow, stall or fail from a given write on."""

    policy: str = "block"
    early: bool = False
    slow_s: float = 0.0
    fail_at: int = -1
    stall_at: int = -1
    fail_open: bool = False

    def __post_init__(self) -> None:
        self.got: list[tuple[int, dict[str, np.ndarray]]] = []
        self.go_on = threading.Event()
        self.closed = 0

    def open(self, streams, planes, run) -> None:
        self.planes = list(planes)
        if self.fail_open:
            raise SinkError("it is broken")

    def extend(self, stream, planes) -> None:
        self.planes.append(planes)

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        if self.slow_s:
            time.sleep(self.slow_s)
        if len(self.got) == self.fail_at:
            raise OSError(28, "No space left on device")
        if len(self.got) == self.stall_at:
            self.go_on.wait(30)
        self.got.append((slot.info.seq, {n: slot.planes[n].copy() for n in names}))

    def finish(self) -> None:
        pass

    def close(self, report) -> None:
        self.closed += 1
        self.report = report


PELLUCID = {
    "sources": {"counting": Counting, "changing": Changing, "experiment": Experiment},
    "stages": {"scale": Scale},
    "sinks": {"keep": Keep},
}
