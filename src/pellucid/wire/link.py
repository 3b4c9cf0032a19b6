"""The sender's connection: finds the receiver, shakes hands, hears it, and finds it again."""

from __future__ import annotations

import os
import secrets
from collections import Counter, deque
from collections.abc import Sequence

import psutil
import zmq

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.wire import message
from pellucid.wire.berths import Berths
from pellucid.wire.handshake import Feed, Hello, Welcome
from pellucid.wire.keys import Curve, check_endpoint, is_loopback, protect
from pellucid.wire.message import BadMessage, Beat, Missing

__all__ = ["Link"]

PATIENCE_S = 900.0
"""A session that answered may compile its chain for so long before it takes frames."""


class Link:
    """A DEALER that connects; the half of a `Sender` that knows nothing of frames.

    It never waits in ZeroMQ: what cannot be sent at once is not sent. Parameters, attributes and errors are
    those of `Sender`.
    """

    def __init__(
        self,
        endpoint: str,
        feeds: Sequence[Feed],
        *,
        mode: str = "live",
        curve: Curve | None = None,
        shared: bool = True,
        name: str = "",
        timeout_s: float = 3.0,
        heartbeat_s: float = 0.5,
    ) -> None:
        try:
            self.endpoint = check_endpoint(endpoint, bind=False)
        except ValueError as error:
            raise WireError(str(error)) from None
        if curve is None and not is_loopback(self.endpoint):
            raise WireError(
                f"{endpoint} is another computer, which needs keys: give yours and the receiver's public one"
            )
        if mode not in ("live", "lossless"):
            raise WireError(f'mode "{mode}" is not known. Allowed: live, lossless')
        self.feeds, self.mode, self.name = tuple(feeds), mode, name
        self.rings = tuple(Berths(i, feed) for i, feed in enumerate(self.feeds))
        self.connected = self.attached = self.stop_requested = False
        self.produced = self.sent = self.dropped = 0
        self.acks: deque[tuple[int, int]] = deque(maxlen=1024)
        self.ignored: Counter[str] = Counter()
        self._curve, self._shared = curve, shared
        self._timeout_ns, self._heartbeat_ns = round(timeout_s * 1e9), round(heartbeat_s * 1e9)
        self._uid = secrets.token_hex(16)
        self._born = psutil.Process().create_time()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes]
        self._poller = zmq.Poller()
        self._notes: deque[Missing] = deque()
        self._masks: list[dict[tuple[str, ...], tuple[int, tuple[str, ...]]]] = [{} for _ in self.feeds]
        self._next_seq = 0
        self._attempt = 0
        self._hello = b""
        self._run = ""
        self._session = 0
        self._refused = ""
        self._waiting = self._done = False
        self._heard_ns = self._asked_ns = self._polled_ns = 0

    def open(self, timeout_s: float = 10.0) -> None:
        """Find the receiver and shake hands.

        Parameters
        ----------
        timeout_s
            How long nobody may answer. Once a session has answered, it may take its time to make ready.

        Raises
        ------
        WireError
            Where nobody answers, or the receiver refuses.
        """
        self._context = zmq.Context()
        socket = self._socket = self._context.socket(zmq.DEALER)
        try:
            socket.linger = 0
            socket.sndhwm, socket.rcvhwm = 512, 1000
            socket.immediate = True  # a send fails while there is no connection, and none outlives it
            socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
            socket.heartbeat_ivl, socket.heartbeat_timeout = 1000, 5000
            socket.maxmsgsize = message.MAX_CONTROL
            socket.ipv6 = "[" in self.endpoint
            protect(socket, self._curve, serves=False)
            socket.connect(self.endpoint)
            self._poller.register(socket, zmq.POLLIN)
            self._disconnect()
            self._shake(timeout_s)
        except zmq.ZMQError as error:
            self._shut()
            raise WireError(f"{self.endpoint} cannot be used: {error}") from None
        except BaseException:
            self._shut()
            raise

    def _shake(self, timeout_s: float) -> None:
        began_ns = quiet_ns = now_ns()
        while not self.connected:
            self.poll(0.02)
            now = now_ns()
            if self._refused:
                raise WireError(f"{self.endpoint} refuses this sender: {self._refused}")
            if self._waiting and self._asked_ns:
                quiet_ns = now
            if now - quiet_ns > timeout_s * 1e9 or now - began_ns > (timeout_s + PATIENCE_S) * 1e9:
                keys = ". Look whether the keys fit" if self._curve else ""
                raise WireError(
                    f"nobody answers at {self.endpoint}. Start the session first "
                    f'(pellucid run CONFIG, with source kind = "wire"){keys}'
                )

    def _disconnect(self) -> None:
        """Begin a new handshake; slots that the source holds stay as they are."""
        self.connected, self._session, self._refused, self._waiting = False, 0, "", False
        self._attempt += 1
        self._hello = Hello(
            uid=self._uid,
            attempt=self._attempt,
            name=self.name,
            pid=os.getpid(),
            born=self._born,
            mode=self.mode,
            next_seq=self._next_seq,
            feeds=self.feeds,
            run=self._run,
            held=tuple((i, index) for i, ring in enumerate(self.rings) for index in ring.held()),
        ).pack()
        self._asked_ns = 0

    def poll(self, timeout_s: float = 0.0) -> None:
        """Read what the receiver says, and keep the connection; waits no longer than `timeout_s` for a word."""
        if self._context is None:
            return
        now = now_ns()
        if now - self._polled_ns > self._heartbeat_ns:
            self._heard_ns += now - self._polled_ns  # nobody listened for a while, which is no silence
        if not self._drain() and timeout_s > 0:
            self._poller.poll(max(1, int(timeout_s * 1000)))
            self._drain()
        self._polled_ns = now = now_ns()
        if self.connected:
            if now - self._heard_ns > self._timeout_ns:
                self._disconnect()
            elif self._notes:
                self._send_notes()
        pause_ns = 10 * self._heartbeat_ns if self._waiting else self._heartbeat_ns
        if not self.connected and now - self._asked_ns > pause_ns:
            sent = self._send(self._hello)
            self._asked_ns = now if sent else 0

    def _drain(self) -> bool:
        """Take all messages that are here; tell whether there was one."""
        for count in range(1000):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count > 0
            try:
                if len(parts) != 1:
                    raise BadMessage("parts")
                self._take(parts[0])
            except BadMessage as bad:
                self.ignored[str(bad)] += 1
        return True

    def _take(self, part: bytes) -> None:
        kind, session = message.read_head(part)
        if kind == message.WELCOME:
            if not self.connected:
                self._begin(Welcome.read(part, session))
        elif kind == message.REFUSE:
            if not self.connected:
                self._refused = message.read_text(part)
        elif kind == message.WAIT:
            self._waiting = True
        elif session != self._session or not self.connected:
            raise BadMessage("no session")
        elif kind == message.GRANT:
            for feed, index, seq, stamp_ns in message.read_grants(part):
                if feed >= len(self.rings):
                    raise BadMessage("grant")
                self.rings[feed].granted(index)
                if seq >= 0:
                    self.acks.append((seq, stamp_ns))
        elif kind == message.BEAT:
            beat = message.read_beat(part)
            mine = Beat(self.produced, now_ns(), beat.ping_ns, now_ns())
            self._send(message.beat(session, mine))
        elif kind == message.STOP:
            self.stop_requested = True
        elif kind == message.BYE_ACK:
            self._done = True
        elif kind == message.STALE:
            self._disconnect()
        else:
            raise BadMessage("kind")
        self._heard_ns = now_ns()

    def _begin(self, welcome: Welcome) -> None:
        if welcome.attempt != self._attempt:
            raise BadMessage("old welcome")
        if len(welcome.places) != len(self.rings):
            raise BadMessage("places")
        if welcome.run == self._run:
            for i, ring in enumerate(self.rings):
                ring.keep({index for feed, index in welcome.kept if feed == i})
        else:
            for ring, place in zip(self.rings, welcome.places, strict=True):
                ring.place(place, self._shared)
            # One feed in band puts all there: a FRAME with pixels and one without are never mixed.
            if not all(ring.attached for ring in self.rings):
                for ring, place in zip(self.rings, welcome.places, strict=True):
                    if ring.attached:
                        ring.place(place, False)
            self._masks = [{} for _ in self.feeds]
        self._run, self._session = welcome.run, welcome.session
        self.attached = self.rings[0].attached
        self.connected, self._refused, self._waiting = True, "", False
        self._send(message.head(message.ATTACHED if self.attached else message.INBAND, self._session))

    def _send(self, part: bytes) -> bool:
        try:
            self._socket.send(part, zmq.NOBLOCK)
        except zmq.ZMQError:  # no room or no connection
            return False
        return True

    def _send_notes(self) -> bool:
        """Send what is known to be missing, always before a later frame; False where there is no room."""
        while self._notes:
            if not self._send(message.missing(self._session, self._notes[0])):
                return False
            self._notes.popleft()
        return True

    def _shut(self) -> None:
        if self._context is None:
            return
        self.connected = False
        self._socket.close(linger=0)
        self._context.term()
        self._context = None
        for ring in self.rings:
            ring.close()
