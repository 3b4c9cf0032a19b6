"""Stacks out of the z-slices of an experiment: any source of planes, as a source of volumes.

The source inside fills planes: of a small ring that is here (in shared memory, where another process fills it). Each
plane that comes is copied into its z of the session's slot, and given back: one copy a plane, done while the
microscope moves to the next one, so that a stack is whole a moment after its last plane. What a stack is, and what
becomes of one that has holes, is decided in `assembly`.

What is counted stays the plane: losses keep the source's names and numbers, and a stack counts as the planes in it
(see `pellucid.ledger`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from pellucid.errors import SourceError
from pellucid.protocols import RAW, Account, FrameInfo, Ring, Slot, Source, Stream
from pellucid.runtime.assembly import Assembly, Listening, look_at_order, stack_stream
from pellucid.runtime.ring import SlotRing
from pellucid.wire.memory import SlotLayout

__all__ = ["PLANES", "Stacks", "planes_nbytes"]

PLANES = 8
"""In the ring of each stream: what a camera gives while the session is busy for a moment."""

WAIT_S = 0.001


def planes_nbytes(stream: Stream) -> int:
    """Return the memory that the planes of one stream take beside the session's slots."""
    return SlotLayout({RAW: stream.spec}, PLANES).nbytes


class Stacks:
    """A source of stacks.

    Parameters
    ----------
    source
        Gives planes with ``z`` among their axes.

    Attributes
    ----------
    given : int
        Stacks that were read.
    """

    shares_memory = False
    fresh: list[Stream]

    def __init__(self, source: Source) -> None:
        self.source = source
        self.live = source.live
        self.finished = False
        self.given = 0
        self._met: list[Stream] = getattr(source, "fresh", [])
        if hasattr(source, "fresh"):
            self.fresh = []
        self._account: Account | None = None
        self._rings: dict[int, SlotRing] = {}
        self._of: dict[int, Assembly] = {}
        self._held: deque[Slot] = deque()
        self._done: deque[Slot] = deque()
        self._coming: list[Stream] = []
        self._told: list[Stream] = []
        self._replaced: set[int] = set()
        self._over = False
        self._error: Exception | None = None
        self._handled = 0

    def open(self) -> tuple[Stream, ...]:
        """Open the source; return its streams as streams of stacks.

        Raises
        ------
        SourceError
            Where it gives no stacks.
        """
        streams = self.source.open()
        try:
            if not any(stream.sizes.get("z", 1) > 1 for stream in streams):
                raise SourceError(
                    f'session.unit = "stack": the source gives single planes ({streams[0].spec}), no slices along z. '
                    'Give it a sequence with a z_plan, or a file with an axis z (with on_full = "wait", where it has '
                    "fps); or leave out unit"
                )
            look_at_order(streams[0])
            for stream in streams:
                self._take_in(stream)
        except BaseException:
            self.close()
            raise
        self.finished = self._over = False
        return tuple(stack_stream(stream) for stream in streams)

    def _take_in(self, stream: Stream) -> None:
        """Make memory for the planes of a stream."""
        if stream.spec.axes != "yx":
            raise SourceError(
                f'session.unit = "stack" takes grey planes, and {stream.camera}, {stream.channel} gives {stream.spec}. '
                "Leave out unit"
            )
        self._rings[stream.index] = SlotRing(
            stream,
            {RAW: stream.spec},
            PLANES,
            shared=self.source.shares_memory,
            pinned=False,
            on_free=lambda _: None,
        )
        self._of[stream.index] = Assembly(stream, self._done, self._leave)

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Let the source begin, into the planes that are here."""
        self._account = account
        planes = list(self._rings.values())
        self.source.start(planes, Listening(account, self._of))
        self._lend(planes)

    def _lend(self, rings: Sequence[SlotRing]) -> None:
        for ring in rings:
            for slot in ring.slots:
                self.source.offer(slot)

    def extend(self, rings: Sequence[Ring]) -> None:
        """Let the source begin with streams that were in `fresh`."""
        planes = [self._rings[stream.index] for stream in self._told[: len(rings)]]
        del self._told[: len(rings)]
        self.source.extend(planes)  # type: ignore[attr-defined]
        self._lend(planes)

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        self._of[slot.stream.index].free.append(slot)

    # ---------------------------------------------------------------- frames

    def read(self, timeout_s: float) -> Slot | None:
        """Take in a plane; return a slot where that has ended a stack. Hot."""
        if self.finished:
            return None
        if not self._done:
            self._work(timeout_s)
        if self._done:
            self.given += 1
            return self._done.popleft()
        self._handled = getattr(self.source, "given", 0)
        if self._over and not self._held:
            self.finished = True
            if self._error is not None:
                raise self._error
        return None

    def _work(self, timeout_s: float) -> None:
        self._put_held()
        if not (self._done or self._over or self._coming):
            self._take(timeout_s)
            self._put_held()
        if self._held and (self._over or self._coming):
            time.sleep(min(timeout_s, WAIT_S))  # for a slot, which comes between two calls
        if self._held or self._done:
            return
        if self._over:
            for assembly in self._of.values():
                assembly.end()
        elif self._coming:
            self._turn()

    def _take(self, timeout_s: float) -> None:
        """Read the source; what breaks it off is told when the planes that came have gone their way."""
        source = self.source
        try:
            plane = source.read(timeout_s)
        except Exception as error:
            self._error, self._over = error, True
            return
        if plane is not None:
            self._held.append(plane)
        self._over = source.finished
        if self._met:
            # Of streams that are replaced the source has forgotten the slots by now.
            self._replaced |= {stream.replaces for stream in self._met if stream.replaces is not None}
            self._coming += self._met
            self._met.clear()

    def _put_held(self) -> None:
        """Copy the planes that are here into their stacks, in order, as far as there are slots."""
        held, of = self._held, self._of
        while held:
            plane = held[0]
            index = plane.stream.index
            if not of[index].put(plane):
                return
            held.popleft()
            if index not in self._replaced:
                self.source.offer(plane)

    def _turn(self) -> None:
        """Announce the streams that the source has met, once nothing is here of those that they replace."""
        replaced = [stream.replaces for stream in self._coming if stream.replaces is not None]
        for index in replaced:
            self._of[index].end()
        if self._done:
            return
        for index in replaced:
            self._of[index].forget()
            self._rings.pop(index).close()
        coming, self._coming = self._coming, []
        for stream in coming:
            self._take_in(stream)
        self._told += coming
        self.fresh += [stack_stream(stream) for stream in coming]

    def _leave(self, info: FrameInfo, where: str) -> None:
        assert self._account is not None
        self._account.missing(info.seq, 1, "dropped", where, info.stream)

    @property
    def caught_up(self) -> bool:
        """Whether all stacks were given that a followed acquisition has ended by now; only where it can be followed."""
        source = self.source
        return bool(source.caught_up and not self._held and self._handled == source.given)  # type: ignore[attr-defined]

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """Tell the source to stop; what is under way can still be read."""
        self.source.stop()

    def close(self) -> None:
        """Close the source and give the planes' memory back; what was not read is told as dropped."""
        self.source.close()
        self.finished = True
        left = [(number, i) for i, assembly in self._of.items() for number in assembly.forget()]
        left += [(plane.info.seq, plane.info.stream) for plane in self._held]
        left += [(number, slot.info.stream) for slot in self._done for number in slot.info.planes if number >= 0]
        self._held.clear()
        self._done.clear()
        if self._account is not None:
            for number, stream in sorted(left):
                self._account.missing(number, 1, "dropped", "after the end", stream)
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._of.clear()
