"""Where a wire may be bound, and the keys for everything beyond this computer."""

from __future__ import annotations

import os
import re
import struct
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from pellucid.errors import WireError

__all__ = ["Curve", "check_endpoint", "is_loopback", "protect"]

_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]+\]|\*|[A-Za-z0-9_.\-]+):(\d{1,5}|\*)")
_PLAIN = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z.:+/\-]{39}")
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
        the receiver's public key, which is enough on this computer and not enough beyond it.
    path
        Of the file that they come from, for what is told to people.

    Raises
    ------
    WireError
        Where a key is no key, or the pair is none.
    """

    public: str
    secret: str = field(repr=False)
    server: str | None = None
    allowed: tuple[str, ...] = ()
    path: str = field(default="KEYS", compare=False)

    def __post_init__(self) -> None:
        keys = {"public": self.public, "secret": self.secret, "server": self.server or self.public}
        for name, key in [*keys.items(), *(("allowed", key) for key in self.allowed)]:
            self.check(key, f"the {name} key")
        try:
            derived = zmq.curve_public(self.secret.encode()).decode()
        except (ValueError, zmq.ZMQError):
            derived = ""
        if derived != self.public:
            raise WireError("the public and the secret key are no pair. Make a new one: pellucid keys NEW.keys")

    @staticmethod
    def check(key: object, name: str = "this") -> None:
        """Raise `WireError` for what is no key."""
        if not isinstance(key, str) or not _Z85.fullmatch(key) or not _is_z85(key):
            raise WireError(f"{name} is no CURVE key: 40 characters of Z85 are allowed")

    @classmethod
    def make(cls, path: Path, server: str | None = None) -> Curve:
        """Write a new pair to `path`, readable for this user only, and return it; never overwrites.

        On Windows, which has no such mode, the folder decides who can read it.
        """
        public, secret = (key.decode() for key in zmq.curve_keypair())
        while not _PLAIN.fullmatch(public):
            # 14000 tries (0.3 s, and 14 of 255 bits) for a key that no shell of any system reads as something else.
            public, secret = (key.decode() for key in zmq.curve_keypair())
        made = cls(public, secret, server, path=str(path))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(made.text())
        except OSError as error:
            raise WireError(f"the keys cannot be written to {path}: {error.strerror}") from None
        return made

    def text(self) -> str:
        """Return what stands in the file."""
        lines = [f"public = '{self.public}'", f"secret = '{self.secret}'"]
        if self.server is not None:
            lines.append(f"server = '{self.server}'")
        if self.allowed:
            lines += ["allowed = [", *(f"    '{key}'," for key in self.allowed), "]"]
        return "\n".join([*lines, ""])

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
            return cls(found["public"], found["secret"], server or found.get("server"), allowed, str(path))
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
    if not serves and curve.server is None:
        raise WireError(
            f"{curve.path} has no server = '...', the public key of the session. On the camera's computer make "
            "keys with: pellucid keys camera.keys --session ITS-KEY"
        )
    socket.curve_publickey, socket.curve_secretkey = curve.public.encode(), curve.secret.encode()
    if serves:
        socket.curve_server = True
        socket.zap_domain = b"pellucid"
    elif curve.server is not None:
        socket.curve_serverkey = curve.server.encode()
