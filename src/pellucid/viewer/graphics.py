"""What the graphics of this computer can do, asked before anything is drawn."""

from __future__ import annotations

from PySide6.QtGui import QOffscreenSurface, QOpenGLContext
from vispy import app
from vispy.gloo import gl

from pellucid.errors import PellucidError

__all__ = ["texture_limit"]


def texture_limit() -> int:
    """Return how many pixels a texture may have along an axis.

    Raises
    ------
    PellucidError
        Where there is no OpenGL, which everything is drawn with.
    """
    app.use_app("pyside6")
    surface, context = QOffscreenSurface(), QOpenGLContext()
    surface.create()
    if not context.create() or not context.makeCurrent(surface):
        raise PellucidError(
            "there is no OpenGL here, with which the window draws: install the driver of the graphics card, "
            "or Mesa for drawing without one (Debian: apt install libgl1-mesa-dri)"
        )
    try:
        return int(gl.glGetParameter(gl.GL_MAX_TEXTURE_SIZE))
    finally:
        context.doneCurrent()
