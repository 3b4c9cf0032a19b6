"""A queue and a thread for each way that a frame can go, each with a policy of its own.

``block``: every slot, in order. The queue holds slots and so cannot outgrow the ring; a branch that is slow
keeps slots away from the source, and the source drops or waits: the loss is where it can be counted.
``latest``: a few places, one for a window. Where they are taken a newer slot takes that of the oldest, which is
let go and counted as skipped: what is shown is never old, and a window that stalls holds two slots at most.

Places are for work that is late now and then. Work that is slower than the camera all the time would fill them for
good, and every frame would be as old as the queue is long: a queue that was never empty for half a second keeps one
place, until nothing had to be skipped for a second.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from pellucid.metrics import now_ns
from pellucid.protocols import Slot

__all__ = ["Branch"]

Names = tuple[str, ...]
STANDING_NS = 500_000_000
CALM_NS = 1_000_000_000


class Branch:
    """One thread that works on slots.

    Parameters
    ----------
    name
        As in the report.
    work
        Called with the slot and the names of its planes; its errors end the branch.
    release
        Called when the branch needs the slot no more.
    policy
        ``"block"`` or ``"latest"``.
    depth
        Places of a ``latest`` queue.
    on_error
        Called once, in the branch's thread, with the first error.
    on_skip
        Called, in the putting thread, with a slot that a newer one replaced.
    on_lost
        Called with a slot and the names of its planes that came, or waited, when the branch had failed; before its
        slot is let go.
    counts
        Where ``offered``, ``written``, ``skipped``, ``lost`` are counted.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Slot, Names], None],
        release: Callable[[Slot], None],
        *,
        policy: str,
        depth: int = 1,
        on_error: Callable[[str, BaseException], None],
        on_skip: Callable[[Slot], None] | None = None,
        on_lost: Callable[[Slot, Names], None] | None = None,
        counts: Counter[str] | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.counts = counts if counts is not None else Counter()
        self.counts.update(offered=0, written=0, skipped=0, lost=0)
        self.failed = False
        self.busy_since_ns = 0
        self.current: Slot | None = None
        self._work = work
        self._release = release
        self._on_error = on_error
        self._on_skip = on_skip
        self._on_lost = on_lost
        self._items: deque[tuple[Slot, Names]] = deque()
        self._some = threading.Condition()
        self._depth = self._places = depth
        self._stands_ns = self._skipped_ns = 0
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=f"pellucid {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Slots in the queue."""
        return len(self._items)

    def put(self, slot: Slot, names: Names) -> None:
        """Queue a slot that was already held for this branch."""
        replaced: tuple[Slot, ...] = ()
        with self._some:
            self.counts["offered"] += 1
            refused = self.failed
            if refused:
                self.counts["lost" if self.policy == "block" else "skipped"] += 1
                replaced = (slot,)
            else:
                if self.policy == "latest":
                    replaced = self._make_room()
                self._items.append((slot, names))
                self._some.notify()
        for old in replaced:
            if refused and self._on_lost is not None:
                self._on_lost(slot, names)
            if self._on_skip is not None:
                self._on_skip(old)
            self._release(old)

    def _make_room(self) -> tuple[Slot, ...]:
        """Take the oldest out of a queue that is full."""
        if self._places < self._depth and now_ns() - self._skipped_ns > CALM_NS:
            self._places = self._depth
        if len(self._items) < self._places:
            return ()
        old = tuple(self._items.popleft()[0] for _ in range(len(self._items) - self._places + 1))
        self.counts["skipped"] += len(old)
        self._skipped_ns = now_ns()
        return old

    def _look_at_queue(self, now: int) -> None:
        """Note for how long there was always something in the queue, behind what is worked on now."""
        if not self._items:
            self._stands_ns = 0
        elif not self._stands_ns:
            self._stands_ns = now
        elif now - self._stands_ns > STANDING_NS:
            self._places, self._skipped_ns = 1, now

    def drain(self, timeout_s: float) -> bool:
        """Work off the queue and end the thread; False where it did not end in time.

        What is still queued then is let go and counted as lost.
        """
        with self._some:
            self._ending = True
            self._some.notify()
        written, deadline = -1, 0
        while self._thread.is_alive():
            # A queue that still moves is slow, not stalled: it gets its time.
            if self.counts["written"] != written:
                written, deadline = self.counts["written"], now_ns() + round(timeout_s * 1e9)
            elif now_ns() > deadline:
                break
            self._thread.join(0.05)
        with self._some:
            self.failed = True  # whoever comes too late is let go with a count
            if not self._thread.is_alive():
                return True
            self._discard()
            if self.busy_since_ns:
                self.counts["lost"] += 1
        return False

    def stalled_s(self) -> float:
        """For how long the branch has been working on one slot."""
        since = self.busy_since_ns
        return (now_ns() - since) * 1e-9 if since else 0.0

    def _discard(self) -> None:
        while self._items:
            slot, names = self._items.popleft()
            if self._on_lost is not None:
                self._on_lost(slot, names)
            self.counts["lost" if self.policy == "block" else "skipped"] += 1
            if self._on_skip is not None:
                self._on_skip(slot)
            self._release(slot)

    def _run(self) -> None:
        some, items, work, release, counts = self._some, self._items, self._work, self._release, self.counts
        while True:
            with some:
                while not items:
                    if self._ending:
                        return
                    some.wait()
                slot, names = items.popleft()
                self.current = slot
                self.busy_since_ns = now_ns()
                if self._depth > 1:
                    self._look_at_queue(self.busy_since_ns)
            try:
                work(slot, names)
            except Exception as error:
                # Reported once; what is queued and what will come is let go with a count.
                with some:
                    self.busy_since_ns = 0
                    self.current = None
                    counts["lost"] += not self.failed  # a drain that gave up has counted it
                    self.failed = True
                    self._discard()
                release(slot)
                self._on_error(self.name, error)
                return
            with some:
                self.busy_since_ns = 0
                self.current = None
                if not self.failed:
                    counts["written"] += 1
            release(slot)
