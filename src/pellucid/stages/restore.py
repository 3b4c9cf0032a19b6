"""A network on every frame, live: of planes, of stacks, of the last frames.

What is done to a frame before and after is in `pellucid.restoration`; what runs the network is an engine, which the
stage is handed. Here a config's keys become the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import StageError, did_you_mean
from pellucid.memory import Needed, limit_bytes
from pellucid.models import shelf
from pellucid.models.engine import Engine
from pellucid.models.model import Model
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.restoration.fit import Fit, Task, fit
from pellucid.restoration.named import file_of
from pellucid.restoration.network import Restoration
from pellucid.restoration.normalise import Normalise, steps

__all__ = ["Restore"]

WHERE = 'stage "restore"'
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
_COLOURS = 3


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class Restore:
    """Run a network on every frame: denoise it, sharpen it, make more pixels of it.

    A network of planes takes the planes of a stack one by one; one of volumes takes the stack
    (``[session] unit = "stack"``). The colours of a picture go through it one by one, unless it was trained with three.

    Parameters
    ----------
    model
        A name (``"denoise"``; type ``pellucid models list``), a file or package seen from the config's folder, or the
        nickname of a model at bioimage.io.
    engine
        What runs it: ``"auto"`` (the best one here), ``"openvino"``, ``"torch"``, ``"tensorrt"``, ``"tensorrt-rtx"``,
        or a table with ``kind`` and keys of its own: ``{ kind = "openvino", precision = "float32" }``.
    reads, writes
        Names of planes; None: connected to the stage before.
    normalise
        How counts become the network's numbers. None: as the model's card says. ``"none"``: counts as they are.
        ``{ kind = "percentiles", low = 0.1, high = 99.9 }`` of the frame become 0 and 1; ``{ kind = "mean" }``: mean 0,
        standard deviation 1; ``{ kind = "fixed", offset = 100, scale = 2000 }``: the same for all frames. The result is
        brought back into counts, but with ``undo = false`` in the table.
    adapt_frames
        What is measured of the frames for that follows them slowly: the mean of those that came, and after so many
        an exponential mean with this time constant. 0: each frame by itself. It is measured of the whole frame, never
        of a tile. ``pellucid process`` takes each frame by itself, whatever is said here: what a frame becomes must not
        depend on where a worker began.
    frames
        The network is given so many frames, the newest last: its channels. None: as the model's card says. Where fewer
        have come, and where an experiment goes to another position, the first stands for those before it.
    tile
        Sides of the tiles, ``[y, x]`` or ``[z, y, x]``, halo included. None: whole frames if network and memory allow
        it, else the largest tiles that fit.
    batch
        Tiles, planes or colours at once; None: one on a CPU, as many as fit on a GPU.
    memory_gb
        Never take more beside the pictures; None: three quarters of what this computer or container has (less the
        pictures), 80% of a GPU's.
    output
        ``"float32"``, or ``"uint16"``: values times `scale`, rounded and clipped at 0 and 65535. A float frame that
        holds NaN or infinite light comes out NaN all over, or, as uint16 has no NaN, 0 all over: `witness` tells.
    scale
        Grey values a count, the same for the whole run and written beside the pixels.

    Attributes
    ----------
    witness : torch.Tensor or None
        With ``output = "uint16"`` and while open: the sum of the result before it was rounded, as
        `pellucid.protocols.Stage` has it.
    noted, notes
        ``("offset", "scale")`` and their values for the last frame: counts that were 0 to the network, and counts that
        were 1 more.
    adapts : bool
        False makes `adapt_frames` 0; set it before ``open``.
    share : float
        Of the memory; the rest is for the stages beside it. Set it before ``open``.
    tell : callable or None
        Gets lines while an engine is built; set it before ``open``.
    """

    model: str
    engine: Any = "auto"
    reads: str | None = None
    writes: str | None = None
    normalise: Normalise = None
    adapt_frames: Annotated[float, Field(ge=0, le=1e6)] = 100.0
    frames: Annotated[int, Field(ge=1, le=64)] | None = None
    tile: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_gb: Annotated[float, Field(gt=0, le=1e6)] | None = None
    output: Literal["float32", "uint16"] = "float32"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    fixed: ClassVar[tuple[str, ...]] = ("output", "scale")

    @field_validator("model")
    @classmethod
    def _there(cls, model: str, info: ValidationInfo) -> str:
        if not model.strip() or "\0" in model:
            raise ValueError('a name or a file is needed, such as model = "denoise". Type: pellucid models list')
        path = file_of(model, Path((info.context or {}).get("folder") or Path.cwd()))
        if path is None:
            return model
        if not path.exists():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ValueError(f"{path} does not exist.{did_you_mean(path.name, beside)}")
        return str(path)

    @field_validator("tile")
    @classmethod
    def _sides(cls, tile: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if tile is not None and len(tile) not in (2, 3):
            raise ValueError("two sides are needed, [y, x], or three, [z, y, x]")
        return tile

    def __post_init__(self) -> None:
        self.captures = False
        self.colours = True  # one call for all three: each has a history and statistics of its own
        self.adapts = True
        self.history = 0
        self.witness: torch.Tensor | None = None
        self.noted: tuple[str, ...] = ("offset", "scale")
        self.notes: torch.Tensor | None = None
        self.black = "the frame is black, or the model knows nothing like it"
        self.needed = Needed(0, 0, 0)
        self.tell: Callable[[str], None] | None = None
        self.share = 1.0
        self._wish = self.tile
        self._bound: Restoration | None = None
        self._place: tuple[int, ...] | None = None
        self._moves = False
        self._told: dict[str, Any] = {}

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Find the model, choose tiles, open the engine, allocate.

        Raises
        ------
        PellucidError
            One line: a model that is not there or not in order, an engine that cannot run it here, frames that it does
            not take, too little memory even for tiles.
        """
        self.close()
        model = shelf.find(self.model)
        engine = self._engine(model, device)
        task, shared, remembers = self._task(model, given, device)
        before, after, counts = steps(model, self.normalise)
        plan = self._plan(model, engine, task, given)
        adapt = self.adapt_frames if self.adapts else 0.0
        bound = self._bound = Restoration(
            model,
            engine,
            task,
            plan,
            before,
            after,
            shared=shared,
            remembers=remembers,
            adapt_frames=adapt,
            scale=self.scale,
            tell=self.tell,
        )
        self.tile = None if plan.tiles == 1 else plan.tile
        self.needed = Needed(plan.nbytes, plan.nbytes, plan.nbytes)
        self.history = task.channels - 1 if remembers else 0
        # Where an experiment goes from place to place the frames before may be those of another one.
        self._moves = remembers and any(stream.sizes.get(axis, 1) > 1 for axis in "pgz")
        self._place = None
        self.captures = bound.captures and not self._moves
        self.witness = bound.light if self.output == "uint16" else None
        self.notes = bound.notes
        self._told = self._describe(model, engine, task, plan, before, adapt)
        shape = (*given.shape[:-2], *(n * model.scale for n in given.shape[-2:]))
        return Spec(shape, self.output, device, given.axes, self._facts(model, counts), zoom=model.scale)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: restore `given` into `result`."""
        assert self._bound is not None, "open the stage first"
        self._bound(given, result)

    def at(self, info: FrameInfo) -> None:
        """Note where the next frame was taken; only a network with a memory has to know."""
        if self._moves and self._bound is not None:
            axes = info.axes or {}
            place = axes.get("p", 0), axes.get("g", 0), axes.get("z", 0)
            if place != self._place:
                self._place = place
                self._bound.forget_frames()

    def forget(self) -> None:
        """Forget the frames that came, such as those of zeros with which a chain is tried out."""
        self._place = None
        if self._bound is not None:
            self._bound.forget()

    def describe(self) -> dict[str, Any]:
        """Return what the report says: ``model``, ``engine``, ``normalise``, ``tiles``; JSON types only."""
        return self._told

    def close(self) -> None:
        """Close the engine, give the memory back."""
        if self._bound is not None:
            self._bound.close()
        self._bound = self.witness = self.notes = None
        self.tile = self._wish

    # ---------------------------------------------------------------- decisions

    def _engine(self, model: Model, device: str) -> Engine:
        engine = self.engine
        if not isinstance(getattr(engine, "missing", None), Callable):  # type: ignore[arg-type]
            raise StageError(f"{WHERE}: engine = {engine!r} is a name; from Python give an engine itself")
        if why := engine.missing(model, device):
            raise StageError(f"{WHERE}: {why}")
        found: Engine = engine
        return found

    def _task(self, model: Model, given: Spec, device: str) -> tuple[Task, bool, bool]:
        """Return what is to be restored, whether its pictures belong together, and whether earlier ones are needed."""
        if given.dtype not in TYPES or given.axes not in ("yx", "zyx", "cyx") or min(given.shape) < 1:
            raise StageError(
                f"{WHERE}: given {given} with axes {given.axes}; it takes planes (y, x), stacks (z, y, x) and colour "
                f"pictures of {', '.join(TYPES)}"
            )
        ndim, channels, results = model.given.ndim, model.given.channels, model.result.channels
        if ndim == 3 and given.axes != "zyx":
            raise StageError(
                f'{WHERE}: model "{model.name}" takes stacks (z, y, x), given {given} with axes {given.axes}. '
                'Set [session] unit = "stack", with a source that gives z-stacks'
            )
        frames = self.frames or model.frames
        colours = frames == 1 and channels == results == _COLOURS and given.is_colour
        if not colours and (channels != frames or results != 1):
            hint = (
                f" If they are the last {channels} frames, add frames = {channels}" if channels > 1 == results else ""
            )
            raise StageError(
                f'{WHERE}: model "{model.name}" takes {channels} channels and gives {results}, and it is given '
                f"{frames} frame{'s' * (frames > 1)} of {given}; one channel comes out of a stage.{hint}"
            )
        space = given.shape if ndim == 3 else given.shape[-2:]
        pictures = 1 if colours or len(given.shape) == ndim else given.shape[0]
        task = Task(pictures, channels, space, given.dtype, self.output, results, device)
        return task, given.axes == "zyx", frames > 1

    def _plan(self, model: Model, engine: Engine, task: Task, given: Spec) -> Fit:
        tile = self._wish
        if tile is not None and len(tile) != len(task.space):
            raise StageError(f"{WHERE}: tile = {list(tile)} for pictures of {len(task.space)} axes")
        beside = 2 * given.nbytes + Spec(given.shape, self.output).nbytes * model.scale**2
        allowed = self.memory_gb * 1e9 if self.memory_gb is not None else limit_bytes(task.device, beside)
        try:
            return fit(model, engine, task, int(allowed * self.share), tile=tile, batch=self.batch)
        except StageError as error:
            raise StageError(f"{WHERE}: {error}") from None

    # ---------------------------------------------------------------- what is told

    def _describe(
        self, model: Model, engine: Engine, task: Task, plan: Fit, before: tuple[Any, ...], adapt: float
    ) -> dict[str, Any]:
        made = asdict(engine.made)
        told = {
            "model": {
                "name": model.name,
                "sha256": model.sha256,
                "scale": model.scale,
                **{k: v for k, v in model.card.items() if k in ("licence", "description", "trained") and v},
            },
            "engine": made | {"facts": dict(engine.made.facts)},
            "normalise": {
                "steps": [{"name": step.name, **step.keys} for step in before],
                "adapt_frames": adapt,
            },
            "frames": task.channels if self.history else 1,
            "tiles": {
                "tile": list(plan.tile),
                "of_each_picture": plan.tiles,
                "batch": plan.batch,
                "halo": [axis.halo for axis in plan.axes],
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(told, default=str))  # a card may hold anything
        return plain

    def _facts(self, model: Model, counts: bool) -> dict[str, Any]:
        rounded = self.output == "uint16"
        unit = "camera counts" if counts else "as the network gives them"
        return {
            "unit": unit + (f" times {self.scale:g}" if rounded else ""),
            "grey_values_per_count": self.scale if rounded else 1.0,
            "restored": model.name,
            "model": self._told["model"],
            "engine": self._told["engine"],
            "normalise": self._told["normalise"],
        }
