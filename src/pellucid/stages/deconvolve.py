"""Deconvolution of planes, live: Richardson-Lucy with the traditional or the Wiener-Butterworth back projector.

One iteration, for the picture ``y``, the PSF's OTF ``F`` and the back projector ``B``::

    e <- max(e * IFFT[ FFT( y / IFFT( FFT(e) F ) ) B ], floor)

Richardson 1972, Lucy 1974: ``B = conj(F)``, 10 to 40 iterations. Guo et al. 2020 (Nature Biotechnology 38, 1337):
a ``B`` that undoes the blur inside the resolution limit and damps what lies beyond, 1 to 5 iterations.

**Borders.** The transform is periodic, so light would come back in at the other side. The picture is continued by
its mirror image by half the PSF on each side and on to a size that is fast to transform, and cropped at the end.

**Light.** Richardson-Lucy keeps the sum of the picture. The Wiener-Butterworth kernel has negative lobes, and what
they push below zero is cut off, so the published algorithm gains 15 to 60% of light on noisy planes, and the
faster the noise the more. A step does not care about the scale of its estimate (twice the estimate halves the
ratio), so dividing by the gain once at the end is the same as doing it in each step, and costs one sum.

**Memory.** All pictures that last live in tensors made by ``open``. torch makes the result of a transform
itself, and with ``out=`` copies it in addition, on the CPU as with CUDA; so the transforms here return theirs and
all else works in place. Their sizes are always the same: torch's allocator for CUDA hands out the same blocks,
and a graph has them in its own pool. glibc may give blocks of many MB back to the system and fetch them anew,
which costs time (a tenth at 2048x2048) but no memory.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pellucid.errors import StageError
from pellucid.optics.projectors import fast_size, flipped, otf, wiener_butterworth
from pellucid.optics.psf import Psf
from pellucid.protocols import Spec, Stream

__all__ = ["Deconvolve"]

WHERE = 'stage "deconvolve"'
ITERATIONS = {"wiener-butterworth": 4, "richardson-lucy": 20}
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
FLOOR = 1e-4
"""Of the estimate, in units of the picture's mean. From 1e-6 to 1e-2 the results are the same within 0.01 dB."""


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class Deconvolve:
    """Undo the blur of a known PSF in each plane.

    The defaults were fixed for noisy widefield planes (about 20 to 1000 photons in the brightest pixel) and are
    the same for all data: alpha 0.05 rather than the 0.001 of clean stacks, a Butterworth filter of order 4
    rather than 10, which rings in noise, and a flat start, with which the first step is a linear filter of the
    picture and costs two transforms instead of four.

    Parameters
    ----------
    psf
        A file, or a table with ``kind``: see `pellucid.optics.psf`.
    method
        ``"wiener-butterworth"``: 4 steps do what ``"richardson-lucy"`` does in about 25.
    iterations
        None: 4 and 20. More are sharper and noisier; with 20 photons 2 or 3 are best, with 1000 go on to 8.
    background
        Camera counts without light, subtracted from each pixel; what is then below 0 becomes 0.
    start
        First estimate: ``"flat"``, ``"blurred"`` (the picture blurred once more) or ``"image"``.
    alpha, beta, order, epsilon, resolution_px
        Of the Wiener-Butterworth kernel: see `pellucid.optics.projectors.wiener_butterworth`.
    photometry
        ``"conserve"``: the result's sum is that of the picture after `background`. ``"as-published"``: the light
        that the algorithm gains stays in. Comparisons with other programs need the latter.
    reads, writes
        Names of planes; None: connected to the stage before.
    output
        ``"float32"``, or ``"uint16"``: the same scale, rounded and clipped at 0 and 65535. A float frame that
        holds NaN or infinite light comes out NaN all over, or, as uint16 has no NaN, 0 all over: `witness` tells.

    Attributes
    ----------
    witness : torch.Tensor or None
        With ``output = "uint16"`` and while open: one float32 on the device, filled in every call with the sum of
        the result before it was rounded; not finite if any of its pixels was not. None for float32, which
        shows its NaN itself.
    """

    psf: Psf
    method: Literal["wiener-butterworth", "richardson-lucy"] = "wiener-butterworth"
    iterations: Annotated[int, Field(ge=1, le=1000)] | None = None
    background: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    start: Literal["flat", "blurred", "image"] = "flat"
    alpha: Annotated[float, Field(gt=0, le=10)] = 0.05
    beta: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    order: Annotated[int, Field(ge=1, le=50)] = 4
    epsilon: Literal["theory", "authors"] = "theory"
    resolution_px: Annotated[float, Field(ge=2)] | None = None
    photometry: Literal["conserve", "as-published"] = "conserve"
    reads: str | None = None
    writes: str | None = None
    output: Literal["float32", "uint16"] = "float32"

    def __post_init__(self) -> None:
        self.captures = True
        self.witness: torch.Tensor | None = None
        self._bound: _Bound | None = None

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Sample the PSF, make the kernels, allocate.

        Raises
        ------
        StageError
            For frames that are no planes of real numbers, and for a PSF that cannot be used on them.
        """
        if len(given.shape) != 2:
            raise StageError(
                f"{WHERE}: given {given}; it works on planes (y, x), stacks come later."
                ' Let the source give single planes (unit = "plane")'
            )
        if given.dtype not in TYPES:
            raise StageError(f"{WHERE}: given {given}; it takes {', '.join(TYPES)}. Convert the frames before")
        psf = self.psf.sample(stream.pixel_um, f"{WHERE}: psf")
        if psf.shape[0] > given.shape[0] or psf.shape[1] > given.shape[1]:
            largest = (min(given.shape) - 1) | 1  # odd
            raise StageError(
                f"{WHERE}: psf of {psf.shape[0]}x{psf.shape[1]} px is larger than the frame, {given}."
                f" Give one of at most {largest}x{largest} px (size_px, or a smaller cut of the file), or larger frames"
            )
        self._bound = _Bound(self, psf, given, device)
        self.witness = self._bound.light if self.output == "uint16" else None
        return Spec(given.shape, self.output, device)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: deconvolve the plane `given` into `result`."""
        assert self._bound is not None, "open the stage first"
        self._bound(given, result)

    def close(self) -> None:
        """Give the memory back."""
        self._bound = self.witness = None


