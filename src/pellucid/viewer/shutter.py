"""What is seen of a picture: the columns of the canvas between two edges, everything, or nothing.

A picture behind a closed shutter is uploaded and drawn like any other, so its frames come and go as ever, and it is
there at once when the shutter opens.
"""

from __future__ import annotations

from vispy.visuals.filters import Filter

__all__ = ["EVERYWHERE", "NOWHERE", "Shutter"]

EVERYWHERE = (-1.0, 1e9)
NOWHERE = (0.0, 0.0)


class Shutter(Filter):  # type: ignore[misc]
    """A filter of one image of vispy's."""

    _CODE = """
    void shutter() {
        if (gl_FragCoord.x < $left || gl_FragCoord.x >= $right) discard;
    }
    """

    def __init__(self) -> None:
        super().__init__(fcode=self._CODE, fhook="post", fpos=9)
        self._edges = (0.0, 0.0)
        self.edges = EVERYWHERE

    @property
    def edges(self) -> tuple[float, float]:
        """Left and right edge in pixels of the frame buffer, from the left of the canvas."""
        return self._edges

    @edges.setter
    def edges(self, edges: tuple[float, float]) -> None:
        if edges != self._edges:
            self._edges = edges
            self.fshader["left"], self.fshader["right"] = edges
