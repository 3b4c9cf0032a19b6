"""Reads an ``MDASequence`` of useq-schema from YAML, JSON or a table, and says in one line what is wrong with it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import SourceError, did_you_mean, require

__all__ = ["read_table", "to_sequence"]

NEEDED_BY = 'the key "sequence"'
_GRID = ("rows", "left", "width", "vertices")
"""One of these keys tells a plan whose fields lie side by side from points at random."""
_OLD_KEYS = ("row", "col", "uid")
"""Which useq-schema still takes, or writes and does not read."""

Table = Mapping[str, Any]


def read_table(path: Path) -> tuple[dict[str, Any], str]:
    """Return what a YAML or JSON file holds, and how to call it in errors.

    Raises
    ------
    SourceError
        Where there is no such file, or it holds no table.
    """
    name = f'sequence = "{path}"'
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise SourceError(f"{name}: cannot read it: {reason}") from None
    is_json = path.suffix.lower() == ".json"
    try:
        table = json.loads(text) if is_json else _yaml(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} is not valid {'JSON' if is_json else 'YAML'}: {_one_line(error)}") from None
    if not isinstance(table, dict):
        raise SourceError(f"{name}: an MDASequence of useq-schema is a table, with keys such as channels or z_plan")
    return table, name


def to_sequence(table: Table, name: str, field_um: tuple[float, float] | None) -> tuple[Any, bool]:
    """Return the ``MDASequence``, and whether a grid of it lacks the size of a field.

    Parameters
    ----------
    table
    name
        For errors.
    field_um
        Width and height of one picture in the specimen, where it is known; grids that say none get it.

    Raises
    ------
    SourceError
        One line: what useq-schema does not accept, or would leave out without a word.
    """
    useq = require("useq", "micromanager", NEEDED_BY)
    _check_keys(useq, table, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of useq, of what `pellucid.sources._experiment` decides
        try:
            made, lacks_field = _prepared(table, field_um)
            return useq.MDASequence.model_validate(made), lacks_field
        except Exception as error:
            raise SourceError(f"{name}: {_one_line(error)}") from None


def _prepared(table: Table, field_um: tuple[float, float] | None) -> tuple[dict[str, Any], bool]:
    """Return the table with positions as useq wants them and a field's size in its grids; and whether one lacks it."""
    made = dict(table)
    lacks_field = False
    grid = made.get("grid_plan")
    if isinstance(grid, Mapping) and any(key in grid for key in _GRID) and "fov_width" not in grid:
        lacks_field = field_um is None
        if field_um is not None:
            made["grid_plan"] = {**grid, "fov_width": field_um[0], "fov_height": field_um[1]}
    places = made.get("stage_positions")
    if isinstance(places, list):
        made["stage_positions"] = new = []
        for place in places:
            if isinstance(place, (list, tuple)):
                new.append(dict(zip("xyz", place, strict=False)))
            elif isinstance(place, Mapping) and isinstance(place.get("sequence"), Mapping):
                inner, inner_lacks = _prepared(place["sequence"], field_um)
                lacks_field |= inner_lacks
                new.append({**place, "sequence": inner})
            else:
                new.append(place)
    return made, lacks_field


def _check_keys(useq: Any, table: Table, where: str) -> None:
    """Refuse keys that useq-schema would leave out without a word."""
    _check_row(table, useq.MDASequence.model_fields, where)
    plans = {
        "z_plan": [n for n in dir(useq) if n.startswith("Z")],
        "time_plan": [n for n in dir(useq) if n.startswith(("T", "Multi"))],
    }
    for key, names in plans.items():
        allowed = {field for n in names for field in getattr(getattr(useq, n), "model_fields", {})}
        plan = table.get(key)
        for row in plan if isinstance(plan, list) else [plan]:
            if isinstance(row, Mapping):
                _check_row(row, sorted(allowed), f"{where}: {key}")
    for key, model in {"channels": useq.Channel, "stage_positions": useq.Position}.items():
        rows = table.get(key)
        for i, row in enumerate(rows if isinstance(rows, list) else []):
            if not isinstance(row, Mapping):
                continue
            _check_row(row, model.model_fields, f"{where}: {key}[{i}]")
            if key == "channels" and row.get("camera") is not None:
                raise SourceError(
                    f'{where}: {key}[{i}].camera = "{row["camera"]}" cannot be played. Let the preset of the '
                    "channel set the core's camera, or use a Multi Camera"
                )
            if isinstance(row.get("sequence"), Mapping):
                _check_keys(useq, row["sequence"], f"{where}: {key}[{i}].sequence")


def _check_row(row: Table, allowed: Any, where: str) -> None:
    names = list(allowed)
    for key in row:
        if key not in names and key not in _OLD_KEYS:
            near = did_you_mean(str(key), names)
            raise SourceError(f'{where}: no such key "{key}".{near} Allowed: {", ".join(names)}')


def _yaml(text: str) -> Any:
    yaml = require("yaml", "micromanager", NEEDED_BY)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _one_line(error: BaseException) -> str:
    """Return what pydantic says of the first mistake, or what another error says, in one line."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return " ".join(str(error).split())
    # Of a union every member says what it misses; the first key is the one that was typed.
    first = errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or str(part).islower())
    given = repr(first["input"])
    shown = "" if len(given) > 80 else f" (given {given})"
    return " ".join(f"{where}: {first['msg'].removeprefix('Value error, ')}{shown}".split())
