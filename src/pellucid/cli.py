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

from pellucid.configs_command import configs_app
from pellucid.errors import ConfigError, PellucidError
from pellucid.record_command import record_app
from pellucid.recording_command import recover, report, reproduce, verify
from pellucid.set_command import set_values, snap
from pellucid.tune_command import tune_command
from pellucid.view_command import view

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


MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port", min=0, max=65535, help="Answer Prometheus there while it runs; 0: any that is free."
    ),
]
MetricsHost = Annotated[
    str,
    typer.Option("--metrics-host", help="Address for that; 0.0.0.0 lets every computer that reaches this one read it."),
]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The TOML file that says what to run, or a ready-made one's name.")],
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="End after so many seconds.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    sets: Sets = None,
) -> None:
    """Run a config: acquire, restore, record, show."""
    from pellucid.config import Config

    sets = _with_limits(sets, frames, seconds)
    checked = Config.load(config, sets, headless=headless)
    _run_session(checked, str(config), metrics=(metrics_port, metrics_host), given=(sets, headless))


@app.command()
def process(
    given: Annotated[Path, typer.Argument(metavar="IN", help="A recording, an OME-Zarr, an NDTiff or a TIFF.")],
    out: Annotated[Path, typer.Argument(help="The recording to make, or to go on with.")],
    config: Annotated[Path, typer.Argument(help="The TOML file whose [[stages]] are run, or a name.")],
    with_raw: Annotated[bool, typer.Option("--with-raw", help="Copy the raw frames as well.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes on this computer (needs dask).")] = 1,
    scheduler: Annotated[str, typer.Option(help="A dask cluster instead: tcp://computer:8786.")] = "",
    sets: Sets = None,
) -> None:
    """Run a config's stages over recorded data, into a new recording; typed again, it goes on where it ended."""
    from pellucid.process.command import Processing
    from pellucid.terminal import say

    work = Processing(
        given, out, config, sets=sets or [], with_raw=with_raw, workers=workers, scheduler=scheduler, say=say
    )
    opened = False

    def interrupted() -> None:
        if not opened:
            raise _NotBegun
        work.stop()

    with _stop_on_interrupt(interrupted):
        try:
            work.open()
            opened = True
            work.run()
        finally:
            work.close()


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="The TOML file to look at, or a name.")],
    shape: Annotated[str, typer.Option(help="Frame size to assume where only the camera knows it.")] = "2048x2048",
    dtype: Annotated[str, typer.Option(help="Pixel type to assume likewise.")] = "uint16",
    fps: Annotated[
        float | None, typer.Option(min=0.0001, help="Frames of each camera a second, where only it knows.")
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Leave out windows, as `run --headless` does.")] = False,
    sets: Sets = None,
) -> None:
    """Say what would run, with shapes, memory, disk and missing extras; start nothing. The disk is measured."""
    from pellucid.check import check_config
    from pellucid.config import Config

    if not check_config(Config.load(config, sets or [], headless=headless), shape, dtype, fps):
        raise typer.Exit(2)


@app.command()
def pyramid(
    folder: Annotated[Path, typer.Argument(help="A recording, a folder of them, or an OME-Zarr.")],
) -> None:
    """Add coarser levels to the OME-Zarr images of a finished recording; typed again, it goes on where it ended."""
    from pellucid.pyramid_command import add_levels
    from pellucid.terminal import say

    stop = threading.Event()
    with _stop_on_interrupt(stop.set):
        add_levels(folder, stop.is_set, say)


@app.command()
def upload(
    folder: Annotated[Path, typer.Argument(help="A recording, or a folder of them.")],
    url: Annotated[
        str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="Where to; AWS_* variables say who you are.")
    ],
    free_local: Annotated[
        bool, typer.Option("--free-local", help="Remove files of pixels here once they have arrived and were compared.")
    ] = False,
) -> None:
    """Put what a bucket does not have yet of a recording; typed again, it goes on where it ended."""
    from pellucid.upload_command import upload_folder

    stop = threading.Event()
    with _stop_on_interrupt(stop.set):
        whole = upload_folder(folder, url, stop.is_set, free_local=free_local)
    if not whole:
        raise typer.Exit(1)


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
    keys: Annotated[Path | None, typer.Option(help="This side's keys, as `pellucid keys` makes them.")] = None,
    compress: Annotated[
        str, typer.Option(help="Pack pixels without loss where they go in band: lz4 (fast) or zstd (small).")
    ] = "",
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
            compress=compress,
            tell=tell,
            warn=lambda line: typer.echo(f"pellucid: {line}", err=True),
        )
    typer.echo(counts)


