"""Slots in one block of memory, private or shared with another process.

A block holds `slots` slots of one stream; a slot holds all its planes one after the other, each aligned to
4096 bytes so that a page belongs to one plane (a GPU's copy engine and the cache both like it).
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
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

    @classmethod
    def told(cls, planes: Mapping[str, Spec], offsets: Mapping[str, int], stride: int, slots: int) -> SlotLayout:
        """Return another process's layout, of which only some planes are known here.

        Parameters
        ----------
        planes
            Name to Spec of the known ones.
        offsets
            Bytes from the start of a slot, for each of `planes`.
        stride
            Bytes from one slot to the next.

        Raises
        ------
        ValueError
            Where a plane would reach out of its slot.
        """
        for name, spec in planes.items():
            if not 0 <= offsets[name] <= stride - spec.nbytes:
                raise ValueError(f"plane {name} of {spec.nbytes} bytes at {offsets[name]} in a slot of {stride}")
        layout = cls({}, 0)
        layout.planes, layout.offsets = dict(planes), dict(offsets)
        layout.stride, layout.slots = stride, slots
        layout.nbytes = HEADER + stride * slots
        return layout

    def views(self, buffer: memoryview | np.ndarray[Any, Any], index: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the planes of slot `index` as arrays over `buffer`."""
        if not 0 <= index < self.slots:
            raise IndexError(f"slot {index} of {self.slots}")
        base = HEADER + index * self.stride
        return {
            name: np.ndarray(spec.shape, spec.dtype, buffer=buffer, offset=base + self.offsets[name])
            for name, spec in self.planes.items()
        }


class _Block(shared_memory.SharedMemory):
    """Shared memory that can be closed while views of it live: the mapping then goes with the last of them."""

    def close(self) -> None:
        try:
            super().close()
        except BufferError:
            # The mapping does not need the file any more (Windows has none).
            descriptor, self._fd = getattr(self, "_fd", -1), -1
            if descriptor >= 0:
                os.close(descriptor)


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

    def __init__(self, layout: SlotLayout, shared: _Block | None, owner: bool) -> None:
        self.layout = layout
        self._shared = shared
        self._owner = owner
        self.buffer: np.ndarray[Any, Any] | None
        if shared is not None:
            assert shared.buf is not None
            # frombuffer holds on to the mapping as long as a view lives; np.ndarray(buffer=...) would not, and
            # a view used after `close` would end the process.
            self.buffer = np.frombuffer(shared.buf, np.uint8, layout.nbytes)
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
        block: _Block | None = None
        if shared:
            try:
                block = _Block(create=True, size=layout.nbytes)
                if hasattr(os, "posix_fallocate"):
                    # Else a small /dev/shm would be noticed at the first touch, which ends the process.
                    os.posix_fallocate(block._fd, 0, layout.nbytes)
            except OSError as error:
                if block is not None:
                    block.close()
                    block.unlink()
                raise WireError(
                    f"cannot get {layout.nbytes / 2**20:.0f} MiB of shared memory for {layout.slots} slots: {error}. "
                    "Use fewer slots: --set session.slots=8"
                ) from None
        try:
            memory = cls(layout, block, owner=True)
        except MemoryError:
            raise WireError(
                f"cannot get {layout.nbytes / 2**20:.0f} MiB of memory for {layout.slots} slots. "
                "Use fewer slots: --set session.slots=8"
            ) from None
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
        assert block.buf is not None
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
        self._shared.close()
        self._shared = None


_ATTACHING = threading.Lock()


def _attach(name: str) -> _Block:
    """Attach without becoming responsible for the block.

    Before Python 3.13 attaching registers the block with this process's resource tracker, which then
    removes it from under its owner when this process ends (cpython issue 82300). To unregister afterwards
    would strike out the owner's own entry where owner and guest share a process or a tracker, so the entry
    is never made: the tracker's ``register`` is passed over for this thread and this call only.
    """
    if sys.version_info >= (3, 13):
        return _Block(name=name, track=False)
    if sys.platform == "win32":
        return _Block(name=name)
    from multiprocessing import resource_tracker

    with _ATTACHING:
        register, me = resource_tracker.register, threading.get_ident()

        def elsewhere(name: str, rtype: str) -> None:
            if threading.get_ident() != me:
                register(name, rtype)

        resource_tracker.register = elsewhere  # type: ignore[assignment]
        try:
            return _Block(name=name)
        finally:
            resource_tracker.register = register
