"""What ``pellucid tune`` does: gathers frames, searches, tells, writes the config, the page and the figures."""

from __future__ import annotations

import json
import math
import tempfile
import threading
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomlkit
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pellucid.config import Config, apply_set
from pellucid.controls.text import key_of, put
from pellucid.errors import ConfigError, PellucidError, RunError
from pellucid.metrics import now_ns
from pellucid.ready_made import find_config
from pellucid.runtime.report import hardware
from pellucid.terminal import console
from pellucid.tuning.frames import STACKS, Frames, gather
from pellucid.tuning.goal import Goal, Measured, Point
from pellucid.tuning.limits import limits
from pellucid.tuning.measure import Trial
from pellucid.tuning.page import make_page, rows_of
from pellucid.tuning.search import Candidate, Changes, Found, search
from pellucid.tuning.space import Knob, device_of, knobs_of
from pellucid.tuning.trial import run_trial
from pellucid.tuning.written import tuned_text

__all__ = ["Asked", "tune"]

_PATIENCE_S = 120.0
_COMPILE_S = 600.0
_PICTURES = 8
_LIVE = ("micromanager", "micromanager-java")


@dataclass(frozen=True)
class Asked:
    """What was typed.

    Parameters
    ----------
    config, sets
        File or name, and changes of it.
    latency_ms, fps, point, least_db
        See `pellucid.tuning.goal.Goal`; None for `fps`: that of the frames, for `point`: ``"restored"``, or ``"disk"``
        where nothing is restored.
    iterations, tries, keep
        See `pellucid.tuning.space.knobs_of`.
    minutes, seconds
        For all, and for each run whose latency is measured.
    frames
        A recording or image to be played in place of the source.
    output
        The config to write.
    """

    config: Path
    sets: tuple[str, ...]
    latency_ms: float | None
    fps: float | None
    point: Point | None
    least_db: float
    iterations: tuple[int, int] | None
    tries: dict[str, list[Any]]
    keep: tuple[str, ...]
    minutes: float
    seconds: float
    frames: Path | None
    output: Path | None


