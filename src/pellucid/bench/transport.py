"""The wire against plain pyzmq, and the whole path against the wire: same frames, two processes.

Every figure is a median over rounds in which the candidates take turns. Rates run as fast as they can;
latencies are taken at 50 frames/s, where every thread on the way has gone to sleep in between, and for the ring
at full rate as well: from the moment at which the frame is complete in its slot until the receiver has it, and
from that at which the sender begins to copy it there (with plain pyzmq: at which it is handed to the socket).
"""

from __future__ import annotations

import json
import statistics
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zmq

from pellucid.bench.camera import PHOTONS
from pellucid.config import Config
from pellucid.ledger import Ledger
from pellucid.live import make_session
from pellucid.metrics import now_ns
from pellucid.terminal import say
from pellucid.wire.codec import EXTRA, can_unpack, pack
from pellucid.wire.keys import Curve
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.receiver import Receiver

__all__ = ["measure_path", "measure_remote", "measure_wire"]

_SLOTS = 8
_PACED_FPS = 50.0

Round = dict[str, float]


@contextmanager
def _camera(
    kind: str, endpoint: str, side: int, frames: int, fps: float, way: dict[str, Any] | None = None
) -> Iterator[None]:
    command = [sys.executable, "-m", "pellucid.bench.camera", kind, endpoint, str(side), str(frames), str(fps)]
    if way is not None:
        command.append(json.dumps(way))
    process = subprocess.Popen(command)
    try:
        yield
        process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _ours(side: int, frames: int, fps: float, way: dict[str, Any] | None = None, curve: Curve | None = None) -> Round:
    receiver = Receiver("tcp://127.0.0.1:*", curve=curve)
    in_band = way is not None and way.get("in_band", False)
    try:
        with _camera("ring", receiver.endpoint, side, frames, fps, way):
            hello = receiver.accept(30)
            assert hello is not None
            memory = SlotMemory.create(SlotLayout(hello.feeds[0].planes, _SLOTS), shared=True)
            ledger = Ledger()
            receiver.welcome([memory], ledger)
            for index in range(_SLOTS):
                receiver.grant(0, index)
            since_begun: list[float] = []
            since_complete: list[float] = []
            arrived: list[int] = []
            while receiver.state == "connected":
                arrival = receiver.receive(1.0)
                if arrival is None:
                    continue
                now = now_ns()
                arrived.append(now)
                since_begun.append((now - arrival.info.camera_ns) * 1e-6)
                since_complete.append((now - arrival.info.sent_ns) * 1e-6)
                receiver.grant(0, arrival.index)
            assert receiver.attached != in_band, "the pixels did not go the way that was to be measured"
            assert len(arrived) == frames, (len(arrived), frames)
            memory.close()
    finally:
        receiver.close()
    return _figures(arrived, side, since_begun) | {"since_complete_ms": statistics.median(since_complete)}


def _plain(side: int, frames: int, fps: float) -> Round:
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = 4
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    since_begun: list[float] = []
    arrived: list[int] = []
    try:
        with _camera("plain", f"tcp://127.0.0.1:{port}", side, frames, fps):
            for _ in range(frames):
                stamp, pixels = socket.recv_multipart(copy=False)
                now = now_ns()
                arrived.append(now)
                since_begun.append((now - struct.unpack("<q", stamp.buffer)[0]) * 1e-6)
                assert len(pixels.buffer) == side * side * 2
    finally:
        socket.close(0)
        context.term()
    return _figures(arrived, side, since_begun)


def _session(side: int, frames: int, fps: float) -> Round:
    config = Config.parse(
        f'source = {{ kind = "wire", bind = "tcp://127.0.0.1:*" }}\nsinks = [{{ kind = "null" }}]\n'
        f"session = {{ slots = {_SLOTS} }}"
    )
    endpoint: str = config.source.listen()  # type: ignore[attr-defined]
    session = make_session(config)
    with _camera("ring", endpoint, side, frames, fps):
        session.open()
        try:
            report = session.run()
        finally:
            session.close()
    assert report["frames"]["received"] == frames, report["frames"]
    assert report["frames"]["unaccounted"] == 0
    rate = report["throughput"]["frames_per_s"]
    return {
        "frames_per_s": rate,
        "gigabytes_per_s": rate * side * side * 2e-9,
        "p50_ms": report["latency_ms"]["received"]["p50"],
    }


def _figures(arrived: list[int], side: int, since_begun: list[float]) -> Round:
    # The first frames fill empty slots or sockets and warm caches; the rate is of the rest.
    start = len(arrived) // 5
    rate = (len(arrived) - 1 - start) / ((arrived[-1] - arrived[start]) * 1e-9)
    return {
        "frames_per_s": rate,
        "gigabytes_per_s": rate * side * side * 2e-9,
        "p50_ms": statistics.median(since_begun),
    }


