"""A trained network as a bioimage.io package: ONNX file, card, test tensors, the config that made it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from pellucid.errors import RunError, require
from pellucid.models.onnx_file import look_into

__all__ = ["Facts", "export", "scaled"]

FORMAT = "0.5.4"
OPSET = 18
LOW, HIGH = 0.1, 99.9
_LEAST_SIDE = 64
_BOUND = 1e-4


@dataclass(frozen=True)
class Facts:
    """What the card says.

    Parameters
    ----------
    name, description
    authors
        Names.
    licence
        SPDX identifier.
    cite
        Text and DOI or address of each.
    tags
    documentation
        Markdown: what it is for, what it was trained on, how good it is, when not to use it.
    trained
        Config text, seed, data, versions, quality; JSON types only.
    files
        Further files by name (the config, licences of the data), written beside.
    """

    name: str
    description: str
    authors: Sequence[str] = ("pellucid",)
    licence: str = "BSD-3-Clause"
    cite: Sequence[Mapping[str, str]] = ()
    tags: Sequence[str] = ()
    documentation: str = ""
    trained: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def scaled(frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a frame with its 0.1st and 99.9th percentile at 0 and 1, float32, as the card says and training has it."""
    low, high = np.percentile(frame, (LOW, HIGH))
    return np.asarray((frame - low) / max(float(high - low), 1e-6), np.float32)


def export(network: nn.Module, folder: Path, facts: Facts, sample: np.ndarray[Any, Any]) -> Path:
    """Write the package and check that the file computes what the network does.

    Parameters
    ----------
    network
        With attributes ``frames``, ``scale`` and ``multiple``; float32.
    folder
        Is made; files of the same names are replaced.
    facts
    sample
        A real frame in camera counts, ``(y, x)``, or ``(frames, y, x)``; cut to a multiple that the network takes.

    Returns
    -------
    pathlib.Path
        `folder`.

    Raises
    ------
    MissingExtra
        Without onnx and onnxscript.
    RunError
        Where the file's result differs from the network's by more than 1e-4 of the range.
    """
    require("onnx", "train", "exporting a network")
    require("onnxscript", "train", "exporting a network")
    folder.mkdir(parents=True, exist_ok=True)
    network = network.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    frames, scale, multiple = (int(getattr(network, key)) for key in ("frames", "scale", "multiple"))
    stack = np.atleast_3d(sample.T).T if sample.ndim == 2 else sample
    stack = np.repeat(stack, frames, 0) if len(stack) < frames else stack[-frames:]
    path = folder / "model.onnx"
    _write_onnx(network, torch.from_numpy(scaled(_at_least(stack, _LEAST_SIDE, multiple))), path)
    looked = look_into(path, ("bcyx", "bcyx"))
    # Its own test must be of a size that its card allows.
    counts = _at_least(stack, _least(looked.halo, multiple), multiple)
    given = torch.from_numpy(scaled(counts))
    with torch.no_grad():
        wanted = network(given)
    _compare(path, given.numpy(), wanted.numpy())
    np.save(folder / "test_input.npy", counts)
    np.save(folder / "test_output.npy", wanted.numpy())
    _picture(counts[0, -1], wanted[0, 0].numpy(), folder / "cover.png")
    (folder / "README.md").write_text(facts.documentation or _documentation(facts), "utf-8")
    for name, text in facts.files.items():
        (folder / name).write_text(text, "utf-8")
    card = _card(facts, folder, frames, scale, multiple, looked.halo, looked.given.name, looked.result.name)
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=100)
    (folder / "rdf.yaml").write_text(text, "utf-8")
    return folder


