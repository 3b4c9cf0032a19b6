"""The ``[session.view]`` part of a config: who may look from another computer."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import WireError
from pellucid.sources._paths import from_folder
from pellucid.wire.keys import Curve, check_endpoint

__all__ = ["ViewSettings"]


@dataclass(config=ConfigDict(extra="forbid"))
class ViewSettings:
    """Lets windows of other computers come: ``pellucid view tcp://THIS-COMPUTER:5610 --keys FILE``.

    Parameters
    ----------
    keys
        File with this side's CURVE keys and the list of those who may come, as ``pellucid keys`` makes it.
    address
        ``tcp://HOST:PORT`` to listen at.
    control
        Those who look may change parameters, record and snap as well.
    """

    keys: Path
    address: str = "tcp://0.0.0.0:5610"
    control: bool = False

    @field_validator("address")
    @classmethod
    def _is_endpoint(cls, text: str) -> str:
        check_endpoint(text, bind=True)
        return text

    @field_validator("keys")
    @classmethod
    def _place(cls, path: Path, info: ValidationInfo) -> Path:
        return from_folder(path, info)

    def ready(self) -> None:
        """Raise what a session with it would for want of keys."""
        self.curve()

    def curve(self) -> Curve:
        """Read the keys.

        Raises
        ------
        WireError
            Where there are none, or nobody may come.
        """
        curve = Curve.load(self.keys)
        if not curve.allowed:
            raise WireError(
                f"session.view: {self.keys} names nobody who may look. Type: pellucid keys {self.keys} --allow KEY, "
                "with the public key of the other computer"
            )
        return curve
