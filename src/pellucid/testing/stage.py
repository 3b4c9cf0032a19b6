"""The contract of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from pellucid.protocols import Spec, Stage, Stream

__all__ = ["check_stage"]


def check_stage(make: Callable[[], Stage], specs: Sequence[Spec], *, pixel_um: float | None = 0.1) -> None:
    """Run a stage through its life on planes of each Spec, and assert that it keeps `pellucid.protocols.Stage`.

    It fills the whole result whatever lay there before, leaves what it is given as it was, gives the same for
    the same, remembers nothing of the frame before, takes a black frame, does not hide NaN, and can be closed
    at any time and opened again.

    Parameters
    ----------
    make
        Returns a new stage.
    specs
        Planes that it must take.
    pixel_um
        Of the stream.

    Raises
    ------
    AssertionError
        Saying which part of the contract was broken.
    """
    make().close()  # before it was opened
    stage = make()
    assert isinstance(stage, Stage), "an attribute or a method of protocols.Stage is missing"
    for given in specs:
        _check(stage, given, pixel_um)
        stage.close()
        stage.close()


def _check(stage: Stage, given: Spec, pixel_um: float | None) -> None:
    at = f"with {given}"
    out = stage.open(Stream(given, pixel_um=pixel_um), given, "cpu")
    assert type(stage.captures) is bool, "captures is not a bool after open()"
    assert out.device == "cpu", f"opened on cpu, its result is on {out.device}"
    assert np.dtype(out.dtype).name == out.dtype, f"dtype {out.dtype} is not the name of a numpy type"
    rounds = np.dtype(out.dtype).kind in "ui"
    image = torch.from_numpy(np.random.default_rng(0).poisson(40, given.shape).astype(given.dtype))
    first, again = _run(stage, image, out, 0), _run(stage, image, out, 77)
    assert torch.equal(first, again), f"{at}: a pixel was not filled, or the same frame gave another result"
    assert torch.isfinite(first.double()).all(), f"{at}: the result of a finite frame is not finite"
    if rounds:
        witness = getattr(stage, "witness", None)
        assert isinstance(witness, torch.Tensor), f"{at}: a result of {out.dtype} needs a witness"
        assert witness.ndim == 0, f"{at}: the witness is not one number"
        assert witness.is_floating_point(), f"{at}: the witness is not a float"
        assert math.isfinite(witness.item()), f"{at}: the witness of a finite frame is not finite"
    black = _run(stage, torch.zeros_like(image), out, 77)
    assert torch.isfinite(black.double()).all(), f"{at}: a black frame gives NaN or infinity"
    if image.is_floating_point():
        image[tuple(n // 2 for n in given.shape)] = math.nan
        bad = _run(stage, image, out, 0)
        tells = stage.witness if rounds else bad.double().sum()  # type: ignore[attr-defined]
        assert not math.isfinite(tells.item()), f"{at}: NaN in the frame does not show in the result"
        image = image.nan_to_num(40.0)
        first = _run(stage, image, out, 0)
        assert torch.isfinite(first.double()).all(), f"{at}: the NaN of one frame is still there in the next"
        if rounds:
            assert math.isfinite(stage.witness.item()), f"{at}: the witness stays bad"  # type: ignore[attr-defined]


def _run(stage: Stage, image: torch.Tensor, out: Spec, before: int) -> torch.Tensor:
    given = image.clone()
    result = torch.full(out.shape, before, dtype=getattr(torch, out.dtype))
    with torch.inference_mode():
        stage(given, result)
    same = torch.equal(given.nan_to_num(-1.0), image.nan_to_num(-1.0)) if given.is_floating_point() else None
    assert torch.equal(given, image) if same is None else same, "the stage wrote into what it was given"
    return result
