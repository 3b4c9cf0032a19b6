"""What pymmcore-plus tells of an acquisition: the sequence that it runs, its cameras, and each frame.

Everything here reads what the signals of ``mmc.mda.events`` hand over, as versions 0.15 to 0.18 do: a useq-schema
``MDASequence`` with a summary (``SummaryMetaV1``), and a ``MDAEvent`` with a dictionary for each frame
(``FrameMetaV1``). Nothing is imported, and whatever is left out there is left open here.

- An iterable of events runs under a placeholder without axes; then only the frames tell where they belong.
- ``event.index`` counts the channels of a position that has channels of its own from 0; here a place along ``c`` is
  one among all channels of the experiment.
- Of several cameras each frame has ``index["cam"]`` and its ``camera_device``; for us a camera is a stream.
- Colour pictures are ``(y, x, 3)`` and red, green, blue: pymmcore-plus turns the core's BGRA round (seen with
  DemoCamera's 32bitRGB, snapped and in a hardware sequence; its array is a view of planes, so copying is cheap).
- 32-bit pixels come as whole numbers also where the camera means floating point.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pellucid.errors import SourceError
from pellucid.protocols import COLOURS, Spec, Stream
from pellucid.sources._camera import is_objective
from pellucid.sources._positions import Positions, numbered

__all__ = ["CHANNEL", "Camera", "Plan", "State", "axes_of", "camera_of", "cameras_in", "channel_of", "spec_of"]

CHANNEL = "Default"
"""Of frames that no channel was set for."""
_DTYPES = ("uint8", "uint16", "uint32", "int16", "float32")
_EVENTS = 50_000
"""Events that are gone through beforehand (under two seconds); a longer sequence is known by its own sizes."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera, as the summary of an acquisition describes it.

    Parameters
    ----------
    name
    shape, dtype
        Of the arrays it gives, as the summary has them.
    pixel_um, exposure_ms, bit_depth
        Where they are known.
    floats
        Its 32-bit pixels are floating point.
    details
        JSON types.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    pixel_um: float | None = None
    exposure_ms: float | None = None
    bit_depth: int | None = None
    floats: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """As the summary describes it."""
        roi = tuple(self.details.get("roi") or ())
        return State(roi, str(self.details.get("binning") or ""), self.bit_depth or 0)

    def changed(self, meta: Mapping[str, Any], state: State) -> Camera:
        """Return what is known of it when it gives other pictures than the summary says, by the first one's `meta`."""
        kept = {key: value for key, value in self.details.items() if key not in ("binning", "roi")}
        if state.binning:
            kept["binning"] = state.binning
        if state.roi:
            kept["roi"] = [*state.roi]
        return replace(
            self,
            pixel_um=float(meta.get("pixel_size_um") or 0) or None,
            exposure_ms=float(meta.get("exposure_ms") or 0) or None,
            bit_depth=state.bit_depth or None,
            details=kept,
        )


