"""Slots in one block of memory, private or shared with another process.

A block holds `slots` slots of one stream; a slot holds all its planes one after the other, each aligned to
4096 bytes so that a page belongs to one plane (a GPU's copy engine and the cache both like it).
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from multiprocessing import shared_memory
from typing import Any

import numpy as np

from pellucid.errors import WireError
from pellucid.protocols import Spec

__all__ = ["ALIGN", "HEADER", "SlotLayout", "SlotMemory"]

ALIGN = 4096
HEADER = ALIGN
"""Bytes before the first slot: the nonce by which a sender knows that it attached to the right block."""


class SlotLayout:
    """Where each plane lies.

    Parameters
    ----------
    planes
        Name to Spec, in order.
    slots
        How many slots follow each other.
    """

    def __init__(self, planes: Mapping[str, Spec], slots: int) -> None:
        self.planes = dict(planes)
        self.slots = slots
        self.offsets: dict[str, int] = {}
        at = 0
        for name, spec in self.planes.items():
            self.offsets[name] = at
            at += -(-spec.nbytes // ALIGN) * ALIGN
        self.stride = at
        self.nbytes = HEADER + at * slots

    def views(self, buffer: memoryview | np.ndarray[Any, Any], index: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the planes of slot `index` as arrays over `buffer`."""
        if not 0 <= index < self.slots:
            raise IndexError(f"slot {index} of {self.slots}")
        base = HEADER + index * self.stride
        return {
            name: np.ndarray(spec.shape, spec.dtype, buffer=buffer, offset=base + self.offsets[name])
            for name, spec in self.planes.items()
        }


class SlotMemory:
    """A block of slots.

    Use `create` on the receiver's side, `attach` on the sender's.

    Attributes
    ----------
    name : str
        By which another process on this computer attaches; empty for private memory.
    nonce : bytes
        16 random bytes at the start of a shared block.
    """

    def __init__(self, layout: SlotLayout, shared: shared_memory.SharedMemory | None, owner: bool) -> None:
        self.layout = layout
        self._shared = shared
        self._owner = owner
        self.buffer: np.ndarray[Any, Any] | None
        if shared is not None:
            self.buffer = np.ndarray((layout.nbytes,), np.uint8, buffer=shared.buf)
            self.name = shared.name
        else:
            spare = np.zeros(layout.nbytes + ALIGN, np.uint8)
            skip = -spare.ctypes.data % ALIGN
            self.buffer = spare[skip : skip + layout.nbytes]
            self.name = ""
        self.nonce = b""

    @classmethod
    def create(cls, layout: SlotLayout, *, shared: bool) -> SlotMemory:
        """Allocate a block and touch every page of it, so that no frame pays for the first touch."""
        block: shared_memory.SharedMemory | None = None
        if shared:
            try:
                block = shared_memory.SharedMemory(create=True, size=layout.nbytes)
            except OSError as error:
                raise WireError(
                    f"cannot get {layout.nbytes / 2**20:.0f} MiB of shared memory for {layout.slots} slots: {error}. "
                    "Use fewer slots: --set session.slots=8"
                ) from None
        memory = cls(layout, block, owner=True)
        assert memory.buffer is not None
        memory.buffer[:] = 0
        memory.nonce = secrets.token_bytes(16)
        memory.buffer[:16] = np.frombuffer(memory.nonce, np.uint8)
        return memory

    @classmethod
    def attach(cls, layout: SlotLayout, name: str, nonce: bytes) -> SlotMemory | None:
        """Open another process's block; None where it is not there or not the right one (another computer)."""
        try:
            block = _attach(name)
        except (OSError, ValueError):
            return None
        if block.size < layout.nbytes or bytes(block.buf[:16]) != nonce:
            block.close()
            return None
        memory = cls(layout, block, owner=False)
        memory.nonce = nonce
        return memory

    def views(self, index: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the planes of slot `index`."""
        assert self.buffer is not None
        return self.layout.views(self.buffer, index)

    def close(self) -> None:
        """Release the block; the owner also removes its name. Views must not be used afterwards."""
        self.buffer = None
        if self._shared is None:
            return
        if self._owner:
            self._shared.unlink()
        try:
            self._shared.close()
        except BufferError:
            # A view is still referenced somewhere: the mapping goes with the process. Keep the finaliser quiet.
            self._shared.close = lambda: None  # type: ignore[method-assign]
        self._shared = None


def _attach(name: str) -> shared_memory.SharedMemory:
    """Attach without becoming responsible for the block.

    Before Python 3.13 attaching registers the block with this process's resource tracker, which then
    removes it from under its owner when this process ends (cpython issue 82300).
    """
    if sys.version_info >= (3, 13):
        return shared_memory.SharedMemory(name=name, track=False)
    from multiprocessing import resource_tracker

    block = shared_memory.SharedMemory(name=name)
    if sys.platform != "win32":
        resource_tracker.unregister(block._name, "shared_memory")  # type: ignore[attr-defined]
    return block
