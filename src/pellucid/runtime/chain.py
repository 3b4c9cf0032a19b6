"""Stages bound to slots: the only file that knows devices, streams of work and CUDA graphs.

``open`` connects the stages by the names of their planes, makes every buffer, runs the chain twice on a
frame of zeros (libraries choose their plans then, not during the experiment), and on a GPU captures one
graph where every stage allows it. After that a frame costs: on a CPU, a copy of the raw plane (which the
recorder may still be writing) and one call for each stage, the last into the slot's memory; on a GPU, one
asynchronous upload, one graph launch, one asynchronous download, each on a stream of its own and ordered by
events, so that frame n+1 is uploaded while n is computed and n-1 comes down. `submit` never waits; `finish`
waits for that frame's event only.

A witness goes with every result: one number that is not finite if any pixel of any stage's result is not.
It is computed where the pixels are and comes down with them, so that looking for NaN costs one read. What a stage
notes of each frame comes the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from pellucid.errors import PellucidError, StageError
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, RESTORED, FrameInfo, Slot, Spec, Stage, Stream
from pellucid.runtime.colours import for_colours

__all__ = ["Chain", "connect", "give_back", "pick_device", "use_threads"]

_LONG_NS = 1_000_000_000
"""A chain that takes so long for a frame gains nothing from being tried out once more."""


def pick_device(wish: str) -> str:
    """Return the device to run on: ``"auto"`` means the first CUDA device, else the CPU."""
    if wish == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wish.startswith("cuda"):
        if not torch.cuda.is_available():
            raise StageError(
                f'session.device = "{wish}": torch {torch.__version__} sees no CUDA device here. '
                'Use device = "auto" or "cpu"'
            )
        index = torch.device(wish).index or 0
        if index >= torch.cuda.device_count():
            raise StageError(
                f'session.device = "{wish}": there are {torch.cuda.device_count()} CUDA devices, counted from 0'
            )
        return f"cuda:{index}"
    return "cpu"


def use_threads(wish: int | None) -> None:
    """Set how many threads torch uses on the CPU; None leaves a core to everything else.

    Its threads meet after each operation and spin until the last has come: where one of them shares its core
    with a camera or a window, all lose that one's time slice (measured on two cores with one busy: 6.5 ms
    become 390 ms with two threads, and 11 stay 14 with one).
    """
    torch.set_num_threads(wish or max(1, (os.cpu_count() or 2) - 1))


def connect(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """Name the planes that each stage reads and writes.

    A stage that names none reads what the stage before wrote (the first: ``raw``); the last writes
    ``restored`` unless it names another plane.

    Raises
    ------
    StageError
        Where a stage reads a plane that nobody writes before it, or writes one that is already there.
    """
    names: list[tuple[str, str]] = []
    known = [RAW]
    for i, stage in enumerate(stages):
        reads = stage.reads or known[-1]
        writes = stage.writes or (RESTORED if i == len(stages) - 1 else f"after stage {i}")
        where = f"stages[{i}] {type(stage).__name__.lower()}"
        if reads not in known:
            raise StageError(f'{where}: reads = "{reads}", but the planes there are {", ".join(known)}')
        if writes in known:
            raise StageError(f'{where}: writes = "{writes}", which is already there; give it another name')
        known.append(writes)
        names.append((reads, writes))
    return names


class Chain:
    """The stages of one stream.

    Parameters
    ----------
    stages
        With the names they go by in the report, in order.
    stream
    device
        As `pick_device` returned it.
    tell
        Takes a line now and then from stages that take long to open.
    """

    def __init__(
        self, stages: Mapping[str, Stage], stream: Stream, device: str, tell: Callable[[str], None] | None = None
    ) -> None:
        self.names = list(stages)
        self._stages = list(stages.values())
        self._stream = stream
        self._device = device
        self._tell = tell
        self._cuda = device.startswith("cuda")
        self._links = connect(self._stages)
        self._specs: dict[str, Spec] = {}
        self._steps: list[list[tuple[Stage, torch.Tensor, torch.Tensor]]] = []
        self._told: list[Callable[[FrameInfo], None] | None] = []
        self._raw: list[torch.Tensor] = []
        self._given = torch.zeros(())
        self._witnesses: list[list[torch.Tensor]] = []
        self._sums: list[torch.Tensor] = []
        self._passed = tuple(stages)
        self._ends_ns = [0] * len(stages)
        self._graph: _GraphRun | None = None
        self.remark = ""

    @property
    def waits(self) -> bool:
        """`submit` returns before the results are there."""
        return self._cuda

    def open(self) -> dict[str, Spec]:
        """Open the stages and return the planes that come back to the host, in order.

        Raises
        ------
        StageError
            Naming the stage.
        """
        specs: dict[str, Spec] = {RAW: self._stream.spec}
        self._told.clear()
        sharing = [stage for stage in self._stages if hasattr(stage, "share")]
        for stage in sharing:
            stage.share = 1 / len(sharing)
        for i, (reads, writes) in enumerate(self._links):
            where = f"stages[{i}] {self.names[i]}"
            try:
                given, stage = specs[reads], self._stages[i]
                if hasattr(stage, "tell"):
                    stage.tell = self._tell
                stage = self._stages[i] = for_colours(stage, given)
                stream = self._stream
                if given.zoom > 1 and stream.pixel_um is not None:
                    stream = replace(stream, pixel_um=stream.pixel_um / given.zoom)
                made = stage.open(stream, given, self._device)
                specs[writes] = replace(made, zoom=made.zoom * given.zoom)
                self._told.append(getattr(stage, "at", None))
            except PellucidError as error:
                raise type(error)(f"{where}: {error}") from None
            except Exception as error:
                raise StageError(f"{where}: cannot open: {type(error).__name__}: {error}") from error
        self._specs = specs
        # A plane that somebody named, and the last one, come back; what only connects two stages stays.
        last = self._links[-1][1]
        back = {last, *(stage.writes for stage in self._stages)} - {RAW}
        return {n: replace(s, device="cpu") for n, s in specs.items() if n in back}

    def bind(self, slots: Sequence[Slot], outputs: Sequence[str]) -> None:
        """Bind the stages to the memory of the slots, run them twice, capture what can be captured.

        Raises
        ------
        StageError
            Where a stage fails on a frame of zeros, or the device's memory does not suffice.
        """
        try:
            self._bind(slots, outputs)
        except Exception as error:
            what = f"stages {', '.join(self.names)} on {self._device}"
            raise StageError(f"{what}: failed on a frame of zeros: {type(error).__name__}: {error}") from error

    def _bind(self, slots: Sequence[Slot], outputs: Sequence[str]) -> None:
        with torch.inference_mode():
            if self._cuda:
                self._graph = _GraphRun(self._stages, self._links, self._specs, self._device, slots, outputs)
                self._forget()
                torch.cuda.synchronize(self._device)
                return
            between = {
                n: torch.zeros(s.shape, dtype=getattr(torch, s.dtype))
                for n, s in self._specs.items()
                if n != RAW and n not in outputs
            }
            # Stages read a copy: the recorder may still be writing the raw plane to the disk, and a stage that
            # worked in place would change what it writes.
            self._given = torch.zeros(self._stream.spec.shape, dtype=getattr(torch, self._stream.spec.dtype))
            for slot in slots:
                at = {n: torch.from_numpy(p) for n, p in slot.planes.items()} | between
                self._raw.append(at[RAW])
                at[RAW] = self._given
                self._steps.append([(s, at[r], at[w]) for s, (r, w) in zip(self._stages, self._links, strict=True)])
            self._sums = [torch.zeros(()) for _ in self._stages]
            for _ in range(2):
                before = now_ns()
                for stage, given, result in self._steps[0]:
                    stage(given, result)
                if now_ns() - before > _LONG_NS:
                    break
            for _, _, result in self._steps[0]:
                result.zero_()
            self._forget()
        give_back()

    def _forget(self) -> None:
        """Let stages forget the frames of zeros; in inference mode, as their tensors were written in it."""
        for stage in self._stages:
            getattr(stage, "forget", lambda: None)()

    def submit(self, slot: Slot) -> None:
        """Hot: start the chain on a slot. On a CPU it is done when this returns.

        Raises
        ------
        StageError
            Naming the stage that raised, and what.
        """
        at = -1
        try:
            if self._graph is not None:
                # Before any of them is enqueued: on a GPU the stages of a frame run later, in this order.
                for i, told in enumerate(self._told):
                    at = i
                    if told is not None:
                        told(slot.info)
                at = -1
                self._graph.submit(slot)
                return
            info, ends_ns = slot.info, self._ends_ns
            with torch.inference_mode():
                self._given.copy_(self._raw[slot.index])
                up_ns = now_ns()
                for i, (stage, given, result) in enumerate(self._steps[slot.index]):
                    at = i
                    if (told := self._told[i]) is not None:
                        told(info)
                    stage(given, result)
                    ends_ns[i] = now_ns()
            # The frame outlives its slot, until its row is written: it takes the times with it.
            info.stages, info.stages_ns = self._passed, tuple(ends_ns)
            info.uploaded_ns, info.downloaded_ns = up_ns, ends_ns[-1]
        except Exception as error:
            where = f"stages[{at}] {self.names[at]}" if at >= 0 else f"stages {', '.join(self.names)}"
            raise StageError(f"{where} raised {type(error).__name__}: {error}") from error

    def finish(self, slot: Slot) -> str | None:
        """Hot: wait for the slot's results; return what is wrong with them, or None. `remark` is worth a word."""
        if self._graph is not None:
            sums, notes = self._graph.finish(slot)
            slot.info.stages = self._passed
        else:
            sums, notes = [], []
            with torch.inference_mode():
                for (stage, _, result), total in zip(self._steps[slot.index], self._sums, strict=True):
                    _look(stage, result, total)
                    sums.append(total.item())
                    if (noted := getattr(stage, "notes", None)) is not None:
                        notes += noted.view(-1).tolist()
        if notes:
            slot.info.notes = self._read_notes(notes)
        self.remark = ""
        for i, value in enumerate(sums):
            if not math.isfinite(value):
                return f"stages[{i}] {self.names[i]} returned NaN or infinity"
            if value == 0 and (why := getattr(self._stages[i], "black", "")):
                self.remark = f"stages[{i}] {self.names[i]} returned a black picture: {why}"
        return None

    def _read_notes(self, values: list[float]) -> dict[str, dict[str, float | list[float]]]:
        """Put names to the numbers that all stages noted, one after the other."""
        told: dict[str, dict[str, float | list[float]]] = {}
        at = 0
        for name, stage in zip(self.names, self._stages, strict=True):
            notes = getattr(stage, "notes", None)
            if notes is None:
                continue
            row = told[name] = {}
            count = notes.numel() // len(stage.noted)  # type: ignore[attr-defined]
            for key in stage.noted:  # type: ignore[attr-defined]
                some = [float(f"{value:.7g}") for value in values[at : at + count]]
                at += count
                row[key] = some[0] if count == 1 else some
        return told

    # ---------------------------------------------------------------- other stages during a run

    def made(self, name: str) -> Spec:
        """Return the Spec of a stage's result."""
        return self._specs[self._links[self.names.index(name)][1]]

    def prepare(self, fresh: Mapping[int, Stage]) -> dict[int, Stage]:
        """Open stages that are to take the places of others, and try them on frames of zeros; from any thread.

        Raises
        ------
        StageError
            Naming the stage; all of `fresh` are closed then, and the chain is as it was.
        """
        ready = dict(fresh)
        try:
            for i in fresh:
                ready[i] = self._open_one(i, fresh[i])
        except BaseException:
            for stage in ready.values():
                with contextlib.suppress(Exception):
                    stage.close()
            raise
        return ready

    def _open_one(self, i: int, stage: Stage) -> Stage:
        where = f"stages[{i}] {self.names[i]}"
        reads, writes = self._links[i]
        given, before = self._specs[reads], self._specs[writes]
        try:
            if hasattr(stage, "tell"):
                stage.tell = self._tell
            if hasattr(stage, "share"):
                stage.share = 1 / max(1, sum(hasattr(other, "share") for other in self._stages))
            stage = for_colours(stage, given)
            stream = self._stream
            if given.zoom > 1 and stream.pixel_um is not None:
                stream = replace(stream, pixel_um=stream.pixel_um / given.zoom)
            made = stage.open(stream, given, self._device)
            made = replace(made, zoom=made.zoom * given.zoom)
            if made != before:
                raise StageError(
                    f"it would make {made} in place of {before}, and window and recording are made for that; "
                    "change it in the config and start again"
                )
            for fact in ("unit", "grey_values_per_count"):
                if made.facts.get(fact) != before.facts.get(fact):
                    raise StageError(
                        f"the {fact.replace('_', ' ')} would be {made.facts.get(fact)} in place of "
                        f"{before.facts.get(fact)}, which stands beside the recorded pixels; "
                        "change it in the config and start again"
                    )
            self._try(stage, given, made)
        except PellucidError as error:
            raise type(error)(f"{where}: {error}") from None
        except Exception as error:
            raise StageError(f"{where}: cannot be used: {type(error).__name__}: {error}") from error
        return stage

    def _try(self, stage: Stage, given: Spec, made: Spec) -> None:
        """Run a stage twice on zeros that are its own: libraries choose their plans now, and no slot is touched."""
        with torch.inference_mode():
            zeros = torch.zeros(given.shape, dtype=getattr(torch, given.dtype), device=self._device)
            result = torch.zeros(made.shape, dtype=getattr(torch, made.dtype), device=self._device)
            aside = torch.cuda.Stream(self._device) if self._cuda else None
            with torch.cuda.stream(aside) if aside is not None else contextlib.nullcontext():
                if aside is not None:
                    aside.wait_stream(torch.cuda.default_stream(self._device))  # on which the zeros are made
                for _ in range(2):
                    before = now_ns()
                    stage(zeros, result)
                    if now_ns() - before > _LONG_NS:
                        break
                getattr(stage, "forget", lambda: None)()
            if aside is not None:
                aside.synchronize()
        give_back()

    def swap(self, fresh: Mapping[int, Stage]) -> list[Stage]:
        """Go on with stages that were prepared, and return those that they replace, which are still open.

        To be called between two frames, with none under way. On a GPU the graph is captured anew, which takes as long
        as a few frames.

        Raises
        ------
        StageError
            Where it cannot be captured; the chain is as it was then.
        """
        stages = [fresh.get(i, stage) for i, stage in enumerate(self._stages)]
        if self._graph is not None:
            try:
                self._graph.renew(stages, self._links)
            except Exception as error:
                raise StageError(f"the new graph cannot be captured: {type(error).__name__}: {error}") from error
        old = [self._stages[i] for i in fresh]
        self._stages[:] = stages
        for i, stage in fresh.items():
            self._told[i] = getattr(stage, "at", None)
            for steps in self._steps:
                steps[i] = (stage, *steps[i][1:])
        return old

    def describe(self) -> list[dict[str, Any]]:
        """Return one row a stage: name, planes, Specs, whether captured, and what it says of itself."""
        return [
            {
                "stage": name,
                "reads": f"{reads} {self._specs.get(reads, '')}",
                "writes": f"{writes} {self._specs.get(writes, '')}",
                "device": self._device,
                "captured": self._graph is not None and self._graph.captured,
                **getattr(stage, "describe", dict)(),
            }
            for stage, name, (reads, writes) in zip(self._stages, self.names, self._links, strict=True)
        ]

    def close(self) -> None:
        """Close the stages and let go of the slots' memory."""
        self._steps.clear()
        self._raw.clear()
        self._graph = None
        for stage in self._stages:
            stage.close()


