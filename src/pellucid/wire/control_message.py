"""What is said between a session and who speaks to it: one JSON object there, one back, of bounded size.

A request is ``{"token": text, "command": text, "given": {...}, "until_ns": int}``; the last two may be left out. An
answer is ``{"ok": true, ...}`` with what the command returned, or ``{"error": "one line"}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pellucid.errors import WireError

__all__ = ["ANSWER_LIMIT", "ANSWER_S", "PATIENCE_S", "REQUEST_LIMIT", "one_line", "pack", "unpack"]

REQUEST_LIMIT = 64 << 10
ANSWER_LIMIT = 1 << 20
"""Bytes of a message."""

ANSWER_S = 4.0
"""After so long a request is answered, whether or not its command is done."""

PATIENCE_S = 5.0
"""So long whoever asked waits for the answer: longer than the session takes, so that the session can say why."""

_LINE = 2000


def pack(table: Mapping[str, Any], limit: int) -> bytes:
    """Return a table as JSON.

    Raises
    ------
    WireError
        Where it holds what JSON cannot say (a path, an array, a number that is not finite), or is over `limit` bytes.
    """
    try:
        data = json.dumps(dict(table), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"it cannot be said in JSON: {one_line(error)}") from None
    if len(data) > limit:
        raise WireError(f"it has {len(data)} bytes; {limit} are allowed")
    return data


def unpack(data: bytes, limit: int) -> dict[str, Any]:
    """Return the table in a message; anything may be in it.

    Raises
    ------
    WireError
        Where it is too large, no JSON in UTF-8, or JSON of another kind than an object.
    """
    if len(data) > limit:
        raise WireError(f"it has {len(data)} bytes; {limit} are allowed")
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise WireError("it is no JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise WireError("it is JSON, but no object: {...} is needed")
    return found


def one_line(what: object) -> str:
    """Return a text as one line of printable characters that a terminal shows and does not obey."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(what)).split())
    return text if len(text) <= _LINE else f"{text[:_LINE]}..."


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
