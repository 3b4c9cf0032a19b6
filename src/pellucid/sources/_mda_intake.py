"""Frames of pymmcore-plus on their way from the thread that acquires into slots.

A frame is copied in the thread that acquires: the array may be used again as soon as the slot of its signal returns.

Two threads meet here, under one lock: that of the acquisition, in the three signals, and that of the session, in the
verbs of the source. The acquisition waits for the session in three places, each at most `wait_s` and never longer than
the session lives: at its start until the session is open (its clock begins after that), at the first frame of a
stream that nobody knew of, and where no slot is free.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Slot, Spec, Stream
from pellucid.sources._camera import times_binned
from pellucid.sources._mda import Camera, Plan, State, axes_of, camera_of, cameras_in, channel_of, spec_of
from pellucid.sources._mda_signals import Signals
from pellucid.sources._mda_tally import Key, Tally
from pellucid.sources._stamps import Stamps

__all__ = ["Intake"]

_log = logging.getLogger("pellucid")


class _Lane:
    """The current stream of a camera and channel; `run` tells the acquisition whose axes it has."""

    __slots__ = ("offered", "run", "slots", "state", "stream")

    def __init__(self, stream: Stream, run: int) -> None:
        self.stream = stream
        self.run = run
        self.state = State.of(stream)
        self.slots: deque[Slot] = deque()
        self.offered = False


class Intake:
    """What a session takes from one core.

    Parameters
    ----------
    core
        A ``CMMCorePlus``, its ``mda``, or ``mda.events``.
    drops
        Without a free slot a frame is left out; else the acquisition waits.
    wait_s
    pixel_um, floats
        For what the metadata says; None to believe it.

    Attributes
    ----------
    sequences : int
        Acquisitions that began.
    given : int
        Frames that the session has read.
    untaken : int
        Frames that came while no session took any.
    listening : threading.Event
        A session waits for the first acquisition, or has begun to take it.

    Raises
    ------
    SourceError
        Where `core` has no such signals.
    """

    def __init__(self, core: Any, *, drops: bool, wait_s: float, pixel_um: float | None, floats: bool | None) -> None:
        self.signals = Signals(core)
        self.sequences = self.given = self.untaken = 0
        self._drops = drops
        self._wait_s = wait_s
        self._pixel_um = pixel_um
        self._floats = floats
        self.listening = threading.Event()
        self._some = threading.Condition()
        self._turn = threading.Lock()
        self._started = self._stopped = self._closed = self._copying = False
        self._running = bool(self.signals.running)
        self._whole = False
        self._fault: SourceError | None = None
        self._plan = Plan()
        self._cameras: dict[str, Camera] = {}
        self._adapter = ""
        self._run = 0
        self._later_t = self._top_t = 0
        self._tally = Tally()
        self._lanes: dict[Key, _Lane] = {}
        self._by_index: dict[int, _Lane] = {}
        self._asked: dict[Key, _Lane] = {}
        self._streams = 0
        self._seq = 0
        self._ready: deque[Slot] = deque()
        self._missed: deque[tuple[int, int, str, str, int]] = deque()
        self._stamps = Stamps()
        self.signals.connect(self._on_started, self._on_frame, self._on_finished)

    # ---------------------------------------------------------------- signals, in the thread that acquires

    def _on_started(self, sequence: Any, meta: Any = None) -> None:
        with self._excused(), self._turn:
            plan = _read(sequence)
            with self._some:
                self._running = True
                self.sequences += 1
                self._begin(plan, meta or {})
                self._some.notify_all()
                if self._streams and not self._wait(self._is_open) and self._alive:
                    _log.warning("the session was not ready within %g s; the acquisition begins", self._wait_s)

    def _on_frame(self, image: Any, event: Any, meta: Any = None) -> None:
        with self._excused(), self._turn:
            self._take(image, event, meta or {})

    def _on_finished(self, sequence: Any = None) -> None:
        with self._excused(), self._turn, self._some:
            self._running = False
            if self._alive:
                self._look_for_holes(self.signals.ended)
            self._some.notify_all()

    def _look_for_holes(self, ended: str) -> None:
        """Tell of frames that an acquisition should have had; one that was cancelled lacks none."""
        if ended == "completed" and self._whole:
            for key, count in self._tally.holes(self._plan.counts, list(self._cameras)):
                self._missing(count, "lost", "camera", key)
        elif ended == "errored" and self._tally.last is not None and self.signals.overflowed:
            # The core stops at the first frame that finds no room, and pymmcore-plus breaks off.
            self._missing(1, "lost", "camera buffer", self._tally.last)

    def _is_open(self) -> bool:
        """Tell whether the session has slots for all streams that are known."""
        return self._started and not self._asked and all(lane.offered for lane in self._by_index.values())

    @contextmanager
    def _excused(self) -> Iterator[None]:
        """Keep what goes wrong here away from the acquisition: the session raises it."""
        try:
            yield
        except Exception as error:
            fault = error if isinstance(error, SourceError) else SourceError(f"{type(error).__name__}: {error}")
            with self._some:
                self._fault = self._fault or fault
                self._some.notify_all()

    def _begin(self, plan: Plan, meta: Mapping[str, Any]) -> None:
        """Take in a new acquisition: it goes on where one of its kind ended, or has streams of its own."""
        self._tally = Tally()
        goes_on = self._streams > 0 and plan.continues(self._plan)
        self._plan = plan
        self._whole = self._alive
        cameras = cameras_in(meta)
        self._adapter = next((info["camera_label"] for info in meta.get("image_infos") or ()), "")
        self._cameras = {camera.name: camera for camera in cameras}
        if goes_on:
            self._later_t = self._top_t
            return
        self._later_t = self._top_t = 0
        self._run += 1
        for camera in cameras if plan.sizes and self._alive else ():
            spec = spec_of(camera.name, camera.shape, camera.dtype, floats=self._is_float(camera))
            for channel in plan.counts or plan.channel_names:
                self._meet((camera.name, channel), spec, camera)

    def _is_float(self, camera: Camera) -> bool:
        return camera.floats if self._floats is None else self._floats

    def _take(self, image: Any, event: Any, meta: Mapping[str, Any]) -> None:
        """Hot: copy a frame into a slot, or note why not."""
        arrived = now_ns()
        with self._some:
            if not self._alive:
                if not self.listening.is_set() and not self.untaken:
                    _log.warning("frames come, but the session takes none: use with pellucid.open(...).follow(mmc)")
                self.untaken += 1
                return
            key = (camera_of(event, meta, self._adapter), channel_of(event, self._plan))
            lane = self._lane_of(key, image, meta)
            slot = None if lane is None else self._slot_of(lane)
            if not self._alive:
                self.untaken += 1
                return
            axes = axes_of(event, self._plan, self._later_t)
            self._top_t = max(self._top_t, (axes or {}).get("t", 0) + 1)
            number, gap = self._tally.come(key, meta)
            if gap:
                self._missing(gap, "lost", "camera", key)
            if lane is None or slot is None:
                self._missing(1, "dropped", "ring", key)
                self._some.notify_all()
                return
            seq = self._seq
            self._seq += 1
            self._copying = True
        try:
            raw = slot.planes["raw"]
            np.copyto(raw, image.transpose(2, 0, 1) if raw.ndim == 3 else image.view(raw.dtype))
            stamp = (meta.get("camera_metadata") or {}).get("TimeReceivedByCore", "")
            camera_ns = min(self._stamps.to_now_ns(str(stamp)), arrived) if stamp else arrived
            slot.info = FrameInfo(seq, lane.stream.index, number, camera_ns, 0, now_ns(), axes=axes)
            self._ready.append(slot)
        except Exception:
            self._missed.append((seq, 1, "lost", "camera", lane.stream.index))
            raise
        finally:
            with self._some:
                self._copying = False
                self._some.notify_all()

    def _lane_of(self, key: Key, image: Any, meta: Mapping[str, Any]) -> _Lane | None:
        """Hot: find the stream of a frame; wait for one that is new. None where the session makes none."""
        lane = self._lanes.get(key)
        state = self.signals.state_of(key[0], meta)
        if lane is not None and lane.run == self._run and _fits(lane.stream.spec, image) and state.agrees(lane.state):
            return lane
        camera = self._cameras.get(key[0], Camera(key[0]))
        same = (camera.shape, camera.dtype) == (image.shape, image.dtype.name)
        if not same or not state.agrees(camera.state):
            camera = camera.changed(meta, state)
        spec = spec_of(key[0], image.shape, image.dtype.name, floats=self._is_float(camera))
        if not self._streams:
            # All that is known to come, so that stages for a channel find it.
            for channel in self._plan.channel_names:
                self._meet((key[0], channel), spec, camera)
        if key not in self._asked:
            self._meet(key, spec, camera, state)
        lane = self._asked[key]
        return lane if self._wait(lambda: lane.offered) and _fits(lane.stream.spec, image) else None

    def _meet(self, key: Key, spec: Spec, camera: Camera, state: State | None = None) -> None:
        """Ask the session for a stream; the source tells it in its own thread."""
        old = self._lanes.get(key)
        stream = self._plan.stream(camera, key[1], spec, self._streams, None if old is None else old.stream.index)
        if self._pixel_um is not None:
            # What was said is meant of the first pictures.
            before = stream if old is None else old.stream
            more, fewer = (times_binned(str(s.details.get("binning", ""))) for s in (stream, before))
            scale = more / fewer if more and fewer else 1.0
            stream = replace(stream, pixel_um=(self._pixel_um if old is None else before.pixel_um or 0.0) * scale)
        self._streams += 1
        lane = self._asked[key] = _Lane(stream, self._run)
        lane.state = state or lane.state
        self._some.notify_all()

    def _slot_of(self, lane: _Lane) -> Slot | None:
        """Hot: take a free slot; None where there is none to be had."""
        if lane.slots or (not self._drops and self._wait(lambda: bool(lane.slots))):
            return lane.slots.popleft()
        return None

    def _missing(self, count: int, state: str, where: str, key: Key) -> None:
        lane = self._lanes.get(key)
        self._missed.append((self._seq, count, state, where, -1 if lane is None else lane.stream.index))
        self._seq += count

    # ---------------------------------------------------------------- waiting

    @property
    def _alive(self) -> bool:
        return self.listening.is_set() and not (self._stopped or self._closed or self._fault is not None)

    def _wait(self, until: Callable[[], bool]) -> bool:
        """Wait for the session, as long as it lives and at most `wait_s`; the lock is held."""
        end = now_ns() + round(self._wait_s * 1e9)
        while not until():
            left_s = (end - now_ns()) * 1e-9
            if not self._alive or left_s <= 0:
                return False
            self._some.wait(left_s)
        return True

    @property
    def calm(self) -> bool | None:
        """No acquisition runs; None where pymmcore-plus says so, but has not told of its end."""
        asked = self.signals.running
        if asked is None:
            return not self._running
        return False if asked else None if self._running else True

    # ---------------------------------------------------------------- verbs of the source

    def open(self) -> tuple[Stream, ...]:
        """Wait for the first acquisition, and return the streams it begins with.

        Raises
        ------
        SourceError
            Where none came before `stop`, or its pictures cannot be taken.
        """
        with self._some:
            self.listening.set()
            while not self._asked:
                if self._fault is not None:
                    raise self._fault
                if self._stopped or self._closed:
                    raise SourceError("no acquisition was run: call mmc.run_mda(sequence) within the with")
                self._some.wait()
            return tuple(self._register())

    def _register(self) -> list[Stream]:
        streams = []
        for key, lane in self._asked.items():
            old = self._lanes.get(key)
            if old is not None:
                old.slots.clear()
                del self._by_index[old.stream.index]
            self._lanes[key] = self._by_index[lane.stream.index] = lane
            streams.append(lane.stream)
        self._asked.clear()
        self._some.notify_all()
        return streams

    def start(self) -> None:
        """Let an acquisition that waits for the session begin."""
        with self._some:
            self._started = True
            self._some.notify_all()

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        with self._some:
            lane = self._by_index.get(slot.stream.index)
            if lane is not None:
                lane.slots.append(slot)
                lane.offered = True
                self._some.notify_all()

    def read(self, timeout_s: float, fresh: list[Stream], account: Account) -> Slot | None:
        """Hot: return the next filled slot; tell what is missing, and what streams are new.

        Raises
        ------
        SourceError
            Where a frame came that cannot be taken, after those before it.
        """
        end = now_ns() + round(timeout_s * 1e9)
        with self._some:
            while True:
                while self._missed:
                    account.missing(*self._missed.popleft())
                if self._ready:
                    self.given += 1
                    return self._ready.popleft()
                if self._asked:
                    fresh.extend(self._register())
                    return None
                if self._fault is not None and not self._closed:
                    self._closed = True
                    raise self._fault
                left_s = (end - now_ns()) * 1e-9
                if self.finished or left_s <= 0:
                    return None
                self._some.wait(left_s)

    @property
    def finished(self) -> bool:
        """No frame will come any more."""
        return (self._stopped or self._closed) and not (self._copying or self._ready or self._missed)

    @property
    def produced(self) -> int:
        """Frames so far, those that are missing too."""
        return self._seq

    def stop(self) -> None:
        """Take no more frames."""
        with self._some:
            self._stopped = True
            self._some.notify_all()

    def close(self) -> None:
        """Let go of all slots, and of an acquisition that waits."""
        with self._some:
            self._closed = True
            self._some.notify_all()
            while self._copying:
                self._some.wait()
            self._by_index.clear()
            self._lanes.clear()
            self._ready.clear()

    def leave(self) -> None:
        """Disconnect from the core; after `stop` or `close`, since an acquisition that waits holds its signal."""
        self.signals.disconnect()


def _read(sequence: Any) -> Plan:
    try:
        return Plan.read(sequence)
    except Exception as error:
        # A sequence of another kind than useq's runs all the same: the frames tell where they belong.
        _log.warning("the sequence cannot be read (%s: %s); its frames tell their axes", type(error).__name__, error)
        return Plan()


def _fits(spec: Spec, image: Any) -> bool:
    """Hot: tell whether a picture is of a stream's shape and type."""
    if spec.is_colour:
        return bool(image.shape == (*spec.shape[1:], spec.shape[0]) and image.dtype.name == spec.dtype)
    return bool(
        image.shape == spec.shape
        and (image.dtype.name == spec.dtype or (spec.dtype == "float32" and image.dtype.name == "uint32"))
    )
