"""A PSF out of a file, made fit for a camera: checked, freed of its background, centred, resampled, cut, positive."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pellucid.errors import StageError
from pellucid.optics.levels import background, peak_pixel, reach_px
from pellucid.optics.psf_file import Picture, read
from pellucid.optics.resample import centre_px, cut, nearest_positive, radial_mean, resampled

__all__ = ["Picture", "check", "checked", "fitted", "is_prepared", "prepared", "read", "saturated"]

Image = np.ndarray[Any, Any]

ENERGY = 0.995
"""Of a measured PSF's light that is kept where it is cut."""
SAME = 0.005
"""Steps that differ by less than this share are the same."""
OFF_PX = 0.05
"""A centre that lies nearer to the middle of a pixel is left there."""
RINGING = 0.02
"""Of the light: if moving a PSF by less than a pixel makes so much negative, it is too sharp for that and stays."""
LARGEST_PX = 1023


def check(image: Image, given: str) -> None:
    """Refuse what can be no picture of light; copies nothing, so that it serves for large stacks of beads as well.

    Raises
    ------
    StageError
        With what to do.
    """
    shape = "x".join(map(str, image.shape)) or "1"
    if image.ndim not in {2, 3} or min(image.shape[-2:]) < 3:
        raise StageError(
            f"{given}: has shape {shape}; a PSF is one grey picture (y, x) of at least 3x3 px,"
            " or one grey stack (z, y, x). Save one channel and one time point of it"
        )
    if image.dtype.kind not in "buif":
        raise StageError(f"{given}: has type {image.dtype}; give real numbers, such as uint16 or float32")
    if image.dtype.kind == "f" and (bad := image.size - int(np.count_nonzero(np.isfinite(image)))):
        share = "nothing but" if bad == image.size else f"{bad} of {image.size} values are"
        raise StageError(f"{given}: {share} NaN or infinite; a PSF is finite. Try np.nan_to_num(psf)")
    top = image.max()
    if top <= 0:
        what = "only zeros" if not image.any() else f"nothing above 0 (largest value {top:g})"
        raise StageError(f"{given}: holds {what}; a PSF is light, so its values are 0 or more and some are not 0")
    if top == image.min():
        raise StageError(f"{given}: is flat, nothing is above its border; give a picture with the bead inside")


def checked(image: Image, given: str) -> Image:
    """Return a picture that can be a PSF, as float64.

    Raises
    ------
    StageError
        For anything that is none, with what to do.
    """
    check(image, given)
    if count := saturated(image):
        raise StageError(
            f"{given}: {count} pixels have the largest value that the camera can give, {image.max()}: the bead is"
            " saturated, and its peak is lost. Take it again with less light or a shorter exposure"
        )
    if _in_corner(image):
        raise StageError(
            f"{given}: its peak lies in a corner, as transforms have it; a PSF has it in the middle. Save"
            " np.fft.fftshift(psf)"
        )
    if (axis := _cut_off(image)) is not None:
        raise StageError(
            f"{given}: its peak lies at the border along {'zyx'[axis - image.ndim :][0]}, so that half of the bead is"
            " missing. Give a picture with the whole bead inside"
        )
    return image.astype(np.float64)


def _cut_off(image: Image) -> int | None:
    """Return an axis along which the peak is nearer to the border than half its own width."""
    peak = peak_pixel(image)
    for axis, (p, n) in enumerate(zip(peak, image.shape, strict=True)):
        line = np.moveaxis(image, axis, -1)[tuple(q for a, q in enumerate(peak) if a != axis)].astype(np.float64)
        line = line if p <= n // 2 else line[::-1]  # the nearer border first
        near = min(p, n - 1 - p)
        below = np.flatnonzero(line[near:] - np.median(image) < (line[near] - np.median(image)) / 2)
        if n >= 5 and len(below) and near < below[0]:  # none: a stack may end before its PSF does
            return axis
    return None


