"""A PSF out of a file: read, checked, freed of its background, centred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import StageError

__all__ = ["centred", "prepared", "read"]

Image = np.ndarray[Any, Any]


def read(path: Path, where: str) -> Image:
    """Return the picture in a TIFF, OME-TIFF or NPY file, axes of length 1 removed.

    Parameters
    ----------
    path
        The file.
    where
        What names it in messages, such as ``'stage "deconvolve": psf'``.

    Raises
    ------
    StageError
        Where there is no such file, or no picture in it.
    """
    given = f'{where} = "{path}"'
    kinds = (".tif", ".tiff", ".npy")
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in kinds)[:8]
        beside = f" In that folder: {', '.join(near)}." if near else ""
        raise StageError(f"{given}: no such file.{beside} Give a TIFF or NPY, relative to the config's folder")
    if path.suffix.lower() not in kinds:
        raise StageError(f"{given}: a PSF file ends in {', '.join(kinds)}; save it as one of these")
    try:
        if path.suffix.lower() == ".npy":
            image = np.load(path, allow_pickle=False)
        else:
            import tifffile

            image = tifffile.imread(path)
    except Exception as error:  # each reader has its own ways to fail on a broken file
        raise StageError(f"{given}: cannot be read as an image ({error}); save it again as TIFF or NPY") from None
    return np.squeeze(np.asarray(image))


def prepared(image: Image, given: str) -> Image:
    """Return a PSF that can be used: no background, nothing negative, centred, odd, sum 1.

    Values that sum to 1 within 0.1% are taken as prepared before and kept. From all others, counts of a
    camera as a rule, the background is subtracted: of the medians of the four outermost lines the lowest, so
    that a neighbouring bead at one side does no harm. What is then below 0 becomes 0.

    Parameters
    ----------
    image
        ``(y, x)``, any real type, any size.
    given
        What names it in messages.

    Returns
    -------
    numpy.ndarray
        float32, odd sides, see `centred`.

    Raises
    ------
    StageError
        For anything that is no 2D PSF.
    """
    if image.ndim == 3:
        raise StageError(
            f"{given}: a 3D PSF of shape {'x'.join(map(str, image.shape))}; stacks come later. Planes need a 2D"
            " PSF: give its plane in focus, psf[psf.shape[0] // 2], or its mean over z, psf.mean(0)"
        )
    if image.ndim != 2:
        shape = "x".join(map(str, image.shape)) or "1"
        raise StageError(f"{given}: has shape {shape}; a PSF is one grey picture (y, x) of at least 3x3")
    if image.dtype.kind not in "buif":
        raise StageError(f"{given}: has type {image.dtype}; give real numbers, such as uint16 or float32")
    psf = image.astype(np.float64)
    if not np.isfinite(psf).all():
        bad = np.count_nonzero(~np.isfinite(psf))
        share = "nothing but" if bad == psf.size else f"{bad} of {psf.size} values are"
        raise StageError(f"{given}: {share} NaN or infinite; a PSF is finite. Try np.nan_to_num(psf)")
    if psf.max() <= 0:
        what = "only zeros" if not psf.any() else f"nothing above 0 (largest value {psf.max():g})"
        raise StageError(f"{given}: holds {what}; a PSF is light, so its values are 0 or more and some are not 0")
    if min(psf.shape) > 2 and abs(psf.sum() - 1) > 1e-3:
        psf -= min(np.median(line) for line in (psf[0], psf[-1], psf[:, 0], psf[:, -1]))
    np.maximum(psf, 0, out=psf)
    if psf.sum() <= 0:
        raise StageError(f"{given}: is flat, nothing is above its border; give a picture with the bead inside")
    psf = centred(psf)
    return np.asarray(psf / psf.sum(), np.float32)


def centred(psf: Image) -> Image:
    """Return `psf` in an odd frame whose middle is its brightest pixel.

    The brightest pixel is looked for after smoothing with (1, 2, 1) / 4 along each axis, so that one hot pixel
    does not win. Zeros are put round the picture until that pixel is the middle, and lines that are then zero
    on both sides are taken off again: no light is lost and nothing is interpolated. So a PSF that lies between
    two pixels, as symmetrical ones of even size do, keeps its shift of half a pixel and gets no other.
    """
    smooth = np.pad(np.asarray(psf, np.float64), 1)
    for axis in (0, 1):
        smooth = 2 * smooth + np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis)
    peak = np.unravel_index(np.argmax(smooth[1:-1, 1:-1]), psf.shape)
    pads, keep = [], []
    for axis, (at, n) in enumerate(zip(peak, psf.shape, strict=True)):
        lit = np.flatnonzero(psf.any(axis=1 - axis))
        reach = int(max(at - lit[0], lit[-1] - at, 1))
        half = int(max(at, n - 1 - at, 1))
        pads.append((half - int(at), half - (n - 1 - int(at))))
        keep.append(slice(half - reach, half + reach + 1))
    return np.asarray(np.pad(psf, pads)[tuple(keep)])
