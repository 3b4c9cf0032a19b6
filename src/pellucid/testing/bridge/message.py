"""Messages of the bridge: JSON in frame 0, then two frames for each array, its number and its bytes.

Facts from PyJavaZ (ZMQSocketWrapper.java, ZMQUtil.java) and pyjavaz: the client writes ``"@<number>_<bytes of an
element>"`` where an array stood, the server ``"[B@<number in hex>"``; the text is ISO-8859-1; numbers of arrays
are 32-bit, in the machine's order.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import zmq

from pellucid.testing.bridge.java import JavaArray, JavaError, JsonText

__all__ = ["Part", "encode", "failure", "read_request", "write_reply"]

Part = bytes | memoryview | zmq.Frame
_REFERENCE = re.compile(r".(-?\d+)_(\d+)")
_NUMBER = 0x1A2B3C4D
"""Of the array in a reply: there is one at most."""


def read_request(frames: Sequence[bytes]) -> dict[str, Any]:
    """Return a request with its arrays in place.

    Raises
    ------
    JavaError
        Where it is none. The real server's thread ends at a message that it cannot read, and with it the bridge.
    ValueError
        Where frame 0 is no JSON.
    """
    request = json.loads(frames[0].decode("iso-8859-1"))
    if not isinstance(request, dict):
        raise JavaError("A JSONObject text must begin with '{'", "mmcorej.org.json.JSONException")
    if len(frames) % 2 == 0 or any(len(number) != 4 for number in frames[1::2]):
        raise JavaError("array frames come in pairs, a number of four bytes and the bytes")
    arrays = {struct.unpack("=i", number)[0]: data for number, data in zip(frames[1::2], frames[2::2], strict=True)}
    if arrays:
        _put_in(request, arrays)
    return request


def _put_in(node: Any, arrays: dict[int, bytes]) -> None:
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, dict | list):
            _put_in(value, arrays)
        elif isinstance(value, str) and "@" in value:
            reference = _REFERENCE.match(value)
            if reference is None:  # the real one takes every text with an @ for an array
                raise JavaError(f'For input string: "{value[1:]}"', "java.lang.NumberFormatException")
            if int(reference[1]) in arrays:
                node[key] = arrays[int(reference[1])]


def encode(value: Any) -> dict[str, Any] | None:
    """Return the reply for a value that travels whole; None for an object that stays in the server."""
    if value is None:
        return {"type": "none"}
    if isinstance(value, bool | int | float):
        return {"type": "primitive", "value": value}
    if isinstance(value, str):
        return {"type": "string", "value": value}
    if isinstance(value, JsonText):
        return {"type": "object", "class": "JSONObject", "value": value.text}
    if isinstance(value, JavaArray):
        return {"type": f"{value.kind}-array", "value": value}
    return None


def failure(error: Exception, where: str) -> dict[str, Any]:
    """Return the reply for an exception: its Java class, its text, and a line of where it was."""
    # What the core itself throws is a java.lang.Exception in MMCoreJ, whatever pymmcore makes of it.
    kind = error.kind if isinstance(error, JavaError) else "java.lang.Exception"
    return {"type": "exception", "value": f"{kind}: {error}\n\tat {where}\n"}


def write_reply(reply: dict[str, Any]) -> list[Part]:
    """Return the frames of a reply; pixels are not copied.

    Raises
    ------
    ValueError
        For numbers that JSON does not know.
    """
    frames: list[Part] = []
    array = reply.get("value")
    if isinstance(array, JavaArray):
        reply["value"] = f"[B@{_NUMBER:x}"
        frames = [struct.pack("=I", _NUMBER), zmq.Frame(array.data.view(np.uint8).data, copy=False)]
    text = json.dumps(reply, ensure_ascii=False, allow_nan=False)
    return [text.encode("iso-8859-1", "replace"), *frames]
