"""What an OME-TIFF says of itself: OME-XML of the schema 2016-06."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np

from pellucid.recording.image import Ending, Plan, Stamp

__all__ = ["PIXEL_TYPES", "ome_xml"]

PIXEL_TYPES = {
    **{name: name for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")},
    "float32": "float",
    "float64": "double",
}
"""OME's names of numpy's types."""

_SPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_COLOURS = {"R": 0xFF0000FF, "G": 0x00FF00FF, "B": 0x0000FFFF}
_BINNINGS = ("1x1", "2x2", "4x4", "8x8")
_STAMPS = 50_000
"""So many planes have their times here, which every reader parses; of more ``frames.jsonl`` alone has them."""
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def ome_xml(plan: Plan, ending: Ending, sizes: Sequence[tuple[int, int, int]]) -> bytes:
    """Return the description of an image.

    Parameters
    ----------
    plan, ending
    sizes
        Of each position along t, c, z; its planes lie in this order, z the fastest, one position after the other.
    """
    facts: dict[str, Any] = {**plan.facts, **ending.facts}
    details: dict[str, Any] = {**_table(plan.facts.get("details")), **_table(ending.facts.get("details"))}
    root = Xml.Element(
        "OME",
        {
            "xmlns": _SPACE,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": f"{_SPACE} {_SPACE}/ome.xsd",
            "Creator": f"pellucid {facts.get('version', '')}".strip(),
        },
    )
    objective = _instrument(root, facts, details)
    of: defaultdict[int, list[Stamp]] = defaultdict(list)
    for stamp in sorted(ending.stamps) if len(ending.stamps) <= _STAMPS else ():
        of[stamp.at.p].append(stamp)
    first = 0
    for p, size in enumerate(sizes):
        group = ending.groups[p] if p < len(ending.groups) else {}
        name = plan.positions[p] if plan.positions else plan.name.rsplit("/", 1)[-1]
        image = _add(root, "Image", ID=f"Image:{p}", Name=name)
        if began := _utc(ending.began):
            _add(image, "AcquisitionDate").text = began
        _add(image, "InstrumentRef", ID="Instrument:0")
        if objective:
            _add(image, "ObjectiveSettings", ID="Objective:0:0")
        _stage(image, name, _table(group.get("position")))
        pixels = _pixels(image, plan, ending, p, size, details)
        _add(pixels, "TiffData", FirstZ=0, FirstC=0, FirstT=0, IFD=first, PlaneCount=math.prod(size))
        _planes(pixels, plan, of[p])
        _add(image, "AnnotationRef", ID=f"Annotation:{p}")
        first += math.prod(size)
    notes = _add(root, "StructuredAnnotations")
    for p in range(len(sizes)):
        group = ending.groups[p] if p < len(ending.groups) else {}
        value = _add(_add(notes, "MapAnnotation", ID=f"Annotation:{p}", Namespace="pellucid"), "Value")
        for key, given in {**facts, **group}.items():
            told = given if isinstance(given, str) else json.dumps(given, default=str)
            _add(value, "M", K=key).text = _clean(told)
    text: bytes = Xml.tostring(root, "utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>' + text


def _pixels(
    image: Xml.Element, plan: Plan, ending: Ending, p: int, size: tuple[int, int, int], details: Mapping[str, Any]
) -> Xml.Element:
    t, c, z = size
    kind = np.dtype(plan.dtype)
    about: dict[str, Any] = {"ID": f"Pixels:{p}", "DimensionOrder": "XYZCT", "Type": PIXEL_TYPES[plan.dtype]}
    about |= {"SizeX": plan.size[1], "SizeY": plan.size[0], "SizeZ": z, "SizeC": c, "SizeT": t, "BigEndian": "false"}
    about["Interleaved"] = "false"
    bits = plan.facts.get("bit_depth")
    if isinstance(bits, int) and kind.kind == "u" and plan.plane == "raw" and 0 < bits <= kind.itemsize * 8:
        about["SignificantBits"] = bits
    for axis, um in (("X", plan.pixel_um), ("Y", plan.pixel_um), ("Z", plan.z_um if plan.depth is not None else None)):
        if um and math.isfinite(um) and um > 0:
            about |= {f"PhysicalSize{axis}": float(um), f"PhysicalSize{axis}Unit": "µm"}
    if ending.interval_s and math.isfinite(ending.interval_s):
        about |= {"TimeIncrement": float(ending.interval_s), "TimeIncrementUnit": "s"}
    pixels = _add(image, "Pixels", **about)
    binning = str(details.get("binning", ""))
    binning = binning if "x" in binning else f"{binning}x{binning}"
    for i in range(c):
        label = plan.channels[i] if i < len(plan.channels) else f"channel {i}"
        channel = _add(pixels, "Channel", ID=f"Channel:{p}:{i}", Name=label, SamplesPerPixel=1)
        if plan.is_colour and label[-1:] in _COLOURS:
            channel.set("Color", str(_signed(_COLOURS[label[-1]])))
        settings = _add(channel, "DetectorSettings", ID="Detector:0:0")
        if binning in _BINNINGS:
            settings.set("Binning", binning)
    return pixels


def _planes(pixels: Xml.Element, plan: Plan, stamps: Sequence[Stamp]) -> None:
    """Say of each plane that was written when, and how long it was exposed."""
    exposures = plan.exposure_ms
    for stamp in stamps:
        about = {"TheZ": str(stamp.at.z), "TheC": str(stamp.at.c), "TheT": str(stamp.at.t)}
        if stamp.camera_s is not None and math.isfinite(stamp.camera_s):
            about |= {"DeltaT": f"{stamp.camera_s:.6f}", "DeltaTUnit": "s"}
        channel = stamp.at.c // 3 if plan.is_colour else stamp.at.c
        exposure_ms = exposures[channel] if channel < len(exposures) else None
        if exposure_ms is not None:
            about |= {"ExposureTime": repr(exposure_ms * 1e-3), "ExposureTimeUnit": "s"}
        Xml.SubElement(pixels, "Plane", about)


def _instrument(root: Xml.Element, facts: Mapping[str, Any], details: Mapping[str, Any]) -> bool:
    """Say what was acquired with; return whether the objective is known."""
    instrument = _add(root, "Instrument", ID="Instrument:0")
    detector = _add(instrument, "Detector", ID="Detector:0:0", Model=facts.get("camera") or "camera")
    if isinstance(details.get("device"), str):
        detector.set("Manufacturer", _clean(details["device"]))
    told = details.get("objective")
    table = told if isinstance(told, Mapping) else {"model": told} if told else {}
    for key in ("na", "magnification"):
        if f"objective_{key}" in details:
            table = {**table, key: details[f"objective_{key}"]}
    if not table:
        return False
    about: dict[str, Any] = {"ID": "Objective:0:0"}
    if table.get("model") or table.get("name"):
        about["Model"] = table.get("model") or table.get("name")
    for key, attribute in (("na", "LensNA"), ("magnification", "NominalMagnification")):
        if (number := _number(table.get(key))) is not None:
            about[attribute] = number
    _add(instrument, "Objective", **about)
    return True


def _stage(image: Xml.Element, name: str, position: Mapping[str, Any]) -> None:
    """Say where on the stage a position is, where that is known."""
    about: dict[str, Any] = {}
    for axis in "xyz":
        if (um := _number(position.get(f"{axis}_um"))) is not None:
            about |= {axis.upper(): um, f"{axis.upper()}Unit": "µm"}
    if about:
        _add(image, "StageLabel", Name=name, **about)


def _add(parent: Xml.Element, tag: str, **attributes: Any) -> Xml.Element:
    return Xml.SubElement(parent, tag, {key: _clean(str(value)) for key, value in attributes.items()})


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """Return a number that may be written as a text; None where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _clean(text: str) -> str:
    """Leave out what XML has no way to say, such as a zero that a driver has put into a name."""
    return _NO_XML.sub("\ufffd", text)


def _utc(began: str) -> str:
    """Return a time as XML has it; empty where it is none."""
    try:
        at = datetime.fromisoformat(began)
    except ValueError:
        return ""
    return (at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at).isoformat() + ("Z" if at.tzinfo else "")


def _signed(colour: int) -> int:
    """Return a colour as OME has it: red, green, blue and alpha as one signed number of 32 bits."""
    return colour - (1 << 32) if colour >= 1 << 31 else colour
