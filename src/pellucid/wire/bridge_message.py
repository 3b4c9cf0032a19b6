"""Messages of Micro-Manager's bridge as a client sees them: JSON, and two frames more for an array.

Facts of the protocol are from PyJavaZ (ZMQSocketWrapper.java, ZMQUtil.java).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

__all__ = [
    "Absent",
    "Garbage",
    "Gone",
    "Refused",
    "Reply",
    "Request",
    "Stopped",
    "read_reply",
    "request",
    "value_of",
]

_ARRAYS = {"byte-array": "u1", "short-array": "u2", "int-array": "u4", "float-array": "f4", "double-array": "f8"}

Request = list[bytes]
Reply = dict[str, Any]


class Absent(Exception):
    """Nothing listens at the port."""


class Gone(Exception):
    """The connection broke; what was known of the other side is void."""


class Garbage(Gone):
    """An answer that no Micro-Manager gives."""


class Refused(Exception):
    """The call threw an exception over there; the text is its first line."""


class Stopped(Exception):
    """Nobody wants the answer any more."""


def request(command: str, **keys: Any) -> Request:
    """Return a request as it goes out."""
    return [json.dumps({"command": command, **keys}).encode("iso-8859-1")]


def read_reply(frames: Sequence[zmq.Frame]) -> Reply:
    """Return an answer with its array in place.

    Raises
    ------
    Garbage
    """
    try:
        if len(frames) not in (2, 4) or len(frames[0].buffer):
            raise ValueError(f"{len(frames)} parts")
        reply = json.loads(frames[1].bytes.decode("iso-8859-1"))
        if not isinstance(reply, dict) or not isinstance(reply.get("type"), str):
            raise ValueError("no type")
        array = _ARRAYS.get(reply["type"])
        if (array is not None) != (len(frames) == 4):
            raise ValueError("an array is missing" if array else "an array too many")
        if array is not None:
            pixels: NDArray[Any] = np.frombuffer(frames[3].buffer, array)
            reply["value"] = pixels
        return reply
    except (ValueError, RecursionError) as error:
        raise Garbage(f"it answers what cannot be read: {str(error)[:60]}") from None


def value_of(reply: Reply) -> Any:
    """Return the value of an answer.

    Raises
    ------
    Refused
        Where it is an exception.
    """
    if reply["type"] == "exception":
        lines = str(reply.get("value", "")).strip().splitlines() or ["no reason given"]
        # "java.lang.Exception: text", then where it was thrown
        raise Refused(lines[0].removeprefix("java.lang.Exception: ").strip().rstrip(".")[:300])
    return reply.get("value")
