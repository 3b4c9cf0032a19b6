"""Deconvolution beside other programs on simulated specimens of known truth: quality, light and time in one run."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pellucid.bench.own import PRESETS, Program, fewest_steps, preset, threads
from pellucid.bench.peers import PEERS, THREADS, TOLERANCE_DB, Peer, Tuned
from pellucid.bench.quality import Truth, flux_error, psnr_db
from pellucid.bench.tables import show
from pellucid.errors import MissingExtra
from pellucid.memory import keep_large_blocks
from pellucid.metrics import now_ns
from pellucid.optics import specimen
from pellucid.terminal import console

__all__ = ["CASES", "QUICK", "Case", "Programs", "measure_case", "measure_deconvolution", "psnr_db"]

Image = np.ndarray[Any, Any]
_PEER_MS = 30000.0
"""A peer that has taken longer in all is not timed again; pellucid takes all its turns."""


@dataclass(frozen=True)
class Case:
    """A picture to simulate: filaments and spots, and shells where they are asked for."""

    name: str
    shape: tuple[int, ...]
    psf: Callable[[], Image]
    photons: float
    shells: bool = False
    seed: int = 0

    def draw(self) -> tuple[Image, Image, Image]:
        """Return picture, truth and PSF."""
        psf = self.psf()
        rng = np.random.default_rng(self.seed)
        return *specimen.case(self.shape, psf, rng, self.photons, shells=self.shells), psf


_SMALL = partial(specimen.stack_psf, 31, 65)
CASES = (
    Case("plane, 100 photons", (2048, 2048), specimen.thin_psf, 100),
    Case("plane, 10 photons", (512, 512), specimen.thin_psf, 10),
    Case("plane, 1000 photons", (512, 512), specimen.thin_psf, 1000),
    Case("widefield, 100 photons", (64, 256, 256), specimen.stack_psf, 100),
    Case("widefield, 10 photons", (32, 128, 128), _SMALL, 10),
    Case("widefield, 1000 photons", (32, 128, 128), _SMALL, 1000),
    Case("light sheet with shells, 100 photons", (32, 192, 192), specimen.light_sheet_psf, 100, shells=True),
    Case("confocal with shells, 100 photons", (32, 192, 192), specimen.confocal_psf, 100, shells=True),
)
QUICK = (
    Case("plane, 100 photons", (512, 512), specimen.thin_psf, 100),
    Case("widefield, 100 photons", (32, 128, 128), _SMALL, 100),
)


class Programs(list[dict[str, Any]]):
    """The rows of a case, one for each program; as text, how many there are."""

    def __str__(self) -> str:
        return f"{sum(row['PSNR_dB'] is not None for row in self)} rows"


def measure_deconvolution(quick: bool) -> list[dict[str, Any]]:
    """Restore simulated pictures with pellucid and with what else is installed; print a table for each.

    pellucid's numbers are fixed: its presets, as the stage "deconvolve" has them. The peers are given the truth to
    choose their iterations and parameters by. Each peer has two rows: at its best, and at the fewest iterations within
    0.1 dB of it, which is what times are compared at. What is not installed has a row that says what to type.

    Two threads each, where a program can; calls are warm and take turns, times are medians. The peers make the PSF's
    transform in each call, having no other; pellucid's was made when the stage was opened.

    Parameters
    ----------
    quick
        512x512 and 32x128x128 only, and fewer repetitions.

    Returns
    -------
    list of dict
        See `measure_case`.
    """
    return [measure_case(case, rounds=5 if quick else 9) for case in (QUICK if quick else CASES)]


def measure_case(case: Case, *, rounds: int = 3, peers: Sequence[Peer] = PEERS) -> dict[str, Any]:
    """Measure one case and print its table.

    Returns
    -------
    dict
        ``ratio_to_scikit``: the time in which scikit-image comes within 0.1 dB of its best, over that of the fastest
        preset, or number of steps of one, that is as good (which: ``reached_by``). ``ratio_least``: the same of the
        shortest calls instead of the medians, which neighbours on the same cores disturb less. ``ratio_tuned``: over
        that of the preset "tuned", whatever it reaches. ``ratio_to_nearest_peer``: the least such ratio of all peers,
        each at the quality that it reaches itself; None where pellucid does not reach it. ``gain_dB``: the preset
        "tuned" over the best of every peer. ``flux_error_pellucid``: the greatest of all its rows but "published".
        ``programs``: the rows of the table. None where there is no such figure.
    """
    keep_large_blocks()  # as `pellucid process` does; the peers have the good of it too
    image, truth, psf = case.draw()
    judge = Truth(truth)
    with threads(THREADS):
        tuned, absent = _tuned(peers, image, psf, judge)
        targets = {name: peer.within_db for name, peer in tuned.items()}
        presets = [preset(image, psf, which) for which in PRESETS]
        fewest = fewest_steps(image, psf, judge, targets)
        own = presets + list({p.name: p for found in fewest.values() for p in found}.values())

        rows: dict[str, dict[str, Any]] = {}
        runs: dict[str, Callable[[], Image]] = {}
        took: dict[str, list[float]] = {}

        def add(name: str, iterations: float, run: Callable[[], Image], note: str) -> None:
            runs[name], took[name] = run, []
            rows[name] = _row(name, iterations, _clocked(run, took[name]), image, judge, note)

        for program in own:
            add(program.name, program.iterations, program.run, "" if program.conserves else "light not conserved")
        for name, peer in tuned.items():
            add(f"{name}, best", peer.best, partial(peer.run, peer.best), peer.settings)
            add(f"{name}, -{TOLERANCE_DB} dB", peer.within, partial(peer.run, peer.within), peer.settings)
        for _ in range(rounds):
            for name, run in runs.items():
                if name.startswith("pellucid") or sum(took[name]) < _PEER_MS:
                    _clocked(run, took[name])
        for name, times in took.items():
            rows[name]["ms"], rows[name]["least_ms"] = statistics.median(times), min(times)
    table = Programs([_raw(image, judge), *rows.values(), *absent])
    shape = "x".join(map(str, case.shape))
    show(console, f"{case.name}, {shape}", table)
    return {"case": f"{case.name}, {shape}", **_summary(rows, presets, tuned, fewest), "programs": table}


def _tuned(
    peers: Sequence[Peer], image: Image, psf: Image, judge: Truth
) -> tuple[dict[str, Tuned], list[dict[str, Any]]]:
    """Return the peers that are there, each at its best, and a row for each that is not."""
    tuned: dict[str, Tuned] = {}
    absent: list[dict[str, Any]] = []
    for peer in peers:
        note = "takes stacks only"
        if image.ndim in peer.ndims:
            try:
                tuned[peer.name] = peer.tune(image, psf, judge)
                continue
            except (ImportError, MissingExtra):
                note = f"not installed; type: {peer.install}"
        absent.append(dict.fromkeys(_raw(image, judge)) | {"program": peer.name, "note": note})
    return tuned, absent


def _row(name: str, iterations: float, result: Image, image: Image, judge: Truth, note: str) -> dict[str, Any]:
    ssim: float | None
    try:
        ssim = judge.ssim(result)
    except MissingExtra:
        ssim = None
    return {
        "program": name,
        "steps": f"{iterations:.3g}",
        "PSNR_dB": judge.psnr_db(result),
        "SSIM": ssim,
        "FRC_px": judge.frc_px(result),
        "FRC_half_px": judge.frc_px(result, 0.5),
        "flux_error": flux_error(result, image),
        "ms": None,
        "least_ms": None,
        "note": note,
    }


def _raw(image: Image, judge: Truth) -> dict[str, Any]:
    return _row("the picture itself", 0, image, image, judge, "")


def _clocked(run: Callable[[], Image], took: list[float]) -> Image:
    before = now_ns()
    result = run()
    took.append((now_ns() - before) * 1e-6)
    return result


def _summary(
    rows: dict[str, dict[str, Any]],
    presets: list[Program],
    tuned: dict[str, Tuned],
    fewest: dict[str, list[Program]],
) -> dict[str, Any]:
    fair = [p.name for p in presets if p.conserves]
    within = {name: rows[f"{name}, -{TOLERANCE_DB} dB"] for name in tuned}
    fastest: dict[str, str] = {}
    ratios: dict[str, float] = {}
    least: dict[str, float] = {}
    for name, row in within.items():
        good = [p for p in fair if rows[p]["PSNR_dB"] >= row["PSNR_dB"]] + [p.name for p in fewest[name]]
        if good:
            fastest[name] = min(good, key=lambda p: float(rows[p]["ms"]))
            ratios[name] = row["ms"] / rows[fastest[name]]["ms"]
            least[name] = row["least_ms"] / rows[fastest[name]]["least_ms"]
    nearest = min(within, key=lambda name: ratios.get(name, 0.0), default="")
    best, best_peer = max(((rows[f"{name}, best"]["PSNR_dB"], name) for name in tuned), default=(None, None))
    scikit, reference = PEERS[0].name, rows["pellucid tuned"]
    return {
        "ratio_to_scikit": ratios.get(scikit),
        "ratio_least": least.get(scikit),
        "reached_by": fastest.get(scikit),
        "ratio_tuned": within[scikit]["ms"] / reference["ms"] if scikit in within else None,
        "nearest_peer": nearest or None,
        "ratio_to_nearest_peer": ratios.get(nearest),
        "gain_dB": reference["PSNR_dB"] - best if best is not None else None,
        "best_peer": best_peer,
        "flux_error_pellucid": max((rows[p]["flux_error"] for p in rows if _conserves(p)), key=abs),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _conserves(name: str) -> bool:
    return name.startswith("pellucid") and name != "pellucid published"