@app.command()
def keys(
    file: Annotated[Path, typer.Argument(help="The file to make or to add to: session.keys, camera.keys.")],
    session: Annotated[
        str | None, typer.Option(help="Make a camera's keys, for the session with this public key.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Let the camera with this public key come; repeatable.")
    ] = None,
) -> None:
    """Make and introduce the keys of two computers; each call prints what to type next, and where.

    On the session's computer: pellucid keys session.keys. On the camera's: pellucid keys camera.keys --session KEY.
    On the session's again: pellucid keys session.keys --allow KEY. For a computer that looks (pellucid view) likewise.
    """
    from pellucid.wire.keyfile import tend_keys

    for line in tend_keys(file, session, allow or []):
        typer.echo(line)


models_app = typer.Typer(
    help="Networks: list what is here, import one, make its engine beforehand, put it to the test.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
app.add_typer(record_app, name="record")
app.command("set")(set_values)
app.command()(snap)
app.command()(view)
app.add_typer(configs_app, name="configs")
for _command in (recover, verify, reproduce, report):
    app.command()(_command)
ModelName = Annotated[str, typer.Argument(help="Name, file, package (zip, folder) or bioimage.io nickname.")]
EngineKind = Annotated[str, typer.Option(help="openvino, torch, tensorrt, tensorrt-rtx; auto: the best that is here.")]


@models_app.command("list")
def models_list() -> None:
    """Print the models of this computer and what can run them."""
    from pellucid.models_command import list_models

    list_models(typer.echo)


@models_app.command("info")
def models_info(model: ModelName) -> None:
    """Print all that is known of a model."""
    from pellucid.models_command import show_model

    show_model(model, typer.echo)


@models_app.command("import")
def models_import(
    source: ModelName, name: Annotated[str | None, typer.Option(help="By which configs will call it.")] = None
) -> None:
    """Check a model and copy it to this computer's shelf."""
    from pellucid.models_command import import_model

    import_model(source, name, typer.echo)


@models_app.command("build")
def models_build(
    model: ModelName,
    engine: EngineKind = "auto",
    shape: Annotated[str, typer.Option(help="Pixels of the frames (or of the tiles).")] = "2048x2048",
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16; left out: the engine's own.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    capability: Annotated[
        list[str] | None, typer.Option(help="For a GPU that is not here: 8.6, 8.9, 12.0; tensorrt-rtx only.")
    ] = None,
) -> None:
    """Make an engine beforehand, so that a run begins at once."""
    from pellucid.models_command import build_engine

    build_engine(model, engine, shape, precision, device, capability or [], typer.echo)


@models_app.command("verify")
def models_verify(model: ModelName, engine: Annotated[str, typer.Option(help="One of them, or all.")] = "all") -> None:
    """Check a model's files, its own test, and every engine against float32."""
    from pellucid.models_command import verify_model

    if not verify_model(model, engine, typer.echo):
        raise typer.Exit(1)


