"""A reader for tests of sources that play: offers slots at will and keeps what comes."""

from __future__ import annotations

import time

import numpy as np

from pellucid.protocols import FrameInfo, Source
from pellucid.testing import LocalRing, Told

PATIENCE_S = 40.0


class Play:
    """A source between ``open`` and ``close``.

    Parameters
    ----------
    source
    slots
        Of each stream's ring.
    """

    def __init__(self, source: Source, slots: int = 4) -> None:
        self.source = source
        self.account = Told()
        self.infos: list[FrameInfo] = []
        self.planes: list[np.ndarray] = []
        self.streams = tuple(source.open())
        self.rings = [LocalRing(stream, slots) for stream in self.streams]

    def __enter__(self) -> Play:
        self.source.start(self.rings, self.account)
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        for ring in self.rings:
            ring.close()

    def offer_all(self) -> Play:
        for ring in self.rings:
            for slot in ring.slots:
                self.source.offer(slot)
        return self

    def take(self, frames: int | None = None, *, give_back: bool = True, pause_s: float = 0.0) -> Play:
        """Read so many more frames, or all."""
        until = time.monotonic() + PATIENCE_S
        goal = None if frames is None else len(self.infos) + frames
        while not self.source.finished and (goal is None or len(self.infos) < goal):
            assert time.monotonic() < until, f"{len(self.infos)} frames within {PATIENCE_S:g} s"
            slot = self.source.read(0.05)
            if slot is None:
                continue
            self.infos.append(slot.info)
            self.planes.append(slot.planes["raw"].copy())
            if pause_s:
                time.sleep(pause_s)
            if give_back:
                self.source.offer(slot)
        return self

    @property
    def seqs(self) -> list[int]:
        return [info.seq for info in self.infos]

    @property
    def axes(self) -> list[dict[str, int]]:
        return [dict(info.axes or {}) for info in self.infos]

    def missed(self, state: str, where: str) -> int:
        return sum(count for _, count, s, w in self.account.missed if (s, w) == (state, where))

    def explained(self) -> None:
        """See that every number has one end, and that the total was told."""
        gone = self.account.numbers()
        assert self.seqs == sorted(self.seqs)
        assert sorted(self.seqs + gone) == list(range(len(self.seqs) + len(gone)))
        assert self.account.produced == len(self.seqs) + len(gone)


def play(source: Source, frames: int | None = None) -> Play:
    """Open, read all, close."""
    with Play(source) as one:
        return one.offer_all().take(frames)
