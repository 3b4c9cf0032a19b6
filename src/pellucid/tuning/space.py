"""What may be changed of a config, and to what.

Most keys leave the picture as it is, or nearly so, and differ in time alone; which value is best depends on the
computer, the frames and the rate. Those that trade the picture for time (`Knob.trades`) are changed only within the
bounds that the user gives.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.config import Config, installed
from pellucid.controls.text import get, key_of, same
from pellucid.errors import ConfigError
from pellucid.tuning.goal import Point

__all__ = ["Knob", "device_of", "knobs_of", "parse_range", "parse_try"]

Steps = tuple[str, ...]
_TILES = (256, 512, 1024)
_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40)
_LONG_MINUTES = 8.0
"""`torch.compile` takes minutes; in less time there is something better to try."""


@dataclass(frozen=True)
class Knob:
    """A key of a config and what it may be.

    Parameters
    ----------
    steps
        The key: ``("stages", "0", "tile")``.
    values
        Other than what it is, in the order in which they are tried; None: the key is left out.
    now
        What it is.
    trades
        The picture becomes another: the values are in order of what is best for it, and the search takes the first
        that is quick enough.
    """

    steps: Steps
    values: tuple[Any, ...]
    now: Any = None
    trades: bool = False

    @property
    def key(self) -> str:
        """As a config's ``--set`` has it."""
        return key_of(self.steps)


def device_of(config: Config) -> str:
    """Return where the stages of a config run."""
    import torch

    wanted = config.settings.device
    return wanted if wanted != "auto" else "cuda:0" if torch.cuda.is_available() else "cpu"


def knobs_of(
    config: Config,
    tree: Mapping[str, Any],
    *,
    shape: tuple[int, ...],
    point: Point,
    iterations: tuple[int, int] | None = None,
    tries: Mapping[str, Sequence[Any]] | None = None,
    keep: Sequence[str] = (),
    minutes: float = 10.0,
) -> list[Knob]:
    """Return what the search may change, in the order in which it does.

    Parameters
    ----------
    config, tree
        The unchanged config, and its text as a tree.
    shape
        Of a frame, in pixels.
    point
        Where the latency ends.
    iterations
        Of deconvolutions: least and most.
    tries
        Further keys and their values, from the user.
    keep
        Keys, or beginnings of them, that stay as they are.
    minutes
        That there are.

    Raises
    ------
    ConfigError
        Where a key of the user's is no key, or none that can be changed.
    """
    device = device_of(config)
    found: list[Knob] = []

    def knob(steps: Steps, values: Sequence[Any], default: Any = None, *, trades: bool = False) -> None:
        now = get(tree, steps)
        others = tuple(value for value in values if not same(value, default if now is None else now))
        if others and all(one.steps != steps for one in found):
            found.append(Knob(steps, others, now, trades))

    for key, values in (tries or {}).items():
        steps = tuple(key.split("."))
        if steps[0] not in ("stages", "session", "sinks") or get(tree, steps[:-1]) is None:
            raise ConfigError(f"--try {key}: no key of this config. Give one such as stages.0.iterations=1,2,3")
        # Whether it changes the picture nobody but the user knows: the values are taken in the order given.
        knob(steps, values, trades=steps[0] == "stages")
    if config.stages:
        if device == "cpu":
            knob(("session", "threads"), _threads())
        for i, row in enumerate(config.stages):
            if row.on:
                _of_stage(knob, ("stages", str(i)), row, device, shape, iterations, minutes)
        knob(("session", "restore"), ["latest", "every"])
    knob(("session", "slots"), [4, 8, 16, 32], 16)
    for i, sink in enumerate(tree.get("sinks", [])):
        where = ("sinks", str(i))
        if sink.get("kind") == "recorder" and point == "disk":
            if sink.get("format", "ome-zarr") == "ome-zarr":
                knob((*where, "compression"), ["none", "blosc-lz4"], "none")
            knob((*where, "threads"), [None, 1, 2])
            knob((*where, "commit_every_s"), [0.2, 5.0])
        if sink.get("kind") == "window" and point == "display":
            knob((*where, "max_fps"), [30.0, 60.0, 120.0], 60.0)
    if config.kinds["source"] == "wire":
        knob(("source", "window"), [None, 2, 4, 8])
    return [one for one in found if not any(one.key == k or one.key.startswith(f"{k}.") for k in keep)]


def _of_stage(
    knob: Any,
    where: Steps,
    row: Any,
    device: str,
    shape: tuple[int, ...],
    iterations: tuple[int, int] | None,
    minutes: float,
) -> None:
    if row.kind == "restore":
        engines = _engines(device, minutes)
        given = row.keys.get("engine")
        if isinstance(given, Mapping) and "bound" in given:  # how far it may be from float32 is the user's to say
            engines = [
                {**(one if isinstance(one, dict) else {"kind": one}), "bound": given["bound"]} for one in engines
            ]
        knob((*where, "engine"), engines, "auto")
        sides = [[side, side] for side in _TILES if side < max(shape[-2:])]
        knob((*where, "tile"), [None, *sides])
        knob((*where, "batch"), [None, 1, 4] if device == "cpu" else [None, 1, 4, 16])
    if row.kind == "deconvolve" and iterations is not None and row.keys.get("method") != "wiener":
        low, high = iterations
        between = sorted({low, high, *(n for n in _STEPS if low < n < high)}, reverse=True)
        knob((*where, "iterations"), between, trades=True)


def _engines(device: str, minutes: float) -> list[Any]:
    """Return the engines that are here, each with what it can be told."""
    there = installed("engines")
    out: list[Any] = ["auto"]
    if device == "cpu":
        if "openvino" in there:
            out += [{"kind": "openvino", "precision": "float32"}, {"kind": "openvino", "precision": "bfloat16"}]
        out.append({"kind": "torch", "mode": "eager"})
        if minutes >= _LONG_MINUTES and (shutil.which("c++") or shutil.which("g++") or shutil.which("cl")):
            out.append({"kind": "torch", "mode": "compile"})
        return out
    for kind in ("tensorrt", "tensorrt-rtx"):
        out += [{"kind": kind, "precision": precision} for precision in ("float16", "float32") if kind in there]
    out += [{"kind": "torch", "mode": "graph", "precision": "float16"}, {"kind": "torch", "mode": "graph"}]
    return out


def _threads() -> list[Any]:
    cores = os.cpu_count() or 1
    return [None, *sorted({1, max(cores // 2, 1), max(cores - 1, 1), cores} - {max(cores - 1, 1)})]


def parse_range(text: str | None) -> tuple[int, int] | None:
    """Return the bounds in ``"1:6"``.

    Raises
    ------
    ConfigError
    """
    if text is None:
        return None
    low, colon, high = text.partition(":")
    if not (colon and low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high) <= 1000):
        raise ConfigError(f"--iterations {text}: least and most are needed, from 1 to 1000, such as --iterations 1:6")
    return int(low), int(high)


def parse_try(given: Sequence[str]) -> dict[str, list[Any]]:
    """Return keys and values of ``"stages.0.cost=1,2,5"``; a value that holds a comma stands in a list.

    Raises
    ------
    ConfigError
    """
    import tomllib

    out: dict[str, list[Any]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise ConfigError(f"--try {text}: give a key and its values, such as --try stages.0.iterations=1,2,3")
        try:
            out[key.strip()] = tomllib.loads(f"v = [{values}]")["v"]
        except tomllib.TOMLDecodeError:
            out[key.strip()] = [value.strip() for value in values.split(",") if value.strip()]
    return out
