"""The stages of one stream, opened and bound to slots of their own: a session's lane without its threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import psutil

from pellucid.config import Config
from pellucid.errors import StageError
from pellucid.protocols import RAW, Spec, Stage, Stream
from pellucid.runtime.chain import Chain
from pellucid.runtime.ring import SlotRing

__all__ = ["BoundChain"]


def _history(stages: Iterable[Stage]) -> int:
    """Return how many frames before one have a say in it: each stage's own, one after the other."""
    return sum(max(int(getattr(stage, "history", 0) or 0), 0) for stage in stages)


def _tile(stage: Stage) -> list[int] | None:
    tile = getattr(stage, "tile", None)
    return None if tile is None else [int(n) for n in tile]


def _engine(stage: Stage) -> str:
    told: dict[str, Any] = getattr(stage, "describe", dict)()
    made = told.get("engine")
    if not made:
        return ""
    return f"{told['model']['name']} ({told['model']['sha256'][:12]}) on {made['library']} in {made['precision']}"


class BoundChain:
    """The stages of a stream, opened and bound to slots of their own.

    Parameters
    ----------
    config, stream
    device
        As `pellucid.runtime.chain.pick_device` returned it.
    tell
        Takes a line now and then from stages that take long to open.

    Attributes
    ----------
    planes : dict of str to Spec
        That come out, without raw.
    names : list of str
        Of the stages.
    tiles : list
        For each stage the tile in which it cuts frames, by the memory that it found; None for the whole.
    engines : list of str
        For each stage its network and what runs it; empty for one without.
    history : int
    slots : Sequence of Slot
        One; on a GPU two, so that one goes up while the other is computed.
    """

    def __init__(self, config: Config, stream: Stream, device: str, tell: Callable[[str], None] | None = None) -> None:
        stages = config.make_stages(stream)
        for stage in stages.values():
            if hasattr(stage, "adapts"):
                stage.adapts = False  # else a frame would depend on those with which a worker happened to begin
        self.planes: dict[str, Spec] = {}
        self.names = list(stages)
        self.tiles: list[list[int] | None] = []
        self.engines: list[str] = []
        self.history = 0
        self.chain: Chain | None = Chain(stages, stream, device, tell) if stages else None
        self._ring: SlotRing | None = None
        try:
            if self.chain is not None:
                self.planes = self.chain.open()
                self.tiles = [_tile(stage) for stage in stages.values()]
                self.engines = [_engine(stage) for stage in stages.values()]
                self.history = _history(stages.values())
            _look_for_room(stream, {RAW: stream.spec} | self.planes)
            self._ring = SlotRing(
                stream,
                {RAW: stream.spec} | self.planes,
                2 if device.startswith("cuda") else 1,
                shared=False,
                pinned=device.startswith("cuda"),
                on_free=lambda info: None,
            )
            if self.chain is not None:
                self.chain.bind(self._ring.slots, tuple(self.planes))
        except BaseException:
            self.close()
            raise
        self.slots = self._ring.slots

    def close(self) -> None:
        """Close the stages, give the memory back."""
        if self.chain is not None:
            self.chain.close()
        if self._ring is not None:
            self._ring.close()


def _look_for_room(stream: Stream, planes: dict[str, Spec]) -> None:
    needed, free = sum(spec.nbytes for spec in planes.values()), psutil.virtual_memory().available
    if needed > 0.9 * free:
        raise StageError(
            f"frames of {stream.spec} with their results need {needed / 1e6:.0f} MB, "
            f"{free / 1e6:.0f} MB of memory are free. Use a computer with more, or single planes"
        )
