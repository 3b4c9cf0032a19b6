"""Descriptions of a PSF, as a config gives them: a file, a Gaussian, or the optics themselves.

``psf = "bead.tif"`` is short for ``psf = { kind = "file", path = "bead.tif" }``. Each description gives the PSF
by ``sample(pixel_um, where)``: float32 ``(y, x)``, odd sides, centred, sum 1.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import StageError
from pellucid.optics.measured import prepared, read
from pellucid.optics.pupil import widefield

__all__ = ["Gaussian", "Measured", "Psf", "Scalar"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_STRICT = ConfigDict(extra="forbid")
WIDEST_PX = 1000
"""Of a Gaussian's FWHM: wider is a slip of the unit, and would fill the memory before anybody sees it."""


def _pixel(own: float | None, stream: float | None, where: str, why: str) -> float:
    pixel_um = own or stream
    if not pixel_um:
        raise StageError(
            f"{where}: {why} needs the size of a pixel, and the camera's stream does not tell it."
            " Add pixel_um = 0.1 (micrometres in the specimen) to the table of psf"
        )
    return pixel_um


@dataclass(config=_STRICT, kw_only=True)
class Gaussian:
    """A Gaussian PSF: a fair stand-in in focus, and all that is needed for a mere blur.

    Parameters
    ----------
    fwhm_px, fwhm_um
        Full width at half maximum; one of the two.
    pixel_um
        For `fwhm_um`: size of a pixel, where the stream does not tell it.
    """

    kind: Literal["gaussian"] = "gaussian"
    fwhm_px: Positive | None = None
    fwhm_um: Positive | None = None
    pixel_um: Positive | None = None

    @model_validator(mode="after")
    def _one_width(self) -> Gaussian:
        if (self.fwhm_px is None) == (self.fwhm_um is None):
            raise ValueError("a Gaussian PSF has one width: give either fwhm_px = 3.0 or fwhm_um = 0.3")
        return self

    def sample(self, pixel_um: float | None, where: str) -> np.ndarray[Any, Any]:
        """Return the PSF out to 4 sigma, where 0.03% of the peak is left."""
        width = self.fwhm_px
        if width is None:
            assert self.fwhm_um is not None
            width = self.fwhm_um / _pixel(self.pixel_um, pixel_um, where, "fwhm_um")
        if width > WIDEST_PX:
            raise StageError(
                f"{where}: a Gaussian PSF {width:.6g} px wide; at most {WIDEST_PX} px."
                " Give a smaller fwhm_px or fwhm_um, or mend pixel_um (micrometres in the specimen)"
            )
        sigma = width / math.sqrt(8 * math.log(2))
        reach = max(1, math.ceil(4 * sigma))
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        psf = np.outer(line, line)
        return np.asarray(psf / psf.sum(), np.float32)


@dataclass(config=_STRICT, kw_only=True)
class Scalar:
    """The PSF of a widefield objective from its figures; see `pellucid.optics.pupil.widefield`.

    Parameters
    ----------
    na
        Numerical aperture, below `index`.
    wavelength_nm
        Of the emitted light.
    index
        Refractive index of the immersion: 1.0 air, 1.33 water, 1.515 oil.
    pixel_um
        Size of a pixel in the specimen, where the stream does not tell it or tells it wrongly.
    thickness_um
        The PSF is the mean over a specimen of this thickness; 0: a plane.
    defocus_um
        Distance of the specimen's middle from the focal plane.
    size_px
        Odd side of the PSF.
    """

    kind: Literal["scalar"] = "scalar"
    na: Positive
    wavelength_nm: Annotated[float, Field(ge=100, le=5000)]
    index: Annotated[float, Field(ge=1, le=4)] = 1.0
    pixel_um: Positive | None = None
    thickness_um: Annotated[float, Field(ge=0, le=100)] = 0.0
    defocus_um: Annotated[float, Field(ge=-100, le=100)] = 0.0
    size_px: Annotated[int, Field(ge=3, le=1023)] = 65

    @model_validator(mode="after")
    def _possible(self) -> Scalar:
        if self.na >= self.index:
            raise ValueError(
                f"na = {self.na:g} is not below index = {self.index:g}; no such lens."
                " Give the index of the immersion: 1.0 air, 1.33 water, 1.515 oil"
            )
        if self.size_px % 2 == 0:
            raise ValueError(f"size_px = {self.size_px} is even; give an odd one, such as {self.size_px + 1}")
        return self

    def sample(self, pixel_um: float | None, where: str) -> np.ndarray[Any, Any]:
        """Return the PSF on the camera's pixels."""
        pixel = _pixel(self.pixel_um, pixel_um, where, 'kind = "scalar"')
        try:
            light = widefield(
                self.size_px,
                pixel,
                na=self.na,
                wavelength_um=self.wavelength_nm * 1e-3,
                index=self.index,
                thickness_um=self.thickness_um,
                defocus_um=self.defocus_um,
            )
        except ValueError as error:
            raise StageError(
                f"{where}: {error}, with pixel_um = {pixel:g}, size_px = {self.size_px}, thickness_um ="
                f" {self.thickness_um:g}, defocus_um = {self.defocus_um:g}. Give smaller ones, or mend pixel_um"
                " (micrometres in the specimen)"
            ) from None
        return np.asarray(light, np.float32)


@dataclass(config=_STRICT, kw_only=True)
class Measured:
    """A PSF in a file; see `pellucid.optics.measured.prepared` for what is done to it.

    Parameters
    ----------
    path
        TIFF, OME-TIFF or NPY with one picture; a relative path starts at the config's folder, which is
        ``context["folder"]`` of the validation, else at the working directory.
    """

    kind: Literal["file"] = "file"
    path: Path

    @field_validator("path")
    @classmethod
    def _in_folder(cls, path: Path, info: ValidationInfo) -> Path:
        folder = (info.context or {}).get("folder") if isinstance(info.context, dict | None) else None
        return Path(folder) / path if folder is not None else path  # an absolute path stays as it is

    def sample(self, pixel_um: float | None, where: str) -> np.ndarray[Any, Any]:
        """Return the file's PSF, prepared; `pixel_um` is taken to be that of the file."""
        return prepared(read(self.path, where), f'{where} = "{self.path}"')


def _short(value: Any) -> Any:
    return {"kind": "file", "path": value} if isinstance(value, str | Path) else value


Psf = Annotated[Gaussian | Scalar | Measured, Field(discriminator="kind"), BeforeValidator(_short)]
"""What the key ``psf`` takes: a path, or a table with ``kind``."""
