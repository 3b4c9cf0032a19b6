"""To a window that somebody has opened from another process or computer while the session runs: ``pellucid view``.

Like the window of a config it gets the newest frame only, and what it cannot take is left out; what it draws is not
counted as the run's. It goes when its process does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pellucid.metrics import now_ns
from pellucid.protocols import Slot, Spec, Stream
from pellucid.sinks._window_link import WindowLink
from pellucid.sinks._window_pictures import Pictures
from pellucid.wire.view_door import CONNECT_S as FAR_CONNECT_S

__all__ = ["AttachedWindow"]

CONNECT_S = 10.0
TEND_S = 0.1
AWAY_NS = 3_000_000_000
"""A window that is away for so long comes no more; one that only stands still stays connected."""


class AttachedWindow:
    """The session's end of such a window.

    Parameters
    ----------
    endpoint
        Where the window listens.
    max_fps
        Frames in between are left out.
    stack
        See `pellucid.sinks._window_pictures.Pictures`.
    far
        Where it is on another computer: options of the wire. Its coming and going is noted for the user then, since
        it was not the user here who opened it.

    Attributes
    ----------
    gone : str
        Why nobody looks any more; empty while somebody does.
    closed : threading.Event
        The connection is given back.
    skipped : int
        Frames that were left out.
    """

    policy: ClassVar[str] = "latest"
    early: ClassVar[bool] = False

    def __init__(
        self, endpoint: str, max_fps: float = 60.0, stack: str | None = None, far: Mapping[str, Any] | None = None
    ) -> None:
        self.gone = ""
        self.closed = threading.Event()
        self.skipped = 0
        self._endpoint, self._stack, self._far = endpoint, stack, far
        self._period_ns = round(1e9 / max_fps)
        self._pictures: dict[int, Pictures] = {}
        self._link: WindowLink | None = None
        self._over = threading.Event()
        self._note: Callable[[str], None] = lambda line: None
        self._tender: threading.Thread | None = None

    @property
    def drawn(self) -> int:
        """Frames that are known to have been drawn."""
        return self._link.drawn if self._link is not None else 0

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Connect to the window; raises `WireError` where it does not answer."""
        self._pictures = {
            # One that took the place of another is the first that this window sees of it.
            stream.index: Pictures(replace(stream, replaces=None), specs, self._period_ns, self._stack)
            for stream, specs in zip(streams, planes, strict=True)
        }
        link = WindowLink(self._endpoint, list(self._pictures.values()), run["ledger"], options=self._far, counts=False)
        try:
            link.open(CONNECT_S if self._far is None else FAR_CONNECT_S)
        except BaseException:
            link.close(0)
            raise
        self._link = link
        if self._far is not None:
            self._note = run["ledger"].note
            self._note(f"a window on another computer ({self._endpoint}) looks on")
        self._tender = threading.Thread(target=self._tend, name="pellucid view", daemon=True)
        self._tender.start()

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot: copy the planes into the window's memory, if it has room; else leave the frame out."""
        now = now_ns()
        pictures = self._pictures.get(slot.stream.index)
        ready = pictures.wanted(slot.info, names, now) if pictures is not None and not self.gone else []
        if not (ready and pictures and self._link is not None and self._link.show(pictures, slot, ready, now)):
            self.skipped += 1

    def _tend(self) -> None:
        """Keep the connection while no frame comes, and notice when the window is gone."""
        assert self._link is not None
        here_ns = now_ns()
        while not self._over.wait(TEND_S) and not self.gone:
            self._link.tend()
            now = now_ns()
            if self._link.connected:
                here_ns = now
            elif now - here_ns > AWAY_NS:
                self.gone = "the window was closed"
                self._note(
                    f"the window on another computer ({self._endpoint}) is closed, or cannot be reached any more"
                )

    def finish(self) -> None:
        """Wait for nothing: nobody counts what is drawn here."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Say good-bye, and give the memory back."""
        self._over.set()
        if self._tender is not None:
            self._tender.join()
            self._tender = None
        if self._link is not None:
            self._link.close(0.5)
        self.closed.set()
