"""The best engine that there is here."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.engines.base import Bound, CachedEngine, Precision, Tell
from pellucid.engines.openvino import OpenVino
from pellucid.engines.tensorrt import TensorRT
from pellucid.engines.tensorrt_rtx import TensorRTRTX
from pellucid.engines.torch import Torch
from pellucid.errors import StageError
from pellucid.models import Made, Model

__all__ = ["Auto"]

_ON_GPU = (TensorRT, TensorRTRTX, Torch)
_ON_CPU = (OpenVino, Torch)


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class Auto:
    """Take the first that can run the model: on a GPU tensorrt, tensorrt-rtx, torch; on a CPU openvino, torch.

    Parameters
    ----------
    precision
        As of the engine that is taken.
    bound
        Refuse beyond this largest difference from float32, as a part of the result's range.
    """

    precision: Precision = "auto"
    bound: Bound = 0.01

    def __post_init__(self) -> None:
        self.captures = False
        self.made = Made("auto", self.precision, "", "", None)
        self._engine: CachedEngine | None = None

    def missing(self, model: Model, device: str) -> str:
        """Return why none can run this model here."""
        found, reasons = self._found(model, device)
        return "" if found else "; ".join(reasons)

    def needed(self, model: Model, shape: tuple[int, ...], device: str) -> int:
        """Return the bytes that the engine which it would take needs."""
        found, reasons = self._found(model, device)
        if not found:
            raise StageError("; ".join(reasons))
        return found[0].needed(model, shape, device)

    def open(self, model: Model, shape: tuple[int, ...], device: str, tell: Tell | None = None) -> tuple[int, ...]:
        """Open the first engine that can; tell which, and why not those before it.

        Raises
        ------
        pellucid.errors.StageError
            What the last one said.
        """
        self.close()
        say: Tell = tell or (lambda line: None)
        found, reasons = self._found(model, device)
        if not found:
            raise StageError("; ".join(reasons))
        for i, engine in enumerate(found):
            try:
                result = engine.open(model, shape, device, tell)
            except StageError as error:
                if i + 1 == len(found):
                    raise
                reasons.append(str(error))
                continue
            why = f", since {'; '.join(reasons)}" if reasons else ""
            say(f'engine "auto": takes "{engine.kind}"{why}')
            self._engine, self.captures, self.made = engine, engine.captures, engine.made
            return result
        raise AssertionError("an engine opens or raises")

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result` from `given`."""
        assert self._engine is not None, "open the engine first"
        self._engine(given, result)

    def close(self) -> None:
        """Give everything back; safe at any time and more than once."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _found(self, model: Model, device: str) -> tuple[list[CachedEngine], list[str]]:
        """Return the engines that can, the best first, and why the others cannot."""
        keys: dict[str, Any] = {"precision": self.precision, "bound": self.bound}
        found: list[CachedEngine] = []
        reasons = []
        for kind in _ON_CPU if device == "cpu" else _ON_GPU:
            engine: CachedEngine = kind(**keys)
            if why := engine.missing(model, device):
                if not found:
                    reasons.append(why)
            else:
                found.append(engine)
        return found, reasons
