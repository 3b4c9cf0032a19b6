"""How long a run can last on a disk: until it is full, or until memory has run over because the disk is too slow."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from pellucid.recording.amounts import amount, span
from pellucid.recording.rate import RESERVE_BYTES, Rate

__all__ = ["Prediction", "predict"]

NARROW = 1.15
"""A disk that takes less than this many times what is needed keeps up, but other programs may not touch it."""


@dataclass(frozen=True)
class Prediction:
    """What becomes of a run.

    Parameters
    ----------
    text
        One line for the user.
    end
        ``"fits"``; ``"full"``: the disk is full before; ``"behind"``: frames are lost before, since the disk is too
        slow; ``"unknown"``: it depends on a rate that nobody knows.
    lasts_s
        Until then, or until the run's own end; None where unknown.
    """

    text: str
    end: Literal["fits", "full", "behind", "unknown"]
    lasts_s: float | None

    @property
    def fits(self) -> bool:
        """Nothing ends the run before its time, as far as it is known."""
        return self.end == "fits"


def predict(
    rate_needed_bytes_s: float | None,
    measured: Rate,
    free_bytes: int,
    buffer_bytes: int = 0,
    reserve_bytes: int = RESERVE_BYTES,
    *,
    run_bytes: float | None = None,
    run_s: float | None = None,
    frame_bytes: int | None = None,
    waits: bool = False,
    then: str = "frames are lost",
) -> Prediction:
    """Tell whether a run fits on a disk.

    Parameters
    ----------
    rate_needed_bytes_s
        That the run records; None where the frame rate is not known.
    measured
        What the disk takes.
    free_bytes
    buffer_bytes
        Of memory, for frames that wait for the disk.
    reserve_bytes
        That stay free.
    run_bytes, run_s
        Of a run with an end: one of them, or both.
    frame_bytes
        All planes of one frame, to tell frames a second.
    waits
        The source gives frames when there is room, and loses none: it is as slow as the disk.
    then
        What happens when the memory is full.
    """
    takes = measured.bytes_s
    usable = max(free_bytes - reserve_bytes, 0)
    if not usable:
        held = f"{amount(free_bytes)} free, {amount(reserve_bytes)} are kept as a reserve"
        return Prediction(f"the disk is full: {held}", "full", 0.0)
    if rate_needed_bytes_s is None or rate_needed_bytes_s <= 0:
        return _at_any_rate(takes, usable, free_bytes, run_bytes, run_s, frame_bytes, waits)
    needed = rate_needed_bytes_s
    note = ""
    if takes is None:
        note = "; the disk has no room to be measured"
    elif needed > takes and waits:
        note, needed = f"; the source could give {amount(needed)}/s and waits for the disk", takes
    elif needed <= takes < NARROW * needed and not waits:
        note = f"; the disk takes {amount(takes)}/s, hardly more"
    behind = takes is not None and needed > takes
    if run_bytes is None:
        run_bytes = inf if run_s is None else run_s * rate_needed_bytes_s
    ends_s = run_bytes / needed
    full_s = usable / (takes if behind and takes is not None else needed)
    over_s = buffer_bytes / (needed - takes) if behind and takes is not None else inf
    at = f"{amount(free_bytes)} free at {amount(needed)}/s{note}"
    if ends_s <= over_s and run_bytes <= usable:
        if behind:
            memory = f"the disk takes {amount(takes or 0)}/s, the {amount(buffer_bytes)} that may wait the rest"
            return Prediction(f"fits {span(ends_s)}, to its end ({at}; {memory})", "fits", ends_s)
        return Prediction(f"fits {span(ends_s)}, to its end ({amount(run_bytes)}, {at})", "fits", ends_s)
    if behind and over_s < full_s:
        speeds = f"{amount(needed)}/s needed, {amount(takes or 0)}/s measured"
        memory = f"the {amount(buffer_bytes)} that may wait last {span(over_s)}, then {then}"
        if not buffer_bytes:
            memory = f"{then} at once"
        return Prediction(f"the disk falls behind: {speeds}; {memory}", "behind", over_s)
    if ends_s == inf:
        end: Literal["fits", "full"] = "full" if behind else "fits"
        return Prediction(f"fits {span(full_s)} ({at})", end, full_s)
    lacks = f"of {span(ends_s)}: {amount(run_bytes)} are needed, {at}"
    return Prediction(f"does not fit: the disk is full after {span(full_s)} {lacks}", "full", full_s)


def _at_any_rate(
    takes: float | None,
    usable: int,
    free_bytes: int,
    run_bytes: float | None,
    run_s: float | None,
    frame_bytes: int | None,
    waits: bool,
) -> Prediction:
    """Tell what is true whatever the frame rate is."""
    frames = f" ({takes / frame_bytes:.3g} frames/s)" if takes and frame_bytes else ""
    speed = f"the disk takes {amount(takes)}/s{frames}" if takes else "the disk has no room to be measured"
    ask = "the frame rate is not known: tell it with --fps"
    if run_bytes is not None and run_bytes > usable:
        text = f"does not fit: {amount(run_bytes)} are needed, {amount(free_bytes)} free"
        return Prediction(text, "full", None)
    if run_bytes is not None:
        fits = f"fits: {amount(run_bytes)} are needed, {amount(free_bytes)} free"
        if waits:
            return Prediction(f"{fits}; {speed}, and the source waits for it", "fits", None)
        return Prediction(f"{fits}; whether it is fast enough depends on the rate: {speed}; {ask}", "unknown", None)
    if not takes:
        return Prediction(f"{ask}; {amount(free_bytes)} free; {speed}", "unknown", None)
    if run_s is not None and run_s * takes <= usable:
        fits = f"fits {span(run_s)}, to its end, at any rate that the disk keeps up with: {speed}"
        return Prediction(fits if waits else f"{fits}; {ask}", "fits" if waits else "unknown", run_s if waits else None)
    full = f"fits {span(usable / takes)} where frames come as fast as they can be written: {speed}"
    told = f"{full}, {amount(free_bytes)} free"
    return Prediction(told if waits else f"{told}; {ask}", "unknown", None)
