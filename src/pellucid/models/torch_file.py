"""TorchScript and ``torch.export`` files, looked into before anything in them runs; pickles are not opened."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from pellucid.errors import StageError
from pellucid.models.content import hash_files, hash_model
from pellucid.models.exported_archive import check_archive
from pellucid.models.model import Form, Model, Port, Side
from pellucid.models.onnx_file import AS_MEASURED, MOST_CHANNELS, TYPES

__all__ = ["look_into_exported", "look_into_torchscript", "read_exported", "read_torchscript"]

_PICKLE = (
    "is a pickle (as torch.save writes them), and a pickle can run any program when it is opened. Allowed: TorchScript "
    "(torch.jit.script or trace, then .save), torch.export files (.pt2), ONNX"
)
_TRIED_CHANNELS = (1, 3, 2, 4, 5, 7)
_TRIED_SIDE = 64
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


def look_into_torchscript(path: Path) -> Any:
    """Return the module of a TorchScript file, in eval mode on the CPU.

    Raises
    ------
    StageError
        A pickle, a file that is cut off, weights that are not finite.
    """
    where = f"model {path}"
    names = _names(path, where)
    if not any("/code/" in f"/{name}" for name in names):
        raise StageError(f"{where}: {_PICKLE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is called old, and many models come in it
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:
        raise StageError(f"{where}: cannot be read as TorchScript ({type(error).__name__}). Export it again") from None
    _finite(module.state_dict(), where)
    return module


def look_into_exported(path: Path) -> Any:
    """Return the program in a ``.pt2`` file.

    Raises
    ------
    StageError
        A pickle, a file that is cut off, anything besides plain tensors and torch's own operators (see
        `pellucid.models.exported_archive`), weights that are not finite.
    """
    where = f"model {path}"
    names = _names(path, where)
    if not any(name.endswith((".json", "archive_format")) for name in names):
        raise StageError(f"{where}: {_PICKLE}")
    archive = check_archive(path, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.export.load(archive)
    except Exception as error:
        told = (str(error).strip().splitlines() or [""])[0][:100]
        raise StageError(f"{where}: cannot be read as a .pt2 file ({type(error).__name__}: {told})") from None
    _finite(program.state_dict, where)
    return program


def read_torchscript(path: Path) -> Model:
    """Describe a TorchScript file; what it takes is found by trying.

    Raises
    ------
    StageError
        One line; see `look_into_torchscript`. Also where it takes no plane of any channels that are tried.
    """
    return _tried(path, "torchscript", look_into_torchscript(path))


def read_exported(path: Path) -> Model:
    """Describe a ``.pt2`` file; what it takes is found by trying.

    Raises
    ------
    StageError
        One line; see `look_into_exported`.
    """
    program = look_into_exported(path)
    fixed = _example(program)
    return _tried(path, "exported", program.module(), fixed)


def _names(path: Path, where: str) -> list[str]:
    try:
        size = path.stat().st_size
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                start = file.read(2)
            if start[:1] == b"\x80":
                raise StageError(f"{where}: {_PICKLE}")
            raise StageError(f"{where}: not a file of torch, or cut off ({size} bytes). Copy or export it again")
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        raise StageError(f"{where}: cut off. Copy or export it again") from None
    except OSError as error:
        raise StageError(f"{where}: cannot be read: {error.strerror}") from None


def _finite(weights: Any, where: str) -> None:
    for name, values in weights.items():
        if isinstance(values, torch.Tensor) and values.is_floating_point() and not torch.isfinite(values).all():
            bad = int((~torch.isfinite(values)).sum())
            raise StageError(
                f"{where}: {bad} of {values.numel()} numbers in {name} are NaN or infinite. Train it again"
            )


def _example(program: Any) -> tuple[int, ...] | None:
    """Return the shape it was exported for, as far as its signature has numbers."""
    try:
        name = program.graph_signature.user_inputs[0]
        node = next(n for n in program.graph.nodes if n.name == name)
        dims = node.meta["val"].shape
        return tuple(int(d) if isinstance(d, int) else 0 for d in dims)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError):
        return None


def _run(module: Any, shape: tuple[int, ...]) -> torch.Tensor | None:
    try:
        with torch.inference_mode():
            result = module(torch.full(shape, 0.5))
    except Exception:
        return None
    return result if isinstance(result, torch.Tensor) else None


def _tried(path: Path, form: Form, module: Any, fixed: tuple[int, ...] | None = None) -> Model:
    where = f"model {path}"
    if fixed is not None and len(fixed) not in (4, 5):
        raise StageError(f"{where}: takes a tensor of {len(fixed)} axes; b, c, y, x or b, c, z, y, x are taken")
    result, channels = None, 0
    sides: tuple[int, ...] = (_TRIED_SIDE,) * 2
    if fixed is not None and len(fixed) == 5:
        sides = (16, _TRIED_SIDE, _TRIED_SIDE)
    if fixed is not None:
        sides = tuple(n or s for n, s in zip(fixed[2:], sides, strict=True))
    for channels in (fixed[1],) if fixed is not None and fixed[1] else _TRIED_CHANNELS:
        result = _run(module, ((fixed[0] if fixed else 0) or 1, channels, *sides))
        if result is not None:
            break
    if result is None:
        tried = ", ".join(map(str, _TRIED_CHANNELS))
        raise StageError(
            f"{where}: takes no planes of {'x'.join(map(str, sides))} with {tried} channels as b, c, y, x of float32. "
            "Give it as a bioimage.io package, whose card says what it takes"
        )
    kind = str(result.dtype).removeprefix("torch.")
    if result.ndim != 2 + len(sides) or kind not in TYPES or result.shape[1] > MOST_CHANNELS:
        raise StageError(f"{where}: gives {'x'.join(map(str, result.shape))} of {kind}; pictures are needed")
    scale = result.shape[-1] / sides[-1]
    if scale < 1 or scale != round(scale) or result.shape[-2] != scale * sides[-2]:
        raise StageError(f"{where}: makes {scale:g} pixels of one; as many or a whole number of times more are taken")
    times = round(scale)
    given_sides = _sides(module, channels, sides, fixed)
    grow = (1, times, times)[-len(sides) :]
    axes = "bczyx" if len(sides) == 3 else "bcyx"
    given = Port("given", axes, "float32", channels, given_sides)
    ends = tuple(Side(s.least * k, s.step * k) for s, k in zip(given_sides, grow, strict=True))
    out = Port("restored", axes, kind, int(result.shape[1]), ends)
    before, after = AS_MEASURED
    return Model(
        name=path.stem,
        weights={form: path},
        sha256=hash_model(hash_files([path]), given, out, before, after, times),
        given=given,
        result=out,
        before=before,
        after=after,
        scale=times,
        card={"description": f"a file without a card, {path.name}"},
    )


def _sides(module: Any, channels: int, sides: tuple[int, ...], fixed: tuple[int, ...] | None) -> tuple[Side, ...]:
    """Return the sides it takes: fixed where its signature has numbers, else by the smallest multiple that works."""
    if fixed is not None and all(fixed[2:]):
        return tuple(Side(n, 0) for n in fixed[2:])
    for multiple in _MULTIPLES:
        # One more than a multiple of any larger number, so that only what is really enough passes.
        side = tuple(s + multiple for s in sides)
        result = _run(module, (1, channels, *side))
        # A network that pools and enlarges again may take any side and give another one.
        if (
            result is not None
            and result.ndim == 2 + len(side)
            and all(got % n == 0 for got, n in zip(result.shape[2:], side, strict=True))
        ):
            return tuple(Side(max(multiple, 8), multiple) for _ in sides)
    return tuple(Side(n, 0) for n in sides)
