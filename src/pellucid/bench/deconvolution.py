"""Deconvolution against scikit-image, at equal quality where both reach it, on specimens of known truth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pellucid.errors import require
from pellucid.metrics import now_ns
from pellucid.optics import specimen
from pellucid.protocols import Spec, Stream
from pellucid.stages.deconvolve import Deconvolve

__all__ = ["measure_deconvolution", "psnr_db"]

Image = np.ndarray[Any, Any]
MOST_ITERATIONS = 60
"""Of scikit-image; with 100 photons its quality peaks near 26 and falls from there."""
TOLERANCE_DB = 0.1


def psnr_db(image: Image, truth: Image) -> float:
    """Return the PSNR of ``a image + b``, fitted to the truth between its percentiles 0.1 and 99.9 (range 1).

    The fit forgives scale and offset, so light that an algorithm invents does not show: see the flux errors.
    """
    low, high = np.percentile(truth, (0.1, 99.9))
    wanted = (truth.ravel().astype(np.float64) - low) / (high - low)
    x = image.ravel().astype(np.float64)
    x -= x.mean()
    rest = wanted - wanted.mean() - x * (x @ (wanted - wanted.mean()) / max(x @ x, 1e-30))
    return float(-10 * np.log10(np.mean(rest**2)))


def measure_deconvolution(quick: bool) -> list[dict[str, Any]]:
    """Time the stage "deconvolve" as it comes, its PSF given, and scikit-image's ``richardson_lucy``.

    Simulated: filaments and spots, a widefield PSF of 65x65, 100 photons, read noise 2, no light from outside
    the field, as scikit-image assumes. pellucid's parameters are the stage's defaults, whatever the picture.
    scikit-image is given the fewest iterations that reach pellucid's PSNR; where none does, the fewest that come
    within 0.1 dB of its own best, both found with the truth: the row's ``skimage_reaches`` says which. Calls
    are warm and alternate, times are medians.

    Both take as many threads as they do by themselves, torch one for each core, scikit-image one. Threads that
    share a frame wait for each other many times in it, so where another program keeps a core busy, pellucid's
    time can be fifty times that of a quiet computer; ``pellucid_1_thread_ms`` and ``ratio_1_thread`` do not
    depend on the neighbours, and compare the two with equal means.

    Parameters
    ----------
    quick
        Without 2048x2048, and fewer repetitions.

    Returns
    -------
    list of dict
        One row a size. Flux errors are against the picture's sum; ``flux_error_as_published`` is that of the
        Wiener-Butterworth algorithm without the stage's repair.

    Raises
    ------
    MissingExtra
        Without scikit-image.
    """
    restoration = require("skimage.restoration", "bench", "pellucid bench")
    psf = specimen.thin_psf()
    return [_row(side, psf, restoration.richardson_lucy, 3 if quick else 5) for side in (512, 1024, 2048)[: 3 - quick]]


def _row(side: int, psf: Image, richardson_lucy: Callable[..., Image], repetitions: int) -> dict[str, Any]:
    rng = np.random.default_rng(side)
    truth = specimen.draw((side, side), rng)
    image = specimen.expose(truth, psf, rng)
    ours, published = _bound(image), _bound(image, photometry="as-published")
    restored = ours().copy()
    reached = psnr_db(restored, truth)

    qualities = _qualities(image, psf, truth)
    best = max(qualities)
    reaches = best >= reached
    iterations = 1 + next(i for i, q in enumerate(qualities) if q >= (reached if reaches else best - TOLERANCE_DB))

    def theirs() -> Image:
        return np.asarray(richardson_lucy(image, psf, num_iter=iterations, clip=False))

    other = theirs()
    took: dict[str, list[float]] = {"all": [], "one": [], "theirs": []}

    def clock(name: str, run: Callable[[], Image]) -> None:
        before = now_ns()
        run()
        took[name].append((now_ns() - before) * 1e-6)

    threads = torch.get_num_threads()
    for _ in range(repetitions):
        clock("all", ours)
        clock("all", ours)
        torch.set_num_threads(1)
        try:
            clock("one", ours)
        finally:
            torch.set_num_threads(threads)
        clock("theirs", theirs)
    pellucid_ms, one_thread_ms, skimage_ms = map(statistics.median, took.values())

    def flux_error(result: Image) -> float:
        return float(result.sum(dtype=np.float64) / image.sum(dtype=np.float64) - 1)

    return {
        "case": f"{side}x{side}",
        "pellucid_ms": pellucid_ms,
        "skimage_ms": skimage_ms,
        "skimage_iterations": iterations,
        "skimage_reaches": "pellucid's PSNR" if reaches else f"its best - {TOLERANCE_DB} dB",
        "ratio": skimage_ms / pellucid_ms,
        "pellucid_1_thread_ms": one_thread_ms,
        "ratio_1_thread": skimage_ms / one_thread_ms,
        "psnr_raw_dB": psnr_db(image, truth),
        "psnr_pellucid_dB": reached,
        "psnr_skimage_dB": psnr_db(other, truth),
        "flux_error_pellucid": flux_error(restored),
        "flux_error_as_published": flux_error(published()),
        "flux_error_skimage": flux_error(other),
    }


def _bound(image: Image, **keys: Any) -> Callable[[], Image]:
    """Return a call that deconvolves `image` on the CPU, as a session would: in memory made before."""
    stage = Deconvolve(psf=specimen.thin_lens(), **keys)
    spec = Spec(image.shape, image.dtype.name)
    out = stage.open(Stream(spec), spec, "cpu")
    given, result = torch.from_numpy(image), torch.zeros(out.shape)
    result_view: Image = result.numpy()

    def run() -> Image:
        with torch.inference_mode():
            stage(given, result)
        return result_view

    run()
    return run


def _qualities(image: Image, psf: Image, truth: Image) -> list[float]:
    """Return the PSNR after each iteration of scikit-image's algorithm, which has no callback of its own."""
    convolve = require("scipy.signal", "bench", "pellucid bench").convolve
    estimate, best = np.full(image.shape, 0.5, np.float32), -math.inf
    qualities: list[float] = []
    for _ in range(MOST_ITERATIONS):
        estimate *= convolve(image / (convolve(estimate, psf, mode="same") + 1e-12), psf[::-1, ::-1], mode="same")
        qualities.append(psnr_db(estimate, truth))
        best = max(best, qualities[-1])
        if qualities[-1] < best - TOLERANCE_DB:  # past the peak, noise only grows
            break
    return qualities
