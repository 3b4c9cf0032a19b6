"""What a network is to a program that runs it: files, ports, and what happens to the numbers before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Form", "Model", "Operation", "Port", "Side"]

Form = Literal["onnx", "torchscript", "exported"]
"""Of a weights file: an ONNX graph, TorchScript, or a program of ``torch.export`` (``.pt2``)."""


@dataclass(frozen=True, slots=True)
class Side:
    """Lengths that an axis may have: ``least + n * step``; with ``step = 0`` only `least`."""

    least: int = 1
    step: int = 1

    def takes(self, length: int) -> bool:
        """Tell whether an axis may be so long."""
        return (
            length == self.least if self.step == 0 else length >= self.least and (length - self.least) % self.step == 0
        )

    def up(self, length: int) -> int:
        """Return the smallest length allowed that is not below `length`; `least` where the length is fixed."""
        if self.step == 0 or length <= self.least:
            return self.least
        return self.least + -(-(length - self.least) // self.step) * self.step


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor that goes into a network or comes out of it.

    Parameters
    ----------
    name
        In the file.
    axes
        One letter an axis, in the file's order: ``b``, ``c``, ``z``, ``y``, ``x``; ``"bcyx"`` is usual.
    dtype
        Name of a numpy type.
    channels
        1 where there is no ``c``.
    sides
        Of the axes ``z``, ``y``, ``x`` that it has, in this order.
    """

    name: str
    axes: str
    dtype: str
    channels: int
    sides: tuple[Side, ...]

    @property
    def ndim(self) -> int:
        """Number of axes in space: 2 for planes, 3 for stacks."""
        return len(self.sides)


@dataclass(frozen=True, slots=True)
class Operation:
    """A step before or after the network, by the name and the arguments that bioimage.io gives it.

    ``scale_range``, ``zero_mean_unit_variance``, ``fixed_zero_mean_unit_variance``, ``scale_linear``,
    ``scale_mean_variance``, ``clip``, ``sigmoid``, ``softmax``, ``binarize``, ``ensure_dtype``; and one of our own,
    ``as_given``, after the network: undoes what the steps before it did, so that the result is in camera counts again.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A network in one or several files that hold the same weights.

    Parameters
    ----------
    name
    weights
        File of each form that it comes in.
    sha256
        Of all that determines its result: weights with external data, ports and operations.
    given, result
        Its one input and its one output.
    before, after
        Steps outside the network, in order.
    scale
        Pixels of the result for one given, along y and x: 1, 2, 4.
    halo
        Pixels (given ones) along each axis in space by which the border of a tile spoils the result: half the
        receptive field, rounded up.
    frames
        It is given so many frames as channels, the newest last; 1 for most.
    card
        What is worth showing: ``description``, ``licence``, ``authors``, ``cite``, ``documentation``, ``trained``.
    samples
        Files of numpy arrays (``.npy``) that the network's author gave: an input as it goes into `before`, and the
        output after `after`; empty where there are none.
    """

    name: str
    weights: Mapping[Form, Path]
    sha256: str
    given: Port
    result: Port
    before: tuple[Operation, ...] = ()
    after: tuple[Operation, ...] = ()
    scale: int = 1
    halo: tuple[int, ...] = ()
    frames: int = 1
    card: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Path, ...] = ()
