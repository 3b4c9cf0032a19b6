"""A frame before and after as inline pictures: the same contrast, the same field, a scale bar, a part magnified."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.picture import busiest_area, robust_limits, scale_bar_um
from pellucid.report_page.pictures import Pair
from pellucid.report_page.svg import Markup, el

__all__ = ["Shown", "show"]

_SIDE = 512
"""Pixels of a picture at most, along its longer side."""
_CLOSE = 110
"""Pixels of what is magnified at most: each is seen."""
_ALIKE = 4.0
"""Ranges that differ by more than this would leave one of two pictures black at the same contrast."""

Picture = NDArray[Any]


@dataclass(frozen=True)
class Shown:
    """What is shown of a frame.

    Parameters
    ----------
    halves
        For raw and, where it is there, restored: the whole picture and the magnified part of it.
    limits
        Of each.
    same
        Both have the same limits.
    """

    halves: tuple[tuple[Markup, Markup], ...]
    limits: tuple[tuple[float, float], ...]
    same: bool


def show(pair: Pair, name: str) -> Shown:
    """Draw a frame; `name` is for whoever cannot see it."""
    planes = [pair.raw] + ([pair.restored] if pair.restored is not None else [])
    limits = [robust_limits(_finite(plane)) for plane in planes]
    spans = [high - low for low, high in limits]
    same = max(spans) <= _ALIKE * min(spans)
    if same:
        both = min(low for low, _ in limits), max(high for _, high in limits)
        limits = [both] * len(planes)
    grey = pair.raw if pair.raw.ndim == 2 else pair.raw.mean(-1)
    top, left, rows, columns = busiest_area(grey)
    height, width = grey.shape
    field = left / width, top / height, columns / width, rows / height
    halves = tuple(
        _half(plane, limit, field, um, f"{name}, {what}")
        for plane, limit, um, what in zip(planes, limits, pair.pixel_um, ("raw", pair.plane), strict=False)
    )
    return Shown(halves, tuple(limits), same)


def _half(
    plane: Picture, limits: tuple[float, float], field: tuple[float, float, float, float], um: float | None, name: str
) -> tuple[Markup, Markup]:
    eight = _eight_bits(plane, limits)
    height, width = eight.shape[:2]
    x, y, wide, high = field[0] * width, field[1] * height, field[2] * width, field[3] * height
    # A frame of one height beside all pictures: what is drawn over them is in its units.
    scale = 512 / width
    whole = el(
        "svg",
        el("title", name),
        el("image", href=_png(eight, _SIDE), width=512, height=height * scale),
        el("rect", class_="field", x=x * scale, y=y * scale, width=wide * scale, height=high * scale),
        _bar(512, height * scale, um * width / 512 if um else None),
        viewBox=f"0 0 512 {height * scale:.0f}",
        role="img",
        class_="picture",
    )
    part = eight[round(y) : round(y + high), round(x) : round(x + wide)]
    tall = 512 * part.shape[0] / max(part.shape[1], 1)
    close = el(
        "svg",
        el("title", f"{name}, magnified"),
        el("image", class_="pixels", href=_png(part, 4 * _CLOSE), width=512, height=tall),
        _bar(512, tall, um * part.shape[1] / 512 if um else None),
        viewBox=f"0 0 512 {tall:.0f}",
        role="img",
        class_="picture close",
    )
    return whole, close


def _bar(width: float, height: float, um: float | None) -> Markup | None:
    """Return a scale bar in the corner; `um` is the size of a unit of the frame."""
    if um is None or not um > 0:
        return None
    length_um, label = scale_bar_um(um * width * 0.28)
    long = length_um / um
    right, bottom = width - 16, height - 16
    return el(
        "g",
        el("rect", class_="bar-edge", x=right - long - 2, y=bottom - 8, width=long + 4, height=10.0),
        el("rect", class_="bar", x=right - long, y=bottom - 6, width=long, height=6.0),
        el("text", label, class_="bar-text", x=right - long / 2, y=bottom - 14, text_anchor="middle"),
        aria_label=f"scale bar {label}",
    )


def _finite(plane: Picture) -> Picture:
    return plane if plane.dtype.kind != "f" else np.nan_to_num(plane, posinf=0.0, neginf=0.0)


def _eight_bits(plane: Picture, limits: tuple[float, float]) -> NDArray[np.uint8]:
    shade = (_finite(plane).astype(np.float32) - limits[0]) / (limits[1] - limits[0])
    eight: NDArray[np.uint8] = np.rint(np.clip(shade, 0, 1) * 255).astype(np.uint8)
    return eight


def _png(plane: NDArray[np.uint8], most: int) -> str:
    """Return the address of a picture that is within the page."""
    from PIL import Image

    image = Image.fromarray(plane)
    zoom = most / max(image.size)
    if zoom < 1:
        image = image.resize([max(1, round(side * zoom)) for side in image.size], Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
