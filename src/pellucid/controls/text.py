"""Keys of a config's text: read, compared, set, with its comments kept."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import tomlkit

from pellucid.errors import ConfigError

__all__ = ["differences", "get", "key_of", "parse_change", "put", "same"]

Steps = tuple[str, ...]


def parse_change(text: str) -> tuple[str, Any]:
    """Return key and value of ``"stages.0.iterations=3"``; what is no TOML is a text.

    Raises
    ------
    ConfigError
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise ConfigError(f'"{text}": give key=value, such as stages.0.iterations=3. Type: pellucid set --list')
    try:
        return key.strip(), tomllib.loads(f"v = {value.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def key_of(steps: Steps) -> str:
    """Return ``stages.0.iterations``."""
    return ".".join(steps)


def get(tree: Any, steps: Steps) -> Any:
    """Return the value of a key; None where it is not there."""
    for step in steps:
        if isinstance(tree, list) and step.isdecimal() and int(step) < len(tree):
            tree = tree[int(step)]
        elif isinstance(tree, Mapping) and step in tree:
            tree = tree[step]
        else:
            return None
    return tree


def put(document: Any, steps: Steps, value: Any) -> None:
    """Set a key in a tomlkit document; None takes it out. A comment behind the value stays.

    ``engine = "auto"`` becomes a table where a key of the engine is set.

    Raises
    ------
    ConfigError
        Where there is nothing that could hold the key.
    """
    at = document
    for i, step in enumerate(steps[:-1]):
        if isinstance(at, list):
            if not step.isdecimal() or int(step) >= len(at):
                raise ConfigError(f"{key_of(steps)}: there is no {key_of(steps[: i + 1])}; there are {len(at)}")
            at = at[int(step)]
            continue
        held = at.get(step) if isinstance(at, Mapping) else None
        if step == "engine" and not isinstance(held, Mapping):
            table = tomlkit.inline_table()
            table["kind"] = str(held or "auto")
            at[step] = table
        elif not isinstance(held, list | Mapping):
            raise ConfigError(f"{key_of(steps)}: {key_of(steps[: i + 1])} is no table that could hold it")
        at = at[step]
    last = steps[-1]
    if isinstance(at, list) or not isinstance(at, Mapping):
        raise ConfigError(f"{key_of(steps)}: there is no table to hold {last}")
    if value is None:
        if last in at:
            del at[last]  # type: ignore[attr-defined]
    else:
        at[last] = value  # type: ignore[index]


def differences(before: Any, after: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any, Any]]:
    """Yield the keys in which two trees differ, with both values; None where one has no such key.

    Tables are gone into, and lists of tables that are as long; any other list is one value.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differences(before.get(key), after.get(key), (*steps, str(key)))
    elif _tables(before) and _tables(after) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, (*steps, str(i)))
    elif not same(before, after):
        yield steps, before, after


def same(one: Any, other: Any) -> bool:
    """Compare as TOML does: 1, 1.0 and true are three values."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
