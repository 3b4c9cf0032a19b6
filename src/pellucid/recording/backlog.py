"""Where frames wait for the disk: in their slots, then in memory, then in a spill file, and never without a bound.

While the disk keeps up a frame stays in its slot until it is written, and nothing is copied. When more than half of a
stream's slots wait here the newest are copied into memory, so that the camera finds slots. When that is full, they go
to the spill file, if one was given; when that is full as well, it depends on what the user has chosen: to stop, to
leave frames out, or to wait (the source then waits as well, or drops by its own policy).

Frames are written in the order in which they came, by one thread; with compression by several.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.metrics import Histogram, now_ns
from pellucid.protocols import Slot
from pellucid.recording.spill import Spill

__all__ = ["Backlog", "Full", "Piece"]

RESERVE_BYTES = 64 << 20
"""Of the memory for frames that wait, so much is there from the beginning."""


class Full(Exception):
    """There is no room left, and the user has chosen to stop then."""


def _nothing(_: Any) -> None:
    """Do nothing with what is not placed yet."""


@dataclass(slots=True, eq=False)
class Piece:
    """Planes of one frame that wait.

    Parameters
    ----------
    arrays
        As they are to be written; their memory may change while they wait.
    work
        What is done with them at last: called with the arrays, in a writer's thread.
    dropped
        Called instead, with why, where they cannot be written.
    about
        What a spill file says of it, for recovery; JSON types.
    slot
        In which the arrays lie, held.
    """

    arrays: list[NDArray[Any]]
    work: Callable[[Sequence[NDArray[Any]]], None] = _nothing
    dropped: Callable[[str], None] = _nothing
    about: Callable[[], dict[str, Any]] = dict
    slot: Slot | None = None
    taken_ns: int = 0
    counted: bool = False
    memory: list[NDArray[np.uint8]] = field(default_factory=list)
    spilled_at: int | None = None

    @property
    def nbytes(self) -> int:
        """Of its pixels."""
        return sum(array.nbytes for array in self.arrays)


class Backlog:
    """The frames that wait, and the threads that write them.

    Parameters
    ----------
    release
        Takes a slot that is not needed any more.
    threads
        That write.
    memory_bytes
        For frames that had to leave their slots.
    spill
        Made at first need; None for none.
    when_full
        ``"stop"``, ``"drop"`` or ``"wait"``.
    tell
        Takes a line for the user.

    Attributes
    ----------
    failed : BaseException or None
        The fault that ended the writing.
    lost : int
        Pieces that were taken and could not be written.
    waited : Histogram
        From taken to written.
    most_bytes : int
        That waited outside of slots at once.
    busy_since_ns : int
        When the oldest write that still goes on began; 0 where none does.
    """

    def __init__(
        self,
        release: Callable[[Slot], None],
        threads: int,
        memory_bytes: int,
        spill: Callable[[], Spill] | None,
        when_full: str,
        tell: Callable[[str], None],
    ) -> None:
        self._release, self._limit, self._make_spill, self._when_full = release, memory_bytes, spill, when_full
        self._tell = tell
        self._some = threading.Condition()
        self._queue: deque[Piece] = deque()
        self._in_slots: dict[int, int] = {}
        self._memory_bytes = 0
        self._spill: Spill | None = None
        self._free: dict[int, list[NDArray[np.uint8]]] = {}
        self._ending = False
        self._said: set[str] = set()
        self._busy: dict[int, int] = {}
        self.failed: BaseException | None = None
        self.lost = 0
        self.waited = Histogram()
        self.most_bytes = 0
        self._threads = [
            threading.Thread(target=self._run, args=(i,), name=f"pellucid writer {i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    # ---------------------------------------------------------------- in

    def reserve(self, sizes: Sequence[int]) -> None:
        """Have some of the memory at hand before the disk stalls for the first time.

        Memory that was never touched is found by the system page by page while frames wait for it, and only then does a
        run take it: one that has it from the beginning is as fast in its first stall, and as large, as in its tenth.

        Parameters
        ----------
        sizes
            Bytes of the planes of a frame.
        """
        at_once = sum(sizes)
        room = min(RESERVE_BYTES, self._limit // 2)
        with self._some:
            room -= sum(len(some) * size for size, some in self._free.items())
        made = [np.zeros(size, np.uint8) for _ in range(room // at_once if at_once else 0) for size in sizes]
        for block in made:
            block.fill(0)  # zeros alone are given by the system without being there
        with self._some:
            for block in made:
                self._free.setdefault(block.nbytes, []).append(block)

    def put(self, piece: Piece, keep: int) -> bool:
        """Hot: take a piece; False where it was left out.

        Parameters
        ----------
        piece
            Its slot is held; it is released when the piece does not need it any more.
        keep
            So many slots of its stream may wait here.

        Raises
        ------
        Full
        """
        if self.failed is not None:
            self._let_go(piece)
            raise self.failed
        piece.taken_ns = piece.taken_ns or now_ns()
        slot = piece.slot
        if slot is not None:
            stream = slot.stream.index
            with self._some:
                waiting = self._in_slots[stream] = self._in_slots.get(stream, 0) + 1
            piece.counted = True
            try:
                if waiting > keep and not self._leave_slot(piece):
                    return False
            except BaseException:
                self._let_go(piece)
                raise
        with self._some:
            failed = self.failed
            if failed is None:
                self._queue.append(piece)
                self._some.notify()
        if failed is not None:  # meanwhile: nobody would write it any more
            self._let_go(piece)
            raise failed
        return True

    def _leave_slot(self, piece: Piece) -> bool:
        """Copy a piece out of its slot; False where it was left out, True also where it stays and waits."""
        if self._into_memory(piece) or self._into_spill(piece):
            return True
        if self._when_full == "wait":
            return True
        self._let_go(piece)
        if self._when_full == "drop":
            self._say("full", "the disk is too slow and all room to wait is full: frames are left out of the recording")
            return False
        raise Full

    def keep_out_of_slot(self, piece: Piece) -> bool:
        """Copy a piece into memory at once, for a ring of frames from before the start; False: there is no room."""
        return self._into_memory(piece)

    def _into_memory(self, piece: Piece) -> bool:
        nbytes = piece.nbytes
        with self._some:
            if self._memory_bytes + nbytes > self._limit:
                return False
            self._memory_bytes += nbytes
            blocks = [
                self._free[array.nbytes].pop() if self._free.get(array.nbytes) else None for array in piece.arrays
            ]
            self.most_bytes = max(self.most_bytes, self._memory_bytes)
            spare = sum(len(some) * size for size, some in self._free.items())
            if any(block is None for block in blocks) and self._memory_bytes + spare > self._limit:
                self._free.clear()  # of planes of another size: all together stay within the limit
        copies = []
        for array, block in zip(piece.arrays, blocks, strict=True):
            memory = np.empty(array.nbytes, np.uint8) if block is None else block
            copy = memory.view(array.dtype).reshape(array.shape)
            np.copyto(copy, array)
            piece.memory.append(memory)
            copies.append(copy)
        piece.arrays = copies
        self._leave(piece)
        return True

    def _into_spill(self, piece: Piece) -> bool:
        if self._make_spill is None:
            return False
        self._say("spill", "the disk is behind and the memory for waiting frames is full: frames go to the spill file")
        try:
            with self._some:
                if self._spill is None:
                    self._spill = self._make_spill()
                piece.spilled_at = self._spill.put(piece.about(), piece.arrays)
        except OSError as error:
            # That disk is full, or gone: what waits there already is read, or is lost with a count, in its turn.
            self._say("spill disk", f"the spill file cannot take more: {error.strerror or error}")
        if piece.spilled_at is None:
            return False
        piece.arrays = [np.broadcast_to(np.zeros((), array.dtype), array.shape) for array in piece.arrays]
        self._leave(piece)
        return True

    def _leave(self, piece: Piece) -> None:
        """Let go of a piece's slot."""
        slot, piece.slot = piece.slot, None
        if slot is not None:
            if piece.counted:
                with self._some:
                    self._in_slots[slot.stream.index] -= 1
            self._release(slot)

    def _let_go(self, piece: Piece) -> None:
        """Let go of all that a piece takes."""
        self._leave(piece)
        with self._some:
            for memory in piece.memory:
                self._memory_bytes -= memory.nbytes
                self._free.setdefault(memory.nbytes, []).append(memory)
            if piece.spilled_at is not None and self._spill is not None:
                self._spill.done()
            piece.memory, piece.spilled_at = [], None

    def give_up(self, piece: Piece) -> None:
        """Let go of a piece that was kept out of its slot and never put."""
        self._let_go(piece)

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._tell(text)

    # ---------------------------------------------------------------- out

    def _run(self, number: int) -> None:
        while True:
            with self._some:
                while not self._queue:
                    if self._ending:
                        return
                    self._some.wait()
                piece = self._queue.popleft()
                self._busy[number] = now_ns()
            try:
                self._write(piece)
            except Exception as error:
                self._fail(error, piece)
                return
            finally:
                with self._some:
                    self._busy[number] = 0
                    self._some.notify_all()

    def _write(self, piece: Piece) -> None:
        if piece.spilled_at is not None:
            assert self._spill is not None
            piece.arrays = [np.empty(array.shape, array.dtype) for array in piece.arrays]
            with self._some:
                self._spill.take(piece.spilled_at, piece.arrays)
        piece.work(piece.arrays)
        self.waited.add(now_ns() - piece.taken_ns)
        self._let_go(piece)

    def fail(self, error: BaseException) -> None:
        """Write nothing more: what waits is lost, and what comes is refused with `error`."""
        self._fail(error, None)

    def _fail(self, error: BaseException, piece: Piece | None) -> None:
        with self._some:
            first = self.failed is None
            self.failed = self.failed or error
            left = [*([piece] if piece is not None else []), *self._queue]
            self._queue.clear()
            self._ending = True
            self._some.notify_all()
        for waiting in left:
            self.lost += 1
            waiting.dropped("it could not be written")
            self._let_go(waiting)
        if first and piece is not None:
            self._tell(f"writing failed: {error}")

    @property
    def busy_since_ns(self) -> int:
        """When the oldest write that still goes on began; 0 where none does."""
        return min((since for since in list(self._busy.values()) if since), default=0)

    @property
    def waiting(self) -> tuple[int, int]:
        """Pieces that wait, and bytes of those outside of slots and of the spill file."""
        return len(self._queue), self._memory_bytes

    def drain(self, moving: Callable[[], bool]) -> bool:
        """Write all that waits and end the threads; False where that stands still, as `moving` says."""
        with self._some:
            self._ending = True
            self._some.notify_all()
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.05)
                if thread.is_alive() and not moving():
                    return False
        return True

    def committing(self) -> None:
        """Before a commit."""
        if self._spill is not None:
            self._spill.committing()

    def committed(self) -> None:
        """After a commit."""
        if self._spill is not None:
            self._spill.committed()

    def close(self) -> None:
        """Remove the spill file; after the commit of all that was in it."""
        if self._spill is not None:
            self._spill.close()
