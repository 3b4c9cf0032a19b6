"""A cable between two computers that can be pulled: a TCP proxy."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import threading
from typing import Any

PIECE = 1 << 16


class Cable:
    """Carries bytes between whoever connects and an endpoint.

    Attributes
    ----------
    endpoint : str
        Where to connect.
    carried : int
        Bytes from the connecting side so far.
    """

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("tcp://").split(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.carried = 0
        self._over = False
        self._pulled = False
        self._stuck = False
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def clog(self) -> None:
        """Take in what comes and pass nothing on: it will be lost with the next `pull`."""
        with self._lock:
            self._stuck = True

    def pull(self) -> None:
        """Cut all connections, and let none come up."""
        with self._lock:
            self._pulled = True
            for pair in self._pairs:
                _break(*pair)
            self._pairs.clear()

    def plug(self) -> None:
        """Let connections come up again."""
        with self._lock:
            self._pulled = self._stuck = False

    def _carry(self) -> None:
        swallowed = bytearray()
        while not self._over:
            with self._lock:
                pairs = {a: b for pair in self._pairs for a, b in (pair, pair[::-1])}
                upward = {a for a, _ in self._pairs}
            try:
                ready, _, _ = select.select([self._listening, *pairs], [], [], 0.01)
            except (OSError, ValueError):
                continue  # pulled just now
            for one in ready:
                if one is self._listening:
                    self._connect()
                    continue
                with self._lock:
                    if not any(one in pair for pair in self._pairs):
                        continue
                    try:
                        data = one.recv(PIECE)
                        if data and self._stuck:
                            swallowed[:] = data
                        elif data:
                            pairs[one].sendall(data)
                    except OSError:
                        data = b""
                    self.carried += len(data) if one in upward else 0
                    if not data:
                        _break(one, pairs[one])
                        self._pairs = [pair for pair in self._pairs if one not in pair]

    def _connect(self) -> None:
        near, _ = self._listening.accept()
        with self._lock:
            if self._pulled:
                _break(near)
                return
            try:
                far = socket.create_connection(self._target, 5)
            except OSError:
                _break(near)
                return
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one.settimeout(5)
            self._pairs.append((near, far))

    def close(self) -> None:
        self.pull()
        self._over = True
        self._thread.join()
        self._listening.close()

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _break(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            # RST, as from a computer that knows nothing of the connection; what is on its way is gone.
            one.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            )
        one.close()
