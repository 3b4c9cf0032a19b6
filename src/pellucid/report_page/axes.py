"""From values to places in a picture, and where the ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Linear", "Log", "clock", "milliseconds"]

_TIME_STEPS = (
    *(m * 10**e for e in range(-3, 1) for m in (1, 2, 5)),
    *(10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200),
    *(86400 * 2**n for n in range(12)),
)


@dataclass(frozen=True)
class Linear:
    """Equal steps.

    Parameters
    ----------
    low, high
        Values.
    begin, end
        Their places.
    """

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        span = self.high - self.low or 1.0
        return self.begin + (value - self.low) / span * (self.end - self.begin)

    def ticks(self, most: int = 5) -> list[float]:
        """Return at most about so many round values."""
        span = self.high - self.low or 1.0
        power = 10.0 ** math.floor(math.log10(span / max(most, 1)))
        step = next(m * power for m in (1, 2, 5, 10, 20) if m * power * most >= span)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def times(self, most: int = 9) -> list[float]:
        """Return times, in seconds, that a clock has."""
        span = self.high - self.low or 1.0
        step = next((s for s in _TIME_STEPS if s * most >= span), _TIME_STEPS[-1])
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Log:
    """Equal ratios; values that are not above `low` lie at `begin`.

    Parameters
    ----------
    low, high
        Values above 0.
    begin, end
        Their places.
    """

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        if not value > self.low:
            return self.begin
        ratio = math.log(self.high / self.low) or 1.0
        return self.begin + math.log(value / self.low) / ratio * (self.end - self.begin)

    def ticks(self, most: int = 6) -> list[float]:
        """Return 1, 2, 5 of each power of ten, or powers of ten alone where those would be too many."""
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1, 2, 5), (1, 3), (1,)):
            some = [m * 10.0**e for e in range(low, high + 1) for m in steps]
            there = [v for v in some if self.low * 0.999 <= v <= self.high * 1.001]
            if len(there) <= most:
                return there
        return there[:: math.ceil(len(there) / most)]


def milliseconds(ms: float, *, tick: bool = False) -> str:
    """Return a duration with three digits, in a unit that suits it; a tick without zeros at its end.

    Examples
    --------
    >>> milliseconds(0.1229), milliseconds(75.2784), milliseconds(1100.2), milliseconds(500.0)
    ('123 µs', '75.3 ms', '1.10 s', '500 ms')
    >>> milliseconds(20.0, tick=True)
    '20 ms'
    """
    if math.isnan(ms):
        return "–"
    size = abs(ms)
    value, unit = (ms * 1e3, "µs") if size < 0.9995 else (ms, "ms") if size < 999.5 else (ms / 1e3, "s")
    if abs(value) >= 999.5:
        return f"{value:.0f} {unit}"
    if tick or abs(value) < 0.995:
        return f"{value:.3g} {unit}"
    return f"{value:#.3g}".rstrip(".") + f" {unit}"


def clock(seconds: float, step: float) -> str:
    """Return a time of the axis whose ticks are `step` apart: ``"0.5 s"``, ``"1:30"``, ``"2:00:00"``, ``"3 d"``."""
    if step < 1 or (step < 60 and seconds < 60):
        return f"{seconds:.{max(0, -math.floor(math.log10(step) + 1e-9))}f} s"
    if step >= 86400:
        return f"{seconds / 86400:g} d"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60 and step < 3600:
        return f"{minutes}:{rest:02d}"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
