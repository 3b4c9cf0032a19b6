"""A copy of a model in a folder of its own, with a card; and packages fetched from where they are published."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pellucid.errors import ConfigError, StageError, require
from pellucid.models.model import Model, Port

__all__ = ["fetch_package", "write_package"]

_CARDS = ("rdf.yaml", "bioimageio.yaml")
_FORMAT = "0.5.4"
_OPSET = 18


def write_package(model: Model, folder: Path, name: str, tell: Callable[[str], None] | None = None) -> None:
    """Fill a folder with a model's files; a package is copied as it is, a mere file gets a card.

    TorchScript and ``torch.export`` files get an ONNX file beside them where torch can make one, so that every engine
    takes them.

    Parameters
    ----------
    model
    folder
        Is there and empty.
    name
    tell
        Gets a line about what was done.

    Raises
    ------
    StageError
        One line, where the files cannot be copied.
    """
    first = next(iter(model.weights.values()))
    home = _package_of(first)
    if home is not None:
        shutil.copytree(home, folder, dirs_exist_ok=True, symlinks=False)
        return
    weights: dict[str, Any] = {}
    for form, file in model.weights.items():
        copy = folder / ("model" + file.suffix)
        shutil.copyfile(file, copy)
        for beside in _beside(file) if form == "onnx" else []:
            target = folder / beside.relative_to(file.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(beside, target)
        weights[form] = copy
    if "onnx" not in weights:
        made = _as_onnx(model, folder / "model.onnx", tell)
        if made is not None:
            weights["onnx"] = made
    card = _card(model, name, weights)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True), "utf-8")


def _package_of(file: Path) -> Path | None:
    """Return the folder of the package that a file is the weights of; a card that only lies beside it is not its."""
    from pellucid.models.package import read_package

    for folder in (file.parent, *list(file.parents)[1:3]):
        card = next((folder / name for name in _CARDS if (folder / name).is_file()), None)
        if card is None:
            continue
        try:
            weights = read_package(card).weights
        except StageError:
            continue
        if file.resolve() in [path.resolve() for path in weights.values()]:
            return folder
    return None


def _beside(file: Path) -> list[Path]:
    """Return the files that hold an ONNX file's weights; that they are in order was looked into before."""
    onnx = require("onnx", "models", f"importing {file}")
    proto = onnx.load(str(file), load_external_data=False)
    names = {
        entry.value
        for tensor in proto.graph.initializer
        if tensor.data_location == 1
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [file.parent / name for name in sorted(names)]


def _as_onnx(model: Model, path: Path, tell: Callable[[str], None] | None) -> Path | None:
    """Write the ONNX form of a torch file; None, and a line, where torch cannot."""
    import torch

    say = tell or (lambda _: None)
    try:
        require("onnxscript", "models", "an ONNX form")
        if "torchscript" in model.weights:
            module = torch.jit.load(str(model.weights["torchscript"]), map_location="cpu").eval()
            traced = True
        else:
            from pellucid.models.torch_file import look_into_exported

            module = look_into_exported(model.weights["exported"]).module()
            traced = False
        sides = [s.up(64) for s in model.given.sides]
        sizes = {"b": 1, "c": model.given.channels, **dict(zip("zyx"[-model.given.ndim :], sides, strict=True))}
        example = torch.rand([sizes[a] for a in model.given.axes]).to(getattr(torch, model.given.dtype))
        free = {i: a for i, a in enumerate(model.given.axes) if a == "b" or (a in "zyx" and _moves(model.given, a))}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            keys: dict[str, Any] = {"input_names": ["given"], "output_names": ["restored"], "opset_version": _OPSET}
            if traced:
                torch.onnx.export(module, (example,), path, dynamo=False, dynamic_axes={"given": free}, **keys)
            else:
                auto = torch.export.Dim.AUTO
                torch.onnx.export(
                    module, (example,), path, dynamo=True, external_data=False, verbose=False,
                    dynamic_shapes=(dict.fromkeys(free, auto),), **keys,
                )  # fmt: skip
    except Exception as error:
        path.unlink(missing_ok=True)
        told = str(error).strip().splitlines()[:1] or [type(error).__name__]
        say(f"no ONNX form could be made ({told[0][:120]}): only the engine torch takes this model")
        return None
    say("an ONNX form was made beside it, so that every engine takes it")
    return path


def _moves(port: Port, axis: str) -> bool:
    return port.sides["zyx"[-port.ndim :].index(axis)].step > 0


def _card(model: Model, name: str, weights: Mapping[str, Path]) -> dict[str, Any]:
    forms = {"onnx": "onnx", "torchscript": "torchscript", "exported": "pellucid_exported"}
    files = {
        forms[form]: {"source": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for form, file in weights.items()
    }
    for form, keys in files.items():
        if form == "onnx":
            keys["opset_version"] = _OPSET  # type: ignore[assignment]
    ours = {"exported": files.pop("pellucid_exported")} if "pellucid_exported" in files else {}
    before, after = (
        [{"id": o.name, "kwargs": dict(o.keys)} for o in operations if o.name != "as_given"]
        for operations in (model.before, model.after)
    )
    given, result = model.given.name or "given", model.result.name or "restored"
    extras = {
        "as_given": any(o.name == "as_given" for o in model.after),
        "frames": model.frames,
        "scale": model.scale,
        "halo": list(model.halo),
    }
    return {
        "format_version": _FORMAT,
        "type": "model",
        "name": name,
        "description": str(model.card.get("description", name)),
        "license": str(model.card.get("licence", "unknown")),
        "inputs": [{"id": given, **_tensor(model.given, None, model), "preprocessing": before}],
        "outputs": [{"id": result, **_tensor(model.result, model.given, model), "postprocessing": after}],
        "weights": files,
        "config": {"pellucid": extras | ours},
    }


def _tensor(port: Port, like: Port | None, model: Model) -> dict[str, Any]:
    axes: list[dict[str, Any]] = []
    for axis in port.axes:
        if axis == "b":
            axes.append({"type": "batch"})
        elif axis == "c":
            axes.append({"type": "channel", "channel_names": [f"channel{i}" for i in range(port.channels)]})
        elif like is not None and axis in like.axes:
            times = 1 if axis == "z" else model.scale
            size = {"tensor_id": like.name or "given", "axis_id": axis, "offset": 0}
            axes.append({"type": "space", "id": axis, "scale": 1 / times, "size": size})
        else:
            side = port.sides["zyx"[-port.ndim :].index(axis)]
            size = side.least if side.step == 0 else {"min": side.least, "step": side.step}  # type: ignore[assignment]
            axes.append({"type": "space", "id": axis, "size": size})
    return {"axes": axes, "data": {"type": port.dtype}}


def fetch_package(given: str, hint: str = "") -> Model:
    """Fetch a package by its nickname, DOI or address, through bioimageio.core.

    Raises
    ------
    ConfigError
        One line: no network, nobody of that name.
    """
    from pellucid.models.package import read_package

    spec = require("bioimageio.spec", "models", f'model = "{given}"')
    try:
        package = spec.save_bioimageio_package_as_folder(given)
    except Exception as error:
        told = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ConfigError(
            f'model = "{given}": not here, and not to be fetched as a bioimage.io nickname: {told[0][:100]}; {hint}'
        ) from None
    found = next((Path(package) / card for card in _CARDS if (Path(package) / card).is_file()), None)
    if found is None:
        raise StageError(f'model = "{given}": what was fetched has no rdf.yaml')
    return read_package(found)
