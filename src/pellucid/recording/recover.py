"""``pellucid recover FOLDER``: end a recording that something else ended.

What the journal says was written is held against what the disk has: of planes that a commit covered the length of
their file, of the rest (and with `check_all` of all) every pixel against its checksum. What is whole is kept, what is
torn no reader sees any more, pieces that still waited in a spill file go where they belong, and the images are ended by
the code that would have ended them. Nothing that was recorded is deleted. The journal is removed last, so a recovery
that dies itself is simply done again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from pellucid.errors import SinkError
from pellucid.recording.about import NAME as ABOUT
from pellucid.recording.about import About, to_plan, to_stream
from pellucid.recording.disk import Disk
from pellucid.recording.formats import make_image
from pellucid.recording.image import At, Plan, Stamp, Where
from pellucid.recording.journal import NAME as JOURNAL
from pellucid.recording.journal import Journal, checksum, plane_line, read_journal
from pellucid.recording.part import Target, ending
from pellucid.recording.places import Places
from pellucid.recording.rows import NAME as ROWS
from pellucid.recording.schema import Malformed, row_of
from pellucid.recording.spill import read_spill
from pellucid.recording.zarr_image import UNKNOWN

__all__ = ["LOCK", "Recovered", "lock_recording", "recover"]

BEFORE = "report-before.json"
LOCK = ".lock"
"""Held while a recording is written to, by the recorder or by a recovery."""


@dataclass
class Recovered:
    """What a recovery found.

    Parameters
    ----------
    state
        Of the recording when it was found: ``"finished"`` and ``"recovered"`` need nothing.
    frames
        Known of.
    recorded
        Whose raw plane is there, by what the journal or the disk says.
    planes
        For each image how many are kept.
    torn
        That the journal names and that are not whole.
    spilled
        Taken from a spill file.
    gone
        First and last number of frames of which no pixels are there.
    unknown
        Of numbers below the last of which nothing is known.
    damaged
        Lines of the journal that are none; what they told of is lost, or among what is `aside`.
    aside
        Files of which no journal tells, and that were put into the folder ``unknown``.
    spill_left
        The spill file, where pieces of it could not be taken: it is kept.
    spill_damaged
        Pieces of it that are not whole.
    given_up
        The spill file that is not there, and that was given up.
    left_out
        Frames that were not to be recorded, between takes, or that never arrived.
    """

    state: str
    frames: int = 0
    recorded: int = 0
    planes: dict[str, int] = field(default_factory=dict)
    torn: int = 0
    spilled: int = 0
    gone: list[tuple[int, int]] = field(default_factory=list)
    unknown: int = 0
    damaged: int = 0
    aside: int = 0
    spill_left: str = ""
    spill_damaged: int = 0
    given_up: str = ""
    left_out: int = 0

    def lines(self) -> Iterator[str]:
        """Yield what the user is told."""
        if self.state != "recording":
            yield "nothing to recover: the recording was ended properly" + (
                " by an earlier recovery" if self.state == "recovered" else ""
            )
            return
        known = "frames that are known of" if self.damaged or self.given_up or self.spill_left else "frames"
        yield f"{self.recorded} of {self.frames - self.left_out} {known} are there, whole and readable"
        for name, count in self.planes.items():
            yield f"  {name}: {count} planes"
        if self.spilled:
            yield f"  {self.spilled} planes came from the spill file"
        if self.left_out:
            yield f"  {self.left_out} more came between takes, or never arrived: they were not to be recorded"
        if self.torn:
            yield f"  {self.torn} planes were torn and have been left out"
        if self.gone:
            yield f"  no pixels of frames {ranges(self.gone)}"
        if self.unknown:
            yield f"  nothing is known of {self.unknown} numbers in between: they had not come to an end"
        if self.damaged:
            yield f"  {self.damaged} lines of the journal were damaged: what they told of is not in the recording"
        if self.aside:
            yield f"  {self.aside} files of which the journal does not tell were put into the folder {UNKNOWN}"
        if self.spill_left:
            yield f"  {self.spill_damaged} pieces in the spill file {self.spill_left} are damaged; the file is kept"
        if self.given_up:
            yield f"  what waited in the spill file {self.given_up} was given up"


def lock_recording(folder: Path) -> FileLock:
    """Keep others from writing to a recording; the system lets go of it when this process ends, however.

    Raises
    ------
    SinkError
        Where somebody does write.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SinkError(f"{folder} is being recorded, or recovered, by another process right now") from None
    except OSError as error:
        raise SinkError(f"{folder}: you may not write to it ({error.strerror or error})") from None
    return lock


