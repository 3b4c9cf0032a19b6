"""Who may send: a receiver's handshakes, at the start of a run and after every break."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.protocols import Account
from pellucid.wire import message
from pellucid.wire.door import Door
from pellucid.wire.handshake import Feed, Hello
from pellucid.wire.keys import Curve
from pellucid.wire.landing import Landing
from pellucid.wire.memory import SlotMemory
from pellucid.wire.message import BadMessage, Totals
from pellucid.wire.numbering import Numbering
from pellucid.wire.seat import Seat

__all__ = ["Reception", "Run"]


@dataclass
class Run:
    """What outlives a sender: the memory, and the count of frames."""

    landing: Landing
    numbering: Numbering
    account: Account
    name: str


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
    ) -> None:
        self._door = Door(endpoint, curve)
        self.endpoint = self._door.endpoint
        self._planes = tuple(planes)
        self._heartbeat_ns, self._timeout_ns = round(heartbeat_s * 1e9), round(timeout_s * 1e9)
        self.state = "waiting"
        self.totals: Totals | None = None
        self.ignored: Counter[str] = Counter()
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

    def accept(self, timeout_s: float) -> Hello | None:
        """Wait for a sender and return what it offers; answer it with `welcome` or `refuse`.

        Of several that wait, the one that spoke last is taken: those before it may have given up.
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
        self._run = Run(landing, Numbering(account, hello.next_seq), account, secrets.token_hex(16))
        self.totals = None
        self._grants.clear()
        self._stopping = False
        for why, count in self.ignored.items():
            for _ in range(min(count, 1000)):
                account.ignore(why)
        self._take_seat(self._run, route, hello, ())

    def refuse(self, reason: str) -> None:
        """Send the sender that `accept` returned away."""
        if self._asking is not None:
            self._refuse(self._asking[0], reason)
            self._asking = None

    def _refuse(self, route: bytes, reason: str) -> None:
        self._door.send(route, message.pack(message.REFUSE, 0, reason.encode()[:1000]))

    def _take_seat(self, run: Run, route: bytes, hello: Hello, kept: tuple[tuple[int, int], ...]) -> None:
        self._seat = Seat(route, hello, run.name, run.landing.places, kept)
        self.state = "connected"
        self._called_ns, self._tended_ns = now_ns(), 0
        self._door.send(route, self._seat.welcome)

    def _hello_again(self, run: Run, seat: Seat, route: bytes, part: bytes) -> None:
        """Someone wants in while a run is on: the sender after a break, its successor, or a stranger."""
        hello = Hello.read(part)
        here = seat.hello
        held = hello.held if hello.run == run.name else ()
        if self.state == "ended":
            self._refuse(route, "this run has ended; start the session again")
        elif [feed.planes for feed in hello.feeds] != [feed.planes for feed in here.feeds]:
            self._refuse(route, f"this run takes frames of {_describe(here.feeds)}; yours are {_describe(hello.feeds)}")
        elif hello.uid == here.uid:
            if hello.attempt == here.attempt:
                self._door.send(route, seat.welcome)
            elif hello.attempt > here.attempt:
                self._take_seat(run, route, hello, run.landing.rejoin(hello.uid, held))
        else:
            run.landing.hold(hello.uid, held)
            if self.state == "connected" and seat.writer.is_dead:
                self._lose(run, seat)
            if self.state == "connected":
                self._refuse(route, f'another sender ("{here.name}", process {here.pid}) is connected')
                return
            run.landing.replace(seat.writer)
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
