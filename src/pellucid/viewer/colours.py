"""Colour maps and gamma of planes; the maps are those of cmap."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cmap
import numpy as np
from vispy.color import Colormap

__all__ = ["MAPS", "Tone", "colour_map", "tone_for"]

MAPS = ("gray", "viridis", "magma", "inferno", "cividis", "green", "magenta", "cyan")
"""Those that a key goes through: perceptually even ones, and colours of one hue. The config takes any of cmap's."""
_HUES = {"green": "#00ff00", "magenta": "#ff00ff", "cyan": "#00ffff"}
"""From black; what the web calls green is half as bright."""
GAMMA = (0.1, 10.0)


@lru_cache(maxsize=64)
def colour_map(name: str) -> Any:
    """Return vispy's colour map of a name that cmap knows.

    Raises
    ------
    ValueError
        Where cmap does not know it.
    """
    colours = cmap.Colormap(["black", _HUES[name]] if name in _HUES else name)
    return Colormap(np.asarray(colours(np.linspace(0, 1, 256)), np.float32))


class Tone:
    """How the values of a plane become colours, beyond its limits.

    Parameters
    ----------
    name
        Of a colour map.
    gamma
        Exponent of the share of the way from the lower to the upper limit; below 1 dark parts are lighter.
    """

    def __init__(self, name: str = "gray", gamma: float = 1.0) -> None:
        self.name, self.gamma = name, gamma

    def next(self) -> None:
        """Take the next of `MAPS`."""
        at = MAPS.index(self.name) if self.name in MAPS else -1
        self.name = MAPS[(at + 1) % len(MAPS)]

    def change_gamma(self, factor: float) -> None:
        """Change gamma by a factor, and stay at 1 where it passes."""
        wanted = self.gamma * factor
        self.gamma = 1.0 if abs(wanted - 1) < 0.02 else min(max(wanted, GAMMA[0]), GAMMA[1])

    @property
    def told(self) -> str:
        """What is not as usual, for the caption."""
        texts = [] if self.name == "gray" else [self.name]
        return "  ".join(texts + ([] if self.gamma == 1 else [f"gamma {self.gamma:.2g}"]))


def tone_for(names: str | Mapping[str, str] | None, gammas: float | Mapping[str, float] | None, plane: str) -> Tone:
    """Return the tone of a plane from one value for all planes or a table; a plane left out is gray, gamma 1."""
    name = names.get(plane) if isinstance(names, Mapping) else names
    gamma = gammas.get(plane) if isinstance(gammas, Mapping) else gammas
    return Tone(name or "gray", gamma or 1.0)
