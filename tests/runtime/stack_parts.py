"""For tests of stacks: slices as scripted, a stage that notes what it is told, a run of a session."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.config import Config
from pellucid.live import make_session
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.runtime.session import Session

HERE = Path(__file__)
SHAPE = (16, 24)


@dataclass(config=ConfigDict(extra="forbid"))
class Slices:
    """Planes at the places in `frames`, one after the other; pixels are the frame's number and one.

    A place is ``{"t": 0, "z": 1}``, or a word: ``"lost"``; ``"smaller"``: from here on the camera gives half as many
    rows, ``"break"``: it goes. A live one drops where no slot is free, and gives its frames every `every_s`.
    """

    frames: list[Any]
    depth: int
    live: bool = False
    every_s: float = 0.0
    shares_memory: bool = False
    colour: bool = False
    passive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.finished = False
        self.fresh: list[Stream] = []
        self._slots: dict[int, deque[Slot]] = {0: deque()}
        self._todo = deque(self.frames)
        self._seq = self._stream = 0
        self._due_s = 0.0

    def _made(self, rows: int, replaces: int | None) -> Stream:
        spec = Spec((3, rows, SHAPE[1]), "uint8", axes="cyx") if self.colour else Spec((rows, SHAPE[1]), "uint16")
        sizes = {"t": 1, "z": self.depth} if self.depth else {}
        return Stream(spec, index=self._stream, pixel_um=0.1, z_um=0.5, sizes=sizes, replaces=replaces)

    def open(self) -> tuple[Stream, ...]:
        return (self._made(SHAPE[0], None),)

    def start(self, rings, account) -> None:
        assert [slot.stream.spec.axes for slot in rings[0].slots] == ["yx"] * len(rings[0].slots)
        self._account = account

    def extend(self, rings) -> None:
        assert rings[0].slots[0].stream.index == self._stream

    def offer(self, slot: Slot) -> None:
        assert slot.stream.index == self._stream, "a slot of a stream that was replaced"
        self._slots[slot.stream.index].append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        if not self._todo:
            if not self.finished:
                self._account.told(self._seq)
            self.finished = True
            return None
        now_s = time.monotonic()
        if now_s < self._due_s:
            time.sleep(min(timeout_s, self._due_s - now_s))
            return None
        what = self._todo[0]
        if what == "break":
            raise ValueError("the cable was pulled")
        slots = self._slots[self._stream]
        if what == "smaller":
            self._todo.popleft()
            slots.clear()
            self._stream += 1
            self._slots[self._stream] = deque()
            self.fresh.append(self._made(SHAPE[0] // 2, self._stream - 1))
            return None
        if not slots and not (self.live or what == "lost"):
            time.sleep(min(timeout_s, 0.001))
            return None
        self._todo.popleft()
        self._due_s = now_s + self.every_s
        seq, self._seq = self._seq, self._seq + 1
        if what == "lost" or not slots:
            state, where = ("lost", "camera") if what == "lost" else ("dropped", "ring")
            self._account.missing(seq, 1, state, where, self._stream)
            return None
        slot = slots.popleft()
        slot.planes["raw"].fill(seq + 1)
        now = now_ns()
        slot.info = FrameInfo(seq, self._stream, seq + 100, camera_ns=now, received_ns=now_ns(), axes=what)
        return slot

    def stop(self) -> None:
        self._todo.clear()

    def close(self) -> None:
        self._slots.clear()


@dataclass(config=ConfigDict(extra="forbid"))
class Blend:
    """The mean along z in every plane of a stack, so that a plane that is missing would be seen in all."""

    slow_s: float = 0.0
    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = True

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        assert given.axes == "zyx"
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result) -> None:
        time.sleep(self.slow_s)
        result.copy_(given.float().mean(dim=0, keepdim=True).expand_as(result))

    def close(self) -> None:
        pass


@dataclass(config=ConfigDict(extra="forbid"))
class Where:
    """Writes the z that it was told into the result."""

    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        self._z = -1
        return Spec(given.shape, "float32", device, given.axes)

    def at(self, info: FrameInfo) -> None:
        self._z = (info.axes or {})["z"]

    def __call__(self, given, result) -> None:
        result.fill_(self._z)

    def close(self) -> None:
        pass


PELLUCID = {
    "sources": {"slices": Slices},
    "stages": {"blend": Blend, "where": Where},
}


def run(text: str, *, fails: type[Exception] | None = None) -> tuple[Config, Session]:
    """Run a config to its end; what ended it early, if it had to, is in ``session.error``."""
    parts = [HERE.as_posix(), HERE.parents[1].joinpath("parts.py").as_posix()]
    config = Config.parse(f"plugins = {parts}\n{text}")
    session = make_session(config)
    session.open()
    try:
        session.run()
    except Exception as error:
        if fails is None or not isinstance(error, fails):
            raise
    finally:
        session.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pellucid")]
    assert session.report["frames"]["unaccounted"] == 0
    sums = session.report["frames"]
    raw_only, dropped, lost = (sum(sums[end].values()) for end in ("raw_only", "dropped", "lost"))
    assert sums["produced"] == sums["processed"] + raw_only + dropped + lost
    assert sums["received"] == sums["processed"] + raw_only
    return config, session


def image(folder: Path, name: str = "raw", group: str = "0") -> np.ndarray:
    return np.asarray(zarr.open_array(folder / f"{name}.ome.zarr" / group, mode="r")[:])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def stacks(times: int, depth: int) -> list[dict[str, int]]:
    return [{"t": t, "z": z} for t in range(times) for z in range(depth)]
