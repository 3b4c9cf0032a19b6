"""What a run of a config asks of the disk, as far as it is known before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pellucid.config import Config
from pellucid.errors import SinkError
from pellucid.protocols import Spec, Stream
from pellucid.recording.amounts import amount
from pellucid.recording.codec_rate import PHOTONS, CodecRate, measure_codec
from pellucid.recording.plan import shard_frames
from pellucid.recording.prediction import Prediction, predict
from pellucid.recording.rate import RESERVE_BYTES, Rate, measure, nearest
from pellucid.sources._experiment import Experiment

__all__ = ["Demand", "DiskLine", "disk_lines"]


@dataclass(frozen=True)
class Demand:
    """What a run records.

    Parameters
    ----------
    frame_bytes
        All planes of one frame of the camera, raw and results; the mean of all streams.
    frames_s
        Frames a second, of all cameras together; None where nobody knows.
    source_of_rate
        Where that is from: ``"fps"``, ``"exposure 20 ms, at most"``.
    frames
        Of the whole run; None for no end.
    seconds
        Likewise.
    waits
        The source gives frames when there is room.
    """

    frame_bytes: float
    frames_s: float | None
    source_of_rate: str
    frames: int | None
    seconds: float | None
    waits: bool

    @classmethod
    def of(
        cls,
        config: Config,
        streams: Sequence[Stream],
        planes: Sequence[Mapping[str, Spec]],
        experiment: Experiment | None,
        fps: float | None,
    ) -> Demand:
        """Take from a config what is known.

        Parameters
        ----------
        config
        streams
            As sinks see them; stacks where they are the unit.
        planes
            Of each stream, raw and results.
        experiment
            That the source is told to do, if any.
        fps
            Frames of each camera a second, as the user says.
        """
        source, settings = config.source, config.settings
        # A frame of the camera is one slice of a stack.
        depths = [stream.spec.shape[0] if stream.spec.axes == "zyx" else 1 for stream in streams]
        sizes = [sum(spec.nbytes for spec in row.values()) / n for row, n in zip(planes, depths, strict=True)]
        weights = [stream.frames or 0 for stream in streams] if all(s.frames for s in streams) else [1] * len(streams)
        frame_bytes = sum(size * n for size, n in zip(sizes, weights, strict=True)) / sum(weights)
        cameras = len({stream.camera for stream in streams})
        rate, why = _rate(source, streams, experiment, cameras, fps)
        return cls(
            frame_bytes=frame_bytes,
            frames_s=rate,
            source_of_rate=why,
            frames=_frames(config, streams, depths, experiment, cameras),
            seconds=settings.seconds,
            waits=not source.live,
        )

    def predict(self, measured: Rate, buffer_bytes: int, then: str) -> Prediction:
        """Tell how long it lasts on a disk."""
        needed = None if self.frames_s is None else self.frames_s * self.frame_bytes
        ends = [] if self.frames is None else [self.frames * self.frame_bytes]
        if needed is not None and self.seconds is not None:
            ends.append(needed * self.seconds)
        return predict(
            needed,
            measured,
            measured.free_bytes,
            buffer_bytes,
            RESERVE_BYTES,
            run_bytes=min(ends) if ends else None,
            run_s=self.seconds,
            frame_bytes=round(self.frame_bytes),
            waits=self.waits,
            then=then,
        )

    def __str__(self) -> str:
        size = f"{amount(self.frame_bytes)} a frame"
        return size if self.frames_s is None else f"{self.frames_s:.4g} frames/s ({self.source_of_rate}), {size}"


def _rate(
    source: Any, streams: Sequence[Stream], experiment: Experiment | None, cameras: int, fps: float | None
) -> tuple[float | None, str]:
    if fps is not None:
        return fps * cameras, "--fps"
    if (own := getattr(source, "fps", None)) is not None:
        return float(own), "fps"
    if (interval_ms := getattr(source, "interval_ms", None)) is not None:
        return 1e3 / interval_ms * cameras, "interval_ms"
    exposures = [stream.exposure_ms for stream in streams if stream.exposure_ms]
    if experiment is not None:
        exposures = [c.exposure_ms for c in experiment.channels if c.exposure_ms]
    if not exposures and getattr(source, "exposure_ms", None):
        exposures = [source.exposure_ms]
    if not exposures:
        return None, ""
    return 1e3 / min(exposures) * cameras, f"exposure {min(exposures):g} ms, at most"


def _frames(
    config: Config, streams: Sequence[Stream], depths: Sequence[int], experiment: Experiment | None, cameras: int
) -> int | None:
    """Return how many frames of the cameras end the run; None where nothing does."""
    ends: list[int] = []
    if config.settings.frames is not None:
        ends.append(config.settings.frames * max(depths))
    if experiment is not None:
        ends.append(experiment.pictures * cameras)
    elif (own := getattr(config.source, "frames", None)) is not None:
        ends.append(own * cameras)
    elif all(stream.frames for stream in streams):
        ends.append(sum((stream.frames or 0) * n for stream, n in zip(streams, depths, strict=True)))
    return min(ends, default=None)


@dataclass(frozen=True)
class DiskLine:
    """One line on a disk.

    Parameters
    ----------
    text
    mood
        ``"fine"``; ``"warn"``: the run begins, and does not last or not as asked; ``"bad"``: nothing can be recorded.
    """

    text: str
    mood: Literal["fine", "warn", "bad"] = "fine"


def disk_lines(sink: Any, demand: Demand, planes: Sequence[Mapping[str, Spec]], slot_bytes: int) -> list[DiskLine]:
    """Measure the disk of a recorder; return what it takes, and how long the run lasts on it.

    Parameters
    ----------
    sink
        The recorder.
    demand
    planes
        Of each stream.
    slot_bytes
        Of all slots of the session.

    Raises
    ------
    SinkError
        Where the disk cannot be written.
    """
    folder = nearest(Path(sink.path).parent)
    spec = max((spec for row in planes for spec in row.values()), key=lambda spec: spec.nbytes)
    plane_bytes = spec.nbytes // (spec.shape[0] if len(spec.shape) > 2 else 1)
    in_file = getattr(sink, "shard_frames", None) or shard_frames(spec)
    try:
        rate = measure(folder, plane_bytes, commit_every_s=sink.commit_every_s, planes_in_file=in_file)
    except OSError as error:
        raise SinkError(
            f'path = "{sink.path}": {folder} cannot be written: {error.strerror or error}. '
            "Give a folder that you may write to: --set sinks.0.path=..."
        ) from None
    lines = [DiskLine(_told(folder, rate))]
    if sink.compression != "none":
        codec = measure_codec(sink.compression, spec.dtype, (spec.shape[-2], spec.shape[-1]), sink.writers)
        lines.append(DiskLine(_of_codec(sink.compression, codec)))
        rate = _compressed(rate, codec)
    then = "the run stops" if sink.when_full == "stop" else "frames are lost"
    told = demand.predict(rate, _buffer(sink, slot_bytes, not demand.waits), then)
    less = "" if sink.compression == "none" else ", compressed as measured: yours may be better or worse"
    mood: Literal["fine", "warn", "bad"] = "fine"
    if told.end in ("full", "behind"):
        has_end = demand.frames is not None or demand.seconds is not None
        mood = "bad" if told.end == "full" and (has_end or not told.lasts_s) else "warn"
    lines.append(DiskLine(f"{told.text}; {demand}{less}", mood))
    if sink.before_s and (held := _held(sink, demand)) is not None:
        lines.append(held)
    return lines


def _of_codec(name: str, codec: CodecRate) -> str:
    return (
        f'compression = "{name}": {amount(codec.bytes_s)}/s in {codec.threads} threads, to {codec.share:.0%} of the '
        f"bytes (a picture of {PHOTONS:g} photons a pixel; most of it is noise, which nothing makes smaller)"
    )


def _compressed(rate: Rate, codec: CodecRate) -> Rate:
    """Return what a disk and a codec take together, in bytes of pixels."""

    def slower(disk: float | None) -> float | None:
        return None if disk is None else min(disk / codec.share, codec.bytes_s)

    return replace(
        rate,
        bytes_s=slower(rate.bytes_s),
        accepted_bytes_s=slower(rate.accepted_bytes_s),
        free_bytes=int(rate.free_bytes / codec.share),
    )


def _held(sink: Any, demand: Demand) -> DiskLine | None:
    """Tell where the memory does not hold the seconds from before a start; None where it does, or nobody knows."""
    if demand.frames_s is None:
        return None
    needed = demand.frames_s * demand.frame_bytes * sink.before_s
    memory = sink.most_waiting_bytes(live=not demand.waits)
    if needed <= memory:
        return None
    told = f"before_s = {sink.before_s:g} needs {amount(needed)} of memory; buffer_mb gives {amount(memory)}"
    return DiskLine(f"{told}, which holds {memory / needed * sink.before_s:.1f} s", "warn")


def _told(folder: Path, rate: Rate) -> str:
    if rate.bytes_s is None or rate.write_ms is None or rate.commit_ms is None:
        return f"{folder}: {amount(rate.free_bytes)} free, too little to measure how fast it is"
    return (
        f"{folder}: {amount(rate.bytes_s)}/s ({rate.planes_s:.3g} planes/s), {amount(rate.free_bytes)} free; "
        f"p99 of a write {rate.write_ms:.3g} ms, of a commit {rate.commit_ms:.3g} ms"
    )


def _buffer(sink: Any, slot_bytes: int, live: bool) -> int:
    """Return how much may wait for the disk: half of the slots, memory beside them, the spill file."""
    return slot_bytes // 2 + int(sink.most_waiting_bytes(live=live)) + (int(sink.spill_gb * 1e9) if sink.spill else 0)
