"""Where frames land: the receiver's slots, and who may write into which of them.

A slot is granted, spent by one frame, and granted again. A sender on this computer writes into it at any time
between, so a slot of a sender that fell silent is worth nothing until that sender is known not to write: it
said BYE, it said HELLO and did not name the slot among those it holds, or its process is dead. Until then the
slot is in quarantine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import psutil
import zmq

from pellucid.errors import WireError
from pellucid.wire.handshake import Feed, Place
from pellucid.wire.memory import SlotMemory
from pellucid.wire.message import BadMessage, FrameHead

__all__ = ["Landing", "Writer"]


class Writer:
    """A sender's process, as far as it can be seen from here.

    Parameters
    ----------
    uid
        Of the sender.
    pid, born
        As HELLO gives them; believed only if such a process runs on this computer now.

    Attributes
    ----------
    attached : bool
        It writes into this computer's memory.
    """

    def __init__(self, uid: str, pid: int, born: float) -> None:
        self.uid = uid
        self.attached = False
        self._process: Any = None
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - born) < 1.0:
                self._process = process
        except (psutil.Error, ValueError, OverflowError):
            pass

    @property
    def is_here(self) -> bool:
        """It runs on this computer, as far as that is known."""
        return self._process is not None

    @property
    def is_dead(self) -> bool:
        """Proven; False where it may live or cannot be seen (another computer, another container)."""
        if self._process is None:
            return False
        try:
            return not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


class Landing:
    """The slots of all feeds of a run.

    Parameters
    ----------
    feeds
        Of the sender.
    wanted
        Names of the planes to receive; a feed gives those of them that it has.
    memories
        One for each feed; its layout has at least these planes.

    Attributes
    ----------
    places : tuple of Place
        As WELCOME tells them.
    granted : set of (int, int)
        Feed and slot.
    released : list of (int, int)
        Slots that came back without a frame, to be taken (and granted anew) by the source.

    Raises
    ------
    WireError
        Where a memory does not fit its feed.
    """

    def __init__(self, feeds: Sequence[Feed], wanted: Sequence[str], memories: Sequence[SlotMemory]) -> None:
        if len(memories) != len(feeds):
            raise WireError(f"the sender has {len(feeds)} feeds and there is memory for {len(memories)}")
        self._names = [tuple(name for name in wanted if name in feed.planes) for feed in feeds]
        self._nbytes = [
            [feed.planes[name].nbytes for name in names] for feed, names in zip(feeds, self._names, strict=True)
        ]
        self._ready: list[dict[int, tuple[str, ...]]] = [{} for _ in feeds]
        self._flat: list[list[list[np.ndarray[Any, Any]]]] = []
        places = []
        for feed, names, memory in zip(feeds, self._names, memories, strict=True):
            layout = memory.layout
            for name in names:
                has, gets = layout.planes.get(name), feed.planes[name]
                if has is None or (has.shape, has.dtype) != (gets.shape, gets.dtype):
                    raise WireError(f'the sender\'s plane "{name}" is {gets}; the memory for it is {has}')
            offsets = {name: layout.offsets[name] for name in names}
            places.append(Place(memory.name, memory.nonce, layout.slots, layout.stride, offsets))
            slots = [memory.views(index) for index in range(layout.slots)]
            self._flat.append([[planes[name].reshape(-1).view(np.uint8) for name in names] for planes in slots])
        self.places = tuple(places)
        self.granted: set[tuple[int, int]] = set()
        self.released: list[tuple[int, int]] = []
        self._quarantine: dict[str, tuple[Writer, set[tuple[int, int]]]] = {}

    def check(self, head: FrameHead, parts: Sequence[zmq.Frame], attached: bool) -> tuple[str, ...]:
        """Return the names of the planes that a FRAME fills; changes nothing.

        Raises
        ------
        BadMessage
            Where the slot is not granted, or the pixels are not exactly as many as they must be.
        """
        if (head.feed, head.slot) not in self.granted:
            raise BadMessage("slot not granted")
        ready = self._ready[head.feed].get(head.mask)
        if ready is None:
            names = self._names[head.feed]
            if not 0 < head.mask < 1 << len(names):
                raise BadMessage("planes")
            ready = tuple(name for bit, name in enumerate(names) if head.mask >> bit & 1)
            self._ready[head.feed][head.mask] = ready
        if attached:
            if parts:
                raise BadMessage("parts")
        else:
            sizes = [n for bit, n in enumerate(self._nbytes[head.feed]) if head.mask >> bit & 1]
            if [len(part) for part in parts] != sizes:
                raise BadMessage("size of pixels")
        return ready

    def fill(self, head: FrameHead, parts: Sequence[zmq.Frame]) -> None:
        """Put a checked FRAME into its slot, which is no longer granted then."""
        self.granted.discard((head.feed, head.slot))
        if parts:
            flats = [f for bit, f in enumerate(self._flat[head.feed][head.slot]) if head.mask >> bit & 1]
            for flat, part in zip(flats, parts, strict=True):
                np.copyto(flat, np.frombuffer(part.buffer, np.uint8))

    def quarantine(self, writer: Writer) -> None:
        """Leave the slots of a sender that fell silent alone."""
        self._quarantine[writer.uid] = (writer, self.granted)
        self.granted = set()

    def resume(self, writer: Writer) -> None:
        """Give it its slots again: it spoke, in the same session."""
        _, slots = self._quarantine.pop(writer.uid, (writer, set()))
        self.granted |= slots

    def rejoin(self, uid: str, held: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return those of the slots it still holds that stay granted, after another HELLO; free the others."""
        _, slots = self._quarantine.pop(uid, (None, set()))
        slots |= self.granted
        self.granted = slots & set(held)
        self.released += slots - self.granted
        return tuple(sorted(self.granted))

    def replace(self, gone: Writer) -> None:
        """Put another sender in the place of one that is silent."""
        if self.granted:
            self.quarantine(gone)
        if not gone.attached:
            self.release(gone.uid)

    def hold(self, uid: str, held: Iterable[tuple[int, int]]) -> None:
        """Free what a sender whose place is taken does not hold any more, now that it spoke again."""
        if uid in self._quarantine:
            writer, slots = self._quarantine[uid]
            kept = slots & set(held)
            self.released += slots - kept
            self._quarantine[uid] = (writer, kept)

    def release(self, uid: str) -> None:
        """Free the slots of a sender that is known not to write any more."""
        self.released += self._quarantine.pop(uid, (None, set()))[1]

    def release_dead(self) -> None:
        """Look whether a process that keeps slots in quarantine has died."""
        for uid, (writer, _) in list(self._quarantine.items()):
            if writer.is_dead:
                self.release(uid)

    def free_all(self) -> None:
        """Free the slots of the sender that said BYE."""
        self.released += self.granted
        self.granted = set()

    @property
    def quarantined(self) -> int:
        """Slots that nobody may use now."""
        return sum(len(slots) for _, slots in self._quarantine.values())

    def close(self) -> None:
        """Let go of the memories."""
        self._flat = []
        self.granted = set()
