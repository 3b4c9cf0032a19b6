"""One block: its frames are read, go through the stages, and are written; last of all their rows.

The stages of a stream stay open from block to block, unless they look back in time: then each block gets fresh ones,
which see the frames before it first. What fails in a stage fails for that frame alone: its place stays empty and its
row says why. What no other frame could get over (no memory, no disk, no IN) ends the run.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from platform import node
from typing import Any

import torch

from pellucid.config import Config
from pellucid.errors import RunError, SourceError, StageError
from pellucid.memory import keep_large_blocks
from pellucid.metrics import now_ns
from pellucid.process.arrays import Arrays
from pellucid.process.bound import BoundChain
from pellucid.process.folder import not_written
from pellucid.process.plan import PLACE, Block, Plan, tiled_otherwise
from pellucid.process.recorded import open_recorded
from pellucid.protocols import RAW, FrameInfo, Slot
from pellucid.runtime.chain import pick_device, use_threads

__all__ = ["BlockRunner"]


class BlockRunner:
    """Runs blocks of one OUT in this process, one at a time.

    Parameters
    ----------
    out
        Folder with a plan.

    Raises
    ------
    PellucidError
        Where this computer cannot do what the plan says.
    """

    def __init__(self, out: Path) -> None:
        keep_large_blocks()
        self._out = out
        self.plan = Plan.read((out / PLACE / "plan.json").read_text("utf-8"))
        self._specs = self.plan.specs
        self._blocks = {block.number: block for block in self.plan.blocks()}
        paths = json.loads((out / PLACE / "arrays.json").read_text("utf-8"))
        self._config = Config.parse(self.plan.config, Path(self.plan.folder), name="the config")
        self._device = pick_device(self.plan.device)
        self._recorded = open_recorded(self._config, self.plan.unit)
        self._arrays = Arrays(out, paths)
        self._bound: tuple[int, BoundChain] | None = None

    def run(
        self, number: int, stopped: Callable[[], bool] = lambda: False, tick: Callable[[], None] = lambda: None
    ) -> int | None:
        """Run a block.

        Parameters
        ----------
        number
            Of the block.
        stopped
            Asked before each frame.
        tick
            Called after each.

        Returns
        -------
        int or None
            How many frames failed; None where the block was stopped, and is as if it had not begun.
        """
        use_threads(self.plan.threads)  # torch keeps it for each thread that calls it
        block = self._blocks[number]
        bound = self._bind(block.stream)
        try:
            if bound.history:
                self._warm_up(bound, block)
            rows = self._frames(bound, block, stopped, tick)
            if rows is None:
                return None
            self._commit(block, rows)
        except OSError as error:
            raise not_written(self._out, error) from None
        finally:
            if bound.history:
                self._let_go()
        return sum(1 for row in rows if row["state"] != "processed" and row["where"] != "no stage")

    def _bind(self, stream: int) -> BoundChain:
        if self._bound is None or self._bound[0] != stream:
            self._let_go()
            given = self._recorded.streams[stream]
            bound = BoundChain(self._config, given, self._device)
            self._bound = stream, bound
            why = tiled_otherwise(self.plan.tiles[stream], bound.tiles, bound.names)
            if not why and self.plan.engines and list(self.plan.engines[stream]) != bound.engines:
                now, begun = (", ".join(filter(None, some)) for some in (bound.engines, self.plan.engines[stream]))
                why = f"its networks are {now} here, and OUT was begun with {begun}. Name the engine in the stage"
            if why:
                raise RunError(f"{given.channel} of {given.camera} on {node() or 'this computer'}: {why}")
        return self._bound[1]

    def _let_go(self) -> None:
        if self._bound is not None:
            self._bound[1].close()
            self._bound = None

    def _frames(
        self, bound: BoundChain, block: Block, stopped: Callable[[], bool], tick: Callable[[], None]
    ) -> list[dict[str, Any]] | None:
        rows: list[dict[str, Any]] = []
        under_way: deque[tuple[Slot, int, dict[str, Any]]] = deque()
        free = deque(bound.slots)
        for unit in range(block.first, block.first + block.count):
            if stopped():
                return None
            row = self._recorded.row(block.stream, unit)
            rows.append(row)
            slot = free.popleft()
            self._begin(bound, slot, block.stream, unit, row)
            under_way.append((slot, unit, row))
            if not free:
                free.append(self._end(bound, block.stream, *under_way.popleft(), tick))
        while under_way:
            self._end(bound, block.stream, *under_way.popleft(), tick)
        return rows

    def _begin(self, bound: BoundChain, slot: Slot, stream: int, unit: int, row: dict[str, Any]) -> None:
        """Read a unit and start the stages on it; `row` gets a state where that is all."""
        row["state"] = ""
        lack = self._recorded.lack(stream, unit)
        if lack:
            row.update(state="lost", where=lack)
            return
        began = now_ns()
        try:
            self._recorded.read(stream, unit, slot.planes[RAW])
        except SourceError as error:
            self._look_for_given()
            row.update(state="lost", where="IN cannot be read", error=str(error))
            return
        read = now_ns()
        row["read_ms"] = _ms(read - began)
        slot.info = FrameInfo(row["seq"], stream, camera_ns=read, axes=row["axes"])
        if bound.chain is None:
            row.update(state="raw_only", where="no stage")
            return
        try:
            bound.chain.submit(slot)
        except StageError as error:
            _look_for_memory(error)
            row.update(state="raw_only", where=str(error))
        row["stages_ms"] = _ms(now_ns() - read)

    def _end(
        self,
        bound: BoundChain,
        stream: int,
        slot: Slot,
        unit: int,
        row: dict[str, Any],
        tick: Callable[[], None],
    ) -> Slot:
        """Wait for the results of a unit and write them, or zeros."""
        if not row["state"] and bound.chain is not None:
            wrong = bound.chain.finish(slot)
            row.update({"state": "raw_only", "where": wrong} if wrong else {"state": "processed"})
            if slot.info.notes and not wrong:
                row["notes"] = {stage: dict(notes) for stage, notes in slot.info.notes.items()}
            if bound.chain.remark:
                row["remark"] = bound.chain.remark
            row["stages_ms"] = _ms(now_ns() - slot.info.camera_ns)
        if row["state"] == "lost":
            slot.planes[RAW].fill(0)
        if row["state"] != "processed":
            for name in bound.planes:
                slot.planes[name].fill(0)
        began = now_ns()
        place = self._recorded.place(stream, unit)
        for plane in self._specs[stream]:
            self._arrays.write(stream, plane, place, slot.planes[plane])
        row["write_ms"] = _ms(now_ns() - began)
        tick()
        return slot

    def _warm_up(self, bound: BoundChain, block: Block) -> None:
        """Show the stages the frames before a block, as many as they look back, as they would have seen them."""
        assert bound.chain is not None
        slot = bound.slots[0]
        before: deque[int] = deque()
        unit = block.first
        while unit > 0 and len(before) < bound.history:
            unit -= 1
            if self._given(block.stream, unit, slot):
                before.appendleft(unit)
        for unit in before:
            self._recorded.read(block.stream, unit, slot.planes[RAW])
            slot.info = FrameInfo(unit, block.stream, camera_ns=now_ns(), axes=self._recorded.axes(block.stream, unit))
            try:
                bound.chain.submit(slot)
                bound.chain.finish(slot)
            except StageError as error:
                _look_for_memory(error)

    def _given(self, stream: int, unit: int, slot: Slot) -> bool:
        """Tell whether the stages get to see a unit."""
        if self._recorded.lack(stream, unit):
            return False
        try:
            self._recorded.read(stream, unit, slot.planes[RAW])
        except SourceError:
            return False
        return True

    def _look_for_given(self) -> None:
        """Tell a damaged frame from a disk that has gone."""
        given = self._recorded.path
        try:
            given.stat()
        except OSError as error:
            raise RunError(
                f"IN {given} is not there any more: {error.strerror}. "
                "Bring it back and type the same command again: it goes on from there"
            ) from None

    def _commit(self, block: Block, rows: list[dict[str, Any]]) -> None:
        """Put the rows of a block in their place, in one step: from then on it is done."""
        for unit in range(block.first, block.first + block.count):
            place = self._recorded.place(block.stream, unit)
            for plane in self._specs[block.stream]:
                self._arrays.sync(block.stream, plane, place)
        end = self._out / PLACE / "rows" / f"{block.number:07d}.jsonl"
        half = end.with_name(f"{end.name}.{os.getpid()}-{threading.get_ident()}")
        with half.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, end)

    def close(self) -> None:
        """Close the stages and IN."""
        self._let_go()
        self._recorded.close()


def _look_for_memory(error: StageError) -> None:
    """Let what the next frame would not get over end the run."""
    cause = error.__cause__
    broken = (MemoryError, torch.OutOfMemoryError, *filter(None, [getattr(torch, "AcceleratorError", None)]))
    if isinstance(cause, broken) or "can't allocate memory" in str(cause) or "CUDA error" in str(cause):
        raise RunError(
            f"{error}. Type the same command again when there is more memory: it goes on from there"
        ) from None


def _ms(ns: int) -> float:
    return round(ns * 1e-6, 3)
