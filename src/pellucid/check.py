"""What ``pellucid check`` and ``pellucid list`` print; nothing is started here."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import psutil
import torch
from rich.table import Table
from rich.text import Text

from pellucid.config import GROUPS, Config, installed, keys_of
from pellucid.demand import Demand, disk_lines
from pellucid.errors import ConfigError, PellucidError, SinkError
from pellucid.memory import Needed, given_limits
from pellucid.protocols import RAW, Spec, Stage, Stream
from pellucid.recording.amounts import amount
from pellucid.runtime.assembly import stack_stream
from pellucid.runtime.chain import Chain, give_back, pick_device
from pellucid.runtime.stacks import planes_nbytes
from pellucid.sinks.recorder import Recorder
from pellucid.sources._experiment import Experiment
from pellucid.terminal import console, network_lines, say
from pellucid.wire.memory import SlotLayout

__all__ = ["check_config", "print_parts"]

ASSUMED_DEPTH = 32
"""Planes of a stack of which nobody tells before the source is open."""
_MOODS = {"fine": "", "warn": "yellow", "bad": "red"}
_DTYPES = ("uint8", "uint16", "uint32", "int16", "float32")


def check_config(config: Config, shape: str, dtype: str, fps: float | None = None) -> bool:
    """Print what a run of this config would be; False where something is missing.

    Parameters
    ----------
    config
    shape, dtype
        Of frames that only an opened camera could tell.
    fps
        Of each camera, likewise.

    Raises
    ------
    ConfigError
        Where one of these makes no sense.
    """
    if fps is not None and not 0 < fps < 1e9:
        raise ConfigError(f"--fps {fps:g}: frames a second are needed, such as 50")
    fine = True
    program = psutil.Process().memory_info().rss
    device = pick_device(config.settings.device)
    streams, known = _streams(config, shape, dtype)
    rows = Table(show_header=False, box=None, pad_edge=False)
    rows.add_column(style="dim")
    rows.add_column()
    rows.add_row("source", f"{config.kinds['source']}: {', '.join(f'{_name(s, streams)} {s.spec}' for s in streams)}")
    if not known:
        rows.add_row("", "assumed: only the opened camera or sender tells; change with --shape and --dtype")
    stacks = config.settings.unit == "stack"
    rows.add_row("unit", "stack: planes are put together along z" if stacks else "plane")
    host = on_device = slots_bytes = 0
    needed: list[Needed] = []
    recorded: list[dict[str, Spec]] = []
    if stacks:
        for stream in streams:
            if stream.sizes.get("z", 1) < 2:
                rows.add_row("", Text(f'{stream.spec} without z: leave out session.unit = "stack"', style="red"))
                fine = False
        host = sum(planes_nbytes(stream) for stream in streams)
        streams = tuple(stack_stream(stream) for stream in streams)
    rows.add_row("device", device + (f" ({torch.cuda.get_device_name(device)})" if device != "cpu" else ""))
    for stream in streams:
        planes: dict[str, Spec] = {RAW: stream.spec}
        stages = config.make_stages(stream)
        if stages:
            chain = Chain(stages, stream, device, say)
            try:
                planes |= chain.open()
                for row in chain.describe():
                    which = f" ({_name(stream, streams)})" if len(streams) > 1 else ""
                    rows.add_row("stage", f"{row['stage']}{which}: {row['reads']} -> {row['writes']}")
                    for line in network_lines(row):
                        rows.add_row("", Text(line))
                needed.append(_together(stages.values()))
                on_device += stream.spec.nbytes  # stages work on a copy
            except PellucidError as error:
                rows.add_row("stage", f"[red]{error}[/red]")
                fine = False
            finally:
                chain.close()
        recorded.append(planes)
        slots_bytes += SlotLayout(planes, config.settings.slots).nbytes
        rows.add_row("planes", ", ".join(f"{n} {s} ({s.nbytes / 1e6:.1f} MB)" for n, s in planes.items()))
    rows.add_row("sinks", ", ".join(f"{n} ({s.policy})" for n, s in config.sinks.items()) or "none")
    host += slots_bytes
    give_back()
    program = max(program, psutil.Process().memory_info().rss)  # with the libraries that run networks
    # Streams are restored at the same time, and their stages are opened one after the other.
    lasting = sum(n.lasting for n in needed)
    on_device += max([sum(n.running for n in needed), *(lasting - n.lasting + n.peak for n in needed)])
    free = psutil.virtual_memory().available
    slots = f"{config.settings.slots} slots{' of a stack each' if stacks else ''}"
    rows.add_row(
        "memory",
        f"{(host + on_device + program) / 1e6:.0f} MB at most: {host / 1e6:.0f} in {slots}, "
        f"{on_device / 1e6:.0f} in stages{' on ' + device if device != 'cpu' else ''}, "
        f"{program / 1e6:.0f} in the program",
    )
    for name, sink in config.sinks.items():
        if isinstance(sink, Recorder) and (waiting := sink.most_waiting_bytes(live=config.source.live)):
            text = f"and up to {amount(waiting)} for frames that wait ({name}.buffer_mb)"
            rows.add_row("", text)
            if waiting > free:
                rows.add_row("", f"[red]only {amount(free)} are free: use a smaller buffer_mb[/red]")
                fine = False
    if host + on_device > free:
        rows.add_row("", f"[red]only {free / 1e6:.0f} MB are free: use fewer session.slots[/red]")
        fine = False
    elif (taken := host + program + (on_device if device == "cpu" else 0)) > (limit := min(given_limits())):
        told = f"this process may take {limit / 1e6:.0f} MB (ulimit, container or job), not {taken / 1e6:.0f}"
        rows.add_row("", f"[red]{told}: give the stages memory_gb, or use fewer session.slots[/red]")
        fine = False
    lacks = [*_missing(config), *_not_ready(config)]
    demand = Demand.of(config, streams, recorded, _experiment(config), fps)
    for name, sink in config.sinks.items():
        if isinstance(sink, Recorder) and not any(line.startswith(f"{name}: ") for line in lacks):
            try:
                for i, told_line in enumerate(disk_lines(sink, demand, recorded, slots_bytes)):
                    rows.add_row("" if i else "disk", Text(told_line.text, style=_MOODS[told_line.mood]))
                    fine = fine and told_line.mood != "bad"
            except SinkError as error:
                lacks.append(f"{name}: {error}")
    for line in lacks:
        rows.add_row("missing", Text(line, style="red"))
        fine = False
    console.print(rows)
    say("nothing was started" if fine else "nothing was started: this would not run, or not to its end")
    return fine


def _together(stages: Iterable[Stage]) -> Needed:
    """Return what the stages of one stream take, which work one after the other."""
    each = [getattr(stage, "needed", None) or Needed(*[_tensor_bytes(stage)] * 3) for stage in stages]
    lasting = sum(n.lasting for n in each)
    running, peak = (max((getattr(n, what) - n.lasting for n in each), default=0) for what in ("running", "peak"))
    return Needed(lasting, lasting + running, lasting + peak)


def print_parts() -> None:
    """Print every part that is installed, with its keys, types and defaults."""
    for group in GROUPS:
        parts = installed(group)
        say(f"{group}{'' if parts else ': none installed'}")
        for kind, entry in parts.items():
            try:
                part: type = entry.load()
            except ImportError as error:
                say(f"  {kind}: cannot be imported: {error}")
                continue
            first = (part.__doc__ or "").strip().splitlines()[:1]
            say(f"  {kind}  {first[0] if first else ''}")
            for key, kind_of, default in keys_of(part):
                say(
                    f"      {key}: {kind_of} = {default}"
                    if default != "required"
                    else f"      {key}: {kind_of}, required"
                )


def _not_ready(config: Config) -> list[str]:
    """Ask the parts that can tell it whether they could be opened now."""
    lines = []
    parts = [("source", config.source), *config.sinks.items(), ("session.view", config.settings.view)]
    for name, part in parts:
        try:
            getattr(part, "ready", lambda: None)()
        except PellucidError as error:
            lines.append(f"{name}: {error}")
    return lines


def _streams(config: Config, shape: str, dtype: str) -> tuple[tuple[Stream, ...], bool]:
    """Return the streams a source tells without starting anything, else assumed ones."""
    match = re.fullmatch(r"(?:(\d+)x)?(\d+)x(\d+)", shape)
    if match is None or not all(int(n or 1) for n in match.groups()):
        raise ConfigError(
            f"--shape {shape}: give height and width in pixels, such as 2048x2048, or 32x2048x2048 for stacks of 32"
        )
    if dtype not in _DTYPES:
        raise ConfigError(f"--dtype {dtype}: allowed are {', '.join(_DTYPES)}")
    if getattr(config.source, "passive", False):
        try:
            return config.source.open(), True
        finally:
            config.source.close()
    like = Stream(Spec((int(match[2]), int(match[3])), dtype), pixel_um=getattr(config.source, "pixel_um", None))
    experiment = _experiment(config)
    # Without one nothing is known of cameras and channels but those that stages ask for by name.
    cameras, channels = (
        list(dict.fromkeys(name for row in config.stages for name in getattr(row, what))) or [what[:-1]]
        for what in ("cameras", "channels")
    )
    if experiment is not None:
        channels = [channel.config or like.channel for channel in experiment.channels]
        like = replace(like, sizes=experiment.sizes, z_um=experiment.z_step_um)
    elif config.settings.unit == "stack":
        like = replace(like, sizes={"z": int(match[1] or ASSUMED_DEPTH)})
    names = [(camera, channel) for camera in cameras for channel in channels]
    return tuple(replace(like, camera=a, channel=c, index=i) for i, (a, c) in enumerate(names)), False


def _experiment(config: Config) -> Experiment | None:
    """Return the experiment that the source is told to do, if it is told of one that can be read."""
    sequence = getattr(config.source, "sequence", None)
    try:
        return None if sequence is None else Experiment.load(sequence)
    except PellucidError:
        return None  # the source says why, when it is asked whether it is ready


def _name(stream: Stream, among: Sequence[Stream]) -> str:
    """Return the camera, and the channel where there are several."""
    return f"{stream.camera} {stream.channel}" if len({s.channel for s in among}) > 1 else stream.camera


def _missing(config: Config) -> list[str]:
    """Name the packages that the parts of a config need and that are not installed."""
    lines = []
    for name, part in [("source", config.source), *config.sinks.items()]:
        for module, extra in getattr(part, "needs", {}).items():
            if importlib.util.find_spec(module) is None:
                lines.append(f'{name} needs {module}. Type: pip install "pellucid[{extra}]"')
    return lines


def _tensor_bytes(stage: Stage) -> int:
    found: dict[int, int] = {}

    def look(value: Any, depth: int) -> None:
        if isinstance(value, torch.Tensor):
            found[value.data_ptr()] = value.nbytes
        elif isinstance(value, (list, tuple)):
            for item in value:
                look(item, depth)
        elif isinstance(value, dict):
            for item in value.values():
                look(item, depth)
        elif depth and hasattr(value, "__dict__"):
            for item in vars(value).values():
                look(item, depth - 1)

    look(stage, 2)
    return sum(found.values())