psf_app = typer.Typer(
    help="Make, measure and look at PSFs; each is saved with a picture beside it.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(psf_app, name="psf")

PixelUm = Annotated[float | None, typer.Option(min=1e-4, max=1e4, help="Size of a pixel in the specimen, micrometres.")]
ZUm = Annotated[float | None, typer.Option(min=1e-4, max=1e4, help="Distance of the planes, micrometres.")]
IdealNa = Annotated[float | None, typer.Option(min=0.01, max=2, help="Of the lens: the ideal widths are shown.")]
IdealNm = Annotated[float | None, typer.Option(min=100, max=5000, help="Of the emission, for the same.")]
IdealIndex = Annotated[float, typer.Option(min=1, max=4, help="Of the immersion, for the same.")]
PsfOut = Annotated[Path, typer.Option("--output", "-o", help="The TIFF to write; the picture beside it is a PNG.")]


@psf_app.command("measure")
def psf_measure(
    image: Annotated[Path, typer.Argument(help="A picture or stack of beads: TIFF or NPY.")],
    output: PsfOut,
    pixel_um: PixelUm = None,
    z_um: ZUm = None,
    na: IdealNa = None,
    wavelength_nm: IdealNm = None,
    index: IdealIndex = 1.0,
    bead_um: Annotated[float | None, typer.Option(min=0, max=100, help="Diameter of the beads.")] = None,
    size_px: Annotated[int | None, typer.Option(min=5, max=1023, help="Odd side of the PSF; else 12 widths.")] = None,
    planes: Annotated[
        int | None, typer.Option(min=3, max=1023, help="Odd number of its planes; else 8 widths.")
    ] = None,
    radial: Annotated[bool, typer.Option(help="Average along the circles round the axis.")] = True,
    channel: Annotated[int | None, typer.Option(min=0, help="Which one, where the file has several.")] = None,
) -> None:
    """Find beads, average those that are alone, whole and not saturated, and save the PSF."""
    from pellucid.psf_command import measure_psf

    measure_psf(
        image,
        output,
        pixel_um=pixel_um,
        z_um=z_um,
        theory=_theory(na, wavelength_nm, index),
        bead_um=bead_um,
        size_px=size_px,
        planes=planes,
        radial=radial,
        channel=channel,
        say=typer.echo,
    )


@psf_app.command("model")
def psf_model(
    output: PsfOut,
    kind: Annotated[str, typer.Option(help="scalar, gibson-lanni, vectorial, confocal or light-sheet.")] = "vectorial",
    na: Annotated[float | None, typer.Option(help="Numerical aperture.")] = None,
    wavelength_nm: Annotated[float | None, typer.Option(help="Of the emission.")] = None,
    index: Annotated[float | None, typer.Option(help="Of the immersion: 1.0 air, 1.33 water, 1.515 oil.")] = None,
    pixel_um: PixelUm = None,
    z_um: Annotated[float | None, typer.Option(help="Distance of the planes; without it one plane is made.")] = None,
    size_px: Annotated[int | None, typer.Option(help="Odd side.")] = None,
    planes: Annotated[int | None, typer.Option(help="Odd number of planes.")] = None,
    thickness_um: Annotated[
        float | None, typer.Option(help="Of the specimen that one plane's PSF is the mean over.")
    ] = None,
    index_sample: Annotated[float | None, typer.Option(help="Of the mounting medium.")] = None,
    depth_um: Annotated[float | None, typer.Option(help="Of the light sources below the coverslip.")] = None,
    excitation_nm: Annotated[float | None, typer.Option(help="confocal, light-sheet: of the laser.")] = None,
    pinhole_au: Annotated[float | None, typer.Option(help="confocal: diameter in Airy units.")] = None,
    sheet_um: Annotated[float | None, typer.Option(help="light-sheet: thickness (FWHM).")] = None,
    sheet_na: Annotated[float | None, typer.Option(help="light-sheet: its aperture instead.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Another key: coverslip_um=160; repeatable.")] = None,
) -> None:
    """Compute a PSF from the figures of the microscope."""
    from pellucid.psf_command import model_psf

    keys = {
        "na": na,
        "wavelength_nm": wavelength_nm,
        "index": index,
        "pixel_um": pixel_um,
        "z_um": z_um,
        "size_px": size_px,
        "planes": planes,
        "thickness_um": thickness_um,
        "index_sample": index_sample,
        "depth_um": depth_um,
        "excitation_nm": excitation_nm,
        "pinhole_au": pinhole_au,
        "sheet_um": sheet_um,
        "sheet_na": sheet_na,
    }
    model_psf(kind, keys, sets or [], output, typer.echo)


@psf_app.command("show")
def psf_show(
    path: Annotated[Path, typer.Argument(help="A PSF: TIFF or NPY.")],
    picture: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG to write; else it lies beside the PSF.")
    ] = None,
    pixel_um: PixelUm = None,
    z_um: ZUm = None,
    na: IdealNa = None,
    wavelength_nm: IdealNm = None,
    index: IdealIndex = 1.0,
) -> None:
    """Say what a PSF is and what is wrong with it, and draw it."""
    from pellucid.psf_command import show_psf

    show_psf(path, picture, pixel_um=pixel_um, z_um=z_um, theory=_theory(na, wavelength_nm, index), say=typer.echo)


