"""A client of the ZeroMQ server of a running Micro-Manager, the one that pycromanager talks to.

Requests are JSON, answered in order by one thread over there. Several can be sent before the first answer is
waited for, which the usual client (a REQ socket) cannot: a picture costs two round trips instead of five. The
connection never renews itself: where it breaks everything known of the other side is void, so that is an exception
(`Gone`), seen at once from ZeroMQ's own events, and whoever calls attaches anew. No wait is without an end: each
looks ten times a second whether it is still wanted.

Facts of the protocol are from PyJavaZ (ZMQServer.java, ZMQSocketWrapper.java, ZMQUtil.java).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from pellucid.errors import WireError
from pellucid.metrics import now_ns
from pellucid.wire.bridge_message import Absent, Garbage, Gone, Reply, Request, Stopped, read_reply, request, value_of

__all__ = ["PORT", "Bridge", "attach"]

PORT = 4827
"""Where Micro-Manager listens, unless it is told otherwise."""
VERSION = "5.1.0"
"""Of the protocol; pyjavaz 1.1 and newer, Micro-Manager since 2023."""
CLICK = 'Tools > Options > "Run pycro-manager server on port 4827"'

SLICE_MS = 100
"""Between two looks whether a wait is still wanted."""
ANSWER_S = 10.0
"""For an answer while nothing runs yet; afterwards a long exposure of somebody else may take its time."""
HANDSHAKE_MS = 2000
TRIES = 2
"""Failed handshakes in a row until what listens there is taken for something else."""
LOOK_S = 0.5
"""Between two looks for a Micro-Manager that is not there yet."""
ENDED = "it ended, or was ended"
LARGEST = 2**30
"""Bytes of one part of a message; ZeroMQ ends the connection at a larger one, before it takes memory for it."""

_ENDS = (
    zmq.Event.CLOSED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)


class Bridge:
    """One connection; used by one thread at a time.

    Parameters
    ----------
    port
        On this computer: the server listens on the loopback only.
    stopped
        Says whether to give up; asked ten times a second during every wait, with how long it has taken so far.

    Attributes
    ----------
    limit_s : float or None
        For an answer; None: as long as the connection stands.
    broken : bool
        An answer that was asked for will not be taken any more: only `close` is left.
    objects : set of str
        What the other side keeps for this one; it is told at `close` that it need not any more.

    Raises
    ------
    Absent
        Where nothing listens.
    Gone
        Where something listens and does not shake hands, or no Micro-Manager.
    WireError
        Where its version is another one.
    """

    def __init__(self, port: int = PORT, stopped: Callable[[float], bool] = lambda waited_s: False) -> None:
        self.port = port
        self.stopped = stopped
        self.limit_s: float | None = ANSWER_S
        self.objects: set[str] = set()
        self.broken = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.reconnect_ivl = -1
        self._socket.handshake_ivl = HANDSHAKE_MS
        self._socket.connect_timeout = HANDSHAKE_MS
        self._socket.maxmsgsize = LARGEST
        self._monitor = self._socket.get_monitor_socket()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._connected = self._greeted = False
        try:
            self._socket.connect(f"tcp://127.0.0.1:{port}")
            (hello,) = self.ask(request("connect", debug=False))
            self._check_version(hello)
        except BaseException:
            self.close()
            raise

    def _check_version(self, hello: Reply) -> None:
        if hello["type"] != "none":
            raise Garbage(f"it answers {str(hello)[:80]}")
        version = hello.get("version", "2.0.0")  # the first ones did not say
        if version == VERSION:
            return
        try:
            older = [int(n) for n in str(version).split(".")] < [int(n) for n in VERSION.split(".")]
        except ValueError:
            raise Garbage(f"it says version {str(version)[:20]!r}") from None
        update = "Update Micro-Manager" if older else "Update pellucid"
        raise WireError(
            f"port = {self.port}: Micro-Manager's bridge has version {version}, and this one speaks {VERSION}. {update}"
        )

    # ---------------------------------------------------------------- messages

    def ask(self, *requests: Request) -> list[Reply]:
        """Send all requests and return their answers, in order.

        An answer is the JSON as it came, with the array in its ``value`` where it has one; an exception over there
        is an answer too (see `value_of`).

        Raises
        ------
        Gone
            Where the connection breaks, or an answer cannot be read (`Garbage`), or none comes within `limit_s`.
        Stopped
        """
        self.send(*requests)
        return [self.receive() for _ in requests]

    def send(self, *requests: Request) -> None:
        """Send requests; each answer is to be taken by `receive`."""
        try:
            for parts in requests:
                self._socket.send_multipart([b"", *parts], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            self.broken = True
            # It takes nothing more where the other side has gone; the system's words for that help nobody.
            raise Gone(ENDED if error.errno == zmq.EAGAIN else str(error)) from None

    def receive(self) -> Reply:
        """Wait for the next answer."""
        began = now_ns()
        try:
            while True:
                found = dict(self._poller.poll(SLICE_MS))
                if self._socket in found:
                    return read_reply(self._socket.recv_multipart(copy=False))
                if self._monitor in found:
                    self._look_at_event()
                waited_s = (now_ns() - began) * 1e-9
                if self.stopped(waited_s):
                    raise Stopped
                if self.limit_s is not None and waited_s > self.limit_s:
                    raise Gone(f"no answer within {self.limit_s:g} s")
        except BaseException:
            self.broken = True
            raise

    def _look_at_event(self) -> None:
        event = recv_monitor_message(self._monitor)["event"]
        if event == zmq.Event.CONNECTED:
            self._connected = True
        elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self._greeted = True
        elif event & _ENDS:
            if not self._connected:
                raise Absent
            raise Gone(ENDED if self._greeted else "nothing answers there in the way Micro-Manager does")

    # ---------------------------------------------------------------- calls

    def construct(self, name: str) -> Reply:
        """Return what there is to know of an object by its class, such as ``"mmcorej.CMMCore"``.

        Raises
        ------
        Refused
            Where there is no such class; an application without a window has no studio.
        """
        given: list[Any] = []
        asked = request(
            "constructor",
            **{"classpath": name, "argument-types": given, "argument-deserialization-types": given, "arguments": given},
        )
        (reply,) = self.ask(asked)
        value_of(reply)
        return self.keep(reply)

    def keep(self, reply: Reply) -> Reply:
        """Note that the other side keeps the object of this answer.

        Raises
        ------
        Garbage
            Where it is none.
        """
        number = reply.get("hash-code")
        if reply["type"] != "unserialized-object" or not isinstance(number, str):
            self.broken = True
            raise Garbage(f"it gives {str(reply['type'])[:40]} instead of an object")
        self.objects.add(number)
        return reply

    def method(
        self,
        number: str,
        name: str,
        types: Sequence[str] = (),
        values: Sequence[Any] = (),
        sent: Sequence[str] | None = None,
    ) -> Request:
        """Return the request that calls a method of an object.

        Parameters
        ----------
        number
            The object's.
        name
            The method's, as in Java.
        types
            Of its arguments, as in its signature.
        values
            Numbers, texts, ``{"hash-code": ...}`` of objects, and bytes for arrays.
        sent
            As `types`, but with the real type of an array where the signature says Object.
        """
        blobs: list[bytes] = []
        told: list[Any] = []
        for value in values:
            if isinstance(value, bytes):
                told.append(f"@{len(blobs)}_0")
                blobs += [len(blobs).to_bytes(4, sys.byteorder), value]
            else:
                told.append(value)
        head = request(
            "run-method",
            **{
                "static": False,
                "hash-code": number,
                "java_class_name": "",
                "name": name,
                "argument-types": list(types),
                "argument-deserialization-types": list(sent or types),
                "arguments": told,
            },
        )
        return head + blobs

    def field(self, number: str, name: str) -> Request:
        """Return the request for a field of an object."""
        return request("get-field", **{"hash-code": number, "name": name})

    def destructor(self, number: str) -> Request:
        """Return the request by which the other side forgets an object."""
        self.objects.discard(number)
        return request("destructor", **{"hash-code": number, "java_class_name": ""})

    def close(self) -> None:
        """Let the other side forget what it keeps, and close; safe more than once."""
        if self._context.closed:
            return
        if self.objects and not self.broken:
            self.limit_s = 1.0
            try:
                self.ask(*[self.destructor(number) for number in list(self.objects)])
            except (Gone, Stopped):
                pass  # with the connection it has lost them already
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()


def attach(
    port: int,
    wait_s: float,
    stopped: Callable[[float], bool] = lambda waited_s: False,
    waits: Callable[[str], None] = lambda line: None,
) -> Bridge:
    """Connect to the Micro-Manager at a port, as soon as there is one.

    Parameters
    ----------
    port
    wait_s
        How long to look for it.
    stopped
        As in `Bridge`; asked with infinity while nothing is there to wait for.
    waits
        Called once, with a line, if it is not there yet.

    Raises
    ------
    WireError
        Where none comes, something else listens there, or its version is another one.
    Stopped
    """
    until = now_ns() + round(wait_s * 1e9)
    told, failed = False, 0
    while True:
        try:
            return Bridge(port, stopped)
        except Absent:
            failed = 0
        except Gone as error:
            failed += 1
            if failed >= TRIES or isinstance(error, Garbage):
                raise WireError(
                    f"port = {port}: something listens there that is no Micro-Manager ({error}). "
                    f"Give the port of its server ({CLICK}), or end the other program"
                ) from None
        if now_ns() >= until:
            raise WireError(f"no Micro-Manager came to port {port} within {wait_s:g} s. In Micro-Manager: {CLICK}")
        if not told and not failed:
            told = True
            waits(
                f"waiting for Micro-Manager on port {port}. Start it, and in it: {CLICK}. "
                "Ctrl-C ends; the seconds of a run count from when it is there"
            )
        _pause(LOOK_S, stopped)


def _pause(seconds: float, stopped: Callable[[float], bool]) -> None:
    until = now_ns() + round(seconds * 1e9)
    while not stopped(math.inf):
        left_s = (until - now_ns()) * 1e-9
        if left_s <= 0:
            return
        time.sleep(min(left_s, SLICE_MS * 1e-3))
    raise Stopped
