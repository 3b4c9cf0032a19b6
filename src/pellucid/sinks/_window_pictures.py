"""The frames of one stream on their way to the window: which planes, how they are shown, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pellucid.protocols import RAW, FrameInfo, Slot, Spec, Stream
from pellucid.sinks._window_note import WHY, WHY_SPEC
from pellucid.wire.berths import Berths
from pellucid.wire.sender import Feed

__all__ = ["Pictures"]

PROJECTIONS = "projections"
"""Of a stream's details for the window: name of a plane -> what is written beside it where it is a stack."""
SMALL_BYTES = 32 << 20
"""A stack up to here goes to the window whole, unless the config says that it should not: four slots of each plane."""
WHOLE_BYTES = 256 << 20
"""One that the config wants to be looked through."""
TEXTURES = ("uint8", "uint16", "float32")
"""Types that go to the GPU as they are; any other is shown as float32."""


class Pictures:
    """What the window gets of one stream.

    Parameters
    ----------
    stream
    planes
        All that its frames have; those that are no pictures are left out.
    period_ns
        Between two frames to show.
    stack
        How a stack is shown at first. ``"slice"``, ``"volume"`` and None take it to the window whole, which can show
        all of it, as long as no plane has more than `WHOLE_BYTES`, of None `SMALL_BYTES`. Otherwise all planes are
        flattened here: ``"middle"``, the middle plane, or the brightest along z.

    Attributes
    ----------
    feed : Feed
        As the wire is told.
    computed : bool
        Is there anything else than the raw plane?
    too_large : Spec or None
        Of the largest stack, where they were to go whole and do not.
    ring : Berths or None
        The window's slots for it; None as long as the window does not know of it, and after another stream took
        its place.
    """

    def __init__(self, stream: Stream, planes: Mapping[str, Spec], period_ns: int, stack: str | None = "max") -> None:
        shown = {name: spec for name, spec in planes.items() if _is_picture(spec)}
        stacks = [spec for spec in shown.values() if _is_stack(spec)]
        # All or none: a slice of the raw stack beside the maximum of the restored one would compare nothing.
        whole = all(_goes_whole(spec, stack) for spec in stacks)
        flat = {n: s for n, s in shown.items() if not (whole and _is_stack(s))}
        # Names of places go with the frames: of a plate with a thousand wells they would be too many for a handshake.
        self.feed = Feed(
            replace(stream, names={}, details={PROJECTIONS: _projections(flat, stack)}),
            {name: _flat(spec) if name in flat else _whole(spec) for name, spec in shown.items()} | {WHY: WHY_SPEC},
        )
        asked = stack in ("slice", "volume") and not whole
        self.too_large = max(stacks, key=lambda spec: _whole(spec).nbytes) if asked else None
        self.ring: Berths | None = None
        self.computed = any(name != RAW for name in shown)
        self._names = {axis: names for axis, names in stream.names.items() if axis != "c"}
        self._period_ns = period_ns
        # The brightest of a stack goes through memory of its own, a plane through none.
        self._bring = {
            n: np.empty(s.shape[1:], s.dtype) if n in flat and _is_stack(s) and stack != "middle" else None
            for n, s in shown.items()
        }
        self._last = dict.fromkeys(shown, -1)
        self._due_ns = dict.fromkeys(shown, 0)

    def wanted(self, info: FrameInfo, names: Sequence[str], now_ns: int) -> list[str]:
        """Return the planes to show of a frame: those newer than what is shown, if it is time for one of them. Hot.

        Frames that find the chain busy go past the one that it works on. Where it is always busy each result is
        older than the raw plane on the screen, so order and pace are kept for each plane.
        """
        last, due_ns = self._last, self._due_ns
        newer = [name for name in names if last.get(name, info.seq) < info.seq]
        # Half a period early is in time: a camera at just max_fps trembles, and every second frame would go.
        in_time = any(now_ns >= due_ns[name] - self._period_ns // 2 for name in newer)
        return newer if in_time else []

    def fill(self, free: Slot, given: Slot, names: Sequence[str]) -> None:
        """Copy planes into one of the window's slots; a stack as its projection along z. Hot."""
        for name in names:
            plane, flat, shown = given.planes[name], self._bring[name], free.planes[name]
            if flat is not None:
                plane = plane.max(axis=0, out=flat)
            elif plane.ndim > shown.ndim:
                plane = plane[len(plane) // 2]
            np.copyto(shown, plane, casting="unsafe")

    def went(self, info: FrameInfo, names: Sequence[str], now_ns: int) -> None:
        """Note that these planes of a frame are on their way."""
        for name in names:
            self._last[name] = info.seq
            self._due_ns[name] = max(self._due_ns[name], now_ns - self._period_ns // 2) + self._period_ns

    def places(self, info: FrameInfo) -> dict[str, str]:
        """Return the names of the places where a frame was taken; the channel is the stream's."""
        if not info.axes or not self._names:
            return {}
        return {
            axis: names[info.axes[axis]][:64]
            for axis, names in self._names.items()
            if 0 <= info.axes.get(axis, -1) < len(names)
        }


def _is_picture(spec: Spec) -> bool:
    return len(spec.shape) in (2, 3) and np.dtype(spec.dtype).kind in "buif"


def _is_stack(spec: Spec) -> bool:
    return len(spec.shape) == 3 and not spec.is_colour


def _goes_whole(spec: Spec, stack: str | None) -> bool:
    limit = {"slice": WHOLE_BYTES, "volume": WHOLE_BYTES, None: SMALL_BYTES}.get(stack, 0)
    return _is_stack(spec) and _whole(spec).nbytes <= limit


def _whole(spec: Spec) -> Spec:
    """Return how a stack goes to the window as it is; a colour picture or a plane as ever."""
    if not _is_stack(spec):
        return _flat(spec)
    return Spec(spec.shape, spec.dtype if spec.dtype in TEXTURES else "float32")


def _flat(spec: Spec) -> Spec:
    """Return how a plane is shown: a stack as one along z, a colour picture as it is."""
    dtype = spec.dtype if spec.dtype in TEXTURES else "float32"
    return Spec(spec.shape, dtype, axes=spec.axes) if spec.is_colour else Spec(spec.shape[-2:], dtype)


def _projections(shown: Mapping[str, Spec], stack: str | None) -> dict[str, str]:
    """Say which picture of a stack is shown, for planes that are stacks."""
    depths = {name: spec.shape[0] for name, spec in shown.items() if _is_stack(spec)}
    return {
        name: f"maximum of z 1–{depth}" if stack != "middle" else f"z {depth // 2 + 1}/{depth}, the middle"
        for name, depth in depths.items()
    }
