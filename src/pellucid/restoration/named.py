"""Whether the key ``model`` of a config is a name or a file."""

from __future__ import annotations

from pathlib import Path

__all__ = ["file_of"]

_ENDS = (".onnx", ".pt", ".ts", ".pt2", ".pth", ".zip", ".yaml", ".yml")


def file_of(given: str, folder: Path) -> Path | None:
    """Return the file or folder that is meant, there or not, seen from `folder`; None for a model's name.

    A word without a separator and without the ending of a model's file is a name, unless a package (a folder with
    ``rdf.yaml``) of that name lies beside the config.
    """
    path = Path(given).expanduser()
    looks = path.is_absolute() or "/" in given or "\\" in given or given.lower().endswith(_ENDS)
    if looks or (folder / path / "rdf.yaml").is_file():
        return folder / path
    return None
