"""A raw and a restored frame side by side as one PNG; neither screen nor GPU is needed.

Each half has its own limits, robust percentiles that are stated in the picture, since a restored frame has
another range of values. Both halves have the same scale, and the lower row magnifies one same area of
both: that with the largest local variance of the raw frame, so that nobody has picked it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["before_after", "busiest_area", "robust_limits", "scale_bar_um"]

PANE = 640
MARGIN, GAP, HEAD, CAPTION, FOOT = 28, 14, 64, 34, 30
BACK, TEXT, MUTED, FRAME = "#0b0d10", "#dfe4ea", "#8b96a3", "#6cc3b8"
LOW, HIGH = 0.1, 99.9

Plane = np.ndarray[Any, Any]


def before_after(
    raw: Plane,
    restored: Plane,
    path: Path | str,
    *,
    pixel_um: float | None = None,
    title_left: str = "raw",
    title_right: str = "restored",
    subtitle: str = "",
) -> None:
    """Write the two planes side by side, whole and magnified.

    Parameters
    ----------
    raw, restored
        ``(y, x)``, any real type, or ``(z, y, x)``, which is shown as its brightest projection along z. They may be
        sampled differently, and then show the same field.
    path
        Of the PNG.
    pixel_um
        Size of a pixel of the raw plane in micrometres; without it no scale bar is drawn.
    title_left, title_right
        Over the halves.
    subtitle
        One line over all.

    Raises
    ------
    ValueError
        Where a plane is no picture.
    """
    from PIL import Image, ImageDraw

    planes = [_flat(raw, "raw"), _flat(restored, "restored")]
    height, width = planes[0].shape
    zoom = PANE / max(width, height)
    whole = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    top, left, rows, columns = busiest_area(planes[0])
    close_zoom = whole[0] / columns
    close = (whole[0], max(1, round(rows * close_zoom)))

    head = HEAD if subtitle else MARGIN
    size = (2 * MARGIN + GAP + 2 * whole[0], head + CAPTION + whole[1] + GAP + close[1] + FOOT + MARGIN // 2)
    page = Image.new("RGB", size, BACK)
    draw = ImageDraw.Draw(page)
    if subtitle:
        draw.text((MARGIN, HEAD / 2), _drawable(subtitle), TEXT, _font(17), anchor="lm")
    for half, (plane, title) in enumerate(zip(planes, (title_left, title_right), strict=True)):
        x = MARGIN + half * (whole[0] + GAP)
        y = head + CAPTION
        limits = robust_limits(plane)
        grey = Image.fromarray(_eight_bits(plane, limits))
        fine = plane.shape[1] / width, plane.shape[0] / height
        area = (left * fine[0], top * fine[1], (left + columns) * fine[0], (top + rows) * fine[1])
        draw.text((x, y - 9), _drawable(title), FRAME if half else TEXT, _font(18), anchor="ls")
        shown = _range(limits)
        draw.text((x + whole[0], y - 9), shown, MUTED, _font(14), anchor="rs")
        page.paste(grey.resize(whole, _resampling(whole[0] / plane.shape[1])), (x, y))
        # Pixels stay squares where they are magnified: interpolating would restore the raw half a little too.
        page.paste(grey.resize(close, Image.Resampling.NEAREST, box=area), (x, y + whole[1] + GAP))
        box = [x + left * zoom, y + top * zoom, x + (left + columns) * zoom - 1, y + (top + rows) * zoom - 1]
        draw.rectangle(box, outline=FRAME, width=2)
        below = y + whole[1] + GAP
        draw.rectangle([x, below, x + close[0] - 1, below + close[1] - 1], outline=FRAME, width=2)
        if pixel_um:
            _scale_bar(draw, (x + whole[0], y + whole[1]), whole[0], pixel_um / zoom)
            _scale_bar(draw, (x + close[0], below + close[1]), close[0], pixel_um / close_zoom)
    note = f"{width} x {height} pixels; each half between its percentiles {LOW} and {HIGH}; below x {close_zoom:.3g}"
    draw.text((MARGIN, size[1] - FOOT / 2 - 4), note, MUTED, _font(14), anchor="lm")
    page.save(path, "PNG", optimize=False)


def busiest_area(plane: Plane, share: float = 0.2) -> tuple[int, int, int, int]:
    """Find the area twice as wide as high in which the plane varies most.

    Parameters
    ----------
    plane
        ``(y, x)``. Values beyond the robust limits count as the limits, so that a hot pixel draws no one.
    share
        Width of the area in widths of the plane.

    Returns
    -------
    top, left, rows, columns : int
        In pixels; the first of equals.
    """
    columns = min(plane.shape[1], max(16, round(plane.shape[1] * share)))
    rows = min(plane.shape[0], max(8, columns // 2))
    values = np.clip(np.nan_to_num(plane.astype(np.float64)), *robust_limits(plane))
    values -= values.mean()
    area = rows * columns
    variance = _box_sums(values**2, rows, columns) / area - (_box_sums(values, rows, columns) / area) ** 2
    top, left = np.unravel_index(int(np.argmax(variance)), variance.shape)
    return int(top), int(left), rows, columns


def robust_limits(plane: Plane, low: float = LOW, high: float = HIGH) -> tuple[float, float]:
    """Return percentiles of the finite values, never equal; ``(0, 1)`` where nothing is finite."""
    values = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane.ravel()
    if values.size == 0:
        return 0.0, 1.0
    black, white = (float(v) for v in np.percentile(values, (low, high)))
    if white <= black:
        black, white = float(values.min()), float(values.max())
    return black, white if white > black else black + 1.0


def scale_bar_um(at_most_um: float) -> tuple[float, str]:
    """Return the longest of 1, 2, 5 x 10^n micrometres that is not longer than `at_most_um`, and its label.

    Examples
    --------
    >>> scale_bar_um(37.0)
    (20.0, '20 µm')
    >>> scale_bar_um(0.3)
    (0.2, '200 nm')
    """
    power = 10.0 ** math.floor(math.log10(at_most_um))
    length = next(step * power for step in (5.0, 2.0, 1.0) if step * power <= at_most_um or step == 1.0)
    units = (("mm", 1e3), ("µm", 1.0), ("nm", 1e-3))
    unit, um = next((pair for pair in units if length >= pair[1] * 0.999), units[-1])
    return length, f"{length / um:.4g} {unit}"


def _flat(plane: Plane, name: str) -> Plane:
    if plane.ndim == 3:
        plane = plane.max(axis=0)
    if plane.ndim != 2 or plane.size == 0 or plane.dtype.kind not in "buif":
        raise ValueError(f"{name}: a plane (y, x) or a stack (z, y, x) of real numbers is wanted, not {plane.shape}")
    return plane


def _eight_bits(plane: Plane, limits: tuple[float, float]) -> Plane:
    shade = (np.nan_to_num(plane.astype(np.float64), nan=limits[0]) - limits[0]) / (limits[1] - limits[0])
    return np.rint(np.clip(shade, 0, 1) * 255).astype(np.uint8)


def _box_sums(values: Plane, rows: int, columns: int) -> Plane:
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    table[1:, 1:] = values.cumsum(0).cumsum(1)
    return table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]


def _resampling(zoom: float) -> Any:
    from PIL.Image import Resampling

    return Resampling.BOX if zoom < 1 else Resampling.BICUBIC if zoom % 1 else Resampling.NEAREST


def _scale_bar(draw: ImageDraw, corner: tuple[float, float], width: float, um: float) -> None:
    length_um, label = scale_bar_um(um * width * 0.25)
    x1, y1 = corner[0] - 14, corner[1] - 14
    x0 = x1 - length_um / um
    draw.rectangle([x0 - 1, y1 - 5, x1 + 1, y1 + 1], fill="black")  # readable on a bright picture as well
    draw.rectangle([x0, y1 - 4, x1, y1], fill="white")
    draw.text(
        ((x0 + x1) / 2, y1 - 9), _drawable(label), "white", _font(15), anchor="ms", stroke_width=2, stroke_fill="black"
    )


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)  # the one that pillow carries, so that every computer draws the same


def _drawable(text: str) -> str:
    """Write what pillow's own font lacks in letters that it has."""
    return text.translate({0xB5: "u", 0x3BC: "u", 0x2013: "-", 0x2014: "-", 0xD7: "x", 0xB2: "2", 0xB0: " deg"})


def _range(limits: tuple[float, float]) -> str:
    """Write limits with as many digits as their distance deserves."""
    digits = max(0, 2 - math.floor(math.log10(limits[1] - limits[0])))
    texts = [f"{round(value, digits) + 0.0:,.{digits}f}".replace(",", " ") for value in limits]  # + 0.0: no "-0"
    return " to ".join(texts)
