"""A session in small: a receiver, its ring and its ledger, pumped by the test."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.receiver import Arrival, Receiver
from pellucid.wire.sender import Feed, Sender

SHAPE = (24, 40)
SPEC = Spec(SHAPE, "uint16")
LONG_S = 30.0
"""Only reached where something is broken."""


def picture(seq: int, spec: Spec = SPEC) -> np.ndarray[Any, Any]:
    """Return pixels that tell the frame: no two of 65536 are alike."""
    count = int(np.prod(spec.shape))
    return ((np.arange(count) * 7 + seq) % 65536).astype(spec.dtype).reshape(spec.shape)


class Session:
    """What the runtime does with a receiver, without the runtime."""

    def __init__(
        self, endpoint: str = "tcp://127.0.0.1:*", slots: int = 4, shared: bool = True, **options: Any
    ) -> None:
        self.receiver = Receiver(endpoint, **{"heartbeat_s": 0.1, "timeout_s": 1.0} | options)
        self.ledger = Ledger()
        self.slots, self.shared = slots, shared
        self.memories: list[SlotMemory] = []
        self.at: list[int] = []
        self.turns = 0
        self.patient = True
        self.seen: list[FrameInfo] = []
        self.wrong: list[int] = []
        self.first = 0

    def welcome(self, timeout_s: float = LONG_S, grant: bool = True) -> None:
        hello = self.receiver.accept(timeout_s)
        assert hello is not None
        self.first = hello.next_seq
        for feed in hello.feeds:
            self.memories.append(SlotMemory.create(SlotLayout(feed.planes, self.slots), shared=self.shared))
        self.receiver.welcome(self.memories, self.ledger)
        self.at = list(range(len(hello.feeds)))
        if grant:
            for feed in range(len(hello.feeds)):
                self.lend(feed)

    def lend(self, feed: int) -> None:
        for index in range(self.slots):
            self.receiver.grant(feed, index)

    def turn(self) -> None:
        """Make memory for feeds that are new, as the session does; old memory goes when nobody reads it."""
        turn = self.receiver.turn
        assert turn is not None
        memories = [
            SlotMemory.create(SlotLayout(turn.hello.feeds[at].planes, self.slots), shared=self.shared)
            for at in turn.positions
        ]
        self.receiver.extend(memories)
        for at, memory in zip(turn.positions, memories, strict=True):
            if at < len(self.at):
                self.memories[self.at[at]].close()
            self.at[at : at + 1] = [len(self.memories)]
            self.memories.append(memory)
            self.lend(at)
        self.turns += 1

    def take(self, timeout_s: float = 0.05, grant: bool = True) -> Arrival | None:
        arrival = self.receiver.receive(timeout_s)
        if arrival is not None:
            assert arrival.info.stream == self.at[arrival.feed]
            got = self.memories[arrival.info.stream].views(arrival.index)["raw"]
            spec = Spec(got.shape, got.dtype.name)
            if not np.array_equal(got, picture(arrival.info.seq + self.first, spec)):
                self.wrong.append(arrival.info.seq)
            self.ledger.arrived(arrival.info, got.nbytes)
            self.ledger.ended(arrival.info, "processed")
            self.seen.append(arrival.info)
            if grant:
                self.receiver.grant(arrival.feed, arrival.index, arrival.info.seq, now_ns())
        for feed, index in self.receiver.released():
            self.receiver.grant(feed, index)
        if self.receiver.turn is not None and self.patient:
            self.turn()
        return arrival

    def until(self, done: Callable[[], Any], timeout_s: float = LONG_S, grant: bool = True) -> None:
        end = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < end, (self.receiver.state, len(self.seen), self.ledger.frames())
            self.take(0.02, grant)

    def to_the_end(self) -> None:
        self.until(lambda: self.receiver.state == "ended")

    def close(self) -> None:
        self.receiver.close()
        for memory in self.memories:
            memory.close()
        self.memories.clear()


class Pair:
    """Sender and receiver in this thread, so that a test decides who speaks when."""

    def __init__(self, session: Session, **options: Any) -> None:
        grant = options.pop("grant", True)
        spec = options.pop("spec", SPEC)
        feeds = options.pop("feeds", None) or [Feed(Stream(spec, camera="test"), {"raw": spec})]
        self.session = session
        endpoint = options.pop("endpoint", session.receiver.endpoint)
        self.sender = Sender(endpoint, feeds, **{"heartbeat_s": 0.1, "timeout_s": 1.0} | options)
        self.next = 0
        error: list[BaseException] = []

        def shake() -> None:
            try:
                self.sender.open(LONG_S)
            except BaseException as caught:
                error.append(caught)

        thread = threading.Thread(target=shake)
        thread.start()
        session.welcome(grant=grant)
        thread.join()
        if error:
            raise error[0]

    def both(self, done: Callable[[], Any], grant: bool = True) -> None:
        def either() -> bool:
            self.sender.poll(0)
            return bool(done())

        self.session.until(either, grant=grant)

    def fill(self, slot: Any) -> Any:
        slot.planes["raw"][...] = picture(self.next, slot.stream.spec)
        slot.info = FrameInfo(seq=self.next, camera_number=self.next + 1000, camera_ns=now_ns())
        self.next += 1
        return slot

    def slot(self, feed: int | None = None) -> Any:
        """Return a slot of any feed, or of one."""
        found: list[Any] = []
        take = self.sender.free if feed is None else (lambda: self.sender.rings[feed].take())
        self.both(lambda: found or found.extend(s for s in [take()] if s is not None))
        return found[0]

    def send(self, feed: int | None = None) -> bool:
        return self.sender.commit(self.fill(self.slot(feed)))

    def extend(self, *streams: Stream, wait: bool = True) -> Any:
        rings = self.sender.extend([Feed(stream, {"raw": stream.spec}) for stream in streams])
        if wait:
            self.both(lambda: self.sender.connected)
        return rings

    def close(self) -> bool:
        acked: list[bool] = []
        thread = threading.Thread(target=lambda: acked.append(self.sender.close(LONG_S)))
        thread.start()
        while thread.is_alive():
            self.session.take(0.01)
        thread.join()
        return acked[0]


class Camera:
    """`camera.py` in a process of its own."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("camera.py")), endpoint, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def result(self) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=LONG_S)
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
