"""Who may connect: the list of keys."""

from __future__ import annotations

import threading
from collections import deque

import zmq
from zmq.utils import z85

__all__ = ["Gate"]


class Gate:
    """Answers ZeroMQ's question, for each connection to a context, whether that key may come in (ZAP, RFC 27).

    libzmq asks it from its own thread while the handshake waits, so it has a thread of its own too.

    Parameters
    ----------
    context
    allowed
        Public keys as Z85.

    Attributes
    ----------
    refused : collections.deque of str
        The last keys that were sent away.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: tuple[str, ...]) -> None:
        self.refused: deque[str] = deque(maxlen=16)
        self._allowed = frozenset(z85.decode(key.encode()) for key in allowed)
        self._questions = context.socket(zmq.REP)
        self._questions.linger = 0
        self._questions.bind("inproc://zeromq.zap.01")
        self._ending = context.socket(zmq.PAIR)
        self._ending.linger = 0
        self._ending.bind("inproc://gate")
        self._end = context.socket(zmq.PAIR)
        self._end.linger = 0
        self._end.connect("inproc://gate")
        self._thread = threading.Thread(target=self._answer, name="pellucid gate", daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        poller = zmq.Poller()
        poller.register(self._questions, zmq.POLLIN)
        poller.register(self._ending, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._ending in ready:
                break
            asked = self._questions.recv_multipart()
            fits = len(asked) >= 7 and asked[5] == b"CURVE" and asked[6] in self._allowed
            if not fits and len(asked) >= 7 and len(asked[6]) == 32:
                self.refused.append(z85.encode(asked[6]).decode())
            status = [b"200", b"OK"] if fits else [b"400", b"this key may not send here"]
            who = z85.encode(asked[6]) if fits else b""  # every message of the connection tells it as its User-Id
            self._questions.send_multipart([b"1.0", asked[1] if len(asked) > 1 else b"", *status, who, b""])
        self._questions.close()
        self._ending.close()

    def close(self) -> None:
        """End the thread."""
        self._end.send(b"")
        self._thread.join()
        self._end.close()