class _Bound:
    """The stage bound to one shape on one device; every decision is made, all lasting memory is here."""

    def __init__(self, stage: Deconvolve, psf: np.ndarray[Any, Any], given: Spec, device: str) -> None:
        (h, w), dtype = given.shape, np.dtype(given.dtype)
        ph, pw = (fast_size(n + 2 * (m // 2)) for n, m in zip((h, w), psf.shape, strict=True))
        self.shape = (ph, pw)
        top, left = (ph - h) // 2, (pw - w) // 2
        bottom, right = ph - h - top, pw - w - left
        forward = otf(psf, (ph, pw))
        if stage.method == "richardson-lucy":
            back = flipped(forward)
        else:
            back = wiener_butterworth(
                psf,
                (ph, pw),
                alpha=stage.alpha,
                beta=stage.beta,
                order=stage.order,
                epsilon=stage.epsilon,
                resolution_px=stage.resolution_px,
            )
        # Tensors made under inference_mode could not be written to outside of it.
        with torch.inference_mode(False):
            self.forward = torch.from_numpy(forward).to(device)
            self.back = torch.from_numpy(back).to(device)
            self.picture, self.estimate = (torch.zeros((ph, pw), dtype=torch.float32, device=device) for _ in range(2))
            self.total, self.mean, self.scale, self.light = (
                torch.zeros((), dtype=torch.float32, device=device) for _ in range(4)
            )
            rows = slice(top, top + h)
            self.frame = self.picture[rows, left : left + w]
            self.cropped = self.estimate[rows, left : left + w]
            # Each border: where it lies, what it mirrors, along which axis, which lines, and room to gather them
            # (gather, since index_select would copy the frame first).
            middle = self.picture[rows]
            mirror_y, mirror_x = (
                np.pad(np.arange(n), pads, mode="symmetric") for n, pads in ((h, (top, bottom)), (w, (left, right)))
            )
            borders = (
                (middle[:, :left], self.frame, 1, mirror_x[:left]),
                (middle[:, left + w :], self.frame, 1, mirror_x[left + w :]),
                (self.picture[:top], middle, 0, mirror_y[:top]),
                (self.picture[top + h :], middle, 0, mirror_y[top + h :]),
            )
            self.borders = [
                (
                    to,
                    of,
                    axis,
                    torch.from_numpy(lines).to(device).unsqueeze(1 - axis).expand(to.shape),
                    torch.empty(to.shape, dtype=torch.float32, device=device),
                )
                for to, of, axis, lines in borders
                if lines.size
            ]
        self.per_pixel = 1 / (h * w)
        self.background = stage.background
        self.may_be_negative = dtype.kind != "u" or stage.background > 0
        self.start = stage.start
        self.steps = stage.iterations or ITERATIONS[stage.method]
        self.conserves = stage.photometry == "conserve"
        self.rounds = stage.output == "uint16"
        self.may_be_nan = dtype.kind == "f"

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        self._take(given)
        steps = self.steps
        if self.start == "flat":
            # The blur of a flat estimate of 1 is 1, so the first step's ratio is the picture itself.
            self.estimate.copy_(self._filtered(self.picture, self.back))
            steps -= 1
        elif self.start == "blurred":
            self.estimate.copy_(self._filtered(self.picture, self.forward))
        else:
            self.estimate.copy_(self.picture)
        self.estimate.clamp_(min=FLOOR)
        for _ in range(steps):
            blurred = self._filtered(self.estimate, self.forward).clamp_(min=FLOOR)
            torch.div(self.picture, blurred, out=blurred)
            self.estimate.mul_(self._filtered(blurred, self.back)).clamp_(min=FLOOR)
        self._give(result)

    def _filtered(self, image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        back: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(image).mul_(kernel), s=self.shape)
        return back

    def _take(self, given: torch.Tensor) -> None:
        """Fill the padded picture from `given`, in units of its mean, so that the floor means the same for all."""
        frame = self.frame
        frame.copy_(given)
        if self.background:
            frame.sub_(self.background)
        if self.may_be_negative:
            frame.clamp_(min=0)
        torch.sum(frame, dim=(0, 1), out=self.total)
        torch.mul(self.total, self.per_pixel, out=self.mean).clamp_(min=1e-30)  # a black frame has a mean of 0
        torch.reciprocal(self.mean, out=self.scale)
        frame.mul_(self.scale)
        for to, of, axis, lines, room in self.borders:
            torch.gather(of, axis, lines, out=room)
            to.copy_(room)

    def _give(self, result: torch.Tensor) -> None:
        """Write the cropped estimate in counts."""
        cropped, scale, light = self.cropped, self.mean, self.light
        if self.conserves or self.rounds:
            torch.sum(cropped, dim=(0, 1), out=light)
        if self.conserves:
            scale = torch.div(self.total, light, out=self.scale)
        if not self.rounds:
            torch.mul(cropped, scale, out=result)
            return
        light.mul_(scale)
        cropped.mul_(scale).round_().clamp_(0, 65535)
        if self.may_be_nan:
            cropped.nan_to_num_(0.0)
        result.copy_(cropped)
