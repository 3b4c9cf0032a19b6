"""The configs that come with pellucid: where they are, whom each is for, and a copy of one to change.

In a checkout they are the folder ``configs`` beside ``src``; an installed pellucid has them in its package. Each begins
with three lines (of which some go on below)::

    # For: whom it is for
    # Costs: what it takes
    # Change first: what is not yours yet
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pellucid.errors import ConfigError, did_you_mean

__all__ = ["HEADS", "ReadyMade", "copy_config", "find_config", "ready_made"]

HEADS = ("For", "Costs", "Change first")
_PLACES = (Path(__file__).parent / "ready_made_configs", Path(__file__).parents[2] / "configs")
"""Installed, and in a checkout."""


@dataclass(frozen=True)
class ReadyMade:
    """One config.

    Parameters
    ----------
    path
        The file; it is not meant to be changed where it lies.
    head
        What its first lines say, by the words of `HEADS`.
    """

    path: Path
    head: dict[str, str]

    @property
    def beside(self) -> list[str]:
        """Files that it names and that come with it, seen from its folder."""
        tree = tomllib.loads(self.path.read_text(encoding="utf-8"))
        names = {text for text in _texts(tree) if (self.path.parent / text).is_file()}
        licences = {str(licence) for name in names if (licence := Path(name).parent / "LICENSE").parts[:-1]}
        return sorted(names | {name for name in licences if (self.path.parent / name).is_file()})


@cache
def ready_made() -> dict[str, ReadyMade]:
    """Return the configs that come with pellucid, by name."""
    folder = next((place for place in _PLACES if place.is_dir()), None)
    if folder is None:
        return {}
    return {path.stem: ReadyMade(path, _head(path)) for path in sorted(folder.glob("*.toml"))}


def find_config(path: str | Path) -> Path:
    """Return the file that is meant: `path`, or where there is none the config of that name that comes with pellucid.

    Raises
    ------
    ConfigError
        For a bare name that is neither.
    """
    path = Path(path)
    if path.exists() or path.name != str(path) or path.suffix:
        return path
    known = ready_made()
    if path.name in known:
        return known[path.name].path
    # Only what may have been meant as a name; a path that is wrong is told of by who reads it.
    near = did_you_mean(path.name, known)
    raise ConfigError(
        f"{path}: there is no such file here, and no config of that name comes with pellucid.{near}"
        " Type: pellucid configs list"
    )


def copy_config(name: str, to: Path | None = None) -> list[Path]:
    """Copy a config, with the files that it names, to where it may be changed.

    Parameters
    ----------
    name
        As `ready_made` has it.
    to
        File to make, or a folder that exists; None: ``NAME.toml`` here.

    Returns
    -------
    list of pathlib.Path
        What was made, the config first. A file that is there already and the same is left as it is.

    Raises
    ------
    ConfigError
        Where there is no such config, or something else is where a file would be made.
    """
    known = ready_made()
    if name not in known:
        near = did_you_mean(name, known)
        raise ConfigError(f'no config "{name}" comes with pellucid.{near} There are: {", ".join(known) or "none"}')
    config = known[name]
    target = Path(to) if to is not None else Path(config.path.name)
    if target.is_dir():
        target = target / config.path.name
    pairs = [(config.path, target), *((config.path.parent / other, target.parent / other) for other in config.beside)]
    for source, there in pairs:
        if there.is_dir() or (there.exists() and (there == target or there.read_bytes() != source.read_bytes())):
            raise ConfigError(f"{there} is there already, and nothing is overwritten. Give another name or folder")
    made = []
    for source, there in pairs:
        if not there.exists():
            try:
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, there)
            except OSError as error:
                raise ConfigError(f"cannot write {there}: {error.strerror or error}") from None
            made.append(there)
    return made


def _head(path: Path) -> dict[str, str]:
    """Read the comment at the beginning of a config."""
    found: dict[str, list[str]] = {}
    at = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        text = line.removeprefix("# ").strip()
        word, colon, rest = text.partition(": ")
        if colon and word in HEADS:
            at, text = word, rest
        found.setdefault(at, []).append(text)
    return {word: " ".join(lines) for word, lines in found.items()}


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(value)
