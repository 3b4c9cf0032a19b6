"""What only a GPU can prove: the chain on CUDA against the chain on the CPU, captured, overlapped, page-locked.

::

    python tools/gpu_check.py            prints a line a check, then the figures as JSON; exit 1 if a check fails

It needs torch with CUDA, numpy, pydantic, pyzmq, tomlkit, rich, psutil and this package on the path; no camera,
no screen and no recorder.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import numpy as np
import torch

from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.optics import specimen
from pellucid.protocols import RAW, FrameInfo, Slot, Spec, Stage, Stream
from pellucid.runtime.chain import Chain
from pellucid.runtime.report import hardware
from pellucid.runtime.ring import SlotRing
from pellucid.stages.deconvolve import Deconvolve

failures: list[str] = []


def check(what: str, holds: bool, detail: str = "") -> None:
    """Print one line, and remember what failed."""
    print(f"{'ok    ' if holds else 'FAILED'} {what} {detail}", flush=True)
    if not holds:
        failures.append(what)


class NotANumber:
    """A stage that gives NaN when its input's first pixel is 0."""

    reads = writes = None
    captures = True

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Take what comes."""
        return Spec(given.shape, "float32", device)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """0/0 where a pixel is 0."""
        torch.div(given, given, out=result)

    def close(self) -> None:
        """Nothing to give back."""


class Lane:
    """A ring and a chain, as a session binds them."""

    def __init__(self, stages: dict[str, Stage], stream: Stream, device: str, slots: int = 6) -> None:
        self.chain = Chain(stages, stream, device)
        outputs = self.chain.open()
        self.ring = SlotRing(
            stream,
            {RAW: stream.spec} | outputs,
            slots,
            shared=True,
            pinned=device.startswith("cuda"),
            on_free=Ledger().finish,
        )
        self.chain.bind(self.ring.slots, tuple(outputs))

    def close(self) -> None:
        """Give it all back."""
        self.chain.close()
        self.ring.close()


def images(side: int, count: int) -> list[np.ndarray[Any, Any]]:
    """Return noisy frames of a simulated specimen, uint16."""
    rng = np.random.default_rng(0)
    psf = specimen.thin_psf(65)
    frame = specimen.expose(specimen.draw((side, side), rng), psf, rng)
    return [np.roll(frame, 7 * i, axis=1).astype(np.uint16) for i in range(count)]


def fill(slot: Slot, image: np.ndarray[Any, Any], seq: int) -> None:
    """Put a frame into a slot, as a source does."""
    slot.planes[RAW][...] = image
    slot.info = FrameInfo(seq, camera_ns=now_ns())


def stages(method: str, iterations: int | None) -> dict[str, Stage]:
    """Return one deconvolution; None: as many steps as each picture's noise asks for."""
    psf = {"kind": "gaussian", "fwhm_px": 3.5, "fwhm_z_px": 4}
    return {"deconvolve": Deconvolve(psf=psf, method=method, iterations=iterations)}  # type: ignore[arg-type]


