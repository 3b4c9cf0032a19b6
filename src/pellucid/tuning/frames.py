"""The frames with which every candidate is measured: those of a file, or taken once from the config's own source.

They are played from memory, so that all candidates see the same and neither a disk nor a camera sets the rate.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from pellucid.config import Config, build_source
from pellucid.errors import ConfigError, PellucidError, RunError

__all__ = ["Frames", "gather"]

PLANES, STACKS = 64, 8
"""So many are taken from a source, and played again and again."""
_SECONDS = 30.0
_OPEN_S = 180.0
_OF_PACE = ("fps", "on_full", "loop", "preload")


@dataclass(frozen=True)
class Frames:
    """What is played.

    Parameters
    ----------
    source
        The ``[source]`` that plays it, without a rate.
    shape
        Of a frame, in pixels.
    streams
        Camera and channel of each.
    fps
        At which they came, all streams together; None where they have no rate of their own.
    told
        Where they are from, in words.
    """

    source: dict[str, Any]
    shape: tuple[int, ...]
    streams: tuple[str, ...]
    fps: float | None
    told: str


def gather(config: Config, tree: Mapping[str, Any], given: Path | None, folder: Path) -> Frames:
    """Return the frames for all candidates.

    Parameters
    ----------
    config, tree
        The unchanged config, and its text as a tree.
    given
        A recording or image to be played; None: the config's own source.
    folder
        For what is taken from a camera.

    Raises
    ------
    PellucidError
        Where there are none to be had.
    """
    source = dict(tree["source"])
    if given is not None:
        return _known({"kind": "replay", "path": str(given.resolve())}, None, f"played from {given.name}")
    if source["kind"] == "replay":
        fps = source.get("fps")
        table = {key: value for key, value in source.items() if key not in _OF_PACE}
        return _known(table, fps, f"played from {Path(source['path']).name}")
    return _taken(config, tree, folder)


def _known(source: dict[str, Any], fps: float | None, told: str) -> Frames:
    shape, streams = _look(source)
    return Frames(source, shape, streams, fps, told)


def _taken(config: Config, tree: Mapping[str, Any], folder: Path) -> Frames:
    """Run the source alone, recorded."""
    source = tree["source"]
    place = folder / "frames"
    stacks = config.settings.unit == "stack"
    count = STACKS if stacks else PLANES
    document = tomlkit.document()
    if "plugins" in tree:
        document["plugins"] = tree["plugins"]
    document["source"] = source
    document["sinks"] = [{"kind": "recorder", "path": str(place), "when_full": "wait"}]
    document["session"] = {"frames": count, "seconds": _SECONDS, "unit": config.settings.unit, "slots": 32}
    path = folder / "take.toml"
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    command = [sys.executable, "-m", "pellucid", "run", str(path), "--headless"]
    kind = source["kind"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_OPEN_S + _SECONDS,
            stdin=subprocess.DEVNULL, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RunError(
            f'source "{kind}" gave no frames within {_OPEN_S:g} s. Record some, and type: --frames RECORDING'
        ) from None
    lines = [line.removeprefix("pellucid: ").strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        raise RunError(
            f"no frames could be taken from the config's source: {lines[-1] if lines else 'it said nothing'}"
        )
    try:
        report = json.loads((place / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"what was taken from the config's source cannot be read: {error}") from None
    got = report["frames"]["recorded"]
    if got < 2:
        raise RunError(f'source "{kind}" gave {got} frames within {_SECONDS:g} s; two are needed at least')
    fps = report["throughput"]["frames_per_s"] or None
    shape, streams = _look({"kind": "replay", "path": str(place)})
    told = f"{got} frames taken from the config's own source"
    return Frames({"kind": "replay", "path": str(place)}, shape, streams, fps, told)


def _look(source: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    opened = build_source(source)
    try:
        streams = list(opened.open())
    except PellucidError as error:
        raise ConfigError(f"the frames cannot be played: {error}") from None
    finally:
        opened.close()
    return tuple(streams[0].spec.shape), tuple(f"{one.camera}, {one.channel}" for one in streams)