def _theory(na: float | None, wavelength_nm: float | None, index: float) -> Any:
    """Return what the widths should be, where enough is known for it."""
    from pellucid.optics.psf_facts import Theory

    if (na is None) != (wavelength_nm is None):
        raise ConfigError("the ideal widths need both --na 1.2 and --wavelength-nm 520 (and --index 1.33)")
    if na is None or wavelength_nm is None:
        return None
    if na >= index:
        raise ConfigError(
            f"--na {na:g}: not below --index {index:g}; give the immersion's: 1.0 air, 1.33 water, 1.515 oil"
        )
    return Theory(na, wavelength_nm, index)


@app.command()
def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="How long to image.")] = 6.0,
    path: Annotated[str, typer.Option(help="Folder to make for the recording.")] = "pellucid-demo-{time}",
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Image out-of-focus beads with a real Micro-Manager core and restore them live."""
    from pellucid.demo import demo_config, demo_picture, demo_sender
    from pellucid.terminal import say

    config = demo_config(seconds=seconds, path=path, headless=headless)
    with demo_sender(config):
        _run_session(config, "demo", leave=False, metrics=(metrics_port, metrics_host))
    folder = config.sinks["recorder"].folder  # type: ignore[attr-defined]
    say(f"recording     {folder}")
    say(f"before/after  {demo_picture(folder)}")


@app.command()
def bench(
    what: Annotated[
        list[str] | None, typer.Argument(help="wire, path, remote, core, bridge, deconvolution; all if none is named.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="The same as naming it.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure this computer: wire, whole path and deconvolution, each as a ratio within one run."""
    from pellucid.bench import run_benchmarks

    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.absolute().parent}")
    figures = run_benchmarks(quick=quick, only=[*(what or ()), *(only or ())] or None)
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


def _run_session(
    config: Any,
    name: str,
    *,
    leave: bool = True,
    metrics: tuple[int | None, str] = (None, "127.0.0.1"),
    given: tuple[list[str], bool] | None = None,
) -> None:
    from pellucid.controls import Controls, following
    from pellucid.controls.views import Views
    from pellucid.controls.visits import looked_at
    from pellucid.live import make_session
    from pellucid.terminal import LiveLine, print_summary, say
    from pellucid.wire.control import reachable

    session = make_session(config, tell=say)
    controls = Controls(config, session, Path(name) if given is not None else None)
    sets, headless = given or ([], False)
    opened = False

    def interrupted() -> None:
        if not opened:
            raise _NotBegun  # nothing runs yet: leave the waiting for a camera or a sender
        session.stop("stopped by Ctrl-C")

    live = LiveLine(session.ledger)
    with _stop_on_interrupt(interrupted), _metrics(session, config, name, metrics, say):
        try:
            session.open()
            opened = True
            note = session.ledger.note
            parts = {**session.sinks, "controls": controls}
            with (
                live,
                looked_at(config.settings.view, session, name, parts, note),
                reachable({**parts, "views": Views(session, name)}, name, note),
                following(controls, sets, note, headless=headless),
            ):
                session.run()
        finally:
            session.close()
            if session.report is not None:
                print_summary(session.report)
            live.notes_since()
    recorder = next((s for k, s in config.sinks.items() if k.startswith("recorder")), None)
    if leave and recorder is not None:
        say(f"recording  {recorder.folder}")


@contextmanager
def _metrics(session: Any, config: Any, name: str, at: tuple[int | None, str], say: Any) -> Iterator[None]:
    """Let Prometheus read a session, from before it opens: a port that is taken is told before a camera is."""
    port, host = at
    if port is None:
        yield
        return
    from pellucid._version import version
    from pellucid.metrics_server import MetricsServer
    from pellucid.metrics_server.session_metrics import SessionMetrics

    facts = {"version": version, "config": name, "config_sha256": config.sha256}
    with MetricsServer([SessionMetrics(session, facts)], port, host) as server:
        say(f"metrics  {server.url}" + (", open to other computers" if server.open_to_others else ""))
        yield


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


app.command("tune")(tune_command(_stop_on_interrupt))


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
