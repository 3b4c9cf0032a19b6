"""The signals of a pymmcore-plus core that an acquisition is followed by.

pymmcore-plus emits them in the thread of the acquisition, and waits until all slots have run. With its Qt signals,
which it takes where a Qt application exists when the core is made, a slot would be put off into the thread that
connected it (often the one that waits for the acquisition), unless it is connected directly, as here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from pellucid.errors import SourceError
from pellucid.sources._mda import State

__all__ = ["Signals"]

_NAMES = ("sequenceStarted", "frameReady", "sequenceFinished")
_QT = ("PySide6", "PyQt6", "PySide2", "PyQt5")


class Signals:
    """Three signals, and whom to ask about an acquisition.

    Parameters
    ----------
    core
        A ``CMMCorePlus``, its ``mda``, or ``mda.events``.

    Raises
    ------
    SourceError
        Where `core` has no such signals.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._runner = getattr(core, "mda", core)
        events = getattr(self._runner, "events", self._runner)
        self._signals: list[Any] = [getattr(events, name, None) for name in _NAMES]
        self._slots: tuple[Callable[..., None], ...] = ()
        engine = getattr(self._runner, "engine", None)
        self._camera_core: Any = core if hasattr(core, "getROI") else getattr(engine, "mmcore", None)
        self._last: dict[str, State] = {}
        if isinstance(core, type) or not all(hasattr(signal, "connect") for signal in self._signals):
            given = f"the class {core.__name__}" if isinstance(core, type) else f"a {type(core).__name__}"
            raise SourceError(
                f"follow() was given {given}, which has no signals of an acquisition. "
                "Give it the core of pymmcore-plus: mmc = CMMCorePlus.instance(), follow(mmc)"
            )

    def connect(self, *slots: Callable[..., None]) -> None:
        """Connect a slot to each, so that it runs in the thread that emits."""
        self._slots = slots
        for signal, slot in zip(self._signals, slots, strict=True):
            module = type(signal).__module__
            if module.partition(".")[0] in _QT:
                signal.connect(slot, sys.modules[module].Qt.ConnectionType.DirectConnection)
            else:
                signal.connect(slot)

    def disconnect(self) -> None:
        """Disconnect; safe more than once."""
        for signal, slot in zip(self._signals, self._slots, strict=False):
            try:
                signal.disconnect(slot)
            except Exception:
                pass  # a core that is gone, or whose signals were cleared, has nothing connected any more
        self._slots = ()

    def state_of(self, camera: str, meta: Mapping[str, Any]) -> State:
        """Return what a picture does not tell of its camera: its metadata leave it out, so the core is asked.

        In a hardware sequence the frame's own tags say which ROI it has; the camera runs, so the rest is as it was.
        """
        tags = meta.get("camera_metadata") or {}
        told = State.by_tags(tags)
        core = self._camera_core
        if core is None:
            return told
        number = str(tags.get("ImageNumber", ""))
        if number not in ("", "0") and camera in self._last and self._last[camera].roi == told.roi:
            return self._last[camera]
        try:
            roi = told.roi or tuple(int(n) for n in core.getROI(camera))
            binning = str(core.getPropertyFromCache(camera, "Binning")) if core.hasProperty(camera, "Binning") else ""
            bits = int(core.getImageBitDepth()) if core.getCameraDevice() == camera else 0
        except Exception:
            return told  # several pictures of one camera have names that the core does not know
        self._last[camera] = State(roi, binning, bits)
        return self._last[camera]

    @property
    def running(self) -> bool | None:
        """Whether an acquisition runs; None where only signals were handed over, which cannot be asked."""
        ask = getattr(self._runner, "is_running", None)
        return None if ask is None else bool(ask())

    @property
    def ended(self) -> str:
        """How the last acquisition ended: completed, canceled, errored; empty before pymmcore-plus 0.17."""
        reason = getattr(getattr(self._runner, "status", None), "finish_reason", None)
        return str(getattr(reason, "value", reason or ""))

    @property
    def overflowed(self) -> bool:
        """Whether the core's buffer overflowed in the last hardware sequence."""
        ask = getattr(self._core, "isBufferOverflowed", None)
        return ask is not None and bool(ask())
