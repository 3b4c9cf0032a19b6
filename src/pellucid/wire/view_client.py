"""Asks a session on another computer, at the door that its config opens: ``[session.view]``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import zmq

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.wire import message
from pellucid.wire.control_message import ANSWER_LIMIT, PATIENCE_S, REQUEST_LIMIT, one_line, pack, unpack
from pellucid.wire.keys import Curve, check_endpoint, protect
from pellucid.wire.view_door import HELLO
from pellucid.wire.watch import BROKEN, DENIED, OPENED, VAGUE, Watch

__all__ = ["ViewClient"]

_LOOK_MS = 100
_HELLO_S = 3.0
_TRIES = 2


class ViewClient:
    """A connection to one; for one thread at a time. Use it with ``with``.

    Parameters
    ----------
    address
        ``tcp://HOST:PORT``.
    curve
        This side's keys, and the session's public one.

    Raises
    ------
    WireError
        Where the address is none, or the keys name no session.
    """

    def __init__(self, address: str, curve: Curve) -> None:
        try:
            self.address = check_endpoint(address, bind=False)
        except ValueError as error:
            raise WireError(str(error)) from None
        if curve.server is None:
            raise WireError(
                f"{curve.path} does not say which session it goes to. On this computer make keys with: "
                "pellucid keys laptop.keys --session ITS-PUBLIC-KEY"
            )
        self._curve = curve
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._watch: Watch | None = None
        self._opened, self._failed = False, 0
        self._ahead_ns = 0

    def ask(
        self, command: str, given: Mapping[str, Any] | None = None, *, timeout_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Have the session do something and return what its command returned.

        Parameters
        ----------
        command, given
            JSON types, 64 KiB at most.
        timeout_s
            The command is not begun later than that.

        Raises
        ------
        WireError
            What the session answered instead; that nobody answers, or does not let this computer in.
        """
        if self._socket is None:
            self._greet()
        return self._ask(command, given or {}, timeout_s)

    def close(self) -> None:
        """End the connection; safe more than once."""
        self._forget()
        self._context.term()

    def __enter__(self) -> ViewClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- the connection

    def _greet(self) -> None:
        """Connect, and learn how far the session's clock is ahead: requests end by it."""
        socket = self._socket = self._context.socket(zmq.DEALER)
        try:
            socket.linger = 0
            socket.maxmsgsize = ANSWER_LIMIT
            socket.ipv6 = "[" in self.address
            protect(socket, self._curve, serves=False)
            self._watch, self._opened, self._failed = Watch(socket), False, 0
            socket.connect(self.address)
        except zmq.ZMQError as error:
            self._forget()
            raise WireError(f"{self.address} cannot be used: {error}") from None
        asked_ns = now_ns()
        answer = self._ask(HELLO, {}, _HELLO_S)
        theirs, wire = answer.get("now_ns"), answer.get("wire")
        if wire != message.VERSION or not isinstance(theirs, int):
            self._forget()
            raise WireError(
                f"{self.address} speaks version {one_line(wire)[:20]} of the wire, this computer {message.VERSION}: "
                "update the older pellucid of the two"
            )
        # By half the way there and back at most is this wrong: too little for a patience of seconds.
        self._ahead_ns = theirs - (asked_ns + now_ns()) // 2

    def _ask(self, command: str, given: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        socket = self._socket
        assert socket is not None
        end = now_ns() + round(timeout_s * 1e9)
        table: dict[str, Any] = {"command": command, "given": dict(given)}
        if command != HELLO:
            table["until_ns"] = end + self._ahead_ns
        try:
            data = pack(table, REQUEST_LIMIT)
        except WireError as error:
            raise WireError(f"{one_line(command)}: the request cannot be sent: {error}") from None
        with contextlib.suppress(zmq.Again):  # there is always room for the first, also before there is a connection
            socket.send(data, zmq.NOBLOCK)
        while not socket.poll(max(0, min(_LOOK_MS, (end - now_ns()) // 1_000_000))):
            if (why := self._trouble()) or now_ns() >= end:
                self._forget()
                raise WireError(f"{self.address}: {why or self._silence(timeout_s)}")
        parts = socket.recv_multipart()
        try:
            found = unpack(parts[0] if len(parts) == 1 else b"", ANSWER_LIMIT)
        except WireError as error:
            raise WireError(f"the session's answer to {one_line(command)} is damaged: {error}") from None
        if found.pop("ok", None) is True:
            return found
        raise WireError(one_line(found.get("error", "the session answered neither ok nor error")))

    def _trouble(self) -> str:
        """Return why the session does not let this computer in; empty where nothing is known against it."""
        for what in self._watch.news() if self._watch is not None else []:
            if what == OPENED:
                self._opened = True
            elif what == BROKEN and self._opened:
                return "the connection broke off before the session answered"
            elif what == DENIED:
                return (
                    "this computer's key is not on the list there. Type there: pellucid keys SESSION.keys --allow "
                    f"{self._curve.public}"
                )
            elif what != BROKEN:
                # A session with other keys breaks off without a word; so may a tunnel to where nobody listens, once.
                self._failed += 1
                if what != VAGUE or self._failed >= _TRIES:
                    return self._misfit()
        return ""

    def _misfit(self) -> str:
        return (
            f"the keys do not fit, or no session is to be looked at there: server = in {self._curve.path} has to be "
            "the session's public key. Type there: pellucid keys SESSION.keys, which prints it"
        )

    def _silence(self, timeout_s: float) -> str:
        if self._opened:
            return (
                f"it did not answer within {timeout_s:g} s: either the session stands still, or this is another port "
                "than that of [session.view] in its config"
            )
        if self._failed:
            return self._misfit()
        return (
            "nobody answers. Does the session run, with [session.view] in its config, and is that port open in the "
            "firewall of its computer?"
        )

    def _forget(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
