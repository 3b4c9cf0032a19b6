"""What a coarser level of an image is: its pixels, its array, and where it lies in the specimen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["halve", "level_metadata", "level_sizes", "name_levels", "pick"]

COARSEST = 512
"""The longer side of the coarsest level is under this, in pixels."""


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return ``(y, x)`` of each level after the first, finest first; empty for a picture that is small."""
    sizes = []
    while max(height, width) >= COARSEST:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def halve(plane: NDArray[Any]) -> NDArray[Any]:
    """Return the mean of each 2x2 pixels.

    Parameters
    ----------
    plane
        ``(y, x)``; integers of up to 32 bits, or floating point. The last row and column of an odd size are the mean of
        the pixels that there are.

    Returns
    -------
    numpy.ndarray
        ``((y + 1) // 2, (x + 1) // 2)`` of the same type. Whole numbers are rounded half to even: rounding up would add
        an eighth of a count with every level.
    """
    odd = [(0, n % 2) for n in plane.shape]
    if any(n for _, n in odd):
        plane = np.pad(plane, odd, mode="edge")
    corners = plane[0::2, 0::2], plane[0::2, 1::2], plane[1::2, 0::2], plane[1::2, 1::2]
    if plane.dtype.kind == "f":
        wide = np.result_type(plane.dtype, np.float32)
        # A quarter of each first: the sum of four large numbers is none any more.
        quarters = [corner.astype(wide) * wide.type(0.25) for corner in corners]
        mean: NDArray[Any] = ((quarters[0] + quarters[1]) + (quarters[2] + quarters[3])).astype(plane.dtype)
        return mean
    wide = np.dtype(f"{'u' if plane.dtype.kind == 'u' else 'i'}{2 * plane.dtype.itemsize}")
    total = np.add(corners[0], corners[1], dtype=wide)
    for corner in corners[2:]:
        np.add(total, corner, out=total, casting="unsafe")
    total += ((total >> 2) & 1) + 1
    total >>= 2
    small: NDArray[Any] = total.astype(plane.dtype)
    return small


def pick(plane: NDArray[Any]) -> NDArray[Any]:
    """Return every second pixel: of labels a mean would be another label."""
    return plane[::2, ::2]


def level_metadata(
    finest: Mapping[str, Any], codecs: Sequence[Mapping[str, Any]], shard: Sequence[int] | None, size: tuple[int, int]
) -> dict[str, Any]:
    """Return the metadata of a level's array: a chunk is a plane, all else is as in level 0.

    Parameters
    ----------
    finest
        Of level 0.
    codecs
        Of a chunk.
    shard
        Planes of a shard along the axes before y and x; None for a file for each plane.
    size
        ``(y, x)``.
    """
    lead = list(finest["shape"][:-2])
    ones = [1] * len(lead)
    if shard is not None:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        inner = {"chunk_shape": [*ones, *size], "codecs": list(codecs)}
        where = {"index_codecs": index, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": inner | where}]
    own = {
        "shape": [*lead, *size],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*(shard or ones), *size]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": list(codecs),
        "attributes": {},
    }
    kept = ("zarr_format", "node_type", "data_type", "fill_value", "dimension_names")
    return {key: finest[key] for key in kept if key in finest} | own


def name_levels(group: dict[str, Any], names: Sequence[str], *, labels: bool = False) -> None:
    """Name levels in the metadata of an image that has but the finest one.

    Parameters
    ----------
    group
        Of its folder; changed.
    names
        Of the arrays, finest first.
    labels
        Pixels were picked, not averaged.
    """
    scale = group["attributes"]["ome"]["multiscales"][0]
    given = scale["datasets"][0]["coordinateTransformations"]
    for i, name in enumerate(names, 1):
        steps = _transformations(given, 2**i, shifted=not labels)
        scale["datasets"].append({"path": name, "coordinateTransformations": steps})
    how = "every second pixel" if labels else "mean of 2x2 pixels of the level before, rounded half to even"
    scale["type"] = "nearest" if labels else "mean"
    scale["metadata"] = {**(scale.get("metadata") or {}), "method": "pellucid pyramid", "description": how}
    group.pop("consolidated_metadata", None)  # a copy of what is below, without the new levels


def _transformations(given: Sequence[Mapping[str, Any]], times: int, *, shifted: bool) -> list[dict[str, Any]]:
    """Return scale and translation of a level of which a pixel is `times` as wide as one of level 0.

    The centre of its first pixel lies between those that it is the mean of.
    """
    scale = [float(s) for s in given[0]["scale"]]
    shift = [float(s) for s in given[1]["translation"]] if len(given) > 1 else [0.0] * len(scale)
    for axis in (-2, -1):
        shift[axis] += scale[axis] * (times - 1) / 2 if shifted else 0.0
        scale[axis] *= times
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
