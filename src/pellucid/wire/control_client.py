"""Speaks to a session that runs in another process: finds it, asks, waits a bounded time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.wire.control_file import Running, running_sessions, runtime_folder
from pellucid.wire.control_message import ANSWER_LIMIT, PATIENCE_S, REQUEST_LIMIT, one_line, pack, unpack

__all__ = ["ControlClient"]

_LOOK_MS = 200


class ControlClient:
    """A connection to one session; for one thread at a time. Use it with ``with``.

    Parameters
    ----------
    session
        As `find` finds it.
    """

    def __init__(self, session: Running) -> None:
        self.session = session
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None

    @classmethod
    def find(cls, which: str | None = None) -> ControlClient:
        """Return a connection to a running session of this user.

        Parameters
        ----------
        which
            Number of its process, its address, or path, name or stem of its config; None: the only one that runs.

        Raises
        ------
        WireError
            Where none or several fit: which ones run, and what to type.
        """
        there = running_sessions()
        fit = there if which is None else [session for session in there if session.answers_to(which)]
        if len(fit) == 1:
            return cls(fit[0])
        if not there:
            asked = "" if which is None else f'--session "{one_line(which)}": '
            where = f"no session of yours runs on this computer (none has a file in {runtime_folder()})"
            raise WireError(f"{asked}{where}. Start one: pellucid run CONFIG.toml")
        if which is None:
            raise WireError(f"{len(there)} sessions run: {_list(there)}. Say which: {_one_of(there, there)}")
        given = f'--session "{one_line(which)}"'
        if not fit:
            raise WireError(f"{given}: no such session. Running: {_list(there)}. Type {_one_of(there, there)}")
        raise WireError(f"{given}: {len(fit)} sessions are called so: {_list(fit)}. Type {_one_of(fit, there)}")

    def ask(
        self, command: str, given: Mapping[str, Any] | None = None, *, timeout_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Have the session do something and return what its command returned.

        Parameters
        ----------
        command
            One of ``session.commands``.
        given
            What the command takes; JSON types, 64 KiB at most.
        timeout_s
            The command is not begun later than that.

        Raises
        ------
        WireError
            What the session answered instead, or that it did not answer.
        """
        table = {"token": self.session.token, "command": command, "given": dict(given or {})}
        end = now_ns() + round(timeout_s * 1e9)
        try:
            data = pack({**table, "until_ns": end}, REQUEST_LIMIT)
        except WireError as error:
            raise WireError(f"{one_line(command)}: the request cannot be sent: {error}") from None
        socket = self._connected()
        socket.send(data)
        while not socket.poll(max(0, min(_LOOK_MS, (end - now_ns()) // 1_000_000))):
            if not self.session.lives():
                self._forget()
                raise WireError(f"the session {self.session.name} ended before it answered {one_line(command)}")
            if now_ns() >= end:
                self._forget()
                raise WireError(
                    f"the session {self.session.name} did not answer {one_line(command)} within {timeout_s:g} s, "
                    "though its process is there: look into the terminal in which it runs"
                )
        return self._answer(command, socket.recv_multipart())

    def close(self) -> None:
        """End the connection; safe more than once."""
        self._forget()
        self._context.term()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            public, secret = zmq.curve_keypair()
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.maxmsgsize = ANSWER_LIMIT
            socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.curve_serverkey = self.session.key.encode()
            socket.connect(self.session.address)
            self._socket = socket
        return self._socket

    def _forget(self) -> None:
        """Drop the socket, so that an answer that comes late is not taken for that of the next request."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _answer(self, command: str, parts: Sequence[bytes]) -> dict[str, Any]:
        try:
            found = unpack(parts[0] if len(parts) == 1 else b"", ANSWER_LIMIT)
        except WireError as error:
            raise WireError(f"the session's answer to {one_line(command)} is damaged: {error}") from None
        if found.pop("ok", None) is True:
            return found
        raise WireError(one_line(found.get("error", "the session answered neither ok nor error")))


def _list(sessions: Sequence[Running]) -> str:
    return ", ".join(f"{session.name} since {session.began[11:19]}" for session in sessions)


def _one_of(fit: Sequence[Running], there: Sequence[Running]) -> str:
    """Return what to type for the last of those that fit: of a process with several sessions its number says little."""
    last = fit[-1]
    names = [str(last.pid), Path(last.config).name, last.address]
    return "--session " + next(n for n in names if n and sum(session.answers_to(n) for session in there) == 1)
