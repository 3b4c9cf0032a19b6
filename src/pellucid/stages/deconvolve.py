"""Deconvolution, live: of each plane, of each stack, or of the volume that every new plane updates.

What is computed is in `pellucid.deconvolution`; here a config's keys become a recipe, and frames become pictures.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pellucid.deconvolution import Deconvolver, Recipe
from pellucid.deconvolution.grid import Grid
from pellucid.deconvolution.memory import choose_tile, needed
from pellucid.deconvolution.recipe import Acceleration, Method, Preset, Start
from pellucid.deconvolution.rolling import Rolling
from pellucid.errors import StageError
from pellucid.memory import Needed, limit_bytes
from pellucid.optics.projectors import Image
from pellucid.optics.psf import Psf
from pellucid.protocols import FrameInfo, Spec, Stream

__all__ = ["Deconvolve"]

WHERE = 'stage "deconvolve"'
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
Finite = Annotated[float, Field(allow_inf_nan=False)]
_OF_RECIPE = (
    "iterations",
    "stop_change",
    "start",
    "acceleration",
    "alpha",
    "beta",
    "order",
    "epsilon",
    "resolution_px",
    "smooth_px",
    "tv",
)
_STEPS = ("iterations", "stop_change", "start", "acceleration", "tv")
_KEYS_OF: dict[str, tuple[str, ...]] = {
    "wiener": ("alpha", "smooth_px"),
    "richardson-lucy": _STEPS,
    "gaussian": (*_STEPS, "resolution_px"),
    "butterworth": (*_STEPS, "resolution_px", "beta", "order"),
}


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class Deconvolve:
    """Undo the blur of a known PSF, in planes or in stacks.

    Given planes, each is restored by itself; given stacks (``[session] unit = "stack"``), each as a volume. With
    `rolling`, planes of a z-stack are given and each is put into its place in a volume, which is then restored: the
    result is that plane, with the light of its neighbours taken out, as soon as it is there.

    Parameters
    ----------
    psf
        A file, or a table with ``kind``: see `pellucid.optics.psf`.
    method
        ``"wiener-butterworth"``: 2 to 10 steps do what ``"richardson-lucy"`` does in 10 to 40. ``"gaussian"`` and
        ``"butterworth"`` are back projectors of the same family. ``"wiener"``: one linear filter, the lowest latency;
        below zero where noise has it so.
    preset
        Where the other keys come from that are not given: ``"tuned"``, measured on noisy specimens of known truth;
        ``"fast"``, three steps, in stacks half as many; ``"published"``, as in the papers, for comparisons.
    iterations
        ``"auto"``: by the noise of each picture; a number makes all the same, and can be captured in a CUDA graph.
    stop_change
        End sooner, where the residual changes by less than this part of itself in a step; 0: never.
    background
        Camera counts without light, subtracted from each pixel. What is then below 0 is noise and counts as such.
    start, acceleration, alpha, beta, order, epsilon, resolution_px, smooth_px, tv
        See `pellucid.deconvolution.recipe.Recipe`; None: as the preset has it. ``tv = 0.002`` asks for few edges.
    photometry
        ``"conserve"``: the result's sum is that of the picture after `background`. ``"as-published"``: the light
        that the algorithm gains stays in. Comparisons with other programs need the latter.
    rolling
        See above; needs the z of each plane, so an experiment with a z-stack.
    memory_gb
        Restore larger pictures in tiles, so that no more is used beside the pictures; None: three quarters of what
        this computer or container has (less the pictures), 80% of a GPU's.
    reads, writes
        Names of planes; None: connected to the stage before.
    output
        ``"float32"``: camera counts; or ``"uint16"``: counts times `scale`, rounded and clipped at 0 and 65535. A
        float frame that holds NaN or infinite light comes out NaN all over, or, as uint16 has no NaN, 0 all over:
        `witness` tells.
    scale
        Grey values a count, the same for the whole run and written beside the pixels.

    Attributes
    ----------
    witness : torch.Tensor or None
        With ``output = "uint16"`` and while open: one float32 on the device, filled in every call with the sum of
        the result before it was rounded; not finite if any of its pixels was not. None for float32, which
        shows its NaN itself.
    """

    psf: Psf
    method: Method = "wiener-butterworth"
    preset: Preset = "tuned"
    iterations: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] | None = None
    stop_change: Annotated[float, Field(ge=0, lt=1)] | None = None
    background: Finite = 0.0
    start: Start | None = None
    acceleration: Acceleration | None = None
    alpha: Annotated[float, Field(gt=0, le=10)] | None = None
    beta: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None = None
    order: Annotated[int, Field(ge=0, le=50)] | None = None
    epsilon: Literal["theory", "authors"] | None = None
    resolution_px: Annotated[float, Field(ge=2)] | None = None
    smooth_px: Annotated[float, Field(ge=0, le=100)] | None = None
    tv: Annotated[float, Field(ge=0, le=0.1)] | None = None
    photometry: Literal["conserve", "as-published"] | None = None
    rolling: bool = False
    memory_gb: Annotated[float, Field(gt=0, le=1e6)] | None = None
    reads: str | None = None
    writes: str | None = None
    output: Literal["float32", "uint16"] = "float32"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    fixed: ClassVar[tuple[str, ...]] = ("output", "scale", "rolling")

    def __post_init__(self) -> None:
        self.captures = True
        self.history = 0
        self.witness: torch.Tensor | None = None
        self.black = ""
        self.needed = Needed(0, 0, 0)
        self.tile: tuple[int, ...] | None = None
        self._bound: Deconvolver | Rolling | None = None
        self._told: dict[str, Any] = {}

    def recipe(self, ndim: int) -> Recipe:
        """Return what is done to planes (`ndim` 2) or stacks (3).

        Raises
        ------
        StageError
            Where two keys exclude each other.
        """
        recipe = Recipe.of(self.method, ndim, self.preset)
        given = {key: getattr(self, key) for key in _OF_RECIPE if getattr(self, key) is not None}
        for key, value in given.items():
            if key not in _KEYS_OF.get(self.method, _OF_RECIPE) and value not in (0, "auto"):
                raise StageError(f'{WHERE}: {key} = {value!r} means nothing to method = "{self.method}"; leave it out')
        if given.get("iterations") == "auto":
            given["iterations"] = None
        if "smooth_px" in given or "alpha" in given or given.get("order"):
            given["smooth_from"] = 0.0  # what is given is meant for every picture
        return replace(recipe, **given)

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Sample the PSF, make the kernels, allocate.

        Raises
        ------
        StageError
            For frames that are neither planes nor stacks of real numbers, for a PSF that cannot be used on them, and
            where the memory does not suffice even for tiles.
        """
        planes = self._planes(stream, given)
        if given.dtype not in TYPES:
            raise StageError(f"{WHERE}: given {given}; it takes {', '.join(TYPES)}. Convert the frames before")
        shape = given.shape[-2:] if planes == 1 else (planes, *given.shape[-2:])
        recipe = self.recipe(len(shape))
        psf = self._sample(stream, shape, recipe)
        if recipe.is_linear:  # reaches far where it is not cut off by what must be positive, and costs little
            pads = tuple(max(pad, n // 2) for pad, n in zip(recipe.pads, psf.shape, strict=True))
            recipe = replace(recipe, pads=pads)
        self.tile, overlap = self._tile(shape, given.dtype, psf, recipe, device)
        deconvolver = Deconvolver(
            shape,
            given.dtype,
            psf,
            recipe,
            device,
            background=self.background,
            conserve=(self.photometry or ("as-published" if self.preset == "published" else "conserve")) == "conserve",
            output=self.output,
            scale=self.scale,
            tile=self.tile,
            overlap=overlap,
        )
        self.captures = not recipe.decides and not self.rolling
        self._bound = Rolling(deconvolver, shape, given.dtype, self.output, device) if self.rolling else deconvolver
        self.history = planes - 1 if self.rolling else 0
        self._told = self._describe(psf, recipe)
        self._squeeze = len(given.shape) == 3 and planes == 1
        self.witness = deconvolver.light if self.output == "uint16" else None
        self.black = f"the mean of the frame is not above background = {self.background:g}"
        return Spec(given.shape, self.output, device, given.axes, self._facts())

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: deconvolve `given` into `result`."""
        assert self._bound is not None, "open the stage first"
        if self._squeeze:
            given, result = given[0], result[0]
        self._bound(given, result)

    def at(self, info: FrameInfo) -> None:
        """Note where the next plane belongs; only a rolling one has to know."""
        if isinstance(self._bound, Rolling):
            self._bound.at(info.axes or {})

    def describe(self) -> dict[str, Any]:
        """Return what the report says: ``method`` and ``psf`` with the hash of its samples; JSON types only."""
        return self._told

    def _describe(self, psf: Image, recipe: Recipe) -> dict[str, Any]:
        samples = np.ascontiguousarray(psf, np.float32)
        told = {"shape": list(samples.shape), "sha256": hashlib.sha256(samples.tobytes()).hexdigest()}
        return {
            "method": self.method,
            "iterations": recipe.iterations,
            "psf": told,
            "tile": None if self.tile is None else list(self.tile),
        }

    def close(self) -> None:
        """Give the memory back."""
        self._bound = self.witness = None

    def _facts(self) -> dict[str, Any]:
        rounded = self.output == "uint16"
        return {
            "unit": "camera counts without background" + (f" times {self.scale:g}" if rounded else ""),
            "grey_values_per_count": self.scale if rounded else 1.0,
            "background": self.background,
            "deconvolved": f"{self.method}, {self.preset}",
        }

    def _planes(self, stream: Stream, given: Spec) -> int:
        """Return how many planes the picture that is restored has."""
        if self.rolling:
            planes = stream.sizes.get("z", 0)
            if len(given.shape) != 2 or planes < 2:
                raise StageError(
                    f"{WHERE}: rolling = true needs the planes of a z-stack, given {given}"
                    + (" without z" if planes < 2 else "")
                    + '. Give the source a sequence with z and leave unit = "plane", or leave rolling out'
                )
            return planes
        if given.axes not in ("yx", "zyx"):
            raise StageError(
                f"{WHERE}: given {given} with axes {given.axes}; it takes planes (y, x) and stacks (z, y, x)"
            )
        return given.shape[0] if len(given.shape) == 3 else 1

    def _sample(self, stream: Stream, shape: tuple[int, ...], recipe: Recipe) -> Image:
        where = f"{WHERE}: psf"
        if len(shape) == 3:
            # As many planes as there is room for: what is out of focus comes from far.
            room = (Grid(shape, recipe.pads).shape[0] - 1) | 1
            psf = self.psf.sample(stream.pixel_um, where, stream.z_um, room)
        else:
            psf = self.psf.sample(stream.pixel_um, where)
        if any(p > n for p, n in zip(psf.shape[-2:], shape[-2:], strict=True)):
            largest = (min(shape[-2:]) - 1) | 1  # odd
            raise StageError(
                f"{where} of {psf.shape[-2]}x{psf.shape[-1]} px is larger than the frame, {shape[-2]}x{shape[-1]}."
                f" Give one of at most {largest}x{largest} px (size_px, or a smaller cut of the file), or larger frames"
            )
        return psf

    def _tile(
        self, shape: tuple[int, ...], dtype: str, psf: Image, recipe: Recipe, device: str
    ) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Return the tile and the overlap that fit the memory; None for the whole."""
        beside = (
            2 * Spec(shape, dtype).nbytes + Spec(shape, self.output).nbytes
        )  # a copy of what is given, and the slot
        allowed = self.memory_gb * 1e9 if self.memory_gb is not None else limit_bytes(device, beside)
        tile, overlap = choose_tile(shape, psf.shape, recipe, self.output, device, int(allowed))
        if tile is None:
            raise StageError(
                f"{WHERE}: {'x'.join(map(str, shape))} does not fit into {allowed / 1e9:.2g} GB even in small tiles."
                " Give memory_gb a larger number, or a PSF with a smaller size_px"
            )
        if recipe.stop_change and tile != shape:
            raise StageError(
                f"{WHERE}: stop_change = {recipe.stop_change:g} would end each tile at another step, and this picture"
                " needs tiles. Give iterations instead, or a larger memory_gb"
            )
        own = Spec(shape, dtype).nbytes + Spec(shape, self.output).nbytes if self.rolling else 0
        taken = needed(shape, tile, recipe, self.output, device)
        self.needed = Needed(taken.lasting + own, taken.running + own, taken.peak + own)
        return (None, None) if tile == shape else (tile, overlap)
