"""The formats of recordings by name."""

from __future__ import annotations

from pathlib import Path

from pellucid.recording.disk import Disk
from pellucid.recording.image import Image, Plan

__all__ = ["make_image"]


def make_image(file_format: str, folder: Path, plan: Plan, disk: Disk) -> Image:
    """Return an image of a format, neither created nor reopened yet."""
    if file_format == "ome-tiff":
        from pellucid.recording.tiff_image import TiffImage

        return TiffImage(folder, plan, disk)
    if file_format == "ndtiff":
        from pellucid.recording.ndtiff_image import NDTiffImage

        return NDTiffImage(folder, plan, disk)
    from pellucid.recording.zarr_image import ZarrImage

    return ZarrImage(folder, plan, disk)
