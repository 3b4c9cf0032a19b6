"""How a window comes to a session that runs elsewhere: by its file on this computer, or by its door on another one."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pellucid.errors import PellucidError, WireError
from pellucid.viewer.newest import SLOTS, WHY
from pellucid.wire.codec import load
from pellucid.wire.control_client import ControlClient
from pellucid.wire.control_file import Running, running_sessions
from pellucid.wire.handshake import Hello
from pellucid.wire.keys import Curve
from pellucid.wire.receiver import Receiver
from pellucid.wire.view_client import ViewClient

__all__ = ["PORTS", "Client", "Far", "Found", "Near", "Opens", "Way"]

ACCEPT_S = 10.0
PORTS = range(5611, 5615)
"""Where a window listens for a session on another computer, so that a firewall can be told: the first that is free."""

FAR_SLOTS = 3
"""On a slow network each one that is on its way makes the next one older."""
SILENT_S = 8.0
"""A sign of life may have to wait for a whole picture that is before it in the line."""


class Client(Protocol):
    """Asks a session; see `pellucid.wire.control_client.ControlClient`."""

    def ask(self, command: str, given: Mapping[str, Any] | None = None, *, timeout_s: float = ...) -> dict[str, Any]:
        """Have it do something; raises `PellucidError` where it does not."""
        ...


Opens = Callable[[], AbstractContextManager[Client]]


@dataclass(frozen=True, slots=True)
class Found:
    """A session whose frames come to a receiver.

    Attributes
    ----------
    about
        What there is to see of it.
    receiver, hello
        Of its frames, and what it said.
    opens
        Opens a connection to ask it something.
    slots
        See `pellucid.viewer.newest.Newest`.
    """

    about: Mapping[str, Any]
    receiver: Receiver
    hello: Hello
    opens: Opens
    slots: int = SLOTS


class Way(Protocol):
    """To one session after another.

    Attributes
    ----------
    dies_unseen : bool
        Nobody here can tell a session that is dead from one that stands still, so one that is silent is asked for anew.
    """

    dies_unseen: bool

    def first(self, stack: str | None, max_fps: float) -> Found:
        """Come to the session that is meant; raises `PellucidError` where that cannot be."""
        ...

    def again(self, config: str, stack: str | None, max_fps: float) -> Found | None:
        """Come to the one after it, None where there is none; `config` is what the one before ran."""
        ...


class Near:
    """Sessions of this user on this computer.

    Parameters
    ----------
    which
        Number of the process, or name of the config; None: the only one that runs.
    """

    dies_unseen = False

    def __init__(self, which: str | None) -> None:
        self._which = which

    def first(self, stack: str | None, max_fps: float) -> Found:
        """See `Way`."""
        return _attach(ControlClient.find(self._which).session, stack, max_fps)

    def again(self, config: str, stack: str | None, max_fps: float) -> Found | None:
        """See `Way`."""
        there = [session for session in running_sessions() if self._is_wanted(session, config)]
        return _attach(there[-1], stack, max_fps) if there else None

    def _is_wanted(self, session: Running, config: str) -> bool:
        if "view.attach" not in session.commands:
            return False
        if config:
            return session.config == config or _same_file(session.config, config)
        return self._which is None or session.answers_to(self._which)


class Far:
    """The session behind one address on another computer.

    Parameters
    ----------
    address
        ``tcp://HOST:PORT`` of its door.
    keys
        File with this computer's keys and the session's public one.
    port
        Where this side listens; None: the first of `PORTS` that is free.
    compress
        How pixels are packed on their way; empty for not at all.

    Raises
    ------
    PellucidError
        Where one of these does not do.
    """

    dies_unseen = True

    def __init__(self, address: str, keys: Path, port: int | None = None, compress: str = "") -> None:
        self._curve, self._port, self._compress = Curve.load(keys), port, compress
        load(compress, f"--compress {compress}")
        with ViewClient(address, self._curve) as client:
            self._address = client.address

    def first(self, stack: str | None, max_fps: float) -> Found:
        """See `Way`."""
        with self._open() as client:
            about = client.ask("view.about")
        receiver = self._listen(tuple(map(str, about.get("planes", ()))))
        port = int(receiver.endpoint.rpartition(":")[2])
        given = {"port": port, "max_fps": max_fps, "stack": stack, "compress": self._compress}
        hello = _wait(receiver, self._open, given, f"{self._address} did not come to the window")
        return Found(about, receiver, hello, self._open, FAR_SLOTS)

    def again(self, config: str, stack: str | None, max_fps: float) -> Found | None:
        """See `Way`."""
        return self.first(stack, max_fps)

    def _open(self) -> ViewClient:
        return ViewClient(self._address, self._curve)

    def _listen(self, planes: Sequence[str]) -> Receiver:
        """Listen for the session and nobody else, at that address of this computer from which it is reached."""
        assert self._curve.server is not None
        mine = replace(self._curve, server=None, allowed=(self._curve.server,))
        host = _reaches(self._address)
        trouble: WireError | None = None
        for port in PORTS if self._port is None else (self._port,):
            try:
                return Receiver(
                    f"tcp://{host}:{port}", curve=mine, planes=(*planes, WHY), turns=True, timeout_s=SILENT_S
                )
            except WireError as error:
                trouble = error
        ports = f"{PORTS[0]} to {PORTS[-1]} are" if self._port is None else f"{self._port} is"
        raise WireError(
            f"this window cannot listen at {host}: port {ports} taken. Choose another: --port N"
        ) from trouble


def _reaches(address: str) -> str:
    """Return that address of this computer from which packets to another one leave, as it stands in an endpoint."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        family, kind, _, _, to = socket.getaddrinfo(
            host.strip("[]"), int(port), socket.AF_INET6 if "[" in host else socket.AF_INET, socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(to)  # of UDP: nothing is sent
            found = str(probe.getsockname()[0])
    except OSError as error:
        raise WireError(f"{address}: {error.strerror or error}. Is it the right name, and the network there?") from None
    return f"[{found}]" if ":" in found else found


