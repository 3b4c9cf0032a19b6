"""The camera's end of the wire: lends a source the receiver's slots, and says what became of every frame.

It works when it is called and has no thread of its own, never waits in ZeroMQ, and goes on by itself when the
receiver goes away and comes back. A `Sender` is an `Account`, so that any source can fill its slots::

    sender.open()
    source.start(sender.rings, sender)
    while not (source.finished or sender.stop_requested):
        while (slot := sender.free()) is not None:
            source.offer(slot)
        slot = source.read(0.05)
        if slot is not None:
            sender.commit(slot)
        sender.poll(0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import zmq

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.protocols import Slot
from pellucid.wire import message
from pellucid.wire.berths import Berth, Berths
from pellucid.wire.codec import pack
from pellucid.wire.feed import FEEDS_MAX, Feed
from pellucid.wire.link import Link
from pellucid.wire.message import Missing, Totals

__all__ = ["Feed", "Sender"]


class Sender(Link):
    """Connects to a `Receiver` and sends frames. For one thread.

    Parameters
    ----------
    endpoint
        ``tcp://HOST:PORT`` of the receiver; a host that is not this computer needs keys.
    feeds
        What will be sent.
    mode
        ``"live"``: what cannot go at once is dropped and counted; ``"lossless"``: `commit` waits.
    curve
        This side's keys and the receiver's public one.
    shared
        Write into the receiver's memory where it is on this computer.
    name
        For people.
    timeout_s, heartbeat_s
        Silence after which the receiver counts as gone, and between two attempts to reach it.
    patience_s
        A receiver that has answered may make ready for so long at the begin.
    compress
        ``"lz4"`` or ``"zstd"``: pack the pixels where they go in band, if the receiver can unpack them.

    Attributes
    ----------
    rings : tuple of Berths
        One for each feed, after `open`.
    connected, attached : bool
        A session is on; it uses the receiver's memory for all feeds.
    turning : bool
        `extend` was called and the receiver makes memory for the new feeds.
    codec : str
        How pixels are packed now; empty where they are not.
    refused : str
        Why the receiver does not want this sender, as long as it does not.
    stop_requested : bool
        The receiver wants no more frames. The caller may set it as well: a lossless `commit` gives up then.
    asked_to_end : callable
        Asked while no receiver is there: may what waits for one be given up? The caller may set it.
    produced, sent, dropped : int
        Frames that the source gave or told of; that left; that were dropped here.
    acks : collections.deque of (int, int)
        Number of a frame that the receiver is done with and when it was (ns, the receiver's clock); newest last.
    ignored : collections.Counter
        Messages that were left alone, by reason.

    Raises
    ------
    WireError
        Where the endpoint cannot be used.
    MissingExtra
        Where what packs the pixels is not installed.
    """

    def __init__(self, endpoint: str, feeds: Sequence[Feed], **options: Any) -> None:
        super().__init__(endpoint, feeds, **options)
        self._positions = list(range(len(self.feeds)))
        self._masks: list[dict[tuple[str, ...], tuple[int, tuple[str, ...]]]] = [{} for _ in self.feeds]

    # -------------------------------------------------------------------------------------- feeds

    def extend(self, feeds: Sequence[Feed]) -> tuple[Berths, ...]:
        """Send other frames from now on: begins a new handshake, after which there are slots for them.

        Frames that were committed before arrive before it. In lossless mode this waits until those of feeds that
        are replaced have arrived, since they could not be sent again after a break.

        Parameters
        ----------
        feeds
            Their streams are numbered on from those of before. One whose stream `replaces` another takes that one's
            position, slots that the source has of it are void; the others come behind the last.

        Returns
        -------
        tuple of Berths
            One for each of `feeds`; without slots until the receiver has memory for them.

        Raises
        ------
        WireError
            Where there are too many, or they cannot be described.
        """
        news: list[Berths] = []
        for feed in feeds:
            replaces = feed.stream.replaces
            position = len(self.feeds) if replaces is None else self._positions[replaces]
            if position >= FEEDS_MAX:
                raise WireError(f"{FEEDS_MAX} streams at a time can be sent, and this would be one more")
            if replaces is None:
                ring = Berths(position, feed, keeps=self.mode == "lossless")
                self.feeds, self.rings = (*self.feeds, feed), (*self.rings, ring)
                self._masks.append({})
            else:
                ring = self._replace(position, feed)
            self._positions.append(position)
            news.append(ring)
        if self._context is not None:
            if self.connected:
                self._flush()
                self._turned_ns = now_ns()
            self._disconnect()
            self.poll(0)
        return tuple(news)

    def _replace(self, position: int, feed: Feed) -> Berths:
        old = self.rings[position]
        while not self._gives_up and self._is_unsure(old):
            self.poll(0.05)
        feed = replace(feed, generation=self.feeds[position].generation + 1)
        ring = Berths(position, feed, keeps=self.mode == "lossless")
        self.feeds = (*self.feeds[:position], feed, *self.feeds[position + 1 :])
        self.rings = (*self.rings[:position], ring, *self.rings[position + 1 :])
        self._masks[position] = {}
        self._outbox.drop(old.slots)
        old.close()
        return ring

    def _is_unsure(self, ring: Berths) -> bool:
        return ring.unsure or any(slot.ring is ring for slot in self._outbox.frames)

    def ring_of(self, stream: int) -> Berths | None:
        """Return the slots of a stream, None where another one took its place."""
        position = self._positions[stream]
        return None if position in self._positions[stream + 1 :] else self.rings[position]

    @property
    def lent(self) -> int:
        """Slots that the source has."""
        return sum(ring.lent for ring in self.rings)

    # -------------------------------------------------------------------------------------- frames

    def free(self) -> Slot | None:
        """Return a slot for the source to fill, None where the receiver has granted none. Hot."""
        if self.connected and not self._outbox.waiting:
            for ring in self.rings:
                slot = ring.take()
                if slot is not None:
                    return slot
        return None

    def commit(self, slot: Slot) -> bool:
        """Send a filled slot; the source must not touch it again before it gets it from `free`. Hot.

        Parameters
        ----------
        slot
            From `free`, with its ``info``; ``ready`` names the planes to send, empty for all.

        Returns
        -------
        bool
            Whether the frame left. In lossless mode this waits until it can, or until the receiver wants no more.
        """
        berth = cast(Berth, slot)
        ring, info = berth.ring, slot.info
        if info.seq < self._next_seq:
            self.ignored["replayed"] += 1
            ring.back(berth, spent=False)
            return False
        self._next_seq = info.seq
        self.produced = max(self.produced, info.seq + 1)
        is_current = ring is self.rings[berth.feed]
        while not (is_current and self.connected and self._flush() and ring.revive(berth) and self._say(berth)):
            if self.mode == "live" or self._gives_up or not is_current:
                if is_current:
                    ring.back(berth, spent=False)
                self._miss(Missing(info.seq, 1, "dropped", "sender", berth.feed))
                return False
            self.poll(0.05)
        self._next_seq = info.seq + 1
        self.sent += 1
        ring.back(berth, spent=True)
        return True

    def take_back(self, slot: Slot) -> None:
        """Take a slot from `free` that is not to be sent; what was in it is told by `missing`."""
        berth = cast(Berth, slot)
        if berth.ring is self.rings[berth.feed]:
            berth.ring.back(berth, spent=False)

    def _say(self, slot: Berth) -> bool:
        """Send a frame with the grant that its slot has; False where there is no room."""
        info, masks = slot.info, self._masks[slot.feed]
        mask, names = masks.get(slot.ready) or self._mask(slot)
        info.sent_ns = now_ns()
        head = message.frame(
            self._session,
            slot.feed,
            slot.grant,
            mask,
            info.seq,
            info.camera_number,
            info.camera_ns,
            info.sent_ns,
            info.axes,
        )
        if self.attached:
            return self._send(head)
        planes: list[Any] = [slot.planes[name] for name in names]
        if self.codec:
            planes = [pack(plane, self.codec) for plane in planes]
        try:
            tracker = self._socket.send_multipart([head, *planes], zmq.NOBLOCK, copy=False, track=not self.codec)
        except zmq.ZMQError:
            return False
        slot.tracker = None if self.codec else tracker
        return True

    def _flush(self) -> bool:
        """Say what waits to be said, always before a later frame; False where there is no room."""
        waiting = self._outbox.waiting
        while waiting:
            first = waiting[0]
            if isinstance(first, Missing):
                said = self._send(message.missing(self._session, first))
            else:
                said = first.ring.revive(first) and self._say(first)
            if not said:
                return False
            self._outbox.said()
            if isinstance(first, Berth):
                first.ring.back(first, spent=True)
        return True

    def _mask(self, slot: Berth) -> tuple[int, tuple[str, ...]]:
        ring = slot.ring
        names = tuple(name for name in ring.names if not slot.ready or name in slot.ready)
        if not names:
            raise WireError(f"none of the planes {slot.ready} is one that the receiver takes: {ring.names}")
        found = sum(1 << bit for bit, name in enumerate(ring.names) if name in names), names
        self._masks[slot.feed][slot.ready] = found
        return found

    # ------------------------------------------------------------------------------------- account

    def missing(self, first: int, count: int, state: str, where: str, stream: int = -1) -> None:
        """Forward what the source says; the ring that it found without a free slot is this sender."""
        position = self._positions[stream] if 0 <= stream < len(self._positions) else message.UNKNOWN
        self._miss(Missing(first, count, state, "sender" if where == "ring" else where, position))

    def _miss(self, note: Missing) -> None:
        if note.where == "sender" and note.state == "dropped":
            self.dropped += note.frames
        self._next_seq = max(self._next_seq, note.first + note.frames)
        self.produced = max(self.produced, self._next_seq)
        self._outbox.note(note)

    def told(self, produced: int, complete: bool = True) -> None:
        """Forward the source's count with the next beat."""
        self.produced = max(self.produced, produced)

    def ignore(self, why: str) -> None:
        """Count something that was no frame."""
        self.ignored[why] += 1

    def note(self, text: str) -> None:
        """Keep a line for whoever looks at this side's terminal."""
        self.notes.append(text)

    # ----------------------------------------------------------------------------------------- end

    def close(self, timeout_s: float = 5.0) -> bool:
        """Say BYE with the totals, wait for the answer, and give everything back; safe more than once.

        Returns
        -------
        bool
            Whether the receiver has the totals.
        """
        if self._context is None:
            return self._done
        if self.produced > self._next_seq:
            self.missing(self._next_seq, self.produced - self._next_seq, "lost", "camera")
        end_ns = now_ns() + round(timeout_s * 1e9)
        said_ns = 0
        try:
            while not (self._done or self.refused) and (now := now_ns()) < end_ns:
                if self.connected and self._flush() and now - said_ns > self._heartbeat_ns:
                    totals = Totals(self.produced, self.sent, self.dropped)
                    said_ns = now if self._send(message.bye(self._session, totals)) else 0
                self.poll(0.02)
        finally:
            self._shut()
        return self._done