def recover(
    folder: Path,
    *,
    spill: Path | None = None,
    without_spill: bool = False,
    check_all: bool = False,
    tell: Callable[[int, int], None] | None = None,
    disk: Disk | None = None,
) -> Recovered:
    """End a recording that was not.

    Parameters
    ----------
    folder
    spill
        The spill file, where it was moved.
    without_spill
        Give up what waited in a spill file that is not there.
    check_all
        Hold also those planes against their checksum that a commit covered.
    tell
        Takes how many planes were looked at, and of how many.
    disk

    Raises
    ------
    SinkError
        Where it is no recording, is being recorded, or cannot be written to.
    """
    if not folder.is_dir():
        raise SinkError(f"{folder} is no folder")
    about = About.read(folder)
    if about.state != "recording" and not (folder / JOURNAL).exists():
        return Recovered(about.state)
    lock = lock_recording(folder)
    try:
        about = About.read(folder)  # it may have ended while nobody held the lock
        if about.state != "recording":
            (folder / JOURNAL).unlink(missing_ok=True)  # it was about to go
            return Recovered(about.state)
        if about.spill and spill is None and not without_spill and not Path(about.spill).is_file():
            raise SinkError(
                f"frames of {folder} may wait in the spill file {about.spill}, which is not there. Connect that disk, "
                "say where the file is now (--spill FILE), or give them up (--without-spill)"
            )
        if spill is not None:
            _look_at_spill(spill, about)
        return _recover(folder, about, spill, check_all, tell or _quiet, disk or Disk())
    except OSError as error:
        raise SinkError(
            f"{folder} cannot be recovered: {error.strerror or error} ({error.filename or folder})"
        ) from None
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


@dataclass
class _Line:
    """A plane as the journal has it."""

    image: str
    at: At
    where: Where
    total: str
    seq: int
    committed: bool = False


def _recover(
    folder: Path, about: About, spill: Path | None, check_all: bool, tell: Callable[[int, int], None], disk: Disk
) -> Recovered:
    if not (folder / JOURNAL).exists():
        raise SinkError(
            f"{folder} has no journal, so nobody can tell which of its planes are whole. "
            "Its images are left as they are"
        )
    (folder / ".reserve").unlink(missing_ok=True)
    found = Recovered("recording")
    lines, frames, parts = _read(folder / JOURNAL, found)
    known = {part["number"] for part in about.parts}
    about.parts += [part for number, part in sorted(parts.items()) if number not in known]
    if not lines and not parts and any(p.is_file() for part in about.parts for p in _pixels(folder, part)):
        raise SinkError(
            f"{folder} has a journal that cannot be read, so nobody can tell which of its planes are whole. "
            "Its images are left as they are"
        )
    targets = _targets(folder, about, disk)
    _put_prepared_aside(folder, about, disk)
    before = _count_aside(folder)
    sizes: dict[str, int] = {}
    good: dict[tuple[str, At], _Line] = {}
    for i, line in enumerate(lines):
        tell(i, len(lines))
        if line.image in targets and _whole(folder, line, targets[line.image], check_all, sizes):
            good[line.image, line.at] = line
        else:
            found.torn += 1
    for name, target in targets.items():
        target.image.keep([(line.at, line.where) for (image, _), line in good.items() if image == name])
    found.aside = _count_aside(folder) - before
    spilled = _take_spilled(folder, about, spill, targets, good, frames, disk, found)
    found.spilled = len(spilled)
    found.torn = max(found.torn - len({(line.image, line.at) for line in lines} & set(spilled)), 0)
    good |= spilled
    rows = _rows(folder, frames, about, good, found)
    _end(targets, good, rows)
    disk.commit()
    disk.replace(folder / ROWS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    report = folder / "report.json"
    if report.exists() and not (folder / BEFORE).exists():  # else it is that of a recovery that was interrupted
        disk.rename(report, folder / BEFORE)  # of a session that failed: what it counted is not what is there
    disk.replace(report, _report(about, rows, found))
    found.planes = {name: sum(image == name for image, _ in good) for name in targets}
    about.state = "recovered"
    disk.replace(folder / ABOUT, about.text())
    disk.commit()  # before the journal goes: without it, and not ended, nothing could be told any more
    disk.remove(folder / JOURNAL)
    disk.commit()
    if not found.spill_left:
        for path in _spill_files(about, spill):
            path.unlink(missing_ok=True)
    return found


def _look_at_spill(path: Path, about: About) -> None:
    """Refuse a file that somebody gave and that is not this recording's."""
    try:
        first = next(read_spill(path), None)
    except OSError as error:
        raise SinkError(f"--spill {path}: cannot be read ({error.strerror or error})") from None
    if first is None:
        raise SinkError(f"--spill {path}: is no spill file. Nothing was changed")
    its, mine = first[0].get("spill", ""), re.split(r"[/\\]", about.spill)[-1]
    if not mine or its not in ("", mine):
        raise SinkError(
            f"--spill {path}: is the spill file {its} of another recording; this one had {mine or 'none'}. "
            "Nothing was changed"
        )


def _put_prepared_aside(folder: Path, about: About, disk: Disk) -> None:
    """Move a part that was made ahead of need out of sight: no frame had gone there."""
    known = {row["name"].split("/")[0] for part in about.parts for row in part["images"]}
    for path in folder.glob("part-*"):
        if path.is_dir() and path.name not in known:
            aside = folder / UNKNOWN / path.name
            disk.make_folder(aside.parent)
            disk.rename(path, aside)


def _count_aside(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / UNKNOWN).rglob("*"))


