"""The command line: parses, calls, prints."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from pellucid.errors import ConfigError, PellucidError

__all__ = ["main"]

app = typer.Typer(
    help="Restores microscope frames while they are being acquired.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Change a key: stages.0.iterations=3 (value in TOML); repeatable.")
]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The TOML file that says what to run.")],
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="End after so many seconds.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    sets: Sets = None,
) -> None:
    """Run a config: acquire, restore, record, show."""
    from pellucid.config import Config

    _run_session(Config.load(config, _with_limits(sets, frames, seconds), headless=headless))


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="The TOML file to look at.")],
    shape: Annotated[str, typer.Option(help="Frame size to assume where only the camera knows it.")] = "2048x2048",
    dtype: Annotated[str, typer.Option(help="Pixel type to assume likewise.")] = "uint16",
    sets: Sets = None,
) -> None:
    """Say what would run, with shapes, memory and missing extras; start nothing."""
    from pellucid.check import check_config
    from pellucid.config import Config

    if not check_config(Config.load(config, sets or []), shape, dtype):
        raise typer.Exit(2)


@app.command("list")
def list_parts() -> None:
    """Show every source, stage, engine and sink with its arguments."""
    from pellucid.check import print_parts

    print_parts()


@app.command()
def send(
    to: Annotated[str, typer.Option(help="Where the session listens.")] = "tcp://127.0.0.1:5599",
    cfg: Annotated[str | None, typer.Option(help='A Micro-Manager .cfg, or "demo" for the DemoCamera.')] = None,
    adapters: Annotated[Path | None, typer.Option(help="Folder of the device adapters.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Send a file's frames instead of a camera's.")] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="Send a simulation.")] = False,
    fps: Annotated[float | None, typer.Option(min=0.001, help="Rate of --replay or --simulated.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Wait for the session instead of dropping; not for a live camera.")
    ] = False,
    in_band: Annotated[bool, typer.Option("--in-band", help="Never use shared memory.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when the session goes.")] = False,
    wait: Annotated[float, typer.Option(min=0.1, max=1e7, help="How long to look for the session, in seconds.")] = 30.0,
    keys: Annotated[
        Path | None, typer.Option(help="TOML file with public, secret and server (CURVE keys, Z85).")
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", hidden=True, help="Leave Ctrl-C to the session that started this.")
    ] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Another key of the source: exposure_ms=20; repeatable.")
    ] = None,
) -> None:
    """Be the camera's side: run a core or replay files, and send the frames to a session here or elsewhere."""
    from pellucid.send import make_source, send_frames

    source = make_source(
        cfg=cfg, adapters=adapters, replay=replay, simulated=simulated, fps=fps, sets=sets or [], lossless=lossless
    )
    stop = threading.Event()
    if background:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    found = False

    def interrupted() -> None:
        if not found:
            raise _NotBegun
        stop.set()

    def tell(line: str) -> None:
        nonlocal found
        found = True
        typer.echo(line)

    with _stop_on_interrupt(interrupted):
        counts = send_frames(
            source,
            to,
            stop,
            lossless=lossless,
            shared=not in_band,
            wait_s=wait,
            frames=frames,
            once=once,
            keys=keys,
            tell=tell,
        )
    typer.echo(counts)


@app.command()
def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="How long to image.")] = 6.0,
    path: Annotated[str, typer.Option(help="Folder to make for the recording.")] = "pellucid-demo-{time}",
) -> None:
    """Image out-of-focus beads with a real Micro-Manager core and restore them live."""
    from pellucid.demo import demo_config, demo_picture, demo_sender
    from pellucid.terminal import say

    config = demo_config(seconds=seconds, path=path, headless=headless)
    with demo_sender(config):
        _run_session(config, leave=False)
    folder = config.sinks["recorder"].folder  # type: ignore[attr-defined]
    say(f"recording     {folder}")
    say(f"before/after  {demo_picture(folder)}")


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="wire, path or deconvolution; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure this computer: wire, whole path and deconvolution, each as a ratio within one run."""
    from pellucid.bench import run_benchmarks

    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.absolute().parent}")
    figures = run_benchmarks(quick=quick, only=only)
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _with_limits(sets: list[str] | None, frames: int | None, seconds: float | None) -> list[str]:
    """Turn limits into overrides, so that the recorded config says them as well."""
    out = list(sets or [])
    if frames is not None:
        out.append(f"session.frames={frames}")
    if seconds is not None:
        out.append(f"session.seconds={seconds}")
    return out


class _NotBegun(BaseException):
    """Ctrl-C before the first frame; no `Exception`, so that nothing on its way takes it for a fault."""


def _run_session(config: Any, *, leave: bool = True) -> None:
    from pellucid.live import make_session
    from pellucid.terminal import LiveLine, print_summary, say

    session = make_session(config)
    opened = False

    def interrupted() -> None:
        if not opened:
            raise _NotBegun  # nothing runs yet: leave the waiting for a camera or a sender
        session.stop("stopped by Ctrl-C")

    with _stop_on_interrupt(interrupted):
        try:
            session.open()
            opened = True
            with LiveLine(session.ledger):
                session.run()
        finally:
            session.close()
            if session.report is not None:
                print_summary(session.report)
    recorder = next((s for k, s in config.sinks.items() if k.startswith("recorder")), None)
    if leave and recorder is not None:
        say(f"recording  {recorder.folder}")


@contextmanager
def _stop_on_interrupt(stop: Any) -> Iterator[None]:
    """First Ctrl-C: end cleanly. Second: at once."""
    seen = 0

    def interrupted(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os._exit(130)
        # Written past every buffer and lock: this runs between any two instructions.
        os.write(2, b"\nstopping: working off what is there; Ctrl-C again ends at once\n")
        stop()

    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, interrupted)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe on Windows cannot hold every letter
    try:
        code = app(standalone_mode=False)
    except PellucidError as error:
        _fail(str(error))
        sys.exit(error.exit_code)
    except _NotBegun:
        _fail("stopped before the run began; nothing was written")
        sys.exit(0)
    except (KeyboardInterrupt, Abort):
        sys.exit(130)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "pellucid"
        _fail(f"{error.format_message()} Type: {command} --help")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str) -> None:
    print(f"pellucid: {' '.join(text.split())}", file=sys.stderr)
