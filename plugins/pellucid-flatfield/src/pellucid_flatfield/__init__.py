"""Flat field and dark frame: what the lamp and the camera add to a picture is taken out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tifffile
import torch
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import StageError
from pellucid.protocols import Spec, Stream

__all__ = ["PELLUCID", "FlatField"]


@dataclass(config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class FlatField:
    """Undo uneven illumination and the camera's dark level.

    Parameters
    ----------
    flat
        TIFF of a field without a specimen, evenly lit, of the size of the camera's frames.
    dark
        TIFF taken with the shutter closed, or one number for all pixels: the camera's offset, in counts.
    least
        Pixels of the flat field that are darker than this share of its mean are not made brighter than it says: they
        hold noise and no light.
    output
        ``"float32"``, or ``"uint16"``: rounded, and cut off below 0 and above 65535.
    """

    flat: Path
    dark: Path | Annotated[float, Field(ge=0)] = 0.0
    least: Annotated[float, Field(gt=0, le=1)] = 0.05
    output: Literal["float32", "uint16"] = "float32"

    @field_validator("flat", "dark")
    @classmethod
    def _seen_from_the_config(cls, given: Any, info: ValidationInfo) -> Any:
        """Take relative paths from the folder of the config, which pellucid gives as context."""
        folder = (info.context or {}).get("folder")
        return folder / given if isinstance(given, Path) and folder is not None else given

    def __post_init__(self) -> None:
        self.reads: str | None = None
        self.writes: str | None = None
        self.captures = True  # the hot verb is pure arithmetic on the device: it may be part of a CUDA graph
        self._told: dict[str, Any] = {}

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Read the pictures, and make ready for planes of `given`.

        Raises
        ------
        StageError
            Where a picture cannot be read, is of another size, or is dark.
        """
        shape = given.shape[-2:]
        flat = self._read("flat", self.flat, shape)
        dark = self._read("dark", self.dark, shape) if isinstance(self.dark, Path) else np.float32(self.dark)
        light = flat - dark
        mean = float(light.mean())
        if not mean > 0:
            raise StageError(f'flat = "{self.flat}": it is not brighter than dark (mean {mean:g} counts above it)')
        gain = mean / np.maximum(light, self.least * mean)
        self._gain = torch.tensor(gain, dtype=torch.float32, device=device)
        self._dark = torch.tensor(np.broadcast_to(dark, shape), dtype=torch.float32, device=device)
        self._work = torch.zeros(given.shape, dtype=torch.float32, device=device)
        # A result of whole numbers has lost its NaN by rounding: pellucid looks at this one number instead.
        self.witness = torch.zeros((), device=device) if self.output == "uint16" else None
        weak = float((light < self.least * mean).mean())
        self._told = {"flat": str(self.flat), "dark": str(self.dark), "gain": [float(gain.min()), float(gain.max())]}
        self._told |= {"share_too_dark": round(weak, 6)}
        return Spec(given.shape, self.output, device, given.axes, given.facts)

    def _read(self, key: str, path: Path, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        try:
            image = tifffile.imread(path)
        except (OSError, ValueError, tifffile.TiffFileError) as error:
            raise StageError(f'{key} = "{path}": it cannot be read as a TIFF: {error}') from None
        while image.ndim > 2:  # frames of the same field
            image = image.mean(axis=0)
        if image.shape != shape:
            size = "x".join(map(str, image.shape[::-1]))
            raise StageError(
                f'{key} = "{path}": {size} pixels, and the frames have {shape[1]}x{shape[0]}. '
                "Take it with the same ROI and binning"
            )
        if not np.isfinite(image).all():
            raise StageError(f'{key} = "{path}": it holds NaN or infinity')
        return image.astype(np.float32)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result` from `given`; nothing is allocated."""
        work = self._work
        work.copy_(given)
        work.sub_(self._dark).mul_(self._gain)
        if self.witness is not None:
            torch.sum(work, dim=tuple(range(work.ndim)), out=self.witness)
            result.copy_(work.nan_to_num_().round_().clamp_(0, 65535))
        else:
            result.copy_(work)

    def describe(self) -> dict[str, Any]:
        """Return what stands beside the stage in the report and the recording."""
        return self._told

    def close(self) -> None:
        """Give everything back."""
        self._gain = self._dark = self._work = torch.zeros(0)


PELLUCID = {"stages": {"flatfield": FlatField}}
"""For a config that names this file: ``plugins = ["pellucid_flatfield/__init__.py"]``; a package needs no such line."""
