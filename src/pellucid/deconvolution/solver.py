"""The iteration of a recipe on one grid; every decision is made, all lasting memory is here.

**Pointwise work** goes through pieces that fit into a processor's own cache, so that all operations between two
transforms read and write the memory once; see `pieces`.

**Memory.** torch makes the result of a transform itself, and with ``out=`` copies it in addition, on the CPU as with
CUDA; so the transforms here return theirs and all else works in place. Their sizes are always the same: torch's
allocator for CUDA hands out the same blocks, and a graph has them in its own pool. glibc may give blocks of many MB
back to the system and fetch them anew, which costs time (a tenth at 2048x2048) but no memory.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from pellucid.deconvolution.grid import Grid
from pellucid.deconvolution.pieces import Pieces
from pellucid.deconvolution.recipe import Recipe
from pellucid.deconvolution.variation import curvature
from pellucid.optics import projectors
from pellucid.optics.projectors import Image

__all__ = ["Solver"]


class Solver:
    """Deconvolve pictures of one shape.

    Parameters
    ----------
    shape
        Of the picture, ``(y, x)`` or ``(z, y, x)``.
    psf
        As many axes, odd sides, sum 1; what does not fit on the grid is cut off.
    recipe
    device

    Attributes
    ----------
    frame : torch.Tensor
        The picture, to be filled before each call, in units of the whole picture's mean; what it held is gone then.
    result : torch.Tensor
        The estimate where the picture lies, after a call; until the next.
    """

    def __init__(self, shape: tuple[int, ...], psf: Image, recipe: Recipe, device: str) -> None:
        self._recipe = recipe
        grid = Grid(shape, recipe.pads)
        self._shape = grid.shape
        psf = fitting(psf, grid.shape)
        # Tensors made under inference_mode could not be written to outside of it.
        with torch.inference_mode(False):
            self._back = torch.from_numpy(_back_projector(psf, grid.shape, recipe)).to(device)
            self._picture = self._zeros(device)
            self.frame = self._picture[grid.inside]
            self._borders = grid.borders(self._picture, fades=recipe.fades)
            self._outside = grid.outside
            self._result = self._zeros(device)
            if not recipe.is_linear:
                self._forward = torch.from_numpy(projectors.otf(psf, grid.shape)).to(device)
                self._other = self._zeros(device)
            if recipe.acceleration == "biggs-andrews":
                self._last_step = self._zeros(device)
                self._factor = torch.zeros((), device=device)
        self._inside = grid.inside
        self.result = self._result[grid.inside]
        self._each = Pieces(device)
        # None: to be written before the first picture, in the way in which it will be written for all others.
        self._smooth_px = None if recipe.follows_noise else recipe.smooth_px
        self.iterations = 0.0

    def tune(self, clarity: float) -> None:
        """Fit the back projector to the noise of a picture, for a recipe that `follows_noise`.

        In steps of a tenth, so that the frames of a film mostly share one, and always from the OTF itself, so that a
        picture's result does not depend on those before it.
        """
        recipe = self._recipe
        noise = 1 / max(clarity, 1e-12)
        smooth_px = recipe.smooth_px * round(10 * min(max(math.log10(noise / recipe.smooth_from), 0.0), 1.0)) / 10
        if smooth_px != self._smooth_px:
            self._smooth_px = smooth_px
            self._write_wiener(self._back, recipe.alpha, smooth_px)

    def _write_wiener(self, kernel: torch.Tensor, alpha: float, smooth_px: float) -> None:
        """Fill `kernel` as `projectors.wiener` would."""

        def inverse(k: torch.Tensor, h: torch.Tensor) -> None:
            torch.conj_physical(h, out=k)
            k.div_(h.real.square().add_(h.imag.square()).add_(alpha))

        self._each(inverse, kernel, self._forward)
        kernel.div_(kernel.view(-1)[0].real.clone())
        for axis, n in enumerate(self._shape if smooth_px else ()):
            last = axis == len(self._shape) - 1
            frequency = (
                torch.fft.rfftfreq(n, device=kernel.device) if last else torch.fft.fftfreq(n, device=kernel.device)
            )
            line = torch.exp(-2 * (math.pi * smooth_px) ** 2 * frequency.square())
            kernel.mul_(line.reshape([-1 if a == axis else 1 for a in range(len(self._shape))]))

    def _zeros(self, device: str) -> torch.Tensor:
        return torch.zeros(self._shape, dtype=torch.float32, device=device)

    def __call__(self, constant: torch.Tensor | float, iterations: float) -> torch.Tensor:
        """Hot: restore what lies in `frame`; return `result`.

        Parameters
        ----------
        constant
            ``c`` of the recipe's module, in units of the mean.
        iterations
            Steps; the last may be a part of one.
        """
        for continued in self._borders:
            continued()
        recipe = self._recipe
        if recipe.is_linear:
            self._result.copy_(self._filtered(self._picture, self._back))
            return self.result
        steps = max(1, math.ceil(iterations - 1e-9))
        part = iterations - (steps - 1)
        done, blurred = self._begin(constant)
        if recipe.noise_constant:
            self._picture.add_(constant)
        self._picture.clamp_(min=0)
        estimate, before = self._result, self._other
        residual = math.inf
        for k in range(done, steps):
            self._extrapolate(estimate, before, first=k == done)
            if blurred is None:
                blurred = self._filtered(before, self._forward)
            if recipe.stop_change:
                previous, residual = residual, self._residual(blurred, constant)
                if previous < math.inf and abs(previous - residual) <= recipe.stop_change * previous:
                    steps, part = k, 1.0
                    break
            self._divide(blurred, constant)
            if k >= recipe.trusted_steps:
                self._trust_less(blurred)
            spectrum = torch.fft.rfftn(blurred)
            blurred = None  # a transform takes as much again; with a stack that is a tenth of all there is
            change = self._pixels(spectrum.mul_(self._back))
            del spectrum
            self._step(before, change)
            del change
            estimate, before = before, estimate
        if part < 1 and steps > done:
            torch.lerp(before, estimate, part, out=estimate)
        self.iterations = steps - 1 + part
        if estimate is not self._result:
            self._result, self._other = estimate, before
            self.result = estimate[self._inside]
        return self.result

    def _begin(self, constant: torch.Tensor | float) -> tuple[int, torch.Tensor | None]:
        """Put the first estimate into `_result` and the one before it into `_other`.

        Returns
        -------
        int
            The steps done.
        torch.Tensor or None
            The estimate's blur, where it costs a transform less here.
        """
        recipe, estimate = self._recipe, self._result
        if recipe.start == "flat":
            # The blur of a flat estimate of 1 is 1, so the first step's ratio is (y + c) / (1 + c): linear in y.
            change = self._filtered(self._picture, self._back)
            self._other.fill_(1.0)
            lowest, highest = max(recipe.start_lowest, recipe.floor), recipe.start_highest

            def begin(e: torch.Tensor, g: torch.Tensor) -> None:
                if recipe.noise_constant:
                    g.add_(constant).div_(1 + constant)
                torch.clamp(g, lowest, highest, out=e)

            self._each(begin, estimate, change)
            if recipe.acceleration == "biggs-andrews":
                self._last_step.zero_()
            return 1, None
        if recipe.start == "image":
            torch.clamp(self._picture, min=recipe.floor, out=estimate)
            return 0, None
        spectrum = torch.fft.rfftn(self._picture).mul_(self._forward)
        torch.clamp(self._pixels(spectrum), min=recipe.floor, out=estimate)
        return 0, self._pixels(spectrum.mul_(self._forward))

    def _extrapolate(self, estimate: torch.Tensor, before: torch.Tensor, *, first: bool) -> None:
        """Turn `before`, the estimate before, into the point from which the next step is made."""
        recipe = self._recipe
        if recipe.acceleration == "none" or (first and recipe.start != "flat"):  # there is no change yet
            before.copy_(estimate)
        elif recipe.acceleration == "momentum":

            def go_on(e: torch.Tensor, b: torch.Tensor) -> None:
                torch.div(e, b, out=b).clamp_(1 / recipe.most, recipe.most)
                b.log_().mul_(recipe.momentum).exp_()  # a quarter of the time of a power
                b.mul_(e).clamp_(min=recipe.floor)

            self._each(go_on, estimate, before)
        elif first:
            before.copy_(estimate)
        else:
            torch.lerp(estimate, before, -self._factor, out=before).clamp_(min=recipe.floor)

    def _divide(self, blurred: torch.Tensor, constant: torch.Tensor | float) -> None:
        floor, added = self._recipe.floor, bool(self._recipe.noise_constant)

        def divide(y: torch.Tensor, b: torch.Tensor) -> None:
            if added:
                b.add_(constant)
            torch.div(y, b.clamp_(min=floor), out=b)

        self._each(divide, self._picture, blurred)

    def _trust_less(self, ratio: torch.Tensor) -> None:
        trust = self._recipe.trust
        for around in self._outside if trust < 1 else ():
            ratio[around].mul_(trust).add_(1 - trust)

    def _step(self, point: torch.Tensor, change: torch.Tensor) -> None:
        """Turn `point` into the new estimate."""
        recipe = self._recipe
        if recipe.tv:
            change.div_(torch.sub(1.0, curvature(point), alpha=recipe.tv).clamp_(min=0.1))
        if recipe.acceleration == "biggs-andrews":
            last = self._last_step
            change.clamp_(recipe.lowest, recipe.highest).mul_(point).clamp_(min=recipe.floor)  # the new estimate
            torch.sub(change, point, out=point)  # its step
            over, under = (torch.dot(a.view(-1), last.view(-1)) for a in (point, last))
            torch.div(over, under.clamp_(min=1e-20), out=self._factor).clamp_(0.0, 1.0)
            last.copy_(point)
            point.copy_(change)
            return

        def step(v: torch.Tensor, g: torch.Tensor) -> None:
            v.mul_(g.clamp_(recipe.lowest, recipe.highest)).clamp_(min=recipe.floor)

        self._each(step, point, change)

    def _residual(self, blurred: torch.Tensor, constant: torch.Tensor | float) -> float:
        rest = torch.sub(self._picture, blurred)
        if self._recipe.noise_constant:
            rest.sub_(constant)
        return math.sqrt(float(torch.dot(rest.view(-1), rest.view(-1))))

    def _filtered(self, image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return self._pixels(torch.fft.rfftn(image).mul_(kernel))

    def _pixels(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Transform back; in two parts, as torch does within, but with a copy less."""
        parts = torch.fft.ifftn(spectrum, dim=tuple(range(spectrum.ndim - 1)))
        back: torch.Tensor = torch.fft.irfft(parts, n=self._shape[-1])
        return back


