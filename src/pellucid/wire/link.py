"""The sender's connection: finds the receiver, shakes hands, hears it, and finds it again."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter, deque
from collections.abc import Callable, Sequence

import psutil
import zmq

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.wire import message
from pellucid.wire.berths import Berth, Berths
from pellucid.wire.codec import CODECS, load
from pellucid.wire.feed import Feed
from pellucid.wire.handshake import Hello, Welcome
from pellucid.wire.keys import Curve, check_endpoint, is_loopback, protect
from pellucid.wire.knocks import TRIES, Knocks
from pellucid.wire.message import BadMessage, Beat
from pellucid.wire.outbox import Outbox
from pellucid.wire.watch import BROKEN, Watch

__all__ = ["Link"]

PATIENCE_S = 900.0
"""A session that answered may compile its chain for so long before it takes frames."""

LOOK_NS = 5_000_000
"""Between two looks at what became of the connection."""
BUSY_S = 5.0
"""A sender that died is taken for gone within this time; until then its seat looks taken to its successor."""
KNOCK_NS = 2_000_000_000
"""Between two tries with keys that were sent away."""


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
        compress: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        try:
            self.endpoint = check_endpoint(endpoint, bind=False)
        except ValueError as error:
            raise WireError(str(error)) from None
        if curve is None and not is_loopback(self.endpoint):
            raise WireError(
                f"{endpoint} is another computer, which needs keys: give --keys FILE (pellucid keys --help says how to "
                "make them)"
            )
        if mode not in ("live", "lossless"):
            raise WireError(f'mode "{mode}" is not known. Allowed: live, lossless')
        if compress not in CODECS:
            raise WireError(f'compress = "{compress}" is not known. Allowed: {", ".join(filter(None, CODECS))}')
        load(compress, f'compress = "{compress}"')
        self.feeds, self.mode, self.name, self.compress = tuple(feeds), mode, name, compress
        self.rings = tuple(Berths(i, feed, keeps=mode == "lossless") for i, feed in enumerate(self.feeds))
        self.connected = self.attached = self.stop_requested = False
        self.asked_to_end: Callable[[], bool] = lambda: False
        self.codec = ""
        self.refused = ""
        self.produced = self.sent = self.dropped = 0
        self.acks: deque[tuple[int, int]] = deque(maxlen=1024)
        self.ignored: Counter[str] = Counter()
        self.notes: list[str] = []
        self._curve, self._shared = curve, shared
        self._patience_s = patience_s
        self._timeout_ns, self._heartbeat_ns = round(timeout_s * 1e9), round(heartbeat_s * 1e9)
        self._uid = secrets.token_hex(16)
        self._born = psutil.Process().create_time()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes]
        self._watch: Watch | None = None
        self._poller = zmq.Poller()
        self._outbox = Outbox()
        self._next_seq = 0
        self._attempt = 0
        self._hello = b""
        self._run = ""
        self._session = self._last_session = 0
        self._waiting = self._done = False
        self._knocks = Knocks(curve)
        self._looked_ns = self._knocked_ns = 0
        self._heard_ns = self._asked_ns = self._polled_ns = self._turned_ns = 0

    def open(self, timeout_s: float = 10.0, tell: Callable[[str], None] = lambda line: None) -> None:
        """Find the receiver and shake hands.

        Parameters
        ----------
        timeout_s
            How long nobody may answer. Once a session has answered, it may take its time to make ready.
        tell
            Called with a line where this seems to come to nothing, before the time is over.

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
            self._watch = Watch(socket)
            socket.connect(self.endpoint)
            self._poller.register(socket, zmq.POLLIN)
            self._disconnect()
            self._shake(timeout_s, tell)
        except zmq.ZMQError as error:
            self._shut()
            raise WireError(f"{self.endpoint} cannot be used: {error}") from None
        except BaseException:
            self._shut()
            raise

    def _shake(self, timeout_s: float, tell: Callable[[str], None]) -> None:
        began_ns = quiet_ns = now_ns()
        told = False
        while not self.connected:
            self.poll(0.02)
            now = now_ns()
            if self.refused.startswith(message.BUSY) and now - began_ns < min(timeout_s, BUSY_S) * 1e9:
                self.refused = ""
            if self.refused:
                raise WireError(f"{self.endpoint} refuses this sender: {self.refused}")
            if self._knocks.failed >= TRIES and not told:
                # Not certain: a tunnel to a session that is not there yet breaks off in the same way.
                told = True
                tell(f"{self.endpoint}: {self._knocks.why()}. Trying on")
            if self._waiting and self._asked_ns:
                quiet_ns = now
            if now - quiet_ns > timeout_s * 1e9 or now - began_ns > (timeout_s + self._patience_s) * 1e9:
                why = f" Or {self._knocks.why()}" if self._knocks.failed else ""
                raise WireError(
                    f"nobody answers at {self.endpoint}. Start the session first "
                    f'(pellucid run CONFIG, with source kind = "wire").{why}'
                )

    def _disconnect(self) -> None:
        """Begin a new handshake; slots that the source holds stay as they are."""
        self._last_session = self._session or self._last_session
        self.connected, self._session, self.refused, self._waiting = False, 0, "", False
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
            codec=self.compress,
        ).pack()
        self._asked_ns = 0

    def poll(self, timeout_s: float = 0.0) -> None:
        """Read what the receiver says, and keep the connection; waits no longer than `timeout_s` for a word."""
        if self._context is None:
            return
        now = now_ns()
        if now - self._looked_ns > LOOK_NS:
            self._looked_ns = now
            self._look(now)
        if now - self._polled_ns > self._heartbeat_ns:
            self._heard_ns += now - self._polled_ns  # nobody listened for a while, which is no silence
        if not self._drain() and timeout_s > 0:
            self._poller.poll(max(1, int(timeout_s * 1000)))
            self._drain()
        self._polled_ns = now = now_ns()
        if self.connected:
            if now - self._heard_ns > self._timeout_ns:
                self._disconnect()
            elif self._outbox.waiting:
                self._flush()
        pause_ns = 10 * self._heartbeat_ns if self._waiting else self._heartbeat_ns
        if not self.connected and now - self._asked_ns > pause_ns:
            sent = self._send(self._hello)
            self._asked_ns = now if sent else 0

    def _look(self, now: int) -> None:
        """See what has become of the connection."""
        assert self._watch is not None
        for what in self._watch.news():
            self._knocks.heard(what)
            if what == BROKEN and self.connected:
                self._disconnect()  # what was on its way is gone; the receiver says from where on
        if self._knocks.is_certain:
            self.refused = self._knocks.why()
        if self._knocks.failed and not self.connected and now - self._knocked_ns > KNOCK_NS:
            # libzmq does not come back from most of these, but the keys may be mended, or another session come.
            self._knocked_ns = now
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disconnect(self.endpoint)
            self._socket.connect(self.endpoint)

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
                self.refused = message.read_text(part)
        elif kind == message.WAIT:
            self._waiting = True
        elif kind == message.BYE_ACK and session in (self._session, self._last_session):
            self._done = True
        elif session != self._session or not self.connected:
            raise BadMessage("no session")
        elif kind == message.GRANT:
            for feed, index, seq, stamp_ns in message.read_grants(part):
                self._grant(feed, index)
                if seq >= 0:
                    self.acks.append((seq, stamp_ns))
        elif kind == message.BEAT:
            heard_ns = now_ns()
            beat = message.read_beat(part)
            self._outbox.heard(beat.produced)
            for ring in self.rings:
                ring.arrived(beat.produced)
            mine = Beat(self.produced, now_ns(), beat.ping_ns, heard_ns)
            self._send(message.beat(session, mine))
        elif kind == message.STOP:
            self.stop_requested = True
        elif kind == message.STALE:
            self._disconnect()
        else:
            raise BadMessage("kind")
        self._heard_ns = now_ns()

    def _grant(self, feed: int, index: int) -> None:
        try:
            if feed >= len(self.rings):
                raise BadMessage("grant")
            self.rings[feed].granted(index)
        except BadMessage as bad:  # the others in the same message are good
            self.ignored[str(bad)] += 1

    def _begin(self, welcome: Welcome) -> None:
        if welcome.attempt != self._attempt:
            raise BadMessage("old welcome")
        if len(welcome.places) != len(self.rings):
            raise BadMessage("places")
        if welcome.run == self._run:
            lost: list[Berth] = []
            for i, ring in enumerate(self.rings):
                if ring.run == welcome.run:
                    lost += ring.keep({index for feed, index in welcome.kept if feed == i}, welcome.expected)
            self._outbox.again(lost, welcome.expected)
        else:
            for slot in self._outbox.forget():
                self.rings[slot.feed].back(slot, spent=False)
        shared = self._shared and (welcome.run != self._run or self.attached)
        for ring, place in zip(self.rings, welcome.places, strict=True):
            if ring.run != welcome.run:
                ring.place(place, welcome.run, shared)
        # One feed in band puts all there: a FRAME with pixels and one without are never mixed.
        moved = [ring for ring in self.rings if ring.attached]
        if len(moved) < len(self.rings) and moved:
            for ring, place in zip(self.rings, welcome.places, strict=True):
                if ring.attached:
                    ring.place(place, welcome.run, False)
        again = welcome.run == self._run and self.attached and not self.rings[0].attached
        self._run, self._session = welcome.run, welcome.session
        self.attached = self.rings[0].attached
        self.codec = "" if self.attached else welcome.codec
        self.connected, self.refused, self._waiting, self._turned_ns = True, "", False, 0
        self._send(message.head(message.ATTACHED if self.attached else message.INBAND, self._session))
        if again:
            self._disconnect()  # the receiver counts on slots of before, which are void now

    @property
    def turning(self) -> bool:
        """Other feeds were announced, and the receiver makes memory for them or has not answered yet."""
        if self.connected or self.refused or not self._turned_ns:
            return False
        since_ns = now_ns() - self._turned_ns
        makes_ready = self._waiting and self._asked_ns and since_ns < PATIENCE_S * 1e9
        return bool(makes_ready) or since_ns < self._timeout_ns

    @property
    def _gives_up(self) -> bool:
        """Nothing is to be waited for any more."""
        gone = self._context is None or (not self.connected and self.asked_to_end())
        return gone or self.stop_requested

    def _flush(self) -> bool:
        """Say what waits to be said; False where there is no room."""
        raise NotImplementedError

    def _send(self, part: bytes) -> bool:
        try:
            self._socket.send(part, zmq.NOBLOCK)
        except zmq.ZMQError:  # no room or no connection
            return False
        return True

    def _shut(self) -> None:
        if self._context is None:
            return
        self.connected = False
        if self._watch is not None:
            self._watch.close()
        self._socket.close(linger=0)
        self._context.term()
        self._context = None
        for ring in self.rings:
            ring.close()
