"""The session's end of the wire: takes one sender at a time and trusts none of its messages.

It works when it is called and has no thread of its own; what a sender says meanwhile waits in ZeroMQ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zmq

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo
from pellucid.wire import message
from pellucid.wire.message import BadMessage
from pellucid.wire.reception import Reception
from pellucid.wire.run import Run
from pellucid.wire.seat import Seat

__all__ = ["Arrival", "Receiver"]


@dataclass(slots=True)
class Arrival:
    """A frame that lies in its slot.

    Parameters
    ----------
    feed, index
        Position of its feed, and of the slot in the feed's memory.
    info
        Times on this side's clock, numbers from 0 for the run, the stream as `welcome` and `extend` number it.
    ready
        Names of the planes that it filled.
    """

    feed: int
    index: int
    info: FrameInfo
    ready: tuple[str, ...]


class Receiver(Reception):
    """Binds, takes a sender, grants it slots and receives its frames. For one thread.

    Parameters
    ----------
    endpoint, curve
        See `Door`.
    planes
        Names of the planes to receive of each feed, as far as it has them.
    heartbeat_s, timeout_s
        Between signs of life, and after which silence a sender counts as gone.
    turns
        The owner looks at `turn` and answers it with `extend`. Else a sender whose feeds change is refused.

    Attributes
    ----------
    endpoint : str
        The real one, with its port.
    state : str
        ``"waiting"``, ``"connected"``, ``"turning"`` (the sender waits for memory for new feeds), ``"ended"``
        (after the sender's totals) or ``"gone"`` (without).
    turn : Turn or None
        What a sender waits for whose feeds have changed; all frames that it said before have been received.
    totals : Totals or None
        What the sender said at its end, in its own numbers.
    ignored : collections.Counter
        Messages that were left alone, by reason.

    Raises
    ------
    WireError
        Where the endpoint is wrong, taken, or open to other computers without keys.
    """

    # -------------------------------------------------------------------------------------- frames

    def grant(self, feed: int, index: int, seq: int = -1, stamp_ns: int = 0) -> None:
        """Give the sender a slot; it leaves with the next `receive`, or when a sender is back.

        Parameters
        ----------
        feed, index
            Position of the feed, and of the slot in its memory.
        seq, stamp_ns
            A frame that is done with and when it was, for the sender to know; -1 for none.
        """
        if seq >= 0 and self._run is not None:
            seq = self._run.numbering.to_sender(seq)
        self._grants.append((feed, index, message.GRANT_BODY.pack(feed, index, seq, stamp_ns)))

    @property
    def wakes(self) -> int:
        """See `Door`: an event loop that has this and a timer hears of frames at once."""
        return self._door.wakes

    def receive(self, timeout_s: float) -> Arrival | None:
        """Return the next frame, or None when the time is over or no frame can come. Hot."""
        door, now = self._door, now_ns()
        end_ns = now + round(timeout_s * 1e9)
        if now - self._called_ns > self._heartbeat_ns and self._seat is not None:
            self._seat.deaf_for(now - self._called_ns)
        while True:
            if self._grants:
                self._send_grants()
            got = door.receive()
            self._called_ns = now = now_ns()
            turn = self.turn
            arrival = self._take(*got, now) if got is not None else None
            if now > self._tended_ns + self._heartbeat_ns:
                self._tend(now, all_read=got is None)
            seat = self._seat
            if seat is not None and now >= seat.ask_ns:
                self._ask(seat)
            if arrival is not None or (self.turn is not turn and self.turn is not None):
                return arrival
            if now >= end_ns or (got is None and self.state == "ended"):
                return None
            if got is None:
                until_ns = end_ns if seat is None else min(end_ns, max(seat.ask_ns, now))
                door.wait(min(until_ns - now, self._heartbeat_ns))

    def _take(self, route: bytes, part: bytes, parts: list[zmq.Frame], now: int) -> Arrival | None:
        run, seat = self._run, self._seat
        try:
            kind, session = message.read_head(part)
            if run is None or seat is None or (session != seat.session and kind != message.HELLO):
                if kind == message.BEAT:
                    self._door.send(route, message.head(message.STALE, session))
                raise BadMessage("no session")
            if route != seat.route and kind != message.HELLO:
                # Another connection, so what was said by the first one may be lost: it has to say HELLO.
                self._door.send(route, message.head(message.STALE, session))
                raise BadMessage("route")
            if self.state == "turning" and kind != message.HELLO:
                raise BadMessage("no session")  # it has said HELLO, so this is from before, by another connection
            if kind == message.FRAME:
                return self._frame(run, seat, route, part, parts, now)
            if parts:
                raise BadMessage("parts")
            if kind == message.HELLO:
                self._hello_again(run, seat, route, part)
            elif kind == message.BYE:
                self._bye(run, seat, route, part, now)
            else:
                self._control(run, seat, kind, route, part, now)
        except BadMessage as bad:
            self._ignore(str(bad), route, part)
        return None

    def _frame(
        self, run: Run, seat: Seat, route: bytes, part: bytes, parts: list[zmq.Frame], now: int
    ) -> Arrival | None:
        head = message.read_frame(part)
        if self.state == "ended":
            raise BadMessage("after the end")
        ready = run.landing.check(head, parts, seat.hello.uid, seat.attached, seat.codec)
        number = run.numbering.check(head.seq)
        # Only now: a message that somebody repeats must not draw the sender's slots and beats to himself.
        self._spoke(run, seat, route, now, lively=True)
        run.landing.fill(head, parts, seat.codec)
        run.numbering.arrived(number)
        ahead_ns, unsure_ns = seat.ahead(now)
        info = FrameInfo(
            seq=number,
            stream=run.numbering.streams[head.feed],
            camera_number=head.camera_number,
            camera_ns=head.camera_ns - ahead_ns if head.camera_ns else 0,
            sent_ns=head.sent_ns - ahead_ns,
            received_ns=now_ns() if parts else now,
            axes=head.axes,
            unsure_ns=unsure_ns,
        )
        return Arrival(head.feed, head.slot, info, ready)

    def _bye(self, run: Run, seat: Seat, route: bytes, part: bytes, now: int) -> None:
        totals = message.read_bye(part)
        if self.state != "ended":
            run.numbering.told(totals.produced)
            self._spoke(run, seat, route, now, lively=True)
            run.numbering.settle()
            run.landing.free_all()
            self.totals, self.state = totals, "ended"
        self._door.send(route, message.head(message.BYE_ACK, seat.session))

    def _control(self, run: Run, seat: Seat, kind: int, route: bytes, part: bytes, now: int) -> None:
        self._spoke(run, seat, route, now, lively=kind == message.BEAT)
        if kind == message.MISSING:
            run.numbering.missing(message.read_missing(part))
        elif kind == message.BEAT:
            beat = message.read_beat(part)
            run.numbering.told(beat.produced)
            seat.answered(beat, now)
        elif kind in (message.ATTACHED, message.INBAND):
            seat.attached = seat.writer.attached = kind == message.ATTACHED
            self._ask(seat)
        else:
            raise BadMessage("kind")

    def _spoke(self, run: Run, seat: Seat, route: bytes, now: int, lively: bool) -> None:
        """Note a sign of life of the sender, which may bring it back."""
        if self.state == "ended":
            raise BadMessage("after the end")
        seat.spoke(route, now, lively)
        if self.state == "gone":
            run.landing.resume(seat.writer)
            self.state = "connected"

    def _send_grants(self) -> None:
        run, seat = self._run, self._seat
        if self.state != "connected" or run is None or seat is None or not seat.timed:
            return
        while self._grants:
            some = [self._grants[i] for i in range(min(len(self._grants), message.GRANTS_MAX))]
            body = b"".join(packed for _, _, packed in some)
            if not self._door.send(seat.route, message.pack(message.GRANT, seat.session, body)):
                return
            for feed, index, _ in some:
                run.landing.granted.add((feed, index))
                self._grants.popleft()

    # ----------------------------------------------------------------------------------- keeping up

    def _tend(self, now: int, all_read: bool) -> None:
        """Give a sign of life, and look for the sender's; its silence counts only when all that was said is read."""
        self._tended_ns = now
        run, seat = self._run, self._seat
        if run is None or seat is None:
            return
        for _ in self._door.sent_away():
            run.account.ignore("keys do not fit")
        if self.state == "connected":
            self._ask(seat)
            if self._stopping:
                self._door.send(seat.route, message.head(message.STOP, seat.session))
            if all_read and seat.is_lost(now, self._timeout_ns, self._heartbeat_ns):
                self._lose(run, seat)
        elif self.state == "gone" and seat.session and seat.writer.is_dead:
            self._bury(run, seat)
        run.landing.release_dead()

    def _ask(self, seat: Seat) -> None:
        """Give a sign of life, which the sender answers with its clock."""
        if self._run is not None:
            beat = seat.beat(self._run.numbering.expected_of_sender)
            if self.state == "connected":
                self._door.send(seat.route, beat)

    @property
    def clock(self) -> dict[str, Any] | None:
        """What the report says of the sender's clock; None where it is this computer's, or not known."""
        return self._seat.describe_clock() if self._seat is not None else None

    def released(self) -> list[tuple[int, int]]:
        """Take the ``(feed, slot)`` that came back without a frame; grant them again to use them."""
        if self._run is None or not self._run.landing.released:
            return []
        freed, self._run.landing.released = self._run.landing.released, []
        return freed

    def stop(self) -> None:
        """Ask the sender to acquire nothing more; it answers with the frames under way and its totals."""
        self._stopping = True
        self._tended_ns = 0  # with the next `receive`

    def settle(self) -> None:
        """Wait no longer for a sender that is gone: what it had produced and not given is lost."""
        if self._run is not None and self.state != "connected":
            self._run.numbering.settle()

    def close(self) -> None:
        """Let the sender know, and give everything back; safe more than once."""
        run, seat = self._run, self._seat
        if run is not None and seat is not None:
            if self.state == "connected":
                self._door.send(seat.route, message.head(message.STALE, seat.session))
                self.state = "gone"
                run.numbering.left()
            self.settle()
            run.landing.close()
        self._door.close()
