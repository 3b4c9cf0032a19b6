"""``pellucid verify FOLDER``: look whether every frame of a recording is there, and unaltered.

Each plane is read through a reader that others wrote (`pellucid.recording.opened`) and held against the checksum that
was made when it arrived. Beside that: numbers without gaps, images as long and as large as the rows say, counts of the
report that agree with the rows, the config that ran, and the metadata of OME-Zarr by its schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pellucid.errors import SinkError
from pellucid.recording.agreement import Counts, look_at_counts, look_at_hashes, look_at_rows, look_at_shapes
from pellucid.recording.amounts import amount
from pellucid.recording.changes import look_at_changes
from pellucid.recording.contents import Contents
from pellucid.recording.image import At
from pellucid.recording.journal import checksum
from pellucid.recording.opened import Opened, open_image, shown_name

__all__ = ["Verified", "verify"]

_SHOWN = 20


@dataclass
class Verified:
    """What was looked at, and what is wrong with it.

    Parameters
    ----------
    frames
        That the rows tell of, whether or not they arrived.
    recorded
        Whose raw plane is there, by the rows.
    planes, nbytes
        Read and compared.
    images, readers
        Opened, and by what.
    faults
        One line each; empty for a recording that is in order.
    """

    frames: int = 0
    recorded: int = 0
    planes: int = 0
    nbytes: int = 0
    images: int = 0
    readers: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    ended: bool = True

    def lines(self) -> Iterator[str]:
        """Yield what the user is told."""
        read = f"{self.planes} planes in {self.images} images ({amount(self.nbytes)})"
        by = f", read with {' and '.join(self.readers)}" if self.readers else ""
        if not self.ended:
            yield self.faults[0]
            return
        if not self.faults:
            yield f"in order: {self.frames} frames have a row each, {self.recorded} are recorded"
            yield f"  {read} are to the last bit what arrived{by}"
            return
        yield f"{len(self.faults)} faults among {self.frames} frames, {read}{by}:"
        for fault in self.faults[:_SHOWN]:
            yield f"  {fault}"
        if len(self.faults) > _SHOWN:
            yield f"  and {len(self.faults) - _SHOWN} more"


def verify(folder: Path, tell: Callable[[int, int], None] | None = None) -> Verified:
    """Look whether a recording is whole and unaltered; change nothing.

    Parameters
    ----------
    folder
    tell
        Takes how many planes were read, and of how many.

    Raises
    ------
    SinkError
        Where it is no recording.
    """
    contents = Contents(folder)
    found = Verified()
    if not contents.ended:
        found.faults.append(f"{folder} was not ended: type pellucid recover {folder}")
        found.ended = False
        return found
    contents.look_whether_here()
    images = _open(contents, found)
    try:
        counts = Counts()
        wanted = look_at_rows(contents, counts, found.faults)
        found.frames, found.recorded = sum(counts.count), counts.recorded
        look_at_shapes(contents, images, counts, found.faults)
        look_at_counts(folder, counts, found.faults)
        look_at_hashes(contents, found.faults)
        look_at_changes(contents.folder, found.faults)
        _read(contents, images, wanted, found, tell or _quiet)
    finally:
        for image in images.values():
            image.close()
    return found


def _open(contents: Contents, found: Verified) -> dict[str, Opened]:
    """Open all images; those that cannot be are faults."""
    images: dict[str, Opened] = {}
    for name, plan in contents.plans.items():
        shown = shown_name(plan, contents.about.file_format)
        try:
            images[name] = open_image(contents.folder, plan, contents.about.file_format)
            if contents.about.file_format == "ome-zarr":
                _look_at_metadata(contents.folder / shown, found)
        except SinkError as error:
            found.faults.append(f"{shown}: {error}")
    found.images = len(images)
    found.readers = list(dict.fromkeys(image.reader for image in images.values()))
    return images


def _look_at_metadata(path: Path, found: Verified) -> None:
    try:
        import yaozarrs
    except ImportError:
        return  # ome-writers brings it
    try:
        yaozarrs.validate_zarr_store(str(path))
    except Exception as error:
        text = " ".join(str(error).split())
        found.faults.append(f"{path.name}: its metadata is not valid OME-Zarr: {text[:200]}")


def _read(
    contents: Contents,
    images: Mapping[str, Opened],
    wanted: int,
    found: Verified,
    tell: Callable[[int, int], None],
) -> None:
    """Read every plane that has a checksum, and compare."""
    strange: dict[str, int] = {}
    for row in contents.rows():
        if "at" not in row:
            continue
        for plane, name in contents.images(row).items():
            sums = row.get("xxh3", {}).get(plane)
            if sums is None or name not in images:
                continue
            sums = [sums] if isinstance(sums, str) else sums
            places = contents.places(row, name)
            shown = shown_name(contents.plans[name], contents.about.file_format)
            if len(places) != len(sums):
                found.faults.append(
                    f"frame {row['seq']}: {shown} holds {len(places)} planes of it, its row has {len(sums)} checksums"
                )
            for at, total in zip(places, sums, strict=False):
                _compare(
                    images[name], at, total, f"frame {row['seq']}: {shown} at {_at(contents, name, at)}", found, strange
                )
                tell(found.planes, wanted)
    if strange:
        _say_whose(contents, strange, found)


def _compare(image: Opened, at: At, total: str, where: str, found: Verified, strange: dict[str, int]) -> None:
    found.planes += 1
    try:
        pixels = image.read(at)
    except SinkError as error:
        found.faults.append(f"{where} {error}")
        return
    found.nbytes += pixels.nbytes
    now = f"{checksum(pixels):016x}"
    if now == total:
        return
    if not pixels.any():
        found.faults.append(f"{where} is empty: all zeros where a picture arrived")
        return
    if len(found.faults) < _SHOWN:
        strange[now] = len(found.faults)
    found.faults.append(f"{where} is not what arrived (checksum {now}, it was {total})")


def _say_whose(contents: Contents, strange: dict[str, int], found: Verified) -> None:
    """Say of planes in the wrong place whose they are."""
    for row in contents.rows():
        for plane, sums in row.get("xxh3", {}).items():
            for total in [sums] if isinstance(sums, str) else sums:
                if total in strange:
                    found.faults[strange.pop(total)] += f": it is {plane} of frame {row['seq']}"


def _at(contents: Contents, name: str, at: At) -> str:
    plan = contents.plans[name]
    place = {"p": plan.positions[at.p] if at.p < len(plan.positions) else None, "t": at.t, "c": at.c}
    place["z"] = None if plan.depth is None else at.z
    return ", ".join(f"{axis}={value}" for axis, value in place.items() if value is not None)


def _quiet(_: int, __: int) -> None:
    """Tell nobody."""
