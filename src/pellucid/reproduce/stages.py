"""The stages of a recording as they were when it was made: its config, with what they chose by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from pellucid.config import Config
from pellucid.controls.text import put
from pellucid.errors import ConfigError, StageError
from pellucid.recording.contents import Contents
from pellucid.runtime.chain import pick_device

__all__ = ["config_of", "device_of", "stages_then"]


def config_of(
    folder: Path, then: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]] = ()
) -> tuple[Config, bool]:
    """Return the config of a recording without its ends, and whether an engine that it left open is the one that ran.

    With `changes`, rows of ``changes.jsonl``, it is the config after them.
    """
    path = folder / "config.toml"
    try:
        document = tomlkit.parse(path.read_text("utf-8")).unwrap()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not document.get("stages"):
        raise ConfigError(f"{path} has no [[stages]], so there is nothing to reproduce")
    document = {key: value for key, value in document.items() if key not in ("sinks", "source")}
    for change in changes:
        put(document, tuple(change["what"].split(".")), change.get("to"))
    pinned = False
    for row, name in zip(document["stages"], _names(document["stages"]), strict=True):
        told = next((stage for stage in then if stage.get("stage") == name), {})
        pinned |= _pin(row, told)
    document["source"] = {"kind": "simulated"}
    return Config.parse(tomlkit.dumps(document), folder, name=str(path)), pinned


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the stages as a report does."""
    kinds = [str(row.get("kind")) for row in rows]
    return [kind if kind not in kinds[:i] else f"{kind} {i}" for i, kind in enumerate(kinds)]


def _pin(row: dict[str, Any], told: Mapping[str, Any]) -> bool:
    """Write what a stage found out by itself into its table: its engine, and tiles that it chose by its memory."""
    pinned = False
    engine = row.get("engine", "auto")
    table = dict(engine) if isinstance(engine, dict) else {"kind": engine}
    made = told.get("engine") or {}
    if made.get("kind") and table.get("kind") == "auto":
        row["engine"] = {**table, "kind": made["kind"]}
        pinned = True
    tiles = told.get("tiles") or {}
    if tiles.get("of_each_picture", 1) > 1 and "tile" not in row:
        row["tile"] = tiles["tile"]
        row.setdefault("batch", tiles["batch"])
        pinned = True
    return pinned


def device_of(config: Config, then: Sequence[Mapping[str, Any]]) -> str:
    """Return the device that it ran on, where there is such a one here and the config leaves it open."""
    wish = config.settings.device
    if wish == "auto" and then and then[0].get("device"):
        try:
            return pick_device(then[0]["device"])
        except StageError:
            return wish
    return wish


def stages_then(contents: Contents, index: int) -> list[dict[str, Any]]:
    """Return what the stages of a stream said of themselves when it was recorded."""
    told = contents.about.hashes.get("stages") or []
    rows = told[index] if index < len(told) else []
    return [row for row in rows if isinstance(row, dict)]
