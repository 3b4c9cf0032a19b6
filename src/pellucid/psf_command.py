"""What ``pellucid psf measure``, ``model`` and ``show`` do: PSFs made, saved, looked at, with a picture beside each."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from pellucid.errors import ConfigError, StageError, did_you_mean
from pellucid.optics.bead_mean import mean_bead
from pellucid.optics.beads import find_beads
from pellucid.optics.measured import check
from pellucid.optics.objectives import GibsonLanni, Scalar, Vectorial
from pellucid.optics.psf_facts import PsfFacts, Theory, facts
from pellucid.optics.psf_file import Picture, read, write
from pellucid.optics.sectioning import Confocal, LightSheet
from pellucid.optics.widths import bead_free_um

__all__ = ["MODELS", "measure_psf", "model_psf", "show_psf"]

MODELS: dict[str, type] = {
    "scalar": Scalar,
    "gibson-lanni": GibsonLanni,
    "vectorial": Vectorial,
    "confocal": Confocal,
    "light-sheet": LightSheet,
}
Say = Callable[[str], None]


def measure_psf(
    image: Path,
    output: Path,
    *,
    pixel_um: float | None,
    z_um: float | None,
    theory: Theory | None,
    bead_um: float | None,
    size_px: int | None,
    planes: int | None,
    radial: bool,
    channel: int | None,
    say: Say,
) -> None:
    """Find beads, average them, and save the PSF with its picture.

    Raises
    ------
    ConfigError, StageError
        Where the picture has no usable beads, or an option is wrong.
    """
    _writable(output)
    for key, count in (("--size-px", size_px), ("--planes", planes)):
        if count is not None and count % 2 == 0:
            raise ConfigError(f"{key} {count}: is even; give an odd one, such as {count + 1}")
    picture = _one_channel(read(image, "image"), image, channel)
    picture = replace(picture, pixel_um=pixel_um or picture.pixel_um, z_um=z_um or picture.z_um)
    where = f'image = "{image}"'
    if picture.pixel_um is None:
        raise ConfigError(f"{where}: does not tell the size of its pixels. Add --pixel-um 0.1 (micrometres)")
    if picture.values.ndim == 3 and picture.z_um is None:
        raise ConfigError(f"{where}: does not tell the distance of its planes. Add --z-um 0.3 (micrometres)")
    values = picture.values
    check(values, where)
    for side, given, key in zip(
        values.shape[::-1], (size_px, size_px, planes), ("size-px", "size-px", "planes"), strict=False
    ):
        if given is not None and given > side:
            raise ConfigError(
                f"--{key} {given}: larger than the picture, {_size(values)}; give at most {(side - 1) | 1}"
            )
    beads = find_beads(values, size_px, planes)
    reasons = ", ".join(f"{count} {why}" for why, count in beads.left_out.items())
    if not len(beads.places):
        raise StageError(
            f"{where}: no bead can be used; left out: {reasons or 'nothing was found above the noise'}."
            " Take a field with single bright beads, or smaller windows (--size-px 31, --planes 15)"
        )
    found = mean_bead(values, beads, radial=radial)
    beads_word = "bead" if found.used == 1 else "beads"
    how = ", radially averaged" if radial else ""
    note = f"PSF measured from {found.used} {beads_word} of {image.name}{how}"
    _save(output, found.psf, picture.pixel_um, picture.z_um, note)
    say(f"beads        {found.used} used")
    for why, count in found.left_out.items():
        say(f"             {count} left out: {why}")
    if found.used < 5:
        say("             few beads: their noise stays in the PSF; 10 to 50 are better")
    if math.isfinite(found.noise):
        say(f"noise        {found.noise:.2%} of the peak{' before the radial average' if radial else ''}")
    _tell(output, say, theory=theory, bead_um=bead_um, title=note)


def model_psf(kind: str, keys: Mapping[str, Any], sets: list[str], output: Path, say: Say) -> None:
    """Compute a PSF from the figures of a microscope, and save it with its picture.

    Parameters
    ----------
    kind
        One of `MODELS`.
    keys
        Keys of its description, as in a config; None where they were not given. With ``z_um`` a stack is made.
    sets
        More of them as ``key=value``.

    Raises
    ------
    ConfigError
        Where a key is wrong.
    """
    _writable(output)
    if kind not in MODELS:
        raise ConfigError(f"--kind {kind}: no such model.{did_you_mean(kind, MODELS)} Allowed: {', '.join(MODELS)}")
    given = {key: value for key, value in keys.items() if value is not None}
    for change in sets:
        key, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: give key=value, such as --set depth_um=10")
        try:
            given[key.strip()] = tomllib.loads(f"v = {text.strip()}")["v"]
        except tomllib.TOMLDecodeError:
            given[key.strip()] = text.strip()
    try:
        model: Any = TypeAdapter(MODELS[kind]).validate_python(given)
    except ValidationError as error:
        raise ConfigError(_one_line(error, kind)) from None
    if model.pixel_um is None:
        raise ConfigError(
            "pellucid psf model: the size of a pixel is missing. Add --pixel-um 0.1 (micrometres in the specimen)"
        )
    stack = model.z_um is not None
    psf = model.sample(None, f"pellucid psf model --kind {kind}", model.z_um, model.planes if stack else None)
    note = f"PSF, {kind}: " + ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in given.items()
    )
    _save(output, psf, model.pixel_um, model.z_um, note)
    _tell(output, say, theory=Theory(model.na, model.wavelength_nm, model.index), title=note)


def show_psf(
    path: Path,
    picture_path: Path | None,
    *,
    pixel_um: float | None,
    z_um: float | None,
    theory: Theory | None,
    say: Say,
) -> None:
    """Say what a PSF in a file is and what is wrong with it, and draw it beside the file or where it is told to."""
    picture = read(path, "psf")
    picture = replace(picture, pixel_um=pixel_um or picture.pixel_um, z_um=z_um or picture.z_um)
    _tell(path, say, picture=picture, theory=theory, title=picture.note or path.name, target=picture_path)


def _tell(
    path: Path,
    say: Say,
    *,
    picture: Picture | None = None,
    theory: Theory | None = None,
    bead_um: float | None = None,
    title: str,
    target: Path | None = None,
) -> None:
    """Say the numbers of the PSF in `path`, and draw it beside."""
    from pellucid.psf_picture import psf_picture

    picture = read(path, "psf") if picture is None else picture
    found = facts(picture, f'psf = "{path}"')
    say(f"psf          {path}")
    say(f"shape        {_size(picture.values)} {picture.values.dtype}, sum {found.total:.6g}")
    apart = f", planes {_um(picture.z_um)} apart" if picture.values.ndim == 3 else ""
    say(f"pixel        {_um(picture.pixel_um)}{apart}")
    for axis in sorted(found.widths_px):
        say(f"FWHM {axis}       {found.width(axis)}{_beside(found, axis, theory, bead_um)}")
    off = ", ".join(f"{axis} {found.off_px[axis]:+.2f}" for axis in sorted(found.off_px))
    say(f"centre       {off} px off the middle of the frame")
    say(f"background   {found.level:.2%} of the peak, noise there {found.noise:.2%}")
    if bead_um:
        say(f"bead         {bead_um:g} um: not taken out of the PSF; 'without the bead' is what the width would be")
    for text in found.wrong or ["nothing that was found"]:
        say(f"wrong        {text}")
    if target is None:
        target = path.with_name(path.name.removesuffix(path.suffix).removesuffix(".ome") + ".png")
    try:
        psf_picture(found, target, title, _subtitle(found), theory)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the picture cannot be written to {target} ({error}); say where: -o psf.png") from None
    say(f"picture      {target}")


def _beside(found: PsfFacts, axis: str, theory: Theory | None, bead_um: float | None) -> str:
    step, width = found.step_um(axis), found.widths_px[axis]
    out = ""
    if bead_um and step and math.isfinite(width):
        out += f", without the bead {bead_free_um(width * step, bead_um):.3f} um"
    if theory is not None:
        out += f", ideal {theory.widths_um[axis]:.3f} um"
    return out


def _subtitle(found: PsfFacts) -> str:
    parts = [_size(found.psf) + " px", f"pixel {_um(found.picture.pixel_um)}"]
    if found.psf.ndim == 3:
        parts.append(f"planes {_um(found.picture.z_um)} apart")
    return ", ".join(parts)


def _um(um: float | None) -> str:
    return f"{um:.4g} um" if um else "of unknown size"


def _size(values: np.ndarray[Any, Any]) -> str:
    return "x".join(map(str, values.shape))


def _writable(output: Path) -> None:
    if output.suffix.lower() not in {".tif", ".tiff"}:
        raise ConfigError(f"-o {output}: a PSF is saved as TIFF; give a name that ends in .tif")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"-o {output}: there is no folder {output.absolute().parent}")


def _save(output: Path, psf: np.ndarray[Any, Any], pixel_um: float, z_um: float | None, note: str) -> None:
    try:
        write(output, psf, pixel_um, z_um, note)
    except OSError as error:
        raise ConfigError(f"-o {output}: cannot be written ({error.strerror}); give another place") from None


def _one_channel(picture: Picture, path: Path, channel: int | None) -> Picture:
    """Take one channel out of several."""
    at = picture.axes.find("C")
    if at < 0 and picture.values.ndim > 3:
        at = int(np.argmin(picture.values.shape[:-2]))
    if at < 0:
        if channel:
            raise ConfigError(f'--channel {channel}: image = "{path}" has one channel only')
        return picture
    count = picture.values.shape[at]
    if channel is None or not 0 <= channel < count:
        raise ConfigError(
            f'image = "{path}": {_size(picture.values)}, {count} channels; say which one: --channel 0'
            f"{f' to --channel {count - 1}' if count > 1 else ''}"
        )
    return replace(picture, values=picture.values.take(channel, at), axes=picture.axes.replace("C", ""))


def _one_line(error: ValidationError, kind: str) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(p) for p in first["loc"])
    names = [f.name for f in fields(MODELS[kind]) if f.name != "kind"]
    option = "--" + key.replace("_", "-")
    if first["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        near = did_you_mean(key, names)
        return f"{key} = {first['input']!r}: {kind} has no such key.{near} Allowed: {', '.join(names)}"
    if first["type"] in {"missing", "missing_argument"}:
        return f"pellucid psf model --kind {kind}: {option} is missing. Type: pellucid psf model --help"
    text = first["msg"].removeprefix("Value error, ")
    return f"{option} {first['input']}: {text[0].lower() + text[1:]}" if key else f"--kind {kind}: {text}"
