"""A long way between two computers: a TCP proxy that keeps what it carries for a while."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import Any


class SlowCable:
    """Carries bytes to an endpoint and back, each way with a delay of its own.

    Parameters
    ----------
    endpoint
    there_s, back_s
        Delays of what the connecting side says, and of what it hears.

    Attributes
    ----------
    endpoint : str
        Where to connect.
    """

    def __init__(self, endpoint: str, there_s: float, back_s: float) -> None:
        host, port = endpoint.removeprefix("tcp://").split(":")
        self._target = (host, int(port))
        self._delays = there_s, back_s
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._over = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._listening.settimeout(0.05)
        while not self._over:
            try:
                near, _ = self._listening.accept()
            except TimeoutError:
                continue
            far = socket.create_connection(self._target, 5)
            for one in (near, far):
                one.settimeout(0.05)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [near, far]
            for a, b, delay_s in ((near, far, self._delays[0]), (far, near, self._delays[1])):
                under_way: queue.Queue[tuple[float, bytes]] = queue.Queue()
                self._start(self._take, a, under_way, delay_s)
                self._start(self._give, b, under_way)

    def _take(self, one: socket.socket, under_way: Any, delay_s: float) -> None:
        while not self._over:
            try:
                data = one.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            under_way.put((time.monotonic() + delay_s, data))
            if not data:
                return

    def _give(self, one: socket.socket, under_way: Any) -> None:
        while not self._over:
            try:
                due, data = under_way.get(timeout=0.05)
            except queue.Empty:
                continue
            time.sleep(max(due - time.monotonic(), 0.0))
            try:
                if not data:
                    one.shutdown(socket.SHUT_WR)
                    return
                one.settimeout(5)
                one.sendall(data)
                one.settimeout(0.05)
            except OSError:
                return

    def close(self) -> None:
        self._over = True
        for thread in self._threads[:1]:
            thread.join()
        for thread in list(self._threads):
            thread.join()
        for one in [self._listening, *self._sockets]:
            with contextlib.suppress(OSError):
                one.close()

    def __enter__(self) -> SlowCable:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
