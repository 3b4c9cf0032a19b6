"""What is typed for ``pellucid tune``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = ["tune_command"]


def tune_command(interrupts: Callable[[Callable[[], None]], AbstractContextManager[Any]]) -> Callable[..., None]:
    """Return the command; `interrupts` has Ctrl-C call a function."""

    def tune(
        config: Annotated[Path, typer.Argument(help="The TOML file to tune, or a ready-made one's name.")],
        target_latency_ms: Annotated[
            float | None, typer.Option(min=0.01, max=1e6, help="For 99 of 100 frames; left out: as little as can be.")
        ] = None,
        fps: Annotated[
            float | None, typer.Option(min=0.001, max=1e6, help="Of the camera; left out: as its frames come.")
        ] = None,
        point: Annotated[
            Literal["restored", "disk", "display"] | None, typer.Option(help="Where the latency ends.")
        ] = None,
        iterations: Annotated[
            str | None, typer.Option(help="Least and most of deconvolutions: 1:6; left out: they stay.")
        ] = None,
        min_psnr: Annotated[
            float, typer.Option(min=0, max=200, help="dB, of restored frames against the unchanged config's.")
        ] = 40.0,
        tries: Annotated[
            list[str] | None,
            typer.Option("--try", help="Another key, its values best picture first: stages.0.iterations=6,3,1."),
        ] = None,
        keep: Annotated[list[str] | None, typer.Option(help="A key that stays: session.slots; repeatable.")] = None,
        minutes: Annotated[float, typer.Option(min=0.1, max=10000, help="For the whole search.")] = 10.0,
        seconds: Annotated[float, typer.Option(min=0.2, max=3600, help="Of each run that is measured.")] = 3.0,
        frames: Annotated[
            Path | None, typer.Option(help="A recording or image to play in place of the config's source.")
        ] = None,
        output: Annotated[Path | None, typer.Option("--output", "-o", help="Else CONFIG-tuned.toml here.")] = None,
        sets: Annotated[
            list[str] | None, typer.Option("--set", help="Change a key first: stages.0.iterations=3; repeatable.")
        ] = None,
    ) -> None:
        """Search what a config can set for a latency at a rate; write the best as a new config, and a page of all."""
        from pellucid.errors import ConfigError
        from pellucid.terminal import say
        from pellucid.tuning.command import Asked
        from pellucid.tuning.command import tune as run
        from pellucid.tuning.space import parse_range, parse_try

        if frames is not None and not frames.exists():
            raise ConfigError(f"--frames {frames}: there is no such file or folder")
        asked = Asked(
            config, tuple(sets or ()), target_latency_ms, fps, point, min_psnr, parse_range(iterations),
            parse_try(tries or []), tuple(keep or ()), minutes, seconds, frames, output,
        )  # fmt: skip
        stop = threading.Event()
        with interrupts(stop.set):
            reached = run(asked, say, stop)
        if not reached:
            raise typer.Exit(1)

    return tune