def tune(asked: Asked, say: Callable[[str], None], stop: threading.Event) -> bool:
    """Search, tell, write; return whether what is asked was reached.

    Raises
    ------
    PellucidError
        One line: where the config cannot run as it is, or nothing can be written.
    """
    path = find_config(asked.config)
    output = asked.output or Path(f"{path.stem}-tuned.toml")
    files = {kind: output.with_suffix(kind) for kind in (".html", ".json")} | {".toml": output}
    for file in files.values():
        if file.exists():
            raise ConfigError(f"{file} is there already, and nothing is overwritten. Give another: --output NAME.toml")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.absolute().parent}")
    config = Config.load(path, asked.sets)
    point = asked.point or ("restored" if config.stages else "disk")
    _look_at_point(config, point)
    began = now_ns()
    end = began + round(asked.minutes * 60e9)
    with (
        tempfile.TemporaryDirectory(prefix="pellucid-tune-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryDirectory(prefix=".pellucid-tune-", dir=_disk_of(config), ignore_cleanup_errors=True) as disk,
    ):
        tree = tomllib.loads(config.text)
        say("frames     being gathered")
        frames = gather(config, tree, asked.frames, Path(folder))
        fps = asked.fps or frames.fps
        if fps is None:
            raise ConfigError("these frames have no rate of their own: give the camera's, such as --fps 100")
        goal = Goal(fps, asked.latency_ms, point, asked.least_db)
        say(
            f"frames     {frames.told}: {'x'.join(map(str, frames.shape))}, {' and '.join(frames.streams)}, {fps:.4g}/s"
        )
        knobs = knobs_of(
            config, tree, shape=frames.shape, point=point, iterations=asked.iterations, tries=asked.tries,
            keep=asked.keep, minutes=asked.minutes,
        )  # fmt: skip
        if not knobs:
            raise ConfigError("nothing of this config may be changed: leave --keep out, or give --try KEY=V1,V2")
        say(f"keys       {', '.join(knob.key for knob in knobs)}")
        work = _Work(config, frames, goal, asked, Path(folder), disk, stop)
        found = search(
            knobs, goal, work.measure, lambda: stop.is_set() or now_ns() > end, lambda one: _tell(one, goal, say)
        )
        if stop.is_set() and found.base.middle().error:
            raise RunError("stopped before the config was measured as it is; nothing was written")
        if why := found.base.middle().error:
            raise RunError(f"the config cannot be measured as it is: {why}")
        best = found.best.middle()
        stands = limits(found, goal)
        with_camera = work.with_camera(found.best.changes, say)
    seconds = (now_ns() - began) * 1e-9
    facts = _facts(config, frames, asked, found, knobs, seconds, with_camera)
    told = f"{frames.told}, played from memory, {len(found.tried)} candidates in {seconds / 60:.1f} min, {facts[0][1]}"
    text = tuned_text(_own_text(path, config, asked.sets, output), found, goal, stands, told)
    Config.parse(text, output.absolute().parent, name=str(output))
    name = path.name
    page = make_page(found, goal, stands, facts, name)
    _write(files, text, page, _figures(found, goal, stands, facts))
    _print(found, goal)
    for line in stands:
        console.print(Text(f"not reached: {line}", style="bold red"))
    if stands and asked.iterations is None and any(row.kind == "deconvolve" for row in config.stages):
        say("fewer iterations were not tried: allow them, such as --iterations 1:6")
    if not found.whole:
        say(f"the time was over before all was tried: --minutes {asked.minutes * 3:g}")
    changed = found.best.name if found.best.changes else "nothing: no change was better than the noise"
    say(f"changed    {changed}")
    say(f"best       p99 {best.p99(goal):.3g} ms, {best.gone:.1%} not restored")
    say(f"config     {files['.toml']}")
    say(f"page       {files['.html']}")
    return not stands


class _Work:
    """Measures candidates."""

    def __init__(
        self, config: Config, frames: Frames, goal: Goal, asked: Asked, folder: Path, disk: str, stop: threading.Event
    ) -> None:
        self._config, self._frames, self._goal, self._asked, self._stop = config, frames, goal, asked, stop
        self._reference, self._disk = folder / "unchanged.npz", disk
        self._wire = config.kinds["source"] == "wire"

    def measure(self, changes: Changes) -> Measured:
        """Measure the unchanged config with some changes."""
        document = self._changed(changes)
        wire = None
        if self._wire:
            window = document["source"].get("window")
            wire = {} if window is None else {"window": int(window)}
        del document["source"]
        document["source"] = self._frames.source
        stacks = self._config.settings.unit == "stack"
        trial = Trial(
            tomlkit.dumps(document), str(self._config.folder), self._goal.fps, self._asked.seconds,
            max(self._asked.seconds / 2, 0.5), min(_PICTURES, STACKS) if stacks else _PICTURES, str(self._reference),
            self._disk, first=not changes, windows=self._goal.point == "display", wire=wire,
        )  # fmt: skip
        if not changes and self._reference.exists():
            trial = Trial(**{**asdict(trial), "first": False})
        slow = any(isinstance(value, dict) and value.get("mode") == "compile" for _, value in changes)
        patience = (_COMPILE_S if slow else _PATIENCE_S) + 4 * self._asked.seconds
        try:
            return run_trial(trial, patience, self._stop.is_set)
        except PellucidError as error:
            return Measured(str(error))

    def with_camera(self, changes: Changes, say: Callable[[str], None]) -> str:
        """Run the best with the config's own camera, if it has one; return what was measured, in words."""
        if self._config.kinds["source"] not in _LIVE or self._asked.frames is not None or self._stop.is_set():
            return ""
        say("camera     the best config with the camera itself")
        document = self._changed(changes)
        trial = Trial(
            tomlkit.dumps(document), str(self._config.folder), self._goal.fps, self._asked.seconds, 0.0, 0,
            str(self._reference), self._disk, windows=self._goal.point == "display", camera=True,
        )  # fmt: skip
        told = run_trial(trial, _PATIENCE_S, self._stop.is_set)
        words = told.error or f"p99 {told.p99(self._goal):.3g} ms, {told.gone:.1%} not restored"
        say(f"camera     {words}")
        return words

    def _changed(self, changes: Changes) -> Any:
        document = tomlkit.parse(self._config.text)
        for steps, value in changes:
            if steps[0] == "session" and "session" not in document:
                document["session"] = tomlkit.table()
            put(document, steps, value)
        for sink in document.get("sinks", []):
            if sink.get("kind") == "recorder":
                for key in ("start", "before_s", "upload", "upload_wait_s"):
                    sink.pop(key, None)
        document.setdefault("session", tomlkit.table())
        for key in ("frames", "seconds"):
            document["session"].pop(key, None)
        return document


def _look_at_point(config: Config, point: Point) -> None:
    if point == "restored" and not config.stages:
        raise ConfigError("--point restored: the config has no [[stages]]; give --point disk")
    if point == "disk" and not any(name.startswith("recorder") for name in config.sinks):
        raise ConfigError('--point disk: the config has no [[sinks]] kind = "recorder"')
    if point == "display":
        window = next((sink for name, sink in config.sinks.items() if name.startswith("window")), None)
        if window is None:
            raise ConfigError('--point display: the config has no [[sinks]] kind = "window"')
        if (why := window.why_not()) is not None:  # type: ignore[attr-defined]
            raise ConfigError(f"--point display: {why}")


def _disk_of(config: Config) -> Path:
    """Return a folder on the disk on which the config would record."""
    recorder = next((sink for name, sink in config.sinks.items() if name.startswith("recorder")), None)
    place = Path(str(getattr(recorder, "path", "."))).absolute()
    return next(folder for folder in place.parents if folder.is_dir())


def _own_text(path: Path, config: Config, sets: tuple[str, ...], output: Path) -> str:
    """Return the text to be changed: as it was given, or with whole paths where it is to lie elsewhere."""
    if output.absolute().parent.resolve() != path.resolve().parent:
        return config.text
    document = tomlkit.parse(config.given)
    for change in sets:
        apply_set(document, change)
    return tomlkit.dumps(document)


def _tell(one: Candidate, goal: Goal, say: Callable[[str], None]) -> None:
    told = one.measured[-1]
    if told.error:
        say(f"{one.name}: {told.error}")
        return
    db = "" if told.psnr_db != told.psnr_db or told.psnr_db == float("inf") else f", {told.psnr_db:.1f} dB"
    say(f"{one.name}: p99 {told.p99(goal):.3g} ms, {told.gone:.1%} not restored, {told.throughput_fps:.3g}/s{db}")


def _facts(
    config: Config, frames: Frames, asked: Asked, found: Found, knobs: list[Knob], seconds: float, with_camera: str
) -> list[tuple[str, str]]:
    hard = hardware(device_of(config))
    computer = f"{hard['processor']}, {hard['cores']} cores" + (f", {hard['gpu']}" if "gpu" in hard else "")
    said = ", ".join(dict.fromkeys(line for one in found.tried for line in one.middle().made))
    return [
        ("computer", computer),
        (
            "frames",
            f"{frames.told}: {'x'.join(map(str, frames.shape))}, {', '.join(frames.streams)}; played from memory",
        ),
        (
            "each run",
            f"{asked.seconds:g} s at the rate, as a camera that waits for nobody; {_PICTURES} frames compared",
        ),
        ("keys", ", ".join(knob.key for knob in knobs)),
        ("took", f"{seconds / 60:.1f} min" + ("" if found.whole else "; the time was over before all was tried")),
        ("networks", said),
        ("with the camera itself", with_camera),
        ("date", f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"),
    ]


def _figures(found: Found, goal: Goal, stands: list[str], facts: list[tuple[str, str]]) -> dict[str, Any]:
    def row(one: Candidate) -> dict[str, Any]:
        changes = {key_of(steps): value for steps, value in one.changes}
        return {"changes": changes, "measured": [told.told() for told in one.measured]}

    return {
        "goal": asdict(goal),
        "reached": not stands,
        "limits": stands,
        "best": found.tried.index(found.best),
        "candidates": [row(one) for one in found.tried],
        "facts": dict(facts),
    }


def _write(files: dict[str, Path], text: str, page: str, figures: dict[str, Any]) -> None:
    told = json.dumps(_plain(figures), indent=2) + "\n"
    for kind, content in ((".toml", text), (".html", page), (".json", told)):
        try:
            with files[kind].open("x", encoding="utf-8", newline="\n") as file:
                file.write(content)
        except OSError as error:
            raise ConfigError(f"cannot write {files[kind]}: {error.strerror or error}") from None


def _plain(tree: Any) -> Any:
    """Return a tree as JSON can hold it: what is no number is told by its name."""
    if isinstance(tree, float) and not math.isfinite(tree):
        return str(tree)
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _print(found: Found, goal: Goal) -> None:
    title = f"latency from the camera until {goal.point}, at {goal.fps:.4g} frames/s"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(("changed", "p50", "p99", "missed", "frames/s", "dB", "")):
        table.add_column(column, justify="left" if i in (0, 6) else "right", overflow="fold" if i == 0 else "ellipsis")
    for row in rows_of(found, goal):
        style = {"best": "bold green", "unchanged": "yellow"}.get(row[6], "" if row[6] == "front" else "dim")
        table.add_row(*map(Text, row), style=style)
    console.print(table)
