"""The receiver's socket: bound where it may be, open to whom it may be, never waiting."""

from __future__ import annotations

from typing import cast

import zmq

from pellucid.errors import WireError
from pellucid.wire import message
from pellucid.wire.handshake import MAX_PLANE_BYTES, PLANES_MAX
from pellucid.wire.keys import Curve, Gate, check_endpoint, is_loopback, protect

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
        self._context = zmq.Context()
        self._gate: Gate | None = None
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
            socket.bind(place)
        except zmq.ZMQError as error:
            self.close()
            why = "is taken by another program" if error.errno == zmq.EADDRINUSE else f"cannot be used ({error})"
            raise WireError(f"{endpoint} {why}. Choose another port, for example tcp://127.0.0.1:*") from None
        self.endpoint = cast(bytes, socket.last_endpoint).rstrip(b"\0").decode()

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

    def close(self) -> None:
        """Close the socket; safe more than once."""
        if self._context.closed:
            return
        self._socket.close(linger=500)  # an answer to BYE may be on its way
        if self._gate is not None:
            self._gate.close()
        self._context.term()
