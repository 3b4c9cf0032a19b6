"""``pellucid configs``: the ready-made configs, listed, printed, copied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.ready_made import HEADS, copy_config, find_config, ready_made

__all__ = ["configs_app"]

configs_app = typer.Typer(
    help="Ready-made configs: list them, print one, copy one to change it. `pellucid run NAME` runs one as it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Name = Annotated[str, typer.Argument(help="As `pellucid configs list` has it.")]


@configs_app.command("list")
def configs_list() -> None:
    """Print every ready-made config, and whom it is for."""
    known = ready_made()
    width = max((len(name) for name in known), default=0)
    for name, config in known.items():
        typer.echo(f"{name:<{width}}  {config.head.get(HEADS[0], '')}")
    typer.echo("\npellucid run NAME runs one as it is; pellucid configs copy NAME makes a file that you can change.")


@configs_app.command("show")
def configs_show(name: Name) -> None:
    """Print a ready-made config."""
    typer.echo(find_config(name).read_text(encoding="utf-8"), nl=False)


@configs_app.command("copy")
def configs_copy(
    name: Name,
    to: Annotated[Path | None, typer.Argument(help="File to make, or a folder; left out: NAME.toml here.")] = None,
) -> None:
    """Copy a ready-made config, with the files that it names, to where you can change it."""
    made = copy_config(name, to)
    for path in made:
        typer.echo(f"made {path}")
    typer.echo(f"change first: {ready_made()[name].head.get(HEADS[2], '')}")
    typer.echo(f"then type: pellucid check {made[0]}")