def give_back() -> None:
    """Return to the system what was freed; glibc keeps it for this thread, and another one runs the chain."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems have nothing of the kind
        ctypes.CDLL(None).malloc_trim(0)


def _look(stage: Stage, result: torch.Tensor, total: torch.Tensor) -> None:
    """Put a number into `total` that is finite only if the result is.

    A stage whose result is of an integer type lost its NaN by rounding; it gives a `witness` of its own.
    """
    witness = getattr(stage, "witness", None)
    if witness is not None:
        total.copy_(witness)
    elif result.dtype.is_floating_point:
        torch.sum(result, dim=tuple(range(result.ndim)), out=total)


class _GraphRun:
    """One device's buffers, streams of work and the captured graph."""

    def __init__(
        self,
        stages: Sequence[Stage],
        links: Sequence[tuple[str, str]],
        specs: Mapping[str, Spec],
        device: str,
        slots: Sequence[Slot],
        outputs: Sequence[str],
    ) -> None:
        self._device = torch.device(device)
        self._at = {n: torch.zeros(s.shape, dtype=getattr(torch, s.dtype), device=device) for n, s in specs.items()}
        self._incoming = torch.zeros_like(self._at[RAW])
        self._outgoing = {n: torch.zeros_like(self._at[n]) for n in outputs}
        noted = [s.notes for s in stages if getattr(s, "notes", None) is not None]  # type: ignore[attr-defined]
        self._notes = noted
        self._stages_count = len(stages)
        # One number a stage, and behind them what stages note: all come down at once.
        self._sums = torch.zeros(len(stages) + sum(n.numel() for n in noted), device=device)
        self._sums_out = torch.zeros_like(self._sums)
        self._steps = [(s, self._at[r], self._at[w]) for s, (r, w) in zip(stages, links, strict=True)]
        self._up, self._run, self._down = (torch.cuda.Stream(device) for _ in range(3))
        self._uploaded, self._taken, self._computed, self._fetched = (torch.cuda.Event() for _ in range(4))
        self._host: list[dict[str, torch.Tensor]] = []
        self._host_sums = [torch.zeros(self._sums.shape).pin_memory() for _ in slots]
        # Of each slot, since three frames are under way at once: when it was up, past each stage, and down.
        self._timed = [[torch.cuda.Event(enable_timing=True) for _ in range(len(stages) + 2)] for _ in slots]
        self._ends_ns = [0] * len(stages)
        for slot in slots:
            self._host.append({n: torch.from_numpy(slot.planes[n]) for n in (RAW, *outputs)})
        with torch.cuda.stream(self._run):
            for _ in range(3):
                self._compute(None)
        torch.cuda.synchronize(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self.captured = all(stage.captures for stage in stages)
        if self.captured:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._run):
                self._compute(None)
        for event in (self._taken, self._fetched):
            event.record(self._run)

    def renew(self, stages: Sequence[Stage], links: Sequence[tuple[str, str]]) -> None:
        """Go on with other stages in the same buffers; nothing may be under way. After a fault all is as it was."""
        before = self._steps, self._notes, self._sums, self._sums_out, self._host_sums
        self._run.synchronize()
        self._down.synchronize()
        self._steps = [(s, self._at[r], self._at[w]) for s, (r, w) in zip(stages, links, strict=True)]
        self._notes = [s.notes for s in stages if getattr(s, "notes", None) is not None]  # type: ignore[attr-defined]
        count = len(stages) + sum(n.numel() for n in self._notes)
        graph = None
        try:
            with torch.inference_mode():
                if count != self._sums.numel():
                    self._sums = torch.zeros(count, device=self._device)
                    self._sums_out = torch.zeros_like(self._sums)
                    self._host_sums = [torch.zeros(self._sums.shape).pin_memory() for _ in self._host_sums]
                    torch.cuda.current_stream(self._device).synchronize()
                captured = all(stage.captures for stage in stages)
                if captured:
                    graph = torch.cuda.CUDAGraph()
                    # The new stages have run in `Chain.prepare`, the others long since: nothing has to be tried here,
                    # and what is captured does not run. Other threads may go on with work of their own.
                    with torch.cuda.graph(graph, stream=self._run, capture_error_mode="thread_local"):
                        self._compute(None)
        except BaseException:
            self._steps, self._notes, self._sums, self._sums_out, self._host_sums = before
            raise
        self._graph, self.captured = graph, captured

    def _compute(self, timed: Sequence[torch.cuda.Event] | None) -> None:
        """Run the stages; `timed` marks the end of each, in which a graph must not be captured.

        A graph has its events within it, one set for all its replays: the next frame's would overwrite them before
        anybody has read this one's.
        """
        for i, (stage, given, result) in enumerate(self._steps):
            stage(given, result)
            _look(stage, result, self._sums[i])
            if timed is not None:
                timed[i + 1].record(self._run)
        at = self._stages_count
        for notes in self._notes:
            self._sums[at : at + notes.numel()].copy_(notes.view(-1))
            at += notes.numel()

    def submit(self, slot: Slot) -> None:
        host, timed = self._host[slot.index], self._timed[slot.index]
        with torch.inference_mode():
            with torch.cuda.stream(self._up):
                self._up.wait_event(self._taken)
                self._incoming.copy_(host[RAW], non_blocking=True)
                self._uploaded.record(self._up)
                timed[0].record(self._up)
            with torch.cuda.stream(self._run):
                self._run.wait_event(self._uploaded)
                self._at[RAW].copy_(self._incoming)
                self._taken.record(self._run)  # the next upload may begin
                if self._graph is not None:
                    self._graph.replay()
                    timed[-2].record(self._run)
                else:
                    self._compute(timed)
                self._run.wait_event(self._fetched)
                for name, tensor in self._outgoing.items():
                    tensor.copy_(self._at[name])
                self._sums_out.copy_(self._sums)
                self._computed.record(self._run)
            with torch.cuda.stream(self._down):
                self._down.wait_event(self._computed)
                for name, tensor in self._outgoing.items():
                    host[name].copy_(tensor, non_blocking=True)
                self._host_sums[slot.index].copy_(self._sums_out, non_blocking=True)
                self._fetched.record(self._down)
                timed[-1].record(self._down)

    def finish(self, slot: Slot) -> tuple[list[float], list[float]]:
        timed, info = self._timed[slot.index], slot.info
        ended = timed[-1]
        ended.synchronize()
        # The GPU has a clock of its own: its times are told backwards from now, when they are known here.
        down = info.downloaded_ns = now_ns()
        info.uploaded_ns = down - round(timed[0].elapsed_time(ended) * 1e6)
        ends_ns = self._ends_ns
        for i in range(self._stages_count):
            if self._graph is None or i == self._stages_count - 1:
                ends_ns[i] = down - round(timed[i + 1].elapsed_time(ended) * 1e6)
        info.stages_ns = tuple(ends_ns)
        values: list[float] = self._host_sums[slot.index].tolist()
        count = self._stages_count
        return values[:count], values[count:]
