"""One stream's planes on their way into stacks: each is copied into its z of the slot that is being filled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

import numpy as np

from pellucid.errors import SourceError
from pellucid.protocols import RAW, Account, FrameInfo, Slot, Spec, Stream

__all__ = ["NO_PLACE", "RING", "Assembly", "Listening", "look_at_order", "stack_stream"]

RING = "ring"
NO_PLACE = "no place in the stack"
"""Of a plane whose z is unknown, or beyond what the experiment was said to have."""
Leave = Callable[[FrameInfo, str], None]


def stack_stream(stream: Stream) -> Stream:
    """Return the stream of the stacks that are made of a stream's planes; where it has no z they have one plane."""
    depth = stream.sizes.get("z", 1)
    spec = stream.spec
    return replace(
        stream,
        spec=Spec((depth, *spec.shape), spec.dtype),
        frames=None if stream.frames is None else -(-stream.frames // depth),
        sizes={axis: n for axis, n in stream.sizes.items() if axis != "z"},
    )


def look_at_order(stream: Stream) -> None:
    """Refuse an experiment that goes elsewhere before a stack is whole; a channel has stacks of its own."""
    axes = [axis for axis, n in stream.sizes.items() if n > 1 and axis != "c"]
    if axes[-1] != "z":
        order = "".join(stream.sizes)
        wanted = "".join(sorted(stream.sizes, key="cz".find))  # find: -1 for all others, which keep their order
        raise SourceError(
            f'session.unit = "stack": with the axis order "{order}" the microscope changes {axes[-1]} within a stack. '
            f'Set axis_order = "{wanted}", or leave out unit'
        )


class Assembly:
    """The stack of one stream that is being filled, and the free slots for those that follow.

    A stack ends when it has all its planes, when a plane of the next one comes (another place along any axis but z,
    or a z that is there already), and at the end of the run. What is missing then is zero, and `FrameInfo.planes` says
    which planes came.

    A stack that finds no free slot waits, with its first plane in the source's hands, so that an experiment waits
    with it. Where the source does not wait, it has to drop planes meanwhile and says so (`ran_out`): such a stack
    cannot become whole any more, and all of it is left out, so that the next slot goes to one that can.

    Parameters
    ----------
    stream
        Of the planes.
    done
        Where slots go whose stack has ended.
    leave
        Called with a plane that is left out, and where.
    """

    def __init__(self, stream: Stream, done: deque[Slot], leave: Leave) -> None:
        self.stream = stream
        self.free: deque[Slot] = deque()
        self._depth = stream.sizes.get("z", 1)
        self._done = done
        self._leave = leave
        self._slot: Slot | None = None
        self._key: Hashable = None
        self._numbers = [-1] * self._depth
        self._first = self._last = FrameInfo(-1)
        self._waits = self._gives_up = False
        self._left: set[int] = set()

    def ran_out(self) -> None:
        """Note that planes of this stream are being dropped; if a stack waits for a slot, it waits in vain."""
        self._gives_up = self._waits

    def put(self, plane: Slot) -> bool:
        """Hot: take a plane; False where it has to wait for a free slot."""
        info = plane.info
        axes = info.axes or {}
        z = axes.get("z", 0 if self._depth == 1 else -1)
        if not 0 <= z < self._depth:
            self._leave(info, NO_PLACE)
            return True
        key = tuple([n for axis, n in axes.items() if axis != "z"])
        if self._slot is not None and (key != self._key or self._numbers[z] >= 0):
            self.end()
        if self._slot is None and not self._begin(key, z, info):
            return not self._waits
        assert self._slot is not None
        np.copyto(self._slot.planes[RAW][z], plane.planes[RAW])
        self._numbers[z] = info.seq
        self._last = info
        if -1 not in self._numbers:
            self.end()
        return True

    def _begin(self, key: Hashable, z: int, info: FrameInfo) -> bool:
        """Find a slot for the stack of a plane; False where there is none, or the stack is left out."""
        if self._left and (key != self._key or z in self._left):
            self._left.clear()  # that one is over
        if self._left or self._gives_up:
            self._key, self._waits, self._gives_up = key, False, False
            self._left.add(z)
            self._leave(info, RING)
            return False
        self._waits = not self.free
        if self._waits:
            return False
        self._slot, self._gives_up = self.free.popleft(), False
        self._key, self._first = key, info
        return True

    def end(self) -> None:
        """Hand the stack on as it is; does nothing where none has begun."""
        slot, first, last = self._slot, self._first, self._last
        if slot is None:
            return
        for z, number in enumerate(self._numbers):
            if number < 0:
                slot.planes[RAW][z] = 0  # of the stack that was here before
        slot.info = FrameInfo(
            first.seq,
            self.stream.index,
            first.camera_number,
            last.camera_ns,
            last.sent_ns,
            last.received_ns,
            axes={axis: n for axis, n in (last.axes or {}).items() if axis != "z"},
            planes=tuple(self._numbers),
            began_ns=first.camera_ns,
            unsure_ns=max(first.unsure_ns, last.unsure_ns),
        )
        self._slot = None
        self._numbers = [-1] * self._depth
        self._done.append(slot)

    def forget(self) -> list[int]:
        """Let go of all slots; return the numbers of planes that were in a stack not handed on."""
        self.free.clear()
        inside = [number for number in self._numbers if number >= 0]
        self._slot = None
        self._numbers = [-1] * self._depth
        return inside


class Listening:
    """An account that passes everything on; a stack that waits for a slot hears of planes dropped meanwhile.

    Parameters
    ----------
    account
        The session's.
    of
        Index of a stream -> its stacks; may grow.
    """

    def __init__(self, account: Account, of: Mapping[int, Assembly]) -> None:
        self._account = account
        self._of = of

    def missing(self, first: int, count: int, state: str, where: str, stream: int = -1) -> None:
        """Pass on frames that did not arrive."""
        self._account.missing(first, count, state, where, stream)
        if state == "dropped":
            for index, assembly in self._of.items():
                if stream in (-1, index):
                    assembly.ran_out()

    def told(self, produced: int, complete: bool = True) -> None:
        """Pass on how many frames there were."""
        self._account.told(produced, complete)

    def ignore(self, why: str) -> None:
        """Pass on what was no frame."""
        self._account.ignore(why)

    def note(self, text: str) -> None:
        """Pass on a line for the user."""
        self._account.note(text)
