"""Stages for recorded data: whose result hangs on the order of its sums, that look back, that fail, that take time."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.protocols import Spec, Stream


@dataclass(config=ConfigDict(extra="forbid"))
class Soften:
    """Blur by a transform and divide by the sum: rounding tells how the sum was split among threads."""

    slow_s: float = 0.0
    die_once: str = ""
    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        axes = [torch.fft.fftfreq(n) for n in given.shape[:-1]] + [torch.fft.rfftfreq(given.shape[-1])]
        squares = sum(f.reshape([-1 if i == j else 1 for j in range(len(axes))]) ** 2 for i, f in enumerate(axes))
        self._filter = torch.exp(-20 * squares).to(device)
        self._calls = -2
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result) -> None:
        self._calls += 1
        if self.die_once and self._calls > 1 and not Path(self.die_once).exists():
            Path(self.die_once).touch()
            os.kill(os.getpid(), 9)
        time.sleep(self.slow_s if self._calls > 0 else 0)
        picture = given.to(torch.float32)
        soft = torch.fft.irfftn(torch.fft.rfftn(picture) * self._filter, s=picture.shape)
        result.copy_(soft * (1000 / picture.sum().clamp_(min=1)) / soft.std().clamp_(min=1e-6))

    def close(self) -> None:
        pass


@dataclass(config=ConfigDict(extra="forbid"))
class Trail:
    """The sum of this frame and the `history` before it."""

    history: int = 3
    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        self._last = deque([torch.zeros(given.shape)] * self.history, maxlen=self.history)
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result) -> None:
        now = given.to(torch.float32)
        result.copy_(now)
        for weight, before in enumerate(self._last, 1):
            result.add_(before, alpha=0.1 * weight)
        self._last.append(now.clone())

    def close(self) -> None:
        self._last = deque()


@dataclass(config=ConfigDict(extra="forbid"))
class Fussy:
    """Raise, or return NaN, where the first pixel says so."""

    raises: int = 111
    nan: int = 222
    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result) -> None:
        result.copy_(given)
        first = int(given.reshape(-1)[0])
        if first == self.raises:
            raise RuntimeError("the network is on fire")
        if first == self.nan:
            result.reshape(-1)[5] = float("nan")

    def close(self) -> None:
        pass


@dataclass(config=ConfigDict(extra="forbid"))
class Placed:
    """The place along z that it is told of each frame."""

    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        self._z = -1
        return Spec(given.shape, "float32", device, facts={"unit": "place along z"})

    def at(self, info) -> None:
        self._z = info.axes["z"]

    def __call__(self, given, result) -> None:
        result.fill_(self._z)

    def close(self) -> None:
        pass


@dataclass(config=ConfigDict(extra="forbid"))
class Halves:
    """Works in tiles, by a memory that a test can change."""

    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        told = os.environ.get("PELLUCID_TEST_TILE")
        self.tile = tuple(map(int, told.split("x"))) if told else None
        return Spec(given.shape, "float32", device)

    def __call__(self, given, result) -> None:
        result.copy_(given)

    def close(self) -> None:
        pass


PELLUCID = {"stages": {"halves": Halves, "soften": Soften, "trail": Trail, "fussy": Fussy, "placed": Placed}}
