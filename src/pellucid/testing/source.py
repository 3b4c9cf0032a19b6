"""The contract of a source, with a ring and an account to run it without a session."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Ring, Slot, Source, Spec, Stream
from pellucid.wire.memory import SlotLayout, SlotMemory

__all__ = ["LocalRing", "Observed", "Told", "check_source"]

_UNTOUCHED = 0xA5


class LocalRing:
    """Slots in private memory, without a session around them.

    Parameters
    ----------
    stream
        Whose frames the slots will hold.
    slots
        How many.
    planes
        Further planes beside ``raw``.
    shared
        In shared memory, for sources that another process fills.
    """

    def __init__(
        self, stream: Stream, slots: int, planes: Mapping[str, Spec] | None = None, *, shared: bool = False
    ) -> None:
        layout = SlotLayout({"raw": stream.spec, **(planes or {})}, slots)
        self.memory = SlotMemory.create(layout, shared=shared)
        self.slots: Sequence[Slot] = [Slot(i, stream, self.memory.views(i)) for i in range(slots)]

    def close(self) -> None:
        """Give the memory back."""
        self.slots = []
        self.memory.close()


class Told:
    """An account that remembers everything it was told.

    Attributes
    ----------
    missed : list of tuple
        ``(first, count, state, where)`` of each call of ``missing``.
    streams : list of int
        Whose frames they were, for each of `missed`; -1 where the source did not know.
    produced : int or None
        Of the last call of ``told``.
    complete : bool
    ignored : list of str
    """

    def __init__(self) -> None:
        self.missed: list[tuple[int, int, str, str]] = []
        self.streams: list[int] = []
        self.produced: int | None = None
        self.complete = True
        self.ignored: list[str] = []
        self.notes: list[str] = []

    def missing(self, first: int, count: int, state: str, where: str, stream: int = -1) -> None:
        """Remember frames that did not arrive."""
        assert count > 0, f"missing({first}, {count}): nothing is missing"
        assert state in ("dropped", "lost"), f'state "{state}" is neither dropped nor lost'
        assert where, "a missing frame has a place where it went missing"
        assert stream >= -1, f"stream {stream} is none"
        self.missed.append((first, count, state, where))
        self.streams.append(stream)

    def told(self, produced: int, complete: bool = True) -> None:
        """Remember how many frames the camera's side says it produced."""
        self.produced, self.complete = produced, complete

    def ignore(self, why: str) -> None:
        """Remember something that was no frame."""
        self.ignored.append(why)

    def note(self, text: str) -> None:
        """Remember a line for the user."""
        self.notes.append(text)

    def numbers(self) -> list[int]:
        """Sequence numbers of all frames that did not arrive."""
        return [seq for first, count, _, _ in self.missed for seq in range(first, first + count)]


@dataclass
class Observed:
    """What `check_source` saw, for further questions of one's own.

    Attributes
    ----------
    streams : tuple of Stream
        Those that began during the run at the end.
    infos : list of FrameInfo
        In order of arrival.
    planes : list of numpy.ndarray
        A copy of each raw plane.
    account : Told
    """

    streams: tuple[Stream, ...] = ()
    infos: list[FrameInfo] = field(default_factory=list)
    planes: list[NDArray[Any]] = field(default_factory=list)
    account: Told = field(default_factory=Told)


def check_source(make: Callable[[], Source], *, frames: int = 12, slots: int = 4, patience_s: float = 60.0) -> Observed:
    """Run a source through its life and assert that it keeps the contract of `pellucid.protocols.Source`.

    Parameters
    ----------
    make
        Returns a new source, configured to give at least a few frames by itself; called several times.
    frames
        Read so many (or all, where there are fewer), then stop it and read to the end.
    slots
        Size of the ring of each stream.
    patience_s
        For the whole of one run; a source that gives nothing for so long fails.

    Returns
    -------
    Observed
        Of the first run.

    Raises
    ------
    AssertionError
        Saying which part of the contract was broken.
    """
    make().close()  # before anything was opened
    seen = _live_through(make(), frames, slots, patience_s)
    threads = set(threading.enumerate())
    # What an SDK starts once and keeps was there after the first run; a second run must add nothing.
    _live_through(make(), min(frames, 2), slots, patience_s)
    left = [t.name for t in threading.enumerate() if t not in threads and t.is_alive()]
    assert not left, f"threads were left behind by close(): {left}"
    return seen


def _live_through(source: Source, frames: int, slots: int, patience_s: float) -> Observed:
    assert isinstance(source, Source), "an attribute or a method of protocols.Source is missing"
    streams = tuple(source.open())
    rings: list[LocalRing] = []
    try:
        _check_streams(streams)
        rings = [LocalRing(stream, slots, shared=source.shares_memory) for stream in streams]
        return _Run(source, streams, rings, patience_s).go(frames)
    finally:
        source.close()
        source.close()
        for ring in rings:
            ring.close()


