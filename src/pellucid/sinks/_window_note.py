"""What is told to the window beside the pictures, as one small text; `pellucid.viewer.note` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import Spec

__all__ = ["WHY", "WHY_SPEC", "Losses", "Told", "latency_of", "losses_of", "recording_of", "told_of", "write_note"]

WHY = "#why"
"""The plane that carries it: UTF-8, ended by a zero; `pellucid.viewer.newest` takes it out of the frame."""
WHY_SPEC = Spec((1, 4096), "uint8")

Losses = dict[str, dict[str, dict[str, int]]]
"""``dropped`` or ``lost`` -> camera -> place -> frames."""

Told = dict[str, Any]
"""What the window was told of the run: ``losses``, ``recording``, ``latency_ms`` and ``rates``, if there are any."""


def told_of(ledger: Ledger) -> Told:
    """Return what is to be told of the run at this moment."""
    told: Told = {}
    if losses := losses_of(ledger):
        told["losses"] = losses
    if recording := recording_of(ledger):
        told["recording"] = recording
    if latency := latency_of(ledger):
        told["latency_ms"] = latency
    return told


def latency_of(ledger: Ledger) -> dict[str, list[float]]:
    """Return for each mark its median and 99th percentile in ms, over all streams; and ``"±"`` how well they are known.

    Two digits are told, which the footer has: a third would make a new note of every frame.
    """
    told = {
        mark: [float(f"{h.quantile_ms(q):.2g}") for q in (0.5, 0.99)] for mark, h in ledger.latency.items() if h.count
    }
    if unsure := max((marks.unsure_ns for marks in ledger.marks.copy().values()), default=0):
        told["±"] = [float(f"{unsure * 1e-6:.2g}")] * 2
    return told


def recording_of(ledger: Ledger) -> dict[str, Any]:
    """Return what the recorders do, as one: the longest time, all bytes, the disk that is full first; empty without."""
    there = list(ledger.recordings.values())
    if not there:
        return {}
    on = [one for one in there if one.on]
    told: dict[str, Any] = {"on": bool(on), "switch": any(one.switch for one in there)}
    if any(one.failed for one in there):
        told["failed"] = True
    if on:
        told["frames"] = max(one.frames for one in on)
        told["mb"] = round(sum(one.nbytes for one in on) / 1e6)
        told["for_s"] = round((now_ns() - min(one.since_ns for one in on)) * 1e-9)
    elif held := max(one.held_s for one in there):
        told["held_s"] = round(held, 1)
    left = [one.left_s for one in there if one.left_s is not None]
    if left:
        told["left_s"] = round(min(left))
    return told


def losses_of(ledger: Ledger) -> Losses:
    """Return what did not arrive so far; empty where nothing is missing."""
    found: Losses = {}
    for camera, ends in ledger.cameras().items():
        for state in ("dropped", "lost", "not_recorded"):
            places = {place: n for place, n in ends[state].items() if n}
            if places:
                found.setdefault(state, {})[camera] = places
    return found


def write_note(plane: np.ndarray[Any, Any], where: str, places: Mapping[str, str], of_run: Told) -> bool:
    """Write a note into its plane; return False, and leave the plane, where there is nothing to tell.

    A text that is too long loses first the places, then the cameras that losses belong to, never their sums.
    """
    told: dict[str, Any] = dict(of_run)
    if where:
        told["where"] = where[:500]
    if places:
        told["places"] = places
    if not told:
        return False
    text = json.dumps(told).encode()
    room = plane.size - 1
    if len(text) > room:
        told.pop("places", None)
        told.pop("latency_ms", None)
        losses: Losses = told.get("losses", {})
        told["losses"] = {state: {"all cameras": _sums(cameras)} for state, cameras in losses.items()}
        text = json.dumps(told).encode()
    if len(text) > room:
        told["losses"] = {state: {"all cameras": {"all": _total(cameras)}} for state, cameras in losses.items()}
        text = json.dumps(told).encode()
    plane[0, : len(text)] = np.frombuffer(text, np.uint8)
    plane[0, len(text)] = 0
    return True


def _sums(cameras: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for places in cameras.values():
        for place, n in places.items():
            sums[place] = sums.get(place, 0) + n
    return sums


def _total(cameras: Mapping[str, Mapping[str, int]]) -> int:
    return sum(n for places in cameras.values() for n in places.values())
