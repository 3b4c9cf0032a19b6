"""The colours in which channels lie over each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["colours_of"]

BLUE, CYAN, GREEN, YELLOW, RED, MAGENTA, GRAY = (
    "#4d7dff", "#35d0e6", "#3fdc5a", "#f2d338", "#ff4d3d", "#f04dd8", "#c8c8c8",
)  # fmt: skip
"""Lighter than the primaries: pure blue on black is hardly seen."""

_DYES = {
    BLUE: ("dapi", "hoechst", "bfp", "ebfp", "af405", "cf405", "pacific blue", "blue"),
    CYAN: ("cfp", "cerulean", "turquoise", "mtfp", "cyan"),
    GREEN: ("fitc", "gfp", "egfp", "mneongreen", "neongreen", "gcamp", "calcein", "green"),
    YELLOW: ("yfp", "eyfp", "venus", "citrine", "yellow"),
    RED: (
        "tritc", "cy3", "txred", "tx red", "texas red", "texasred", "rhodamine", "rfp", "mcherry", "mscarlet",
        "tdtomato", "dsred", "mito", "red",
    ),
    MAGENTA: ("cy5", "irfp", "far red", "farred", "draq5", "sir", "magenta"),
    GRAY: ("brightfield", "bright field", "bf", "dic", "phase", "trans", "transmitted"),
}  # fmt: skip
_BANDS = ((435, BLUE), (500, CYAN), (545, GREEN), (575, YELLOW), (650, RED), (2000, MAGENTA))
"""Upper ends, in nm of the emission."""
_LASERS = {405: BLUE, 440: CYAN, 445: CYAN, 458: CYAN, 488: GREEN, 491: GREEN, 514: YELLOW, 532: YELLOW, 546: RED,
           552: RED, 555: RED, 560: RED, 561: RED, 568: RED, 594: RED, 633: MAGENTA, 638: MAGENTA, 640: MAGENTA,
           642: MAGENTA, 647: MAGENTA, 680: MAGENTA, 750: MAGENTA}  # fmt: skip
"""Lasers, and the dyes that are named after one (Alexa 488): not what they emit."""
_ORDER = (MAGENTA, GREEN, CYAN, YELLOW, BLUE, RED, GRAY)
"""For names that say nothing; the first two are told apart by nearly everybody."""


def colours_of(names: Sequence[str]) -> list[str]:
    """Return a colour for each channel, as ``#rrggbb``: what its dye looks like, as far as its name tells.

    No two have the same as long as there are enough colours; the first one keeps what its name says.
    """
    wanted = [_of_name(name) for name in names]
    given: list[str] = []
    for colour in wanted:
        taken = set(given) | {other for other in wanted[len(given) + 1 :] if other}
        free = (
            [one for one in _ORDER if one not in taken] or [one for one in _ORDER if one not in given] or list(_ORDER)
        )
        given.append(colour if colour is not None and colour not in given else free[0])
    return given


def _of_name(name: str) -> str | None:
    text = name.lower()
    words = {dye: colour for colour, dyes in _DYES.items() for dye in dyes}
    for dye in sorted(words, key=len, reverse=True):
        if re.search(rf"(?<![a-z]){re.escape(dye)}(?![a-z])", text):
            return words[dye]
    for number in map(int, re.findall(r"(?<!\d)\d{3}(?!\d)", text)):
        if number in _LASERS:
            return _LASERS[number]
        if 380 <= number < 900:
            return next(colour for end, colour in _BANDS if number < end)
    return None
