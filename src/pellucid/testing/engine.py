"""The contract of an engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import torch

from pellucid.engines.fidelity import real_inputs, reference
from pellucid.errors import PellucidError
from pellucid.models import Engine, Made, Model

__all__ = ["check_engine"]


def check_engine(
    make: Callable[[], Engine], model: Model, shapes: Sequence[tuple[int, ...]], device: str = "cpu"
) -> None:
    """Run an engine through its life, and assert that it keeps `pellucid.models.Engine`.

    It says before it opens whether it can and what it takes; it fills the whole result whatever lay there before,
    leaves what it is given as it was, gives the same for the same wherever the memory lies, stays as near to float32
    as it says, refuses shapes that the model does not take in one line, and can be closed at any time and opened again.

    Parameters
    ----------
    make
        Returns a new engine.
    model
        One that it must take.
    shapes
        Of what goes in.
    device

    Raises
    ------
    AssertionError
        Saying which part of the contract was broken.
    """
    make().close()  # before it was opened
    engine = make()
    assert isinstance(engine, Engine), "an attribute or a method of models.Engine is missing"
    assert engine.missing(model, device) == "", f"it cannot run here: {engine.missing(model, device)}"
    for shape in shapes:
        _check(engine, model, shape, device)
        engine.close()
        engine.close()
    _refuses(engine, model, (*shapes[0], 1), device)
    bad = tuple(n + 1 if axis == "c" else n for axis, n in zip(model.given.axes, shapes[0], strict=True))
    _refuses(engine, model, bad if bad != shapes[0] else (0, *shapes[0][1:]), device)
    engine.close()


def _check(engine: Engine, model: Model, shape: tuple[int, ...], device: str) -> None:
    at = f"with {'x'.join(map(str, shape))}"
    needed = engine.needed(model, shape, device)
    assert type(needed) is int, f"{at}: needed() is not a whole number"
    assert needed > 0, f"{at}: needed() is not above 0"
    told: list[str] = []
    out = engine.open(model, shape, device, told.append)
    assert len(out) == len(model.result.axes), f"{at}: its result has {len(out)} axes, the model {model.result.axes}"
    assert told, f"{at}: it told nothing of what it took"
    assert all("\n" not in line for line in told), f"{at}: what it tells is not one line each"
    assert type(engine.captures) is bool, "captures is not a bool after open()"
    made = engine.made
    assert isinstance(made, Made), "made is not what models.Made says"
    json.dumps(dict(made.facts))
    picture = real_inputs(model, shape)[0]
    given = torch.from_numpy(picture).to(device)
    before = given.clone()
    first, again, elsewhere = (_run(engine, model, g, out, f) for g, f in ((given, 0), (given, 77), (given.clone(), 0)))
    assert torch.equal(given, before), f"{at}: it changed what it was given"
    assert torch.equal(first, again), f"{at}: a value was not filled, or the same frame gave another result"
    assert torch.equal(first, elsewhere), f"{at}: the same frame at another place gave another result"
    other = _run(engine, model, torch.zeros_like(given), out, 0)
    assert torch.isfinite(other.double()).all(), f"{at}: the result of a black frame is not finite"
    assert torch.equal(_run(engine, model, given, out, 0), first), f"{at}: it remembers the frame before"
    want = reference(model, shape, "check_engine")[0](picture).astype(np.float64)
    assert want.shape == out, f"{at}: its result is {out}, float32's {want.shape}"
    spread = max(float(want.max() - want.min()), 1e-12)
    far = float(np.abs(first.double().cpu().numpy() - want).max()) / spread
    said = made.fidelity.largest if made.fidelity else 1e-5
    assert far <= max(3 * said, 1e-5), f"{at}: {far:.2g} of the range from float32, it says {said:.2g}"


def _run(engine: Engine, model: Model, given: torch.Tensor, shape: tuple[int, ...], fill: float) -> torch.Tensor:
    result = torch.full(shape, fill, dtype=getattr(torch, model.result.dtype), device=given.device)
    engine(given, result)
    return result


def _refuses(engine: Engine, model: Model, shape: tuple[int, ...], device: str) -> None:
    said = ""
    try:
        engine.open(model, shape, device)
    except PellucidError as error:
        said = str(error)
    assert said, f"it opened for {shape}, which the model does not take"
    assert "\n" not in said, "an error is more than one line"
