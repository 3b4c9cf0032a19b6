"""Who may send: a receiver's handshakes, at the start of a run and after every break."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Callable, Sequence

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.protocols import Account
from pellucid.wire import message
from pellucid.wire.codec import can_unpack
from pellucid.wire.door import Door
from pellucid.wire.feed import Feed
from pellucid.wire.handshake import Hello
from pellucid.wire.keys import Curve
from pellucid.wire.landing import Landing
from pellucid.wire.memory import SlotMemory
from pellucid.wire.message import BadMessage, Totals
from pellucid.wire.numbering import Numbering
from pellucid.wire.run import Run, Turn
from pellucid.wire.seat import Seat

__all__ = ["Reception"]


class Reception:
    """The half of a `Receiver` that knows nothing of frames: one seat, and who gets it.

    Parameters, attributes and errors are those of `Receiver`.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        curve: Curve | None = None,
        planes: Sequence[str] = ("raw",),
        heartbeat_s: float = 0.5,
        timeout_s: float = 3.0,
        turns: bool = False,
    ) -> None:
        self._door = Door(endpoint, curve)
        self.endpoint = self._door.endpoint
        self._planes = tuple(planes)
        self._turns = turns
        self._heartbeat_ns, self._timeout_ns = round(heartbeat_s * 1e9), round(timeout_s * 1e9)
        self.state = "waiting"
        self.totals: Totals | None = None
        self.ignored: Counter[str] = Counter()
        self.turn: Turn | None = None
        self._asking: tuple[bytes, Hello] | None = None
        self._run: Run | None = None
        self._seat: Seat | None = None
        self._grants: deque[tuple[int, int, bytes]] = deque()
        self._stopping = False
        self._tended_ns = self._called_ns = 0

    @property
    def hello(self) -> Hello | None:
        """What the sender said of itself."""
        return self._seat.hello if self._seat is not None else None

    @property
    def attached(self) -> bool:
        """Whether the sender writes into this side's memory."""
        return self._seat is not None and self._seat.attached

    @property
    def sender_is_dead(self) -> bool:
        """Whether the sender's process is known to have died, so that only another one can come."""
        return self.state == "gone" and self._seat is not None and not self._seat.session

    @property
    def quarantined(self) -> int:
        """Slots of a silent sender that it may still write into."""
        return self._run.landing.quarantined if self._run is not None else 0

    def accept(self, timeout_s: float, tell: Callable[[str], None] = lambda line: None) -> Hello | None:
        """Wait for a sender and return what it offers; answer it with `welcome` or `refuse`.

        Of several that wait, the one that spoke last is taken: those before it may have given up.

        Parameters
        ----------
        timeout_s
            How long to wait.
        tell
            Called with a line about somebody who cannot come in for want of the right keys.
        """
        end_ns = now_ns() + round(timeout_s * 1e9)
        self._asking = None
        while True:
            got = self._door.receive()
            if got is not None:
                try:
                    self._greet(got[0], got[1])
                except BadMessage as bad:
                    self._ignore(str(bad), got[0], got[1])
            for line in self._door.sent_away():
                tell(line)
            left_ns = end_ns - now_ns()
            if self._asking is not None and (got is None or left_ns <= 0):
                route, hello = self._asking
                self._door.send(route, message.head(message.WAIT, 0))
                return hello
            if left_ns <= 0:
                return None
            if got is None:
                self._door.wait(min(left_ns, 200_000_000))

    def _greet(self, route: bytes, part: bytes) -> None:
        kind, session = message.read_head(part)
        if kind == message.BEAT:
            self._door.send(route, message.head(message.STALE, session))
        if kind != message.HELLO:
            raise BadMessage("no session")
        hello = Hello.read(part)
        without = [i for i, feed in enumerate(hello.feeds) if not any(name in feed.planes for name in self._planes)]
        if without:
            self._refuse(route, f"feed {without[0]} has none of the planes {', '.join(self._planes)}")
        else:
            self._asking = (route, hello)

    def welcome(self, memories: Sequence[SlotMemory], account: Account) -> None:
        """Begin a run with the sender that `accept` returned.

        Parameters
        ----------
        memories
            One for each feed of the sender; shared ones, if the sender is to write into them.
        account
            Told of all that does not arrive.

        Raises
        ------
        WireError
            Where a memory does not fit.
        """
        if self._asking is None:
            raise WireError("there is no sender to welcome")
        route, hello = self._asking
        self._asking = None
        landing = Landing(hello.feeds, self._planes, memories)
        numbering = Numbering(account, hello.next_seq, len(hello.feeds))
        self._run = Run(landing, numbering, account, secrets.token_hex(16), list(hello.feeds))
        self.totals, self.turn = None, None
        self._grants.clear()
        self._stopping = False
        for why, count in self.ignored.items():
            for _ in range(min(count, 1000)):
                account.ignore(why)
        self._take_seat(self._run, route, hello, ())

    def extend(self, memories: Sequence[SlotMemory], streams: Sequence[int] | None = None) -> None:
        """Let the sender go on that waits in `turn`.

        Parameters
        ----------
        memories
            One for each of the turn's positions. What was granted at a position that another feed had is void, and
            the memory that it lay in is not touched any more.
        streams
            Numbers by which the account and the frames' ``info`` name these streams; numbered on where not given.

        Raises
        ------
        WireError
            Where a memory does not fit.
        """
        run, turn = self._run, self.turn
        if run is None or turn is None:
            raise WireError("there is no sender that waits for memory")
        if len(memories) != len(turn.positions):
            raise WireError(f"the sender has {len(turn.positions)} new feeds and there is memory for {len(memories)}")
        numbers = list(streams) if streams is not None else []
        numbers = numbers or [max(run.numbering.streams) + 1 + i for i in range(len(memories))]
        for position, memory, number in zip(turn.positions, memories, numbers, strict=True):
            feed = turn.hello.feeds[position]
            run.landing.turn(position, feed, memory)
            run.numbering.streams[position : position + 1] = [number]
        changed = set(turn.positions)
        self._grants = deque(grant for grant in self._grants if grant[0] not in changed)
        self.turn = None
        self._rejoin(run, turn.route, turn.hello)

    def refuse(self, reason: str) -> None:
        """Send the sender that `accept` returned away, or the one that waits in `turn`."""
        if self._asking is not None:
            self._refuse(self._asking[0], reason)
            self._asking = None
        if self.turn is not None:
            self._refuse(self.turn.route, reason)

    def _refuse(self, route: bytes, reason: str) -> None:
        self._door.send(route, message.pack(message.REFUSE, 0, reason.encode()[:1000]))

    def _take_seat(self, run: Run, route: bytes, hello: Hello, kept: tuple[tuple[int, int], ...]) -> None:
        codec = hello.codec if can_unpack(hello.codec) else ""
        self._seat = Seat(route, hello, run.name, run.landing.places, kept, run.numbering.expected_of_sender, codec)
        self.state = "connected"
        self._called_ns, self._tended_ns = now_ns(), 0
        self._door.send(route, self._seat.welcome)

    def _hello_again(self, run: Run, seat: Seat, route: bytes, part: bytes) -> None:
        """Someone wants in while a run is on: the sender after a break, its successor, or a stranger."""
        hello = Hello.read(part)
        here = seat.hello
        known = self.turn.hello if self.turn is not None else here
        if self.state == "ended" and hello.uid == here.uid:
            self._door.send(route, message.head(message.BYE_ACK, seat.session))  # the first answer was lost
        elif self.state == "ended":
            self._refuse(route, "this run has ended; start the session again")
        elif hello.uid == known.uid:
            if hello.attempt == here.attempt and hello.uid == here.uid and self.turn is None:
                seat.route = route
                self._door.send(route, seat.welcome)
            elif hello.attempt >= known.attempt:
                self._go_on(run, route, hello)
        elif self._is_free(run, seat, known, route, hello):
            self._go_on(run, route, hello)

    def _is_free(self, run: Run, seat: Seat, here: Hello, route: bytes, hello: Hello) -> bool:
        """Tell whether another sender may have the seat; answer it where not."""
        run.landing.hold(hello.uid, hello.held if hello.run == run.name else ())
        if self.state == "connected" and seat.writer.is_dead:
            self._lose(run, seat)
        if self.state != "gone":
            self._refuse(route, f'{message.BUSY} ("{here.name}", process {here.pid}) is connected')
        return self.state == "gone"

    def _go_on(self, run: Run, route: bytes, hello: Hello) -> None:
        """Give the seat to a sender that may have it, at once or when there is memory for what is new."""
        positions = tuple(i for i, feed in enumerate(hello.feeds) if i >= len(run.feeds) or self._is_new(run, i, hello))
        fewer = len(hello.feeds) < len(run.feeds)
        if not (positions or fewer):
            self.turn, before = None, self._seat
            self._rejoin(run, route, hello)
            if before is not None and self._seat is not None and before.hello.uid == hello.uid:
                self._seat.follows(before)  # after a turn it may have to start its camera anew
        elif fewer or not self._turns:
            self._refuse(route, f"this run takes frames of {_describe(run.feeds)}; yours are {_describe(hello.feeds)}")
        else:
            self.turn = Turn(hello, positions, route)
            self.state = "turning"
            self._door.send(route, message.head(message.WAIT, 0))

    def _is_new(self, run: Run, position: int, hello: Hello) -> bool:
        """Tell whether a feed is another one than that which the run has at its position."""
        mine, yours = run.feeds[position], hello.feeds[position]
        if self._seat is not None and self._seat.hello.uid == hello.uid:
            return mine.generation != yours.generation or mine.planes != yours.planes
        # Another sender has generations of its own; the same camera with the same frames goes on as it was.
        return (mine.stream.camera, mine.stream.channel, mine.planes) != (
            yours.stream.camera,
            yours.stream.channel,
            yours.planes,
        )

    def _rejoin(self, run: Run, route: bytes, hello: Hello) -> None:
        """Give the seat to a sender for whose feeds there is memory."""
        assert self._seat is not None
        held = hello.held if hello.run == run.name else ()
        run.feeds = list(hello.feeds)
        if hello.uid != self._seat.hello.uid:
            run.landing.replace(self._seat.writer)
            run.numbering.join(hello.next_seq)
        self._take_seat(run, route, hello, run.landing.rejoin(hello.uid, held))

    def _lose(self, run: Run, seat: Seat) -> None:
        """Hold the sender for gone: count what is known, and wait for it or a successor."""
        self.state = "gone"
        run.landing.quarantine(seat.writer)
        run.numbering.left()
        if seat.writer.is_dead:
            self._bury(run, seat)

    def _bury(self, run: Run, seat: Seat) -> None:
        """End the session of a sender whose process is dead: nothing of it can come any more."""
        seat.session = 0
        run.landing.release_dead()
        run.numbering.settle()

    def _ignore(self, why: str, route: bytes, part: bytes) -> None:
        if why == "version" and part[3] == message.HELLO:
            self._refuse(route, f"you speak version {part[2]} of the protocol, this side {message.VERSION}")
        self.ignored[why] += 1
        if self._run is not None:
            self._run.account.ignore(why)


def _describe(feeds: Sequence[Feed]) -> str:
    return "; ".join(", ".join(f"{name} {spec}" for name, spec in feed.planes.items()) for feed in feeds)
