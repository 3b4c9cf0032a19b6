"""Restores microscope frames while they are being acquired.

`pellucid.open` opens a session from a config and gives its frames; the parts that a run is made of are
described in `pellucid.protocols`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid._version import version as __version__
    from pellucid.errors import PellucidError
    from pellucid.live import Frame, LiveSession, open

__all__ = ["Frame", "LiveSession", "PellucidError", "__version__", "open"]


def __getattr__(name: str) -> Any:
    """Import on first use: the camera's side and the window need none of torch."""
    if name in ("Frame", "LiveSession", "open"):
        import pellucid.live

        return getattr(pellucid.live, name)
    if name == "PellucidError":
        from pellucid.errors import PellucidError

        return PellucidError
    if name == "__version__":
        from pellucid._version import version

        return version
    raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
