"""The positions of an experiment: which of them there are, where they lie, and how many planes each should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["Positions", "numbered"]

MOST = 6000
"""Places times streams: the description of all streams has to fit into a message where it goes to another process."""


def numbered(names: list[str]) -> list[str]:
    """Return the names, all different: a name that comes again is numbered (``DAPI``, ``DAPI 2``)."""
    out: list[str] = []
    for name in names:
        unique, number = name, 1
        # A later name that reads like a number of an earlier one keeps what it is called.
        while unique in out or (number > 1 and unique in names):
            number += 1
            unique = f"{name} {number}"
        out.append(unique)
    return out


class Positions:
    """A row for each position, or field of a grid at a position, that the pictures of an experiment name.

    Attributes
    ----------
    table : dict of str to list
        For `Stream.details`, in columns, since a scan has thousands of rows: ``p`` and ``g`` (0 where there is no
        grid), ``x_um``, ``y_um``, ``z_um`` (of the position), ``z_first_um`` (of the first plane of its stack), None
        where nobody knows, and ``planes``, how many of each channel it should have. The lists are filled in place, so
        that streams which have them already know of it.
    """

    _COORDINATES = ("x_um", "y_um", "z_um", "z_first_um")

    def __init__(self) -> None:
        self.table: dict[str, list[Any]] = {name: [] for name in ("p", "g", *self._COORDINATES, "planes")}
        self._rows: dict[tuple[int, int], dict[str, Any]] = {}

    def note(self, event: Any, channel: int, *, own_z_um: float | None, from_start: str = "", planes: int = 1) -> None:
        """Take in an event of useq-schema.

        Parameters
        ----------
        event
        channel
            Place along ``c``.
        own_z_um
            Of the position, without that of a plane.
        from_start
            Which of ``"x"``, ``"y"``, ``"z"`` are meant from where the stage is at the start.
        planes
            How many pictures it stands for.
        """
        index = event.index
        key = (int(index.get("p", 0)), int(index.get("g", 0)))
        row = self._rows.get(key)
        if row is None:
            row = {"x": event.x_pos, "y": event.y_pos, "own": own_z_um, "from": from_start, "z": {}, "n": Counter()}
            self._rows[key] = row
        row["n"][channel] += planes
        if event.z_pos is not None:
            row["z"].setdefault(int(index.get("z", -1)), float(event.z_pos))

    def resolve(self, start: Mapping[str, float]) -> None:
        """Fill the table in, for a stage that is at `start` (``x``, ``y``, ``z``, as far as they are known)."""
        rows = sorted(self._rows.items())
        channels = sorted({channel for _, row in rows for channel in row["n"]})
        moves = {a for _, row in rows for a in "xyz" if (row["z"] if a == "z" else row[a] is not None)}
        columns: dict[str, list[Any]] = {name: [] for name in self.table}
        for (p, g), row in rows:
            places: dict[str, float | None] = {}
            heights: Mapping[int, float] = row["z"]
            first = heights[min(heights)] if heights else None
            for axis, told in (("x", row["x"]), ("y", row["y"]), ("first", first)):
                name = "z" if axis == "first" else axis
                places[axis] = told
                if told is None:
                    places[axis] = None if name in moves else start.get(name)
                elif name in row["from"]:
                    places[axis] = told + start[name] if name in start else None
            own = start.get("z") if "z" in row["from"] else row["own"]
            stack = bool(heights) and min(heights) >= 0
            values = (places["x"], places["y"], own if stack and own is not None else places["first"])
            for name, value in zip(self._COORDINATES, (*values, places["first"] if stack else None), strict=True):
                columns[name].append(None if value is None else round(float(value), 3))
            columns["p"].append(p)
            columns["g"].append(g)
            columns["planes"].append([row["n"][channel] for channel in channels])
        for name, column in columns.items():
            self.table[name][:] = column

    def details(self, streams: int) -> dict[str, Any]:
        """Return what goes into the details of each of so many streams."""
        return {"positions": self.table} if 0 < len(self._rows) * streams <= MOST else {}
