"""The captions of all panes together: one for each place, where channels lie over each other as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pellucid.viewer.arrangement import Cell
from pellucid.viewer.overlay import Caption
from pellucid.viewer.shown import Shown

__all__ = ["captions_of"]

SMALL = 300
"""Logical pixels across a pane, below which only the first plane of a stream has a scale bar."""
NARROW = 60
"""Logical pixels of what is seen, below which nothing is written over it."""


def captions_of(cells: Sequence[Cell], shown: Sequence[Shown]) -> list[Caption]:
    """Return what is written over the canvas now.

    Parameters
    ----------
    cells
        What is on the canvas.
    shown
        All that is shown, in the order of the panes.
    """
    of = {id(one.pane): one for one in shown}
    texts: list[Caption] = []
    said: dict[int, float | None] = {}
    for cell in cells:
        halves = [[of[id(p)] for p in half if p.seen is not None and id(p) in of] for half in (cell.left, cell.right)]
        made = [_caption(half) for half in halves if half]
        made = [text for text in made if text.place[2] >= NARROW]
        if len(made) == 2 and made[0].um == made[1].um:
            smaller = min(made, key=lambda text: text.place[2])
            smaller.um = None  # the two are one picture
        position = cell.host.position
        for text in made:
            if text.um is not None and text.um == said.get(position) and text.place[2] < SMALL:
                text.um = None  # there is no room to say it twice
        said.setdefault(position, made[0].um if made else None)
        texts += made
    return texts


def _caption(half: Sequence[Shown]) -> Caption:
    """Return the caption of planes that are seen at one place."""
    first = half[0].caption()
    if len(half) == 1:
        return first
    notice = next((one.notice for one in half if one.notice), "")
    parts = tuple((one.pane.stream.channel or one.name, one.pane.colour or "") for one in half)
    newest = max(half, key=lambda one: one.seen_ns).caption()
    return replace(first, name=half[0].pane.plane, detail="", notice=notice, taken=newest.taken, parts=parts)
