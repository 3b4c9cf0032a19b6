"""One frame in, one out: a model bound to an engine and to frames of one shape.

The whole frame is measured and scaled, cut where it must be, given to the network, put together and scaled back. All
memory is taken when it is made. Nothing in a call waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pellucid.errors import StageError
from pellucid.models.engine import Engine
from pellucid.models.model import Model, Operation, Port
from pellucid.restoration.fit import Fit, Task, is_direct, shape_of
from pellucid.restoration.history import History
from pellucid.restoration.operations import After, Before
from pellucid.restoration.tiles import Tiling

__all__ = ["Restoration"]

_LARGEST = 1e3
"""In units of a frame's range, for engines that compute with numbers up to 65504."""


class Restoration:
    """Restores frames of one shape and type.

    Parameters
    ----------
    model
    engine
        Not yet open; it is opened here, and closed by `close`.
    task, plan
        What is to be restored, and how `pellucid.restoration.fit.fit` would have it.
    before, after
        What is done before and after the network.
    shared
        Pictures of a frame are planes of one stack and are scaled alike.
    remembers
        The channels are the last frames.
    adapt_frames
        Time constant of what is measured of the frames; 0: each by itself.
    scale
        Grey values a count, for results of integers.
    tell
        Gets lines while the engine is built.

    Attributes
    ----------
    light : torch.Tensor
        After a call: the sum of the result before it was rounded; not finite if any pixel of the frame was not.
    notes : torch.Tensor
        See `pellucid.restoration.operations.Before`.

    Raises
    ------
    StageError
        One line, where engine and model do not go together with such frames.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        task: Task,
        plan: Fit,
        before: Sequence[Operation],
        after: Sequence[Operation],
        *,
        shared: bool,
        remembers: bool,
        adapt_frames: float,
        scale: float = 1.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._engine, self._scale = engine, scale
        self._rounds = task.output != "float32"
        self._may_be_nan = np.dtype(task.dtype).kind == "f"
        n, c, device = task.pictures, task.channels, task.device
        self._tiling = tiling = Tiling(plan.axes, n, plan.batch, model.scale, device)
        shape = shape_of(model.given, plan.batch, c, plan.tile)
        came = engine.open(model, shape, device, tell)
        try:
            self._allocate(model, task, plan, shape, came, remembers)
            limit = _LARGEST if "float16" in (engine.made.precision, model.given.dtype) else None
            full = (n, c, *task.space)
            ends = (n, task.results, *(m * s for m, s in zip(task.space, tiling.scales, strict=True)))
            self._before = Before(before, full, shared=shared, adapt_frames=adapt_frames, device=device, limit=limit)
            self._after = After(after, self._before, full, ends, shared=shared, device=device)
        except BaseException:
            engine.close()
            raise
        self.notes = self._before.notes

    def _allocate(
        self, model: Model, task: Task, plan: Fit, shape: tuple[int, ...], came: tuple[int, ...], remembers: bool
    ) -> None:
        n, c, device, tiling = task.pictures, task.channels, task.device, self._tiling
        side = tuple(s * k for s, k in zip(plan.tile, tiling.scales, strict=True))
        wanted = shape_of(model.result, plan.batch, task.results, side)
        if tuple(came) != wanted:
            raise StageError(
                f'model "{model.name}" gives {"x".join(map(str, came))} for {"x".join(map(str, shape))}, '
                f"where its card has {'x'.join(map(str, wanted))}; mend scale and axes there"
            )
        with torch.inference_mode(False):
            self._tile_in = torch.zeros(shape, dtype=getattr(torch, model.given.dtype), device=device)
            self._tile_out = torch.zeros(wanted, dtype=getattr(torch, model.result.dtype), device=device)
            self._in, self._out = _usual(self._tile_in, model.given), _usual(self._tile_out, model.result)
            self._direct = is_direct(model.given, plan.axes, plan.batch, n)
            self._frame = self._in if self._direct else torch.zeros((n, c, *task.space), device=device)
            self._history = History(c, (n, *task.space), device) if remembers else None
            self._padded = None if tiling.padded is None else torch.zeros((n, c, *tiling.padded), device=device)
            whole_out = self._direct and self._tile_out.dtype == torch.float32
            self._kept = self._out if whole_out else None
            ends = (n, task.results, *(m * k for m, k in zip(task.space, tiling.scales, strict=True)))
            if self._kept is None and self._rounds:
                self._kept = torch.zeros(ends, device=device)
            self._ends = ends
            self.light = torch.zeros((), device=device)
            self._bad = torch.zeros((), device=device)

    @property
    def captures(self) -> bool:
        """It can be captured in a CUDA graph."""
        return self._engine.captures

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result` from `given`; the caller owns both."""
        frame, tiling = self._frame, self._tiling
        self._load(given)
        self._after.look(frame)
        self._before(frame)
        whole = self._kept if self._kept is not None else result.view(self._ends)
        if self._direct:
            self._engine(self._tile_in, self._tile_out)
            if whole is not self._out:
                whole.copy_(self._out)
        else:
            picture = frame
            if self._padded is not None:
                picture = self._padded
                tiling.pad(frame, picture)
            if tiling.blends:
                whole.zero_()
            for turn in range(tiling.rounds):
                tiling.cut(picture, turn, self._in)
                self._engine(self._tile_in, self._tile_out)
                tiling.put(self._out, turn, whole)
        self._after(whole)
        if self._may_be_nan:
            whole.add_(self._bad)
        if self._rounds:
            torch.sum(whole, dim=tuple(range(whole.ndim)), out=self.light)
            whole.mul_(self._scale).round_().clamp_(0, 65535).nan_to_num_(0.0)
        if whole is self._kept:
            result.copy_(whole.view(result.shape))

    def _load(self, given: torch.Tensor) -> None:
        """Put the frame, or the last frames, where they are scaled."""
        history = self._history
        newest = self._frame if history is None else history.newest
        newest.copy_(given.view(newest.shape))
        if self._may_be_nan:
            # A network would spread a bad pixel as far as it sees, or hide it (the larger of NaN and 0 is 0 for some):
            # it is given a 0 there, and all of the result is NaN.
            torch.sum(newest - newest, dim=tuple(range(newest.ndim)), out=self._bad)
            newest.nan_to_num_(0.0, 0.0, 0.0)
        if history is not None:
            history(self._frame)

    def forget(self) -> None:
        """Begin anew: no frame has come yet."""
        self._before.forget()
        if self._history is not None:
            self._history.forget()

    def forget_frames(self) -> None:
        """Begin anew with the frames; what was measured of the light goes on."""
        if self._history is not None:
            self._history.forget()

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def _usual(tensor: torch.Tensor, port: Port) -> torch.Tensor:
    """Return a view of a network's tensor with the axes b, c, (z,) y, x."""
    order = [axis for axis in "bczyx" if axis in port.axes]
    view = tensor.permute([port.axes.index(axis) for axis in order])
    if "c" not in order:
        view = view.unsqueeze(0 if "b" not in order else 1)
    return view if "b" in order else view.unsqueeze(0)
