"""Other programs' deconvolution, each tuned against the truth: what pellucid is measured against.

None is a dependency but scikit-image, of the extra ``bench``. The others are taken along where they are installed::

    pip install cubic                                  # MIT
    pip install --no-deps RedLionfish                  # Apache-2.0; its CPU part needs scipy alone
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from pellucid.bench.quality import Truth

__all__ = ["PEERS", "TOLERANCE_DB", "Peer", "Tuned"]

Image = np.ndarray[Any, Any]
TOLERANCE_DB = 0.1
THREADS = 2
_MOST = {2: 150, 3: 60}
"""Iterations of Richardson-Lucy by axes. In some stacks it still rises then, by 0.01 dB a step."""
_MOST_WB = 40
_ALPHAS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Tried in this order until the best quality falls."""
_Z_PAD = 16
_LADDER = (5, 10, 15, 20, 25, 30, 40, 50, 60)


@dataclass(frozen=True)
class Tuned:
    """A peer at its best for one picture.

    Parameters
    ----------
    best, within
        Iterations of the best PSNR, and the fewest that come within 0.1 dB of it.
    within_db
        PSNR of the latter.
    run
        Restores the picture with so many iterations.
    settings
        What was chosen besides.
    """

    best: int
    within: int
    within_db: float
    run: Callable[[int], Image]
    settings: str = ""


@dataclass(frozen=True)
class Peer:
    """A program.

    Parameters
    ----------
    name
    install
        What to type where it is missing.
    tune
        Finds its best for ``(image, psf, truth)``; ImportError where it is not installed.
    ndims
        Of the pictures that it takes.
    """

    name: str
    install: str
    tune: Callable[[Image, Image, Truth], Tuned]
    ndims: tuple[int, ...] = (2, 3)


class _PastTheBest(Exception):
    """Ends another program's iteration from within."""


def _chosen(qualities: dict[int, float]) -> tuple[int, int, float]:
    best = max(qualities, key=lambda n: qualities[n])
    within = min(n for n, q in qualities.items() if q >= qualities[best] - TOLERANCE_DB)
    return best, within, qualities[within]


@contextmanager
def _two_threads() -> Iterator[None]:
    """Give scipy's transforms two threads, which scikit-image would not take by itself."""
    with import_module("scipy.fft").set_workers(THREADS):
        yield


def _tune_scikit(image: Image, psf: Image, truth: Truth) -> Tuned:
    """Richardson-Lucy of scikit-image; the loop is written out here, since it does not show its steps."""
    restoration = import_module("skimage.restoration")
    convolve = import_module("scipy.signal").convolve
    turned = np.flip(psf)
    estimate = np.full(image.shape, 0.5, np.float32)
    qualities: dict[int, float] = {}
    with _two_threads():
        for n in range(1, _MOST[image.ndim] + 1):
            estimate *= convolve(image / (convolve(estimate, psf, mode="same") + 1e-12), turned, mode="same")
            qualities[n] = truth.psnr_db(estimate)
            if qualities[n] < max(qualities.values()) - TOLERANCE_DB:  # past the peak, noise only grows
                break

    def run(iterations: int) -> Image:
        with _two_threads():
            return np.asarray(restoration.richardson_lucy(image, psf, num_iter=iterations, clip=False))

    return Tuned(*_chosen(qualities), run)


def _tune_cubic(image: Image, psf: Image, truth: Truth) -> Tuned:
    """Wiener-Butterworth of cubic: alpha by a sweep, and in stacks with its padding along z if that is better."""
    kernels = import_module("cubic.preprocessing.backprojector")
    decon = import_module("cubic.preprocessing.deconvolution")

    def restore(alpha: float, pad: int, iterations: int, observer: Callable[..., None] | None = None) -> Image:
        kernel = kernels.create_backprojector(psf, alpha=alpha)
        restored = decon.richardson_lucy_iter(
            image, psf, n_iter=iterations, pad_size_z=pad, backprojector=kernel, observer_fn=observer
        )
        return np.asarray(restored)

    def sweep(alpha: float, pad: int) -> dict[int, float]:
        qualities: dict[int, float] = {}

        def observe(estimate: Image, n: int, *_: Any) -> None:
            qualities[n] = truth.psnr_db(estimate)
            if not qualities[n] >= max(qualities.values()) - 0.3:
                raise _PastTheBest

        try:
            restore(alpha, pad, _MOST_WB, observe)
        except _PastTheBest:
            pass
        return {n: q for n, q in qualities.items() if np.isfinite(q)}

    swept: dict[tuple[float, int], dict[int, float]] = {}

    def quality(key: tuple[float, int]) -> float:
        return max(swept[key].values(), default=-np.inf)

    for alpha in _ALPHAS:
        swept[alpha, 0] = sweep(alpha, 0)
        if quality((alpha, 0)) < max(map(quality, swept)):
            break
    alpha, pad = max(swept, key=quality)
    if image.ndim == 3:
        swept[alpha, _Z_PAD] = sweep(alpha, _Z_PAD)
        alpha, pad = max(swept, key=quality)
    settings = f"alpha {alpha:g}" + (f", {pad} planes of padding" if pad else "")
    return Tuned(*_chosen(swept[alpha, pad]), lambda n: restore(alpha, pad, n), settings)


def _tune_red_lionfish(image: Image, psf: Image, truth: Truth) -> Tuned:
    """Richardson-Lucy of RedLionfish on the CPU; it does not show its steps, so a ladder of them is tried."""
    restore = import_module("RedLionfishDeconv").doRLDeconvolutionFromNpArrays

    def run(iterations: int) -> Image:
        with _two_threads():
            restored = restore(image, psf, niter=iterations, method="cpu")
        if restored is None:
            raise RuntimeError("RedLionfish gave nothing back")
        return np.asarray(restored[tuple(map(slice, image.shape))])  # odd sides come back one larger

    qualities: dict[int, float] = {}
    for n in _LADDER:
        qualities[n] = truth.psnr_db(run(n))
        if not qualities[n] >= max(qualities.values()) - TOLERANCE_DB:
            break
    return Tuned(*_chosen({n: q for n, q in qualities.items() if np.isfinite(q)}), run)


PEERS = (
    Peer("scikit-image RL", 'pip install "pellucid[bench]"', _tune_scikit),
    Peer("cubic WB", "pip install cubic", _tune_cubic),
    Peer("RedLionfish RL", "pip install --no-deps RedLionfish", _tune_red_lionfish, (3,)),
)
