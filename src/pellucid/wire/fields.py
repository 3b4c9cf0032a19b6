"""A JSON body, read field by field with a check each."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pellucid.wire import message
from pellucid.wire.message import BadMessage

__all__ = ["Fields", "read_json"]

_HEAD_BYTES = 12


def read_json(part: bytes) -> Any:
    """Return what the body of a message says; raises `BadMessage` only."""
    if len(part) > message.MAX_CONTROL:
        raise BadMessage("size")
    try:
        return json.loads(part[_HEAD_BYTES:])
    except (ValueError, RecursionError):
        raise BadMessage("json") from None


class Fields:
    """A JSON object, whose fields are taken with a check each; raises `BadMessage` with the name of the field."""

    def __init__(self, value: Any) -> None:
        if not isinstance(value, dict):
            raise BadMessage("json")
        self.value: dict[str, Any] = value

    def text(self, key: str, longest: int) -> str:
        """Return a printable string of at most so many characters."""
        found = self.value.get(key)
        if not isinstance(found, str) or len(found) > longest or not found.isprintable():
            raise BadMessage(key)
        return found

    def match(self, key: str, pattern: re.Pattern[str]) -> str:
        """Return a string that the pattern matches in full."""
        found = self.value.get(key)
        if not isinstance(found, str) or not pattern.fullmatch(found):
            raise BadMessage(key)
        return found

    def whole(self, key: str, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        found = self.value.get(key)
        if type(found) is not int or not least <= found <= most:
            raise BadMessage(key)
        return found

    def maybe_whole(self, key: str, least: int, most: int) -> int | None:
        """Return a whole number within bounds, None where there is none."""
        return None if self.value.get(key) is None else self.whole(key, least, most)

    def number(self, key: str) -> float | None:
        """Return a finite number, None where there is none."""
        found = self.value.get(key)
        if found is None:
            return None
        if type(found) not in (int, float) or not abs(found) < 1e18 or not math.isfinite(found):
            raise BadMessage(key)
        return float(found)

    def items(self, key: str, least: int, most: int) -> list[Any]:
        """Return a list of so many items."""
        found = self.value.get(key)
        if not isinstance(found, list) or not least <= len(found) <= most:
            raise BadMessage(key)
        return found
