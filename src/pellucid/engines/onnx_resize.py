"""Resize of ONNX in torch: its many ways to say which pixel a new pixel comes from."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["resize", "upsample"]


def upsample(a: Any, x: Any, scales: Any = None) -> Any:
    """Return a picture of another size, as files before 2019 asked for it."""
    by = scales.tolist() if scales is not None else a("scales")
    return _resized(x, by, [math.floor(n * s) for n, s in zip(x.shape, by, strict=True)], a, "asymmetric", "floor")


def resize(a: Any, x: Any, second: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    """Return a picture of another size.

    Raises
    ------
    ValueError
        For cropping, antialiasing, and cubic weights other than torch's.
    """
    if a.opset < 11:
        return upsample(a, x, second)
    if a("antialias", 0) or a("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise ValueError("antialiasing and cropping are not known")
    if a("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError("only the policy stretch is known")
    for given in (scales, sizes):
        if given is not None and not isinstance(given, torch.Tensor):
            raise ValueError("its size depends on the pixels")
    on = [n % x.ndim for n in a("axes") or range(x.ndim)]
    out, by = list(x.shape), [1.0] * x.ndim
    if sizes is not None and sizes.numel():
        for axis, n in zip(on, sizes.tolist(), strict=True):
            out[axis], by[axis] = int(n), n / x.shape[axis]
    else:
        for axis, s in zip(on, scales.tolist(), strict=True):
            out[axis], by[axis] = math.floor(x.shape[axis] * s), s
    mode = a("coordinate_transformation_mode", "half_pixel")
    return _resized(x, by, out, a, mode, a("nearest_mode", "round_prefer_floor"))


def _resized(x: Any, by: list[float], out: list[int], a: Any, mode: str, rounding: str) -> Any:
    if out == list(x.shape):
        return x
    kind, given = a("mode", "nearest"), list(x.shape)
    plain = (
        x.ndim in (3, 4, 5)
        and out[:2] == given[:2]
        and all(math.isclose(n * s, m) for n, s, m in zip(given, by, out, strict=True))
    )
    centred = mode == "half_pixel" or (mode == "pytorch_half_pixel" and min(out[2:]) > 1)
    doubled = all(m % n == 0 and (m // n) & (m // n - 1) == 0 for n, m in zip(given, out, strict=True))
    if kind == "nearest" and plain and doubled:
        # Whole multiples, and powers of two: torch's own division is exact then. Between the centres of pixels the
        # nearest is never in doubt; from their corners, only rounding down is what torch does.
        if mode == "asymmetric" and rounding == "floor":
            return F.interpolate(x, size=out[2:], mode="nearest")
        if centred and rounding.startswith("round"):
            return F.interpolate(x, size=out[2:], mode="nearest-exact")
    if kind in ("linear", "cubic") and plain and (centred or mode == "align_corners"):
        name = {1: "linear", 2: "bilinear", 3: "trilinear"}[x.ndim - 2] if kind == "linear" else "bicubic"
        if kind == "linear" or (x.ndim == 4 and a("cubic_coeff_a", -0.75) == -0.75 and not a("exclude_outside", 0)):
            return F.interpolate(x, size=out[2:], mode=name, align_corners=mode == "align_corners")
    if kind == "cubic":
        raise ValueError("cubic in a way that torch does not have")
    for axis, (n, m, s) in enumerate(zip(given, out, by, strict=True)):
        if n != m:
            places = [_place(i, n, m, s, mode) for i in range(m)]
            x = _nearest(x, axis, places, rounding) if kind == "nearest" else _linear(x, axis, places)
    return x


def _place(i: int, n: int, m: int, scale: float, mode: str) -> float:
    """Return where pixel `i` of `m` lies among the `n` given."""
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * (n - 1) / (m - 1) if m > 1 else 0.0
    if mode == "pytorch_half_pixel" and m == 1:
        return 0.0
    if mode == "half_pixel_symmetric":
        off = n / 2 * (1 - m / (scale * n))
        return off + (i + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (i + 0.5) / scale - 0.5
    raise ValueError(f"coordinates {mode} are not known")


def _nearest(x: Any, axis: int, places: list[float], rounding: str) -> Any:
    near = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda p: math.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: math.floor(p + 0.5),
    }[rounding]
    most = x.shape[axis] - 1
    return torch.index_select(x, axis, torch.tensor([min(max(near(p), 0), most) for p in places]))


def _linear(x: Any, axis: int, places: list[float]) -> Any:
    most = x.shape[axis] - 1
    low = [min(max(math.floor(p), 0), most) for p in places]
    high = [min(max(math.floor(p) + 1, 0), most) for p in places]
    part = [p - math.floor(p) for p in places]
    shape = [1] * x.ndim
    shape[axis] = len(places)
    weight = torch.tensor(part, dtype=torch.float32).reshape(shape)
    first, second = (torch.index_select(x, axis, torch.tensor(at)) for at in (low, high))
    return torch.add(torch.mul(first, 1 - weight), torch.mul(second, weight))
