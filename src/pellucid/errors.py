"""What can go wrong, as a tree; every message says where, what was given, what is allowed, what to type.

::

    PellucidError            a user can mend it; the command line prints one line and exits 2
    ├── ConfigError          a key or value of a config, or a command-line option
    ├── MissingExtra         a package that an optional part needs is not installed
    ├── SourceError          a camera, file or sender cannot give frames
    ├── WireError            the connection between sender and session
    ├── StageError           a stage cannot be bound to the frames it is given
    ├── SinkError            a recording cannot be made, a window cannot be opened
    └── RunError             a run that began ended before it should; exit 1
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "ConfigError",
    "MissingExtra",
    "PellucidError",
    "RunError",
    "SinkError",
    "SourceError",
    "StageError",
    "WireError",
    "did_you_mean",
    "require",
]


class PellucidError(Exception):
    """A mistake or a lack that the user can mend; its text is all that the user needs."""

    exit_code = 2


class ConfigError(PellucidError):
    """A key or value of a config file, or an option of a command, is wrong."""


class MissingExtra(PellucidError):
    """An optional part was asked for and the package behind it is not installed."""


class SourceError(PellucidError):
    """A camera, a file or a sender cannot give frames."""


class WireError(PellucidError):
    """The connection between a sender and a session cannot be made."""


class StageError(PellucidError):
    """A stage cannot be bound to the frames it is given."""


class SinkError(PellucidError):
    """A recording cannot be made, or a window cannot be opened."""


class RunError(PellucidError):
    """A run that began had to end early; what was recorded before stays readable."""

    exit_code = 1


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return ``' Did you mean "x"?'`` where a near name exists, else an empty string."""
    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def require(module: str, extra: str, needed_by: str) -> ModuleType:
    """Import a vendor's module, or say which extra brings it.

    Parameters
    ----------
    module
        Name to import, such as ``"pycromanager"``.
    extra
        The extra of pellucid that installs it.
    needed_by
        What the user asked for, such as ``'source "micromanager"'``.

    Raises
    ------
    MissingExtra
        With the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{needed_by} needs the package {module.split('.', maxsplit=1)[0]}, which cannot be imported ({error}). "
            f'Type: pip install "pellucid[{extra}]"'
        ) from None
