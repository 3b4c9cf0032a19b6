"""The receiver's socket: bound where it may be, open to whom it may be, never waiting."""

from __future__ import annotations

from typing import cast

import zmq

from pellucid.errors import WireError
from pellucid.wire import message
from pellucid.wire.feed import MAX_PLANE_BYTES, PLANES_MAX
from pellucid.wire.gate import Gate
from pellucid.wire.keys import Curve, check_endpoint, is_loopback, protect
from pellucid.wire.watch import BROKEN, DENIED, MISFIT, OPENED, VAGUE, Watch

__all__ = ["Door"]


class Door:
    """A ROUTER that binds.

    Parameters
    ----------
    endpoint
        ``tcp://HOST:PORT``; port ``*`` or 0 picks a free one. Hosts that other computers can reach need keys.
    curve
        This side's keys and, if wanted, those of the senders that may come.

    Attributes
    ----------
    endpoint : str
        The real one, with its port.

    Raises
    ------
    WireError
        Where the endpoint is wrong, taken, or open to other computers without keys.
    """

    def __init__(self, endpoint: str, curve: Curve | None) -> None:
        try:
            place = check_endpoint(endpoint, bind=True)
        except ValueError as error:
            raise WireError(str(error)) from None
        if curve is None and not is_loopback(place):
            raise WireError(
                f"{endpoint} is open to other computers, which needs keys: give keys, "
                "or bind tcp://127.0.0.1:5599, which only this computer reaches"
            )
        if curve is not None and not curve.allowed and not is_loopback(place):
            raise WireError(
                f"{endpoint} is open to other computers and {curve.path} names no sender that may come. "
                f"Type: pellucid keys {curve.path} --allow KEY, with the public key of the camera's computer"
            )
        self._curve = curve
        self._sure = False
        self._context = zmq.Context()
        self._gate: Gate | None = None
        self._watch: Watch | None = None
        self._socket = socket = self._context.socket(zmq.ROUTER)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        try:
            if curve is not None and curve.allowed:
                self._gate = Gate(self._context, curve.allowed)
            socket.linger = 0
            socket.sndhwm, socket.rcvhwm = 1000, 128
            socket.router_mandatory = True  # what cannot be sent is said, not swallowed
            socket.maxmsgsize = MAX_PLANE_BYTES
            socket.ipv6 = "[" in place
            protect(socket, curve, serves=True)
            self._watch = Watch(socket)
            socket.bind(place)
        except zmq.ZMQError as error:
            self.close()
            why = "is taken by another program" if error.errno == zmq.EADDRINUSE else f"cannot be used ({error})"
            raise WireError(f"{endpoint} {why}. Choose another port, for example tcp://127.0.0.1:*") from None
        self.endpoint = cast(bytes, socket.last_endpoint).rstrip(b"\0").decode()

    @property
    def wakes(self) -> int:
        """Descriptor that becomes readable when something may have come, for another loop to wait for beside its own.

        Once a time: it stays silent until all has been received, and whatever is sent may use it up.
        """
        return cast(int, self._socket.fd)

    def wait(self, timeout_ns: int) -> None:
        """Wait until there is a message, at most so long."""
        self._poller.poll(timeout_ns // 1_000_000 + 1)

    def receive(self) -> tuple[bytes, bytes, list[zmq.Frame]] | None:
        """Return ``(route, first part, further parts)`` of a message, None where there is none. Hot.

        The first part is copied, at most so far that its length is seen to be wrong; further ones are not, and
        of too many there is just one too many.
        """
        socket = self._socket
        try:
            route: bytes = socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        first = socket.recv(copy=False)
        parts: list[zmq.Frame] = []
        more = first.more
        while more:
            part = socket.recv(copy=False)
            more = part.more
            if len(parts) <= PLANES_MAX:
                parts.append(part)
        data = first.bytes if len(first) <= message.MAX_CONTROL else bytes(first.buffer[: message.MAX_CONTROL + 1])
        return route, data, parts

    def send(self, route: bytes, part: bytes) -> bool:
        """Send a message; False where there is no room, or no such peer any more."""
        try:
            self._socket.send_multipart([route, part], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def sent_away(self) -> list[str]:
        """Return a line for each kind of trouble that somebody had with keys since the last call."""
        lines: list[str] = []
        for what in self._watch.news() if self._watch is not None else []:
            if what in (BROKEN, OPENED):
                continue
            # Of one that came once or twice nobody may have said why, and it need not come again.
            if what != VAGUE or not self._sure:
                lines.append(self._line(what))
            self._sure |= what != VAGUE
        return list(dict.fromkeys(lines))

    def _line(self, what: str) -> str:
        if what == DENIED and self._gate is not None and self._curve is not None and self._gate.refused:
            key = self._gate.refused[-1]
            return (
                f"a sender was sent away, since its key is not on the list. If it is yours, type: "
                f"pellucid keys {self._curve.path} --allow {key} and start the session again"
            )
        if self._curve is None:
            return "somebody who knocks is no sender, or one with keys, and this session has none (keys = FILE)"
        if what in (MISFIT, VAGUE):
            return (
                f"somebody who knocks is no sender, or has wrong keys: its server = must be this session's public "
                f"key, {self._curve.public}"
            )
        return "somebody who knocks has no keys; the camera's computer needs some: pellucid keys --help"

    def close(self) -> None:
        """Close the socket; safe more than once."""
        if self._context.closed:
            return
        if self._watch is not None:
            self._watch.close()
        self._socket.close(linger=500)  # an answer to BYE may be on its way
        if self._gate is not None:
            self._gate.close()
        self._context.term()
