"""The config of ``pellucid process``: the stages and settings of a file, with IN as its source and no sinks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from pellucid.config import Config
from pellucid.errors import ConfigError, did_you_mean
from pellucid.ready_made import find_config

__all__ = ["load_config", "unit_of"]


def load_config(path: Path, given: Path, sets: Sequence[str]) -> tuple[Config, list[str]]:
    """Read a config file; its [source] becomes a replay of `given`, its [[sinks]] go.

    Parameters
    ----------
    path
        Of the config file, or the name of one that comes with pellucid.
    given
        IN: file or folder that is there.
    sets
        As of ``pellucid run``; ``source.dataset=1`` and ``source.pixel_um=0.1`` speak of IN.

    Returns
    -------
    config : Config
    unused : list of str
        Parts of the file that have no use here.

    Raises
    ------
    ConfigError
        One line: what is wrong with the file.
    """
    path = find_config(path)
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except TOMLKitError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; give the config file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        hint = did_you_mean(path.name, [p.name for p in path.parent.glob("*.toml")]) if not path.exists() else ""
        raise ConfigError(f"cannot read the config {path}: {reason}.{hint}") from None
    unused = [text for key, text in (("source", "[source]"), ("sinks", "[[sinks]]")) if key in document]
    for key in ("source", "sinks"):
        document.pop(key, None)
    # At the end of the file it would become part of the last table, whatever that is.
    source = tomlkit.table()
    source.update({"kind": "replay", "path": str(given.absolute())})
    whole = tomlkit.document()
    plugins = document.pop("plugins", None)
    if plugins is not None:
        whole["plugins"] = plugins
    whole["source"] = source
    for key, value in document.items():
        whole[key] = value
    config = Config.parse(tomlkit.dumps(whole), path.resolve().parent, sets, name=str(path))
    if not config.stages:
        raise ConfigError(f"{path} has no [[stages]], so there is nothing to do. Type: pellucid list")
    return config, unused


def unit_of(config: Config) -> str:
    """Return what the stages are given at once: ``"plane"`` or ``"stack"``."""
    return config.settings.unit
