"""The sender's slots: each, while it has a grant, stands for one slot of the receiver's ring.

Where memory is shared, ``slot.planes`` are views of the receiver's slot, so the camera's side copies the
pixels once, to where they stay. Else they are memory of this process and a grant is only a permission.
A slot that the source holds while the receiver goes away keeps its planes: it can be filled at any time, it
only has no grant any more, and its pixels are copied if it finds another one.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from pellucid.protocols import Slot
from pellucid.wire.handshake import Feed, Place
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.message import BadMessage

__all__ = ["Berth", "Berths"]

NO_GRANT = -1


class Berth(Slot):
    """A slot of the sender.

    Attributes
    ----------
    feed : int
        Position of its feed.
    grant : int
        Slot of the receiver's ring that it stands for, -1 for none.
    out : bool
        The source has it.
    tracker : zmq.MessageTracker or None
        Of its pixels on their way, where they go in band.
    """

    __slots__ = ("feed", "grant", "out", "tracker")

    def __init__(self, index: int, feed: int, of: Feed, planes: dict[str, np.ndarray[Any, Any]]) -> None:
        super().__init__(index, of.stream, planes)
        self.feed = feed
        self.grant = NO_GRANT
        self.out = False
        self.tracker: Any = None


class Berths:
    """The slots of one feed; what a source sees as a ring.

    Attributes
    ----------
    slots : list of Berth
    memory : SlotMemory or None
        Where new frames lie now: the receiver's block, or private memory.
    names : tuple of str
        Planes that the receiver wants, in the order of FRAME's mask.
    attached : bool
        `memory` is the receiver's.
    """

    def __init__(self, number: int, feed: Feed) -> None:
        self.slots: list[Berth] = []
        self.memory: SlotMemory | None = None
        self.names: tuple[str, ...] = ()
        self.attached = False
        self._number, self._feed = number, feed
        self._private: SlotMemory | None = None
        self._retired: list[SlotMemory] = []
        self._views: list[dict[str, np.ndarray[Any, Any]]] = []
        self._idle: deque[Berth] = deque()
        self._grants: deque[int] = deque()  # not lent to a slot
        self._held: set[int] = set()  # these, and those that are
        self._places = 0

    def place(self, place: Place, shared: bool) -> None:
        """Use another receiver's slots from now on; all grants are void.

        Raises
        ------
        BadMessage
            Where the place does not fit the feed.
        """
        if not set(place.offsets) <= set(self._feed.planes):
            raise BadMessage("planes")
        planes = {name: self._feed.planes[name] for name in place.offsets}
        try:
            layout = SlotLayout.told(planes, place.offsets, place.stride, place.slots)
        except ValueError:
            raise BadMessage("offsets") from None
        self.names, self._places = tuple(planes), place.slots
        self._grants.clear()
        self._held.clear()
        for slot in self.slots:
            slot.grant = NO_GRANT
        if self.memory is not None and self.memory is not self._private:
            self._retired.append(self.memory)
        memory = SlotMemory.attach(layout, place.name, place.nonce) if shared and place.name else None
        self.attached = memory is not None
        if memory is None:
            if self._private is None or self._private.layout.slots < max(place.slots, len(self.slots)):
                count = max(place.slots, len(self.slots))
                self._private = SlotMemory.create(SlotLayout(self._feed.planes, count), shared=False)
            memory = self._private
        self.memory = memory
        self._views = [memory.views(index) for index in range(memory.layout.slots)]
        while len(self.slots) < place.slots:
            self.slots.append(Berth(len(self.slots), self._number, self._feed, self._views[len(self.slots)]))
            self._idle.append(self.slots[-1])
        for slot in self._idle:
            slot.planes = self._views[slot.index % len(self._views)]
        self._retire()

    def granted(self, index: int) -> None:
        """Take a grant.

        Raises
        ------
        BadMessage
            Where there is no such slot, or it is granted already.
        """
        if index >= self._places or index in self._held:
            raise BadMessage("grant")
        self._held.add(index)
        self._grants.append(index)

    def held(self) -> list[int]:
        """Return the grants that are not spent."""
        return sorted(self._held)

    def keep(self, kept: set[int]) -> None:
        """Give up all grants but these."""
        self._held &= kept
        self._grants = deque(index for index in self._grants if index in kept)
        for slot in self.slots:
            if slot.grant not in kept:
                slot.grant = NO_GRANT

    def take(self) -> Berth | None:
        """Return a slot with a grant, None where there is none now. Hot."""
        if not self._grants:
            return None
        for _ in range(len(self._idle)):
            slot = self._idle.popleft()
            if slot.tracker is None or slot.tracker.done:
                slot.tracker = None
                # The newest grant: its memory was used last and may still be in a cache (1.3x faster copies).
                slot.grant = self._grants.pop()
                slot.planes = self._views[slot.grant if self.attached else slot.index]
                slot.ready = ()
                slot.out = True
                return slot
            self._idle.append(slot)
        return None

    def revive(self, slot: Berth) -> bool:
        """Find a grant for a slot that lost its own, and put its pixels where they belong then."""
        if slot.grant != NO_GRANT:
            return True
        if not self._grants:
            return False
        slot.grant = self._grants.popleft()
        views = self._views[slot.grant if self.attached else slot.index]
        if views is not slot.planes:
            for name, view in views.items():
                if name in slot.planes:
                    np.copyto(view, slot.planes[name])
            slot.planes = views
        self._retire()
        return True

    def back(self, slot: Berth, *, spent: bool) -> None:
        """Take a slot back from the source; its grant is spent, or is there for the next frame."""
        if spent:
            self._held.discard(slot.grant)
        elif slot.grant != NO_GRANT:
            self._grants.appendleft(slot.grant)
        stale = not spent and slot.grant == NO_GRANT
        slot.grant = NO_GRANT
        slot.out = False
        self._idle.append(slot)
        if stale and self._views:
            slot.planes = self._views[slot.index % len(self._views)]
            self._retire()

    def _retire(self) -> None:
        """Let go of blocks of receivers that are no more, once the source holds no view of them."""
        if self._retired and not any(slot.out and slot.grant == NO_GRANT for slot in self.slots):
            for memory in self._retired:
                memory.close()
            self._retired.clear()

    def close(self) -> None:
        """Give the memory back; the planes of the slots are gone."""
        self._views = []
        for slot in self.slots:
            slot.planes = {}
        for memory in (self.memory, self._private, *self._retired):
            if memory is not None:
                memory.close()
        self._retired.clear()
        self.memory = self._private = None
