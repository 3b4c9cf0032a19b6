"""What the files of a recording may say: held against this before anything believes it.

A disk that failed, an editor, or another version can leave anything in them. Whatever does not fit is named with its
place, in one line; nothing is converted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

__all__ = ["Malformed", "about_of", "journal_line_of", "row_of"]


class Malformed(ValueError):
    """Where and what does not fit; one line."""


def _is_dtype(name: str) -> str:
    if name not in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64"):
        raise ValueError(f"{name[:40]!r} is no type of pixels")
    return name


def _is_inside(name: str) -> str:
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or re.search(r"[\\:\x00]", name):
        raise ValueError(f"{name[:80]!r} does not lie in the recording")
    return name


Count = Annotated[int, Field(ge=0, lt=2**53)]
Side = Annotated[int, Field(ge=1, le=2**20)]
Dtype = Annotated[str, AfterValidator(_is_dtype)]
Name = Annotated[str, AfterValidator(_is_inside)]
Um = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ms = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sum = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Place = tuple[Count, Count, Count, Count]
Index = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]


class _Table(BaseModel):
    # Keys that a later version adds are let be.
    model_config = ConfigDict(extra="allow", strict=True)


class _Spec(_Table):
    shape: Annotated[tuple[Side, ...], Field(min_length=2, max_length=3)]
    dtype: Dtype
    device: str = "cpu"
    axes: Literal["", "yx", "zyx", "cyx"] = ""
    facts: dict[str, Any] = {}
    zoom: Annotated[int, Field(ge=1, le=64)] = 1


class _Stream(_Table):
    spec: _Spec
    index: Count
    camera: str = ""
    channel: str = ""
    pixel_um: Um | None = None
    z_um: float | None = None
    exposure_ms: Ms | None = None
    bit_depth: Count | None = None
    frames: Count | None = None
    sizes: dict[str, Count] = {}
    names: dict[str, list[str]] = {}
    replaces: Count | None = None
    details: dict[str, Any] = {}


class _Image(_Table):
    plane: str
    name: Name
    dtype: Dtype
    size: tuple[Side, Side]
    channels: Annotated[list[str], Field(min_length=1)]
    is_colour: bool = False
    depth: Side | None = None
    positions: list[str] = []
    time_points: Count | None = None
    pixel_um: Um | None = None
    z_um: float | None = None
    exposure_ms: list[Ms | None] = []
    facts: dict[str, Any] = {}
    compression: Literal["none", "blosc-lz4", "blosc-zstd", "zstd"] = "none"
    shard_frames: Side = 1


class _Part(_Table):
    number: Count
    images: list[_Image]
    of: dict[Index, dict[str, str]]
    take: Count = 0
    name: str = ""


class _About(_Table):
    state: Literal["recording", "finished", "recovered"]
    version: str = ""
    began: str = ""
    file_format: Literal["ome-zarr", "ome-tiff", "ndtiff"] = "ome-zarr"
    commit_every_s: Ms = 1.0
    streams: list[_Stream] = []
    parts: list[_Part] = []
    spill: str = ""
    hashes: dict[str, Any] = {}


class _Row(_Table):
    seq: Count
    state: str
    to_seq: Count | None = None
    stream: Count = 0
    part: Count = 0
    planes: Count | None = None
    index: Count | None = None
    at: Place | None = None
    camera_number: int | None = None
    camera_time: Annotated[float, Field(allow_inf_nan=False)] | None = None
    xxh3: dict[str, Sum | list[Sum]] = {}
    missing_z: list[Count] = []
    axes: dict[str, Count] | None = None
    where: str = ""
    not_recorded: str = ""


class _PlaneLine(_Table):
    image: str
    at: Place
    inside: Annotated[tuple[Name, Count, Annotated[int, Field(ge=0, le=2**40)]], Field(alias="in")]
    xxh3: Sum
    seq: Count


class _FrameLine(_Table):
    frame: _Row


class _PartLine(_Table):
    part: _Part


class _CommitLine(_Table):
    commit: Count


_ABOUT = TypeAdapter(_About)
_ROW = TypeAdapter(_Row)
_LINES: Mapping[str, TypeAdapter[Any]] = {
    "frame": TypeAdapter(_FrameLine),
    "image": TypeAdapter(_PlaneLine),
    "part": TypeAdapter(_PartLine),
    "commit": TypeAdapter(_CommitLine),
}


def about_of(text: bytes) -> None:
    """Look whether a text is a ``recording.json``.

    Raises
    ------
    Malformed
    """
    told: _About = _looked(_ABOUT, text)
    streams = {stream.index: stream for stream in told.streams}
    if len(streams) < len(told.streams):
        raise Malformed("streams: two have the same index")
    numbers: set[int] = set()
    for i, part in enumerate(told.parts):
        where = f"parts[{i}]"
        images = {image.name: image for image in part.images}
        if part.number in numbers:
            raise Malformed(f"{where}.number: {part.number} occurs twice")
        numbers.add(part.number)
        for index, planes in part.of.items():
            stream = streams.get(int(index))
            if stream is None:
                raise Malformed(f"{where}.of: stream {index} is not in streams")
            for plane, name in planes.items():
                if name not in images:
                    raise Malformed(f"{where}.of: {name!r} is not in images")
                if plane == "raw" and not _fits(images[name], stream):
                    raise Malformed(f"{where}.images: {name} has not the size and type of stream {index}")
            if planes and "raw" not in planes:
                raise Malformed(f"{where}.of: stream {index} has no raw plane")
    if told.state != "recording" and told.streams and not told.parts:
        raise Malformed("parts: there are none, although it was ended")


def row_of(text: bytes) -> None:
    """Look whether a text is a line of ``frames.jsonl``.

    Raises
    ------
    Malformed
    """
    row: _Row = _looked(_ROW, text)
    if row.to_seq is not None and row.to_seq < row.seq:
        raise Malformed(f"to_seq: {row.to_seq} comes before seq")


def journal_line_of(text: bytes, kind: str) -> None:
    """Look whether a text is a line of a journal.

    Raises
    ------
    Malformed
    """
    if kind not in _LINES:
        raise Malformed("it is of no known kind")
    _looked(_LINES[kind], text)


def _fits(image: _Image, stream: _Stream) -> bool:
    return image.size == stream.spec.shape[-2:] and np.dtype(image.dtype) == np.dtype(stream.spec.dtype)


def _looked(adapter: TypeAdapter[Any], text: bytes) -> Any:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
        told = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise Malformed(f"{where[:120]}: {told[:200]}" if where else told[:200]) from None
