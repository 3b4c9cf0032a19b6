"""A camera's process: ``python camera.py ENDPOINT OPTIONS`` sends frames and prints what became of them."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import Any

import numpy as np

from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Ring, Slot, Spec, Stream
from pellucid.wire.keys import Curve
from pellucid.wire.sender import Feed, Sender


class Counting:
    """A source of pictures that tell their number: live, or waiting for slots."""

    def __init__(self, spec: Spec, frames: int, live: bool, fps: float) -> None:
        self.spec, self.frames, self.live, self.fps = spec, frames, live, fps
        self.finished = False
        self.seq = 0
        self.free: deque[Slot] = deque()

    def open(self) -> tuple[Stream, ...]:
        return (Stream(self.spec, camera="counting", pixel_um=0.1),)

    def start(self, rings: tuple[Ring, ...], account: Account) -> None:
        self.account = account
        self.began = time.perf_counter()
        self.base = np.arange(int(np.prod(self.spec.shape))) * 7

    def offer(self, slot: Slot) -> None:
        self.free.append(slot)

    def read(self, timeout_s: float) -> Slot | None:
        if self.seq >= self.frames:
            self.finished = True
            return None
        if self.fps and time.perf_counter() < self.began + self.seq / self.fps:
            time.sleep(min(timeout_s, 0.5 / self.fps))
            return None
        if not self.free:
            if self.live:
                self.account.missing(self.seq, 1, "dropped", "ring")
                self.seq += 1
            else:
                time.sleep(0.001)
            return None
        slot = self.free.popleft()
        slot.info = FrameInfo(seq=self.seq, camera_number=self.seq + 1000, camera_ns=now_ns())
        slot.planes["raw"][...] = ((self.base + self.seq) % 65536).reshape(self.spec.shape)
        self.seq += 1
        return slot


def main(endpoint: str, options: dict[str, Any]) -> None:
    spec = Spec(tuple(options.get("shape", (24, 40))), options.get("dtype", "uint16"))
    source = Counting(spec, options.get("frames", 100), options.get("live", False), options.get("fps", 0.0))
    keys = options.get("keys")
    sender = Sender(
        endpoint,
        [Feed(s, {"raw": s.spec}) for s in source.open()],
        mode=options.get("mode", "live"),
        curve=Curve(*keys) if keys else None,
        shared=options.get("shared", True),
        name="camera",
        heartbeat_s=0.1,
        timeout_s=options.get("timeout_s", 1.0),
    )
    sender.open(20.0)
    source.start(sender.rings, sender)
    while not (source.finished or sender.stop_requested):
        while (slot := sender.free()) is not None:
            source.offer(slot)
        slot = source.read(0.01)
        if slot is not None:
            sender.commit(slot)
        sender.poll(0)
    acked = sender.close(20.0)
    found = {"acked": acked, "produced": sender.produced, "sent": sender.sent, "dropped": sender.dropped}
    print(json.dumps(found | {"attached": sender.attached, "ignored": dict(sender.ignored)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
