"""What a GPU does with a frame: networks and deconvolution, transfers and the chain's own share.

``tools/gpu_check.py`` prints these. On a CPU the same code runs as a rehearsal; its figures mean nothing there.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pellucid.bench.lane import Lane, captured, noisy_frames, synchronize
from pellucid.engines.tensorrt import TensorRT
from pellucid.engines.tensorrt_rtx import TensorRTRTX
from pellucid.engines.torch import Torch
from pellucid.errors import PellucidError
from pellucid.metrics import now_ns
from pellucid.models import Engine, shelf
from pellucid.protocols import Spec, Stage, Stream
from pellucid.stages.deconvolve import Deconvolve
from pellucid.stages.restore import Restore

__all__ = ["CASES", "deconvolve", "measure_deconvolution_case", "measure_network"]

PACE_FPS = 100
"""The rate at which latency is measured: a fast camera's."""
CASES: tuple[tuple[tuple[int, ...], str, int | None], ...] = (
    ((512, 512), "wiener-butterworth", 4),
    ((512, 512), "richardson-lucy", 8),
    ((1024, 1024), "wiener-butterworth", 4),
    ((1024, 1024), "richardson-lucy", 8),
    ((2048, 2048), "wiener-butterworth", 4),
    ((2048, 2048), "richardson-lucy", 8),
    ((3200, 3200), "wiener-butterworth", 2),
    ((1024, 1024), "wiener-butterworth", None),
    ((32, 256, 256), "wiener-butterworth", None),
    ((256, 256, 256), "richardson-lucy", 10),
)
"""Shape, method and iterations (None: as many as each picture's noise asks for) of the deconvolutions."""


def engines_of(device: str) -> dict[str, Engine]:
    """Return what is measured live, the most careful first."""
    if device == "cpu":
        return {"torch eager float32": Torch(mode="eager", precision="float32")}
    return {
        "torch graph float32": Torch(mode="graph", precision="float32"),
        "torch graph float16": Torch(mode="graph", precision="float16"),
        "torch compile float16": Torch(mode="compile", precision="float16"),
        "tensorrt": TensorRT(),
        "tensorrt-rtx": TensorRTRTX(),
    }


