"""Deconvolution of real stacks beside other programs, as Markdown tables and a picture of each.

::

    python tools/deconvolution_table.py --data ../shared/data [--pictures FOLDER]
    python tools/deconvolution_table.py --figures figures.json     of pellucid bench deconvolution --output ...

One picture has a truth (flowdec's bars); the others are compared with scikit-image's Richardson-Lucy after 10 and 30
iterations, which says how far a result goes, not how good it is. Their PSFs are in part guesses: see `stacks`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image as Picture
from scipy import fft, ndimage
from skimage.restoration import richardson_lucy

from pellucid.bench.own import PRESETS, preset, threads
from pellucid.bench.peers import PEERS, THREADS
from pellucid.bench.quality import Truth, correlation, flux_error
from pellucid.bench.tables import markdown
from pellucid.metrics import now_ns
from pellucid.optics.psf import Gaussian, Measured

Image = np.ndarray[Any, Any]
ROUNDS = 2


def stacks(data: Path) -> Iterator[tuple[str, Image, Image, Image | None]]:
    """Give name, picture without background, PSF, and the truth where there is one."""

    def read(name: str) -> Image:
        return np.asarray(tifffile.imread(data / name), np.float32)

    kernel = read("flowdec/bars-25pct_kernel.tif")
    # Even sides, with the middle at half of them: without the first line of each axis it is odd and centred.
    kernel = kernel[1:, 1:, 1:]
    bars = read("flowdec/bars-25pct_data.tif")
    yield "flowdec bars", bars, kernel / kernel.sum(), read("flowdec/bars-25pct_actual.tif")

    # Not deskewed: the stage moves 0.3 um along the coverslip, 31.5 degrees to the detection's axis, so that each plane
    # lies 0.157 um deeper and 2.52 px aside. The bead's stack has planes 0.1 um apart.
    psf = Measured(
        path=data / "pycudadecon/psf.tif", pixel_um=0.104, z_um=0.1, radial=True, size_px=49, planes=61
    ).sample(0.104, "psf.tif", 0.157, 31)
    middle = len(psf) // 2
    psf = np.stack([ndimage.shift(p, (0, -2.52 * (k - middle)), order=1) for k, p in enumerate(psf)])
    yield "pycudadecon", np.maximum(read("pycudadecon/im_raw.tif") - 98, 0), psf / psf.sum(), None

    # Without a PSF of their own: a Gaussian of the width that their finest detail has.
    guess = Gaussian(fwhm_px=3.5, fwhm_z_px=3.5)
    yield "sdeconv pollen", read("sdeconv/pollen.tif"), guess.sample(None, "pollen", None, 31), None
    yield "sdeconv C. elegans", read("sdeconv/celegans.tif"), guess.sample(None, "celegans"), None


def rows(image: Image, psf: Image, truth: Image | None) -> tuple[list[dict[str, Any]], dict[str, Image]]:
    """Restore a picture with all programs; return the rows of the table and the results."""
    judge = Truth(truth) if truth is not None else None
    runs: dict[str, Callable[[], Image]] = {}
    for which in PRESETS:
        runs[f"pellucid {which}"] = preset(image, psf, which).run
    for n in (10, 30):
        runs[f"scikit-image RL, {n}"] = lambda n=n: richardson_lucy(image, psf, num_iter=n, clip=False)
    if judge is not None:
        for peer in PEERS:
            try:
                tuned = peer.tune(image, psf, judge)
            except ImportError:
                print(f"{peer.name} is not installed; type: {peer.install}")
                continue
            runs[f"{peer.name}, best ({tuned.best})"] = lambda tuned=tuned: tuned.run(tuned.best)
    took: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, Image] = {}
    with fft.set_workers(THREADS):
        for _ in range(ROUNDS):
            for name, run in runs.items():
                before = now_ns()
                results[name] = np.array(run())
                took[name].append((now_ns() - before) * 1e-6)
    reference = {n: results[f"scikit-image RL, {n}"] for n in (10, 30)}
    table = []
    for name, result in results.items():
        row: dict[str, Any] = {"program": name}
        if judge is not None:
            row |= {"PSNR_dB": judge.psnr_db(result), "SSIM": judge.ssim(result)}
        row |= {f"correlation_with_RL_{n}": correlation(result, other) for n, other in reference.items()}
        row |= {"flux_error": flux_error(result, image), "ms": statistics.median(took[name])}
        table.append(row)
    return table, results


def paint(path: Path, *images: Image) -> None:
    """Write the brightest pixels along z side by side, each from 0 to its own percentile 99.8, gamma 0.6."""
    shown = []
    for image in images:
        flat = image.max(0) if image.ndim == 3 else image
        flat = np.clip(flat / max(float(np.percentile(flat, 99.8)), 1e-30), 0, 1) ** 0.6
        shown.append((255 * flat).astype(np.uint8))
    Picture.fromarray(np.concatenate(shown, 1)).save(path)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with flowdec/, pycudadecon/ and sdeconv/")
    parser.add_argument("--pictures", type=Path, default=Path(), help="where the PNG files go")
    parser.add_argument("--figures", type=Path, help="what pellucid bench wrote with --output")
    given = parser.parse_args()
    if given.data is None and given.figures is None:
        parser.error("give --data FOLDER, --figures FILE, or both")
    if given.figures is not None:
        cases = json.loads(given.figures.read_text())["deconvolution"]
        print(markdown([{k: v for k, v in case.items() if k != "programs"} for case in cases]))
        for case in cases:
            print(f"\n#### {case['case']}\n\n{markdown(case['programs'])}")
    if given.data is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
        with threads(THREADS):
            for name, image, psf, truth in stacks(given.data):
                table, results = rows(image, psf, truth)
                picture = given.pictures / f"{name.replace(' ', '_')}.png"
                paint(picture, image, results["scikit-image RL, 30"], results["pellucid tuned"])
                print(f"\n#### {name}, {'x'.join(map(str, image.shape))} ({picture.name}: raw, RL 30, pellucid)\n")
                print(markdown(table), flush=True)


if __name__ == "__main__":
    main()
