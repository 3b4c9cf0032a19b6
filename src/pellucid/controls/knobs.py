"""What there is to change of a run: the keys of its stages, with their values, types and bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from pydantic import TypeAdapter

from pellucid.config import Config, StageRow, installed

__all__ = ["FIXED", "fixed_of", "knobs", "range_of"]

FIXED = ("kind", "reads", "writes", "channels", "cameras")
"""They say how the stages are connected, and for that memory, window and recording are made at the start."""
_BOUNDS = {"minimum": "min", "maximum": "max", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}


def fixed_of(row: StageRow) -> tuple[str, ...]:
    """Return the keys of a stage that need a restart."""
    return (*FIXED, *getattr(row.part, "fixed", ()))


def knobs(config: Config) -> list[dict[str, Any]]:
    """Return what can be changed: ``key``, ``stage``, ``value``, ``default``, ``type``, ``choices``, bounds.

    Of bounds ``min`` and ``max`` are allowed values, ``above`` and ``below`` are not. JSON types only.
    """
    return [knob for i, row in enumerate(config.stages) for knob in _of_stage(f"stages.{i}", row)]


def _of_stage(at: str, row: StageRow) -> Iterator[dict[str, Any]]:
    yield {"key": f"{at}.on", "stage": row.kind, "value": row.on, "default": True, "type": "boolean"}
    for name, told in _of_part(row.part, row.keys, fixed_of(row)):
        if name == "engine" and row.engine is not None:
            yield from _of_engine(at, row)
        else:
            yield {"key": f"{at}.{name}", "stage": row.kind, **told}


def _of_engine(at: str, row: StageRow) -> Iterator[dict[str, Any]]:
    assert row.engine is not None
    part, keys = row.engine
    given = row.keys.get("engine", "auto")
    kind = given.get("kind") if isinstance(given, Mapping) else given
    told = {"value": kind, "default": "auto", "type": "choice", "choices": list(installed("engines"))}
    yield {"key": f"{at}.engine" + (".kind" if isinstance(given, Mapping) else ""), "stage": row.kind, **told}
    for name, its in _of_part(part, keys, ()):
        yield {"key": f"{at}.engine.{name}", "stage": row.kind, **its}


def _of_part(part: type, keys: Mapping[str, Any], fixed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the arguments of a stage or an engine."""
    try:
        schema = TypeAdapter(part).json_schema()
    except Exception:  # a type of its own, of which pydantic cannot tell: it is shown without bounds
        schema = {}
    for field in fields(part):
        if not field.init or field.name in fixed:
            continue
        told = schema.get("properties", {}).get(field.name, {})
        default = told.get("default")
        if (
            "default" not in told
            and field.default is not MISSING
            and isinstance(field.default, bool | int | float | str)
        ):
            default = field.default
        yield field.name, {"value": _plain(keys.get(field.name, default)), "default": default, **range_of(told)}


def range_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``type``, ``choices``, ``optional`` and bounds of a key, from its JSON schema."""
    told: dict[str, Any] = {"type": "any"}
    for one in schema.get("anyOf", [schema]):
        kind = one.get("type")
        if kind == "null":
            told["optional"] = True
        elif "enum" in one or "const" in one:
            told["choices"] = [*told.get("choices", []), *one.get("enum", [one.get("const")])]
            told["type"] = "choice" if told["type"] == "any" else told["type"]
        elif kind in ("integer", "number", "boolean", "string"):
            told["type"] = kind if told["type"] in ("any", "choice") else "any"
            told |= {short: one[long] for long, short in _BOUNDS.items() if long in one}
        else:
            told["type"] = "table" if kind == "object" or "$ref" in one or "oneOf" in one else "any"
    return told


def _plain(value: Any) -> Any:
    """Return a value of JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