@dataclass(frozen=True, slots=True)
class State:
    """What a picture's shape and type do not tell of its camera; whatever nobody knows is empty or 0.

    Parameters
    ----------
    roi
        Offsets, width and height.
    binning
    bit_depth
    """

    roi: tuple[int, ...] = ()
    binning: str = ""
    bit_depth: int = 0

    def agrees(self, other: State) -> bool:
        """Hot: tell whether nothing that is known of both differs."""
        return self == other or (
            (not self.roi or not other.roi or self.roi == other.roi)
            and (not self.binning or not other.binning or self.binning == other.binning)
            and (not self.bit_depth or not other.bit_depth or self.bit_depth == other.bit_depth)
        )

    @classmethod
    def of(cls, stream: Stream) -> State:
        """Return the state that a stream was made for."""
        roi = tuple(stream.details.get("roi") or ())
        return cls(roi, str(stream.details.get("binning") or ""), stream.bit_depth or 0)

    @classmethod
    def by_tags(cls, tags: Mapping[str, Any]) -> State:
        """Return what the tags of a frame of a hardware sequence say."""
        try:
            roi = tuple(int(tags[name]) for name in ("ROI-X-start", "ROI-Y-start", "Width", "Height"))
        except (KeyError, TypeError, ValueError):
            roi = ()
        return cls(roi)


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment as far as it is known before its first frame; all empty where it is not.

    Parameters
    ----------
    sizes, names, z_um
        As in `pellucid.protocols.Stream`.
    channels
        Group and preset of each place along ``c``.
    counts
        Frames of each channel from each camera; empty where nobody knows.
    exposures
        Of each channel, in ms, where the sequence sets it.
    own
        Group and preset of the channels of positions that have channels of their own.
    positions
        Where pictures are taken; None where nobody knows.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    z_um: float | None = None
    channels: tuple[tuple[str, str], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    exposures: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    positions: Positions | None = field(default=None, compare=False)

    @classmethod
    def read(cls, sequence: Any) -> Plan:
        """Read a ``MDASequence``; of a placeholder, or of something that is none, nothing is known."""
        order = [str(axis) for axis in getattr(sequence, "axis_order", ())]
        if not order:
            return cls()
        channels = [(channel.group, channel.config) for channel in sequence.channels]
        places = list(sequence.stage_positions)
        own = {
            i: tuple((channel.group, channel.config) for channel in place.sequence.channels)
            for i, place in enumerate(places)
            if getattr(place, "sequence", None) is not None and place.sequence.channels
        }
        main, found = tuple(channels), Positions()
        named = bool(channels)
        largest: dict[str, int] = {}
        counts: Counter[int] = Counter()
        exposures: dict[int, float] = {}
        positions: dict[int, str] = {}
        events = list(itertools.islice(sequence, _EVENTS + 1))
        for event in events[:_EVENTS]:
            if getattr(event.action, "type", "acquire_image") != "acquire_image":
                continue
            channel = -1
            if event.channel is not None:
                named = True
                at = _place_of(event, channels, own.get(int(event.index.get("p", -1)), main))
                channel = len(channels) if at is None else at
                if at is None:
                    channels.append((event.channel.group, event.channel.config))
            counts[channel] += 1
            p = int(event.index.get("p", -1))
            place_z_um = getattr(places[p], "z", None) if 0 <= p < len(places) else None
            found.note(event, max(channel, 0), own_z_um=place_z_um)
            if event.exposure:
                exposures.setdefault(channel, float(event.exposure))
            for axis, place in event.index.items():
                largest[str(axis)] = max(largest.get(str(axis), 0), int(place) + 1)
            if "p" in event.index:
                positions.setdefault(int(event.index["p"]), event.pos_name or "")
        whole = len(events) <= _EVENTS
        if not whole:
            for axis, count in sequence.sizes.items():
                largest[str(axis)] = max(largest.get(str(axis), 0), int(count))
        if named and "c" in largest:
            largest["c"] = len(channels)
        sizes = {axis: largest[axis] for axis in (*order, *largest) if largest.get(axis)}
        names: dict[str, list[str]] = {}
        unique = numbered([config for _, config in channels])
        if named and "c" in sizes:
            names["c"] = unique
        if any(positions.values()):
            names["p"] = [positions.get(i, "") or f"p{i}" for i in range(sizes["p"])]
        found.resolve({})
        return cls(
            sizes,
            names,
            _z_step_um(sequence),
            tuple(channels) if named else (),
            {_name(unique, channel): count for channel, count in counts.items()} if whole else {},
            {_name(unique, channel): exposure_ms for channel, exposure_ms in exposures.items()},
            own,
            found if whole else None,
        )

    def continues(self, other: Plan) -> bool:
        """Tell whether frames of this plan can follow those of another along ``t``."""
        mine, others = ({a: n for a, n in plan.sizes.items() if a != "t"} for plan in (self, other))
        return mine == others and self.names == other.names and self.channels == other.channels

    def place_of(self, event: Any) -> int | None:
        """Return the place along ``c`` of an event's channel; None where the plan does not have it."""
        if event.channel is None:
            return None
        own = self.own.get(int(event.index.get("p", -1)), self.channels) if self.own else self.channels
        return _place_of(event, self.channels, own)

    @property
    def channel_names(self) -> list[str]:
        """Names of the places along ``c``, all different."""
        return list(self.names.get("c", ())) or numbered([config for _, config in self.channels])

    def stream(self, camera: Camera, channel: str, spec: Spec, index: int, replaces: int | None) -> Stream:
        """Return the stream of one camera and channel."""
        return Stream(
            spec,
            camera=camera.name,
            channel=channel,
            index=index,
            pixel_um=camera.pixel_um,
            z_um=self.z_um,
            exposure_ms=self.exposures.get(channel, camera.exposure_ms),
            bit_depth=camera.bit_depth,
            frames=self.counts.get(channel),
            sizes=self.sizes,
            names=self.names,
            replaces=replaces,
            details={**camera.details, **(self.positions.details(max(len(self.counts), 1)) if self.positions else {})},
        )


def cameras_in(summary: Mapping[str, Any]) -> list[Camera]:
    """Return the cameras that an acquisition begins with: the selected one, or those behind a Multi Camera.

    Parameters
    ----------
    summary
        As ``sequenceStarted`` hands it over; one without ``image_infos`` gives none.
    """
    infos = {info["camera_label"]: info for info in summary.get("image_infos") or ()}
    if not infos:
        return []
    devices = {device["label"]: device for device in summary.get("devices") or ()}
    selected, info = next(iter(infos.items()))
    channels = int(info.get("num_camera_adapter_channels", 1))
    labels = [selected]
    if channels > 1:
        physical = [
            str(value)
            for key, value in _properties(devices.get(selected, {})).items()
            if key.startswith("Physical Camera") and value in infos
        ]
        labels = physical or [f"{selected} {i + 1}" for i in range(channels)]
    system = summary.get("system_info") or {}
    labelled = {label: str(_properties(device).get("Label") or "") for label, device in devices.items()}
    objective = next((label for name, label in labelled.items() if label and is_objective(name)), "")
    more = {"objective": objective} if objective else {}
    return [_camera(label, infos.get(label, info), devices.get(label, {}), system, more) for label in labels]


def _camera(
    name: str, info: Mapping[str, Any], device: Mapping[str, Any], system: Mapping[str, Any], more: Mapping[str, str]
) -> Camera:
    properties = _properties(device)
    details = {
        "core": str(system.get("mmcore_version", "")),
        "pymmcore_plus": str(system.get("pymmcore_plus_version", "")),
        "device": f"{device.get('library', '')} {device.get('name', '')}".strip(),
        "binning": str(properties.get("Binning") or ""),
        "roi": [int(n) for n in info.get("roi") or (0, 0, info["width"], info["height"])],
        **more,
    }
    bits = re.fullmatch(r"(?:Mono|RGB)(\d+)", str(info.get("pixel_format", "")))
    try:
        exposure_ms: float | None = float(properties["Exposure"])
    except (KeyError, TypeError, ValueError):
        exposure_ms = None
    return Camera(
        name,
        tuple(int(n) for n in info["plane_shape"]),
        str(info["dtype"]),
        float(info.get("pixel_size_um") or 0) or None,
        exposure_ms,
        int(bits[1]) if bits else None,
        # The core hands floating point out as whole numbers, and does not say which they are.
        device.get("library") == "DemoCamera",
        details,
    )


def _properties(device: Mapping[str, Any]) -> dict[str, Any]:
    return {row["name"]: row.get("value") for row in device.get("properties") or ()}


def camera_of(event: Any, meta: Mapping[str, Any], adapter: str) -> str:
    """Return the name of a frame's camera.

    Parameters
    ----------
    event, meta
        As ``frameReady`` hands them over.
    adapter
        Name of a camera that gives several pictures at once and has no cameras of its own: its pictures are
        told apart by their number.
    """
    name = str(meta.get("camera_device") or (meta.get("camera_metadata") or {}).get("Camera") or "camera")
    return f"{name} {int(event.index['cam']) + 1}" if name == adapter and "cam" in event.index else name


def channel_of(event: Any, plan: Plan) -> str:
    """Return the name of an event's channel; one that the plan has twice is numbered there."""
    if event.channel is None:
        return CHANNEL
    place, names = plan.place_of(event), plan.names.get("c", ())
    return names[place] if place is not None and place < len(names) else str(event.channel.config)


def _place_of(event: Any, channels: Sequence[tuple[str, str]], own: Sequence[tuple[str, str]]) -> int | None:
    """Return the place of an event's channel among all, by the list that its index counts; None where it has none.

    A preset that comes twice is two channels: the first of its list is the first of all, the second the second.
    """
    wanted, at = (event.channel.group, event.channel.config), int(event.index.get("c", 0))
    if own is channels and at < len(channels) and channels[at] == wanted:
        return at
    earlier = sum(channel == wanted for channel in own[:at])
    same = [i for i, channel in enumerate(channels) if channel == wanted]
    return same[earlier] if earlier < len(same) else None


def _name(unique: Sequence[str], channel: int) -> str:
    return CHANNEL if channel < 0 else unique[channel]


def axes_of(event: Any, plan: Plan, later_t: int) -> dict[str, int] | None:
    """Return a frame's places, with all axes of the plan; None for one that has none.

    Parameters
    ----------
    event
    plan
    later_t
        By how much ``t`` is more than the event says: time points of earlier acquisitions of the same kind.
    """
    axes = dict.fromkeys(plan.sizes, 0)
    axes |= {str(axis): int(place) for axis, place in event.index.items() if axis != "cam"}
    if "c" in axes:
        place = plan.place_of(event)
        axes["c"] = axes["c"] if place is None else place
    if later_t and axes:
        axes["t"] = axes.get("t", 0) + later_t
    return axes or None


def spec_of(camera: str, shape: Sequence[int], dtype: str, *, floats: bool) -> Spec:
    """Return the plane for arrays of a shape and type.

    Raises
    ------
    SourceError
        Where such pictures cannot be taken.
    """
    given = f"camera {camera} gives pictures of {'x'.join(map(str, shape))} {dtype}, which cannot be taken; allowed are"
    if len(shape) == 3 and shape[2] == len(COLOURS) and dtype == "uint8":
        return Spec((len(COLOURS), shape[0], shape[1]), dtype, axes="cyx")
    if len(shape) == 3:
        raise SourceError(
            f"{given} (y, x) and colours as (y, x, 3) uint8. Set a grey pixel type, or 8 bits a colour such as 32bitRGB"
        )
    if len(shape) != 2 or dtype not in _DTYPES:
        raise SourceError(f"{given} (y, x) of {', '.join(_DTYPES)}. Set another pixel type")
    return Spec((shape[0], shape[1]), "float32" if dtype == "uint32" and floats else dtype)


def _z_step_um(sequence: Any) -> float | None:
    """Return the distance between two planes, where it is one."""
    inner = [getattr(place, "sequence", None) for place in sequence.stage_positions]
    plans = [plan for plan in (getattr(s, "z_plan", None) for s in (sequence, *inner)) if plan]
    gaps = np.diff(sorted(float(z) for z in plans[0])) if plans else np.empty(0)
    if not gaps.size or gaps.min() <= 0 or np.ptp(gaps) > 1e-6 * gaps.max():
        return None
    return round(float(gaps.mean()), 9)
