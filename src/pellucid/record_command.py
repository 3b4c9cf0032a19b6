"""What ``pellucid record`` does: begins and ends a recording of a session that runs in another process."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pellucid.errors import SinkError

__all__ = ["record_app"]

record_app = typer.Typer(
    help="Begin and end a recording of a running session, from another terminal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Which = Annotated[
    str | None,
    typer.Option("--session", help="Number of its process, or name of its config; else the only one that runs."),
]


@record_app.command()
def start(
    name: Annotated[str | None, typer.Option(help="Of this recording, within the session's folder.")] = None,
    session: Which = None,
) -> None:
    """Begin to record; what came shortly before is in it, as the config says (before_s)."""
    typer.echo(_ask("record.start", session, {} if name is None else {"name": name}))


@record_app.command()
def stop(session: Which = None) -> None:
    """End the recording; the session goes on."""
    typer.echo(_ask("record.stop", session, {}))


@record_app.command()
def status(session: Which = None) -> None:
    """Say what is being recorded."""
    typer.echo(_ask("record.status", session, {}))


def _ask(command: str, which: str | None, given: dict[str, Any]) -> str:
    """Return the line that the session answers."""
    from pellucid.wire.control_client import ControlClient
    from pellucid.wire.control_message import one_line

    with ControlClient.find(which) as client:
        if command not in client.session.commands:
            raise SinkError(
                f"the session {client.session.name} has no recorder that can be started and stopped. "
                'Add to its config: [[sinks]] kind = "recorder", path = "FOLDER", start = "armed"'
            )
        answer = client.ask(command, given)
    text = answer.get("text")
    return one_line(text) if isinstance(text, str) else json.dumps(answer)
