"""What a sender has to give: a stream and its planes, and how HELLO describes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.protocols import Spec, Stream
from pellucid.wire.fields import Fields
from pellucid.wire.message import BadMessage

__all__ = ["DTYPES", "FEEDS_MAX", "MAX_PLANE_BYTES", "PLANES_MAX", "Feed", "plain"]

DTYPES = ("uint8", "uint16", "uint32", "int16", "float32")
MAX_PLANE_BYTES = 2**30
FEEDS_MAX = 64
PLANES_MAX = 16
_AXES = ("yx", "zyx", "cyx", "czyx")
_SIZES_MAX = 16
_AXIS_CHARS = 32
_NAMES_MAX = 4096
_NAME_CHARS = 200


@dataclass(frozen=True)
class Feed:
    """One stream and the planes of it that can be sent, ``raw`` first.

    Parameters
    ----------
    stream
        As the camera's side describes it.
    planes
        Name to Spec; all planes of a frame lie in one slot.
    generation
        How many feeds had this position before.
    """

    stream: Stream
    planes: Mapping[str, Spec]
    generation: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what `read` takes."""
        stream = self.stream
        return {
            "camera": plain(stream.camera),
            "channel": plain(stream.channel),
            "generation": self.generation,
            "pixel_um": stream.pixel_um,
            "z_um": stream.z_um,
            "exposure_ms": stream.exposure_ms,
            "bit_depth": stream.bit_depth,
            "frames": stream.frames,
            "sizes": [[axis, size] for axis, size in stream.sizes.items()],
            "names": [[axis, [plain(name) for name in names]] for axis, names in stream.names.items()],
            "details": dict(stream.details),
            "planes": [[name, list(spec.shape), spec.dtype, spec.axes] for name, spec in self.planes.items()],
        }

    @classmethod
    def read(cls, item: Any) -> Feed:
        """Parse and check; raises `BadMessage` only."""
        top = Fields(item)
        planes: dict[str, Spec] = {}
        for row in top.items("planes", 1, PLANES_MAX):
            if not isinstance(row, list) or len(row) != 4 or not isinstance(row[0], str) or not 1 <= len(row[0]) <= 32:
                raise BadMessage("plane")
            planes[row[0]] = _read_spec(*row[1:])
        details = top.value.get("details", {})
        if not isinstance(details, dict):
            raise BadMessage("details")
        stream = Stream(
            spec=next(iter(planes.values())),
            camera=top.text("camera", _NAME_CHARS),
            channel=top.text("channel", _NAME_CHARS),
            pixel_um=top.number("pixel_um"),
            z_um=top.number("z_um"),
            exposure_ms=top.number("exposure_ms"),
            bit_depth=top.maybe_whole("bit_depth", 1, 64),
            frames=top.maybe_whole("frames", 0, 2**53),
            sizes={axis: _read_size(size) for axis, size in _read_axes(top, "sizes")},
            names={axis: _read_names(names) for axis, names in _read_axes(top, "names")},
            details=details,
        )
        return cls(stream, planes, top.whole("generation", 0, 2**32))


def plain(name: str) -> str:
    """Return a name as it can be sent: printable, of at most so many characters."""
    return "".join(c if c.isprintable() else "?" for c in name[:_NAME_CHARS])


def _read_axes(top: Fields, key: str) -> Iterator[tuple[str, Any]]:
    for row in top.items(key, 0, _SIZES_MAX):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str):
            raise BadMessage(key)
        if not 1 <= len(row[0]) <= _AXIS_CHARS or not row[0].isprintable():
            raise BadMessage(key)
        yield row[0], row[1]


def _read_size(size: Any) -> int:
    if type(size) is not int or not 1 <= size <= 2**32:
        raise BadMessage("sizes")
    return size


def _read_names(names: Any) -> list[str]:
    if not isinstance(names, list) or len(names) > _NAMES_MAX:
        raise BadMessage("names")
    if not all(isinstance(name, str) and len(name) <= _NAME_CHARS and name.isprintable() for name in names):
        raise BadMessage("names")
    return names


def _read_spec(shape: Any, dtype: Any, axes: Any) -> Spec:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise BadMessage("dtype")
    if not isinstance(shape, list) or not 2 <= len(shape) <= 4:
        raise BadMessage("shape")
    if any(type(n) is not int or not 1 <= n <= 2**20 for n in shape):
        raise BadMessage("shape")
    if not isinstance(axes, str) or axes not in _AXES or len(axes) != len(shape):
        raise BadMessage("axes")
    if axes == "cyx" and shape[0] != 3:
        raise BadMessage("axes")
    spec = Spec(tuple(shape), dtype, axes=axes)
    if spec.nbytes > MAX_PLANE_BYTES:
        raise BadMessage("plane too large")
    return spec
