"""Where the panes lie: the planes of a stream side by side, the streams so that the pictures are largest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

__all__ = ["BETWEEN", "GAP", "Place", "lay_out"]

Place = tuple[float, float, float, float]
"""Left, top, width, height in logical pixels."""
GAP = 4
"""Between two planes of a stream, and between two rows."""
BETWEEN = 12
"""Between two streams that lie side by side, so that one sees which planes belong together."""


def lay_out(size: tuple[float, float], streams: Sequence[Sequence[tuple[int, int]]]) -> list[list[Place]]:
    """Return the places of all panes.

    Streams below each other have the same columns, so that raw lies under raw. Of all numbers of streams in a row
    that one is taken with which the pictures cover most of the canvas; with few streams this is one below the other,
    with many it is a grid.

    Parameters
    ----------
    size
        Width and height of the canvas.
    streams
        For each stream the widths and heights of its planes.

    Returns
    -------
    list of list of Place
        In the order of `streams`.
    """
    if not streams:
        return []
    best = max(range(1, len(streams) + 1), key=lambda across: (_covered(size, streams, across), -across))
    return _grid(size, streams, best)


def _grid(size: tuple[float, float], streams: Sequence[Sequence[tuple[int, int]]], across: int) -> list[list[Place]]:
    rows = -(-len(streams) // across)
    columns = [max(len(planes) for planes in streams[column::across]) for column in range(across)]
    firsts = list(accumulate(columns, initial=0))
    spaces = [space for count in columns for space in [GAP] * (count - 1) + [BETWEEN]][:-1]
    width = max(1.0, (size[0] - sum(spaces)) / firsts[-1])
    height = max(1.0, (size[1] - GAP * (rows - 1)) / rows)
    lefts = list(accumulate((width + space for space in spaces), initial=0.0))
    return [
        [
            (lefts[firsts[number % across] + i], number // across * (height + GAP), width, height)
            for i in range(len(planes))
        ]
        for number, planes in enumerate(streams)
    ]


def _covered(size: tuple[float, float], streams: Sequence[Sequence[tuple[int, int]]], across: int) -> int:
    """Return how much of the canvas shows pictures, in whole pixels so that equal arrangements count as equal."""
    area = 0.0
    for planes, places in zip(streams, _grid(size, streams, across), strict=True):
        for (wide, high), (_, _, width, height) in zip(planes, places, strict=True):
            zoom = min(width / wide, height / high)
            area += zoom * zoom * wide * high
    return round(area)
