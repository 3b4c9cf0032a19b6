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
import psutil

from pellucid.errors import WireError
from pellucid.protocols import Slot
from pellucid.wire.feed import Feed
from pellucid.wire.handshake import Place
from pellucid.wire.memory import SlotLayout, SlotMemory
from pellucid.wire.message import BadMessage

__all__ = ["Berth", "Berths"]

NO_GRANT = -1
OWN_SLOTS = 64
"""Of memory of this process: pixels only wait there for the way, so that more would not be of use."""
OWN_SHARE = 0.5
"""Of the memory that is free, at most so much may be taken for that."""


class Berth(Slot):
    """A slot of the sender.

    Attributes
    ----------
    ring : Berths
    feed : int
        Position of its feed.
    grant : int
        Slot of the receiver's ring that it stands for, -1 for none.
    out : bool
        The source has it.
    tracker : zmq.MessageTracker or None
        Of its pixels on their way, where they go in band.
    """

    __slots__ = ("feed", "grant", "out", "ring", "tracker")

    def __init__(self, index: int, ring: Berths, planes: dict[str, np.ndarray[Any, Any]]) -> None:
        super().__init__(index, ring.feed.stream, planes)
        self.ring, self.feed = ring, ring.position
        self.grant = NO_GRANT
        self.out = False
        self.tracker: Any = None


class Berths:
    """The slots of one feed; what a source sees as a ring.

    Parameters
    ----------
    position
        Of the feed.
    feed
    keeps
        A frame's slot is not used again before the receiver is known to have it, so that it can be sent again
        after a break.

    Attributes
    ----------
    slots : list of Berth
    memory : SlotMemory or None
        Where new frames lie now: the receiver's block, or private memory.
    names : tuple of str
        Planes that the receiver wants, in the order of FRAME's mask.
    attached : bool
        `memory` is the receiver's.
    run : str
        The receiver's run that the slots belong to.
    lent : int
        Slots that the source has.
    """

    def __init__(self, position: int, feed: Feed, *, keeps: bool = False) -> None:
        self.slots: list[Berth] = []
        self.memory: SlotMemory | None = None
        self.names: tuple[str, ...] = ()
        self.attached = False
        self.run = ""
        self.lent = 0
        self.position, self.feed, self._keeps = position, feed, keeps
        self._private: SlotMemory | None = None
        self._retired: list[SlotMemory] = []
        self._views: list[dict[str, np.ndarray[Any, Any]]] = []
        self._idle: deque[Berth] = deque()
        self._grants: deque[int] = deque()  # not lent to a slot
        self._held: set[int] = set()  # these, and those that are
        self._said: dict[int, Berth] = {}  # spent on a frame that may not have arrived
        self._places = 0

    def place(self, place: Place, run: str, shared: bool) -> None:
        """Use another receiver's slots from now on; all grants are void.

        Raises
        ------
        BadMessage
            Where the place does not fit the feed.
        WireError
            Where there is no memory to wait in for the way.
        """
        if not set(place.offsets) <= set(self.feed.planes):
            raise BadMessage("planes")
        planes = {name: self.feed.planes[name] for name in place.offsets}
        try:
            layout = SlotLayout.told(planes, place.offsets, place.stride, place.slots)
        except ValueError:
            raise BadMessage("offsets") from None
        attached = SlotMemory.attach(layout, place.name, place.nonce) if shared and place.name else None
        memory = attached or self._own(place.slots)
        if self.memory is not None and self.memory is not self._private:
            self._retired.append(self.memory)
        self.names, self._places, self.run = tuple(planes), place.slots, run
        self.attached, self.memory = attached is not None, memory
        self._grants.clear()
        self._held.clear()
        for slot in self._said.values():
            self._idle.append(slot)
        self._said.clear()
        for slot in self.slots:
            slot.grant = NO_GRANT
        self._views = [memory.views(index) for index in range(memory.layout.slots)]
        while len(self.slots) < memory.layout.slots:
            self.slots.append(Berth(len(self.slots), self, self._views[len(self.slots)]))
            self._idle.append(self.slots[-1])
        for slot in self._idle:
            slot.planes = self._views[slot.index % len(self._views)]
        self._retire()

    def _own(self, slots: int) -> SlotMemory:
        """Return memory of this process for so many slots, or for as many as there is room for."""
        had = self._private.layout.slots if self._private is not None else 0
        wanted = max(min(slots, OWN_SLOTS), len(self.slots))
        if self._private is None or had < wanted:
            stride = SlotLayout(self.feed.planes, 1).stride
            room = int(psutil.virtual_memory().available * OWN_SHARE) // stride
            if room < max(2, len(self.slots)):
                raise WireError(
                    f"frames of {self.feed.stream.spec} need {2 * stride / 1e6:.0f} MB on this side to wait in, and "
                    f"there is too little memory free"
                )
            self._private = SlotMemory.create(SlotLayout(self.feed.planes, min(wanted, room)), shared=False)
        return self._private

    def granted(self, index: int) -> None:
        """Take a grant.

        Raises
        ------
        BadMessage
            Where there is no such slot, or it is granted already.
        """
        if index >= self._places or index in self._held:
            raise BadMessage("grant")
        said = self._said.pop(index, None)
        if said is not None:  # the receiver has the frame, and is done with it
            self._idle.append(said)
        self._held.add(index)
        self._grants.append(index)

    def held(self) -> list[int]:
        """Return the grants that are not spent, or spent on frames that may not have arrived."""
        return sorted(self._held | self._said.keys())

    def arrived(self, expected: int) -> None:
        """Free the slots of frames before this number, which the receiver has."""
        if not self._said:
            return
        for grant in [grant for grant, slot in self._said.items() if slot.info.seq < expected]:
            self._idle.append(self._said.pop(grant))

    def keep(self, kept: set[int], expected: int) -> list[Berth]:
        """Give up all grants but these, and return the slots of frames that did not arrive, to be sent again."""
        lost = []
        for grant, slot in self._said.items():
            if slot.info.seq >= expected:
                lost.append(slot)
                slot.grant = grant
                self._held.add(grant)
            else:
                self._idle.append(slot)
                if grant in kept:  # granted anew, in a word that the break took
                    self._held.add(grant)
                    self._grants.append(grant)
        self._said.clear()
        self._held &= kept
        self._grants = deque(index for index in self._grants if index in kept)
        for slot in self.slots:
            if slot.grant not in kept:
                slot.grant = NO_GRANT
        return lost

    @property
    def unsure(self) -> bool:
        """There are frames that may not have arrived."""
        return bool(self._said)

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
                self.lent += 1
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
        if slot.out:
            slot.out = False
            self.lent -= 1
        grant, slot.grant = slot.grant, NO_GRANT
        if spent:
            self._held.discard(grant)
            if self._keeps:
                self._said[grant] = slot
                return
        elif grant != NO_GRANT:
            self._grants.appendleft(grant)
        self._idle.append(slot)
        if not spent and grant == NO_GRANT and self._views:
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
        self._idle.clear()
        self._grants.clear()
        for slot in self.slots:
            slot.planes = {}
        for memory in (self.memory, self._private, *self._retired):
            if memory is not None:
                memory.close()
        self._retired.clear()
        self.memory = self._private = None
