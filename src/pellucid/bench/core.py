"""Frames of a core in this process: through the source and a whole session, against the bare core alone.

The bare loop is what anybody would write: ``popNextImageMD`` until the camera stops, and nothing done with the pixels.
DemoCamera's beads are drawn by a thread of the core; how fast that is, is the most that any loop can get, and it
has to share the computer's processors with whoever reads. The three take turns, in this process.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from pellucid.config import Config
from pellucid.live import make_session
from pellucid.metrics import now_ns
from pellucid.sources.micromanager import MicroManager
from pellucid.testing import LocalRing, Told

__all__ = ["measure_core"]

ASKED_FPS = 1500.0
_SLOTS = 16
_BEADS = {"Camera.Mode": "Fluorescent Beads", "Camera.PixelType": "16bit"}


def _source(side: int, frames: int | None) -> MicroManager:
    sizes = {"Camera.OnCameraCCDXSize": side, "Camera.OnCameraCCDYSize": side}
    return MicroManager(config="demo", exposure_ms=0.1, frames=frames, properties={**_BEADS, **sizes})


def _bare(side: int, frames: int) -> float:
    source = _source(side, frames)
    source.open()
    try:
        core, new_metadata = source._core, source._metadata
        core.start_sequence_acquisition(frames, 0, True)
        came = 0
        began = 0
        while True:
            if core.get_remaining_image_count():
                core.pop_next_image_md(0, 0, new_metadata())
                began = began or now_ns()
                came += 1
            elif core.is_sequence_running():
                time.sleep(0.0005)
            elif not core.get_remaining_image_count():
                break
        # On a busy computer the core's buffer may overflow here as well, and then the camera has stopped.
        return (came - 1) / ((now_ns() - began) * 1e-9)
    finally:
        source.close()


def _alone(side: int, frames: int) -> tuple[float, int]:
    """Return frames/s and how many were dropped or lost."""
    source, account = _source(side, frames), Told()
    (stream,) = source.open()
    ring = LocalRing(stream, _SLOTS)
    try:
        source.start([ring], account)
        for slot in ring.slots:
            source.offer(slot)
        first = last = came = 0
        while not source.finished:
            slot_or_none = source.read(0.05)
            if slot_or_none is not None:
                last = slot_or_none.info.received_ns
                first = first or last
                came += 1
                source.offer(slot_or_none)
        return (came - 1) / ((last - first) * 1e-9), sum(count for _, count, *_ in account.missed)
    finally:
        source.close()
        ring.close()


def _session(side: int, frames: int) -> tuple[float, int]:
    """Return frames/s and how many were dropped or lost."""
    properties = _source(side, frames).properties
    config = Config.parse(
        "\n".join(
            [
                "[source]",
                'kind = "micromanager"',
                'config = "demo"',
                "exposure_ms = 0.1",
                f"frames = {frames}",
                "[source.properties]",
                *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in properties.items()),
                "[[sinks]]",
                'kind = "null"',
                "[session]",
                f"slots = {_SLOTS}",
            ]
        )
    )
    session = make_session(config)
    session.open()
    try:
        report = session.run()
    finally:
        session.close()
    counts = report["frames"]
    assert counts["unaccounted"] == 0, counts
    return report["throughput"]["frames_per_s"], sum(counts["dropped"].values()) + sum(counts["lost"].values())


def measure_core(side: int, quick: bool) -> dict[str, Any]:
    """Compare source and session with the bare loop, on beads of side x side, uint16."""
    frames = (6000 if side <= 512 else 600) // (4 if quick else 1)
    bare: list[float] = []
    alone: list[float] = []
    whole: list[float] = []
    lost = 0
    for _ in range(1 if quick else 5):
        bare.append(_bare(side, frames))
        for rates, (rate, missing) in ((alone, _alone(side, frames)), (whole, _session(side, frames))):
            rates.append(rate)
            lost += missing
    figures = {name: statistics.median(rates) for name, rates in (("b", bare), ("a", alone), ("w", whole))}
    asked = min(ASKED_FPS, figures["b"]) if side == 512 else figures["b"]
    return {
        "frames": f"{side}x{side} uint16",
        "bare_core_frames_per_s": figures["b"],
        "source_frames_per_s": figures["a"],
        "session_frames_per_s": figures["w"],
        "ratio_of_source": figures["a"] / figures["b"],
        "ratio_of_session": figures["w"] / figures["b"],
        "asked_frames_per_s": asked,
        "dropped_or_lost": lost,
    }
