"""PSFs of objectives from their figures, as a config gives them: scalar, Gibson-Lanni, vectorial.

All are computed from their light along the radius (`pellucid.optics.radial`), for a plane or for a stack. The index
along z of a stack grows with depth: from the coverslip into the specimen.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import StageError
from pellucid.optics.lens import Lens
from pellucid.optics.radial import axis_reach_um, best_focus_um, light, on_pixels, radii_um

__all__ = [
    "STRICT",
    "GibsonLanni",
    "Positive",
    "Scalar",
    "Thickness",
    "Vectorial",
    "odd_planes",
    "pixel_or",
    "z_step_or",
]

Array = np.ndarray[Any, Any]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Thickness = Annotated[float, Field(ge=0, le=10_000)]
Index = Annotated[float, Field(ge=1, le=4)]
STRICT = ConfigDict(extra="forbid")
DEPTH_STEP_UM = 0.1
"""Distance of the planes that stand for a thick specimen; well below the depth of field of any dry lens."""
LARGEST_PX = 8191
"""Of the fine points of a PSF with all that its light spreads over; more is a slip of the unit."""
MOST_PLANES = 1023


def pixel_or(own: float | None, stream: float | None, where: str, why: str) -> float:
    """Return the size of a pixel, that of the description before that of the stream.

    Raises
    ------
    StageError
        Where neither knows it.
    """
    pixel_um = own or stream
    if not pixel_um:
        raise StageError(
            f"{where}: {why} needs the size of a pixel, and the camera's stream does not tell it."
            " Add pixel_um = 0.1 (micrometres in the specimen) to the table of psf"
        )
    return pixel_um


def z_step_or(own: float | None, stream: float | None, where: str) -> float:
    """Return the distance of two planes, that of the description before that of the stream.

    Raises
    ------
    StageError
        Where neither knows it.
    """
    z_um = own or stream
    if not z_um:
        raise StageError(
            f"{where}: a stack needs the distance of its planes, and the camera's stream does not tell it."
            " Add z_um = 0.3 (micrometres) to the table of psf"
        )
    return z_um


def odd_planes(wanted: int, at_most: int | None) -> int:
    """Return the largest odd number not above either, at least 1."""
    count = wanted if at_most is None else min(wanted, at_most)
    return max(1, count - 1 + count % 2)


@dataclass(config=STRICT, kw_only=True)
class _Objective:
    """What all objectives have.

    Parameters
    ----------
    na
        Numerical aperture, below `index`.
    wavelength_nm
        Of the emitted light.
    index
        Refractive index of the immersion: 1.0 air, 1.33 water, 1.515 oil.
    pixel_um, z_um
        Size of a pixel and distance of the planes in the specimen, where the stream does not tell them or tells
        them wrongly.
    thickness_um
        A plane's PSF is the mean over a specimen of this thickness; 0: the plane in focus. Stacks have no use for it.
    defocus_um
        Distance of the specimen's middle from the focal plane.
    size_px
        Odd side of the PSF.
    planes
        Odd number of planes of a stack's PSF; None: until the light has left the sides of the PSF.
    """

    na: Positive
    wavelength_nm: Annotated[float, Field(ge=100, le=5000)]
    index: Index = 1.0
    pixel_um: Positive | None = None
    z_um: Positive | None = None
    thickness_um: Annotated[float, Field(ge=0, le=100)] = 0.0
    defocus_um: Annotated[float, Field(ge=-100, le=100)] = 0.0
    size_px: Annotated[int, Field(ge=3, le=1023)] = 65
    planes: Annotated[int, Field(ge=1, le=MOST_PLANES)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> _Objective:
        if self.na >= self.index:
            raise ValueError(
                f"na = {self.na:g} is not below index = {self.index:g}; no such lens."
                " Give the index of the immersion: 1.0 air, 1.33 water, 1.515 oil"
            )
        for key, count in (("size_px", self.size_px), ("planes", self.planes)):
            if count is not None and count % 2 == 0:
                raise ValueError(f"{key} = {count} is even; give an odd one, such as {count + 1}")
        return self

    def sample(self, pixel_um: float | None, where: str, z_um: float | None = None, planes: int | None = None) -> Array:
        """Return the PSF on the camera's pixels.

        Parameters
        ----------
        pixel_um
            Of the stream, where it is known.
        where
            What names the PSF in messages.
        z_um, planes
            One of them: a stack's PSF is wanted, for planes so far apart, and of at most so many.

        Returns
        -------
        numpy.ndarray
            float32 ``(y, x)`` or ``(z, y, x)``, odd sides, centred, sum 1.

        Raises
        ------
        StageError
            Where a size is missing, or so wrong that the PSF could not be computed.
        """
        pixel = pixel_or(self.pixel_um, pixel_um, where, f'kind = "{self._kind}"')
        fine = self._fine(pixel)
        if z_um is None and planes is None:
            count = round(self.thickness_um / DEPTH_STEP_UM) | 1
            z = (np.arange(count) - count // 2) * (self.thickness_um / count) + self.defocus_um
            self._check_spread(pixel, fine, z, where)
            psf = on_pixels(*self._profile(pixel, z, mean=True), self.size_px, pixel, fine)[0]
        else:
            step = z_step_or(self.z_um, z_um, where)
            needed = 2 * math.ceil(self._reach_um(pixel) / step) + 1
            if self.planes is None and planes is None and needed > MOST_PLANES:
                raise StageError(
                    f"{where}: with z_um = {step:g} the PSF has {needed} planes, at most {MOST_PLANES} are possible."
                    " Give planes = 31, or mend z_um (micrometres)"
                )
            count = odd_planes(self.planes or needed, planes)
            z = (np.arange(count) - count // 2) * step + self.defocus_um
            self._check_spread(pixel, fine, z, where)
            psf = on_pixels(*self._profile(pixel, z, mean=False), self.size_px, pixel, fine)
        return np.asarray(psf / psf.sum(), np.float32)

    # What a kind says of itself

    @property
    def _vectorial(self) -> bool:
        return False

    @property
    def _kind(self) -> str:
        return str(getattr(self, "kind"))  # noqa: B009  each kind has its own literal

    @property
    def _lens(self) -> Lens:
        return Lens(na=self.na, index=self.index)

    def _fine(self, pixel: float) -> int:
        """Points along a pixel: odd, so that the centre stays a centre; 1 where the pixel is fine enough itself."""
        return math.ceil(pixel * 4 * self.na / (self.wavelength_nm * 1e-3) - 1e-9) | 1

    def _reach_um(self, pixel: float) -> float:
        """How far from focus the planes of a stack go: the cone of light fills the PSF's sides, the axis is dark."""
        cone = self.size_px // 2 * pixel * math.sqrt(self.index**2 - self.na**2) / self.na
        return max(cone, axis_reach_um(self._lens, self.wavelength_nm * 1e-3, vectorial=self._vectorial))

    def _profile(self, pixel: float, z: Array, *, mean: bool) -> tuple[Array, float]:
        """Return the light along the radius, ``(z, r)``, or the mean over z, ``(1, r)``; and the step of the radius."""
        um = self.wavelength_nm * 1e-3
        lens = self._lens
        r = radii_um(self.size_px * pixel * math.sqrt(0.5), self.na, um)
        focus = best_focus_um(lens, um, vectorial=self._vectorial)
        profile = light(lens, um, r, z + focus, vectorial=self._vectorial)
        return (profile.mean(0, keepdims=True) if mean else profile), float(r[1])

    def _check_spread(self, pixel: float, fine: int, z: Array, where: str) -> None:
        cone_px = abs(z).max() * self.na / math.sqrt(self.index**2 - self.na**2) / (pixel / fine)
        n = max(4 * self.size_px * fine, 2 * math.ceil(cone_px) + self.size_px * fine) | 1
        if n > LARGEST_PX:
            raise StageError(
                f"{where}: the PSF needs a grid of {n}x{n} px to be computed, at most {LARGEST_PX} is possible,"
                f" with pixel_um = {pixel:g}, size_px = {self.size_px}, thickness_um = {self.thickness_um:g},"
                f" defocus_um = {self.defocus_um:g}{f', {z.size} planes' if self.thickness_um == 0 else ''}."
                " Give smaller ones, or mend pixel_um (micrometres in the specimen)"
            )


