"""What a network's tensors take at their most, found without computing or allocating any of them.

The module runs once on torch's ``meta`` device, where tensors have shapes and no memory; each operator's inputs and
results are written down, and a result counts from the operator that makes it to the last one that reads it.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pellucid.engines.torch_module import load_module, torch_dtype
from pellucid.errors import StageError
from pellucid.models import Model

__all__ = ["Tensors", "tensors_of"]


@dataclass(frozen=True)
class Tensors:
    """Numbers (not bytes) of a network at one shape: its weights, what lives at most at once, its largest two.

    What goes in and the result are not among them.
    """

    weights: int
    alive: int
    largest: int


def tensors_of(model: Model, shape: Sequence[int], where: str) -> Tensors:
    """Return what a network needs for an input of `shape`.

    Raises
    ------
    StageError
        As `pellucid.engines.torch_module.load_module`.
    """
    return _tensors(_Same(model), tuple(shape), where)


class _Same:
    """A model, equal to another one of the same content."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.model.sha256 == self.model.sha256

    def __hash__(self) -> int:
        return hash(self.model.sha256)


@functools.lru_cache(256)
def _tensors(same: _Same, shape: tuple[int, ...], where: str) -> Tensors:
    try:
        loaded = load_module(same.model, shape, "float32", where, device="meta")
    except StageError as cannot:
        if "does not know" not in str(cannot):
            raise
        return _guessed(same.model, shape)
    module: Any = loaded.module
    weights = sum(t.numel() for t in (*module.parameters(), *module.buffers()))
    given = torch.empty(shape, dtype=torch_dtype(same.model.given.dtype), device="meta")
    tape = _Tape()
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with tape:
                result = module(given)
    except Exception:  # traced with constants of its own: it cannot be followed without memory
        return _guessed(same.model, shape)
    beside = {_place(given), _place(result), *(_place(t) for t in (*module.parameters(), *module.buffers()))}
    return Tensors(weights, *tape.most(beside))


def _guessed(model: Model, shape: Sequence[int]) -> Tensors:
    """Return what a network that cannot be followed may need: 64 channels of the whole picture, three times."""
    pixels = math.prod(n for axis, n in zip(model.given.axes, shape, strict=True) if axis != "c")
    wide = 64 * pixels * model.scale**2
    return Tensors(sum(path.stat().st_size for path in model.weights.values()) // 4, 3 * wide, 2 * wide)


def _place(t: torch.Tensor) -> int:
    return int(t.untyped_storage()._cdata)


class _Tape(TorchDispatchMode):
    """Writes down which memory each operator reads and makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._steps: list[tuple[list[int], list[int]]] = []
        self._sizes: dict[int, int] = {}
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, made = ([t for t in tree_leaves(a) if isinstance(t, torch.Tensor)] for a in ((args, kwargs), out))
        for t in (*read, *made):
            self._sizes[_place(t)] = t.untyped_storage().nbytes() // t.element_size()
        self._kept += made  # so that no number of a place is given twice
        self._steps.append(([_place(t) for t in read], [_place(t) for t in made]))
        return out

    def most(self, beside: set[int]) -> tuple[int, int]:
        """Return the most numbers alive at once, and those of the largest input and result of one operator."""
        last: dict[int, int] = {}
        for i, (read, made) in enumerate(self._steps):
            last.update(dict.fromkeys((*read, *made), i))
        now = most = largest = 0
        alive: set[int] = set()
        for i, (read, made) in enumerate(self._steps):
            for place in made:
                if place not in alive and place not in beside:
                    alive.add(place)
                    now += self._sizes[place]
            most = max(most, now)
            weights_free = [self._sizes[p] for p in {*read, *made} if p in alive]
            largest = max(largest, sum(sorted(weights_free)[-2:]))
            for place in [p for p in alive if last[p] == i]:
                alive.remove(place)
                now -= self._sizes[place]
        return most, largest
