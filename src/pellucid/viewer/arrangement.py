"""Which planes share a place on the canvas, and what is seen of each there.

Side by side each plane has a place of its own. Split, blinking, or one of them alone, raw and restored share one: then
the pictures are drawn in the same view, and shutters decide which is seen where. With channels laid over each other
the planes of one name of all streams share a place and add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.protocols import RAW, RESTORED
from pellucid.viewer.layout import Place
from pellucid.viewer.pane import Pane

__all__ = ["ARRANGEMENTS", "Cell", "arrange", "matches"]

ARRANGEMENTS = {
    "side": "side by side",
    "split": "split",
    "blink": "blinking",
    "raw": "raw alone",
    "restored": "restored alone",
}
"""Name in the config, and in words."""


@dataclass(slots=True, eq=False)
class Cell:
    """A place on the canvas.

    Attributes
    ----------
    left
        Panes whose pictures are seen there; left of the line where it is split, at one time where it blinks. The first
        of all is the one that is zoomed and moved.
    right
        Those right of the line, or at the other time.
    place
    """

    left: list[Pane]
    right: list[Pane]
    place: Place = (0.0, 0.0, 0.0, 0.0)

    @property
    def panes(self) -> list[Pane]:
        """All."""
        return self.left + self.right

    @property
    def host(self) -> Pane:
        """The pane in whose view all are drawn."""
        return self.panes[0]


def matches(rows: Sequence[Sequence[Pane]]) -> str:
    """Return why the streams cannot lie over each other; empty where they can."""
    if len(rows) < 2:
        return "there is one channel here: nothing to lay over it"
    if any(pane.spec.is_colour for row in rows for pane in row):
        return "colour pictures cannot be laid over each other"
    if len({pane.is_volume for row in rows for pane in row}) > 1:
        return "a volume and a plane cannot lie over each other; press Z for stacks as pictures"
    if len({row[0].across for row in rows if row}) > 1:
        sizes = ", ".join(f"{w}x{h}" for w, h in dict.fromkeys(row[0].across for row in rows if row))
        return f"the channels have different sizes ({sizes}), and cannot lie over each other"
    return ""


def arrange(rows: Sequence[Sequence[Pane]], arrangement: str, *, overlay: bool) -> list[list[Cell]]:
    """Return the cells of each row of the canvas.

    Parameters
    ----------
    rows
        The panes of each stream that is shown, raw first; none is empty.
    arrangement
        One of `ARRANGEMENTS`.
    overlay
        Lay the streams over each other, where `matches` has nothing against it.
    """
    if not (overlay and not matches(rows)):
        return [_cells([[pane] for pane in row], arrangement) for row in rows]
    names = list(dict.fromkeys(pane.plane for row in rows for pane in row))
    return [_cells([[pane for row in rows for pane in row if pane.plane == name] for name in names], arrangement)]


def _cells(planes: Sequence[list[Pane]], arrangement: str) -> list[Cell]:
    """Put planes into cells; each plane is a list of panes, one of each stream."""
    raw = next((panes for panes in planes if panes[0].plane == RAW), None)
    computed = [panes for panes in planes if panes is not raw]
    if arrangement == "side" or raw is None or not computed:
        return [Cell(panes, []) for panes in planes]
    if arrangement == "raw":
        return [Cell(raw, [])]
    if arrangement == "restored":
        return [Cell(panes, []) for panes in computed]
    restored = next((panes for panes in computed if panes[0].plane == RESTORED), computed[-1])
    if raw[0].is_volume != restored[0].is_volume:
        return [Cell(panes, []) for panes in planes]  # the one is turned, the other moved
    return [Cell(raw, restored), *(Cell(panes, []) for panes in computed if panes is not restored)]
