"""A PSF as one PNG: its three sections on a logarithmic scale, its profiles, its widths; no screen is needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.optics.psf_facts import PsfFacts, Theory
from pellucid.picture import BACK, FRAME, MUTED, TEXT, _drawable, _font, _scale_bar

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

__all__ = ["psf_picture"]

SECTIONS, MARGIN, GAP, HEAD, CAPTION = 560, 28, 16, 58, 26
PROFILE_WIDE, PROFILE_HIGH, FOOT = 440, 210, 40
DECADES = 4
SMOOTH = 3
"""Profiles are drawn so many times larger and made smaller: pillow's lines have steps."""
COLOURS = {"x": FRAME, "y": "#e0a458", "z": "#9a8cd8"}

Image = np.ndarray[Any, Any]


def psf_picture(
    found: PsfFacts, path: Path | str, title: str, subtitle: str = "", theory: Theory | None = None
) -> None:
    """Write the picture.

    Parameters
    ----------
    found
        From `pellucid.optics.psf_facts.facts`; the PSF is shown as it would be used.
    path
        Of the PNG.
    title, subtitle
        Two lines over it.
    theory
        Its widths are written beside the measured ones.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    psf = found.psf if found.psf.ndim == 3 else found.psf[None]
    planes, height, width = psf.shape
    um = found.picture.pixel_um
    deep = planes * (found.picture.z_um / um if um and found.picture.z_um else 1.0) if planes > 1 else 0.0
    zoom = min((SECTIONS - GAP * bool(deep)) / (max(width, height) + deep), 24.0)
    wide, high, depth = (max(1, round(n * zoom)) for n in (width, height, deep))
    block = wide + (GAP + depth if deep else 0), high + (CAPTION + depth if deep else 0)
    left, top = MARGIN, HEAD + CAPTION
    axes = ["x", "y"] + (["z"] if deep else [])
    right = left + max(block[0], 300) + 3 * GAP
    panels = 2 if deep else 1
    bottom = top + max(block[1], panels * (PROFILE_HIGH + 2 * CAPTION) - CAPTION)
    page = Pillow.new("RGB", (right + PROFILE_WIDE + MARGIN, bottom + FOOT + MARGIN // 2), BACK)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 22), _drawable(title), TEXT, _font(18), anchor="lm")
    draw.text((MARGIN, 46), _drawable(subtitle), MUTED, _font(14), anchor="lm")

    middle = planes // 2, height // 2, width // 2
    sections = [("xy", psf[middle[0]], (left, top), (wide, high))]
    if deep:
        sections.append(("zy", psf[:, :, middle[2]].T, (left + wide + GAP, top), (depth, high)))
        sections.append(("xz", psf[:, middle[1]], (left, top + high + CAPTION), (wide, depth)))
    for name, plane, corner, size in sections:
        grey = Pillow.fromarray(_shades(plane, float(psf.max())))
        page.paste(grey.resize(size, Pillow.Resampling.NEAREST), corner)
        draw.text((corner[0], corner[1] - 7), name, MUTED, _font(14), anchor="ls")
    if um:
        _scale_bar(draw, (left + wide, top + high), wide, um / zoom)
    if deep:  # the corner between the sections is free for what the shades mean
        _key(page, draw, (left + wide + GAP, top + high + CAPTION), min(depth, 130))

    groups = [(["x", "y"], um, "um" if um else "px")]
    if deep:
        z_um = found.picture.z_um
        groups.append((["z"], z_um, "um" if z_um else "planes"))
    for row, (names, step, unit) in enumerate(groups):
        corner = (right, top + row * (PROFILE_HIGH + 2 * CAPTION))
        _profiles(page, draw, corner, {a: _line(psf, a, middle) for a in names}, step or 1.0, unit)
        words = [(f"{a}  FWHM {found.width(a)}", COLOURS[a]) for a in names]
        x = float(right)
        for text, colour in words:
            draw.text((x, corner[1] - 7), text, colour, _font(14), anchor="ls")
            x += draw.textlength(text, _font(14)) + 18
    said = [f"sections: logarithmic, {DECADES} decades below the peak; profiles: linear, dots are pixels"]
    if theory is not None:
        ideal = theory.widths_um
        said.append(
            f"ideal FWHM (NA {theory.na:g}, {theory.wavelength_nm:g} nm, index {theory.index:g}): "
            + ", ".join(f"{a} {ideal[a]:.3f} um" for a in axes)
        )
    for row, text in enumerate(reversed(said)):
        draw.text((MARGIN, page.height - 18 - 20 * row), _drawable(text), MUTED, _font(14), anchor="lm")
    page.save(path, "PNG", optimize=False)


def _shades(plane: Image, peak: float) -> Image:
    light = np.maximum(plane.astype(np.float64) / peak, 10.0**-DECADES)
    return np.asarray(np.rint((np.log10(light) / DECADES + 1) * 255), np.uint8)


def _key(page: Any, draw: ImageDraw, corner: tuple[int, int], height: int) -> None:
    """Draw the scale of greys."""
    from PIL import Image as Pillow

    if height < 60:
        return
    ramp = np.linspace(255, 0, height).astype(np.uint8)[:, None].repeat(14, 1)
    page.paste(Pillow.fromarray(ramp), corner)
    draw.rectangle([corner[0] - 1, corner[1] - 1, corner[0] + 14, corner[1] + height], outline=MUTED)
    for decade in range(DECADES + 1):
        y = corner[1] + decade * (height - 1) / DECADES
        text = "peak" if decade == 0 else f"1/{10**decade}" if decade < 4 else f"1/{10**decade // 1000}k"
        draw.text((corner[0] + 22, y), text, MUTED, _font(12), anchor="lm")


def _line(psf: Image, axis: str, middle: tuple[int, int, int]) -> Image:
    at: list[Any] = list(middle)
    at["zyx".index(axis)] = slice(None)
    return np.asarray(psf[tuple(at)], np.float64)


def _profiles(
    page: Any, draw: ImageDraw, corner: tuple[int, int], lines: dict[str, Image], step: float, unit: str
) -> None:
    """Draw lines through the middle over the distance from it, their peak at 1, and where half is."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    wide, high = PROFILE_WIDE, PROFILE_HIGH
    # Where nothing is left to see is cut: 99% of the light of the line, at least 6 samples.
    reach = max(_reach(line) for line in lines.values())
    span = reach * step
    room = Pillow.new("RGB", (wide * SMOOTH, high * SMOOTH), "#11151a")
    pen = ImageDraw.Draw(room)

    def place(x: float, y: float) -> tuple[float, float]:
        return (x / span + 1) / 2 * wide * SMOOTH, (1 - (y + 0.04) / 1.12) * high * SMOOTH

    for level, shade in ((0.0, "#2a323b"), (0.5, "#3a4550")):
        pen.line([place(-span, level), place(span, level)], shade, SMOOTH)
    tick = _tick(span)
    for n in range(-int(span / tick), int(span / tick) + 1):
        pen.line([place(n * tick, -0.04), place(n * tick, 0.0)], "#3a4550", SMOOTH)
    for axis, line in lines.items():
        at, value = _finer(line, reach)
        thick = 5 if axis == "x" else 2  # y often lies upon it
        points = [place(a * step, v) for a, v in zip(at, value, strict=True)]
        pen.line(points, COLOURS[axis], thick * SMOOTH, joint="curve")
        for n in range(-reach, reach + 1):
            i = line.size // 2 + n
            if 0 <= i < line.size:
                x, y = place(n * step, line[i] / line.max())
                pen.ellipse([x - 3 * SMOOTH, y - 3 * SMOOTH, x + 3 * SMOOTH, y + 3 * SMOOTH], fill=COLOURS[axis])
    page.paste(room.resize((wide, high), Pillow.Resampling.BOX), corner)
    draw.text((corner[0] + wide - 6, corner[1] + place(0, 0.5)[1] / SMOOTH - 2), "half", MUTED, _font(12), anchor="rs")
    for n in range(-int(span / tick), int(span / tick) + 1):
        x = corner[0] + place(n * tick, 0)[0] / SMOOTH
        if corner[0] + 12 < x < corner[0] + wide - 34:
            draw.text((x, corner[1] + high + 4), f"{n * tick:g}", MUTED, _font(12), anchor="mt")
    draw.text((corner[0] + wide, corner[1] + high + 4), unit, MUTED, _font(12), anchor="rt")


def _reach(line: Image) -> int:
    middle = line.size // 2
    light = np.abs(line)
    away = np.bincount(abs(np.arange(line.size) - middle), light)
    enough = np.flatnonzero(np.cumsum(away) >= 0.99 * light.sum())
    return int(min(middle, max(6, enough[0] + 2)))


def _finer(line: Image, reach: int) -> tuple[Image, Image]:
    """Interpolate a line by its waves, as the widths are measured."""
    from pellucid.optics.resample import resampled

    count = min(2 * reach * 8, 2 * (line.size // 2) * 8) + 1
    return np.arange(count) / 8 - (count // 2) / 8, resampled(
        line, (line.size // 2 + 1e-6,), (count,), (1 / 8,), (False,)
    ) / float(line.max())


def _tick(span: float) -> float:
    power = 10.0 ** math.floor(math.log10(span))
    return next(s * power for s in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (s * power) <= 5)
