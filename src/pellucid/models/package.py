"""bioimage.io packages: a card (``rdf.yaml``) with weights and test tensors, in a folder or a zip.

The card's format is that of bioimage.io, versions 0.4 and 0.5. It is read here, so that models run without the
bioimageio packages; ``pellucid models verify`` asks those as well where they are installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pellucid.errors import StageError
from pellucid.models.archive import unpack
from pellucid.models.content import hash_files, hash_model
from pellucid.models.model import Form, Model, Operation, Port, Side
from pellucid.models.onnx_file import MOST_CHANNELS, TYPES, look_into

__all__ = ["CARDS", "OPERATIONS", "read_package"]

CARDS = ("rdf.yaml", "bioimageio.yaml")
OPERATIONS = (
    "binarize",
    "clip",
    "ensure_dtype",
    "fixed_zero_mean_unit_variance",
    "scale_linear",
    "scale_mean_variance",
    "scale_range",
    "sigmoid",
    "softmax",
    "zero_mean_unit_variance",
)
_FORMS: dict[str, Form] = {"onnx": "onnx", "torchscript": "torchscript"}
_LONG = {"batch": "b", "channel": "c", "index": "b"}


def read_package(path: Path) -> Model:
    """Describe a package.

    Parameters
    ----------
    path
        A folder with a card, the card itself, or a zip; a zip is unpacked into the cache.

    Raises
    ------
    StageError
        One line: a card that is not one, files that are missing or elsewhere or not those that the card means, more
        than one input or output, an operation that is not known, weights in no form that can be run.
    """
    where = f"model {path}"
    try:
        return _package(path, where)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A card is anybody's text: a word where a number is due, a row that is no table.
        told = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise StageError(f"{where}: its card has a value that cannot be used ({told})") from None


def _package(path: Path, where: str) -> Model:
    if path.suffix.lower() in (".zip", ".czann") and path.is_file():
        path = unpack(path, where)
    if path.is_dir():
        card_file = next((path / name for name in CARDS if (path / name).is_file()), None)
        if card_file is None:
            raise StageError(f"{where}: has no {' or '.join(CARDS)}; it is not a bioimage.io package")
    else:
        card_file = path
    card = _read_card(card_file, where)
    home = card_file.parent
    given_row, result_row = _one(card, "inputs", where), _one(card, "outputs", where)
    ours = _table(_table(card.get("config")).get("pellucid"))
    given = _port(given_row, where, "input")
    result = _port(result_row, where, "output", given)
    weights, sums = _weights(card, home, where)
    before = _operations(given_row.get("preprocessing"), where)
    after = _operations(result_row.get("postprocessing"), where)
    if ours.get("as_given"):
        after = (*after, Operation("as_given"))
    halo: tuple[int, ...] = tuple(int(n) for n in ours.get("halo") or ())
    told = _halo(result_row, _scale(result_row, ours, where))
    scale = _scale(result_row, ours, where)
    if "onnx" in weights:
        looked = look_into(weights["onnx"], (given.axes, result.axes))
        given, result = _agree(given, looked.given, where), _agree(result, looked.result, where)
        halo = halo or _larger(told, looked.halo or ())
        if looked.scale != scale:
            raise StageError(f"{where}: its card says {scale} pixels of one, its ONNX file gives {looked.scale}")
    else:
        from pellucid.models.torch_file import look_into_exported, look_into_torchscript

        for form, look in (("torchscript", look_into_torchscript), ("exported", look_into_exported)):
            if form in weights:
                look(weights[form])
    halo = halo or told
    if halo and len(halo) != given.ndim:
        halo = (max(halo),) * given.ndim
    frames = int(ours.get("frames") or 1)
    samples = _samples(card, given_row, result_row, home, where)
    return Model(
        name=str(card.get("name") or card_file.parent.name),
        weights=weights,
        sha256=hash_model(sums, given, result, before, after, scale, frames),
        given=given,
        result=result,
        before=before,
        after=after,
        scale=scale,
        halo=halo,
        frames=frames,
        card=_shown(card, ours, home),
        samples=samples,
    )


def _read_card(file: Path, where: str) -> dict[str, Any]:
    try:
        card = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        told = str(error).strip().splitlines()[0][:100]
        raise StageError(f"{where}: its card {file.name} cannot be read: {told}") from None
    if not isinstance(card, dict) or card.get("type") != "model":
        kind = card.get("type") if isinstance(card, dict) else type(card).__name__
        raise StageError(f'{where}: its card {file.name} is of type "{kind}"; type: model is needed')
    version = str(card.get("format_version", ""))
    if not version.startswith(("0.4.", "0.5.")):
        raise StageError(f'{where}: format_version "{version}"; 0.4 and 0.5 are read')
    return card


def _table(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}


def _one(card: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    rows = card.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StageError(f"{where}: its card has no {key}")
    if len(rows) != 1:
        raise StageError(f"{where}: has {len(rows)} {key}; a network of one input and one output is needed")
    row: Mapping[str, Any] = rows[0]
    return row


def _port(row: Mapping[str, Any], where: str, which: str, like: Port | None = None) -> Port:
    name = str(row.get("id") or row.get("name") or which)
    axes, channels = "", 1
    sides: dict[str, Side] = {}
    if isinstance(row.get("axes"), str):  # 0.4
        axes = row["axes"].replace("i", "b").replace("t", "b")
        shape = row.get("shape")
        sides, channels = _old_shape(axes, shape, like)
        dtype = str(row.get("data_type", "float32"))
    else:
        for axis in row.get("axes") or ():
            kind = str(_table(axis).get("type", ""))
            letter = _LONG.get(kind) or str(_table(axis).get("id") or "x")  # the format's default
            if letter not in ("b", "c", "z", "y", "x") or letter in axes:
                raise StageError(f'{where}: its {which} has an axis "{letter or kind}"; b, c, z, y and x are known')
            axes += letter
            if letter == "c":
                names = _table(axis).get("channel_names")
                size = _table(axis).get("size")
                channels = len(names) if isinstance(names, list) else int(size) if isinstance(size, int) else 1
            elif letter != "b":
                sides[letter] = _side(_table(axis).get("size"), letter, _table(axis), like)
        data = row.get("data")
        dtype = str(_table(data[0] if isinstance(data, list) and data else data).get("type", "float32"))
    if not {"y", "x"} <= set(axes):
        raise StageError(f'{where}: its {which} has the axes "{axes}"; y and x are needed')
    if dtype not in TYPES:
        raise StageError(f"{where}: its {which} is of {dtype}; {', '.join(TYPES)} are taken")
    if not 1 <= channels <= MOST_CHANNELS:
        raise StageError(f"{where}: its {which} has {channels} channels; 1 to {MOST_CHANNELS} are taken")
    return Port(name, axes, dtype, channels, tuple(sides[a] for a in "zyx" if a in axes))


def _side(size: Any, letter: str, axis: Mapping[str, Any], like: Port | None) -> Side:
    if isinstance(size, int):
        return Side(size, 0)
    if isinstance(size, dict) and "min" in size:
        return Side(int(size["min"]), int(size.get("step", 1)))
    if isinstance(size, dict) and like is not None and "axis_id" in size and str(size["axis_id"]) in like.axes:
        times = max(round(1 / float(axis.get("scale") or 1.0)), 1)
        at = [a for a in "zyx" if a in like.axes].index(str(size["axis_id"]))
        return Side(like.sides[at].least * times, like.sides[at].step * times)
    return Side()


def _old_shape(axes: str, shape: Any, like: Port | None) -> tuple[dict[str, Side], int]:
    sides: dict[str, Side] = {}
    channels = 1
    least: Sequence[Any]
    step: Sequence[Any]
    if isinstance(shape, dict) and "min" in shape:
        least, step = shape["min"], shape.get("step") or [1] * len(axes)
    elif isinstance(shape, list):
        least, step = shape, [0] * len(axes)
    else:
        reference = _table(shape)
        factors = reference.get("scale") or [1] * len(axes)
        offsets = reference.get("offset") or [0] * len(axes)
        for axis, factor, offset in zip(axes, factors, offsets, strict=False):
            if axis == "c":
                channels = round(like.channels * float(factor) + 2 * float(offset)) if like and factor else 1
            elif axis != "b" and like is not None and axis in like.axes:
                at = [a for a in "zyx" if a in like.axes].index(axis)
                times = max(round(float(factor)), 1)
                sides[axis] = Side(like.sides[at].least * times, like.sides[at].step * times)
        return sides, channels
    for axis, n, by in zip(axes, least, step, strict=False):
        if axis == "c":
            channels = int(n)
        elif axis != "b":
            sides[axis] = Side(int(n), int(by))
    return sides, channels


def _weights(card: Mapping[str, Any], home: Path, where: str) -> tuple[dict[Form, Path], str]:
    rows = _table(card.get("weights"))
    found: dict[Form, Path] = {}
    for kind, form in _FORMS.items():
        if isinstance(rows.get(kind), dict):
            found[form] = _file(rows[kind], home, where, f"weights.{kind}")
    ours = _table(_table(_table(card.get("config")).get("pellucid")).get("exported"))
    if ours:
        found["exported"] = _file(ours, home, where, "config.pellucid.exported")
    if not found:
        raise StageError(
            f"{where}: its weights come as {', '.join(rows) or 'nothing'} only; onnx or torchscript is needed, since "
            "other forms run foreign code when they are loaded. Choose a package that has one, or convert it"
        )
    return found, hash_files([found[form] for form in sorted(found)])


def _file(row: Any, home: Path, where: str, key: str) -> Path:
    """Return a file that the card names, inside the package and unchanged."""
    source = row.get("source") if isinstance(row, dict) else row
    if not isinstance(source, str) or not source:
        raise StageError(f"{where}: {key} names no file")
    if "://" in source:
        raise StageError(f"{where}: {key} lies at {source[:80]}. Fetch the whole package first, as a zip")
    file = home / source
    if ":" in source or not file.resolve().is_relative_to(home.resolve()):
        raise StageError(f'{where}: {key} is "{source}", outside of the package; that is not opened')
    if not file.is_file():
        raise StageError(f"{where}: {key} is {source}, which is not in the package")
    wanted = row.get("sha256") if isinstance(row, dict) else None
    if wanted and hash_files([file]) != str(wanted):
        raise StageError(f"{where}: {source} is not what its card means (another SHA-256). Fetch the package again")
    return file


def _operations(rows: Any, where: str) -> tuple[Operation, ...]:
    found = []
    for row in rows or ():
        name = str(_table(row).get("id") or _table(row).get("name") or "")
        keys = dict(_table(_table(row).get("kwargs")))
        if name not in OPERATIONS and name != "ensure_dtype":
            raise StageError(f'{where}: wants the operation "{name}"; known are {", ".join(OPERATIONS)}')
        if name == "zero_mean_unit_variance" and keys.pop("mode", "") == "fixed":
            name = "fixed_zero_mean_unit_variance"
        found.append(Operation(name, keys))
    return tuple(found)


def _scale(row: Mapping[str, Any], ours: Mapping[str, Any], where: str) -> int:
    if ours.get("scale"):
        return int(ours["scale"])
    factors = []
    if isinstance(row.get("axes"), str):
        reference = _table(row.get("shape")).get("scale") or []
        factors = [float(f) for a, f in zip(row["axes"], reference, strict=False) if a in "yx"]
    else:
        factors = [1 / float(_table(a).get("scale") or 1.0) for a in row["axes"] if _table(a).get("id") in ("y", "x")]
    if not factors:
        return 1
    if len(set(factors)) != 1 or factors[0] < 1 or not math.isclose(factors[0], round(factors[0])):
        raise StageError(f"{where}: makes {factors[0]:g} pixels of one; a whole number of times more is taken")
    return round(factors[0])


def _halo(row: Mapping[str, Any], scale: int) -> tuple[int, ...]:
    """Return what the card says, in pixels of what is given."""
    if isinstance(row.get("axes"), str):
        told = [int(n) for a, n in zip(row["axes"], row.get("halo") or (), strict=False) if a in "zyx"]
    else:
        told = [int(_table(a).get("halo") or 0) for a in row["axes"] if _table(a).get("type") == "space"]
    return tuple(-(-n // scale) for n in told) if any(told) else ()


def _agree(card: Port, file: Port, where: str) -> Port:
    """Return the card's port with the file's name for it; sizes are the file's where it fixes them."""
    if card.channels != file.channels or card.dtype != file.dtype:
        raise StageError(
            f"{where}: {card.name} has {card.channels} channels of {card.dtype} in its card, "
            f"{file.channels} of {file.dtype} in its ONNX file"
        )
    sides = tuple(f if f.step == 0 else c for c, f in zip(card.sides, file.sides, strict=True))
    return Port(file.name, card.axes, card.dtype, card.channels, sides)


