"""A sender's frame numbers put onto those of the run, with a reason for every gap."""

from __future__ import annotations

from pellucid.protocols import Account
from pellucid.wire.message import BadMessage, Missing

__all__ = ["Numbering"]

JUMP_MAX = 2**32


class Numbering:
    """Counts the frames of one run, whichever senders give them.

    The first frame of the run is 0. A sender that comes back goes on counting where it was; another one that
    takes over is put behind the last number that is known of.

    Parameters
    ----------
    account
        Told of everything that did not arrive, in the run's numbers.
    next_seq
        Of the first sender: its number for the first frame of the run.
    feeds
        How many it has.

    Attributes
    ----------
    expected : int
        The run's number of the next frame.
    produced : int
        Frames that the camera's side is known to have produced.
    streams : list of int
        By position of a feed: the number by which the account knows its stream.
    """

    def __init__(self, account: Account, next_seq: int, feeds: int = 1) -> None:
        self._account = account
        self.streams = list(range(feeds))
        self._offset = -next_seq
        self.expected = 0
        self.produced = 0
        self._whole = True

    def check(self, seq: int) -> int:
        """Return the run's number of a frame, which `arrived` takes; changes nothing.

        Raises
        ------
        BadMessage
            ``"replayed"`` for a number that was seen or accounted for, ``"absurd seq"`` for one far ahead.
        """
        number = seq + self._offset
        if number < self.expected:
            raise BadMessage("replayed")
        if number > self.expected + JUMP_MAX:
            raise BadMessage("absurd seq")
        return number

    def arrived(self, number: int) -> None:
        """Note that a frame is here; numbers passed over without a word were lost on the wire."""
        if number != self.expected:
            self._lost(number)
        self.expected = number + 1

    def missing(self, note: Missing) -> None:
        """Forward what the sender says of frames that it did not send."""
        first = note.first + self._offset
        end = first + note.frames
        if end <= 0:
            return  # from before this run
        if end <= self.expected:
            raise BadMessage("replayed")
        if end > self.expected + JUMP_MAX:
            raise BadMessage("absurd seq")
        if first > self.expected:
            self._lost(first)
        first = max(first, self.expected)
        stream = self.streams[note.feed] if note.feed < len(self.streams) else -1
        self._account.missing(first, end - first, note.state, note.where, stream)
        self.expected = end

    def told(self, produced: int, complete: bool = True) -> None:
        """Note the sender's count of all that its camera produced."""
        count = produced + self._offset
        if count > self.expected + JUMP_MAX:
            raise BadMessage("absurd total")
        self.produced = max(self.produced, count, self.expected)
        self._account.told(self.produced, complete and self._whole)

    def left(self) -> None:
        """Note that the sender is silent: what it produced since its last word is unknown."""
        self.produced = max(self.produced, self.expected)
        self._account.told(self.produced, False)

    def settle(self) -> None:
        """Wait for no more of this sender: what it told of and did not give was lost on the wire."""
        if self.produced > self.expected:
            self._lost(self.produced)
            self.expected = self.produced

    def join(self, next_seq: int) -> None:
        """Let another sender take over, whose next frame has this number.

        The one before never gave its totals, and what it had not told of stays unknown for the whole run.
        """
        self.settle()
        self._whole = False
        self._offset = self.expected - next_seq

    def to_sender(self, number: int) -> int:
        """Return the sender's own number of a frame of the run."""
        return number - self._offset

    @property
    def expected_of_sender(self) -> int:
        """The sender's own number of the next frame."""
        return max(0, self.expected - self._offset)

    def _lost(self, end: int) -> None:
        stream = self.streams[0] if len(self.streams) == 1 else -1
        self._account.missing(self.expected, end - self.expected, "lost", "wire", stream)
