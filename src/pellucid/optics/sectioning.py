"""PSFs of microscopes that see one section: products of the excitation's light and the detection's."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from pellucid.optics.objectives import STRICT, GibsonLanni, Positive, Thickness
from pellucid.optics.products import gaussian_sheet, sheet_fwhm_um, through_pinhole
from pellucid.optics.radial import best_focus_um, light, radii_um
from pellucid.optics.widths import axial_fwhm_um

__all__ = ["Confocal", "LightSheet"]

Array = np.ndarray[Any, Any]


@dataclass(config=STRICT, kw_only=True)
class Confocal(GibsonLanni):
    """The product of the excitation's focus with the emission seen through a pinhole.

    The pixels are places of the scanned beam, so that they are points and not areas.

    Parameters
    ----------
    excitation_nm
        Wavelength of the laser.
    pinhole_au
        Diameter in Airy units, ``1.22 wavelength / na`` of the emission; 0: a point.
    model
        ``"vectorial"`` or ``"scalar"``, of both factors.
    """

    kind: Literal["confocal"] = "confocal"  # type: ignore[assignment]
    excitation_nm: Annotated[float, Field(ge=100, le=5000)]
    pinhole_au: Annotated[float, Field(ge=0, le=20)] = 1.0
    model: Literal["vectorial", "scalar"] = "vectorial"

    @property
    def _vectorial(self) -> bool:
        return self.model == "vectorial"

    def _fine(self, pixel: float) -> int:
        return 1

    def _reach_um(self, pixel: float) -> float:
        reach = super()._reach_um(pixel)
        if not self._lens.is_as_designed:
            return reach
        return min(reach, 3 * axial_fwhm_um(self.na, self.wavelength_nm, self.index) * max(1.0, self.pinhole_au))

    def _profile(self, pixel: float, z: Array, *, mean: bool) -> tuple[Array, float]:
        emission, excitation = self.wavelength_nm * 1e-3, self.excitation_nm * 1e-3
        pinhole = self.pinhole_au * 0.61 * emission / self.na
        reach = self.size_px * pixel * math.sqrt(0.5)
        r = radii_um(reach, self.na, min(emission, excitation))
        far = np.arange(r.size + math.ceil(pinhole / r[1]) + 2) * r[1]
        lens, vectorial = self._lens, self._vectorial
        z = (z if self.deeper else -z) + best_focus_um(lens, emission, vectorial=vectorial)
        seen = through_pinhole(light(lens, emission, far, z, vectorial=vectorial), float(r[1]), pinhole, r.size)
        profile = seen * light(lens, excitation, r, z, vectorial=vectorial)
        return (profile.mean(0, keepdims=True) if mean else profile), float(r[1])


@dataclass(config=STRICT, kw_only=True)
class LightSheet(GibsonLanni):
    """The product of a light sheet in the focal plane with the PSF of the lens that looks at it from above.

    A plane's PSF is the mean over `thickness_um` of the specimen, weighted by the sheet: give some 3 times the sheet's
    thickness. Coverslips are 0 here, since such lenses dip into the medium.

    Parameters
    ----------
    sheet_um
        Thickness (FWHM) of the sheet in the field of view; or
    sheet_na, excitation_nm
        its aperture and wavelength, for a Gaussian sheet at its waist.
    model
        ``"vectorial"`` or ``"scalar"``, of the detection.
    """

    kind: Literal["light-sheet"] = "light-sheet"  # type: ignore[assignment]
    sheet_um: Positive | None = None
    sheet_na: Positive | None = None
    excitation_nm: Annotated[float, Field(ge=100, le=5000)] | None = None
    model: Literal["vectorial", "scalar"] = "vectorial"
    coverslip_um: Thickness = 0.0
    coverslip_design_um: Thickness = 0.0

    @model_validator(mode="after")
    def _one_sheet(self) -> LightSheet:
        if (self.sheet_um is None) == (self.sheet_na is None):
            raise ValueError("a light sheet has one thickness: give sheet_um = 1.5, or sheet_na and excitation_nm")
        if self.sheet_na is not None and self.excitation_nm is None:
            raise ValueError("sheet_na needs the laser's wavelength: give excitation_nm = 488")
        return self

    @property
    def _vectorial(self) -> bool:
        return self.model == "vectorial"

    @property
    def _sheet_um(self) -> float:
        if self.sheet_um is not None:
            return self.sheet_um
        assert self.sheet_na is not None
        assert self.excitation_nm is not None
        return sheet_fwhm_um(self.sheet_na, self.excitation_nm * 1e-3)

    def _reach_um(self, pixel: float) -> float:
        return min(super()._reach_um(pixel), 1.5 * self._sheet_um)

    def _profile(self, pixel: float, z: Array, *, mean: bool) -> tuple[Array, float]:
        profile, step = super()._profile(pixel, z, mean=False)
        profile = profile * gaussian_sheet(z, self._sheet_um)[:, None]
        return (profile.mean(0, keepdims=True) if mean else profile), step
