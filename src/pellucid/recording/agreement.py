"""Whether the parts of a recording agree: its rows, its images, its report, its config. No pixel is read."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.protocols import RAW
from pellucid.recording.contents import Contents
from pellucid.recording.image import Plan
from pellucid.recording.opened import Opened, shown_name

__all__ = ["Counts", "look_at_counts", "look_at_hashes", "look_at_rows", "look_at_shapes"]


class Counts:
    """What the rows add up to."""

    def __init__(self) -> None:
        self.first, self.last, self.count = array("q"), array("q"), array("q")
        self.states: Counter[str] = Counter()
        self.recorded = self.lacking = 0
        self.length: dict[str, int] = {}
        """Along t of each image, by those rows that have a place in it."""
        self.spare: Counter[str] = Counter()
        """Frames that had a place in an image and are not there: it may be longer by so many."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        seq = row["seq"]
        last = row.get("to_seq", seq)
        count = row.get("planes") or last - seq + 1
        self.first.append(seq)
        self.last.append(last)
        self.count.append(count)
        self.states[row["state"]] += count
        self.recorded += count if "at" in row and RAW in row.get("xxh3", {}) else 0
        self.lacking += len(row.get("missing_z", ()))


def look_at_rows(contents: Contents, counts: Counts, faults: list[str]) -> int:
    """Look whether every number has its row, and every row what it should; return how many planes there are to read."""
    wanted = 0
    for row in contents.rows():
        counts.add(row)
        images = contents.images(row)
        if "not_recorded" in row:
            counts.spare.update(images.values())
        if "at" not in row:
            continue
        sums, which = row.get("xxh3", {}), f"frame {row['seq']}"
        for plane, name in images.items():
            counts.length[name] = max(counts.length.get(name, 0), row["at"][1] + 1)
            if plane in sums:
                wanted += 1 if isinstance(sums[plane], str) else len(sums[plane])
            elif plane not in row.get("not_recorded", "") and (plane == RAW or row["state"] == "processed"):
                faults.append(f"{which}: its row has no checksum for {plane}, and does not say why")
        strange = sorted(set(sums) - set(images))
        faults += [f"{which}: its row has a checksum for {name}, recording.json no image of it" for name in strange]
    faults += [f"frames.jsonl: line {number} is damaged" for number in contents.damaged]
    faults += _gaps(counts, contents.about.state == "recovered")
    return wanted


def _gaps(counts: Counts, recovered: bool) -> list[str]:
    """Return the numbers that no row tells of, and those that have several."""
    first, last, count = (np.frombuffer(a, np.int64) for a in (counts.first, counts.last, counts.count))
    if not len(first):
        return []
    order = np.lexsort((last, first))
    first, last, count = first[order], last[order], count[order]
    reached = np.concatenate([[-1], np.maximum.accumulate(last)[:-1]])
    faults = []
    for at in np.flatnonzero(first > reached + 1):
        a, b = reached[at] + 1, first[at] - 1
        faults.append(f"frame {a}: no row tells of it" if a == b else f"frames {a} to {b}: no row tells of them")
    faults += [f"frame {n}: it has two rows" for n in np.unique(first[1:][first[1:] == first[:-1]])]
    # Between the first and the last plane of a stack lie those of other channels, so there only the sum can tell; after
    # a recovery nobody knows the numbers of planes that a stack lacks.
    over = int(count.sum()) + sum(int(first[a] - reached[a] - 1) for a in np.flatnonzero(first > reached + 1))
    numbers = int(last.max()) + 1
    if not numbers - (counts.lacking if recovered else 0) <= over <= numbers and not faults:
        faults.append(f"frames.jsonl: {numbers} numbers were given, and its rows tell of {over} frames")
    return faults


