"""Amounts of bytes and of time, as a user reads them."""

from __future__ import annotations

__all__ = ["amount", "span"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def amount(nbytes: float) -> str:
    """Return ``"1.3 TB"``, ``"520 MB"``: two or three digits, of powers of 1000 as drives are sold."""
    value, at = max(float(nbytes), 0.0), 0
    while value >= 999.5 and at < len(_UNITS) - 1:
        value, at = value / 1000, at + 1
    return f"{value:.1f} {_UNITS[at]}" if value < 9.95 and at else f"{value:.0f} {_UNITS[at]}"


def span(seconds: float) -> str:
    """Return ``"17 s"``, ``"41 min"``, ``"5.2 h"``, ``"3.4 days"``: rounded down, since it is a promise."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{int(seconds * 10) / 10:g} s"
    if seconds < 120:
        return f"{int(seconds)} s"
    if seconds < 7200:
        return f"{int(seconds / 60)} min"
    if seconds < 2 * 86400:
        return f"{int(seconds / 360) / 10:g} h"
    if seconds < 1000 * 86400:
        return f"{int(seconds / 8640) / 10:g} days"
    return "years"
