"""A package's own test: its input through its steps and its network in float32, against its output."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.engines.cache import Cache, key_of
from pellucid.engines.fidelity import reference
from pellucid.errors import StageError
from pellucid.models import Model, Port
from pellucid.models.content import hash_files
from pellucid.restoration.operations import After, Before

__all__ = ["BOUND", "check_own_test", "run_own_test"]

BOUND = 1e-3
"""Largest difference, as part of the range of the package's output: other libraries sum in another order."""


def check_own_test(model: Model, where: str) -> float | None:
    """Run a model's own test once on this computer, and return its largest difference; None without test tensors.

    That it passed is kept in the cache, by the hash of the model.

    Raises
    ------
    StageError
        With the figure, where the result is another one.
    """
    if len(model.samples) != 2:
        return None
    cache = Cache()
    tensors = hash_files(list(model.samples))
    key = key_of(
        {"own test": model.sha256, "tensors": tensors, "torch": torch.__version__, "pellucid": version("pellucid")}
    )
    known = cache.read(key)
    if known is not None:
        return float(known.facts["largest"])
    largest = run_own_test(model, where)
    try:
        cache.write(key, b"", {"own test": model.sha256, "name": model.name, "largest": largest})
    except OSError:  # a folder that cannot be written: it is tested again next time
        pass
    return largest


def run_own_test(model: Model, where: str) -> float:
    """Run it now; see `check_own_test`."""
    given, wanted = (_load(path, where) for path in model.samples)
    if given.ndim != len(model.given.axes) or wanted.ndim != len(model.result.axes):
        raise StageError(
            f"{where}: the test tensors of model {model.name} have {given.ndim} and {wanted.ndim} axes; its card says "
            f"{model.given.axes} and {model.result.axes}"
        )
    run, _ = reference(model, given.shape, where)
    x = _usual(torch.from_numpy(given.astype(np.float32)), model.given).contiguous()
    before = Before(model.before, tuple(x.shape), shared=False, adapt_frames=0, device="cpu")
    before(x)
    network_in = _back(x, model.given).to(getattr(torch, model.given.dtype)).contiguous().numpy()
    result = _usual(torch.from_numpy(np.array(run(network_in))), model.result).contiguous()
    steps = [operation for operation in model.after if operation.name != "as_given"]  # ours; not in the package's test
    after = After(steps, before, tuple(x.shape), tuple(result.shape), shared=False, device="cpu")
    after(result)
    want = _usual(torch.from_numpy(wanted.astype(np.float32)), model.result)
    if want.shape != result.shape:
        raise StageError(f"{where}: model {model.name} gives {tuple(result.shape)}, its own test {tuple(want.shape)}")
    spread = max(float(want.max() - want.min()), 1e-12)
    largest = float((result - want).abs().max()) / spread
    if not largest <= BOUND:
        raise StageError(
            f"{where}: model {model.name} fails its own test: its result differs by {largest:.2g} of the range "
            f"(allowed {BOUND:g}). The package is damaged, or wants steps that are not those of its card"
        )
    return largest


def _load(path: Path, where: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise StageError(f"{where}: the test tensor {path.name} cannot be read: {error}") from None


def _usual(tensor: torch.Tensor, port: Port) -> torch.Tensor:
    """Return it with the axes b, c, (z,) y, x, those that it has not of length 1."""
    order = [port.axes.index(a) for a in "bczyx" if a in port.axes]
    tensor = tensor.permute(order)
    if "c" not in port.axes:
        tensor = tensor.unsqueeze(1 if "b" in port.axes else 0)
    return tensor if "b" in port.axes else tensor.unsqueeze(0)


def _back(tensor: torch.Tensor, port: Port) -> torch.Tensor:
    if "c" not in port.axes:
        tensor = tensor[:, 0]
    if "b" not in port.axes:
        tensor = tensor[0]
    have = [a for a in "bczyx" if a in port.axes]
    return tensor.permute([have.index(a) for a in port.axes])