def _pixels(folder: Path, part: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the files of a part's images that hold pixels."""
    for row in part["images"]:
        yield from (folder / f"{row['name']}.ome.zarr").rglob("c/*/**/*")


def _read(path: Path, found: Recovered) -> tuple[list[_Line], dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """Return the planes, the frames and the parts of a journal."""
    parts: dict[int, dict[str, Any]] = {}
    lines: list[_Line] = []
    frames: dict[int, dict[str, Any]] = {}
    counts: list[int] = []

    def damaged() -> None:
        found.damaged += 1

    for total, row in enumerate(read_journal(path, damaged), 1):
        if "frame" in row:
            frames[row["frame"]["seq"]] = row["frame"]
        elif "image" in row:
            lines.append(_Line(row["image"], At(*row["at"]), Where(*row["in"]), row["xxh3"], row["seq"]))
            counts.append(total)
        elif "part" in row:
            parts[row["part"]["number"]] = row["part"]
        elif "commit" in row:
            covered = total - row["commit"]
            for line, count in zip(reversed(lines), reversed(counts), strict=True):
                if line.committed:
                    break
                line.committed = count < covered
    return lines, frames, parts


def _targets(folder: Path, about: About, disk: Disk) -> dict[str, Target]:
    """Return the images by name, reopened; one that was not made yet is left out."""
    streams = {row["index"]: to_stream(row) for row in about.streams}
    targets: dict[str, Target] = {}
    for part in about.parts:
        mine: dict[str, list[int]] = {}
        for index, of in part["of"].items():
            for name in of.values():
                mine.setdefault(name, []).append(int(index))
        for row in part["images"]:
            plan = to_plan(row)
            its = [streams[i] for i in sorted(mine.get(plan.name, []))]
            if not its:
                continue
            image = make_image(about.file_format, folder, plan, disk)
            image.reopen()
            is_stack = its[0].spec.axes == "zyx"
            targets[plan.name] = Target(image, plan, Places(its[0], plan), its, is_stack)
    return targets


def _whole(folder: Path, line: _Line, target: Target, check_all: bool, sizes: dict[str, int]) -> bool:
    """Tell whether a plane is there as it was taken."""
    if line.committed and not check_all:
        name = line.where.file
        if name not in sizes:
            sizes[name] = max(_size(folder / name), _size(folder / f"{name}.partial"))
        return sizes[name] >= line.where.offset + line.where.nbytes
    plane = target.image.read(line.at, line.where)
    return plane is not None and f"{checksum(plane):016x}" == line.total


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _spill_files(about: About, given: Path | None) -> list[Path]:
    told = [given] if given is not None else [Path(about.spill)] if about.spill else []
    return [path for path in told if path.is_file()]


def _take_spilled(
    folder: Path,
    about: About,
    given: Path | None,
    targets: Mapping[str, Target],
    good: Mapping[tuple[str, At], _Line],
    frames: dict[int, dict[str, Any]],
    disk: Disk,
    found: Recovered,
) -> dict[tuple[str, At], _Line]:
    """Put planes that still waited in a spill file where they belong; return them."""

    def damaged() -> None:
        found.spill_damaged += 1

    out: dict[tuple[str, At], _Line] = {}
    journal = None
    files = _spill_files(about, given)
    if about.spill and not files:
        found.given_up = about.spill
    for path in files:
        pieces = 0
        for told, data in read_spill(path, damaged):
            pieces += 1
            if "frame" in told:
                frames.setdefault(told["frame"]["seq"], told["frame"])
            begin = 0
            for row in told.get("planes", ()):
                at, target = At(*row["at"]), targets.get(row["image"])
                pixels = data[begin : begin + row["bytes"]]
                begin += row["bytes"]
                if (row["image"], at) in good or (row["image"], at) in out:
                    continue
                if target is None or pixels.nbytes != target.plan.nbytes:
                    damaged()
                    continue
                plane = pixels.view(np.dtype(target.plan.dtype)).reshape(target.plan.size)
                if f"{checksum(plane):016x}" != row["xxh3"]:
                    damaged()
                    continue
                where = target.image.put(at, plane, 0.0)
                out[row["image"], at] = _Line(row["image"], at, where, row["xxh3"], row["seq"])
                journal = journal or Journal(folder / JOURNAL, disk, again=True)
                journal.add(plane_line(row["image"], at, where, int(row["xxh3"], 16), row["seq"]))
        if found.spill_damaged or (not pieces and path.stat().st_size > 0):
            found.spill_left = str(path)
    if journal is not None:
        journal.close()
    return out


def _rows(
    folder: Path,
    frames: Mapping[int, dict[str, Any]],
    about: About,
    good: Mapping[tuple[str, At], _Line],
    found: Recovered,
) -> list[dict[str, Any]]:
    """Return a row for every frame that is known of, with what of it is there."""
    rows: dict[int, dict[str, Any]] = {}
    path = folder / ROWS
    for text in path.read_bytes().splitlines() if path.exists() else ():
        row = _told(text)
        if row is not None:  # the last line may be cut
            rows[row["seq"]] = row
    for seq, row in frames.items():
        rows.setdefault(seq, {**row, "state": "unfinished", "where": "died"})
    for row in _unnamed(about, good):
        rows.setdefault(row["seq"], row)
    of = {(part["number"], int(index)): planes for part in about.parts for index, planes in part["of"].items()}
    sums: dict[int, dict[str, dict[At, str]]] = {}
    for (image, at), line in good.items():
        sums.setdefault(line.seq, {}).setdefault(image, {})[at] = line.total
    plans = about.plans()
    for seq, row in rows.items():
        if row.get("at") is None and row.get("index") is None:
            if "not_recorded" not in row:
                found.left_out += _count(row)
            continue
        there = sums.get(seq, {})
        told: dict[str, Any] = {}
        for plane, image in of.get((row.get("part", 0), row.get("stream", 0)), {}).items():
            each = there.get(image, {})
            if each and _enough(row, plane, each, plans[image]):
                totals = [each[at] for at in sorted(each)]
                told[plane] = totals[0] if len(totals) == 1 else totals
        before = row.get("xxh3", {})
        row["xxh3"] = told
        found.recorded += _count(row) if "raw" in told else 0
        if not told:
            row["index"] = None
            row.pop("at", None)
        gone = [plane for plane in {**before, "raw": ""} if plane not in told]
        if gone:
            row["not_recorded"] = f"{', '.join(gone)}: not on the disk when it died"
    found.frames = sum(map(_count, rows.values()))
    found.gone = _runs(sorted(seq for seq, row in rows.items() if "raw" not in row.get("xxh3", {"raw": 0})))
    out = _with_gaps(rows)
    found.unknown = sum(row.get("to_seq", row["seq"]) - row["seq"] + 1 for row in out if row["state"] == "unknown")
    return out


def _told(text: bytes) -> dict[str, Any] | None:
    """Return a row, None where it is none: rows have no checksums, what the journal says of the frame stands for it."""
    try:
        row_of(text)
    except Malformed:
        return None
    row: dict[str, Any] = json.loads(text)
    return row


def _count(row: Mapping[str, Any]) -> int:
    """Return how many frames of the camera a row is of: the planes of a stack, the numbers of a run, or one."""
    planes: int | None = row.get("planes")
    return planes if planes is not None else row.get("to_seq", row["seq"]) - row["seq"] + 1


def _enough(row: dict[str, Any], plane: str, each: Mapping[At, str], plan: Plan) -> bool:
    """Tell whether what is there of a plane is a picture; of a raw stack the slices that lack are noted in its row."""
    if plan.is_colour:
        return len(each) == 3
    if "planes" not in row or plan.depth is None:
        return True
    lack = [z for z in range(plan.depth) if z not in {at.z for at in each}]
    if plane != "raw":
        return not lack
    row["planes"] = len(each)
    if lack:
        row["missing_z"] = lack
    return True


def _unnamed(about: About, good: Mapping[tuple[str, At], _Line]) -> Iterator[dict[str, Any]]:
    """Yield what can be said of frames of which only a plane is known: their own line of the journal was damaged."""
    plans, streams = about.plans(), {row["index"]: row for row in about.streams}
    of: dict[str, tuple[int, list[int]]] = {}
    for part in about.parts:
        for index, planes in part["of"].items():
            for name in planes.values():
                of.setdefault(name, (part["number"], []))[1].append(int(index))
    for (image, at), line in good.items():
        number, some = of[image]
        plan, channel = plans[image], at.c // 3 if plans[image].is_colour else at.c
        label = plan.channels[min(channel, len(plan.channels) - 1)]
        mine = [i for i in sorted(some) if streams[i]["channel"] == label] or sorted(some)
        stack = len(streams[mine[0]]["spec"]["shape"]) == 3 and not plan.is_colour
        place = [at.p, at.t, channel, 0 if stack else at.z]
        row = {"seq": line.seq, "stream": mine[0], "state": "unfinished", "index": at.t, "where": "died", "at": place}
        yield row | ({"part": number} if number else {}) | ({"planes": plan.depth} if stack else {})


def _with_gaps(rows: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows in order, with one for each run of numbers of which nothing is known."""
    out: list[dict[str, Any]] = []
    expected = 0
    for seq in sorted(rows):
        if seq > expected:
            gap: dict[str, Any] = {"seq": expected, "state": "unknown", "where": "died"}
            out.append(gap | ({"to_seq": seq - 1} if seq - 1 > expected else {}))
        out.append(rows[seq])
        expected = max(expected, rows[seq].get("to_seq", seq) + 1)
    return out


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for number in numbers:
        if out and number == out[-1][1] + 1:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return out


def ranges(runs: list[tuple[int, int]], most: int = 8) -> str:
    """Return runs of numbers as a text."""
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:most])
    return text + (f" and {len(runs) - most} more runs" if len(runs) > most else "")


def _end(targets: Mapping[str, Target], good: Mapping[tuple[str, At], _Line], rows: list[dict[str, Any]]) -> None:
    """End the images, with what their rows say of time."""
    times = {row["seq"]: row["camera_time"] for row in rows if "camera_time" in row}
    zero_s = min(times.values(), default=0.0)
    lengths: dict[tuple[str, tuple[int, ...]], Places] = {}
    for (image, at), line in sorted(good.items(), key=lambda item: item[1].seq):
        target = targets[image]
        taken_s = times.get(line.seq, zero_s) - zero_s
        target.written.add(Stamp(at, taken_s, line.seq))
        target.places.put(at, round(taken_s * 1e9))
    for target in targets.values():
        # Raw has every frame, and the images beside it are as long as it is.
        key = _group(target)
        longest = lengths.get(key)
        if longest is None or target.places.length > longest.length:
            lengths[key] = target.places
    for target in targets.values():
        target.places = lengths[_group(target)]
        target.image.finish(ending(target, zero_s))


def _group(target: Target) -> tuple[str, tuple[int, ...]]:
    """Return what the images have in common that are as long as each other: the part, and the streams."""
    part = target.plan.name.rpartition("/")[0]
    return part, tuple(stream.index for stream in target.streams)


def _report(about: About, rows: list[dict[str, Any]], found: Recovered) -> bytes:
    """Return what stands for the report that was never written."""
    states: dict[str, int] = {}
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + _count(row)
    told: dict[str, Any] = {
        "ended": "it died; recovered afterwards",
        "recovered": datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": about.version,
        "frames": {"produced": sum(states.values()), "recorded": found.recorded, "states": states},
        "recording": {"commit_every_s": about.commit_every_s, "torn": found.torn, "spilled": found.spilled},
    }
    more = ("damaged", "aside", "spill_left", "spill_damaged", "given_up")
    told["recording"] |= {key: getattr(found, key) for key in more if getattr(found, key)}
    return (json.dumps(told, indent=2) + os.linesep).encode()


def _quiet(_: int, __: int) -> None:
    """Tell nobody."""
