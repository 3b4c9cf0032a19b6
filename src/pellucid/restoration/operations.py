"""The steps of bioimage.io before and after a network, on tensors ``(n, c, [z,] y, x)`` of float32, in place.

https://bioimage.io/spec: ``preprocessing`` and ``postprocessing`` of a model. What is done before the network and only
moves and stretches the values is kept as one offset and one gain, by which ``as_given`` brings the result back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pellucid.errors import StageError
from pellucid.models.model import Operation
from pellucid.restoration.statistics import Groups, Moments, Percentiles, Statistic

__all__ = ["SCALING", "After", "Before"]

SCALING = (
    "scale_range",
    "zero_mean_unit_variance",
    "fixed_zero_mean_unit_variance",
    "scale_linear",
    "scale_mean_variance",
)
"""Those that say in which units a network counts."""
_OTHERS = ("clip", "sigmoid", "softmax", "binarize", "ensure_dtype")
_CHANNEL = ("channel", "c")
Pointwise = Callable[[torch.Tensor], torch.Tensor]


class Before:
    """What is done to a frame, or to the last frames, before the network.

    Parameters
    ----------
    operations
    shape
        ``(n, c, [z,] y, x)`` of what is given.
    shared
        The `n` pictures are planes of one stack and are scaled alike; else each by itself.
    adapt_frames
        Time constant of the statistics; 0: of each frame.
    device
    limit
        Values beyond it are cut off, for engines whose numbers end at 65504; None for others.

    Attributes
    ----------
    offset, gain : torch.Tensor
        ``(n, c, 1, ...)``: the last frame was given to the network as ``(x - offset) * gain``.
    notes : torch.Tensor
        ``(2, k)``: offset and scale (counts for one unit of the network) of each picture that was scaled by itself.

    Raises
    ------
    StageError
        For a step that is not known, or not with these arguments.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        shape: Sequence[int],
        *,
        shared: bool,
        adapt_frames: float,
        device: str,
        limit: float | None = None,
    ) -> None:
        n, c, *space = shape
        self._limit = limit
        self._steps: list[tuple[bool, Any]] = []
        for operation in operations:
            try:
                made = _scaling(operation, shape, shared, adapt_frames, device, limit)
                point = None if made is not None else _pointwise(operation, device, len(shape))
            except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
                told = f"{operation.name} with {dict(operation.keys)}"
                raise StageError(f"its step {told} cannot be done ({str(error).splitlines()[0][:80]})") from None
            if made is not None:
                self._steps.append((True, made))
            elif point is not None:
                self._steps.append((False, point))
        of_each = [c for _, step in self._steps if isinstance(step, Statistic) and step._groups.shape[1] > 1]
        self._noted = (1 if shared else n, max([1, *of_each]))
        with torch.inference_mode(False):
            self.offset = torch.zeros((n, c, *(1 for _ in space)), device=device)
            self.gain = torch.ones_like(self.offset)
            self.notes = torch.zeros((2, self._noted[0] * self._noted[1]), device=device)

    def __call__(self, x: torch.Tensor) -> None:
        """Hot: turn camera counts into the network's units."""
        self.offset.zero_()
        self.gain.fill_(1)
        for scales, step in self._steps:
            if not scales:
                step(x)
                continue
            offset, width = step(x)
            x.sub_(offset).div_(width)
            self.offset.addcdiv_(offset, self.gain)
            self.gain.div_(width)
        if self._limit is not None:
            x.clamp_(-self._limit, self._limit)
        pictures, channels = self._noted
        self.notes[0].copy_(self.offset[:pictures, -channels:].reshape(-1))
        self.notes[1].copy_(self.gain[:pictures, -channels:].reshape(-1).reciprocal())

    def forget(self) -> None:
        """Begin anew with statistics that follow the frames."""
        for _, step in self._steps:
            if isinstance(step, Statistic):
                step.forget()


