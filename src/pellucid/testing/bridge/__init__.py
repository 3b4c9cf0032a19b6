"""A Micro-Manager without Java, for tests: a real core behind the ZeroMQ bridge that pycromanager speaks.

::

    with BridgeServer(properties={"Camera.PixelType": "16bit"}) as server:
        core = pycromanager.Core(port=server.port)

An unmodified ``pycromanager.Core(port=...)`` or ``pycromanager.Studio(port=...)`` talks to it. The protocol is that
of PyJavaZ 5.1.0 (ZMQServer.java): a socket that replies, on a loopback port, objects that stay in the server under a
number of theirs, and further sockets, each with a thread, on the next free ports. The core is pymmcore's, with
DemoCamera of mm-test-adapters. Two things differ: what cannot be read is answered with an exception, where the
real server's thread ends; and DemoCamera's beads in RGB are refused, since they end the process.

``python -m pellucid.testing.bridge --port 4827 --set Camera.PixelType=16bit`` runs one until it is interrupted.
"""

from __future__ import annotations

from pellucid.testing.bridge.server import BridgeServer

__all__ = ["BridgeServer"]
