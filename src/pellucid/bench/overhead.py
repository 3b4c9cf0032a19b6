"""What the session itself costs a frame: from its arrival to the sinks, less what the stages' own work took.

The stages copy small frames and note how long they took; the sinks note when a frame came. What is left are the loop,
the ring, the chain around the stages, the look for NaN, the fan-out, and the waking of two threads, which is most of it
where the cores sleep between two frames: so frames come a hundred and two thousand times a second.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.bench.saturated import Flood
from pellucid.metrics import now_ns
from pellucid.protocols import Slot, Spec, Stream
from pellucid.runtime.session import Session, Settings

__all__ = ["measure_overhead"]

_CASES = ((2000, 1, 1), (2000, 4, 1), (2000, 1, 3), (100, 1, 1), (100, 4, 1))
"""Frames a second, stages and sinks."""
_SIDE = 64
_WARM_S = 0.5


class _Copy:
    """A stage whose work is a copy."""

    def __init__(self) -> None:
        self.reads: str | None = None
        self.writes: str | None = None
        self.captures = False
        self.took_ns: list[int] = []

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        return Spec(given.shape, "float32", device, given.axes)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        began = now_ns()
        result.copy_(given)
        self.took_ns.append(now_ns() - began)

    def close(self) -> None:
        pass


class _Arrivals:
    """A sink that takes every frame and notes when."""

    policy = "block"
    early = False

    def __init__(self) -> None:
        self.after_ns: list[int] = []

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        pass

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        self.after_ns.append(now_ns() - slot.info.received_ns)

    def finish(self) -> None:
        pass

    def close(self, report: Mapping[str, Any] | None) -> None:
        pass


def measure_overhead(quick: bool) -> list[dict[str, Any]]:
    """Send frames of 64x64 through stages that copy them; medians of runs that take turns."""
    rounds, seconds = (3, 2.0) if quick else (7, 5.0)
    taken: dict[tuple[int, int, int], list[dict[str, float]]] = {case: [] for case in _CASES}
    for _ in range(rounds):
        for case in _CASES:
            taken[case].append(_run(*case, seconds))
    return [
        {"frames/s, stages, sinks": f"{fps}, {stages}, {sinks}"}
        | {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for (fps, stages, sinks), runs in taken.items()
    ]


def _run(fps: int, stages: int, sinks: int, seconds: float) -> dict[str, float]:
    chain = [_Copy() for _ in range(stages)]
    ends = [_Arrivals() for _ in range(sinks)]
    source = Flood(_SIDE, fps)
    session = Session(
        source,
        lambda _stream: {f"copy {i}": stage for i, stage in enumerate(chain)},
        {f"end {i}": end for i, end in enumerate(ends)},
        Settings(device="cpu", seconds=seconds, restore="every"),
        {"config": ""},
        tell=lambda _: None,
    )
    try:
        session.open()
        session.run()
    finally:
        session.close()
    warm = round(_WARM_S * fps)
    # The last sink's: by then the frame is everywhere.
    there = np.max([end.after_ns[warm:] for end in ends], axis=0) * 1e-3
    own = np.sum([stage.took_ns[-len(there) :] for stage in chain], axis=0) * 1e-3
    over = there - own
    return {
        "from received to the sinks p50, us": float(np.median(there)),
        "of it the stages' own work, us": float(np.median(own)),
        "session and fan-out, us": float(np.median(over)),
        "the same a stage, us": float(np.median(over)) / stages,
        "the loop's own time, us": float(np.median(source.loop_ns[warm:])) * 1e-3,
    }
