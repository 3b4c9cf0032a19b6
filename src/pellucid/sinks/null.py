"""Nowhere: takes every frame and keeps none, to measure everything before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.protocols import Slot, Spec, Stream

__all__ = ["Null"]


@dataclass(config=ConfigDict(extra="forbid"))
class Null:
    """Take frames and forget them.

    Parameters
    ----------
    policy
        ``"block"``: every frame; ``"latest"``: the newest.
    """

    policy: Literal["block", "latest"] = "block"
    early: ClassVar[bool] = False

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Nothing to make ready."""

    def extend(self, stream: Stream, planes: Mapping[str, Spec]) -> None:
        """Take these as well."""

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Forget the frame."""

    def finish(self) -> None:
        """Nothing is under way."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Nothing to give back."""
