"""The shipped denoiser on every engine that is here, against eager torch in float32: same frames, alternating."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.bench.lane import captured, synchronize
from pellucid.engines.openvino import OpenVino
from pellucid.engines.tensorrt import TensorRT
from pellucid.engines.tensorrt_rtx import TensorRTRTX
from pellucid.engines.torch import Torch
from pellucid.metrics import now_ns
from pellucid.models import Engine, shelf
from pellucid.models.frames import real_frames

__all__ = ["measure_engines"]

SIDES = (512, 2048)
EAGER = "torch eager"


def _engines(device: str) -> dict[str, Engine]:
    """Return what is compared; the first is the reference."""
    if device == "cpu":
        return {
            EAGER: Torch(mode="eager", precision="float32", channels_last=False),
            "torch eager, channels last": Torch(mode="eager", precision="float32"),
            "openvino (default)": OpenVino(),
            "openvino float32": OpenVino(precision="float32"),
        }
    return {
        EAGER: Torch(mode="eager", precision="float32", channels_last=False),
        "torch eager float16": Torch(mode="eager", precision="float16"),
        "torch graph float16": Torch(mode="graph", precision="float16"),
        "tensorrt": TensorRT(),
        "tensorrt-rtx": TensorRTRTX(),
    }


def measure_engines(quick: bool, device: str = "", sides: Sequence[int] = SIDES) -> list[dict[str, Any]]:
    """Return a row for each engine and side: median ms a frame, times eager torch, error against it.

    What can be captured in a CUDA graph is, as a session does it.
    """
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    model = shelf.find("denoise")
    rows: list[dict[str, Any]] = []
    for side in sides:
        rows += _measure(model, side, device, 5 if quick else 15 if device == "cpu" else 100)
    return rows


def _measure(model: Any, side: int, device: str, times: int) -> list[dict[str, Any]]:
    frame = np.tile(real_frames()[0].astype(np.float32), (side // 256, side // 256))
    low, high = np.percentile(frame, (0.1, 99.9))
    given = torch.from_numpy(((frame - low) / (high - low)).astype(np.float32)).view(1, 1, side, side).to(device)
    open_: dict[str, tuple[Engine, torch.Tensor]] = {}
    calls: dict[str, Callable[[], None]] = {}
    for name, engine in _engines(device).items():
        if engine.missing(model, device):
            continue
        shape = engine.open(model, tuple(given.shape), device)
        open_[name] = engine, torch.zeros(shape, device=device)
        call: Callable[[], None] = functools.partial(engine, given, open_[name][1])
        calls[name] = captured(call, device, captures=engine.captures)
    took: dict[str, list[int]] = {name: [] for name in open_}
    with torch.inference_mode():
        for turn in range(times + 1):
            for name, run in calls.items():
                before = now_ns()
                run()
                synchronize(device)
                if turn:  # the first is to get warm
                    took[name].append(now_ns() - before)
    reference = open_[EAGER][1]
    spread = float(reference.max() - reference.min())
    base = statistics.median(took[EAGER])
    rows = []
    for name, (engine, result) in open_.items():
        middle = statistics.median(took[name])
        rows.append(
            {
                "engine": name,
                "side": side,
                "precision": engine.made.precision,
                "ms": round(middle / 1e6, 2),
                "times_eager": round(base / middle, 2),
                "largest_error": float(f"{float((result - reference).abs().max()) / spread:.2g}"),
                "bound": getattr(engine, "bound", None),
                "device": engine.made.device,
            }
        )
        engine.close()
    return rows
