"""How far an engine is from float32, on real frames.

The reference is eager torch in float32 on the CPU, where sums are neither shortened (as TF32 does on a GPU) nor fused;
onnxruntime where torch does not know an operator of the model. The frames are those of real microscopes that come with
the package, and the author's own input where a package has one, brought into the range that the network was made for,
mirrored until they fill the shape. Frames larger than 512x512 would only take longer: what rounding does to a pixel
does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from pellucid.engines.cache import Cache, key_of
from pellucid.engines.torch_module import load_module, torch_dtype
from pellucid.errors import StageError, require
from pellucid.models import Fidelity, Model
from pellucid.models.frames import real_frames

__all__ = ["check_reference", "compare", "probe_shape", "real_inputs", "reference"]

Array = np.ndarray[Any, Any]
_FRAMES = 3
_AGREE = 1e-2
"""Of the range: sums in another order differ by a thousandth of that, operators that mean something else by more."""
_MOST = {1: (512,), 2: (512, 512), 3: (16, 256, 256)}


def probe_shape(model: Model, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape at which an engine for `shape` is compared: one picture, up to 512x512 where sides allow it."""
    port = model.given
    space = [axis for axis in port.axes if axis in "zyx"]
    caps = dict(zip(space, _MOST[len(space)], strict=True))
    sides = dict(zip(space, port.sides, strict=True))

    def capped(axis: str, n: int) -> int:
        if axis not in sides:
            return 1 if axis == "b" else n
        side, cap = sides[axis], caps[axis]
        return side.least + max(cap - side.least, 0) // side.step * side.step if side.step and n > cap else n

    return tuple(capped(axis, n) for axis, n in zip(port.axes, shape, strict=True))


