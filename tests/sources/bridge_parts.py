"""A run of source "micromanager-java" against a real core behind the bridge, and servers that are none."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import zmq

from pellucid.protocols import FrameInfo
from pellucid.sources.java import MicroManagerJava
from pellucid.testing import LocalRing, Told

PATIENCE_S = 30.0
SMALL = {"Camera.PixelType": "16bit", "Camera.Binning": "4", "Camera.Exposure": "2"}
"""128 x 128 pixels of 16 bits, some hundred frames/s."""
TWO_CAMERAS = """Device,Left,DemoCamera,DCam
Device,Right,DemoCamera,DCam
Device,Both,Utilities,Multi Camera
Property,Core,Initialize,1
Property,Both,Physical Camera 1,Left
Property,Both,Physical Camera 2,Right
Property,Left,PixelType,16bit
Property,Right,PixelType,16bit
Property,Left,Binning,4
Property,Right,Binning,4
Property,Core,Camera,Both
"""


class Noted(Told):
    """An account that also takes notes, as the session's ledger does."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def count(self, state: str, where: str) -> int:
        return sum(count for _, count, *place in self.missed if tuple(place) == (state, where))


class Run:
    """A source between ``open`` and ``close``, whose slots always come back."""

    def __init__(self, port: int, mode: str = "look", slots: int = 4, **keys) -> None:
        self.source = MicroManagerJava(port=port, mode=mode, **keys)
        self.account = Noted()
        self.infos: list[FrameInfo] = []
        self.planes: list[np.ndarray] = []
        self._slots = slots
        self.streams = []
        self.rings: list[LocalRing] = []
        try:
            self._add(self.source.open())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.source.close()
        for ring in self.rings:
            ring.close()

    def _add(self, streams) -> list[LocalRing]:
        rings = [LocalRing(stream, self._slots) for stream in streams]
        self.streams += streams
        self.rings += rings
        return rings

    def start(self, *, offer: bool = True) -> Run:
        try:
            self.source.start(self.rings, self.account)
        except BaseException:
            self.close()
            raise
        if offer:
            self.offer_all()
        return self

    def offer_all(self) -> None:
        for ring in self.rings:
            for slot in ring.slots:
                self.source.offer(slot)

    def read(self, timeout_s: float = 0.05) -> FrameInfo | None:
        if self.source.fresh:
            streams = list(self.source.fresh)
            self.source.fresh.clear()
            rings = self._add(streams)
            self.source.extend(rings)
            for ring in rings:
                for slot in ring.slots:
                    self.source.offer(slot)
        slot = self.source.read(timeout_s)
        if slot is None:
            return None
        self.infos.append(slot.info)
        self.planes.append(slot.planes["raw"].copy())
        self.source.offer(slot)
        return slot.info

    def take(self, frames: int | None = None) -> Run:
        """Read so many more frames, or all."""
        goal = None if frames is None else len(self.infos) + frames
        return self.until(lambda: goal is not None and len(self.infos) >= goal)

    def until(self, done: Callable[[], object]) -> Run:
        end = time.monotonic() + PATIENCE_S
        while not self.source.finished and not done():
            assert time.monotonic() < end, f"{len(self.infos)} frames within {PATIENCE_S:g} s, {self.account.notes}"
            self.read()
        return self

    def for_s(self, seconds: float) -> Run:
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() > end)

    def finish(self) -> Run:
        """Stop, read to the end, and see that every number has one end."""
        self.source.stop()
        self.take()
        self.explained()
        return self

    def explained(self) -> None:
        came, gone = [info.seq for info in self.infos], self.account.numbers()
        assert came == sorted(came)
        assert sorted(came + gone) == list(range(len(came) + len(gone)))
        assert self.account.produced == len(came) + len(gone)

    def numbers(self, stream: int = 0) -> list[int]:
        return [info.camera_number for info in self.infos if info.stream == stream]

    def missed(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for _, count, state, where in self.account.missed:
            found[state, where] += count
        return found


class Proxy:
    """Stands between a client and a real server, and may change what the server answers.

    Parameters
    ----------
    behind
        Port of the server.
    change
        Called with the frames of each answer; returns those to send, or None to send nothing any more.
    """

    def __init__(self, behind: int, change: Callable[[list[bytes]], list[bytes] | None]) -> None:
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self.port = self._front.bind_to_random_port("tcp://127.0.0.1")
        self._behind = behind
        self._change = change
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pellucid test proxy")
        self._thread.start()

    def _run(self) -> None:
        back = self._context.socket(zmq.REQ)
        back.linger = self._front.linger = 0
        back.connect(f"tcp://127.0.0.1:{self._behind}")
        while not self._over.is_set():
            if self._front.poll(20):
                who, empty, *asked = self._front.recv_multipart()
                back.send_multipart(asked)
                answer = self._change(back.recv_multipart())
                if answer is not None:
                    self._front.send_multipart([who, empty, *answer])
        back.close()
        self._front.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._context.term()


class Answering:
    """A ZeroMQ socket that says the same to everybody; None: nothing."""

    def __init__(self, answer: list[bytes] | None, kind: int = zmq.REP) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.linger = 0
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._answer = answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pellucid test answering")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            if self._answer is not None and self._socket.type == zmq.REP and self._socket.poll(0):
                self._socket.recv_multipart()
                self._socket.send_multipart(self._answer)
        self._socket.close()

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._context.term()


def hello(version: str) -> list[bytes]:
    return [json.dumps({"type": "none", "version": version}).encode()]
