"""The only frame memory of a session: slots, allocated once, filled and emptied until the run ends.

A slot holds all planes of one frame: the raw one, which the source fills, and those that the stages make
and a sink wants. Nothing else in a session owns pixels. Where the frames come from another process of the
same computer the block is shared memory, so the camera's side writes its pixels straight into the slot and
the next to touch them is a stage (or, on a GPU, the copy engine: the block is page-locked then).

A slot has *holders*: the session while it decides, and every branch (recorder, chain, window) that still
needs it. The last one to let go puts it on the free list; the loop takes it from there and offers it to the
source again. That is the whole flow control of a session: when sinks are slow, slots come back late, the
source finds none, and drops (and says so) or waits, as is its way. No queue can grow, because everything
that can be queued is a slot.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.wire.memory import SlotLayout, SlotMemory

__all__ = ["SlotRing"]


class SlotRing:
    """Slots of one stream.

    Parameters
    ----------
    stream
    planes
        Name to Spec, ``raw`` first; host memory.
    slots
        How many.
    shared
        In shared memory, for a source in another process.
    pinned
        Page-lock the memory for a CUDA device.
    on_free
        Called with the info of a frame whose last holder let go, in that holder's thread.
    """

    def __init__(
        self,
        stream: Stream,
        planes: Mapping[str, Spec],
        slots: int,
        *,
        shared: bool,
        pinned: bool,
        on_free: Callable[[FrameInfo], None],
    ) -> None:
        self.memory = SlotMemory.create(SlotLayout(planes, slots), shared=shared)
        self.slots: Sequence[Slot] = [Slot(i, stream, self.memory.views(i)) for i in range(slots)]
        self._free: deque[Slot] = deque(self.slots)
        self._lock = threading.Lock()
        self._freed = threading.Event()
        self._on_free = on_free
        self._pinned = pinned
        if pinned:
            self._pin()

    def take(self) -> Slot | None:
        """Return a free slot, or None; the one that was used last, which may still be in a cache."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def wait(self, timeout_s: float) -> None:
        """Wait until a slot is free, at most so long."""
        self._freed.clear()
        if not self._free:
            self._freed.wait(timeout_s)

    @property
    def idle(self) -> bool:
        """Nobody holds a slot: all are free, or lent to a source that has forgotten them."""
        return not any(slot.holders for slot in self.slots)

    def hold(self, slot: Slot, holders: int = 1) -> None:
        """Add holders."""
        with self._lock:
            slot.holders += holders

    def release(self, slot: Slot) -> None:
        """Let go of a slot; the last holder frees it."""
        with self._lock:
            slot.holders -= 1
            last = slot.holders == 0
        if last:
            self._on_free(slot.info)
            self._free.append(slot)
            self._freed.set()

    def close(self, *, stuck: bool = False) -> None:
        """Give the memory back.

        Parameters
        ----------
        stuck
            Somebody still reads a slot: its pages stay mapped until the process ends.
        """
        if self._pinned:
            import torch

            assert self.memory.buffer is not None
            for device in range(torch.cuda.device_count()):
                torch.cuda.synchronize(device)
            torch.cuda.cudart().cudaHostUnregister(self.memory.buffer.ctypes.data)
            self._pinned = False
        if not stuck:
            for slot in self.slots:
                slot.planes = {}
            self.slots = []
        self._free.clear()
        self.memory.close()

    def _pin(self) -> None:
        import torch

        assert self.memory.buffer is not None
        buffer = self.memory.buffer
        code = torch.cuda.cudart().cudaHostRegister(buffer.ctypes.data, buffer.nbytes, 0)
        if int(code) != 0:
            self._pinned = False
            raise MemoryError(f"CUDA cannot page-lock {buffer.nbytes / 2**20:.0f} MiB for the ring (error {int(code)})")
