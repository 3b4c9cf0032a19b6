"""``pellucid process IN OUT CONFIG``: the order of things."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pellucid._version import version
from pellucid.config import Config
from pellucid.errors import ConfigError, RunError, SinkError, SourceError, require
from pellucid.metrics import now_ns
from pellucid.process.arrays import make_arrays
from pellucid.process.block import BlockRunner
from pellucid.process.bound import BoundChain
from pellucid.process.config import load_config, unit_of
from pellucid.process.finish import facts_of_call, failed, finish
from pellucid.process.folder import OutFolder, not_written
from pellucid.process.mistakes import look_at, look_for_names
from pellucid.process.plan import Block, Plan, make_plan, tiled_otherwise
from pellucid.process.progress import FrameBar
from pellucid.process.recorded import Recorded, open_recorded
from pellucid.protocols import RAW, Spec
from pellucid.runtime.chain import pick_device
from pellucid.terminal import networks_of

__all__ = ["Processing", "process_recorded"]

_ROW_BYTES, _REST_BYTES = 400, 16 << 20
"""Beside the pixels, for each frame and at least."""


class Processing:
    """One call: ``open`` -> ``run`` -> ``close``; ``stop`` from anywhere.

    Parameters
    ----------
    given, out, config
        IN, OUT and the config file.
    sets
        Changes of the config, as of ``pellucid run``.
    with_raw
        Copy raw as well.
    workers
        Processes; with one it is this one.
    scheduler
        Address of a dask.distributed cluster; empty for none.
    say
        Takes lines for the user.

    Attributes
    ----------
    report : dict or None
        When all frames are done.
    """

    def __init__(
        self,
        given: Path,
        out: Path,
        config: Path,
        *,
        sets: Sequence[str] = (),
        with_raw: bool = False,
        workers: int = 1,
        scheduler: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        self._given, self._config_path = given.absolute(), config
        self._folder = OutFolder(Path(os.path.normpath(out.absolute())))
        self._sets, self._with_raw = sets, with_raw
        self._workers, self._scheduler = workers, scheduler
        self._say = say
        self._stop = threading.Event()
        self._recorded: Recorded | None = None
        self._stages: list[list[dict[str, Any]]] = []
        self._names: list[list[str]] = []
        self.report: dict[str, Any] | None = None

    def open(self) -> None:
        """Look at everything, then make OUT, or see that an OUT that was begun can be gone on with.

        Raises
        ------
        PellucidError
            One line; nothing was written then.
        """
        if self._workers > 1 or self._scheduler:
            require("distributed", "dask", "--scheduler" if self._scheduler else "--workers")
        look_at(self._given)
        self._folder.check(self._given)
        begun = self._folder.begun
        config, unused = load_config(self._config_path, self._given, self._sets)
        if unused:
            self._say(f"{' and '.join(unused)} of {self._config_path} are not used: frames come from IN and go to OUT")
        self._device = pick_device(config.settings.device)
        try:
            recorded = self._recorded = open_recorded(config, unit_of(config))
        except PermissionError as error:
            raise SourceError(f"IN {self._given} cannot be read: {error.strerror}") from None
        look_for_names(config, recorded)
        planes, histories, tiles, engines = self._bind(config, recorded)
        plan = self._plan = make_plan(
            config, recorded, planes, histories, tiles, engines, device=self._device, with_raw=self._with_raw
        )
        self._sha256 = config.sha256
        if begun:
            self._look_at_begun(plan)
        done = self._folder.done() if begun else set()
        pixels = sum(plan.unit_bytes(block.stream) * block.count for block in plan.blocks() if block.number not in done)
        self._folder.look_for_room(pixels + _ROW_BYTES * sum(plan.units) + _REST_BYTES)
        if not begun:
            self._folder.make(lambda folder: self._fill(folder, recorded, plan))

    def _bind(
        self, config: Config, recorded: Recorded
    ) -> tuple[list[dict[str, Spec]], list[int], list[list[list[int] | None]], list[list[str]]]:
        """Open the stages of each stream once, to know what comes out of them and that they work."""
        planes: list[dict[str, Spec]] = []
        histories: list[int] = []
        tiles: list[list[list[int] | None]] = []
        engines: list[list[str]] = []
        for stream in recorded.streams:
            bound = BoundChain(config, stream, self._device, self._say)
            self._stages.append(bound.chain.describe() if bound.chain is not None else [])
            bound.close()
            planes.append({RAW: stream.spec} | bound.planes if self._with_raw else dict(bound.planes))
            histories.append(bound.history)
            tiles.append(bound.tiles)
            engines.append(bound.engines)
            self._names.append(bound.names)
        if not any(name != RAW for row in planes for name in row):
            raise ConfigError(f"no stage of {self._config_path} works on any stream of IN, so there is nothing to do")
        return planes, histories, tiles, engines

    def _look_at_begun(self, plan: Plan) -> None:
        try:
            earlier = Plan.read((self._folder.place / "plan.json").read_text("utf-8"))
            why = plan.differs(earlier)
        except (ValueError, TypeError, KeyError, OSError) as error:
            why = f"its plan cannot be read ({' '.join(str(error).split())})"
        if why:
            raise SinkError(
                f"OUT {self._folder.path} was begun by another call: {why}. "
                "Type that one again to go on with it, or give another folder for OUT"
            )
        for begun, now, names in zip(earlier.tiles, plan.tiles, self._names, strict=True):
            if why := tiled_otherwise(begun, now, names):
                raise SinkError(f"OUT {self._folder.path} cannot be gone on with here: {why}")

    def _fill(self, folder: Path, recorded: Recorded, plan: Plan) -> None:
        run = {"version": version, "config_sha256": self._sha256}
        arrays = make_arrays(folder, recorded, plan.specs, run)
        place = folder / self._folder.place.name
        (place / "arrays.json").write_text(json.dumps(arrays), encoding="utf-8")
        (place / "plan.json").write_text(plan.text(), encoding="utf-8")
        (folder / "config.toml").write_text(plan.config, encoding="utf-8")

    def stop(self) -> None:
        """End after the frame."""
        self._stop.set()

    def run(self) -> None:
        """Do all blocks that are not done, then put OUT together.

        Raises
        ------
        RunError
            Where it had to end early, or frames failed. OUT says all the same what was done.
        """
        assert self._recorded is not None
        folder, plan = self._folder, self._plan
        with folder.locked():
            folder.sweep()
            done = folder.done()
            blocks = list(plan.blocks())
            todo = [block for block in blocks if block.number not in done]
            total, before = (sum(b.count for b in some) for some in (blocks, set(blocks) - set(todo)))
            self._say_begin(total, before)
            began = now_ns()
            with FrameBar(total, before) as bar:
                self._work(todo, bar)
            seconds = (now_ns() - began) * 1e-9
            left = {block.number for block in blocks} - folder.done()
            if left:
                count = total - sum(block.count for block in blocks if block.number in left)
                self._say(f"stopped: {count} of {total} frames are done. Type the same command again to go on")
                return
            try:
                report = finish(folder.path, plan, self._recorded, self._facts(seconds, total - before))
            except OSError as error:
                raise not_written(folder.path, error) from None
            self.report = report
        folder.clean()
        self._say_end(report, seconds, total - before)

    def _work(self, todo: Sequence[Block], bar: FrameBar) -> None:
        if self._workers > 1 or self._scheduler:
            from pellucid.process.cluster import run_on_cluster

            run_on_cluster(
                self._folder.path,
                todo,
                workers=self._workers,
                scheduler=self._scheduler,
                stop=self._stop.is_set,
                ask_to_stop=self._folder.stop,
                done=lambda block: bar.advance(block.count),
            )
            return
        if not todo:
            return
        runner = BlockRunner(self._folder.path)
        try:
            for block in todo:
                if self._stop.is_set():
                    return
                runner.run(block.number, self._stop.is_set, bar.advance)
        finally:
            runner.close()

    def _say_begin(self, total: int, before: int) -> None:
        plan, cores = self._plan, os.cpu_count() or 1
        verb, threads = "going on with" if before else "processing", f"{plan.threads} thread{'s' * (plan.threads > 1)}"
        units = f"{total} {plan.unit}{'s' * (total != 1)}"
        self._say(f"{verb} {self._given}: {units} on {self._device}, {threads} in each process")
        more = cores // plan.threads
        if self._device == "cpu" and self._workers == 1 and not self._scheduler and more > 1:
            self._say(f"{plan.threads} of {cores} cores compute; to use all of them stop it and add: --workers {more}")
        if self._recorded is not None and self._recorded.remark:
            self._say(self._recorded.remark)
        if before:
            self._say(f"{before} frames were done by an earlier call")

    def _facts(self, seconds: float, frames: int) -> dict[str, Any]:
        assert self._recorded is not None
        facts = facts_of_call(self._plan, self._recorded, self._device, seconds, frames)
        for told, stages in zip(facts["streams"], self._stages, strict=True):
            told["stages"] = stages
        facts["process"] |= {"workers": self._workers, "scheduler": self._scheduler}
        return {**facts, "config_sha256": self._sha256}

    def _say_end(self, report: dict[str, Any], seconds: float, frames: int) -> None:
        counts, wrong = report["frames"], failed(report)
        rate = f"{frames / seconds:.1f} frames/s" if seconds else ""
        self._say(f"processed  {counts['processed']}, failed {sum(wrong.values())}, {seconds:.1f} s, {rate}")
        for name, lines in networks_of(report["streams"]):
            for line in lines:
                self._say(f"{name:<10} {line}")
        for where, n in {**counts["raw_only"], **counts["lost"]}.items():
            self._say(f"           {n} empty: {where}")
        for note in report["notes"]:
            if self._recorded is not None and note == self._recorded.remark:
                continue  # said when it began
            self._say(f"           {note}")
        self._say(f"recording  {self._folder.path}")
        if counts["unaccounted"]:
            raise RunError(f"{counts['unaccounted']} frames are unaccounted for (see report.json)")
        if wrong:
            first = next(iter(wrong))
            raise RunError(
                f"{sum(wrong.values())} of {counts['produced']} frames failed and are empty in OUT: {first}. "
                "frames.jsonl says which"
            )

    def close(self) -> None:
        """Close IN; safe at any time."""
        if self._recorded is not None:
            self._recorded.close()


def process_recorded(given: str | Path, out: str | Path, config: str | Path, **options: Any) -> dict[str, Any]:
    """Run a config's stages over recorded data, into a new recording.

    Parameters
    ----------
    given, out, config
        IN, OUT and the config file, as of ``pellucid process``.
    **options
        Of `Processing`.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    PellucidError
        One line that says what to mend.
    """
    work = Processing(Path(given), Path(out), Path(config), **options)
    try:
        work.open()
        work.run()
    finally:
        work.close()
    assert work.report is not None
    return work.report
