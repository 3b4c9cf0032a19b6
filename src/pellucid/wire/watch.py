"""What happens to a socket's connections: they break, and handshakes fail for want of the right keys.

libzmq connects anew by itself and says nothing of it to whoever sends; but what was on its way is gone, so that a
sender has to know. It tells as events, which a second socket collects.
"""

from __future__ import annotations

from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

__all__ = ["BROKEN", "DENIED", "MISFIT", "NO_KEYS", "OPENED", "VAGUE", "Watch"]

BROKEN, OPENED = "broken", "opened"
"""The connection is gone; it is there."""
DENIED, MISFIT, NO_KEYS, VAGUE = "denied", "misfit", "no keys", "vague"
"""The key is not on the list; keys do not fit; only one side has keys; the handshake failed, nobody says why."""

_EVENTS = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Watch:
    """Collects what happens; to be opened before the socket connects or binds, and closed before it closes."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._events: zmq.Socket[bytes] | None = socket.get_monitor_socket(_EVENTS)

    def news(self) -> list[str]:
        """Return what has happened since the last call."""
        found: list[str] = []
        while self._events is not None:
            try:
                event: Any = parse_monitor_message(self._events.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
            found.append(_what(event["event"], event["value"]))
        return found

    def close(self) -> None:
        """Stop watching; safe more than once."""
        if self._events is not None:
            self._socket.disable_monitor()
            self._events.close(linger=0)
            self._events = None


def _what(event: int, value: int) -> str:
    if event == zmq.EVENT_DISCONNECTED:
        return BROKEN
    if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        return OPENED
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return DENIED
    if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        return NO_KEYS
    return MISFIT if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC else VAGUE
