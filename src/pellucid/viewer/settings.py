"""What the window remembers from one run to the next: a small JSON file in the user's own folder.

Nothing depends on it: a file that cannot be read or written costs what it would have remembered, and a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

__all__ = ["OFF", "load", "place", "save"]

VARIABLE = "PELLUCID_SETTINGS"
"""Of the environment: another folder for the file, or `OFF`."""
OFF = "off"
"""Remember nothing."""


def place() -> Path | None:
    """Return the file; None where nothing is to be remembered."""
    folder = os.environ.get(VARIABLE)
    if folder == OFF:
        return None
    return Path(folder or platformdirs.user_config_dir("pellucid", appauthor=False)) / "window.json"


def load() -> tuple[dict[str, Any], str]:
    """Return what was remembered, and a line where it cannot be read; both may be empty."""
    path = place()
    if path is None:
        return {}, ""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"the window's settings cannot be read and are begun anew: {path}: {error}"
    if not isinstance(found, dict):
        return {}, f"the window's settings cannot be read and are begun anew: {path}: no table"
    return found, ""


def save(settings: Mapping[str, Any]) -> str:
    """Remember; keys that are not named stay. Returns a line where it cannot be written, else an empty text."""
    path = place()
    if path is None:
        return ""
    kept, _ = load()
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(kept | dict(settings), indent=1) + "\n", encoding="utf-8")
        beside.replace(path)  # two windows that close at once leave one whole file
    except OSError as error:
        return f"the window's settings cannot be kept: {path}: {error.strerror or error}"
    return ""
