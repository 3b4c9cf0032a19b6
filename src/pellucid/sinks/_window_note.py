"""What is told to the window beside the pictures, as one small text; `pellucid.viewer.note` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pellucid.ledger import Ledger
from pellucid.protocols import Spec

__all__ = ["WHY", "WHY_SPEC", "Losses", "losses_of", "write_note"]

WHY = "#why"
"""The plane that carries it: UTF-8, ended by a zero; `pellucid.viewer.newest` takes it out of the frame."""
WHY_SPEC = Spec((1, 4096), "uint8")

Losses = dict[str, dict[str, dict[str, int]]]
"""``dropped`` or ``lost`` -> camera -> place -> frames."""


def losses_of(ledger: Ledger) -> Losses:
    """Return what did not arrive so far; empty where nothing is missing."""
    found: Losses = {}
    for camera, ends in ledger.cameras().items():
        for state in ("dropped", "lost", "not_recorded"):
            places = {place: n for place, n in ends[state].items() if n}
            if places:
                found.setdefault(state, {})[camera] = places
    return found


def write_note(plane: np.ndarray[Any, Any], where: str, places: Mapping[str, str], losses: Losses) -> bool:
    """Write a note into its plane; return False, and leave the plane, where there is nothing to tell.

    A text that is too long loses first the places, then the cameras that losses belong to, never their sums.
    """
    told: dict[str, Any] = {}
    if where:
        told["where"] = where[:500]
    if places:
        told["places"] = places
    if losses:
        told["losses"] = losses
    if not told:
        return False
    text = json.dumps(told).encode()
    room = plane.size - 1
    if len(text) > room:
        told.pop("places", None)
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
