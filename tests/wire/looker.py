"""Looks at a session on another computer, without a window: ``python looker.py ADDRESS KEYS STATUS [COMPRESS]``.

Writes what it sees to STATUS, as JSON: how many frames of how many sessions, how old the newest was when it came, and
why there is none now. Until it is killed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
from pellucid.metrics import now_ns
from pellucid.viewer.newest import Newest
from pellucid.viewer.ways import Far


class Looker:
    """What it sees."""

    def __init__(self, way: Far, status: Path) -> None:
        self._way, self._status = way, status
        self._seen: dict[str, Any] = {"frames": 0, "sessions": 0, "why": "", "age_ms": [], "unsure_ms": -1.0}

    def tell(self, **news: Any) -> None:
        self._seen.update(news)
        beside = self._status.with_suffix(".new")
        beside.write_text(json.dumps(self._seen))
        beside.replace(self._status)

    def look(self) -> None:
        """Look at one session to its end."""
        try:
            found = self._way.first(None, 60.0)
        except PellucidError as error:
            self.tell(why=str(error))
            time.sleep(0.2)
            return
        newest = Newest(found.receiver, found.hello, slots=found.slots)
        self.tell(sessions=self._seen["sessions"] + 1, why="", in_band=not found.receiver.attached)
        while not newest.over:
            newest.look(self._show)
            newest.drawn(now_ns())
            time.sleep(0.005)
        self.tell(why=newest.over)
        newest.close()

    def _show(self, position: int, planes: Any, info: Any) -> None:
        if "restored" in planes:
            age = (now_ns() - info.camera_ns) * 1e-6
            sums = float(planes["restored"].sum())
            self.tell(
                frames=self._seen["frames"] + 1,
                age_ms=[*self._seen["age_ms"], age][-20:],
                unsure_ms=info.unsure_ns * 1e-6,
                sums=sums,
            )


if __name__ == "__main__":
    looker = Looker(Far(sys.argv[1], Path(sys.argv[2]), compress="".join(sys.argv[4:])), Path(sys.argv[3]))
    while True:
        looker.look()
