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

from typing import Any, cast

import zmq

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.protocols import Slot
from pellucid.wire import message
from pellucid.wire.berths import Berth, Berths
from pellucid.wire.handshake import Feed
from pellucid.wire.link import Link
from pellucid.wire.message import Missing, Totals

__all__ = ["Feed", "Sender"]

NOTES_MAX = 4096


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

    Attributes
    ----------
    rings : tuple of Berths
        One for each feed, after `open`.
    connected, attached : bool
        A session is on; it uses the receiver's memory for all feeds.
    stop_requested : bool
        The receiver wants no more frames. The caller may set it as well: a lossless `commit` gives up then.
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
    """

    # -------------------------------------------------------------------------------------- frames

    def free(self) -> Slot | None:
        """Return a slot for the source to fill, None where the receiver has granted none. Hot."""
        if self.connected:
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
        ring, info = self.rings[berth.feed], slot.info
        if info.seq < self._next_seq:
            self.ignored["replayed"] += 1
            ring.back(berth, spent=False)
            return False
        self._next_seq = info.seq
        self.produced = max(self.produced, info.seq + 1)
        while not (self.connected and ring.revive(berth) and self._send_notes() and self._send_frame(ring, berth)):
            if self.mode == "live" or self.stop_requested or self._context is None:
                ring.back(berth, spent=False)
                self.missing(info.seq, 1, "dropped", "sender")
                return False
            self.poll(0.05)
        self._next_seq = info.seq + 1
        self.sent += 1
        ring.back(berth, spent=True)
        return True

    def _send_frame(self, ring: Berths, slot: Berth) -> bool:
        info, masks = slot.info, self._masks[slot.feed]
        mask, names = masks.get(slot.ready) or self._mask(ring, slot)
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
        try:
            parts: list[Any] = [head, *(slot.planes[name] for name in names)]
            slot.tracker = self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False, track=True)
        except zmq.ZMQError:
            return False
        return True

    def _mask(self, ring: Berths, slot: Berth) -> tuple[int, tuple[str, ...]]:
        names = tuple(name for name in ring.names if not slot.ready or name in slot.ready)
        if not names:
            raise WireError(f"none of the planes {slot.ready} is one that the receiver takes: {ring.names}")
        found = sum(1 << bit for bit, name in enumerate(ring.names) if name in names), names
        self._masks[slot.feed][slot.ready] = found
        return found

    # ------------------------------------------------------------------------------------- account

    def missing(self, first: int, count: int, state: str, where: str) -> None:
        """Forward what the source says; the ring that it found without a free slot is this sender."""
        if where == "ring":
            where = "sender"
        if where == "sender" and state == "dropped":
            self.dropped += count
        self._next_seq = max(self._next_seq, first + count)
        self.produced = max(self.produced, self._next_seq)
        if self._notes:
            last = self._notes[-1]
            follows = last.first + last.frames == first
            # Past all bounds (days without a receiver) the sum stays right and the places blur.
            if follows and ((last.state, last.where) == (state, where) or len(self._notes) >= NOTES_MAX):
                self._notes[-1] = last._replace(frames=last.frames + count)
                return
        self._notes.append(Missing(first, count, state, where))

    def told(self, produced: int, complete: bool = True) -> None:
        """Forward the source's count with the next beat."""
        self.produced = max(self.produced, produced)

    def ignore(self, why: str) -> None:
        """Count something that was no frame."""
        self.ignored[why] += 1

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
            while not (self._done or self._refused) and (now := now_ns()) < end_ns:
                if self.connected and self._send_notes() and now - said_ns > self._heartbeat_ns:
                    totals = Totals(self.produced, self.sent, self.dropped)
                    said_ns = now if self._send(message.bye(self._session, totals)) else 0
                self.poll(0.02)
        finally:
            self._shut()
        return self._done
