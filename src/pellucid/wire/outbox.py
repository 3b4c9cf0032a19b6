"""What a sender has to say of its frames, in their order, until the receiver is known to have heard it.

A connection that breaks takes with it what was under way. The receiver then says which number it expects next,
and everything from there on is said again: what is missing and why, and in lossless mode the frames themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pellucid.wire.berths import Berth
from pellucid.wire.message import Missing

__all__ = ["Outbox"]

NOTES_MAX = 4096


class Outbox:
    """Notes and frames.

    Attributes
    ----------
    waiting : collections.deque of Missing or Berth
        To be said before the next frame.
    """

    def __init__(self) -> None:
        self.waiting: deque[Missing | Berth] = deque()
        self._said: deque[Missing] = deque(maxlen=NOTES_MAX)

    def note(self, note: Missing) -> None:
        """Add frames that will not come; together with the last ones, where it is one story."""
        last = self.waiting[-1] if self.waiting else None
        follows = isinstance(last, Missing) and last.first + last.frames == note.first
        # Past all bounds (days without a receiver) the sum stays right and the places blur.
        if isinstance(last, Missing) and follows and (last[2:] == note[2:] or len(self.waiting) >= NOTES_MAX):
            self.waiting[-1] = last._replace(frames=last.frames + note.frames)
        else:
            self.waiting.append(note)

    def said(self) -> None:
        """Take the first of those that wait as said."""
        first = self.waiting.popleft()
        if isinstance(first, Missing):
            self._said.append(first)

    def heard(self, expected: int) -> None:
        """Forget what was said of frames before this number."""
        while self._said and self._said[0].first + self._said[0].frames <= expected:
            self._said.popleft()

    def again(self, lost: Iterable[Berth], expected: int) -> None:
        """Begin anew at the number that the receiver expects; `lost` are frames that it did not get."""
        self.heard(expected)
        self.waiting = deque(sorted([*lost, *self._said, *self.waiting], key=_number))
        self._said.clear()

    def forget(self) -> list[Berth]:
        """Forget what was said to another receiver; return the frames that waited to be said to it again."""
        frames = self.frames
        self.waiting = deque(note for note in self.waiting if isinstance(note, Missing))
        self._said.clear()
        return frames

    def drop(self, slots: Iterable[Berth]) -> None:
        """Do not send these frames again: their feed is no more."""
        gone = set(map(id, slots))
        self.waiting = deque(what for what in self.waiting if id(what) not in gone)

    @property
    def frames(self) -> list[Berth]:
        """Frames that wait to be sent again."""
        return [slot for slot in self.waiting if isinstance(slot, Berth)]


def _number(what: Missing | Berth) -> int:
    return what.first if isinstance(what, Missing) else what.info.seq
