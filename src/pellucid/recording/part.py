"""The images that frames go to for a while: of a whole recording, of one take of it, or of one of its parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pellucid.protocols import RAW, FrameInfo, Spec, Stream
from pellucid.recording.disk import Disk
from pellucid.recording.formats import make_image
from pellucid.recording.image import Ending, Image, Plan
from pellucid.recording.places import Places, Written
from pellucid.recording.plan import fit, image_name, kin, plan_image

__all__ = ["Part", "Target"]


@dataclass(eq=False)
class Target:
    """An image, and what is known of it."""

    image: Image
    plan: Plan
    places: Places
    streams: list[Stream]
    is_stack: bool = False
    written: Written = field(default_factory=Written)


class Part:
    """Images of all planes of all streams.

    Parameters
    ----------
    folder
        The recording's.
    number
        0 for the images of a whole recording; others lie in folders of their own.
    file_format, compression, shard
        Of the images; `shard` says for a Spec how many planes a file takes.
    disk
    run
        As a sink's ``open`` gets it.
    name
        That somebody gave it, for its folder.
    take
        Number of the take that it belongs to, from 1; 0 where there are none.

    Attributes
    ----------
    of : dict of int to dict
        For each stream's index: plane -> Target.
    frames, nbytes : int
        Taken so far.
    began_ns, over_ns : int
        When its first frame was taken; when others began to go elsewhere.
    pending : int
        Writes that are still to be done.
    under_way : collections.deque of FrameInfo
        Frames whose planes have not all come yet.
    ended : bool
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        file_format: str,
        compression: str,
        shard: Callable[[Spec], int],
        disk: Disk,
        run: Mapping[str, Any],
        name: str = "",
        take: int = 0,
    ) -> None:
        self.number, self.name, self.take = number, name, take
        self.prefix = f"part-{number:04d}{f'-{fit(name)}' if name else ''}/" if number else ""
        self._folder, self._format, self._compression, self._shard = folder, file_format, compression, shard
        self._disk, self._run = disk, run
        self.targets: dict[Any, Target] = {}
        self.of: dict[int, dict[str, Target]] = {}
        self.frames = self.nbytes = 0
        self.began_ns = self.over_ns = 0
        self.pending = 0
        self.under_way: deque[FrameInfo] = deque()
        self.ended = False

    def take_in(self, stream: Stream, specs: Mapping[str, Spec], streams: Sequence[Stream]) -> None:
        """Give a stream its images: of its own, or those of the experiment that it is a channel of.

        Raises
        ------
        OSError, SinkError
        """
        targets: dict[str, Target] = {}
        for plane in sorted(specs, key=lambda name: name != RAW):
            spec = specs[plane]
            key = (plane, kin(stream, spec) if stream.sizes else stream.index)
            if key not in self.targets:
                like = [s for s in streams if kin(s, s.spec) == kin(stream, stream.spec)] if stream.sizes else [stream]
                plan = plan_image(
                    self.prefix + image_name(plane, stream),
                    plane,
                    like,
                    spec,
                    self._run,
                    compression=self._compression,
                    shard=self._shard(spec),
                )
                image = make_image(self._format, self._folder, plan, self._disk)
                image.create()
                places = targets[RAW].places if RAW in targets else Places(like[0], plan, parted=self.number > 0)
                self.targets[key] = Target(image, plan, places, [], spec.axes == "zyx")
            target = targets[plane] = self.targets[key]
            if stream.index not in {s.index for s in target.streams}:
                target.streams.append(stream)
        self.of[stream.index] = targets

    def is_done(self) -> bool:
        """Look whether nothing can come any more: all planes of all its frames were taken, or will not be."""
        for _ in range(len(self.under_way)):
            info = self.under_way.popleft()
            wanted = self.of[info.stream]
            missing = [plane for plane in wanted if plane not in (info.sums or {}) and plane not in info.unrecorded]
            if info.state == "received" or (info.state == "processed" and missing):
                self.under_way.append(info)
        return self.over_ns > 0 and not self.under_way and not self.pending

    def row(self) -> dict[str, Any]:
        """Return what ``recording.json`` says of it."""
        images = [asdict(target.plan) for target in self.targets.values()]
        of = {str(i): {plane: target.plan.name for plane, target in found.items()} for i, found in self.of.items()}
        of_take = {"take": self.take, "name": self.name} if self.take else {}
        return {"number": self.number, **of_take, "images": images, "of": of}

    def grow(self) -> None:
        """Before a commit: let readers see how long the images are."""
        if not self.ended:
            for target in list(self.targets.values()):
                target.image.grow([target.places.length] * max(len(target.plan.positions), 1))

    def finish(self, wall_s: float) -> list[Exception]:
        """End the images; all that can be ended are. Return what went wrong."""
        faults: list[Exception] = []
        self.ended = True
        for target in self.targets.values():
            try:
                target.image.finish(ending(target, wall_s))
            except Exception as fault:
                faults.append(fault)
                target.image.abandon()
            target.written = Written()  # of a part that is over nothing is asked any more
        return faults

    def abandon(self) -> None:
        """Close what is open; write nothing."""
        self.ended = True
        for target in self.targets.values():
            target.image.abandon()


def ending(target: Target, wall_s: float) -> Ending:
    """Say what is known of an image when it ends.

    Parameters
    ----------
    target
    wall_s
        See `pellucid.recording.rows.FrameRows`.
    """
    places, plan, first = target.places, target.plan, target.streams[0]
    began = ""
    if places.length:
        began = datetime.fromtimestamp(wall_s + places.first_ns * 1e-9, UTC).isoformat()
    rows = [{"name": s.channel, "stream": s.index, "exposure_ms": s.exposure_ms} for s in target.streams]
    return Ending(
        lengths=[places.length] * max(len(plan.positions), 1),
        interval_s=places.interval_s,
        began=began,
        stamps=target.written,
        groups=target.written.groups(plan, first, target.streams),
        facts={"details": dict(first.details), "channels": rows},
    )
