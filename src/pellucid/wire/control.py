"""The end of a session at which another process may ask something of it: ``pellucid record start``.

It listens on this computer only, at a port that is free, with keys made for it, and says in a file that only the user
may read (`control_file`) how it is reached. Who has read that file may ask; everybody else fails in the handshake,
before a byte of a message is taken.

One thread listens and answers, and sleeps while nobody asks; commands run in threads of their own (`control_work`).
"""

from __future__ import annotations

import contextlib
import hmac
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zmq

from pellucid.errors import WireError, did_you_mean
from pellucid.metrics import now_ns
from pellucid.wire.control_file import Running, runtime_folder
from pellucid.wire.control_message import ANSWER_LIMIT, ANSWER_S, REQUEST_LIMIT, one_line, pack, unpack
from pellucid.wire.control_work import Asked, Command, Work

__all__ = ["Command", "ControlServer", "reachable"]

_FILE_MS = 60_000
_LINGER_MS = 500
_HERE = re.compile(r"tcp://127(\.\d{1,3}){3}:(\d{1,5}|\*)")
_ENDING = "the session is ending"


class ControlServer:
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
        self.refused = 0
        self._commands = dict(commands)
        self._work = Work(self._commands, self._wake)
        self._address = address or "tcp://127.0.0.1:*"
        if not _HERE.fullmatch(self._address):
            raise WireError(f'control address "{one_line(address)}": only this computer, such as tcp://127.0.0.1:5600')
        self._config = config
        with contextlib.suppress(OSError, ValueError):  # then it is a name
            self._config = str(Path(config).resolve()) if config and Path(config).is_file() else config
        self._answer_ns = round(answer_s * 1e9)
        self._ending = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

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
            self._socket = context.socket(zmq.ROUTER)
            self._wakes, self._waker = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
            self._socket.maxmsgsize = ANSWER_LIMIT  # beyond what a request may have: one that is too large is told so
            public, secret = zmq.curve_keypair()
            self._socket.curve_server = True
            self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
            self._socket.bind(self._address)
            self._wakes.bind("inproc://wake")
            self._waker.connect("inproc://wake")
            address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
            self.running = Running.here(address, public.decode(), self._config, tuple(self._commands))
            self._file = self.running.announce(folder)
        except zmq.ZMQError as error:
            context.destroy(0)
            raise WireError(f"nothing can listen at {self._address}: {error}") from None
        except BaseException:
            context.destroy(0)
            raise
        self._context = context
        self._ending = False
        self._thread = threading.Thread(target=self._listen, name="pellucid control", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Be found no longer, let the command that runs end or its time be over, and answer it; safe more than once."""
        if self._thread is None:
            return
        with self._lock:
            self._ending = True
        self._remove_file()
        self._wake()
        self._thread.join()
        self._thread = None
        self._remove_file()
        self._socket.close(_LINGER_MS)
        with self._lock:
            self._waker.close(0)
        self._wakes.close(0)
        self._context.term()

    def __enter__(self) -> ControlServer:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------- the thread that listens

    def _listen(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wakes, zmq.POLLIN)
        while not self._ending or self._work.owes:
            due = self._work.due_ns
            wait_ms = _FILE_MS if due is None else max(0, (due - now_ns()) // 1_000_000 + 1)
            ready = dict(poller.poll(wait_ms))
            if self._wakes in ready:
                self._wakes.recv()
            if self._socket in ready:
                self._take(*self._socket.recv_multipart())
            for asked, answer in self._work.go_on(_ENDING if self._ending else ""):
                self._answer(asked.route, answer)
            self._keep_file()
        for _ in range(100):  # those that came meanwhile are not left without an answer
            if not self._socket.poll(0):
                break
            self._take(*self._socket.recv_multipart())

    def _take(self, route: bytes, *parts: bytes) -> None:
        try:
            self._work.add(self._check(route, parts))
        except WireError as error:
            self._answer(route, {"error": str(error)})
        except Exception as error:  # whatever comes in, the next one is heard
            self._answer(route, {"error": f"the request could not be read: {type(error).__name__}: {error}"})

    def _check(self, route: bytes, parts: tuple[bytes, ...]) -> Asked:
        """Return what is asked, where it may be asked."""
        wrong = "the request is wrong: "
        if len(parts) != 1:
            raise WireError(f"{wrong}it has {len(parts)} parts; one is needed")
        try:
            found = unpack(parts[0], REQUEST_LIMIT)
        except WireError as error:
            raise WireError(f"{wrong}{error}") from None
        token = found.pop("token", "")
        if not isinstance(token, str) or not hmac.compare_digest(
            token.encode("utf-8", "surrogatepass"), self.running.token.encode()
        ):
            self.refused += 1
            raise WireError("the request is refused: its token is not the one in the session's file")
        command, given, until_ns = found.pop("command", None), found.pop("given", {}), found.pop("until_ns", None)
        if found:
            raise WireError(f'{wrong}"{one_line(min(found))[:60]}" is not known in it')
        if not isinstance(command, str) or not isinstance(given, dict):
            raise WireError(f"{wrong}command is a text, and given an object")
        if until_ns is not None and (not isinstance(until_ns, int) or isinstance(until_ns, bool)):
            raise WireError(f"{wrong}until_ns is a whole number")
        if command not in self._commands:
            command = one_line(command)[:60]
            near = did_you_mean(command, self._commands)
            known = ", ".join(self._commands) or "none"
            raise WireError(f'no command "{command}" in this session.{near} Known: {known}')
        if self._ending:
            raise WireError(f"{command} was not begun: {_ENDING}")
        now = now_ns()
        last = now + self._answer_ns
        if until_ns is not None and until_ns <= now:
            # The session stood still meanwhile. A take that begins minutes after the button would surprise.
            raise WireError(f"{command} was not begun: who asked for it waits no longer")
        return Asked(route, command, given, now, last if until_ns is None else min(last, until_ns))

    def _answer(self, route: bytes, answer: dict[str, Any]) -> None:
        if "ok" not in answer:
            answer = {"error": one_line(answer["error"])}
        try:
            data = pack(answer, ANSWER_LIMIT)
        except WireError as error:
            data = pack({"error": f"it was done, but its answer cannot be sent: {error}"}, ANSWER_LIMIT)
        with contextlib.suppress(zmq.ZMQError):  # nobody waits for it any more
            self._socket.send_multipart([route, data], zmq.NOBLOCK)

    def _keep_file(self) -> None:
        """Write the file again where it was swept away: systems clean folders below ``/tmp`` after some days."""
        with self._lock, contextlib.suppress(OSError, WireError):
            if not self._ending and not self._file.exists():
                self.running.announce(self._file.parent, self._file.name)

    # ---------------------------------------------------------------- from any thread

    def _wake(self) -> None:
        with self._lock:
            if not self._waker.closed:
                with contextlib.suppress(zmq.ZMQError):
                    self._waker.send(b"", zmq.NOBLOCK)

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
