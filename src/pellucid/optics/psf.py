"""Descriptions of a PSF, as a config gives them: a file, a Gaussian, or the optics themselves.

``psf = "bead.tif"`` is short for ``psf = { kind = "file", path = "bead.tif" }``. Each description gives the PSF of a
plane by ``sample(pixel_um, where)``: float32 ``(y, x)``, odd sides, centred, sum 1; and with the distance of the
planes, ``sample(pixel_um, where, z_um, planes)``, or the greatest number of them, that of a stack, ``(z, y, x)``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import StageError
from pellucid.optics.measured import Picture, fitted, read
from pellucid.optics.objectives import (
    STRICT,
    GibsonLanni,
    Positive,
    Scalar,
    Vectorial,
    odd_planes,
    pixel_or,
    z_step_or,
)
from pellucid.optics.sectioning import Confocal, LightSheet

__all__ = ["Confocal", "Gaussian", "GibsonLanni", "LightSheet", "Measured", "Psf", "Scalar", "Vectorial"]

WIDEST_PX = 1000
"""Of a Gaussian's FWHM: wider is a slip of the unit, and would fill the memory before anybody sees it."""


@dataclass(config=STRICT, kw_only=True)
class Gaussian:
    """A Gaussian PSF: a fair stand-in in focus, and all that is needed for a mere blur.

    Parameters
    ----------
    fwhm_px, fwhm_um
        Full width at half maximum in a plane; one of the two.
    fwhm_z_px, fwhm_z_um
        Along z, for stacks; one of the two. `fwhm_z_px` counts planes.
    pixel_um, z_um
        For `fwhm_um` and `fwhm_z_um`: size of a pixel and distance of the planes, where the stream does not tell them.
    """

    kind: Literal["gaussian"] = "gaussian"
    fwhm_px: Positive | None = None
    fwhm_um: Positive | None = None
    fwhm_z_px: Positive | None = None
    fwhm_z_um: Positive | None = None
    pixel_um: Positive | None = None
    z_um: Positive | None = None

    @model_validator(mode="after")
    def _one_width(self) -> Gaussian:
        if (self.fwhm_px is None) == (self.fwhm_um is None):
            raise ValueError("a Gaussian PSF has one width: give either fwhm_px = 3.0 or fwhm_um = 0.3")
        if self.fwhm_z_px is not None and self.fwhm_z_um is not None:
            raise ValueError("a Gaussian PSF has one width along z: give either fwhm_z_px = 3.0 or fwhm_z_um = 0.9")
        return self

    def sample(
        self, pixel_um: float | None, where: str, z_um: float | None = None, planes: int | None = None
    ) -> np.ndarray[Any, Any]:
        """Return the PSF out to 4 sigma, where 0.03% of the peak is left; see the module for the arguments."""
        width = self.fwhm_px
        if width is None:
            assert self.fwhm_um is not None
            width = self.fwhm_um / pixel_or(self.pixel_um, pixel_um, where, "fwhm_um")
        line = _line(width, where, "px", "fwhm_px or fwhm_um, or mend pixel_um")
        psf = np.outer(line, line)
        if z_um is not None or planes is not None:
            depth = self.fwhm_z_px
            if depth is None:
                if self.fwhm_z_um is None:
                    raise StageError(
                        f"{where}: this Gaussian has no width along z, and a stack is to be restored."
                        " Add fwhm_z_um = 0.9 (micrometres) or fwhm_z_px = 3.0 (planes) to the table of psf"
                    )
                depth = self.fwhm_z_um / z_step_or(self.z_um, z_um, where)
            along = _line(depth, where, "planes", "fwhm_z_px or fwhm_z_um, or mend z_um")
            cut = (along.size - odd_planes(along.size, planes)) // 2
            psf = along[cut : along.size - cut, None, None] * psf
        return np.asarray(psf / psf.sum(), np.float32)


def _line(width: float, where: str, unit: str, mend: str) -> np.ndarray[Any, Any]:
    if width > WIDEST_PX:
        raise StageError(
            f"{where}: a Gaussian PSF {width:.6g} {unit} wide; at most {WIDEST_PX} {unit}."
            f" Give a smaller {mend} (micrometres in the specimen)"
        )
    sigma = width / math.sqrt(8 * math.log(2))
    reach = max(1, math.ceil(4 * sigma))
    return np.asarray(np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2))


@dataclass(config=STRICT, kw_only=True)
class Measured:
    """A PSF in a file; see `pellucid.optics.measured.fitted` for what is done to it.

    Parameters
    ----------
    path
        TIFF, OME-TIFF or NPY with one picture or stack; a relative path starts at the config's folder, which is
        ``context["folder"]`` of the validation, else at the working directory.
    pixel_um, z_um
        Of the file, where it does not tell them itself or tells them wrongly. Without any, its pixel is taken to be
        that of the stream; the distance of its planes is never guessed.
    thickness_um
        To make the PSF of a plane from a stack: the mean over a specimen of this thickness; 0: the plane in focus.
    radial
        Average along the circles round the axis, which takes the noise out of a measured PSF.
    size_px, planes
        Odd sides to cut it to, in the frames' pixels and planes; None: so large that they hold 99.5% of its light,
        which is too large where the background is uneven.
    """

    kind: Literal["file"] = "file"
    path: Path
    pixel_um: Positive | None = None
    z_um: Positive | None = None
    thickness_um: Annotated[float, Field(ge=0, le=100)] | None = None
    radial: bool = False
    size_px: Annotated[int, Field(ge=3, le=1023)] | None = None
    planes: Annotated[int, Field(ge=1, le=1023)] | None = None

    @field_validator("size_px", "planes")
    @classmethod
    def _odd(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and count % 2 == 0:
            raise ValueError(f"{info.field_name} = {count} is even; give an odd one, such as {count + 1}")
        return count

    @field_validator("path")
    @classmethod
    def _in_folder(cls, path: Path, info: ValidationInfo) -> Path:
        folder = (info.context or {}).get("folder") if isinstance(info.context, dict | None) else None
        return Path(folder) / path if folder is not None else path  # an absolute path stays as it is

    def sample(
        self, pixel_um: float | None, where: str, z_um: float | None = None, planes: int | None = None
    ) -> np.ndarray[Any, Any]:
        """Return the file's PSF, prepared and resampled; see the module for the arguments."""
        file = read(self.path, where)
        own = Picture(file.values, self.pixel_um or file.pixel_um, self.z_um or file.z_um)
        given = f'{where} = "{self.path}"'
        return fitted(
            own,
            given,
            pixel_um,
            z_um,
            planes,
            stack=z_um is not None or planes is not None,
            thickness_um=self.thickness_um,
            radial=self.radial,
            size_px=self.size_px,
            own_planes=self.planes,
        )


def _short(value: Any) -> Any:
    return {"kind": "file", "path": value} if isinstance(value, str | Path) else value


Psf = Annotated[
    Gaussian | Scalar | GibsonLanni | Vectorial | Confocal | LightSheet | Measured,
    Field(discriminator="kind"),
    BeforeValidator(_short),
]
"""What the key ``psf`` takes: a path, or a table with ``kind``."""
