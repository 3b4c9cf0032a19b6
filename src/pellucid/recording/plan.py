"""From streams to images: which image a stream's planes go to, and what is known of it when it begins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.protocols import COLOURS, Spec, Stream
from pellucid.recording.image import Plan

__all__ = ["fit", "image_name", "kin", "plan_image", "position_rows", "positions_of", "shard_frames"]

_SHARD_BYTES = 256 << 20
_SHARD_PLANES = 1024
_UNKNOWN: Mapping[str, Any] = {"x_um": None, "y_um": None, "z_um": None, "z_first_um": None, "planes": ()}


def plan_image(
    name: str,
    plane: str,
    streams: Sequence[Stream],
    spec: Spec,
    run: Mapping[str, Any],
    *,
    compression: str = "none",
    shard: int = 1,
) -> Plan:
    """Say what is known of an image when it begins.

    Parameters
    ----------
    name
        Of its folder or file, without an ending.
    plane
        ``"raw"``, ``"restored"`` ...
    streams
        Whose planes it takes, one for each channel.
    spec
        Of the plane.
    run
        As a sink's ``open`` gets it.
    compression, shard
        See `Plan`.
    """
    first = streams[0]
    sizes = first.sizes
    stack = spec.axes == "zyx"
    channels = _channels(streams, first)
    labels = channels
    if spec.is_colour:
        labels = [f"{channel} {c}" if len(channels) > 1 else c for channel in channels for c in COLOURS]
    pixel_um = None if first.pixel_um is None else first.pixel_um / spec.zoom
    groups = positions_of(first)
    exposures: dict[int, float | None] = {}
    for stream in streams:
        exposures[channels.index(stream.channel) if stream.channel in channels else len(exposures)] = stream.exposure_ms
    facts = {
        "version": run.get("version", ""),
        "config_sha256": run.get("config_sha256", ""),
        "camera": first.camera,
        "channel": first.channel,
        "channels": [{"name": s.channel, "stream": s.index, "exposure_ms": s.exposure_ms} for s in streams],
        "pixel_um": pixel_um,
        "z_um": first.z_um,
        "exposure_ms": first.exposure_ms,
        "bit_depth": first.bit_depth,
        "plane": plane,
        "values": dict(spec.facts),
        "details": dict(first.details),
    }
    return Plan(
        plane=plane,
        name=name,
        dtype=spec.dtype,
        size=(spec.shape[-2], spec.shape[-1]),
        channels=tuple(labels),
        is_colour=spec.is_colour,
        depth=spec.shape[0] if stack else sizes.get("z"),
        positions=tuple(_position_names(first, groups)) if len(groups) > 1 else (),
        time_points=sizes.get("t", 1) if len(groups) > 1 else None,
        pixel_um=pixel_um,
        z_um=first.z_um,
        exposure_ms=tuple(exposures.get(i) for i in range(len(channels))),
        facts=facts,
        compression=compression,
        shard_frames=shard,
    )


def shard_frames(spec: Spec) -> int:
    """Return how many planes a file takes where the user does not say: about 256 MB of them."""
    plane = spec.nbytes // (spec.shape[0] if len(spec.shape) > 2 else 1)
    return max(1, min(_SHARD_PLANES, _SHARD_BYTES // plane))


def image_name(plane: str, stream: Stream) -> str:
    """Return the name of a stream's own image."""
    end = "" if stream.index == 0 else f"-{fit(stream.camera)}-{stream.index}"
    return fit(plane) + end


def kin(stream: Stream, spec: Spec) -> tuple[Any, ...]:
    """Return what the streams of an experiment have in common that share an image."""
    common = (stream.camera, spec, tuple(stream.sizes.items()))
    if stream.replaces is None:
        return common
    # One whose camera was changed shares an image with others after the same change, never with the one it replaces:
    # what is said of the image (pixel size, ROI) is true of all its planes.
    details = stream.details
    state = (stream.pixel_um, stream.bit_depth, str(details.get("binning")), str(details.get("roi")))
    return (*common, "changed", *state)


def positions_of(first: Stream) -> list[tuple[int, int]]:
    """Return the places along p and g that have a group: those that the experiment has, else all there can be."""
    p, g = first.sizes.get("p", 1), first.sizes.get("g", 1)
    return sorted(position_rows(first)) or [(a, b) for a in range(p) for b in range(g)]


def position_rows(first: Stream) -> dict[tuple[int, int], dict[str, Any]]:
    """Return what a stream says of its positions (see `pellucid.sources._positions`), for each place along p and g."""
    table: Any = first.details.get("positions")
    try:
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        told = {(int(row["p"]), int(row["g"])): {**_UNKNOWN, **row} for row in rows}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    # Details outlive their experiment (they are copied where a recording is processed): only those that fit count.
    size = (first.sizes.get("p", 1), first.sizes.get("g", 1))
    fit = told and tuple(max(axis) + 1 for axis in zip(*told, strict=True)) == size and min(map(min, told)) >= 0
    return told if fit and first.sizes else {}


_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


def why_not_everywhere(name: str) -> str:
    """Return what is wrong with the name of a folder that has to be copied to other systems; empty where nothing is."""
    if found := re.search(r'[<>:"|?*\x00-\x1f]', name):
        return f"the name {name!r} has a {found[0]!r}"
    if name.split(".", maxsplit=1)[0].lower() in _RESERVED:
        return f"the name {name!r} is that of a device"
    return f"the name {name!r} ends with a {name[-1]!r}" if name.strip(".") and name[-1:] in (".", " ") else ""


def fit(name: str) -> str:
    """Return a name that a folder can have on every system."""
    return re.sub(r"[^\w.-]", "_", name)


def _channels(streams: Sequence[Stream], first: Stream) -> list[str]:
    """Return the names along c; more places than names are numbered."""
    if not first.sizes:
        return [first.channel]
    names = list(first.names.get("c", ())) or [stream.channel for stream in streams]
    count = max(first.sizes.get("c", 1), 1)
    return [names[i] if i < len(names) else f"channel {i}" for i in range(count)]


def _position_names(first: Stream, groups: Sequence[tuple[int, int]]) -> list[str]:
    """Return a name for each position that a folder can have, all different."""
    given = list(first.names.get("p", ()))
    fields = Counter(p for p, _ in groups)
    names: list[str] = []
    for i, (p, g) in enumerate(groups):
        raw = given[p] if p < len(given) and given[p] else f"p{p}"
        name = "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in raw).strip(".") or f"p{p}"
        name += f"_g{g}" if fields[p] > 1 else ""
        names.append(name if name not in names else f"{name}_{i}")
    return names
