"""What was written is on the disk within the time that the user set: a thread that commits.

A commit lets readers see the length of the images, syncs all that was written, and notes in the journal up to where.
What it costs is known afterwards: the longest time between a frame being written and being committed is measured and
reported, since the disk, not the config, has the last word.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pellucid.metrics import Histogram, now_ns
from pellucid.recording.disk import Disk
from pellucid.recording.journal import Journal

__all__ = ["Bound", "Committer"]


@dataclass(frozen=True)
class Bound:
    """How much a power cut may cost: what was written in so many seconds, or so many frames, whichever is less."""

    seconds: float = 1.0
    frames: int | None = None


class Committer:
    """Commits in a thread of its own.

    Parameters
    ----------
    disk, journal
    bound
    grow, after
        Called before each commit, and after it with the files that are on the disk now.
    on_error
        Called once, in that thread, with the fault after which nothing is committed any more.

    Attributes
    ----------
    commits : int
        That succeeded.
    took : Histogram
        Each.
    longest_ns : int
        Between a plane having been written and its commit having ended, the worst so far.
    """

    def __init__(
        self,
        disk: Disk,
        journal: Journal,
        bound: Bound,
        grow: Callable[[], None],
        after: Callable[[set[Path]], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._disk, self._journal, self._bound = disk, journal, bound
        self._grow, self._after, self._on_error = grow, after, on_error
        self._wake = threading.Condition()
        self._frames = 0
        self._oldest_ns = 0
        self._ending = False
        self.commits = 0
        self.took = Histogram()
        self.longest_ns = 0
        self._thread = threading.Thread(target=self._run, name="pellucid commit", daemon=True)
        self._thread.start()

    def wrote(self, frames: int = 0) -> None:
        """Hot: something was written, and with it the last plane of so many frames."""
        with self._wake:
            if not self._oldest_ns:
                self._oldest_ns = now_ns()
                self._wake.notify()
            self._frames += frames
            if self._bound.frames is not None and self._frames >= self._bound.frames:
                self._wake.notify()

    def close(self, patience_s: float = 60.0) -> bool:
        """Commit what is left and end the thread; False where the disk holds it up for so long."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _due_s(self) -> float | None:
        """Return in how many seconds the next commit has to begin; None while nothing is owed."""
        if not self._oldest_ns:
            return 0.0 if self._ending else None
        if self._ending or (self._bound.frames is not None and self._frames >= self._bound.frames):
            return 0.0
        # The commit itself takes time, and what it costs counts.
        usual_s = min(self.took.quantile_ms(0.5) * 1e-3 if self.commits else 0.0, self._bound.seconds / 2)
        return max(self._bound.seconds - usual_s - (now_ns() - self._oldest_ns) * 1e-9, 0.0)

    def _run(self) -> None:
        while True:
            with self._wake:
                while (due_s := self._due_s()) is None or due_s > 0:
                    self._wake.wait(due_s)
                oldest_ns, self._oldest_ns, self._frames = self._oldest_ns, 0, 0
                last = self._ending
            before = now_ns()
            try:
                self._grow()
                lines = self._journal.lines
                self._after(self._disk.commit())
                if oldest_ns:
                    self._journal.add({"commit": self._journal.lines - lines})
            except Exception as error:
                self._on_error(error)
                return
            now = now_ns()
            if oldest_ns:
                self.commits += 1
                self.took.add(now - before)
                self.longest_ns = max(self.longest_ns, now - oldest_ns)
            if last:
                return
