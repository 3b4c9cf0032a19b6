"""The camera's process of the transport benchmarks: the same frames through the ring, or through plain pyzmq."""

from __future__ import annotations

import json
import struct
import sys
import time
from typing import Any

import numpy as np
import zmq

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.wire.copier import Copier
from pellucid.wire.keys import Curve
from pellucid.wire.sender import Feed, Sender

FRAMES_IN_TURN = 4
PHOTONS = 100


def _wait_for_turn(i: int, began_ns: int, fps: float) -> None:
    if fps:
        due = began_ns + round(i * 1e9 / fps)
        while (left := due - now_ns()) > 0:
            time.sleep(left * 1e-9)


def ring(endpoint: str, frames: list[np.ndarray], count: int, fps: float, way: dict[str, Any]) -> None:
    """Send through our wire, waiting for room: through shared memory, or as `way` says."""
    spec = Spec(frames[0].shape, str(frames[0].dtype))
    curve = Curve(*way["keys"]) if "keys" in way else None
    sender = Sender(
        endpoint,
        [Feed(Stream(spec), {"raw": spec})],
        mode="lossless",
        shared=not way.get("in_band", False),
        compress=way.get("compress", ""),
        curve=curve,
    )
    sender.open(30)
    copier = Copier()
    copier.open()
    began = now_ns()
    for i in range(count):
        _wait_for_turn(i, began, fps)
        while (slot := sender.free()) is None:
            sender.poll(0.05)
        begun = now_ns()
        copier.copy(slot.planes["raw"], frames[i % FRAMES_IN_TURN])
        slot.info = FrameInfo(i, camera_number=i, camera_ns=begun, received_ns=begun)
        sender.commit(slot)
        sender.poll(0)
    sender.close()
    copier.close()


def plain(endpoint: str, frames: list[np.ndarray], count: int, fps: float) -> None:
    """Send through PUSH over tcp with copy=False."""
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.sndhwm = 4
    socket.connect(endpoint)
    began = now_ns()
    for i in range(count):
        _wait_for_turn(i, began, fps)
        socket.send(struct.pack("<q", now_ns()), zmq.SNDMORE)
        socket.send(zmq.Frame(frames[i % FRAMES_IN_TURN].data, copy=False))
    socket.close(5000)
    context.term()


def main() -> None:
    """``KIND ENDPOINT SIDE COUNT FPS [WAY]``."""
    kind, endpoint, side, count, fps, *way = sys.argv[1:]
    rng, shape = np.random.default_rng(0), (int(side), int(side))
    if way:
        # What a camera gives in a dim field: photon noise, an offset, two counts for a photon.
        frames = [(rng.poisson(PHOTONS, shape) * 2 + 100).astype(np.uint16) for _ in range(FRAMES_IN_TURN)]
    else:
        frames = [rng.integers(0, 4096, shape).astype(np.uint16) for _ in range(FRAMES_IN_TURN)]
    if kind == "ring":
        ring(endpoint, frames, int(count), float(fps), json.loads(way[0]) if way else {})
    else:
        plain(endpoint, frames, int(count), float(fps))


if __name__ == "__main__":
    main()
