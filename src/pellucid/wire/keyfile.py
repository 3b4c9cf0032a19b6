"""What ``pellucid keys`` does: the keys of two computers, made and introduced to each other in three steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pellucid.errors import WireError
from pellucid.wire.keys import Curve

__all__ = ["tend_keys"]


def tend_keys(path: Path, session: str | None, allow: Sequence[str]) -> list[str]:
    """Make a pair of keys, or add to the list of those that may come, or say what a file holds.

    Parameters
    ----------
    path
        The file. One that exists is never overwritten; `allow` adds to it.
    session
        Public key of the session that a sender will talk to.
    allow
        Public keys of the senders that may come.

    Returns
    -------
    list of str
        Lines for the user: the public key, and what to type next and where.

    Raises
    ------
    WireError
        Where the file cannot be made or read, or a key is none.
    """
    if session is not None and allow:
        raise WireError("--session makes a camera's keys and --allow adds to a session's: give one of them")
    for name, key in [("--session", session), *(("--allow", key) for key in allow)]:
        if key is not None:
            _check(name, key)
    if allow:
        return _allow(path, allow)
    if path.exists():
        return _describe(path, session)
    made = Curve.make(path, session)
    who = "readable for you only"
    if sys.platform == "win32":
        who = "readable for all who can read its folder: keep it below your own user folder"
    return [f"made {path}, {who}", *_next(made)]


def _check(name: str, key: str) -> None:
    try:
        Curve.check(key)
    except WireError as error:
        raise WireError(f'{name} "{key[:60]}": {error}') from None


def _allow(path: Path, keys: Sequence[str]) -> list[str]:
    if not path.exists():
        raise WireError(f"--allow: there is no {path}. Make it first: pellucid keys {path}")
    curve = Curve.load(path)
    if curve.server is not None:
        raise WireError(f"--allow is for a session's keys, and {path} is a camera's: it says which session it goes to")
    if curve.public in keys:
        raise WireError(f"--allow: that is the key of {path} itself; the camera's computer prints the one to give")
    _rewrite(path, replace(curve, allowed=tuple(dict.fromkeys([*curve.allowed, *keys]))))
    return _next(Curve.load(path))


def _rewrite(path: Path, curve: Curve) -> None:
    """Write all anew beside it and put it in its place, so that no half a file can be left."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(curve.text())
        beside.replace(path)
    except OSError as error:
        raise WireError(f"the keys cannot be written to {path}: {error.strerror}") from None


def _describe(path: Path, session: str | None) -> list[str]:
    curve = Curve.load(path)
    if session is not None and session != curve.server:
        what = f"goes to the session {curve.server}" if curve.server else "is a session's"
        raise WireError(f"{path} is there already and {what}; it is not overwritten. Give another name")
    return _next(curve)


def _next(curve: Curve) -> list[str]:
    """Say the public key, and what is to be done with it."""
    path = curve.path
    lines = [f"public key:  {curve.public}"]
    if curve.server is not None:
        return [
            *lines,
            f"on the session's computer type:  pellucid keys session.keys --allow {curve.public}",
            f"then here:  pellucid send --to tcp://SESSION-COMPUTER:5599 --keys {path} --cfg FILE.cfg",
            f"or, to look at it:  pellucid view tcp://SESSION-COMPUTER:5610 --keys {path}",
        ]
    lines.append(f"on the camera's computer type:  pellucid keys camera.keys --session {curve.public}")
    if not curve.allowed:
        return [*lines, f"then here, with the key that it prints:  pellucid keys {path} --allow ITS-KEY"]
    return [
        *lines,
        f"may come ({len(curve.allowed)}):  {' '.join(curve.allowed)}",
        f'in the config:  source = {{ kind = "wire", bind = "tcp://*:5599", keys = "{Path(path).as_posix()}" }}',
        f'or, so that they may look:  session.view = {{ keys = "{Path(path).as_posix()}" }}',
    ]