def _check_streams(streams: Iterable[Stream], first: int = 0) -> None:
    streams = tuple(streams)
    assert streams, "open() gave no stream"
    for i, stream in enumerate(streams, first):
        spec = stream.spec
        assert stream.index == i, f"stream {i} says it is number {stream.index}"
        assert spec.axes in ("yx", "zyx", "cyx"), f'axes "{spec.axes}" are neither yx nor zyx nor cyx'
        assert len(spec.shape) == len(spec.axes), f"shape {spec.shape} has not the axes {spec.axes}"
        if spec.is_colour:
            assert (spec.shape[0], spec.dtype) == (3, "uint8"), f"a colour picture is (3, y, x) uint8, not {spec}"
        assert all(type(n) is int and n > 0 for n in spec.shape), f"shape {spec.shape}"
        assert np.dtype(spec.dtype).name == spec.dtype, f"dtype {spec.dtype} is not the name of a numpy type"
        assert spec.device == "cpu", f"a source fills host memory, not {spec.device}"
        assert stream.pixel_um is None or stream.pixel_um > 0
        assert stream.frames is None or stream.frames > 0
        assert stream.replaces is None or 0 <= stream.replaces < i, f"stream {i} replaces {stream.replaces}"
        assert all(count > 0 for count in stream.sizes.values()), f"sizes {stream.sizes}"
        json.dumps(dict(stream.details))


class _Run:
    """One run: offers slots, reads them, and keeps book of who owns which."""

    def __init__(self, source: Source, streams: tuple[Stream, ...], rings: list[LocalRing], patience_s: float) -> None:
        self.source = source
        self.rings = rings
        self.seen = Observed(streams=streams)
        self.offered: dict[int, Slot] = {}
        self.until = now_ns() + round(patience_s * 1e9)
        self.patience_s = patience_s
        self.replaced: set[int] = set()
        fresh = getattr(source, "fresh", None)
        assert fresh is None or isinstance(fresh, list), "fresh is a list that lives as long as the source"
        assert fresh is None or callable(getattr(source, "extend", None)), "a source with fresh has extend(rings)"
        self.fresh: list[Stream] = [] if fresh is None else fresh

    def go(self, frames: int) -> Observed:
        source, seen = self.source, self.seen
        rings: list[Ring] = list(self.rings)
        source.start(rings, seen.account)
        before = now_ns()
        assert source.read(0.02) is None, "read() returned a slot although none had been offered"
        # Generous, since the machine may be busy; a read that waits for a slot for ever is what this finds.
        assert now_ns() - before < 10e9, "read() went far beyond its timeout while no slot was offered"
        for ring in self.rings:
            for slot in ring.slots:
                self.offer(slot)
        while len(seen.infos) < frames and not source.finished:
            self.read()
        source.stop()
        while not source.finished:
            self.read()
        assert source.read(0.01) is None, "a finished source gave one more frame"
        assert seen.infos, "not one frame came"
        self.check_numbers()
        return seen

    def offer(self, slot: Slot) -> None:
        slot.planes["raw"].view(np.uint8)[...] = _UNTOUCHED
        self.offered[id(slot)] = slot
        self.source.offer(slot)

    def extend(self) -> None:
        """Make rings for the streams that the source has met, as a session does."""
        source: Any = self.source
        assert source.fresh is self.fresh, "fresh is one list for the source's whole life"
        streams = tuple(self.fresh)
        self.fresh.clear()
        _check_streams(streams, first=len(self.seen.streams))
        self.seen.streams += streams
        rings = [LocalRing(stream, len(self.rings[0].slots), shared=source.shares_memory) for stream in streams]
        self.rings += rings
        for stream in streams:
            if stream.replaces is not None:
                assert stream.replaces not in self.replaced, f"stream {stream.replaces} is replaced twice"
                self.replaced.add(stream.replaces)
        self.offered = {i: slot for i, slot in self.offered.items() if slot.stream.index not in self.replaced}
        source.extend(rings)
        for ring in rings:
            for slot in ring.slots:
                self.offer(slot)

    def read(self) -> None:
        if self.fresh:
            self.extend()
        assert now_ns() < self.until, f"nothing more came within {self.patience_s:g} s, nor the end"
        slot = self.source.read(0.05)
        if slot is None:
            return
        assert slot.stream.index not in self.replaced, "read() returned a slot of a stream that was replaced"
        assert self.offered.pop(id(slot), None) is slot, "read() returned a slot that it did not own"
        self.check_frame(slot)
        self.seen.infos.append(slot.info)
        self.seen.planes.append(slot.planes["raw"].copy())
        self.offer(slot)

    def check_frame(self, slot: Slot) -> None:
        info, infos = slot.info, self.seen.infos
        assert slot.stream.index == info.stream, f"a slot of stream {slot.stream.index} for {info.stream}"
        last = infos[-1].seq if infos else -1
        assert info.seq > last, f"seq {info.seq} came after {last}"
        assert all(info is not other for other in infos), "each frame needs a FrameInfo of its own"
        assert info.camera_ns > 0, "camera_ns was not set"
        assert info.received_ns >= info.camera_ns, "received before the camera had it"
        assert info.received_ns <= now_ns(), "received in the future: not on the clock of metrics.now_ns"
        assert info.sent_ns <= info.received_ns
        sizes = slot.stream.sizes
        if sizes:
            axes = info.axes or {}
            assert set(sizes) <= set(axes), f"frame {info.seq} lacks some of the axes {list(sizes)}: {axes}"
        raw = slot.planes["raw"].view(np.uint8)
        assert np.any(raw != _UNTOUCHED), f"frame {info.seq}: the raw plane was not filled"

    def check_numbers(self) -> None:
        came = [seq for info in self.seen.infos for seq in (info.planes or (info.seq,)) if seq >= 0]
        gone = self.seen.account.numbers()
        both = sorted(came + gone)
        assert len(set(both)) == len(both), f"told as missing more than once, or although it came: {both}"
        assert both == list(range(len(both))), f"gaps that nobody was told of: came {came}, missing {gone}"
        told = self.seen.account.produced
        assert told is None or told == len(both), f"told {told} produced frames, {len(both)} are known"
