"""Stages of a user: one that looks back over frames, one that doubles the pixels."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.protocols import Spec, Stream


@dataclass(config=ConfigDict(extra="forbid"))
class Sum:
    """The sum of all frames that came."""

    sign: float = 1.0
    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        self._sum = torch.zeros(given.shape)
        return Spec(given.shape, "float32", device)

    def forget(self) -> None:
        self._sum.zero_()

    def __call__(self, given, result) -> None:
        self._sum.add_(given, alpha=self.sign)
        result.copy_(self._sum)

    def close(self) -> None:
        pass


@dataclass(config=ConfigDict(extra="forbid"))
class Twice:
    """Each pixel four times."""

    reads: str | None = None
    writes: str | None = None
    captures: ClassVar[bool] = False

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        return Spec(tuple(2 * n for n in given.shape), "float32", device, zoom=2)

    def __call__(self, given, result) -> None:
        result.copy_(given.repeat_interleave(2, 0).repeat_interleave(2, 1))

    def close(self) -> None:
        pass


PELLUCID = {"stages": {"sum": Sum, "twice": Twice}}
