"""What an NDTiff says of itself and of each plane, in the words of Micro-Manager.

Its viewer takes axes whose values are whole numbers only, and looks for each that ``AxisOrder`` names in every plane;
a table such as ``StagePositions`` has to be in its own layout, so what it has no word for is under ``pellucid``.
"""

from __future__ import annotations

import json
from typing import Any

from pellucid.recording.image import At, Ending, Plan

__all__ = ["axes_of", "metadata_of", "summary_of"]

_COLOURS = {"R": 0xFF0000, "G": 0x00FF00, "B": 0x0000FF}


def axes_of(plan: Plan, at: At) -> tuple[tuple[str, int], ...]:
    """Return the place of a plane as Micro-Manager names it."""
    axes = [("time", at.t), ("channel", at.c)]
    if plan.positions:
        axes.insert(1, ("position", at.p))
    if plan.depth is not None:
        axes.append(("z", at.z))
    return tuple(axes)


def metadata_of(plan: Plan, at: At, camera_s: float | None) -> bytes:
    """Return what is said of a plane, as JSON; an even number of bytes."""
    channel = at.c // 3 if plan.is_colour else at.c
    exposure_ms = plan.exposure_ms[channel] if channel < len(plan.exposure_ms) else None
    told: dict[str, Any] = {
        "Axes": dict(axes_of(plan, at)),
        "Width": plan.size[1],
        "Height": plan.size[0],
        "PixelType": "GRAY8" if plan.dtype == "uint8" else "GRAY16",
        "BitDepth": _bit_depth(plan),
        "Channel": plan.channels[at.c] if at.c < len(plan.channels) else f"channel {at.c}",
        "ChannelIndex": at.c,
        "FrameIndex": at.t,
        "SliceIndex": at.z,
        "PositionIndex": at.p,
        "Camera": str(plan.facts.get("camera") or ""),
    }
    if at.p < len(plan.positions):
        told["PositionName"] = plan.positions[at.p]
    if camera_s is not None:
        told["ElapsedTime-ms"] = round(camera_s * 1e3, 3)
    if exposure_ms is not None:
        told |= {"Exposure": exposure_ms, "Exposure-ms": exposure_ms}
    if plan.pixel_um:
        told["PixelSizeUm"] = plan.pixel_um
    data = json.dumps(told).encode()
    return data + b" " * (len(data) % 2)


def summary_of(plan: Plan, ending: Ending | None = None) -> dict[str, Any]:
    """Return what is said of all planes; what becomes known in the end only where there is an `ending`."""
    axes = [name for name, _ in axes_of(plan, At(0, 0, 0))]
    counts = {"position": len(plan.positions), "channel": len(plan.channels), "z": plan.depth or 1}
    facts: dict[str, Any] = {**plan.facts, "plane": plan.plane, "positions": list(plan.positions)}
    told: dict[str, Any] = {
        "Prefix": plan.name.rsplit("/", 1)[-1],
        "Width": plan.size[1],
        "Height": plan.size[0],
        "PixelType": "GRAY8" if plan.dtype == "uint8" else "GRAY16",
        "BitDepth": _bit_depth(plan),
        "AxisOrder": axes,
        "ChNames": list(plan.channels),
        "ChColors": [_COLOURS.get(label[-1:], 0xFFFFFF) if plan.is_colour else 0xFFFFFF for label in plan.channels],
        "MicroManagerVersion": f"pellucid {plan.facts.get('version', '')}".strip(),
    }
    if plan.pixel_um:
        told["PixelSize_um"] = plan.pixel_um
    if plan.z_um:
        told["z-step_um"] = plan.z_um
    if ending is not None:
        counts["time"] = max([1, *ending.lengths])
        told["IntendedDimensions"] = {name: counts[name] for name in axes}
        facts |= dict(ending.facts)
        facts["groups"] = [dict(group) for group in ending.groups]
        if ending.interval_s is not None:
            told["Interval_ms"] = ending.interval_s * 1e3
        if ending.began:
            told["StartTime"] = ending.began
    return {**told, "pellucid": json.loads(json.dumps(facts, default=str))}


def _bit_depth(plan: Plan) -> int:
    most = 8 if plan.dtype == "uint8" else 16
    told = plan.facts.get("bit_depth")
    return told if isinstance(told, int) and plan.plane == "raw" and 0 < told <= most else most
