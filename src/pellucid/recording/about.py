"""``recording.json``: what recovery, verification and replay have to know of a recording before they read a pixel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pellucid.errors import SinkError
from pellucid.protocols import Spec, Stream
from pellucid.recording.image import Plan
from pellucid.recording.schema import Malformed, about_of

__all__ = ["NAME", "About", "stream_row", "to_stream"]

NAME = "recording.json"
FORMAT = 1
_HINT = ". What pellucid process makes has no checksums: it is made again where there is doubt"


@dataclass
class About:
    """What is known of a recording.

    Parameters
    ----------
    state
        ``"recording"`` until it was ended; ``"finished"``; ``"recovered"``.
    version
        Of pellucid.
    began
        ISO 8601.
    file_format
        ``"ome-zarr"``, ``"ome-tiff"`` or ``"ndtiff"``.
    commit_every_s
        How much may be lost.
    streams
        As rows; see `to_stream`.
    parts
        Each with ``number``, ``images`` (plans as rows) and ``of``: for each stream's index the name of the image that
        each of its planes goes to.
    spill
        Where frames may wait, else empty.
    hashes
        Of the config, and by stream what its stages say of themselves: model, PSF, engine with its error bound.
    """

    state: str = "recording"
    version: str = ""
    began: str = ""
    file_format: str = "ome-zarr"
    commit_every_s: float = 1.0
    streams: list[dict[str, Any]] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    spill: str = ""
    hashes: dict[str, Any] = field(default_factory=dict)

    def text(self) -> bytes:
        """Return what the file holds."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1, default=str) + "\n").encode()

    @classmethod
    def read(cls, folder: Path) -> About:
        """Read that of a recording.

        Raises
        ------
        SinkError
            Where there is none, or none that this version understands.
        """
        path = folder / NAME
        try:
            text = path.read_bytes()
            told = json.loads(text)
        except FileNotFoundError:
            hint = _HINT if any(folder.glob("*.ome.zarr")) else ""
            raise SinkError(f"{folder} is no recording of pellucid: it has no {NAME}{hint}") from None
        except (OSError, ValueError) as error:
            raise SinkError(f"{path} is damaged: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise SinkError(f"{path} is damaged: it is nested too deeply") from None
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise SinkError(f"{path} is none that this version of pellucid reads (format {FORMAT})")
        try:
            about_of(text)
        except Malformed as error:
            raise SinkError(f"{path} is damaged: {error}") from None
        names = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in told.items() if key in names})

    def plans(self) -> dict[str, Plan]:
        """Return the plan of each image, by its name."""
        return {row["name"]: to_plan(row) for part in self.parts for row in part["images"]}


def to_plan(row: Mapping[str, Any]) -> Plan:
    """Return the plan that was kept as a row."""
    known = {each.name for each in fields(Plan)}
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key in known
    }
    return Plan(**given)


def stream_row(stream: Stream) -> dict[str, Any]:
    """Return a stream as a row of JSON types."""
    return asdict(stream)


def to_stream(row: Mapping[str, Any]) -> Stream:
    """Return the stream that was kept as a row."""
    spec = dict(row["spec"])
    spec["shape"] = tuple(spec["shape"])
    return Stream(**{**row, "spec": Spec(**spec)})
