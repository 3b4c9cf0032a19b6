"""Movies: the last frames are given, and the next one, whose noise is new, is the target.

Causal, so that the network can be used live: it never waits for a frame that is still to come. After Lecoq et al.
2021 (DeepInterpolation, Nature Methods 18, 1401), who look ahead as well, and PSSR-MF (Fang et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.errors import ConfigError
from pellucid.training.noise import level_of_black
from pellucid.training.patches import Batch, cut

__all__ = ["Frames"]


class Frames:
    """Patches of movies: `frames` of them in a row, and the one after them.

    Parameters
    ----------
    movies
        Each ``(t, y, x)``, any real type, with more frames than `frames`.
    frames
        How many the network is given, the newest last.
    zoom
        See `pellucid.training.patches.cut`.

    Raises
    ------
    ConfigError
        For a movie that is too short.
    """

    def __init__(
        self, movies: Sequence[np.ndarray[Any, Any]], *, frames: int, zoom: tuple[float, float] = (0.8, 1.3)
    ) -> None:
        self._movies, self._frames, self._zoom = [], frames, zoom
        for movie in movies:
            if movie.ndim != 3 or len(movie) <= frames:
                raise ConfigError(f"a movie of {'x'.join(map(str, movie.shape))}: more than {frames} frames are needed")
            low, high = np.percentile(movie, (0.1, 99.9))
            ranged = (movie.astype(np.float32) - low) / max(float(high - low), 1e-6)
            self._movies.append(torch.from_numpy(np.ascontiguousarray(ranged, np.float32)))

    def draw(self, count: int, side: int, chance: torch.Generator) -> Batch:
        """Return patches; see `pellucid.training.patches.Patches`."""
        patches = []
        for _ in range(count):
            movie = self._movies[int(torch.randint(len(self._movies), (), generator=chance))]
            first = int(torch.randint(len(movie) - self._frames, (), generator=chance))
            patches.append(cut(movie[first : first + self._frames + 1], side, chance, self._zoom))
        all_frames = torch.stack(patches)
        given, target = all_frames[:, : self._frames], all_frames[:, self._frames :]
        black = level_of_black(given[:, -1:], chance)
        noise = (given[:, -1:] - target).square().mean((1, 2, 3))
        return Batch(given - black, target - black, noise)
