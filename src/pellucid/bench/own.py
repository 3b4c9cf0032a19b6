"""pellucid's side of the comparison: its presets as they come, and the fewest steps of one that suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pellucid.bench.quality import Truth
from pellucid.deconvolution import Deconvolver, Recipe
from pellucid.deconvolution.recipe import Preset

__all__ = ["PRESETS", "Program", "fewest_steps", "preset", "threads"]

Image = np.ndarray[Any, Any]
PRESETS: tuple[Preset, ...] = ("tuned", "fast", "published")
_STEPS = {2: (1, 2, 3, 4, 5, 6, 8), 3: (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28)}


@dataclass(frozen=True)
class Program:
    """One way to restore a picture, in memory made before; `result` is that of the last call."""

    name: str
    run: Callable[[], Image]
    iterations: float
    conserves: bool


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch have so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def preset(image: Image, psf: Image, which: Preset) -> Program:
    """Return the stage's default method with a preset, all its numbers fixed without the truth."""
    recipe = Recipe.of("wiener-butterworth", image.ndim, which)
    return _bound(f"pellucid {which}", image, psf, recipe, conserves=which != "published")


def fewest_steps(image: Image, psf: Image, truth: Truth, targets: dict[str, float]) -> dict[str, list[Program]]:
    """Find, for each target, the fewest steps of a preset that reach its PSNR; all else in the recipe stays as it is.

    Parameters
    ----------
    targets
        PSNR in dB by the name of whose it is.

    Returns
    -------
    dict
        The programs for each target; none where no number of steps reaches it, or the preset's own is the fewest.
    """
    found: dict[str, list[Program]] = {name: [] for name in targets}
    least = dict.fromkeys(targets, 10**6)
    tried: list[Recipe] = []
    for which in PRESETS[:2]:
        recipe = Recipe.of("wiener-butterworth", image.ndim, which)
        alike = replace(recipe, iterations=1, auto=(1.0, 0.0, 1.0, 1.0))  # presets may differ in their steps alone
        if alike in tried:
            continue
        tried.append(alike)
        missing, best = dict(targets), -np.inf
        for steps in _STEPS[image.ndim]:
            # A step costs the same in both, so more of them than the other needs are not looked for.
            missing = {name: target for name, target in missing.items() if steps <= least[name]}
            if not missing:
                break
            program = _bound(
                f"pellucid {which}, {steps} step{'s'[: steps - 1]}", image, psf, replace(recipe, iterations=steps)
            )
            reached = truth.psnr_db(program.run())
            for name in [name for name, target in missing.items() if reached >= target]:
                if steps < least[name]:
                    least[name], found[name] = steps, []
                if steps != recipe.iterations:
                    found[name].append(program)
                del missing[name]
            if reached < best - 0.1:  # more steps only add noise
                break
            best = max(best, reached)
    return found


def _bound(name: str, image: Image, psf: Image, recipe: Recipe, *, conserves: bool = True) -> Program:
    """Return what deconvolves `image` on the CPU as a session's stage would."""
    deconvolver = Deconvolver(image.shape, image.dtype.name, psf, recipe, "cpu", conserve=conserves)
    given, result = torch.from_numpy(image), torch.zeros(image.shape)
    view: Image = result.numpy()

    def run() -> Image:
        with torch.inference_mode():
            deconvolver(given, result)
        return view

    run()
    return Program(name, run, deconvolver.iterations, conserves)
