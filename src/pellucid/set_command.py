"""``pellucid set`` and ``pellucid snap``: parameters and pictures of a session that runs in another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.errors import ConfigError, WireError

__all__ = ["set_values", "snap"]


def set_values(
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SESSION] KEY=VALUE...",
            help="stages.0.iterations=3, deconvolve.on=false; before them the session, where several run.",
        ),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Write what runs into the config file; comments stay.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Show what can be changed, with values and ranges.")] = False,
    session: Annotated[
        str | None,
        typer.Option("--session", help="Number of its process, or name of its config; else the only one that runs."),
    ] = None,
) -> None:
    """Change parameters of a running session's stages, from the next frame on."""
    from pellucid.controls.text import parse_change
    from pellucid.wire.control_client import ControlClient
    from pellucid.wire.control_message import one_line

    given, session = _given_and_session(changes or (), session)
    for change in given:
        parse_change(change)
    if not (given or save or show):
        raise ConfigError("nothing to set: give key=value, such as stages.0.iterations=3, or --list, or --save")
    with ControlClient.find(session) as client:
        if "set" not in client.session.commands:
            raise WireError(f"the session {client.session.name} is of an older pellucid, in which nothing can be set")
        if given:
            typer.echo(one_line(client.ask("set", {"changes": list(given)})["text"]))
        if save:
            typer.echo(one_line(client.ask("set.save")["text"]))
        if show:
            _show(client.ask("set.list")["knobs"])


def snap(
    session: Annotated[
        str | None, typer.Argument(help="Number of its process, or name of its config; else the only one that runs.")
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder for the files; it is made.")] = Path("snaps"),
) -> None:
    """Write the newest frame of a running session: each plane as PNG with a scale bar, and its data as OME-TIFF."""
    from pellucid.wire.control_client import ControlClient
    from pellucid.wire.control_message import one_line

    with ControlClient.find(session) as client:
        if "snap" not in client.session.commands:
            raise WireError(f"the session {client.session.name} is of an older pellucid, which snaps nothing")
        for path in client.ask("snap", {"to": str(to.absolute())})["files"]:
            typer.echo(one_line(path))


def _given_and_session(words: Sequence[str], session: str | None) -> tuple[list[str], str | None]:
    """Tell changes from the name of a session among what was typed."""
    names = [word for word in words if "=" not in word]
    if len(names) + (session is not None) > 1:
        asked = ", ".join(names)
        raise ConfigError(f'"{asked}": one session is needed, and key=value for each change. Type: pellucid set --list')
    return [word for word in words if "=" in word], names[0] if names else session


def _show(knobs: Sequence[Mapping[str, Any]]) -> None:
    rows = [("key", "value", "allowed"), *((k["key"], _text(k["value"]), allowed(k)) for k in knobs)]
    widths = [min(40, max(len(row[i]) for row in rows)) for i in range(2)]
    for key, value, may in rows:
        typer.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {may}".rstrip())


def allowed(knob: Mapping[str, Any]) -> str:
    """Return type and bounds of a key as a few words."""
    words = []
    kind = str(knob["type"])
    if kind not in ("any", "choice", "string"):
        words.append({"boolean": "true or false", "integer": "whole number"}.get(kind, kind))
    low, high = knob.get("min", knob.get("above")), knob.get("max", knob.get("below"))
    if low is not None and high is not None:
        words.append(f"{'above ' if 'above' in knob else ''}{low:g} to {'below ' if 'below' in knob else ''}{high:g}")
    elif low is not None:
        words.append(f"{'above' if 'above' in knob else 'at least'} {low:g}")
    elif high is not None:
        words.append(f"{'below' if 'below' in knob else 'at most'} {high:g}")
    words += [_text(choice) for choice in knob.get("choices", [])]
    return ", ".join(words)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
