"""Paths in a config are meant from the folder of that config."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationInfo

__all__ = ["from_folder"]


def from_folder(path: Path, info: ValidationInfo) -> Path:
    """Return `path` seen from ``info.context["folder"]``, where the config's reader gives one."""
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such user") from None
    folder = (info.context or {}).get("folder")
    return path if folder is None or path.is_absolute() else Path(folder) / path
