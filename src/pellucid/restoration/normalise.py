"""How counts become what a network was trained with: as its card says, or as a config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pellucid.errors import did_you_mean
from pellucid.models.model import Model, Operation
from pellucid.restoration.operations import SCALING

__all__ = ["Fixed", "MeanAndSpread", "Normalise", "PercentileRange", "steps"]

STRICT = ConfigDict(extra="forbid")
Finite = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100)]


@dataclass(config=STRICT, kw_only=True)
class PercentileRange:
    """A low percentile of the frame becomes 0, a high one 1.

    Parameters
    ----------
    low, high
        In percent.
    undo
        The result is brought back into camera counts.
    """

    kind: Literal["percentiles"] = "percentiles"
    low: Percent = 0.1
    high: Percent = 99.9
    undo: bool = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")

    @property
    def operation(self) -> Operation:
        """As bioimage.io has it."""
        return Operation("scale_range", {"min_percentile": self.low, "max_percentile": self.high})


@dataclass(config=STRICT, kw_only=True)
class MeanAndSpread:
    """The mean of the frame becomes 0, its standard deviation 1.

    Parameters
    ----------
    undo
        The result is brought back into camera counts.
    """

    kind: Literal["mean"] = "mean"
    undo: bool = True

    @property
    def operation(self) -> Operation:
        """As bioimage.io has it."""
        return Operation("zero_mean_unit_variance")


@dataclass(config=STRICT, kw_only=True)
class Fixed:
    """The same for all frames: `offset` counts become 0, `scale` counts more become 1.

    Parameters
    ----------
    offset, scale
        In camera counts.
    undo
        The result is brought back into camera counts.
    """

    kind: Literal["fixed"] = "fixed"
    offset: Finite = 0.0
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    undo: bool = True

    @property
    def operation(self) -> Operation:
        """As bioimage.io has it."""
        return Operation("fixed_zero_mean_unit_variance", {"mean": self.offset, "std": self.scale})


_KINDS: dict[str, Any] = {"percentiles": PercentileRange, "mean": MeanAndSpread, "fixed": Fixed}


def _read(given: Any) -> Any:
    """Turn a table, or the name of one, into one of the classes above; say in one line what is wrong with it."""
    if given is None or given == "none" or isinstance(given, tuple(_KINDS.values())):
        return given
    table = {"kind": given} if isinstance(given, str) else given
    told = 'give "none", or a table with kind = "percentiles", "mean" or "fixed"'
    if not isinstance(table, Mapping):
        raise ValueError(told)
    keys = dict(table)
    kind = keys.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f'kind = "{kind}" is no way to normalise.{did_you_mean(str(kind), [*_KINDS, "none"])} {told}')
    try:
        return TypeAdapter(_KINDS[kind]).validate_python(keys)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] == "unexpected_keyword_argument":
            names = [name for name in _KINDS[kind].__dataclass_fields__ if name != "kind"]
            text = f"no such key.{did_you_mean(str(first['loc'][-1]), names)} Allowed: {', '.join(names)}"
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {text[0].lower() + text[1:]}") from None


Normalise = Annotated[PercentileRange | MeanAndSpread | Fixed | Literal["none"] | None, BeforeValidator(_read)]
"""What the key ``normalise`` takes."""


def steps(model: Model, normalise: Any) -> tuple[tuple[Operation, ...], tuple[Operation, ...], bool]:
    """Return what is done before and after the network, and whether the result is in camera counts.

    What a config says takes the place of all steps of the card that scale; those that clip, or make labels of numbers,
    stay.
    """
    back = Operation("as_given")
    if normalise is None:
        before, after = model.before, model.after
        # Without any step the network counts as the camera does.
        plain = not any(step.name in SCALING for step in (*before, *after))
        return before, after, plain or any(step.name in ("as_given", "scale_mean_variance") for step in after)
    before, after = (
        tuple(step for step in some if step.name not in (*SCALING, "as_given")) for some in (model.before, model.after)
    )
    if normalise == "none":
        return before, after, True
    return (normalise.operation, *before), ((back, *after) if normalise.undo else after), normalise.undo
