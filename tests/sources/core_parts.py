"""A source of a real core between ``open`` and ``close``, as a session would have it."""

from __future__ import annotations

import time

import numpy as np

from pellucid.sources.micromanager import MicroManager
from pellucid.testing import LocalRing, Told

PATIENCE_S = 40.0
SMALL = {"Camera.Binning": 4}
"""128 x 128 pixels: 32 kB a frame as uint16."""
TWO_CAMERAS = """Device,Left,DemoCamera,DCam
Device,Right,DemoCamera,DCam
Device,Both,Utilities,Multi Camera
Device,Z,DemoCamera,DStage
Property,Core,Initialize,1
Property,Both,Physical Camera 1,Left
Property,Both,Physical Camera 2,Right
"""


class Run:
    """A source between ``open`` and ``close``, with rings and an account, as a session would have them."""

    def __init__(self, source: MicroManager, slots: int = 4) -> None:
        self.source = source
        self.account = Told()
        self.streams = list(source.open())
        self.stream = self.streams[0]
        self.rings = [LocalRing(stream, slots) for stream in self.streams]
        self.infos: list = []
        self.planes: list[np.ndarray] = []

    @property
    def core(self):
        return self.source._core

    def start(self, *, offer: bool = True) -> Run:
        self.source.start(self.rings, self.account)
        if offer:
            self.offer_all()
        return self

    def offer_all(self) -> None:
        for ring in self.rings:
            for slot in ring.slots:
                self.source.offer(slot)

    def take(self, frames: int | None = None) -> None:
        """Read so many more frames, or all."""
        until, goal = time.monotonic() + PATIENCE_S, None if frames is None else len(self.infos) + frames
        while not self.source.finished and (goal is None or len(self.infos) < goal):
            assert time.monotonic() < until, f"{len(self.infos)} frames within {PATIENCE_S:g} s"
            slot = self.source.read(0.05)
            if slot is not None:
                self.infos.append(slot.info)
                self.planes.append(slot.planes["raw"].copy())
                if not self.replaced(slot.stream.index):
                    self.source.offer(slot)
            self.extend()

    def extend(self) -> None:
        """Make rings for streams that began."""
        streams = self.source.fresh.copy()
        self.source.fresh.clear()
        assert [s.index for s in streams] == list(range(len(self.streams), len(self.streams) + len(streams)))
        rings = [LocalRing(stream, len(self.rings[0].slots)) for stream in streams]
        self.streams += streams
        self.rings += rings
        if streams:
            self.source.extend(rings)
        for ring in rings:
            for slot in ring.slots:
                self.source.offer(slot)

    def replaced(self, index: int) -> bool:
        return any(stream.replaces == index for stream in self.streams)

    def finish(self) -> None:
        """Stop, read to the end, and see that every number has one end."""
        self.source.stop()
        self.take()
        self.explained()

    def explained(self) -> None:
        came, gone = [info.seq for info in self.infos], self.account.numbers()
        assert came == sorted(came)
        assert sorted(came + gone) == list(range(len(came) + len(gone)))
        assert self.account.produced == len(came) + len(gone)

    def places(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for _, count, state, where in self.account.missed:
            found[state, where] = found.get((state, where), 0) + count
        return found

    def numbers(self, stream: int) -> list[int]:
        """The camera's numbers of one stream's frames."""
        return [info.camera_number for info in self.infos if info.stream == stream]

    def wait(self, frames: int) -> int:
        """Let so many frames wait in the core's buffer, at least; return how many wait."""
        until = time.monotonic() + PATIENCE_S
        while self.core.get_remaining_image_count() < frames:
            assert time.monotonic() < until
            time.sleep(0.002)
        return int(self.core.get_remaining_image_count())

    def close(self) -> None:
        self.source.close()
        for ring in self.rings:
            ring.close()


def demo(**keys) -> MicroManager:
    return MicroManager(**{"config": "demo", "exposure_ms": 5.0, "buffer_mb": 32, **keys})


def snap_and_repeat(core) -> np.ndarray:
    """Snap a picture with something in it, and let the camera repeat it, so that pixels can be compared."""
    core.snap_image()
    snapped = core.get_image().copy()
    assert np.ptp(snapped) > 0
    core.set_property("Camera", "FastImage", "1")
    return snapped