def _rounds(ways: dict[str, Callable[[], Round]], rounds: int) -> dict[str, Round]:
    """Let the ways take turns and return each one's medians."""
    seen: dict[str, list[Round]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seen[name].append(way())
    return {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in seen.items()}


def measure_wire(side: int, quick: bool) -> dict[str, Any]:
    """Compare the shared-memory ring with PUSH/PULL over tcp, uint16 frames of side x side."""
    frames = (300 if side > 1024 else 3000) // (3 if quick else 1)
    rounds = 1 if quick else 3
    full = _rounds({"ring": lambda: _ours(side, frames, 0), "plain": lambda: _plain(side, frames, 0)}, rounds)
    paced = 50 if quick else 150
    slow = _rounds(
        {"ring": lambda: _ours(side, paced, _PACED_FPS), "plain": lambda: _plain(side, paced, _PACED_FPS)}, rounds
    )
    return {
        "frames": f"{side}x{side} uint16",
        "ring_GB_per_s": full["ring"]["gigabytes_per_s"],
        "pyzmq_GB_per_s": full["plain"]["gigabytes_per_s"],
        "ratio": full["ring"]["frames_per_s"] / full["plain"]["frames_per_s"],
        "ring_frames_per_s": full["ring"]["frames_per_s"],
        "ring_p50_ms_at_full_rate": full["ring"]["since_complete_ms"],
        "ring_p50_ms_at_50_fps": slow["ring"]["since_complete_ms"],
        "ring_p50_ms_at_50_fps_with_copy": slow["ring"]["p50_ms"],
        "pyzmq_p50_ms_at_50_fps": slow["plain"]["p50_ms"],
    }


def measure_remote(side: int, quick: bool) -> list[dict[str, Any]]:
    """Give the rate of each way that pixels can go to another computer, here over this one's loopback.

    Poisson noise of 100 photons, uint16, frames of side x side; MB/s are of unpacked pixels. A link between two
    computers bounds what goes in band as well: packed pixels are `packed_to` of their size on it.
    """
    server, client = (tuple(key.decode() for key in zmq.curve_keypair()) for _ in range(2))
    curve = Curve(server[0], server[1], allowed=(client[0],))
    keys = [*client, server[0]]
    ways: dict[str, dict[str, Any]] = {
        "shared memory": {},
        "in band": {"in_band": True},
        "lz4": {"in_band": True, "compress": "lz4"},
        "zstd": {"in_band": True, "compress": "zstd"},
        "keys": {"in_band": True, "keys": keys},
        "keys, lz4": {"in_band": True, "keys": keys, "compress": "lz4"},
        "keys, zstd": {"in_band": True, "keys": keys, "compress": "zstd"},
    }
    if not can_unpack("lz4"):
        say(f'packed pixels: not measured. Type: pip install "pellucid[{EXTRA}]"')
        ways = {name: way for name, way in ways.items() if "compress" not in way}
    plane = (np.random.default_rng(0).poisson(PHOTONS, (side, side)) * 2 + 100).astype(np.uint16)
    frames = (150 if side > 1024 else 2000) // (3 if quick else 1)

    def measured(way: dict[str, Any]) -> Callable[[], Round]:
        return lambda: _ours(side, frames, 0, way, curve if "keys" in way else None)

    got = _rounds({name: measured(way) for name, way in ways.items()}, 1 if quick else 3)
    return [
        {
            "way": name,
            "side": side,
            "MB_per_s": got[name]["gigabytes_per_s"] * 1e3,
            "frames_per_s": got[name]["frames_per_s"],
            "packed_to": len(pack(plane, way["compress"])) / plane.nbytes if "compress" in way else 1.0,
        }
        for name, way in ways.items()
    ]


def measure_path(side: int, quick: bool) -> dict[str, Any]:
    """Compare send -> session -> null sink, without stages, with the wire alone."""
    frames = (300 if side > 1024 else 3000) // (3 if quick else 1)
    got = _rounds(
        {"wire": lambda: _ours(side, frames, 0), "path": lambda: _session(side, frames, 0)}, 1 if quick else 3
    )
    return {
        "frames": f"{side}x{side} uint16",
        "path_frames_per_s": got["path"]["frames_per_s"],
        "wire_frames_per_s": got["wire"]["frames_per_s"],
        "ratio": got["path"]["frames_per_s"] / got["wire"]["frames_per_s"],
        # At full speed the session's thread is never idle, so the interval bounds what Python costs a frame.
        "ms_per_frame": 1e3 / got["path"]["frames_per_s"],
    }
