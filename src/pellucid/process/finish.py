"""The end of OUT: the rows of all blocks in order, and the report."""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid._version import version
from pellucid.ledger import Ledger
from pellucid.metrics import Histogram
from pellucid.process.plan import PLACE, Plan
from pellucid.process.recorded import Recorded
from pellucid.protocols import RAW, FrameInfo
from pellucid.runtime.chain import use_threads
from pellucid.runtime.report import hardware, make_report

__all__ = ["facts_of_call", "failed", "finish"]

_PARTS = {"read": "read_ms", "stages": "stages_ms", "write": "write_ms"}


def finish(out: Path, plan: Plan, recorded: Recorded, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``frames.jsonl`` and ``report.json``.

    Parameters
    ----------
    out
        Folder in which all blocks are done.
    plan
    recorded
        IN.
    facts
        What goes into the report as it is.

    Returns
    -------
    dict
        The report.
    """
    ledger = Ledger()
    streams = recorded.streams
    for stream in streams:
        ledger.follow(stream)
    took = {part: ledger.duration.setdefault(part, Histogram()) for part in _PARTS}
    remarks: Counter[str] = Counter()
    half = out / PLACE / "frames.jsonl"
    with half.open("w", encoding="utf-8") as file:
        for row in _rows(out, plan, recorded):
            file.write(json.dumps(row) + "\n")
            _count(ledger, row, streams[row["stream"]].spec.nbytes)
            remarks.update({row["remark"]: 1} if "remark" in row else {})
            for part, key in _PARTS.items():
                if key in row:
                    took[part].add(round(row[key] * 1e6))
        file.flush()
        os.fsync(file.fileno())
    os.replace(half, out / "frames.jsonl")
    if recorded.remark:
        ledger.note(recorded.remark)
    for remark, n in remarks.items():
        ledger.note(f"in {n} of {ledger.received}: {remark}")
    report = make_report(ledger, facts)
    half = out / PLACE / "report.json"
    half.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    os.replace(half, out / "report.json")
    return report


def facts_of_call(plan: Plan, recorded: Recorded, device: str, seconds: float, frames: int) -> dict[str, Any]:
    """Return what the report says beside the counts.

    Parameters
    ----------
    plan, recorded, device
    seconds, frames
        Of the call that came to the end.
    """
    use_threads(plan.threads)  # the report tells torch's number of threads, and workers may have set it
    nbytes = sum(s.spec.nbytes * n for s, n in zip(recorded.streams, plan.units, strict=True))
    per_s = frames / seconds if frames and seconds else 0.0
    return {
        "ended": "all frames are done",
        "process": {"in": plan.given, "unit": plan.unit, "with_raw": plan.with_raw, "frames_of_this_call": frames},
        "throughput": {
            "frames_per_s": round(per_s, 3),
            "megabytes_per_s": round(per_s * nbytes / max(sum(plan.units), 1) * 1e-6, 3),
            "seconds": round(seconds, 3),
        },
        "streams": [
            {
                "camera": s.camera,
                "channel": s.channel,
                "planes": {name: str(spec) for name, spec in ({RAW: s.spec} | planes).items()},
                "pixel_um": s.pixel_um,
                "z_um": s.z_um,
                "exposure_ms": s.exposure_ms,
                "details": dict(s.details),
            }
            for s, planes in zip(recorded.streams, plan.specs, strict=True)
        ],
        "version": version,
        "hardware": hardware(device),
    }


def failed(report: Mapping[str, Any]) -> dict[str, int]:
    """Return what went wrong with frames, and with how many; those on which no stage works are none of them."""
    frames = report["frames"]
    return {where: n for where, n in frames["raw_only"].items() if where != "no stage"} | {
        where: n for where, n in frames["lost"].items() if where != "not in IN"
    }


def _count(ledger: Ledger, row: Mapping[str, Any], nbytes: int) -> None:
    if row["state"] == "lost":
        ledger.missing(row["seq"], 1, "lost", row["where"], row["stream"])
        return
    info = FrameInfo(row["seq"], row["stream"])
    ledger.arrived(info, nbytes)
    ledger.ended(info, row["state"], row.get("where", ""))
    ledger.recorded += row["state"] == "processed"


def _rows(out: Path, plan: Plan, recorded: Recorded) -> Iterator[dict[str, Any]]:
    """Give all rows in the order of IN; those of each stream are in it already."""
    blocks = list(plan.blocks())

    def of(stream: int) -> Iterator[dict[str, Any]]:
        if not plan.planes[stream]:
            for unit in range(plan.units[stream]):
                yield recorded.row(stream, unit) | {"state": "raw_only", "where": "no stage"}
        for block in blocks:
            if block.stream == stream:
                with (out / PLACE / "rows" / f"{block.number:07d}.jsonl").open(encoding="utf-8") as lines:
                    yield from map(json.loads, lines)

    return heapq.merge(*(of(stream.index) for stream in recorded.streams), key=lambda row: row["seq"])
