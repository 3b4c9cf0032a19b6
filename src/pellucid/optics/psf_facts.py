"""What there is to say of a PSF: its numbers, what theory says of them, and what is wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pellucid.optics.levels import background
from pellucid.optics.measured import checked, fitted, is_prepared
from pellucid.optics.psf_file import Picture
from pellucid.optics.resample import centre_px
from pellucid.optics.widths import airy_fwhm_um, axial_fwhm_um, fwhm

__all__ = ["PsfFacts", "Theory", "facts"]

Image = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Theory:
    """What the widths should be: of the scalar PSF without aberration, in micrometres."""

    na: float
    wavelength_nm: float
    index: float

    @property
    def widths_um(self) -> dict[str, float]:
        """FWHM along x, y and z."""
        lateral = airy_fwhm_um(self.na, self.wavelength_nm)
        return {"x": lateral, "y": lateral, "z": axial_fwhm_um(self.na, self.wavelength_nm, self.index)}


@dataclass(frozen=True, eq=False)
class PsfFacts:
    """Numbers of a PSF as it lies in its file.

    Parameters
    ----------
    picture
        With the sizes of pixel and plane.
    psf
        The same as it would be used: see `pellucid.optics.measured.fitted`.
    widths_px
        FWHM of `psf` by the name of the axis.
    off_px
        How far its centre lies from the middle of its frame, likewise.
    total, level, noise
        Sum of its values; background and its standard deviation at the border, both over the peak above background.
    wrong
        What is wrong with it, and what is done or to be done about it.
    """

    picture: Picture
    psf: Image
    widths_px: dict[str, float]
    off_px: dict[str, float]
    total: float
    level: float
    noise: float
    wrong: list[str] = field(default_factory=list)

    def step_um(self, axis: str) -> float | None:
        """Return the size of a pixel, or the distance of planes."""
        return self.picture.z_um if axis == "z" else self.picture.pixel_um

    def width(self, axis: str) -> str:
        """Return the FWHM along an axis as text, in micrometres where they are known."""
        px = self.widths_px[axis]
        unit = "planes" if axis == "z" else "px"
        if not math.isfinite(px):
            return "does not fall to half"
        um = self.step_um(axis)
        return f"{px * um:.3f} um ({px:.2f} {unit})" if um else f"{px:.2f} {unit}"


def facts(picture: Picture, given: str) -> PsfFacts:
    """Look at a PSF.

    Parameters
    ----------
    picture
        From `pellucid.optics.psf_file.read`.
    given
        What names it in messages.

    Raises
    ------
    StageError
        Where it is no PSF at all: see `pellucid.optics.measured.checked`.
    """
    values = checked(picture.values, given)
    names = "zyx"[-values.ndim :]
    dark = background(values)
    above = values - dark
    level = float(dark.mean())
    peak = float(above.max())
    middle = tuple((n - 1) / 2 for n in values.shape)
    centre = middle if is_prepared(values) else centre_px(above)
    off = {a: c - m for a, c, m in zip(names, centre, middle, strict=True)}
    psf = fitted(picture, given, stack=values.ndim == 3)
    widths = dict(zip(names, fwhm(psf), strict=True))
    border = np.concatenate([above[..., 0, :].ravel(), above[..., -1, :].ravel()])
    noise = 1.4826 * float(np.median(abs(border - np.median(border)))) / peak
    out = PsfFacts(picture, psf, widths, off, float(values.sum()), level / peak, noise)
    out.wrong.extend(_wrong(out, values))
    return out


def _wrong(found: PsfFacts, values: Image) -> list[str]:
    out = []
    sides = dict(zip("zyx"[-values.ndim :], values.shape, strict=True))
    if found.picture.pixel_um is None:
        out.append(
            "the file does not tell the size of its pixels: add pixel_um = 0.1 to the table of psf, or --pixel-um"
        )
    if values.ndim == 3 and found.picture.z_um is None:
        out.append("the file does not tell the distance of its planes: add z_um = 0.3 to the table of psf, or --z-um")
    if even := [a for a, n in sides.items() if n % 2 == 0]:
        out.append(
            f"even number of pixels along {', '.join(even)}: no pixel is its middle; put into an odd frame when used"
        )
    if far := [f"{a} {d:+.2f}" for a, d in found.off_px.items() if abs(d) > (0.1 if sides[a] % 2 else 0.6)]:
        out.append(f"its centre is off the middle of the frame ({', '.join(far)} px): moved when used")
    before = abs(found.total - 1) < 1e-3
    if not before and found.level > 1e-3:
        out.append(f"it stands on a background of {found.level:.1%} of the peak: subtracted when used")
    dark = float(np.minimum(values, 0).sum())
    if dark < -1e-6 * abs(values).sum():
        out.append(f"negative values, {-dark / abs(values).sum():.1%} of its light: made 0 when used")
    if found.noise > 0.01:
        out.append(f"noise of {found.noise:.1%} of the peak: average more beads, or say radial = true")
    for axis, width in found.widths_px.items():
        unit = "planes" if axis == "z" else "px"
        if not math.isfinite(width):
            out.append(f"it does not fall to half along {axis} within its frame: take a larger one")
        elif width < 2:
            out.append(f"FWHM along {axis} of {width:.2f} {unit}, less than 2: coarsely sampled, take finer {unit}")
        elif sides[axis] < 3 * width:
            out.append(
                f"only {sides[axis]} {unit} along {axis} for a FWHM of {width:.1f}: cut too close, take a larger frame"
            )
    x, y = found.widths_px["x"], found.widths_px["y"]
    if abs(x - y) > 0.15 * max(x, y):
        out.append("its widths along x and y differ by more than 15%: astigmatism, or more than one bead")
    return out