def look_at_shapes(contents: Contents, images: Mapping[str, Opened], counts: Counts, faults: list[str]) -> None:
    """Look whether the images are as large as recording.json says, and as long as the rows do."""
    raw_of = {name: of[RAW] for part in contents.about.parts for of in part["of"].values() for name in of.values()}
    for name, image in images.items():
        plan = contents.plans[name]
        shown = shown_name(plan, contents.about.file_format)
        told = image.found()
        if len(told) < max(len(plan.positions), 1):
            faults.append(f"{shown}: has {len(told)} positions, recording.json says {len(plan.positions)}")
        faults += _pixel_faults(image, plan, shown)
        length = max(counts.length.get(name, 0), 1)
        spare = counts.spare[raw_of.get(name, name)]
        for p, (shape, dtype) in enumerate(told):
            where = f"{shown}, position {plan.positions[p]}" if p < len(plan.positions) else shown
            if dtype != plan.dtype:
                faults.append(f"{where}: is {dtype}, recording.json says {plan.dtype}")
            if shape is None:
                continue
            rest = (len(plan.channels), *(() if plan.depth is None else (plan.depth,)), *plan.size)
            if shape[1:] != rest:
                axes = "c, y, x" if plan.depth is None else "c, z, y, x"
                faults.append(f"{where}: is {_x(shape[1:])} along {axes}, recording.json says {_x(rest)}")
            if not length <= shape[0] <= length + spare:
                faults.append(f"{where}: is {shape[0]} long along t, the rows say {length}")


def _pixel_faults(image: Opened, plan: Plan, shown: str) -> list[str]:
    try:
        told = image.pixel_um()
    except Exception as error:  # metadata can be damaged in any way
        return [f"{shown}: its metadata cannot be read ({' '.join(f'{type(error).__name__}: {error}'.split())[:200]})"]
    wrong = [um for um in told if plan.pixel_um is None or not math.isclose(um, plan.pixel_um, rel_tol=1e-5)]
    known = "that it is not known" if plan.pixel_um is None else f"{plan.pixel_um:g} um"
    if wrong:
        return [f"{shown}: says that a pixel is {wrong[0]:g} um wide, recording.json says {known}"]
    if plan.pixel_um is not None and not told:
        return [f"{shown}: does not say how large a pixel is, recording.json says {known}"]
    return []


def look_at_counts(folder: Path, counts: Counts, faults: list[str]) -> None:
    """Look whether the report has the counts of the rows."""
    try:
        report = json.loads((folder / "report.json").read_text("utf-8"))
        frames = report["frames"]
        told: dict[str, int] = {"produced": frames["produced"], "recorded": frames["recorded"]}
        if "states" in frames:  # of a recovery
            told |= frames["states"]
        else:
            told["processed"] = frames["processed"]
            told |= {state: sum(frames[state].values()) for state in ("raw_only", "dropped", "lost")}
    except FileNotFoundError:
        faults.append("report.json: does not exist")
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        faults.append(f"report.json: is damaged ({' '.join(str(error).split())})")
        return
    rows = {"produced": sum(counts.count), "recorded": counts.recorded}
    for what, count in told.items():
        mine = rows[what] if what in rows else counts.states[what]
        if count != mine:
            faults.append(f"report.json: says {count} {what.replace('_', ' ')}, the rows say {mine}")


def look_at_hashes(contents: Contents, faults: list[str]) -> None:
    """Look whether the config is the one that ran."""
    try:
        now = hashlib.sha256((contents.folder / "config.toml").read_bytes()).hexdigest()
    except OSError as error:
        faults.append(f"config.toml: cannot be read ({error.strerror or error})")
        return
    told = {"recording.json": contents.about.hashes.get("config_sha256", "")}
    try:
        report = json.loads((contents.folder / "report.json").read_text("utf-8"))
        told["report.json"] = report.get("config_sha256", "")
    except (OSError, ValueError, AttributeError):
        pass  # said already
    for where, sha256 in told.items():
        if sha256 and sha256 != now:
            faults.append(f"config.toml: was changed; its SHA-256 is {now[:12]}, {where} says {sha256[:12]}")


def _x(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
