"""The report of a run: ``report.json`` as a dictionary, and the facts about this computer in it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import psutil
import torch

from pellucid.ledger import Ledger

__all__ = ["hardware", "make_report"]


def hardware(device: str) -> dict[str, Any]:
    """Return what a latency figure depends on: processor, memory, GPU, versions."""
    facts: dict[str, Any] = {
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def make_report(ledger: Ledger, run: Mapping[str, Any]) -> dict[str, Any]:
    """Put the ledger's counts and percentiles together with what is known of the run.

    Parameters
    ----------
    ledger
    run
        Keys that go into the report as they are: ``config_sha256``, ``version``, ``hardware``,
        ``ended``, ``streams`` ...
    """
    # From the first arrival to the last: n frames span n - 1 intervals. All planes of the first stack came at once.
    seconds = (ledger.last_ns - ledger.first_ns) * 1e-9
    intervals = max(ledger.received - ledger.first_count, 0)
    per_s = intervals / seconds if seconds > 0 else 0.0
    mean_bytes = ledger.received_bytes / ledger.received if ledger.received else 0.0
    return {
        "frames": ledger.frames(),
        "cameras": ledger.cameras(),
        "stacks": dict(ledger.stacks),
        "sinks": {name: dict(counts) for name, counts in ledger.sinks.items()},
        "ignored_messages": dict(ledger.ignored),
        # Always there, for whoever reads it by name; without a recorder or a window nothing was counted.
        "latency_ms": {mark: h.summary() for mark, h in ledger.latency.items()}
        | {mark: {"n": 0} for mark in ("disk", "display") if mark not in ledger.latency},
        "duration_ms": {part: h.summary() for part, h in ledger.duration.items()},
        "throughput": {
            "frames_per_s": round(per_s, 3),
            "megabytes_per_s": round(per_s * mean_bytes * 1e-6, 3),
            "seconds": round(seconds, 3),
        },
        "changes": list(ledger.changes),
        "notes": list(ledger.notes),
        **run,
    }


def _processor() -> str:
    """Name of the processor; Linux hides it from `platform`."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
