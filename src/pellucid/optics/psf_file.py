"""Pictures of PSFs and beads in files, with the size of their pixels: TIFF, OME-TIFF, NPY."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from pellucid.errors import StageError

__all__ = ["KINDS", "Picture", "read", "write"]

Image = np.ndarray[Any, Any]

KINDS = (".tif", ".tiff", ".npy")
UNITS_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0}
UNITS_UM |= {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture or stack with the size of its pixels, where it is known.

    Parameters
    ----------
    values
        ``(y, x)`` or ``(z, y, x)`` as a rule; axes of length 1 are removed.
    pixel_um, z_um
        Size of a pixel and distance of the planes, None where the file does not tell.
    axes
        One letter for each axis, as the file names them; empty where it does not.
    note
        What its maker wrote into it.
    """

    values: Image
    pixel_um: float | None = None
    z_um: float | None = None
    axes: str = ""
    note: str = ""


def read(path: Path, where: str) -> Picture:
    """Return the picture in a TIFF, OME-TIFF or NPY file.

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
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in KINDS)[:8]
        beside = f" In that folder: {', '.join(near)}." if near else ""
        raise StageError(f"{given}: no such file.{beside} Give a TIFF or NPY, relative to the config's folder")
    if path.suffix.lower() not in KINDS:
        raise StageError(f"{given}: a PSF file ends in {', '.join(KINDS)}; save it as one of these")
    try:
        if path.suffix.lower() == ".npy":
            return Picture(np.squeeze(np.load(path, allow_pickle=False)))
        return _tiff(path)
    except Exception as error:  # each reader has its own ways to fail on a broken file
        raise StageError(f"{given}: cannot be read as an image ({error}); save it again as TIFF or NPY") from None


def _tiff(path: Path) -> Picture:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        values = series.asarray()
        axes = "".join(a for a, n in zip(series.axes, values.shape, strict=False) if n > 1)
        pixel_um = z_um = None
        note = ""
        if file.is_imagej and file.imagej_metadata is not None:
            facts = file.imagej_metadata
            note = str(facts.get("Info", "")).strip()
            um = UNITS_UM.get(str(facts.get("unit", "")).strip().lower())
            if um:
                tag = file.pages.first.tags.get("XResolution")
                if tag is not None and tag.value[0]:
                    pixel_um = um * tag.value[1] / tag.value[0]
                z_um = abs(float(facts["spacing"])) * um if facts.get("spacing") else None
        elif file.is_ome and file.ome_metadata:
            pixel_um, z_um = _ome(file.ome_metadata)
    return Picture(np.squeeze(values), pixel_um or None, z_um or None, axes, note)


def _ome(text: str) -> tuple[float | None, float | None]:
    """Return the sizes of pixel and plane that OME-XML tells."""
    for element in ElementTree.fromstring(text).iter():
        if element.tag.rpartition("}")[2] == "Pixels":
            out = []
            for axis in "XZ":
                size = element.get(f"PhysicalSize{axis}")
                um = UNITS_UM.get(element.get(f"PhysicalSize{axis}Unit", "µm").lower())
                out.append(float(size) * um if size and um else None)
            return out[0], out[1]
    return None, None


def write(path: Path, psf: Image, pixel_um: float, z_um: float | None, note: str = "") -> None:
    """Write a PSF as float32 with the size of its pixels: an ImageJ TIFF, or an OME-TIFF where the name says so.

    Parameters
    ----------
    path
        Ends in ``.tif`` or ``.tiff``; ``.ome.tif`` for an OME-TIFF.
    psf
        ``(y, x)`` or ``(z, y, x)``.
    note
        What it is and how it was made.
    """
    import tifffile

    axes = "ZYX" if psf.ndim == 3 else "YX"
    values = np.ascontiguousarray(psf, np.float32)
    if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        facts: dict[str, Any] = {"axes": axes, "Description": note}
        for axis, um in zip(axes[::-1], (pixel_um, pixel_um, z_um), strict=False):
            if um:
                facts |= {f"PhysicalSize{axis}": um, f"PhysicalSize{axis}Unit": "µm"}
        tifffile.imwrite(path, values, ome=True, metadata=facts)
        return
    ends = (float(values.min()), float(values.max()))
    facts = {"axes": axes, "unit": "um", "Info": note, "min": ends[0], "max": ends[1]}
    if z_um and psf.ndim == 3:
        facts["spacing"] = z_um
    tifffile.imwrite(path, values, imagej=True, resolution=(1 / pixel_um, 1 / pixel_um), metadata=facts)