def compare(shape: tuple[int, ...], method: str, iterations: int | None) -> dict[str, Any]:
    """Run the same frames on both devices, many in flight on the GPU, and compare pixels and times."""
    stream = Stream(Spec(shape, "uint16"), pixel_um=0.1, z_um=0.3)
    side, planes = shape[-1], shape[0] if len(shape) == 3 else 0
    frames = images(side, 6)
    if planes:
        frames = [np.stack([np.roll(frame, 3 * z, axis=0) for z in range(planes)]) for frame in frames]
    on_cpu = Lane(stages(method, iterations), stream, "cpu")
    on_gpu = Lane(stages(method, iterations), stream, "cuda:0")
    name = f"{method} {'x'.join(map(str, shape))}, {iterations or 'auto'}"
    worst = 0.0
    for i, frame in enumerate(frames):
        fill(on_cpu.ring.slots[i], frame, i)
        fill(on_gpu.ring.slots[i], frame, i)
        on_cpu.chain.submit(on_cpu.ring.slots[i])
        on_gpu.chain.submit(on_gpu.ring.slots[i])
    for a, b in zip(on_cpu.ring.slots, on_gpu.ring.slots, strict=True):
        wrong = on_cpu.chain.finish(a) or on_gpu.chain.finish(b)
        check(f"{name}: finite", wrong is None, str(wrong or ""))
        want, got = a.planes["restored"], b.planes["restored"]
        worst = max(worst, float(np.abs(want - got).max() / np.abs(want).max()))
    check(f"{name}: GPU equals CPU", worst < 1e-3, f"largest difference {worst:.1e} of the maximum")
    captured = all(row["captured"] for row in on_gpu.chain.describe())
    # Two-dimensional numbers of steps of their own cannot be captured, and neither can kernels that follow the noise.
    check(f"{name}: captured in one graph", captured == (iterations is not None and not planes))

    before = torch.cuda.memory_allocated()
    alone_ms, rate = timings(on_gpu)
    check(f"{name}: no GPU memory allocated in steady state", torch.cuda.memory_allocated() == before)
    cpu_ms = statistics.median(one(on_cpu) for _ in range(5))
    on_cpu.close()
    on_gpu.close()
    return {
        "case": name,
        "gpu_one_frame_ms": alone_ms,
        "gpu_frames_per_s": rate,
        "cpu_one_frame_ms": cpu_ms,
        "ratio": cpu_ms / alone_ms,
        "difference": worst,
    }


def one(lane: Lane) -> float:
    """Return the time in ms from a frame in host memory to its result in host memory."""
    slot = lane.ring.slots[0]
    before = now_ns()
    lane.chain.submit(slot)
    lane.chain.finish(slot)
    return (now_ns() - before) * 1e-6


def timings(lane: Lane) -> tuple[float, float]:
    """Return the median time of one frame alone (ms), and frames/s with several in flight."""
    alone = statistics.median(one(lane) for _ in range(100))
    slots = lane.ring.slots
    count, depth = 300, 4
    began = now_ns()
    for i in range(count):
        if i >= depth:
            lane.chain.finish(slots[(i - depth) % len(slots)])
        lane.chain.submit(slots[i % len(slots)])
    for i in range(count - depth, count):
        lane.chain.finish(slots[i % len(slots)])
    return alone, count / ((now_ns() - began) * 1e-9)


def look_for_nan() -> None:
    """Check that the witness sees one bad pixel, of that frame and of no other."""
    stream = Stream(Spec((64, 64), "uint16"))
    lane = Lane({"bad": NotANumber()}, stream, "cuda:0")
    for i, slot in enumerate(lane.ring.slots):
        image = np.ones((64, 64), np.uint16)
        image[5, 7] = i != 3
        fill(slot, image, i)
        lane.chain.submit(slot)
    told = [lane.chain.finish(slot) is not None for slot in lane.ring.slots]
    check("NaN is seen in its own frame only", told == [i == 3 for i in range(6)], str(told))
    lane.close()


def main() -> int:
    """Run all checks."""
    if not torch.cuda.is_available():
        print("no CUDA device here; nothing was checked")
        return 2
    look_for_nan()
    figures = [
        compare((side, side), method, steps)
        for side in (512, 1024, 2048)
        for method, steps in (("wiener-butterworth", 4), ("richardson-lucy", 8))
    ]
    figures += [compare((1024, 1024), "wiener-butterworth", None), compare((32, 256, 256), "wiener-butterworth", None)]
    figures += [compare((3200, 3200), "wiener-butterworth", 2), compare((256, 256, 256), "richardson-lucy", 10)]
    try:
        import tensorrt_rtx

        print(f"tensorrt_rtx {tensorrt_rtx.__version__} imports")
    except ImportError as error:
        print(f"tensorrt_rtx is not here: {error}")
    print(json.dumps({"hardware": hardware("cuda:0"), "figures": figures}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
