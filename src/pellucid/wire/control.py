"""The end of a session at which another process may ask something of it: ``pellucid record start``.

It listens on this computer only, at a port that is free, with keys made for it, and says in a file that only the user
may read (`control_file`) how it is reached. Who has read that file may ask; everybody else fails in the handshake,
before a byte of a message is taken.

How requests are taken and answered is `answering`'s.
"""

from __future__ import annotations

import contextlib
import hmac
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zmq

from pellucid.errors import WireError
from pellucid.wire.answering import Answering
from pellucid.wire.control_file import Running, runtime_folder
from pellucid.wire.control_message import ANSWER_LIMIT, ANSWER_S, one_line
from pellucid.wire.control_work import Command

__all__ = ["Command", "ControlServer", "reachable"]

_HERE = re.compile(r"tcp://127(\.\d{1,3}){3}:(\d{1,5}|\*)")


class ControlServer(Answering):
    """Answers other processes of this user.

    Parameters
    ----------
    commands
        Name -> what is done. They are called one at a time, in another thread than the session's.
    address
        A loopback address of ZeroMQ, ``tcp://127.0.0.1:PORT``; None: a port that is free.
    config
        What the session runs, by which it can be told from others: a path, or a name.
    answer_s
        After so long a request is answered in any case.

    Attributes
    ----------
    running : Running
        How it is reached, once it is open.
    refused : int
        Requests with a wrong token.

    Notes
    -----
    ``open`` -> ``close``; or ``with``.
    """

    running: Running

    def __init__(
        self,
        commands: Mapping[str, Command],
        address: str | None = None,
        *,
        config: str = "",
        answer_s: float = ANSWER_S,
    ) -> None:
        super().__init__(commands, answer_s)
        self.refused = 0
        self._address = address or "tcp://127.0.0.1:*"
        if not _HERE.fullmatch(self._address):
            raise WireError(f'control address "{one_line(address)}": only this computer, such as tcp://127.0.0.1:5600')
        self._config = config
        with contextlib.suppress(OSError, ValueError):  # then it is a name
            self._config = str(Path(config).resolve()) if config and Path(config).is_file() else config

    def open(self) -> ControlServer:
        """Listen, and write the file by which the session is found.

        Raises
        ------
        WireError
            Where the port is taken, the folder cannot be written, or this libzmq has no CURVE.
        """
        folder = runtime_folder()
        if not zmq.has("curve"):
            raise WireError('this libzmq has no CURVE. Type: pip install --force-reinstall "pyzmq>=26"')
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            socket = context.socket(zmq.ROUTER)
            socket.maxmsgsize = ANSWER_LIMIT  # beyond what a request may have: one that is too large is told so
            public, secret = zmq.curve_keypair()
            socket.curve_server = True
            socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.bind(self._address)
            address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            self.running = Running.here(address, public.decode(), self._config, tuple(self._commands))
            self._file = self.running.announce(folder)
        except zmq.ZMQError as error:
            context.destroy(0)
            raise WireError(f"nothing can listen at {self._address}: {error}") from None
        except BaseException:
            context.destroy(0)
            raise
        self._begin(context, socket, "pellucid control")
        return self

    def close(self) -> None:
        """Be found no longer, let the command that runs end or its time be over, and answer it; safe more than once."""
        if self._thread is None:
            return
        with self._lock:
            self._ending = True
        self._remove_file()
        self._end()
        self._remove_file()
        self._context.term()

    def __enter__(self) -> ControlServer:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _let_in(self, found: dict[str, Any]) -> None:
        token = found.pop("token", "")
        if not isinstance(token, str) or not hmac.compare_digest(
            token.encode("utf-8", "surrogatepass"), self.running.token.encode()
        ):
            self.refused += 1
            raise WireError("the request is refused: its token is not the one in the session's file")

    def _look(self) -> None:
        """Write the file again where it was swept away: systems clean folders below ``/tmp`` after some days."""
        with self._lock, contextlib.suppress(OSError, WireError):
            if not self._ending and not self._file.exists():
                self.running.announce(self._file.parent, self._file.name)

    def _remove_file(self) -> None:
        for _ in range(10):
            try:
                self._file.unlink(missing_ok=True)
                return
            except PermissionError:  # Windows, while somebody reads it
                time.sleep(0.02)
            except OSError:
                return


@contextlib.contextmanager
def reachable(parts: Mapping[str, Any], config: str, note: Callable[[str], None]) -> Iterator[ControlServer | None]:
    """Let other processes speak to a session while it runs; it runs all the same where they cannot.

    Parameters
    ----------
    parts
        Name -> part, such as the session's sinks; those that have a method ``commands()`` are asked for theirs.
    config
        Path or name of what it runs.
    note
        Takes a line for the user where something is amiss.
    """
    commands: dict[str, Command] = {}
    for name, part in parts.items():
        try:
            offered = dict(getattr(part, "commands", dict)())
        except Exception as error:  # a plugin's
            note(f"{name}: its commands cannot be asked for: {type(error).__name__}: {one_line(error)}")
            continue
        for command, function in offered.items():
            if command in commands:
                note(f"{name}: another sink has a command {command} already; it is that one that is asked")
            commands.setdefault(command, function)
    server: ControlServer | None = None
    try:
        server = ControlServer(commands, config=config).open()
    except WireError as error:
        note(f"other processes cannot speak to this session (pellucid record): {error}")
    try:
        yield server
    finally:
        if server is not None:
            server.close()
            if server.refused:
                note(f"requests of other processes that had a wrong token and were refused: {server.refused}")
