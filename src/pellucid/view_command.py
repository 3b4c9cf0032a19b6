"""What ``pellucid view`` does: a window on a session that runs, from another process."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pellucid.errors import MissingExtra, SinkError

__all__ = ["view"]


def view(
    session: Annotated[
        str | None,
        typer.Argument(help="Number of its process, or name of its config; left out: the only one that runs."),
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
) -> None:
    """Look at a running session, with or without a window of its own; stays when it ends, and shows the next one."""
    from pellucid.sinks.window import Window

    if (why := Window.why_not()) is not None:
        raise (MissingExtra if "not installed" in why else SinkError)(
            why.replace("Type: --headless", "A window needs one")
        )
    from pellucid.viewer.attach import view as run
    from pellucid.viewer.window import Look

    raise typer.Exit(run(session, Look(arrangement=arrangement, stack=stack), wait=wait, max_fps=max_fps))
