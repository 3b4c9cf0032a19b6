"""The demo: a real Micro-Manager core in a process of its own, the wire, live deconvolution, recording, window.

The DemoCamera of Micro-Manager draws fluorescent beads and blurs them as the focus device leaves focus. The
beads, their blur and the core are Micro-Manager's; there is no specimen, so it is a simulation, run through
the same code as a camera.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.config import Config
from pellucid.errors import SourceError, require

__all__ = ["demo_config", "demo_picture", "demo_sender"]

_CONFIG = """\
# Out-of-focus beads of Micro-Manager's DemoCamera, restored live.
[source]
kind = "wire"
bind = "tcp://127.0.0.1:{port}"

[[stages]]
kind = "deconvolve"
method = "wiener-butterworth"
iterations = 2
alpha = 0.003                 # no noise, so more can be undone; found by comparing with the frame in focus
resolution_px = 6
psf = {{ kind = "gaussian", fwhm_px = 10.2 }}

[[sinks]]
kind = "recorder"
path = "{path}"

[[sinks]]
kind = "window"
title = "pellucid demo: DemoCamera beads"
max_fps = 20                  # leaves the processor to the deconvolution where the screen is drawn without a GPU

[session]
seconds = {seconds}
slots = 32
"""

_FOCUS_UM = 10.0
_EXPOSURE_MS = 30.0


def demo_config(*, seconds: float, path: str, headless: bool) -> Config:
    """Return the demo's config, on a port that is free, without the window where there is no screen."""
    for module in ("pycromanager", "mm_test_adapters"):
        require(module, "demo", "pellucid demo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = _CONFIG.format(port=port, path=path.replace("\\", "/"), seconds=seconds)
    config = Config.parse(text, headless=headless)
    window: Any = config.sinks.get("window")
    if window is not None and (why := window.why_not()) is not None:
        print(f"no window: {why}")
        config = Config.parse(text, headless=True)
    return config


@contextmanager
def demo_sender(config: Config) -> Iterator[None]:
    """Run the camera's process for as long as the session lasts."""
    endpoint: str = config.source.bind  # type: ignore[attr-defined]
    options = {
        "exposure_ms": str(_EXPOSURE_MS),
        "focus_um": str(_FOCUS_UM),
        "channel": '"beads"',
        "properties": '{"Camera.Mode" = "Fluorescent Beads", "Camera.PixelType" = "16bit"}',
    }
    sets = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "pellucid", "send", "--to", endpoint, "--cfg", "demo", "--once", "--background"]
    process = subprocess.Popen(
        [*command, *sets], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield
        _, complaint = process.communicate(timeout=10)
        if process.returncode:
            raise SourceError(f"the camera's process ended with {process.returncode}: {_last_line(complaint)}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def demo_picture(folder: Path) -> Path:
    """Make ``before-after.png`` from the middle frame of a recording."""
    import zarr

    from pellucid.picture import before_after

    raw: Any = zarr.open_array(folder / "raw.ome.zarr" / "0", mode="r")
    restored: Any = zarr.open_array(folder / "restored.ome.zarr" / "0", mode="r")
    middle = raw.shape[0] // 2
    path = folder / "before-after.png"
    before_after(
        raw[middle, 0],
        restored[middle, 0],
        path,
        title_left="raw, out of focus",
        title_right="restored live",
        subtitle=f"DemoCamera beads (a simulation by Micro-Manager), frame {middle} of {raw.shape[0]}",
    )
    return path


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
