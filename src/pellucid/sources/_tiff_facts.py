"""What a TIFF says of itself beside its pixels: sizes in the specimen, names of channels."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

__all__ = ["pixel_and_channels", "z_step_um"]

UNITS_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


def pixel_and_channels(file: Any, series: int) -> tuple[float | None, list[str]]:
    """Return the pixel size in um and the names of the channels, as far as the file tells.

    Parameters
    ----------
    file
        Of tifffile.
    series
        Number of the image.
    """
    if file.is_ome:
        return _ome(file.ome_metadata or "", series)
    if summary := _summary(file):
        return float(summary.get("PixelSize_um") or 0) or None, [str(name) for name in summary.get("ChNames") or []]
    return (_imagej(file), []) if file.is_imagej else (None, [])


def z_step_um(file: Any, series: int) -> float | None:
    """Return the distance between two planes of a stack in um, as far as the file tells."""
    if file.is_ome:
        pixels = _pixels(file.ome_metadata or "", series)
        return None if pixels is None else _length_um(pixels, "PhysicalSizeZ")
    if summary := _summary(file):
        return abs(float(summary.get("z-step_um") or 0)) or None
    meta = (file.imagej_metadata or {}) if file.is_imagej else {}
    unit = _imagej_unit(meta)
    return abs(float(meta["spacing"])) * unit or None if unit and meta.get("spacing") else None


def _summary(file: Any) -> dict[str, Any]:
    """Return Micro-Manager's; empty where the file is none of its own."""
    return ((file.micromanager_metadata or {}).get("Summary") or {}) if file.is_micromanager else {}


def _pixels(xml: str, series: int) -> ET.Element | None:
    """Return the description of the pixels of an image, None where the file has none."""
    images = [e for e in ET.fromstring(xml).iter() if e.tag.rpartition("}")[2] == "Image"]
    return next((e for image in images[series : series + 1] for e in image if e.tag.endswith("}Pixels")), None)


def _length_um(pixels: ET.Element, name: str) -> float | None:
    size, unit = pixels.get(name), UNITS_UM.get(pixels.get(f"{name}Unit", "µm"))
    return float(size) * unit or None if size and unit else None


def _ome(xml: str, series: int) -> tuple[float | None, list[str]]:
    pixels = _pixels(xml, series)
    if pixels is None:
        return None, []
    channels = [e for e in pixels if e.tag.rpartition("}")[2] == "Channel"]
    names = [e.get("Name") or f"channel{i}" for i, e in enumerate(channels)]
    return _length_um(pixels, "PhysicalSizeX"), names


def _imagej_unit(meta: Mapping[str, Any]) -> float | None:
    return UNITS_UM.get(str(meta.get("unit", "")).replace("\\u00B5", "µ"))


def _imagej(file: Any) -> float | None:
    unit = _imagej_unit(file.imagej_metadata or {})
    tag = file.pages[0].tags.get("XResolution")
    if unit is None or tag is None or not tag.value[0]:
        return None
    return float(unit * tag.value[1] / tag.value[0])