def _least(halo: tuple[int, ...] | None, multiple: int) -> int:
    """Return the least side of the card: the format wants something left between the two halos."""
    return -(-max(_LEAST_SIDE, 2 * max(halo or (0,)) + 1) // multiple) * multiple


def _at_least(stack: np.ndarray[Any, Any], least: int, multiple: int) -> np.ndarray[Any, Any]:
    """Return ``(1, frames, y, x)`` of sides that the network takes, mirrored on where there are too few pixels."""
    wanted = [max(n // multiple * multiple, -(-least // multiple) * multiple) for n in stack.shape[-2:]]
    more = [(0, max(w - n, 0)) for w, n in zip(wanted, stack.shape[-2:], strict=True)]
    whole = np.pad(stack, [(0, 0), *more], mode="symmetric")
    return np.ascontiguousarray(whole[None, :, : wanted[0], : wanted[1]], np.float32)


def _write_onnx(network: nn.Module, given: torch.Tensor, path: Path) -> None:
    free = torch.export.Dim.AUTO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            network,
            (given,),
            path,
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=["given"],
            output_names=["restored"],
            dynamic_shapes=({0: free, 2: free, 3: free},),
            verbose=False,
        )


def _compare(path: Path, given: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    runtime = require("onnxruntime", "train", "checking an exported network")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # Another size than that of the export as well: what was taken as fixed would show.
    got = session.run(None, {session.get_inputs()[0].name: given})[0]
    error = float(np.abs(got - wanted).max() / max(float(np.ptp(wanted)), 1e-6))
    if not error <= _BOUND:
        raise RunError(f"{path}: its result differs from the network's by {error:.2g} of the range; not to be used")
    half = [n // 2 for n in given.shape[-2:]]
    small = np.ascontiguousarray(np.concatenate([given[..., : half[0], :], given[..., : half[0], :]], 0))
    if session.run(None, {session.get_inputs()[0].name: small})[0].shape[0] != 2:
        raise RunError(f"{path}: it takes one batch size only")


def _documentation(facts: Facts) -> str:
    quality = facts.trained.get("quality") or {}
    rows = "".join(f"| {name} | {value:+.2f} |\n" for name, value in quality.items())
    table = f"| validation | dB |\n|---|---|\n{rows}" if rows else "It was not compared with clean pictures.\n"
    return f"# {facts.name}\n\n{facts.description}\n\n# Validation\n\n{table}"


def _card(
    facts: Facts,
    folder: Path,
    frames: int,
    scale: int,
    multiple: int,
    halo: tuple[int, ...] | None,
    given: str,
    restored: str,
) -> dict[str, Any]:
    least = _least(halo, multiple)
    reach = max(halo or (0,)) * scale
    names = [f"frame{i - frames + 1:+d}" if i < frames - 1 else "newest" for i in range(frames)]
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": facts.name,
        "description": facts.description,
        "authors": [{"name": name} for name in facts.authors],
        "license": facts.licence,
        "cite": [dict(entry) for entry in facts.cite],
        "tags": list(facts.tags),
        "documentation": "README.md",
        "covers": ["cover.png"],
        "inputs": [
            {
                "id": given,
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": names},
                    *({"type": "space", "id": a, "size": {"min": least, "step": multiple}} for a in "yx"),
                ],
                "data": {"type": "float32"},
                "test_tensor": _file(folder / "test_input.npy"),
                "preprocessing": [
                    {
                        "id": "scale_range",
                        "kwargs": {"axes": ["channel", "y", "x"], "min_percentile": LOW, "max_percentile": HIGH},
                    }
                ],
            }
        ],
        "outputs": [
            {
                "id": restored,
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["restored"]},
                    *(
                        {
                            "type": "space",
                            "id": a,
                            "scale": 1 / scale,
                            "size": {"tensor_id": given, "axis_id": a, "offset": 0},
                            "halo": reach,
                        }
                        for a in "yx"
                    ),
                ],
                "data": {"type": "float32"},
                "test_tensor": _file(folder / "test_output.npy"),
            }
        ],
        "weights": {"onnx": {**_file(folder / "model.onnx"), "opset_version": OPSET}},
        "config": {
            "pellucid": {
                "as_given": True,
                "frames": frames,
                "scale": scale,
                "halo": list(halo or ()),
                "trained": dict(facts.trained),
            }
        },
    }


def _file(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _picture(given: np.ndarray[Any, Any], restored: np.ndarray[Any, Any], path: Path) -> None:
    """Raw beside restored, both stretched between their percentiles."""
    times = restored.shape[0] // given.shape[0]
    large = np.repeat(np.repeat(scaled(given), times, 0), times, 1)
    both = np.concatenate([large, scaled(restored)], 1)
    Image.fromarray((np.clip(both, 0, 1) ** 0.7 * 255).astype(np.uint8)).save(path, optimize=True)