def _in_corner(image: Image) -> bool:
    """Return whether the peak lies in a corner and its light goes on in the opposite ones."""
    peak = peak_pixel(image)
    if not all(n >= 9 and min(p, n - 1 - p) <= 1 for p, n in zip(peak, image.shape, strict=True)):
        return False
    below = float(np.median(image))
    across = (slice(None, 2) if p > n // 2 else slice(-2, None) for p, n in zip(peak, image.shape, strict=True))
    return bool(image[tuple(across)].max() - below > 0.2 * (image.max() - below))


def saturated(image: Image) -> int:
    """Return how many pixels are at the end of the camera's range; 0 where none are, or fewer than 3 (chance)."""
    if image.dtype.kind not in "ui":
        return 0
    top = int(image.max())
    full = {255, 1023, 4095, 16383, 65535, int(np.iinfo(image.dtype).max)}
    count = int(np.count_nonzero(image == top)) if top in full else 0
    return count if count > 2 else 0


def _sums_to_one(psf: Image) -> bool:
    return abs(float(psf.sum()) - 1) < 1e-3


def is_prepared(psf: Image) -> bool:
    """Return whether a PSF sums to 1 and has its brightest pixel in the middle of odd sides: it is not moved then."""
    middle = tuple(n // 2 for n in psf.shape)
    return _sums_to_one(psf) and all(n % 2 for n in psf.shape) and bool(psf[middle] == psf.max())


def fitted(
    own: Picture,
    given: str,
    pixel_um: float | None = None,
    z_um: float | None = None,
    planes: int | None = None,
    *,
    stack: bool,
    thickness_um: float | None = None,
    radial: bool = False,
    size_px: int | None = None,
    own_planes: int | None = None,
) -> Image:
    """Return a PSF that can be used on a camera's pixels.

    In this order: checked; background subtracted (`background`); centred, between pixels as well, about the point
    of symmetry (`centre_px`); averaged along circles, if asked for; resampled to the pixel and the planes asked for,
    where both sizes are known; cut to the size asked for, or to a box that holds 99.5% of its light, with soft edges;
    made positive
    (`nearest_positive`); scaled to sum 1. What sums to 1 within 0.1% is taken as prepared before: its background
    stays, and it is neither cut nor softened. A PSF so sharp that moving it by a part of a pixel
    would make it ring stays on its pixels, with its brightest one in the middle.

    Parameters
    ----------
    own
        The picture with its own sizes.
    given
        What names it in messages.
    pixel_um, z_um
        Of the camera's stream, None where they are not known.
    planes
        At most so many.
    stack
        A PSF ``(z, y, x)`` is wanted, else ``(y, x)``.
    thickness_um
        For a plane out of a stack: see `pellucid.optics.psf.Measured`.
    radial, size_px, own_planes
        See there; `own_planes` is ``planes`` there.

    Returns
    -------
    numpy.ndarray
        float32, odd sides, sum 1.

    Raises
    ------
    StageError
        For a picture that is no such PSF.
    """
    psf = checked(own.values, given)
    _dimensions(psf, own, given, z_um, stack=stack, thickness_um=thickness_um)
    before = _sums_to_one(psf)
    if not before:
        psf -= background(psf)
        if psf.sum() <= 0:
            psf = np.maximum(psf, 0)
    lateral = _ratio(pixel_um, own.pixel_um, given, "pixel_um")
    axial = _ratio(z_um, own.z_um, given, "z_um") if stack else 1.0
    ratios = (axial, lateral, lateral)[-psf.ndim :]
    psf = _centred(psf)
    asked = (own_planes, size_px, size_px)[-psf.ndim :]
    if not before:
        full = tuple(n // 2 for n in psf.shape)
        held = reach_px(psf, ENERGY)  # the soft edge comes beyond it, where there is room
        reach = tuple(f if n else min(f, r + max(1, r // 8)) for n, r, f in zip(asked, held, full, strict=True))
        psf = cut(psf, reach, [psf.ndim == 2 or axis > 0 or reach[0] < full[0] for axis in range(psf.ndim)])
    if radial:
        psf = radial_mean(psf)
    if psf.ndim == 3 and not stack:
        psf, ratios, asked = _slab(psf, thickness_um, own.z_um, before), ratios[1:], asked[1:]
    psf = _on_steps(psf, ratios, given)
    if any(asked):
        reach = tuple(n // 2 if wanted is None else wanted // 2 for n, wanted in zip(psf.shape, asked, strict=True))
        psf = cut(psf, reach, [r < n // 2 for r, n in zip(reach, psf.shape, strict=True)])
    if stack and planes is not None and psf.shape[0] > planes:
        psf = cut(psf, (max(0, (planes - 1) // 2), *(n // 2 for n in psf.shape[1:])), (planes > 4, False, False))
    psf = nearest_positive(psf)
    psf = _without_dark_borders(psf)
    if psf.sum() <= 0:
        raise StageError(f"{given}: is flat, nothing is above its border; give a picture with the bead inside")
    return np.asarray(psf / psf.sum(), np.float32)


def prepared(image: Image, given: str) -> Image:
    """Return a plane's PSF on its own pixels; see `fitted`."""
    return fitted(Picture(np.squeeze(image)), given, stack=False)


def _dimensions(
    psf: Image, own: Picture, given: str, z_um: float | None, *, stack: bool, thickness_um: float | None
) -> None:
    shape = "x".join(map(str, psf.shape))
    if stack and psf.ndim == 2:
        raise StageError(
            f"{given}: one plane of {shape} px, and a stack is to be restored; give a PSF with planes (z, y, x),"
            ' or model one: psf = { kind = "vectorial", na = 1.2, wavelength_nm = 520, index = 1.33 }'
        )
    if stack and z_um is not None and own.z_um is None:
        raise StageError(
            f"{given}: does not tell how far apart its planes are (the frames' are {z_um:g} um)."
            " Add z_um = 0.1 (micrometres, those of the file) to the table of psf"
        )
    if psf.ndim == 3 and not stack:
        if thickness_um is None:
            raise StageError(
                f"{given}: a 3D PSF of shape {shape}, and planes are to be restored. Add thickness_um = 0 for its"
                " plane in focus (thin specimens) or thickness_um = 2.5 for its mean over so thick a specimen"
            )
        if thickness_um > 0 and own.z_um is None:
            raise StageError(
                f"{given}: thickness_um = {thickness_um:g} needs the distance of the planes, and the file does not tell"
                " it. Add z_um = 0.1 (micrometres) to the table of psf"
            )


def _ratio(wanted: float | None, own: float | None, given: str, key: str) -> float:
    """Return the new step over the old one; 1 where one of them is not known or both are the same."""
    if wanted is None or own is None or abs(wanted / own - 1) < SAME:
        return 1.0
    ratio = wanted / own
    if not 0.05 <= ratio <= 20:
        raise StageError(
            f"{given}: has {key} = {own:g} and the frames {wanted:g}; a PSF can be resampled by a factor of 20 at most."
            f" Mend {key} (micrometres in the specimen) in the table of psf or of the source"
        )
    return ratio


def _centred(psf: Image) -> Image:
    """Return `psf` with its centre in the middle pixel of an odd frame that holds all of it."""
    peak = peak_pixel(psf)
    centre = tuple(float(n // 2) for n in psf.shape) if is_prepared(psf) else centre_px(psf)
    if any(abs(c - p) > max(2.0, n / 4) for c, p, n in zip(centre, peak, psf.shape, strict=True)):
        centre = tuple(map(float, peak))  # two beads, say: the brighter one
    centre = tuple(float(round(c)) if abs(c - round(c)) < OFF_PX else c for c in centre)
    same, points = (1.0,) * psf.ndim, (False,) * psf.ndim
    moved = resampled(psf, centre, _sizes(psf.shape, centre, same), same, points)
    negative = np.minimum(moved, 0).sum() - np.minimum(psf, 0).sum()
    if -negative > RINGING * abs(psf.sum()):
        centre = tuple(map(float, peak))
        moved = resampled(psf, centre, _sizes(psf.shape, centre, same), same, points)
    return moved


def _on_steps(psf: Image, ratios: tuple[float, ...], given: str) -> Image:
    """Resample a centred PSF to other pixels and planes."""
    if all(r == 1 for r in ratios):
        return psf
    centre = tuple(float(n // 2) for n in psf.shape)
    sizes = _sizes(psf.shape, centre, ratios)
    if max(sizes[-2:]) > LARGEST_PX:
        raise StageError(
            f"{given}: on the frames' pixels it would be {'x'.join(map(str, sizes))}; at most {LARGEST_PX} px are"
            " possible. Give a smaller cut of the file, or mend pixel_um"
        )
    return resampled(psf, centre, sizes, ratios, (False, True, True)[-psf.ndim :])


def _sizes(shape: tuple[int, ...], centre: tuple[float, ...], ratios: tuple[float, ...]) -> tuple[int, ...]:
    """Return odd sides that reach, from the centre, to the farther border."""
    return tuple(
        2 * math.floor(max(c, n - 1 - c) / ratio + 0.25) + 1 for n, c, ratio in zip(shape, centre, ratios, strict=True)
    )


def _slab(psf: Image, thickness_um: float | None, z_um: float | None, before: bool) -> Image:
    """Return the mean over the planes within a specimen; planes at its faces count in part."""
    middle = psf.shape[0] // 2
    if not thickness_um:
        plane = psf[middle]
    else:
        assert z_um is not None
        inside = np.clip(thickness_um / (2 * z_um) + 0.5 - abs(np.arange(psf.shape[0]) - middle), 0, 1)
        plane = np.tensordot(inside / inside.sum(), psf, 1)
    return np.asarray(plane / plane.sum() if before else plane)


def _without_dark_borders(psf: Image) -> Image:
    """Take off planes and lines that are 0 on both sides."""
    reach = []
    for axis in range(psf.ndim):
        lit = np.flatnonzero(psf.any(axis=tuple(a for a in range(psf.ndim) if a != axis)))
        middle = psf.shape[axis] // 2
        reach.append(max(int(abs(lit - middle).max()) if lit.size else 0, int(axis >= psf.ndim - 2)))
    return cut(psf, reach, [False] * psf.ndim)