def real_inputs(model: Model, shape: Sequence[int]) -> list[Array]:
    """Return real frames as the network takes them: of its shape, type and about its range."""
    pictures: list[Array] = []
    for path in model.samples[:1]:
        sample = np.load(path, allow_pickle=False)
        if sample.ndim == len(shape):
            pictures.append(sample)
    out = [_fill(p, shape) for p in pictures]
    if not out or model.given.channels == 1:
        frames = real_frames()
        step = max(1, len(frames) // _FRAMES)
        for i in range(0, step * _FRAMES, step):
            following = [frames[(i + k) % len(frames)] for k in range(max(model.given.channels, 1))]
            out.append(_arrange(following, model.given.axes, shape))
    return [_ranged(p, model) for p in out]


def _fill(picture: Array, shape: Sequence[int]) -> Array:
    """Cut each axis, or go on with its mirror image."""
    for axis, n in enumerate(shape):
        have = picture.shape[axis]
        where = np.arange(n) % (2 * have)
        picture = np.take(picture, np.where(where < have, where, 2 * have - 1 - where), axis)
    return picture


def _arrange(frames: Sequence[Array], axes: str, shape: Sequence[int]) -> Array:
    """Lay planes into the axes of a port; along z the plane moves by a pixel, as a specimen does by and by."""
    sizes = dict(zip(axes, shape, strict=True))
    planes = [_fill(f.astype(np.float32), (sizes.get("y", 1), sizes.get("x", 1))) for f in frames]
    planes = [p / max(float(p.max()), 1.0) for p in planes]
    whole = np.empty([sizes.get(a, 1) for a in "bczyx"], np.float32)
    for c in range(whole.shape[1]):
        for z in range(whole.shape[2]):
            whole[:, c, z] = np.roll(planes[c % len(planes)], z, 1)
    order = ["bczyx".index(a) for a in axes]
    rest = [i for i in range(5) if i not in order]
    return np.transpose(whole, [*order, *rest]).reshape(tuple(shape))


def _ranged(picture: Array, model: Model) -> Array:
    """Bring into the range that the first of the model's own steps would bring it into."""
    values = picture.astype(np.float32)
    kind = np.dtype(model.given.dtype)
    names = [step.name for step in model.before]
    if any(name.endswith("zero_mean_unit_variance") for name in names):
        values = (values - values.mean()) / max(float(values.std()), 1e-6)
    else:
        low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
        values = (values - low) / max(high - low, 1e-6)
        if kind.kind in "ui":
            values = np.clip(values, 0, 1) * min(np.iinfo(kind).max, 4095)
    return np.ascontiguousarray(values.astype(kind))


def reference(model: Model, shape: Sequence[int], where: str) -> tuple[Callable[[Array], Array], str]:
    """Return what computes the network in float32, and its name.

    Raises
    ------
    StageError
        Neither torch nor onnxruntime can run it.
    """
    try:
        loaded = load_module(model, shape, "float32", where)
    except StageError as cannot:
        if "onnx" not in model.weights or "does not know" not in str(cannot):
            raise
        return _onnxruntime(model, where), "onnxruntime float32"

    def run(given: Array) -> Array:
        with torch.inference_mode():
            return loaded.module(torch.from_numpy(given)).to(torch.float32).numpy()

    return run, "torch float32, eager"


def check_reference(model: Model, shape: Sequence[int], where: str) -> None:
    """Look at the reference itself: it must give numbers, and onnxruntime, where it is installed, the same ones.

    Done once for a model on a computer; that it passed is kept in the cache.

    Raises
    ------
    StageError
        With the figure.
    """
    other = "onnx" in model.weights and importlib.util.find_spec("onnxruntime") is not None
    cache = Cache()
    about = {
        "reference of": model.sha256,
        "torch": torch.__version__,
        "pellucid": version("pellucid"),
        "onnxruntime": other,
    }
    key = key_of(about)
    if cache.read(key) is not None:
        return
    exact, name = reference(model, shape, where)
    second = _onnxruntime(model, where) if other and "torch" in name else None
    far = 0.0
    for picture in real_inputs(model, shape):
        want = exact(picture).astype(np.float64)
        if not np.isfinite(want).all():
            raise StageError(f"{where}: model {model.name} gives NaN or infinity in float32 on a real frame")
        if second is not None:
            got = second(picture).astype(np.float64)
            spread = max(float(want.max() - want.min()), 1e-12)
            far = max(far, float(np.abs(got - want).max()) / spread if got.shape == want.shape else math.inf)
    if far > _AGREE:
        raise StageError(
            f"{where}: torch and onnxruntime do not agree on model {model.name}: by {far:.2g} of the range. Export it "
            "with another opset, and please report it"
        )
    with contextlib.suppress(OSError):  # a folder that cannot be written: looked at again next time
        cache.write(key, b"", {**about, "name": model.name, "largest": far})


def _onnxruntime(model: Model, where: str) -> Callable[[Array], Array]:
    library = require("onnxruntime", "models", f"{where}: the comparison with float32")
    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = library.InferenceSession(str(model.weights["onnx"]), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        why = str(error).splitlines()[0]
        raise StageError(f"{where}: onnxruntime cannot read {model.weights['onnx'].name}: {why}") from None
    name = session.get_inputs()[0].name

    def run(given: Array) -> Array:
        return np.asarray(session.run(None, {name: given})[0], np.float32)

    return run


def compare(
    run: Callable[[torch.Tensor, torch.Tensor], None],
    model: Model,
    shape: Sequence[int],
    result: Sequence[int],
    device: str,
    where: str,
) -> Fidelity:
    """Run an engine and the reference on the same real frames.

    Parameters
    ----------
    run
        Fills its second tensor from its first one, on `device`.
    shape, result
        Of what goes in and comes out.

    Returns
    -------
    Fidelity
        Its differences are infinite where a result is not finite and the reference is.
    """
    exact, name = reference(model, shape, where)
    largest = squares = 0.0
    inputs = real_inputs(model, shape)
    for picture in inputs:
        want = exact(picture).astype(np.float64)
        if want.shape != tuple(result):
            raise StageError(f"{where}: it gives {_x(result)} for {_x(shape)}, float32 gives {_x(want.shape)}")
        if not np.isfinite(want).all():
            raise StageError(f"{where}: model {model.name} gives NaN or infinity in float32 on a real frame")
        given = torch.from_numpy(picture).to(device)
        got = torch.full(tuple(result), float("nan") if model.result.dtype.startswith("float") else 0, device=device)
        got = got.to(torch_dtype(model.result.dtype))
        run(given, got)
        differences = np.abs(got.to(torch.float64).cpu().numpy() - want)
        spread = max(float(want.max() - want.min()), 1e-12)
        if not np.isfinite(differences).all():
            return Fidelity(math.inf, math.inf, name, len(inputs))
        largest = max(largest, float(differences.max()) / spread)
        squares += float(np.mean((differences / spread) ** 2))
    return Fidelity(largest, math.sqrt(squares / len(inputs)), name, len(inputs))


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
