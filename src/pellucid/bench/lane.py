"""A ring and a chain, bound as a session binds them, without a source and without sinks: what a frame itself costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.optics import specimen
from pellucid.protocols import RAW, FrameInfo, Slot, Stage, Stream
from pellucid.runtime.chain import Chain
from pellucid.runtime.ring import SlotRing

__all__ = ["Lane", "captured", "noisy_frames", "synchronize"]

Image = np.ndarray[Any, Any]


def synchronize(device: str) -> None:
    """Wait for all that was enqueued."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def noisy_frames(side: int, count: int) -> list[Image]:
    """Return frames of a simulated specimen, uint16 ``(side, side)``."""
    rng = np.random.default_rng(0)
    frame = specimen.expose(specimen.draw((side, side), rng), specimen.thin_psf(65), rng)
    return [np.roll(frame, 7 * i, axis=1).astype(np.uint16) for i in range(count)]


def captured(call: Callable[[], None], device: str, *, captures: bool) -> Callable[[], None]:
    """Return what repeats a call: on a GPU as one CUDA graph, where it can be captured."""
    with torch.inference_mode():
        for _ in range(3):
            call()
    synchronize(device)
    if not (captures and device.startswith("cuda")):
        return call
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        call()
    replay: Callable[[], None] = graph.replay
    return replay


class Lane:
    """Frames in host memory through stages on a device, and back into host memory.

    Parameters
    ----------
    stages
        By their names, in order.
    stream
    device
        ``"cpu"`` or ``"cuda:0"``.
    slots
        So many frames can be in flight.
    """

    def __init__(self, stages: Mapping[str, Stage], stream: Stream, device: str, slots: int = 6) -> None:
        self.chain = Chain(stages, stream, device)
        outputs = self.chain.open()
        try:
            self.ring = SlotRing(
                stream,
                {RAW: stream.spec} | outputs,
                slots,
                shared=True,
                pinned=device.startswith("cuda"),
                on_free=Ledger().finish,
            )
            self.chain.bind(self.ring.slots, tuple(outputs))
        except BaseException:
            self.chain.close()
            raise

    @property
    def slots(self) -> Sequence[Slot]:
        """The memory of the frames."""
        return self.ring.slots

    def fill(self, index: int, image: Image, seq: int | None = None) -> Slot:
        """Put a frame into a slot, as a source does."""
        slot = self.ring.slots[index]
        slot.planes[RAW][...] = image
        slot.info = FrameInfo(index if seq is None else seq, camera_ns=now_ns())
        return slot

    def one_ms(self, index: int = 0) -> float:
        """Return the time from a frame in host memory to its result in host memory, nothing else in flight."""
        slot = self.ring.slots[index]
        before = now_ns()
        self.chain.submit(slot)
        self.chain.finish(slot)
        return (now_ns() - before) * 1e-6

    def frames_per_s(self, count: int, depth: int = 4) -> float:
        """Return the rate with several in flight, transfers included."""
        slots = self.ring.slots
        began = now_ns()
        for i in range(count):
            if i >= depth:
                self.chain.finish(slots[(i - depth) % len(slots)])
            self.chain.submit(slots[i % len(slots)])
        for i in range(max(count - depth, 0), count):
            self.chain.finish(slots[i % len(slots)])
        return count / ((now_ns() - began) * 1e-9)

    def paced_ms(self, fps: float, count: int) -> Image:
        """Return the times from each frame's due time to its result, frames coming at a rate; in ms."""
        slots, period = self.ring.slots, 1 / fps
        took = np.empty(count)
        began = time.perf_counter()
        for i in range(count):
            due = began + i * period
            while (left := due - time.perf_counter()) > 0:
                if left > 0.002:
                    time.sleep(left - 0.001)  # a sleep is a millisecond late now and then; the rest is waited awake
            slot = slots[i % len(slots)]
            self.chain.submit(slot)
            self.chain.finish(slot)
            took[i] = time.perf_counter() - due
        return took * 1e3

    def close(self) -> None:
        """Give it all back."""
        self.chain.close()
        self.ring.close()