def _larger(told: tuple[int, ...], seen: tuple[int, ...]) -> tuple[int, ...]:
    """Return for each axis the larger of the card's halo and of what the graph can see."""
    if not told or not seen:
        return told or seen
    told = told if len(told) == len(seen) else (max(told),) * len(seen)
    return tuple(max(a, b) for a, b in zip(told, seen, strict=True))


def _samples(
    card: Mapping[str, Any], given: Mapping[str, Any], result: Mapping[str, Any], home: Path, where: str
) -> tuple[Path, ...]:
    """Return the test tensors, in 0.4 lists at the top of the card; empty where there are none."""
    rows = [row.get("test_tensor") for row in (given, result)]
    if not any(rows):
        lists = [card.get(key) for key in ("test_inputs", "test_outputs")]
        rows = [some[0] if isinstance(some, list) and len(some) == 1 else None for some in lists]
    if not all(rows):
        return ()
    files = tuple(_file(row, home, where, "test_tensor") for row in rows)
    return files if all(f.suffix == ".npy" for f in files) else ()


def _shown(card: Mapping[str, Any], ours: Mapping[str, Any], home: Path) -> dict[str, Any]:
    authors = [str(_table(a).get("name", "")) for a in card.get("authors") or () if isinstance(a, dict)]
    cite = [str(_table(c).get("text") or _table(c).get("doi") or "") for c in card.get("cite") or ()]
    return {
        "description": str(card.get("description", "")),
        "licence": str(card.get("license", "")),
        "authors": authors,
        "cite": cite,
        "documentation": str(home / str(card.get("documentation", ""))) if card.get("documentation") else "",
        "trained": dict(_table(ours.get("trained"))),
    }
