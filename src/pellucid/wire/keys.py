"""Where a wire may be bound, and the keys for everything beyond this computer."""

from __future__ import annotations

import os
import re
import struct
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from pellucid.errors import WireError

__all__ = ["Curve", "Gate", "check_endpoint", "is_loopback", "protect"]

_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|\*|[A-Za-z0-9_.\-]+):(\d{1,5}|\*)")
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


def check_endpoint(text: str, *, bind: bool) -> str:
    """Return `text` as ZeroMQ wants it.

    Parameters
    ----------
    text
        ``tcp://HOST:PORT``. Only a bound one may have port 0 or ``*``, which picks a free port.

    Raises
    ------
    ValueError
        One line that says what is allowed.
    """
    found = _ENDPOINT.fullmatch(text)
    form = f'"{text}" is no endpoint. Write tcp://HOST:PORT, for example tcp://127.0.0.1:5599'
    if not found:
        raise ValueError(form)
    host, port = found[1], found[2]
    if port in ("*", "0"):
        if not bind:
            raise ValueError(f"{form}; a sender needs the real port number")
        port = "*"
    elif int(port) > 65535:
        raise ValueError(f"{form}; ports end at 65535")
    if host == "*" and not bind:
        raise ValueError(f"{form}; a sender needs a host to go to")
    return f"tcp://{'127.0.0.1' if host == 'localhost' else host}:{port}"


def is_loopback(endpoint: str) -> bool:
    """Tell whether only this computer can reach a checked endpoint."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return bool(re.fullmatch(r"127\.\d{1,3}\.\d{1,3}\.\d{1,3}", host)) or host == "[::1]"


@dataclass(frozen=True)
class Curve:
    """CURVE keys as 40 characters of Z85 each.

    Parameters
    ----------
    public, secret
        This side's pair.
    server
        On the sender's side: the public key of the receiver.
    allowed
        On the receiver's side: public keys of the senders that may come; empty lets in everyone who knows
        the receiver's public key.

    Raises
    ------
    WireError
        Where a key is no key, or the pair is none.
    """

    public: str
    secret: str
    server: str | None = None
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = {"public": self.public, "secret": self.secret, "server": self.server or self.public}
        for name, key in [*keys.items(), *(("allowed", key) for key in self.allowed)]:
            if not isinstance(key, str) or not _Z85.fullmatch(key) or not _is_z85(key):
                raise WireError(f"the {name} key is no CURVE key: 40 characters of Z85 are allowed")
        try:
            derived = zmq.curve_public(self.secret.encode()).decode()
        except (ValueError, zmq.ZMQError):
            derived = ""
        if derived != self.public:
            raise WireError("the public and the secret key are no pair. Make a new one: Curve.make(PATH)")

    @classmethod
    def make(cls, path: Path) -> Curve:
        """Write a new pair to `path`, readable for this user only, and return it; never overwrites."""
        public, secret = (key.decode() for key in zmq.curve_keypair())
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"public = '{public}'\nsecret = '{secret}'\n")
        except OSError as error:
            raise WireError(f"the keys cannot be written to {path}: {error.strerror}") from None
        return cls(public, secret)

    @classmethod
    def load(cls, path: Path, *, server: str | None = None, allowed: tuple[str, ...] = ()) -> Curve:
        """Read a file that `make` wrote; it may also hold ``server = '...'`` and ``allowed = ['...']``.

        Parameters
        ----------
        path
            TOML.
        server, allowed
            Go before the file's `server`, and are added to its `allowed`.
        """
        try:
            found = tomllib.loads(path.read_text(encoding="ascii"))
            known = {"public", "secret", "server", "allowed"}
            if unknown := sorted(set(found) - known):
                raise WireError(f"{path}: {unknown[0]} is not known. Allowed: {', '.join(sorted(known))}")
            allowed = (*found.get("allowed", ()), *allowed)
            return cls(found["public"], found["secret"], server or found.get("server"), allowed)
        except OSError as error:
            raise WireError(f"the keys in {path} cannot be read: {error.strerror}") from None
        except (KeyError, TypeError, ValueError):
            raise WireError(f"{path} holds no keys: it needs the lines public = '...' and secret = '...'") from None


def _is_z85(key: str) -> bool:
    try:
        return len(z85.decode(key.encode())) == 32
    except (ValueError, KeyError, struct.error):  # five characters can say more than four bytes hold
        return False


def protect(socket: zmq.Socket[bytes], curve: Curve | None, *, serves: bool) -> None:
    """Give a socket its keys, before it binds or connects."""
    if curve is None:
        return
    socket.curve_publickey, socket.curve_secretkey = curve.public.encode(), curve.secret.encode()
    if serves:
        socket.curve_server = True
        socket.zap_domain = b"pellucid"
    else:
        if curve.server is None:
            raise WireError("a sender with keys needs the receiver's public key as well: Curve(server=...)")
        socket.curve_serverkey = curve.server.encode()


class Gate:
    """Answers ZeroMQ's question, for each connection to a context, whether that key may come in (ZAP, RFC 27).

    libzmq asks it from its own thread while the handshake waits, so it has a thread of its own too.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: tuple[str, ...]) -> None:
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
        self._thread = threading.Thread(target=self._answer, name="wire-gate", daemon=True)
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
            status = [b"200", b"OK"] if fits else [b"400", b"this key may not send here"]
            self._questions.send_multipart([b"1.0", asked[1] if len(asked) > 1 else b"", *status, b"", b""])
        self._questions.close()
        self._ending.close()

    def close(self) -> None:
        """End the thread."""
        self._end.send(b"")
        self._thread.join()
        self._end.close()