def _attach(session: Running, stack: str | None, max_fps: float) -> Found:
    """Have a session of this computer send its frames here."""
    if "view.attach" not in session.commands:
        raise WireError(f"the session {session.name} is of a version that shows nothing to others")

    def opens() -> ControlClient:
        return ControlClient(session)

    with opens() as client:
        about = client.ask("view.about")
    receiver = Receiver("tcp://127.0.0.1:*", planes=(*map(str, about["planes"]), WHY), turns=True)
    given = {"endpoint": receiver.endpoint, "max_fps": max_fps, "stack": stack}
    hello = _wait(receiver, opens, given, f"{session.name} did not come to the window")
    pid = str(session.pid)
    return Found(about, receiver, hello, lambda: ControlClient.find(pid))


def _wait(receiver: Receiver, opens: Opens, given: Mapping[str, Any], silence: str) -> Hello:
    """Ask for frames and return what the session says of them; closes the receiver where it does not come."""
    answer: queue.Queue[str] = queue.Queue()

    def ask() -> None:
        try:
            with opens() as client:
                client.ask("view.attach", given, timeout_s=2 * ACCEPT_S)
        except PellucidError as error:
            answer.put(str(error))

    # It answers once this side has given it slots, so somebody else has to wait for that.
    asking = threading.Thread(target=ask, name="pellucid view", daemon=True)
    asking.start()
    try:
        for _ in range(round(ACCEPT_S / 0.1)):
            hello = receiver.accept(0.1)
            if hello is not None:
                return hello
            if not answer.empty():
                break
    except BaseException:
        receiver.close()
        raise
    receiver.close()
    raise WireError(answer.get_nowait() if not answer.empty() else silence)


def _same_file(one: str, other: str) -> bool:
    try:
        return bool(one and other) and Path(one).resolve() == Path(other).resolve()
    except OSError:
        return False
