"""The loop of a run: source -> ring -> recorder (raw) -> chain -> fan-out.

One thread reads the source; it decides nothing and computes nothing, so the camera is never kept waiting by
a stage. For every frame its `lane` (1) counts it, (2) gives the raw plane to the sinks that want it early (the
recorder), and (3) hands the slot to the chain's thread, which runs the stages, checks the results and gives the
slot to all sinks. A stage that raises or returns NaN ends the
chain of its stream: from then on its frames are *raw only*, the recording goes on, and one line says so.

Back-pressure is the ring and nothing else: whoever is slow keeps slots, the source runs out of them, and
drops with a count or waits (see `ring`). With ``restore = "latest"`` the chain itself may skip frames when it
is slower than the camera, so that raw still goes to the disk at full rate and what is shown stays live; so it is
by default for a source that does not wait.

A source may meet new streams while it runs (a channel that nobody knew of, a camera whose ROI has changed): the
loop opens a lane for each between two frames, and closes that of a stream that was replaced when its last frame
has gone its way.

With ``unit = "stack"`` the source is one of volumes (see `stacks`), and all that is said here of frames is true of
those.

The garbage collector is off within the loop; what it would do is done twice a second by a thread that
also looks for sinks that stand still.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psutil

from pellucid.errors import PellucidError, RunError, SinkError, SourceError, StageError, did_you_mean
from pellucid.ledger import Ledger
from pellucid.marks import free_name
from pellucid.metrics import Histogram, now_ns
from pellucid.protocols import RAW, Ring, Sink, Slot, Source, Spec, Stage, Stream
from pellucid.runtime.chain import Chain, pick_device, use_threads
from pellucid.runtime.exchange import Exchange
from pellucid.runtime.fanout import Branch
from pellucid.runtime.lane import Lane
from pellucid.runtime.onlookers import Onlooker, Onlookers
from pellucid.runtime.report import hardware, make_report
from pellucid.runtime.ring import SlotRing
from pellucid.runtime.stacks import Stacks
from pellucid.wire.memory import SlotLayout

__all__ = ["Session", "Settings"]

_WAIT_S = 0.05
_TICK_S = 0.5
_BEGIN_S = 3.0
"""For a run that is just beginning, until it can be looked at."""


@dataclass(slots=True)
class Settings:
    """The ``[session]`` part of a config; `pellucid.config` checks it."""

    device: str = "auto"
    threads: int | None = None
    slots: int = 16
    restore: str = "auto"
    frames: int | None = None
    seconds: float | None = None
    stall_s: float = 10.0
    channels: frozenset[str] = frozenset()
    cameras: frozenset[str] = frozenset()
    """Names that stages ask for: one that no stream has is a mistake."""
    unit: str = "plane"


class Session:
    """One run from a source to its sinks.

    Parameters
    ----------
    source
    stages
        For each stream a fresh set: a function of the stream that returns name -> stage.
    sinks
        Name -> sink, names as in the report.
    settings
    facts
        What goes into the report as it is: ``config`` (text), ``config_sha256``, ``version``.
    tell
        Takes a line now and then while stages open that take long; None: they are logged.

    Notes
    -----
    ``open`` -> ``run`` -> ``close``; ``stop`` may be called from any thread or signal handler.
    """

    def __init__(
        self,
        source: Source,
        make_stages: Any,
        sinks: Mapping[str, Sink],
        settings: Settings,
        facts: Mapping[str, Any],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.source: Source = Stacks(source) if settings.unit == "stack" else source
        self.sinks = dict(sinks)
        self.settings = settings
        self.ledger = Ledger()
        self.lanes: list[Lane] = []
        self.report: dict[str, Any] | None = None
        self.error: PellucidError | None = None
        self._make_stages = make_stages
        self._facts = dict(facts)
        self._tell = tell or logging.getLogger("pellucid").info
        self._branches: dict[str, Branch] = {}
        self._stopped = False
        self._ended = ""
        self._device = "cpu"
        self._opened: list[Sink] = []
        self._over = threading.Event()
        self._seen: dict[str, tuple[int, int]] = {}
        self._making = threading.Lock()
        self._exchanging = threading.Lock()
        self._extending = False
        self._in_force: list[dict[str, Any]] = []
        self._onlookers = Onlookers(self._release, self._note)
        self._begun = threading.Event()

    # ---------------------------------------------------------------- open

    def open(self) -> None:
        """Open everything, in an order in which nothing is half made: source, stages, memory, sinks.

        Raises
        ------
        PellucidError
            With everything closed again.
        """
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._device = pick_device(self.settings.device)
        use_threads(self.settings.threads)
        for name, sink in self.sinks.items():
            # What is wrong already is said before anybody waits for a camera or a sender.
            try:
                getattr(sink, "ready", lambda: None)()
            except PellucidError as error:
                raise type(error)(f"{name}: {error}") from None
        streams = self.source.open()
        self._check_streams(streams)
        self._look_for_names(streams)
        for stream in streams:
            self.lanes.append(self._lane(stream))
        self._look_for_room(self.lanes)
        for lane in self.lanes:
            self._allocate(lane)
        self.ledger.expect("received")
        for lane in self.lanes:
            self._name_durations(lane)
        for name in self.sinks:
            self.ledger.duration[name] = Histogram()
        self._open_sinks(streams)

    def _look_for_names(self, streams: Sequence[Stream]) -> None:
        """Say that a stage waits for a channel or a camera that does not exist, where that can be known."""
        for what, wanted in (("channel", self.settings.channels), ("camera", self.settings.cameras)):
            there = list(dict.fromkeys(getattr(stream, what) for stream in streams))
            for name in sorted(wanted - set(there)):
                text = f'a stage has {what}s = ["{name}"], but the {what}s here are {", ".join(there)}.'
                near = did_you_mean(name, there)
                # A source that can meet new streams may bring it yet, unless it knows its whole experiment.
                if hasattr(self.source, "fresh") and not any(stream.sizes for stream in streams):
                    self._note(f"{text}{near} It works as soon as that {what} comes")
                else:
                    raise StageError(f"{text}{near}")

    def _lane(self, stream: Stream) -> Lane:
        with self._making:
            stages: dict[str, Stage] = self._make_stages(stream)
            changes = len(self._in_force)
        chain = Chain(stages, stream, self._device, self._tell) if stages else None
        outputs = chain.open() if chain else {}
        self.ledger.follow(stream, chain.names if chain else ())
        lane = Lane(stream, chain, {RAW: stream.spec} | outputs, self.ledger)
        lane.changes_before = changes
        return lane

    def _allocate(self, lane: Lane) -> None:
        lane.allocate(self.settings.slots, shared=self.source.shares_memory, pinned=self._device.startswith("cuda"))

    def _look_for_room(self, lanes: Sequence[Lane]) -> None:
        """Refuse slots that would not fit, before a byte of them is taken."""
        slots = self.settings.slots
        needed = sum(SlotLayout(lane.planes, slots).nbytes for lane in lanes)
        free = psutil.virtual_memory().available
        if needed > 0.9 * free:
            what = "stacks" if self.settings.unit == "stack" else "frames"
            fit = next((n for n in (8, 4) if n < slots and n * needed < 0.9 * free * slots), 3)
            raise SourceError(
                f"session.slots = {slots}: {what} of {lanes[0].stream.spec} need {needed / 1e6:.0f} MB, "
                f"{free / 1e6:.0f} MB are free. Use fewer: --set session.slots={fit}"
            )

    def _run_facts(self) -> dict[str, Any]:
        """Return what sinks are told of the run."""
        return {
            **self._facts,
            "ledger": self.ledger,
            "live": self.source.live,
            "slots": self.settings.slots,
            "hold": self._hold,
            "release": self._release,
            "tell": self._note,
            "stages": lambda: [lane.begun_with for lane in self.lanes],
        }

    def join(self, sink: Onlooker) -> str:
        """Have a sink look at the newest frames from now on, until it says that it is gone; return its name.

        In any thread but the loop's, while the session runs.

        Raises
        ------
        PellucidError
            Where it cannot.
        """
        self._begun.wait(_BEGIN_S)
        if not self._begun.is_set() or self._over.is_set() or self._stopped:
            raise RunError("nothing runs that could be looked at")
        return self._onlookers.join(sink, self.lanes_that_go_on, self._run_facts())

    def _open_sinks(self, streams: Sequence[Stream]) -> None:
        run = self._run_facts()
        planes = [lane.planes for lane in self.lanes]
        for name, sink in self.sinks.items():
            self._opened.append(sink)  # first, so that one that breaks off halfway is closed as well
            try:
                sink.open(streams, planes, run)
            except PellucidError as error:
                raise type(error)(f"{name}: {error}") from None
            except Exception as error:
                raise SinkError(f"{name} cannot open: {type(error).__name__}: {error}") from error

    def _name_durations(self, lane: Lane) -> None:
        marks, durations = self.ledger.marks_of(lane.stream.index), self.ledger.duration
        for name, took in zip(marks.names, marks.durations, strict=True):
            durations[free_name(name, lane.stream.index, durations)] = took

    # ---------------------------------------------------------------- run

    def stop(self, why: str = "stopped") -> None:
        """End the run: acquire nothing more, work off what is there, close the files."""
        # Nothing here takes a lock: a signal handler may call it between any two instructions.
        self._ended = self._ended or why
        self._stopped = True

    @property
    def device(self) -> str:
        """On which the stages run; after `open`."""
        return self._device

    def queues(self) -> dict[str, int]:
        """Return how many frames wait, by the name of the queue; from any thread, for those who watch."""
        depths = {name: branch.waiting for name, branch in list(self._branches.items())}
        for lane in list(self.lanes):
            depths |= lane.queues()
        return depths

    def run(self) -> dict[str, Any]:
        """Run to the end and return the report; the sinks' files are complete then.

        Raises
        ------
        RunError
            Where the run had to end early (a recorder failed or stalled, a source broke off). The report
            is made and written all the same.
        """
        self._start_branches()
        self._begun.set()
        housekeeping = threading.Thread(target=self._housekeep, name="pellucid housekeeping", daemon=True)
        housekeeping.start()
        with _no_collector():
            try:
                rings: list[Ring] = [lane.ring for lane in self.lanes]
                self.source.start(rings, self.ledger)
                self._loop()
            except Exception as error:
                # The run had begun, so this is no mistake in its config, whatever the source calls it.
                kind = "" if isinstance(error, PellucidError) else f"{type(error).__name__}: "
                fault = RunError(f"the source broke off: {kind}{error}")
                fault.__cause__ = error
                self._fail(fault)
            finally:
                self._finish()
                self._over.set()
                housekeeping.join()
        if self.error is not None:
            raise self.error
        assert self.report is not None
        return self.report

    def _start_branches(self) -> None:
        for name, sink in self.sinks.items():
            branch = Branch(
                name,
                _timed(sink.write, self.ledger.duration[name]),
                self._release,
                policy=sink.policy,
                on_error=self._sink_failed,
                on_lost=getattr(sink, "missed", None),
                counts=self.ledger.sinks.setdefault(name, Counter()),
            )
            self._branches[name] = branch
        for lane in self.lanes:
            self._start_lane(lane, self.sinks)

    def _start_lane(self, lane: Lane, sinks: Collection[str]) -> None:
        ways = [(self._branches[name], self.sinks[name].early) for name in sinks]
        # Deep enough for a chain that is late now and then, short enough to stay live.
        depth = max(1, self.settings.slots // 4)
        lane.start(ways, policy=self._chain_policy(), depth=depth, on_error=self._chain_broke)

    def _chain_policy(self) -> str:
        wish = self.settings.restore
        if wish == "auto":
            wish = "latest" if self.source.live else "every"
        return "block" if wish == "every" else "latest"

    def _loop(self) -> None:
        """Hot: until the source is finished, or the run is."""
        source, ledger = self.source, self.ledger
        lanes = self.lanes
        rings = {lane.stream.index: lane.ring for lane in lanes}
        fresh: list[Stream] = getattr(source, "fresh", [])
        leaving: list[Lane] = []
        limit = self.settings.frames
        until = round(self.settings.seconds * 1e9) + now_ns() if self.settings.seconds else None
        owned = dict.fromkeys(rings, 0)
        stopping = False
        deadline = 0
        while True:
            if fresh:
                leaving += self._extend(fresh, rings, owned)
            if leaving and leaving[0].idle:
                self._end_lane(leaving.pop(0))
            for i, ring in rings.items():
                while (slot := ring.take()) is not None:
                    source.offer(slot)
                    owned[i] += 1
            lent = owned.values()
            if not any(lent) and not source.finished:
                # Every slot is with a sink or a stage: nothing can arrive before one comes back.
                next(iter(rings.values())).wait(_WAIT_S if len(rings) == 1 else 0.001)
            # With a stream whose slots are all away a short look, so that those which come back are offered soon.
            slot = source.read(_WAIT_S if all(lent) else 0.001 if any(lent) else 0.0)
            if slot is None:
                if source.finished:
                    break
            else:
                owned[slot.stream.index] -= 1
                slot.ready = (RAW,)
                slot.holders = 1
                if limit is not None and ledger.taken >= limit:
                    ledger.left_out(slot.info, "dropped", "after the end")
                    slot.info.state = ""
                    self._release(slot)
                else:
                    lanes[slot.stream.index].take(slot)
            if stopping:
                if now_ns() > deadline:
                    self._note("the source did not end within 10 s after it was told to stop")
                    break
                continue
            if limit is not None and ledger.taken >= limit:
                self.stop(f"{limit} {'stacks' if self.settings.unit == 'stack' else 'frames'}")
            elif until is not None and now_ns() > until:
                self.stop(f"{self.settings.seconds:g} s")
            if self._stopped:
                stopping = True
                deadline = now_ns() + 10_000_000_000
                source.stop()

    # ---------------------------------------------------------------- streams that begin in a run

    def _extend(self, fresh: list[Stream], rings: dict[int, SlotRing], owned: dict[int, int]) -> list[Lane]:
        """Open lanes for the streams that the source has met; return those that they replace."""
        self._extending = True
        streams = fresh.copy()
        fresh.clear()
        self._check_streams(streams)
        replaced = []
        for stream in streams:
            if stream.replaces in rings:
                # Its slots that the source had are forgotten there, and nobody offers it any more.
                replaced.append(self.lanes[stream.replaces])
                del rings[stream.replaces], owned[stream.replaces]
            lane = self._late_lane(stream)
            self.lanes.append(lane)
            rings[stream.index], owned[stream.index] = lane.ring, 0
        self._extending = False
        self.source.extend([rings[stream.index] for stream in streams])  # type: ignore[attr-defined]
        return replaced

    def _late_lane(self, stream: Stream) -> Lane:
        """Make ready for a stream in the middle of a run, where a stage that cannot work on it costs no frame."""
        lane = None
        try:
            lane = self._lane(stream)
            self._look_for_room([lane])
            self._allocate(lane)
        except StageError as error:
            if lane is not None:
                lane.close(stuck=False)
            self.ledger.follow(stream)
            lane = Lane(stream, None, {RAW: stream.spec}, self.ledger, raw_only=str(error))
            self._look_for_room([lane])
            self._allocate(lane)
            self._note(f"stream {stream.index} ({stream.spec}): {error}. It is raw only; recording goes on")
        self._name_durations(lane)
        if lane.chain is not None:
            there, now = lane.chain.names, self._in_force[: lane.changes_before]
            self.ledger.changes += [{"frame": 0, "stream": stream.index, **c} for c in now if c["stage"] in there]
        takers = []
        for name, sink in self.sinks.items():
            extend = getattr(sink, "extend", None)
            if extend is None:
                self._note(f"{name} cannot take streams that begin during a run, so it gets none of {stream.spec}")
                continue
            extend(stream, lane.planes)
            takers.append(name)
        self._start_lane(lane, takers)
        self._onlookers.streams_changed()
        what = "new" if stream.replaces is None else "changed"
        self._note(f"{what}: {stream.camera}, {stream.channel} gives {stream.spec} (stream {stream.index})")
        return lane

    def _end_lane(self, lane: Lane) -> None:
        self.ledger.notes.extend(lane.drain(self.settings.stall_s))
        lane.close(stuck=False)

    # ---------------------------------------------------------------- other parameters during a run

    def exchange(
        self,
        make: Callable[[str, Spec], Stage],
        changes: Sequence[Mapping[str, Any]],
        commit: Callable[[], None],
    ) -> list[Exchange]:
        """Have other stages in the place of some, from the next frame of each stream on; in any thread but the loop's.

        Parameters
        ----------
        make
            Builds a stage from its name and the Spec of its result.
        changes
            A row for each key: ``what``, ``from``, ``to``, ``by``, ``stage`` (the name of the stage).
        commit
            Called once all are open: streams that begin from then on have the new stages from their start.

        Returns
        -------
        list of Exchange
            One for each stream that has such a stage.

        Raises
        ------
        StageError
            Where one of them cannot take its place; nothing has changed then.
        """
        names = {change["stage"] for change in changes}
        with self._exchanging:
            if self._over.is_set() or self._stopped:
                raise StageError("the run is over")
            lanes = self.lanes_that_go_on()
            ready = self._ready(lanes, make, names)
            with self._making:
                commit()
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                self._in_force += [{"time": now, **change} for change in changes]
            done = self._hand_over(ready, changes)
            while self._extending and not self._over.wait(0.01):
                pass
            late = [
                lane
                for lane in list(self.lanes)
                if lane not in lanes and lane.changes_before < len(self._in_force) and self._goes_on(lane)
            ]
            return done + self._hand_over(self._ready(late, make, names), changes)

    def lanes_that_go_on(self) -> list[Lane]:
        """Return those of which frames may come yet."""
        return [lane for lane in list(self.lanes) if self._goes_on(lane)]

    def _goes_on(self, lane: Lane) -> bool:
        return not lane.closed and lane.stream.index not in {other.stream.replaces for other in self.lanes}

    def _ready(
        self, lanes: Sequence[Lane], make: Callable[[str, Spec], Stage], names: set[str]
    ) -> list[tuple[Lane, dict[int, Stage]]]:
        """Open the new stages of some lanes, or none at all."""
        ready: list[tuple[Lane, dict[int, Stage]]] = []
        try:
            for lane in lanes:
                chain = lane.chain
                if chain is not None and not names.isdisjoint(chain.names):
                    fresh = {i: make(n, chain.made(n)) for i, n in enumerate(chain.names) if n in names}
                    ready.append((lane, chain.prepare(fresh)))
        except BaseException:
            for stage in (stage for _, stages in ready for stage in stages.values()):
                stage.close()
            raise
        return ready

    def _hand_over(
        self, ready: Sequence[tuple[Lane, dict[int, Stage]]], changes: Sequence[Mapping[str, Any]]
    ) -> list[Exchange]:
        done = []
        for lane, stages in ready:
            there = lane.chain.names if lane.chain is not None else []
            done.append(Exchange(partial(dict, stages), [c for c in changes if c["stage"] in there]))
            lane.change(done[-1])
        return done

    def _check_streams(self, streams: Sequence[Stream]) -> None:
        """Look whether the source numbers its streams as it must."""
        wanted = list(range(len(self.lanes), len(self.lanes) + len(streams)))
        if [stream.index for stream in streams] != wanted:
            raise SourceError(f"the source numbers its streams {[s.index for s in streams]}; they are {wanted}")

    # ---------------------------------------------------------------- what goes wrong

    def _hold(self, slot: Slot) -> None:
        self.lanes[slot.stream.index].ring.hold(slot)

    def _release(self, slot: Slot) -> None:
        self.lanes[slot.stream.index].ring.release(slot)

    def release(self, slot: Slot) -> None:
        """Let go of a slot that was handed out."""
        self._release(slot)

    def _note(self, text: str) -> None:
        self.ledger.note(text)

    def _sink_failed(self, name: str, error: BaseException) -> None:
        kind = "" if isinstance(error, PellucidError) else f"{type(error).__name__}: "
        self._note(f"{name}: {kind}{error}")
        if self.sinks[name].policy == "block":
            self._fail(RunError(f"{name} failed: {error}. The run ended; what was written before is kept"))

    def _chain_broke(self, name: str, error: BaseException) -> None:
        self._fail(RunError(f"{name}: {type(error).__name__}: {error}"))

    def _fail(self, error: PellucidError) -> None:
        self.error = self.error or error
        self.stop(f"failed: {error}")

    def _housekeep(self) -> None:
        """Do what has time, twice a second until the run's end: garbage, sinks that stand still."""
        while not self._over.wait(_TICK_S):
            gc.collect(1)
            for lane in list(self.lanes):
                lane.close_retired()
            self._onlookers.tidy(list(self.lanes))
            self._look_for_stalls()

    def _look_for_stalls(self) -> None:
        """Count, for each sink that must take every frame, the seconds in which this thread saw it on one frame.

        Seconds of a clock would also run while the whole process stands still (a laptop's lid, Ctrl-Z).
        """
        for name, branch in self._branches.items():
            sink = self.sinks[name]
            if sink.policy != "block" or getattr(sink, "patient", False):
                continue
            since = branch.busy_since_ns or getattr(sink, "busy_since_ns", 0)
            seen, ticks = self._seen.get(name, (0, 0))
            ticks = ticks + 1 if since and since == seen else 0
            self._seen[name] = (since, ticks)
            if ticks * _TICK_S > self.settings.stall_s and self.error is None:
                self._fail(RunError(f"{name} has not taken a frame for {ticks * _TICK_S:.0f} s. The run ended"))

    # ---------------------------------------------------------------- the end

    def _finish(self) -> None:
        """Work off the branches in the order of the frame's way, close the files, make the report."""
        ledger = self.ledger
        patience_s = 1.0 if self.error is not None else self.settings.stall_s
        for lane in self.lanes:
            if lane.closed:
                continue
            # Also after a fault a frame within a stage gets its time: it is on its way to a recorder that may be well.
            ledger.notes.extend(lane.drain(self.settings.stall_s))
        self._onlookers.end(self.lanes, None)
        for name, branch in self._branches.items():
            if not branch.drain(patience_s):
                self._note(f"{name} did not end within {patience_s:g} s; {branch.counts['lost']} frames lost there")
        for name, sink in self.sinks.items():
            since_ns = getattr(sink, "busy_since_ns", 0)
            if self._branches[name].stalled_s() or (since_ns and now_ns() - since_ns > patience_s * 1e9):
                continue  # its thread is still inside: nobody may touch it
            # What a sink took and left out by itself (a window that draws fewer frames) was not written.
            left_out = getattr(sink, "skipped", 0)
            self._branches[name].counts.update(written=-left_out, skipped=left_out)
            try:
                sink.finish()
            except Exception as error:
                self._note(f"{name}: {error}")
                self.error = self.error or RunError(f"{name} could not finish: {error}")
            lost = getattr(sink, "lost", 0)
            self._branches[name].counts.update(written=-lost, lost=lost)
        source = getattr(self.source, "source", self.source)
        how = getattr(source, "ended", "")
        self._close_source()
        clock = getattr(source, "clock", None)
        if not ledger.complete:
            self._note("the camera's side went without its totals: frames after its last sign of life are unknown")
        self.report = make_report(
            ledger,
            {
                "ended": self._ended or how or ("the source ended" if ledger.complete else "the sender vanished"),
                "unit": self.settings.unit,
                "streams": [lane.describe() for lane in self.lanes],
                "config_sha256": self._facts.get("config_sha256", ""),
                "version": self._facts.get("version", ""),
                "hardware": hardware(self._device),
                **({"clock": clock} if clock else {}),
            },
        )
        if self.report["frames"]["unaccounted"] and self.error is None:
            self.error = RunError(
                f"{self.report['frames']['unaccounted']} frames are unaccounted for (see report.json)"
            )

    def _close_source(self) -> None:
        try:
            self.source.close()
        except Exception as error:
            self._note(f"the source could not be closed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Give everything back; safe at any time and more than once."""
        self._close_source()
        self._onlookers.end(self.lanes, self.report)
        faults = []
        for sink in self._opened:
            try:
                sink.close(self.report)
            except Exception as error:
                faults.append(error)
        self._opened.clear()
        # A sink that stands still inside its write keeps its view of the memory; the name goes all the same.
        stuck = any(branch.stalled_s() for branch in self._branches.values())
        for lane in self.lanes:
            lane.close(stuck=stuck)
        if not stuck:
            self.lanes = []
        if faults and self.error is None:
            self.error = RunError(f"the end of the run could not be written: {faults[0]}")
            raise self.error


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the garbage collector out of the loop, and everything that exists already out of its sight."""
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()


def _timed(write: Any, took: Histogram) -> Any:
    def timed(slot: Slot, names: tuple[str, ...]) -> None:
        before = now_ns()
        write(slot, names)
        took.add(now_ns() - before)

    return timed
