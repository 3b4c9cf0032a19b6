"""How far it is: a bar in a terminal, a plain line every two seconds elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from pellucid.metrics import now_ns
from pellucid.terminal import console, say

__all__ = ["FrameBar"]

_LINE_NS = 2_000_000_000


class FrameBar:
    """Counts frames and says how many there are each second, and how long the rest will take.

    Parameters
    ----------
    total, done
        Frames in all, and those that an earlier call has done.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._before = total, done, done
        self._began_ns = self._told_ns = now_ns()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if sys.stdout.isatty():
            self._bar = Progress(
                BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), console=console, transient=True
            )
            self._task = self._bar.add_task("frames", total=total, completed=done, rate="")

    def __enter__(self) -> FrameBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, frames: int = 1) -> None:
        """Count frames that are done."""
        self._done += frames
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=self._rate())
        elif now_ns() - self._told_ns > _LINE_NS:
            self._told_ns = now_ns()
            say(f"{self._done} of {self._total} frames  {self._rate()}")

    def _rate(self) -> str:
        seconds = (now_ns() - self._began_ns) * 1e-9
        per_s = (self._done - self._before) / max(seconds, 1e-9)
        left = round((self._total - self._done) / per_s) if per_s else 0
        hours, rest = divmod(left, 3600)
        return f"{per_s:.1f} frames/s  {hours}:{rest // 60:02d}:{rest % 60:02d} left"
