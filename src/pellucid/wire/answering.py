"""The thread of a session that listens for requests of other processes, and answers each.

It sleeps while nobody asks; commands run in threads of their own (`control_work`). Who may ask, and by which socket, is
said by those who use it: `control` for this computer, `view_door` for others.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import zmq

from pellucid.errors import WireError, did_you_mean
from pellucid.metrics import now_ns
from pellucid.wire.control_message import ANSWER_LIMIT, REQUEST_LIMIT, one_line, pack, unpack
from pellucid.wire.control_work import Asked, Command, Work

__all__ = ["Answering"]

_LINGER_MS = 500
_ENDING = "the session is ending"


class Answering:
    """Base of the two ends at which a session may be asked.

    Parameters
    ----------
    commands
        Name -> what is done. They are called one at a time, in another thread than the session's.
    answer_s
        After so long a request is answered in any case.
    """

    _look_ms = 60_000
    """At the latest after so long `_look` is called."""

    def __init__(self, commands: Mapping[str, Command], answer_s: float) -> None:
        self._commands = dict(commands)
        self._work = Work(self._commands, self._wake)
        self._answer_ns = round(answer_s * 1e9)
        self._ending = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._context: zmq.Context[zmq.Socket[bytes]]
        self._socket: zmq.Socket[bytes]

    def _begin(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], name: str) -> None:
        """Listen at a socket that is bound, and own it from here on."""
        self._context, self._socket = context, socket
        self._wakes, self._waker = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self._wakes.bind("inproc://wake")
        self._waker.connect("inproc://wake")
        self._ending = False
        self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
        self._thread.start()

    def _end(self) -> bool:
        """Let the command that runs end or its time be over, and answer it; tell whether there was anything to end."""
        if self._thread is None:
            return False
        with self._lock:
            self._ending = True
        self._wake()
        self._thread.join()
        self._thread = None
        self._let_go()
        self._socket.close(_LINGER_MS)
        with self._lock:
            self._waker.close(0)
        self._wakes.close(0)
        return True

    # ---------------------------------------------------------------- what the others say

    def _look(self) -> None:
        """Look after whatever there is, after each request and now and then."""

    def _let_go(self) -> None:
        """Give back what hangs on the socket, once nobody listens and before it is closed."""

    def _receive(self) -> tuple[bytes, tuple[bytes, ...], Mapping[str, Any]]:
        """Return the route of a request, its parts, and what is added to what it gives to its command."""
        route, *parts = self._socket.recv_multipart()
        return route, tuple(parts), {}

    def _let_in(self, found: dict[str, Any]) -> None:
        """Take out of a request what shows that it may ask, or raise `WireError`."""

    def _unknown(self, command: str) -> str:
        """Say that there is no such command."""
        near = did_you_mean(command, self._commands)
        known = ", ".join(self._commands) or "none"
        return f'no command "{command}" in this session.{near} Known: {known}'

    # ---------------------------------------------------------------- the thread that listens

    def _listen(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wakes, zmq.POLLIN)
        while not self._ending or self._work.owes:
            due = self._work.due_ns
            wait_ms = self._look_ms if due is None else max(0, (due - now_ns()) // 1_000_000 + 1)
            ready = dict(poller.poll(min(wait_ms, self._look_ms)))
            if self._wakes in ready:
                self._wakes.recv()
            if self._socket in ready:
                self._take(*self._receive())
            for asked, answer in self._work.go_on(_ENDING if self._ending else ""):
                self._answer(asked.route, answer)
            self._look()
        for _ in range(100):  # those that came meanwhile are not left without an answer
            if not self._socket.poll(0):
                break
            self._take(*self._receive())

    def _take(self, route: bytes, parts: tuple[bytes, ...], more: Mapping[str, Any]) -> None:
        try:
            self._work.add(self._check(route, parts, more))
        except WireError as error:
            self._answer(route, {"error": str(error)})
        except Exception as error:  # whatever comes in, the next one is heard
            self._answer(route, {"error": f"the request could not be read: {type(error).__name__}: {error}"})

    def _check(self, route: bytes, parts: tuple[bytes, ...], more: Mapping[str, Any]) -> Asked:
        """Return what is asked, where it may be asked."""
        wrong = "the request is wrong: "
        if len(parts) != 1:
            raise WireError(f"{wrong}it has {len(parts)} parts; one is needed")
        try:
            found = unpack(parts[0], REQUEST_LIMIT)
        except WireError as error:
            raise WireError(f"{wrong}{error}") from None
        self._let_in(found)
        command, given, until_ns = found.pop("command", None), found.pop("given", {}), found.pop("until_ns", None)
        if found:
            raise WireError(f'{wrong}"{one_line(min(found))[:60]}" is not known in it')
        if not isinstance(command, str) or not isinstance(given, dict):
            raise WireError(f"{wrong}command is a text, and given an object")
        if until_ns is not None and (not isinstance(until_ns, int) or isinstance(until_ns, bool)):
            raise WireError(f"{wrong}until_ns is a whole number")
        if command not in self._commands:
            raise WireError(self._unknown(one_line(command)[:60]))
        if self._ending:
            raise WireError(f"{command} was not begun: {_ENDING}")
        now = now_ns()
        last = now + self._answer_ns
        if until_ns is not None and until_ns <= now:
            # The session stood still meanwhile. A take that begins minutes after the button would surprise.
            raise WireError(f"{command} was not begun: who asked for it waits no longer")
        return Asked(route, command, {**given, **more}, now, last if until_ns is None else min(last, until_ns))

    def _answer(self, route: bytes, answer: dict[str, Any]) -> None:
        if "ok" not in answer:
            answer = {"error": one_line(answer["error"])}
        try:
            data = pack(answer, ANSWER_LIMIT)
        except WireError as error:
            data = pack({"error": f"it was done, but its answer cannot be sent: {error}"}, ANSWER_LIMIT)
        with contextlib.suppress(zmq.ZMQError):  # nobody waits for it any more
            self._socket.send_multipart([route, data], zmq.NOBLOCK)

    # ---------------------------------------------------------------- from any thread

    def _wake(self) -> None:
        with self._lock:
            if not self._waker.closed:
                with contextlib.suppress(zmq.ZMQError):
                    self._waker.send(b"", zmq.NOBLOCK)
