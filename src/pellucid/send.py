"""What ``pellucid send`` does: build a source from options, and relay it to a session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pellucid.config import build_source
from pellucid.errors import ConfigError
from pellucid.protocols import Source
from pellucid.runtime.relay import relay
from pellucid.wire.keys import Curve
from pellucid.wire.sender import Feed, Sender

__all__ = ["make_source", "send_frames"]


def make_source(
    *,
    cfg: str | None,
    adapters: Path | None,
    replay: Path | None,
    simulated: bool,
    fps: float | None,
    sets: Sequence[str],
    lossless: bool = False,
) -> Source:
    """Build the one source that the options name.

    Raises
    ------
    ConfigError
        Where none or several are named, or a key is wrong.
    """
    named = [name for name, given in (("--cfg", cfg), ("--replay", replay), ("--simulated", simulated)) if given]
    if len(named) != 1:
        what = "nothing to send" if not named else " and ".join(named) + " were given"
        raise ConfigError(f"{what}: give one of --cfg demo, --cfg FILE.cfg, --replay FILE, --simulated")
    keys: dict[str, Any] = {}
    if cfg is not None:
        if fps is not None:
            raise ConfigError(f"--fps {fps:g}: a camera's rate is its exposure; give --set exposure_ms={1e3 / fps:g}")
        kind = "micromanager"
        keys["config"] = cfg
        if adapters is not None:
            keys["adapters"] = str(adapters)
    elif replay is not None:
        kind = "replay"
        keys["path"] = str(replay)
    else:
        kind = "simulated"
    if adapters is not None and cfg is None:
        raise ConfigError("--adapters goes with --cfg")
    if fps is not None:
        keys["fps"] = fps
    if lossless and kind != "micromanager":
        keys["on_full"] = "wait"
    return build_source({"kind": kind, **keys}, sets)


def send_frames(
    source: Source,
    to: str,
    stop: threading.Event,
    *,
    lossless: bool,
    shared: bool,
    wait_s: float,
    frames: int | None,
    once: bool,
    keys: Path | None,
    compress: str,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> str:
    """Relay a source to the session at `to`; return one line that says what became of the frames."""
    curve = Curve.load(keys) if keys is not None else None

    def connect(feeds: list[Feed]) -> Sender:
        mode = "lossless" if lossless else "live"
        return Sender(to, feeds, mode=mode, shared=shared, curve=curve, compress=compress)

    sender = relay(source, connect, stop, wait_s=wait_s, frames=frames, once=once, tell=tell, warn=warn)
    return f"produced {sender.produced}, sent {sender.sent}, dropped {sender.dropped}"