def measure_network(side: int, device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each engine: the shipped denoiser on frames of side x side, uint16, from host to host.

    ``one_frame`` is a frame alone through the chain, ``paced`` one every 10 ms; ``stage_us`` is the stage on the
    device alone (statistics and scaling included), ``bare_us`` the same with its transfers in a loop that somebody
    would write by hand, and ``chain_overhead_us`` what the chain takes more than that. An engine that is not here, or
    cannot, gives a row with ``not_run``.
    """
    model = shelf.find("denoise")
    for name, engine in engines_of(device).items():
        case = f"{name}, {side}x{side}"
        if why := engine.missing(model, device):
            yield {"case": case, "not_run": why}
            continue
        try:
            yield {"case": case, **_live(engine, side, device, quick)}
        except PellucidError as error:
            yield {"case": case, "not_run": str(error)}


def _live(engine: Engine, side: int, device: str, quick: bool) -> dict[str, Any]:
    stage = Restore(model="denoise", engine=engine)
    spec = Spec((side, side), "uint16")
    lane = Lane({"restore": stage}, Stream(spec), device)
    try:
        for i, image in enumerate(noisy_frames(side, len(lane.slots))):
            lane.fill(i, image)
        times = 5 if quick else 300
        bare, stage_ms = _by_hand(stage, spec, lane, device)
        overhead, alone, by_hand = [], [], []
        for _ in range(times):  # in turns
            alone.append(lane.one_ms())
            by_hand.append(bare())
            overhead.append(alone[-1] - by_hand[-1])
        paced = lane.paced_ms(PACE_FPS, times)
        fps = lane.frames_per_s(times)
        p50, p95, p99 = np.percentile(alone, (50, 95, 99))
        late50, late99 = np.percentile(paced, (50, 99))
        made = engine.made
        return {
            "precision": made.precision,
            "largest_error": made.fidelity.largest if made.fidelity else 0.0,
            "captured": lane.chain.describe()[0]["captured"],
            "one_frame_p50_ms": float(p50),
            "one_frame_p95_ms": float(p95),
            "one_frame_p99_ms": float(p99),
            "p99_over_p50": float(p99 / p50),
            "paced_p50_ms": float(late50),
            "paced_p99_ms": float(late99),
            "frames_per_s": fps,
            "stage_us": 1e3 * statistics.median(stage_ms() for _ in range(times)),
            "bare_us": 1e3 * statistics.median(by_hand),
            "chain_overhead_us": 1e3 * statistics.median(overhead),
        }
    finally:
        lane.close()


def _by_hand(stage: Restore, spec: Spec, lane: Lane, device: str) -> tuple[Any, Any]:
    """Return two functions that give ms: up, stage, down, waited for; and the stage alone."""
    plane = lane.slots[0].planes
    host, back = torch.from_numpy(plane["raw"]), torch.from_numpy(plane["restored"])  # page-locked where it matters
    with torch.inference_mode():
        given = torch.zeros(spec.shape, dtype=torch.uint16, device=device)
        result = torch.zeros(back.shape, device=device)
    run = captured(lambda: stage(given, result), device, captures=stage.captures)

    def whole() -> float:
        before = now_ns()
        with torch.inference_mode():
            given.copy_(host, non_blocking=True)
            run()
            back.copy_(result, non_blocking=True)
        synchronize(device)
        return (now_ns() - before) * 1e-6

    def alone() -> float:
        before = now_ns()
        with torch.inference_mode():
            run()
        synchronize(device)
        return (now_ns() - before) * 1e-6

    return whole, alone


def deconvolve(method: str, iterations: int | None) -> dict[str, Stage]:
    """Return one deconvolution stage, by its name."""
    psf = {"kind": "gaussian", "fwhm_px": 3.5, "fwhm_z_px": 4}
    return {"deconvolve": Deconvolve(psf=psf, method=method, iterations=iterations)}  # type: ignore[arg-type]


def measure_deconvolution_case(
    shape: tuple[int, ...], method: str, iterations: int | None, device: str, quick: bool
) -> dict[str, Any]:
    """Return what a frame or stack takes on both devices, and how far the results are apart."""
    stream = Stream(Spec(shape, "uint16"), pixel_um=0.1, z_um=0.3)
    lanes = [Lane(deconvolve(method, iterations), stream, where) for where in ("cpu", device)]
    try:
        for i, image in enumerate(pictures(shape, 2)):
            for lane in lanes:
                lane.chain.submit(lane.fill(i, image))
                lane.chain.finish(lane.slots[i])
        far = max(
            float(np.abs(a.planes["restored"] - b.planes["restored"]).max() / np.abs(a.planes["restored"]).max())
            for a, b in zip(lanes[0].slots[:2], lanes[1].slots[:2], strict=True)
        )
        on_cpu, on_gpu = lanes
        times = 3 if quick else 100
        gpu_ms = statistics.median(on_gpu.one_ms() for _ in range(times))
        cpu_ms = statistics.median(on_cpu.one_ms() for _ in range(1 if quick else 5))
        return {
            "case": f"{method} {'x'.join(map(str, shape))}, {iterations or 'auto'}",
            "captured": on_gpu.chain.describe()[0]["captured"],
            "gpu_one_frame_ms": gpu_ms,
            "gpu_frames_per_s": on_gpu.frames_per_s(3 * times),
            "cpu_one_frame_ms": cpu_ms,
            "ratio": cpu_ms / gpu_ms,
            "difference": far,
        }
    finally:
        for lane in lanes:
            lane.close()


def pictures(shape: tuple[int, ...], count: int) -> list[np.ndarray[Any, Any]]:
    """Return frames or stacks of a simulated specimen."""
    frames = noisy_frames(shape[-1], count)
    if len(shape) == 2:
        return frames
    return [np.stack([np.roll(frame, 3 * z, axis=0) for z in range(shape[0])]) for frame in frames]
