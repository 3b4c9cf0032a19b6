"""The way of one stream's frames within a session: ring, chain, and on to the sinks."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pellucid.errors import StageError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, Slot, Spec, Stage, Stream
from pellucid.runtime.chain import Chain
from pellucid.runtime.exchange import Exchange
from pellucid.runtime.fanout import Branch
from pellucid.runtime.ring import SlotRing

__all__ = ["Lane"]

_STALLED = "chain stalled"
_INCOMPLETE = "incomplete stack"
"""A plane that is missing would ring through the whole volume."""
_UNDER_WAY = 3
"""Frames on a GPU: enough to upload, compute and download at once."""


class Lane:
    """What one stream runs on.

    Parameters
    ----------
    stream
    chain
        Opened; None where there are no stages.
    planes
        Name to Spec, ``raw`` first: what a slot holds.
    ledger

    Attributes
    ----------
    raw_only : str
        Why frames are not restored any more; empty while they are.
    closed : bool
    changes_before : int
        How many changes of parameters were in force when its stages were made.
    wanted : callable or None
        Is given the next slot whose frame has come to its end, once; whoever set it releases the slot.
    """

    def __init__(
        self, stream: Stream, chain: Chain | None, planes: Mapping[str, Spec], ledger: Ledger, raw_only: str = ""
    ) -> None:
        self.stream = stream
        self.chain = chain
        self.planes = dict(planes)
        self.raw_only = raw_only
        self.closed = False
        self.changes_before = 0
        self.wanted: Callable[[Slot], None] | None = None
        self.begun_with: list[dict[str, Any]] = []
        self._exchanges: deque[Exchange] = deque()
        self._retired: deque[Stage] = deque()
        self._told: dict[str, Any] = {}
        self._remarked = False
        self._results = tuple(name for name in planes if name != RAW)
        self._ledger, self._marks = ledger, ledger.marks_of(stream.index)
        self._ring: SlotRing | None = None
        self._early: list[Branch] = []
        self._late: list[tuple[Branch, bool]] = []
        self._work: Branch | None = None
        self._wait: Branch | None = None
        # More frames than these would only wait on a GPU, out of the reach of the policy that decides which frames are
        # left out.
        self._under_way = threading.BoundedSemaphore(_UNDER_WAY)

    @property
    def ring(self) -> SlotRing:
        """The stream's slots; after `allocate`."""
        assert self._ring is not None
        return self._ring

    def allocate(self, slots: int, *, shared: bool, pinned: bool) -> None:
        """Make the ring, and bind the chain to it."""
        self._ring = SlotRing(
            self.stream, self.planes, slots, shared=shared, pinned=pinned, on_free=self._ledger.finish
        )
        if self.chain is not None:
            self.chain.bind(self._ring.slots, self._results)
            self.begun_with = self.chain.describe()

    def start(
        self,
        sinks: Sequence[tuple[Branch, bool]],
        *,
        policy: str,
        depth: int,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        """Connect to the sinks' branches (each with whether it wants raw early), and start the chain's thread."""
        self._late = list(sinks)
        self._early = [branch for branch, early in sinks if early]
        if self.chain is None:
            return
        end = f" {self.stream.index}" if self.stream.index else ""
        release = self.ring.release
        if self.chain.waits:
            self._wait = Branch(
                f"results{end}",
                self._collect,
                release,
                policy="block",
                on_error=on_error,
                on_skip=lambda slot: self._pass_raw(slot, _STALLED),
            )
        self._work = Branch(
            f"chain{end}",
            self._submit,
            release,
            policy=policy,
            depth=depth,
            on_error=on_error,
            on_skip=lambda slot: self._pass_raw(slot, "chain busy"),
        )

    def show(self, branch: Branch) -> None:
        """Give frames to one more from now on, with all their planes; from any thread."""
        self._late = [*self._late, (branch, False)]

    def hide(self, branch: Branch) -> None:
        """Give it none any more; one that is on its way there comes back by itself."""
        self._late = [way for way in self._late if way[0] is not branch]

    def take(self, slot: Slot) -> None:
        """Hot: send a frame that has just arrived on its ways; raw to the recorder before any stage."""
        ring, info = self.ring, slot.info
        self._ledger.arrived(info, self.stream.spec.nbytes)
        if self._early:
            ring.hold(slot, len(self._early))
            for branch in self._early:
                branch.put(slot, (RAW,))
        if self.raw_only and not self._exchanges:
            self._pass_raw(slot, self.raw_only)
        elif -1 in info.planes:
            self._pass_raw(slot, _INCOMPLETE)
        elif self._work is None:
            info.processed_ns = info.received_ns
            self._ledger.ended(info, "processed")
            self._spread(slot, ())
        else:
            ring.hold(slot)
            self._work.put(slot, ())
        ring.release(slot)

    def _submit(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot, in the chain's thread: run the stages, or start them on a GPU."""
        assert self.chain is not None
        if self._exchanges:
            self._exchange(slot)
        if self.raw_only:
            self._pass_raw(slot, self.raw_only)
            return
        if self._wait is not None:
            self._under_way.acquire()
        try:
            self.chain.submit(slot)
        except StageError as error:
            if self._wait is not None:
                self._under_way.release()
            self._end_chain(str(error))
            if slot.info.state == "received":
                self._pass_raw(slot, self.raw_only)
            return
        if self._wait is None:
            self._finish(slot)
        else:
            self.ring.hold(slot)
            self._wait.put(slot, names)

    def change(self, exchange: Exchange) -> None:
        """Have other stages from the next frame on; from any thread."""
        if self.closed:
            exchange.give_up()
        else:
            self._exchanges.append(exchange)

    def _exchange(self, slot: Slot) -> None:
        """Between two frames, in the chain's thread: put the stages in place that wait for this frame."""
        assert self.chain is not None
        while self._exchanges and self._exchanges[0].since <= slot.info.seq:
            exchange = self._exchanges.popleft()
            under_way = _UNDER_WAY if self._wait is not None else 0
            for _ in range(under_way):  # results of frames before are read with the stages that made them
                self._under_way.acquire()
            try:
                fresh = exchange.take()
                try:
                    self._retired.extend(self.chain.swap(fresh))
                except BaseException:
                    self._retired.extend(fresh.values())
                    raise
            except Exception as error:
                exchange.refuse(str(error))
                self._ledger.note(f"stream {self.stream.index}: its stages stay as they were: {error}")
                continue
            finally:
                for _ in range(under_way):
                    self._under_way.release()
            self.raw_only, self._remarked = "", False  # with other parameters it may work again
            told = dict(zip(self.chain.names, self.chain.describe(), strict=True))
            exchange.took(slot.info, self.stream, told, self._ledger)

    def close_retired(self) -> None:
        """Close stages that others have replaced; not in the chain's thread, where a frame waits."""
        while self._retired:
            stage = self._retired.popleft()
            with contextlib.suppress(Exception):  # a plugin's; nobody needs it any more
                stage.close()

    def _collect(self, slot: Slot, _: tuple[str, ...]) -> None:
        """Hot, in a thread of its own: wait for a GPU's results."""
        try:
            self._finish(slot)
        finally:
            self._under_way.release()

    def _finish(self, slot: Slot) -> None:
        """Hot: look at the results and send them on."""
        assert self.chain is not None
        try:
            wrong = self.chain.finish(slot)
        except StageError as error:
            wrong = str(error)
        if slot.info.state != "received":
            return  # the run did not wait for this frame and has said how it ended
        if wrong is not None:
            self._end_chain(wrong)
        if self.raw_only:
            self._pass_raw(slot, self.raw_only)
            return
        if self.chain.remark and not self._remarked:
            self._remarked = True
            self._ledger.note(f"stream {self.stream.index}: {self.chain.remark} (told once)")
        slot.info.processed_ns = now_ns()
        self._marks.restored(slot.info)
        self._ledger.ended(slot.info, "processed")
        self._spread(slot, self._results)

    def _spread(self, slot: Slot, results: tuple[str, ...]) -> None:
        """Hot: give a slot whose results are there to the sinks."""
        slot.ready = (RAW, *results)
        if self.wanted is not None and (results or not self._results or self.raw_only):
            self._give(slot)
        for branch, had_raw in self._late:
            names = results if had_raw else slot.ready
            if names:
                self.ring.hold(slot)
                branch.put(slot, names)

    def _give(self, slot: Slot) -> None:
        """Hand a slot to whoever asked for the next frame."""
        wanted, self.wanted = self.wanted, None
        if wanted is not None:
            self.ring.hold(slot)
            wanted(slot)

    def _pass_raw(self, slot: Slot, where: str) -> None:
        """Send a frame on without results, and say why."""
        self._ledger.ended(slot.info, "raw_only", where)
        self._spread(slot, ())

    def _end_chain(self, why: str) -> None:
        if not self.raw_only:
            self.raw_only = why
            self._ledger.note(f"stream {self.stream.index}: {why}. From here on it is raw only; recording goes on")

    def drain(self, patience_s: float) -> list[str]:
        """Work off the chain; return what did not end. A frame that stands still in a stage ends raw only."""
        left = []
        for branch in (self._work, self._wait):
            if branch is None or branch.drain(patience_s):
                continue
            stuck = branch.current
            if stuck is not None and stuck.info.state == "received":
                self._pass_raw(stuck, _STALLED)
            left.append(f"{branch.name}: a frame took longer than {patience_s:g} s; it stays raw only")
        return left

    @property
    def idle(self) -> bool:
        """No frame of it is anywhere in the session."""
        return self.ring.idle

    def held(self) -> tuple[int, int]:
        """Return how many slots somebody works on, and how many there are; for those who watch."""
        slots = () if self._ring is None else self._ring.slots
        return sum(slot.holders > 0 for slot in slots), len(slots)

    def queues(self) -> dict[str, int]:
        """Return how many frames wait at the chain, by the name of the queue; for those who watch."""
        return {branch.name: branch.waiting for branch in (self._work, self._wait) if branch is not None}

    @property
    def stuck(self) -> bool:
        """A stage stands still within a frame."""
        return any(branch is not None and branch.stalled_s() > 0 for branch in (self._work, self._wait))

    def stages(self) -> list[dict[str, Any]]:
        """Return what the report says of its stages."""
        return self.chain.describe() if self.chain else []

    def describe(self) -> dict[str, Any]:
        """Return what the report says of this stream."""
        stream = self.stream
        told = self._told or {
            "camera": stream.camera,
            "channel": stream.channel,
            "planes": {name: str(spec) for name, spec in self.planes.items()},
            "pixel_um": stream.pixel_um,
            "exposure_ms": stream.exposure_ms,
            "replaces": stream.replaces,
            "details": dict(stream.details),
            "stages": self.stages(),
            "raw_only": self.raw_only,
        }
        return told | self._marks.describe()

    def close(self, *, stuck: bool) -> None:
        """Close the stages and give the memory back; `stuck`: somebody still reads a slot."""
        if self.closed:
            return
        stuck = stuck or self.stuck
        self._told = self.describe()
        self.closed = not stuck
        if self.chain is not None and not stuck:
            self.chain.close()
            self.close_retired()
        while self._exchanges:
            self._exchanges.popleft().give_up()
        if self._ring is not None:
            self._ring.close(stuck=stuck)
