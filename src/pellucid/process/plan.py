"""What is to be done, as JSON in OUT: whoever computes a block reads it there, and a second call compares.

All on which a pixel of the result can depend is in here: IN, the config with the files that it names, the planes, the
number of threads, the device, the tiles that the memory allowed, the versions. What it cannot depend on (how many
workers, which call) is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pellucid._version import version
from pellucid.config import Config
from pellucid.process.config import unit_of
from pellucid.process.recorded import Recorded
from pellucid.protocols import Spec
from pellucid.sources._pictures import pictures_in

__all__ = ["PLACE", "THREADS", "Block", "Plan", "make_plan", "tiled_otherwise"]

THREADS = {"plane": 1, "stack": 4}
"""Of torch in each process, unless ``session.threads`` says otherwise; never more than this computer has cores.

However many workers there are it stays the same: a sum that is split among other threads is rounded in another way.
With planes there are many to be shared out; stacks are few and long."""
PLACE = ".process"
"""Folder in OUT for what is only needed until OUT is finished."""

_BLOCK_UNITS, _BLOCK_BYTES, _BLOCKS = 32, 256 << 20, 32
_HASHED_BYTES = 256 << 20


@dataclass(frozen=True)
class Block:
    """Units ``first .. first + count - 1`` of a stream."""

    number: int
    stream: int
    first: int
    count: int


@dataclass(frozen=True)
class Plan:
    """One call's work; see the module.

    Parameters
    ----------
    given
        IN, absolute.
    files
        What is read beside the config, by name: a hash, or size and time of what is too long to be hashed.
    config, folder
        TOML as it runs, and the folder from which its relative names are taken.
    unit, threads, device, with_raw, versions
    units, block
        For each stream: how many units there are, and how many are a block.
    planes
        For each stream those that are written, with their Specs.
    tiles, engines
        For each stream and stage what `pellucid.process.bound.BoundChain` says of it.
    """

    given: str
    files: Mapping[str, str]
    config: str
    folder: str
    unit: str
    threads: int
    device: str
    with_raw: bool
    versions: Mapping[str, str]
    units: Sequence[int]
    block: Sequence[int]
    planes: Sequence[Mapping[str, Mapping[str, Any]]]
    tiles: Sequence[Sequence[Sequence[int] | None]]
    engines: Sequence[Sequence[str]] = ()

    @property
    def specs(self) -> list[dict[str, Spec]]:
        """`planes` as Specs."""
        return [
            {name: Spec(**{**spec, "shape": tuple(spec["shape"])}) for name, spec in planes.items()}
            for planes in self.planes
        ]

    def blocks(self) -> Iterator[Block]:
        """Give all blocks in order; streams of which no plane is written have none."""
        number = 0
        for stream, (units, size, planes) in enumerate(zip(self.units, self.block, self.planes, strict=True)):
            for first in range(0, units if planes else 0, size):
                yield Block(number, stream, first, min(size, units - first))
                number += 1

    @property
    def nbytes(self) -> int:
        """Of all pixels that are written."""
        return sum(n * self.unit_bytes(i) for i, n in enumerate(self.units))

    def unit_bytes(self, stream: int) -> int:
        """Of the planes of one unit."""
        return sum(spec.nbytes for spec in self.specs[stream].values())

    def text(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Plan:
        """Return the plan that `text` gave."""
        return cls(**json.loads(text))

    def differs(self, other: Plan) -> str:
        """Say in what an earlier plan differs from this one; empty where it does not, or in its tiles alone."""
        mine, others = json.loads(self.text()), json.loads(other.text())
        names = {
            "given": "IN was {1}, now {0}",
            "config": "the config has changed",
            "files": "",
            "folder": "the config lay in {1}, now in {0}",
            "with_raw": "--with-raw was {1}, now {0}",
            "versions": "it was begun with {1}, this is {0}",
            "engines": "its networks were {1}, now {0}",
        }
        for told in (mine, others):
            told["engines"] = "; ".join(dict.fromkeys(one for row in told["engines"] for one in row if one))
            for facts in (spec.get("facts", {}) for planes in told["planes"] for spec in planes.values()):
                for key in ("engine", "model"):  # said by `engines`; how near it is to float32 is measured anew
                    facts.pop(key, None)
        for key in [*names, *(key for key in others if key not in {*names, "tiles"})]:
            value = others[key]
            if mine[key] == value:
                continue
            if key == "files":
                changed = sorted(n for n in {*value, *mine[key]} if value.get(n) != mine[key].get(n))
                return f"{changed[0]} has changed"
            return names.get(key, f"{key} was {{1}}, now {{0}}").format(_short(mine[key]), _short(value))
        return ""


def make_plan(
    config: Config,
    recorded: Recorded,
    planes: Sequence[Mapping[str, Spec]],
    histories: Sequence[int],
    tiles: Sequence[Sequence[Sequence[int] | None]],
    engines: Sequence[Sequence[str]] = (),
    *,
    device: str,
    with_raw: bool,
) -> Plan:
    """Make the plan of a call.

    Parameters
    ----------
    config
    recorded
        IN.
    planes
        For each stream those that are written.
    histories
        For each stream, how many frames before a block its stages must have seen.
    tiles, engines
        For each stream and stage.
    device
        As `pellucid.runtime.chain.pick_device` returned it.
    with_raw
        Whether raw is among `planes`.
    """
    units = [recorded.units(i) for i in range(len(recorded.streams))]
    plan = Plan(
        given=str(recorded.path),
        files=_files(recorded.path, config),
        config=config.text,
        folder=str(config.folder),
        unit=unit_of(config),
        threads=config.settings.threads or min(THREADS[unit_of(config)], os.cpu_count() or 1),
        device=device.partition(":")[0],
        with_raw=with_raw,
        versions={"pellucid": version, "torch": str(torch.__version__)},
        units=units,
        block=[],
        planes=[
            {
                name: {"shape": list(s.shape), "dtype": s.dtype, "axes": s.axes, "facts": dict(s.facts), "zoom": s.zoom}
                for name, s in row.items()
            }
            for row in planes
        ],
        tiles=tiles,
        engines=engines,
    )
    blocks = []
    for i, (n, history) in enumerate(zip(units, histories, strict=True)):
        # Short enough that little is done again and that all workers have some, long enough to be worth the start.
        size = min(_BLOCK_UNITS, _BLOCK_BYTES // max(plan.unit_bytes(i), 1), -(-n // _BLOCKS))
        blocks.append(max(size, 1, 8 * history))
    return Plan(**{**{name: getattr(plan, name) for name in plan.__dataclass_fields__}, "block": blocks})


def tiled_otherwise(
    begun: Sequence[Sequence[int] | None], now: Sequence[Sequence[int] | None], names: Sequence[str]
) -> str:
    """Say which stage of a stream cuts frames into other tiles than OUT was begun with; empty where none does.

    Parameters
    ----------
    begun, now
        For each stage its tile.
    names
        Of the stages.
    """
    for i, (was, is_, name) in enumerate(zip(begun, now, names, strict=True)):
        if was != is_:
            return (
                f"stages[{i}] {name} takes {_tiles(is_)} in the memory there is here, and OUT was begun with "
                f"{_tiles(was)}, which gives other last digits. Go on where there is as much memory as there was, or "
                "begin another OUT with memory_gb = 8 (what each of the computers has) in that stage"
            )
    return ""


def _tiles(tile: Sequence[int] | None) -> str:
    return "whole frames" if tile is None else f"tiles of {'x'.join(map(str, tile))}"


def _files(given: Path, config: Config) -> dict[str, str]:
    """Return what tells whether IN, and the files that the config names, are still the same."""
    if given.is_dir():
        # The chunks are too many to be looked at; their arrays' metadata change with shape, type and time.
        names = ("zarr.json", ".zarray", ".zattrs", "NDTiff.index", "frames.jsonl")
        files = [f for depth in ("", "*/", "*/*/", "*/*/*/") for n in names for f in given.glob(depth + n)]
        loose = [] if files else pictures_in(given)
    else:
        files, loose = [], [given]
    found = {str(file): _mark(file, whole=file not in loose) for file in sorted({*files, *loose})}
    for value in _texts([row.keys for row in config.stages]):
        file = config.folder / value
        if len(value) < 4096 and "\0" not in value and file.is_file():
            found[str(file)] = _mark(file, whole=True)
    for name in tomllib.loads(config.text).get("plugins", []):
        found[str(config.folder / name)] = _mark(config.folder / name, whole=True)
    return found


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str | Path):
        yield str(tree)
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _texts(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _texts(value)


def _mark(file: Path, *, whole: bool) -> str:
    facts = file.stat()
    if whole and facts.st_size <= _HASHED_BYTES:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{facts.st_size} bytes of {facts.st_mtime_ns}"


def _short(value: Any) -> str:
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
    return text if len(text) < 120 else text[:117] + "..."
