"""Display limits of one plane: fixed, or following the picture slowly.

Stretching every frame on its own makes a still specimen flicker, since the extremes of a noisy frame jump.
Here the limits are percentiles of a subsample and approach their target with a time constant, so that the
eye sees the specimen change and not the display. A few times a second a subsample is copied; its percentiles are found
in another thread (`pellucid.viewer.aim`), and the limits follow them when the next frame comes. Only the first picture
is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Contrast", "Given", "contrast_for", "subsample"]

Given = str | Sequence[float]
"""``"auto"`` or ``[low, high]`` in the units of the plane."""


def subsample(plane: np.ndarray[Any, Any], at_most: int = 32_768) -> np.ndarray[Any, Any]:
    """Copy about `at_most` finite values of a plane, on a regular grid.

    Parameters
    ----------
    plane
        ``(y, x)``, or ``(3, y, x)`` of a colour picture; left as it is, and not referred to by the result.
    at_most
        How many values are enough: the 99.9th percentile of 32,768 rests on 33 of them.
    """
    step = max(1, math.ceil(math.sqrt(plane.size / at_most)))
    values: np.ndarray[Any, Any] = plane[..., ::step, ::step].flatten()
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


class Contrast:
    """Limits of one plane.

    Parameters
    ----------
    given
        ``"auto"`` or ``[low, high]``.
    low, high
        Percentiles that automatic limits aim at; `low` None for black at zero.
    tau_s
        Time constant of the approach, in seconds; the first picture is taken over at once.

    Attributes
    ----------
    auto : bool
    limits : tuple of float, or None
        ``(low, high)`` with ``low < high``; None until the first picture, where they are automatic.
    """

    def __init__(self, given: Given, low: float | None = 0.1, high: float = 99.9, tau_s: float = 1.5) -> None:
        self.auto = isinstance(given, str)
        self._given: tuple[float, float] | None = None
        if not isinstance(given, str):
            self._given = _apart(float(given[0]), float(given[1]))
        self.limits = self._given
        self._percentiles = (low, high)
        self._tau_s = tau_s
        self._learnt_ns = 0
        self._sample: np.ndarray[Any, Any] | None = None

    def learn(self, sample: np.ndarray[Any, Any], now_ns: int) -> bool:
        """Move automatic limits towards those of `sample`; return whether they changed.

        Parameters
        ----------
        sample
            From `subsample`; kept, so that switching to automatic works while no frame comes.
        now_ns
            On the clock of `pellucid.metrics`.
        """
        self.see(sample)
        return self.follow(self.aim(sample), now_ns)

    def see(self, sample: np.ndarray[Any, Any]) -> None:
        """Keep a sample as the newest; limits stay."""
        self._sample = sample

    @property
    def settled(self) -> bool:
        """There are limits, which follow slowly or not at all; False: the next picture is taken over at once."""
        return self.limits is not None and (not self.auto or self._learnt_ns != 0)

    def aim(self, sample: np.ndarray[Any, Any]) -> tuple[float, float] | None:
        """Return the limits of a sample alone; None where nobody wants any. May run in another thread."""
        if (not self.auto and self.limits is not None) or sample.size == 0:
            return None
        percentile, highest = self._percentiles
        low, high = (float(v) for v in np.percentile(sample, (percentile or 0.0, highest)))
        return (0.0 if percentile is None else low), high

    def follow(self, aim: tuple[float, float] | None, now_ns: int) -> bool:
        """Move automatic limits towards what `aim` said of a sample; return whether they changed."""
        if aim is None or (not self.auto and self.limits is not None):
            return False
        before = self.limits
        if before is None or not self._learnt_ns:
            self.limits = _apart(*aim)
        else:
            part = -math.expm1(-max(0, now_ns - self._learnt_ns) * 1e-9 / self._tau_s)
            self.limits = _apart(*(old + (new - old) * part for old, new in zip(before, aim, strict=True)))
        self._learnt_ns = max(now_ns, 1)
        return self.limits != before

    def restart(self) -> None:
        """Take the next picture over at once: it is of something else."""
        self._learnt_ns = 0
        self._sample = None

    @property
    def sample(self) -> np.ndarray[Any, Any]:
        """What was learnt from last; empty before the first picture."""
        return np.zeros(0) if self._sample is None else self._sample

    def hold(self, low: float, high: float) -> None:
        """Keep limits that somebody has chosen, until they are switched to automatic."""
        self.auto = False
        self.limits = _apart(low, high)

    def switch(self) -> None:
        """Automatic on or off; off returns to the given limits, or holds the present ones where none were given."""
        self.auto = not self.auto
        if self.auto:
            self._learnt_ns = 0  # asked for by hand: go there at once
            if self._sample is not None:
                self.learn(self._sample, 1)
        elif self._given is not None:
            self.limits = self._given


def contrast_for(given: Given | Mapping[str, Given], plane: str, *, is_colour: bool = False) -> Contrast:
    """Return the contrast of a plane from one value for all planes or a table; a plane left out is automatic.

    Of a colour picture only the upper limit follows, for all colours alike, and black is zero: another black would
    give other hues.
    """
    wanted = given.get(plane, "auto") if isinstance(given, Mapping) else given
    return Contrast(wanted, low=None) if is_colour else Contrast(wanted)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Keep a flat picture from dividing by zero: the limits are at least a millionth of their size apart."""
    return low, max(high, low + max(abs(low), abs(high), 1e-6) * 1e-6)
