"""What ``pellucid view`` does: a window on a session that runs, from another process or computer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pellucid.errors import ConfigError, MissingExtra, SinkError

if TYPE_CHECKING:
    from pellucid.viewer.ways import Way

__all__ = ["view"]


def view(
    session: Annotated[
        str | None,
        typer.Argument(
            metavar="SESSION|ADDRESS",
            help="Number of its process, or name of its config; left out: the only one that runs. On another computer: "
            "tcp://HOST:PORT, as its [session.view] says.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="For a session to begin, where none runs yet.")] = False,
    max_fps: Annotated[float, typer.Option(min=0.1, max=1000, help="Frames in between are left out.")] = 60.0,
    arrangement: Annotated[
        Literal["side", "split", "blink", "raw", "restored"] | None,
        typer.Option(help="Of raw and restored; left out: as it was last."),
    ] = None,
    stack: Annotated[
        Literal["max", "middle", "slice", "volume"] | None, typer.Option(help="How z-stacks are shown; likewise.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="This computer's keys, for a session on another one: pellucid keys --help.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Where this computer listens for that session; left out: 5611 to 5614."),
    ] = None,
    compress: Annotated[
        Literal["lz4", "zstd"] | None, typer.Option(help="Pack that session's pixels, for a slow network.")
    ] = None,
) -> None:
    """Look at a running session, with or without a window of its own; stays when it ends, and shows the next one."""
    from pellucid.sinks.window import Window

    if (why := Window.why_not()) is not None:
        raise (MissingExtra if "not installed" in why else SinkError)(
            why.replace("Type: --headless", "A window needs one")
        )
    way = _way(session, keys, port, compress or "")
    from pellucid.viewer.attach import view as run
    from pellucid.viewer.window import Look

    raise typer.Exit(run(way, Look(arrangement=arrangement, stack=stack), wait=wait, max_fps=max_fps))


def _way(session: str | None, keys: Path | None, port: int | None, compress: str) -> Way:
    from pellucid.viewer.ways import Far, Near
    from pellucid.wire.control_file import running_sessions

    is_address = session is not None and session.startswith("tcp://")
    if session is not None and is_address and keys is not None:
        return Far(session, keys, port, compress)
    if is_address and not any(one.address == session for one in running_sessions()):
        raise ConfigError(f"{session} is another computer, which needs keys: give --keys FILE (pellucid keys --help)")
    if keys is not None or port is not None or compress:
        raise ConfigError(
            "--keys, --port and --compress are for a session on another computer: "
            "pellucid view tcp://ITS-NAME:5610 --keys FILE"
        )
    return Near(session)
