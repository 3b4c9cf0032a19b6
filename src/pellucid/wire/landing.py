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
from pellucid.wire.codec import is_packed, unpack
from pellucid.wire.feed import Feed
from pellucid.wire.handshake import Place
from pellucid.wire.memory import SlotMemory
from pellucid.wire.message import BadMessage, FrameHead

__all__ = ["Landing", "Strip", "Writer"]


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


class Strip:
    """Where the frames of one feed land: its slots in one memory.

    Parameters
    ----------
    feed
        Of the sender.
    wanted
        Names of the planes to receive, as far as the feed has them.
    memory
        Its layout has at least these planes.

    Attributes
    ----------
    place : Place
        As WELCOME tells it.

    Raises
    ------
    WireError
        Where the memory does not fit the feed.
    """

    def __init__(self, feed: Feed, wanted: Sequence[str], memory: SlotMemory) -> None:
        self._names = tuple(name for name in wanted if name in feed.planes)
        self._nbytes = [feed.planes[name].nbytes for name in self._names]
        self._ready: dict[int, tuple[str, ...]] = {}
        layout = memory.layout
        for name in self._names:
            has, gets = layout.planes.get(name), feed.planes[name]
            if has is None or (has.shape, has.dtype) != (gets.shape, gets.dtype):
                raise WireError(f'the sender\'s plane "{name}" is {gets}; the memory for it is {has}')
        offsets = {name: layout.offsets[name] for name in self._names}
        self.place = Place(memory.name, memory.nonce, layout.slots, layout.stride, offsets)
        slots = [memory.views(index) for index in range(layout.slots)]
        self._flat: list[list[np.ndarray[Any, Any]]] = [
            [planes[name].reshape(-1).view(np.uint8) for name in self._names] for planes in slots
        ]

    def names(self, mask: int) -> tuple[str, ...]:
        """Return the planes that a FRAME's mask stands for. Hot."""
        ready = self._ready.get(mask)
        if ready is None:
            if not 0 < mask < 1 << len(self._names):
                raise BadMessage("planes")
            ready = tuple(name for bit, name in enumerate(self._names) if mask >> bit & 1)
            self._ready[mask] = ready
        return ready

    def check(self, mask: int, parts: Sequence[zmq.Frame], codec: str) -> None:
        """Raise `BadMessage` where the pixels are not exactly as many as they must be."""
        sizes = [n for bit, n in enumerate(self._nbytes) if mask >> bit & 1]
        if codec:
            fits = len(parts) == len(sizes) and all(map(is_packed, (part.buffer for part in parts), sizes))
        else:
            fits = [len(part) for part in parts] == sizes
        if not fits:
            raise BadMessage("size of pixels")

    def fill(self, slot: int, mask: int, parts: Sequence[zmq.Frame], codec: str) -> None:
        """Put checked pixels into a slot; raises `BadMessage` where they are damaged."""
        flats = [flat for bit, flat in enumerate(self._flat[slot]) if mask >> bit & 1]
        for flat, part in zip(flats, parts, strict=True):
            if codec:
                unpack(part.buffer, flat)
            else:
                np.copyto(flat, np.frombuffer(part.buffer, np.uint8))


class Landing:
    """The slots of all feeds of a run.

    Parameters
    ----------
    feeds
        Of the sender.
    wanted
        Names of the planes to receive; a feed gives those of them that it has.
    memories
        One for each feed.

    Attributes
    ----------
    strips : list of Strip
        By position of the feed.
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
        self._wanted = tuple(wanted)
        self.strips = [Strip(feed, wanted, memory) for feed, memory in zip(feeds, memories, strict=True)]
        self.granted: set[tuple[int, int]] = set()
        self.released: list[tuple[int, int]] = []
        self._quarantine: dict[str, tuple[Writer, set[tuple[int, int]]]] = {}

    @property
    def places(self) -> tuple[Place, ...]:
        """As WELCOME tells them."""
        return tuple(strip.place for strip in self.strips)

    def turn(self, position: int, feed: Feed, memory: SlotMemory) -> None:
        """Let a feed land at a position from now on, which is the next one or another feed's.

        Slots of the other one are nobody's any more: its camera's side had let go of them when it said HELLO, and
        whoever else may still write there does so into memory that the ring's owner has left.

        Raises
        ------
        WireError
            Where the memory does not fit; nothing has changed then.
        """
        strip = Strip(feed, self._wanted, memory)
        if position == len(self.strips):
            self.strips.append(strip)
            return
        self.strips[position] = strip
        self.void(position)

    def void(self, position: int) -> None:
        """Forget all slots of a feed."""
        self.granted = {pair for pair in self.granted if pair[0] != position}
        self.released = [pair for pair in self.released if pair[0] != position]
        for uid, (writer, slots) in self._quarantine.items():
            self._quarantine[uid] = (writer, {pair for pair in slots if pair[0] != position})

    def check(
        self, head: FrameHead, parts: Sequence[zmq.Frame], uid: str, attached: bool, codec: str
    ) -> tuple[str, ...]:
        """Return the names of the planes that a FRAME of sender `uid` fills; changes nothing.

        A sender that was held for gone may speak again with a frame: its slots are its own as long as they are in
        quarantine. To refuse it would lose the frame, and with it the slot, for which nothing would be granted again.

        Raises
        ------
        BadMessage
            Where the slot is not granted, or the pixels are not exactly as many as they must be.
        """
        pair = head.feed, head.slot
        if pair not in self.granted and pair not in self._quarantine.get(uid, (None, ()))[1]:
            raise BadMessage("slot not granted")
        strip = self.strips[head.feed]
        ready = strip.names(head.mask)
        if not attached:
            strip.check(head.mask, parts, codec)
        elif parts:
            raise BadMessage("parts")
        return ready

    def fill(self, head: FrameHead, parts: Sequence[zmq.Frame], codec: str) -> None:
        """Put a checked FRAME into its slot, which is no longer granted then.

        Raises
        ------
        BadMessage
            Where packed pixels are damaged; the slot came back without a frame.
        """
        self.granted.discard((head.feed, head.slot))
        if parts:
            try:
                self.strips[head.feed].fill(head.slot, head.mask, parts, codec)
            except BadMessage:
                self.released.append((head.feed, head.slot))
                raise

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
        self.strips = []
        self.granted = set()