@dataclass(config=STRICT, kw_only=True)
class Scalar(_Objective):
    """The PSF of a widefield objective without aberration, by the scalar theory: good to about NA 1.

    Where a pixel is too coarse for the light (more than ``wavelength / 4 na``), it is summed over the pixel's area,
    as a camera does. All other keys are those of each objective: see `_Objective`.
    """

    kind: Literal["scalar"] = "scalar"


@dataclass(config=STRICT, kw_only=True)
class GibsonLanni(_Objective):
    """The scalar PSF with the spherical aberration of layers that differ from those the lens was made for.

    Gibson and Lanni 1992 (J. Opt. Soc. Am. A 9, 154). Focused as the microscopist does it: defocus 0 is where the
    image of a point at `depth_um` is brightest; z is how far the stage or the objective moves.

    Parameters
    ----------
    index_sample
        Of the mounting medium: 1.33 water, 1.47 glycerol, 1.518 hardened mountant; None: that of the immersion.
    depth_um
        Of the light sources below the coverslip.
    index_design, immersion_um
        Of the immersion that the lens was made for (None: `index`) and its working distance.
    coverslip_um, coverslip_design_um, index_coverslip, index_coverslip_design
        Thickness and index of the coverslip as it is and as the lens was made for; 0 and 0: a dipping lens.
    deeper
        The planes of a stack go deeper into the specimen; false: towards the coverslip, as other microscopes
        count.
    """

    kind: Literal["gibson-lanni"] = "gibson-lanni"
    index_sample: Index | None = None
    depth_um: Thickness = 0.0
    index_design: Index | None = None
    immersion_um: Thickness = 150.0
    coverslip_um: Thickness = 170.0
    coverslip_design_um: Thickness = 170.0
    index_coverslip: Index = 1.5255
    index_coverslip_design: Index | None = None
    deeper: bool = True

    @model_validator(mode="after")
    def _within_reach(self) -> GibsonLanni:
        thickness_um, _ = self._lens.layers[3]
        if thickness_um < 0:
            raise ValueError(
                f"depth_um = {self.depth_um:g} and coverslip_um = {self.coverslip_um:g} are beyond the reach of this"
                f" lens, immersion_um = {self.immersion_um:g}; give its working distance there, or a smaller depth_um"
            )
        return self

    @property
    def _lens(self) -> Lens:
        return Lens(
            na=self.na,
            index=self.index,
            index_design=self.index_design,
            immersion_um=self.immersion_um,
            index_coverslip=self.index_coverslip,
            index_coverslip_design=self.index_coverslip_design,
            coverslip_um=self.coverslip_um,
            coverslip_design_um=self.coverslip_design_um,
            index_sample=self.index_sample,
            depth_um=self.depth_um,
        )

    def _profile(self, pixel: float, z: Array, *, mean: bool) -> tuple[Array, float]:
        return super()._profile(pixel, z if self.deeper else -z, mean=mean)


@dataclass(config=STRICT, kw_only=True)
class Vectorial(GibsonLanni):
    """The PSF of a lens of high aperture with the light's polarisation, for molecules that point in all directions.

    Richards and Wolf 1959, with the layers of `GibsonLanni` and their Fresnel transmission; see
    `pellucid.optics.radial.light`. All keys are those of `GibsonLanni`.
    """

    kind: Literal["vectorial"] = "vectorial"  # type: ignore[assignment]

    @property
    def _vectorial(self) -> bool:
        return True
