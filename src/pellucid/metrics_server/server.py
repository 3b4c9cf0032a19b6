"""An HTTP server for one session's metrics: on this computer only, unless somebody says otherwise."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
from collections.abc import Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from pellucid.errors import ConfigError

__all__ = ["MetricsServer"]

_HERE = "127.0.0.1"


class MetricsServer:
    """Answers ``GET /metrics`` from its start until `close`; a context.

    Parameters
    ----------
    collectors
        What `prometheus_client` calls collectors, such as `SessionMetrics`. They get a registry of their own, so that
        two sessions of one process, or a program around them, never mix.
    port
        0 picks a free one.
    host
        Of this computer: the address to listen at. ``"0.0.0.0"`` or ``"::"`` opens it to others.

    Attributes
    ----------
    url : str
        Where the metrics are.
    open_to_others : bool
        Computers other than this one can read them.

    Raises
    ------
    ConfigError
        Where the port is taken, or the address is not of this computer.
    """

    def __init__(self, collectors: Iterable[Any], port: int, host: str = _HERE) -> None:
        from prometheus_client import CollectorRegistry, make_wsgi_app

        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            kind = type("_Server", (_Server,), {"address_family": family})
            self._server = kind((address[0], address[1]), _Quiet)
        except (OSError, UnicodeError) as error:
            raise ConfigError(_why(error, port, host)) from None
        self._server.set_app(make_wsgi_app(registry))
        self.open_to_others = not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.server_port}/metrics"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="pellucid metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more; safe more than once."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each question: one reader that hangs keeps no other waiting."""

    daemon_threads = True
    # Elsewhere it lets a port be used again at once. Windows would give a port that is taken to a second session.
    allow_reuse_address = not hasattr(socket, "SO_EXCLUSIVEADDRUSE")

    def server_bind(self) -> None:
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        if exclusive is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, exclusive, 1)
        # Not HTTPServer's, which asks a name server who we are: without a network that takes seconds.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a reader that hangs up is no fault of the session's."""


class _Quiet(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for the session."""


def _why(error: Exception, port: int, host: str) -> str:
    at = f"--metrics-port {port}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"--metrics-host {host}: no such address. This computer alone: 127.0.0.1; open to others: 0.0.0.0"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"{at}: another program uses this port of {host}. Give another, or 0 for any that is free"
    if number == errno.EADDRNOTAVAIL:
        return f"--metrics-host {host}: not an address of this computer. This computer alone: 127.0.0.1"
    if number in (errno.EACCES, errno.EPERM):
        return f"{at}: you may not use this port of {host}. Give one above 1023, or 0 for any that is free"
    return f"{at}: cannot listen at {host}: {getattr(error, 'strerror', None) or error}"