class After:
    """What is done to the network's whole result.

    Parameters
    ----------
    operations
    before
        For ``as_given``.
    given, result
        ``(n, c, [z,] y, x)`` of what goes in and of what comes out.
    shared, device
        As for `Before`.

    Raises
    ------
    StageError
        For a step that is not known, or not with these arguments.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        before: Before,
        given: Sequence[int],
        result: Sequence[int],
        *,
        shared: bool,
        device: str,
    ) -> None:
        self._before = before
        self._given: list[tuple[Statistic, torch.Tensor]] = []
        self._steps: list[Pointwise] = []
        for operation in operations:
            if operation.name == "as_given":
                self._steps.append(self._as_given(given[1] == result[1]))
            elif operation.name == "scale_mean_variance":
                self._steps.append(self._like_given(operation, given, result, shared, device))
            elif (made := _scaling(operation, result, shared, 0.0, device)) is not None:
                if operation.keys.get("reference_tensor") is not None:
                    raise StageError(
                        f"{operation.name} after the network with a reference_tensor is not supported; give normalise"
                    )
                self._steps.append(_scaled(made))
            elif (point := _pointwise(operation, device, len(result))) is not None:
                self._steps.append(point)

    def look(self, x: torch.Tensor) -> None:
        """Hot: before `Before` changes it, measure of what is given what a step here asks for."""
        for statistic, kept in self._given:
            for at, value in zip(kept, statistic(x), strict=True):
                at.copy_(value)

    def __call__(self, result: torch.Tensor) -> None:
        """Hot: bring the network's result into the units that its author meant."""
        for step in self._steps:
            step(result)

    def _as_given(self, alike: bool) -> Pointwise:
        offset, gain = (t if alike else t[:, -1:] for t in (self._before.offset, self._before.gain))
        return lambda result: result.div_(gain).add_(offset)

    def _like_given(
        self, operation: Operation, given: Sequence[int], result: Sequence[int], shared: bool, device: str
    ) -> Pointwise:
        own = Groups(result, shared=shared, each_channel=_each_channel(operation, result))
        theirs = Groups(given, shared=shared, each_channel=_each_channel(operation, given) and given[1] == result[1])
        eps = float(operation.keys.get("eps", 1e-6))
        mine = Moments(own, eps, 0.0, device)
        with torch.inference_mode(False):
            kept = torch.zeros((2, *theirs.shape), device=device)
        self._given.append((Moments(theirs, eps, 0.0, device), kept))

        def scale(x: torch.Tensor) -> torch.Tensor:
            mean, std = mine(x)
            return x.sub_(mean).div_(std).mul_(kept[1]).add_(kept[0])

        return scale


def _scaled(step: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Pointwise:
    def scale(x: torch.Tensor) -> torch.Tensor:
        offset, width = step(x)
        return x.sub_(offset).div_(width)

    return scale


def _each_channel(operation: Operation, shape: Sequence[int]) -> bool:
    axes = operation.keys.get("axes")
    return axes is not None and shape[1] > 1 and not any(str(axis) in _CHANNEL for axis in axes)


def _scaling(
    operation: Operation,
    shape: Sequence[int],
    shared: bool,
    frames: float,
    device: str,
    limit: float | None = None,
) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None:
    """Return what gives offset and width for a tensor of `shape`; None where the operation is none of these."""
    keys = operation.keys
    groups = Groups(shape, shared=shared, each_channel=_each_channel(operation, shape))
    if operation.name == "scale_range":
        low, high = float(keys.get("min_percentile", 0.0)), float(keys.get("max_percentile", 100.0))
        return Percentiles(groups, low, high, float(keys.get("eps", 1e-6)), frames, device, limit)
    if operation.name == "zero_mean_unit_variance" and "mean" not in keys:
        return Moments(groups, float(keys.get("eps", 1e-6)), frames, device, limit)
    if operation.name in ("zero_mean_unit_variance", "fixed_zero_mean_unit_variance"):
        offset, width = _numbers(keys, "mean", 0.0, shape, device), _numbers(keys, "std", 1.0, shape, device)
    elif operation.name == "scale_linear":
        gain = _numbers(keys, "gain", 1.0, shape, device)
        if not bool((gain != 0).all()):
            raise StageError("scale_linear with gain = 0 leaves nothing of the picture; give normalise")
        offset, width = -_numbers(keys, "offset", 0.0, shape, device) / gain, 1 / gain
    else:
        return None
    return lambda _: (offset, width)


def _numbers(keys: Mapping[str, Any], key: str, otherwise: float, shape: Sequence[int], device: str) -> torch.Tensor:
    """Return a number, or one for each channel, so that it can be combined with a tensor of `shape`."""
    with torch.inference_mode(False):
        given = torch.as_tensor(keys.get(key, otherwise), dtype=torch.float32, device=device).reshape(-1)
    if given.numel() not in (1, shape[1]):
        raise StageError(f"{key} = {given.tolist()} for {shape[1]} channels; give normalise")
    return given.reshape(1, -1, *(1 for _ in shape[2:]))


def _pointwise(operation: Operation, device: str, ndim: int) -> Pointwise | None:
    """Return what is done to each value by itself; None where there is nothing to do."""
    keys = operation.keys
    if operation.name == "ensure_dtype":
        return None  # the tensors have the types of the network's ports
    if operation.name == "clip":
        low, high = keys.get("min"), keys.get("max")
        if low is None and high is None:
            raise StageError("clip without min and max is not supported; give normalise")
        return lambda x: x.clamp_(low, high)
    if operation.name == "sigmoid":
        return lambda x: x.sigmoid_()
    if operation.name == "softmax":
        return lambda x: x.copy_(x.softmax(dim=1))
    if operation.name == "binarize":
        threshold = keys.get("threshold")
        if not isinstance(threshold, int | float):
            raise StageError("binarize takes one threshold here; give normalise")
        return lambda x: x.copy_(x > threshold)
    known = ", ".join((*SCALING, *_OTHERS, "as_given"))
    raise StageError(f'its step "{operation.name}" is not known here; known are {known}')
