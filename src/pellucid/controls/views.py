"""What a session answers to those who want to look at it while it runs; see `pellucid.viewer.attach`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pellucid.errors import SinkError
from pellucid.runtime.session import Session
from pellucid.sinks._window_chain import chain_in_words
from pellucid.sinks.attached import AttachedWindow
from pellucid.wire.control_message import one_line

__all__ = ["Views", "max_fps_of", "stack_of"]

_HERE = re.compile(r"tcp://127\.0\.0\.1:\d{1,5}")


class Views:
    """Of one session.

    Parameters
    ----------
    session
    config
        Path or name of what it runs, by which a window knows it again after a restart.
    """

    def __init__(self, session: Session, config: str) -> None:
        self._session, self._config = session, config

    def commands(self) -> dict[str, Any]:
        """Return what may be asked."""
        return {"view.about": self.about, "view.attach": self._attach}

    def about(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what there is to see."""
        lanes = self._session.lanes_that_go_on()
        names = dict.fromkeys(name for lane in lanes for name in lane.planes)
        return {
            "planes": list(names),
            "chain": chain_in_words([lane.stages() for lane in lanes]),
            "config": self._config,
        }

    def _attach(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Show frames to a window that listens on this computer."""
        endpoint = given.get("endpoint")
        if not isinstance(endpoint, str) or not _HERE.fullmatch(endpoint):
            raise SinkError(f'view.attach: endpoint "{one_line(endpoint)}": tcp://127.0.0.1:PORT is needed')
        window: Any = AttachedWindow(endpoint, max_fps_of(given), stack_of(given))
        name = self._session.join(window)
        return {"text": f"{name}: the session shows its frames there"}


def max_fps_of(given: Mapping[str, Any]) -> float:
    """Return how many frames a second a window asks for, or say that it asks for nonsense."""
    max_fps = given.get("max_fps", 60.0)
    if not isinstance(max_fps, int | float) or not 0 < max_fps <= 1000:
        raise SinkError(f"view.attach: max_fps {one_line(max_fps)}: above 0, at most 1000")
    return float(max_fps)


def stack_of(given: Mapping[str, Any]) -> str | None:
    """Return how a window asks for stacks, likewise."""
    stack = given.get("stack")
    if stack not in (None, "slice", "volume", "max", "middle"):
        raise SinkError(f'view.attach: stack "{one_line(stack)}": slice, volume, max or middle')
    return stack
