"""The end of a session at which other computers ask to look at it, and little else.

Only keys that are on the list get as far as a message. Whose key it was and which address it came from are ZeroMQ's to
say (by the handshake, and by the connection), never the request's: frames go back to that address only, and only to
who has that key. Nobody can have them sent to a third computer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import zmq

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.wire import message
from pellucid.wire.answering import Answering
from pellucid.wire.control_message import ANSWER_LIMIT
from pellucid.wire.control_work import Command
from pellucid.wire.gate import Gate
from pellucid.wire.keys import Curve, check_endpoint, protect
from pellucid.wire.watch import BROKEN, DENIED, NO_KEYS, OPENED, Watch

__all__ = ["CONNECT_S", "FROM", "HELLO", "ViewDoor", "Visitor"]

CONNECT_S = 5.0
"""So long a session tries to reach the computer that wants to look."""
ANSWER_S = CONNECT_S + 3.0
FROM = "#from"
"""Key of what a command is given: the `Visitor` who asks."""
HELLO = "view.hello"
_LOOK_MS = 1000
_LINES = 3
"""Of strangers who knock, for each kind of trouble: it is the user's terminal."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks.

    Parameters
    ----------
    address
        As it stands in an endpoint, IPv6 in brackets.
    key
        Public; the handshake has proven that it is its own.
    """

    address: str
    key: str


class ViewDoor(Answering):
    """Answers other computers.

    Parameters
    ----------
    commands
        Name -> what is done, each given `FROM` beside what the request says.
    address
        ``tcp://HOST:PORT`` to listen at.
    curve
        This session's keys, with those that may come.
    refusal
        What is said of any other command.
    note
        Takes a line for the user, of strangers who knock.

    Attributes
    ----------
    endpoint : str
        The real one, once it is open.

    Raises
    ------
    WireError
        Where the address is none, or nobody may come.
    """

    _look_ms = _LOOK_MS

    def __init__(
        self,
        commands: Mapping[str, Command],
        address: str,
        curve: Curve,
        refusal: str = "",
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__({HELLO: _hello, **commands}, ANSWER_S)
        try:
            self.endpoint = check_endpoint(address, bind=True)
        except ValueError as error:
            raise WireError(str(error)) from None
        if not curve.allowed:
            raise WireError(
                f"{curve.path} names nobody who may look. Type: pellucid keys {curve.path} --allow KEY, with the "
                "public key of the other computer"
            )
        self._curve, self._refusal, self._note = curve, refusal, note
        self._told: dict[str, int] = {}
        self._gate: Gate | None = None
        self._watch: Watch | None = None

    def open(self) -> ViewDoor:
        """Listen.

        Raises
        ------
        WireError
            Where the port is taken, or the host is none of this computer's.
        """
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.ROUTER)
        try:
            socket.maxmsgsize = ANSWER_LIMIT
            socket.heartbeat_ivl, socket.heartbeat_timeout = 1000, 5000
            socket.ipv6 = "[" in self.endpoint
            self._gate = Gate(context, self._curve.allowed)
            protect(socket, self._curve, serves=True)
            self._watch = Watch(socket)
            socket.bind(self.endpoint)
        except zmq.ZMQError as error:
            if self._watch is not None:
                self._watch.close()
            socket.close(0)
            if self._gate is not None:
                self._gate.close()
            context.term()
            why = "is taken by another program" if error.errno == zmq.EADDRINUSE else f"cannot be used ({error})"
            raise WireError(
                f"{self.endpoint} {why}. Choose another port, or another address of this computer"
            ) from None
        self.endpoint = cast(bytes, socket.last_endpoint).rstrip(b"\0").decode()
        self._begin(context, socket, "pellucid view door")
        return self

    def close(self) -> None:
        """Let nobody in any more, and answer those that are there; safe more than once."""
        if self._thread is None:
            return
        self._end()
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        self._context.term()

    # ---------------------------------------------------------------- in the thread that listens

    def _receive(self) -> tuple[bytes, tuple[bytes, ...], Mapping[str, Any]]:
        frames = self._socket.recv_multipart(copy=False)
        said = frames[-1]
        visitor = Visitor(_in_endpoint(str(said["Peer-Address"])), str(said["User-Id"]))
        return frames[0].bytes, tuple(frame.bytes for frame in frames[1:]), {FROM: visitor}

    def _unknown(self, command: str) -> str:
        return f"{command}: {self._refusal}" if self._refusal else super()._unknown(command)

    def _look(self) -> None:
        """Note who was sent away."""
        for what in self._watch.news() if self._watch is not None else []:
            if what in (BROKEN, OPENED):
                continue
            self._told[what] = self._told.get(what, 0) + 1
            if self._told[what] <= _LINES:
                self._note(self._line(what))

    def _let_go(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _line(self, what: str) -> str:
        if what == DENIED and self._gate is not None and self._gate.refused:
            return (
                "somebody who wants to look was sent away, since the key is not on the list. If it is yours, type: "
                f"pellucid keys {self._curve.path} --allow {self._gate.refused[-1]} and start the session again"
            )
        if what == NO_KEYS:
            return "somebody who wants to look has no keys: pellucid view ADDRESS --keys FILE"
        return (
            "somebody who knocks wants nothing of ours, or has wrong keys: its server = must be this session's public "
            f"key, {self._curve.public}"
        )


def _hello(_: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a visitor has to know first: the clock by which requests end, and which wire is spoken."""
    return {"now_ns": now_ns(), "wire": message.VERSION}


def _in_endpoint(address: str) -> str:
    """Return an address as it stands in an endpoint; one of IPv4 that came in through a socket of IPv6 as its own."""
    if ":" not in address:
        return address
    try:
        within = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:  # then the wire says that it goes nowhere
        within = None
    return str(within) if within is not None else f"[{address}]"