def fitting(psf: Image, shape: tuple[int, ...]) -> Image:
    """Return the middle of a PSF that has no room on a grid, its sum 1 again."""
    for axis, n in enumerate(shape):
        extra = max(0, (psf.shape[axis] - n + 1) // 2)
        psf = psf[tuple(slice(extra, m - extra) if a == axis else slice(None) for a, m in enumerate(psf.shape))]
    return np.asarray(psf / psf.sum())


def _back_projector(psf: Image, shape: tuple[int, ...], recipe: Recipe) -> Image:
    limit = recipe.resolution_px
    if recipe.method == "richardson-lucy":
        return projectors.flipped(projectors.otf(psf, shape))
    if recipe.method == "gaussian":
        return projectors.gaussian(psf, shape, resolution_px=limit)
    if recipe.method == "butterworth":
        return projectors.butterworth(psf, shape, beta=recipe.beta, order=recipe.order, resolution_px=limit)
    if recipe.method == "wiener":
        return projectors.wiener(psf, shape, alpha=recipe.alpha, smooth_px=recipe.smooth_px)
    return projectors.wiener_butterworth(
        psf,
        shape,
        alpha=recipe.alpha,
        beta=recipe.beta,
        order=recipe.order,
        epsilon=recipe.epsilon,
        resolution_px=limit,
        smooth_px=recipe.smooth_px,
    )
