"""Names of files that wait to be put into a bucket: those that were never put, and those that have changed since."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pellucid.recording.upload_state import Sent, is_wanted

__all__ = ["UploadQueue"]

_AGAIN_S = 10.0
"""Between two puts of a file that changes, and ten times as long as a put of it took where that is more."""
_LAG_S = 60.0
"""After which a changed file goes before those that were never put."""
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_TRIES = 3
"""After which a file with which something is wrong is no reason to go on, where nothing else waits."""


class UploadQueue:
    """What waits; but for `offer` and `waiting` from one thread.

    Parameters
    ----------
    folder
        That names are relative to.
    sent
        What is in the bucket; read only.
    clock
        In seconds.

    Attributes
    ----------
    hurry : bool
        Files that change wait no longer.
    faults : dict of str to str
        What is wrong with a file that could not be put.
    """

    def __init__(self, folder: Path, sent: Mapping[str, Sent], clock: Callable[[], float]) -> None:
        self._folder, self._sent, self._clock = folder, sent, clock
        self._offered: deque[str] = deque()
        self._sizes: dict[str, int] = {}
        self._nbytes = 0
        self._fresh: OrderedDict[str, None] = OrderedDict()
        self._again: dict[str, float] = {}
        self._under_way: dict[str, bool] = {}
        self._pauses_s: dict[str, float] = {}
        self.hurry = False
        self.faults: dict[str, str] = {}

    def offer(self, paths: Iterable[Path]) -> None:
        """Take names, from any thread; raises ValueError where a path is not below the folder."""
        names = [path.relative_to(self._folder).as_posix() for path in paths]
        self._offered.extend(name for name in names if is_wanted(name))

    @property
    def waiting(self) -> tuple[int, int]:
        """Files, those under way with them, and their bytes."""
        return len(self._sizes) + len(self._offered), self._nbytes

    @property
    def hopeless(self) -> bool:
        """Nothing waits but files that were tried several times, and with which something is wrong."""
        tried = sum(pause_s >= _PAUSE_S * (1 << _TRIES) for pause_s in list(self._pauses_s.values()))
        return 0 < tried == self.waiting[0]

    def names(self) -> list[str]:
        """Return what waits."""
        return list({**self._sizes, **dict.fromkeys(self._offered)})

    def take_in(self) -> None:
        """Sort what was offered; what is in the bucket as it is here is left out."""
        while self._offered:
            name = self._offered.popleft()
            try:
                about = (self._folder / name).stat()
            except OSError:
                self._forget(name)  # it has got another name meanwhile, and will be offered by that
                continue
            before = self._sent.get(name)
            if before is not None and (before.size, before.mtime_ns) == (about.st_size, about.st_mtime_ns):
                continue
            self._nbytes += about.st_size - self._sizes.get(name, 0)
            self._sizes[name] = about.st_size
            if name in self._under_way:
                self._under_way[name] = True
            elif name not in self._again and name not in self._fresh:
                if before is None:
                    self._fresh[name] = None
                else:
                    self._again[name] = self._clock() + _AGAIN_S

    def next(self) -> tuple[str | None, float | None]:
        """Return the next file to put, which is under way from now on; or in how many seconds to look again."""
        name, wait_s = self._choose(self._clock())
        if name is not None:
            self._under_way[name] = False
        return name, wait_s

    def _choose(self, now: float) -> tuple[str | None, float | None]:
        name = min(self._again, key=self._when, default=None)
        if self._fresh and (name is None or name in self.faults or now < self._again[name] + _LAG_S):
            return self._fresh.popitem(last=False)[0], None
        if name is None:
            return None, None
        if (due := self._when(name)) > now:
            return None, due - now
        del self._again[name]
        return name, None

    def _when(self, name: str) -> float:
        due = self._again[name]
        return due if name in self.faults or not self.hurry else 0.0

    # ---------------------------------------------------------------- of one under way

    def arrived(self, name: str, took_s: float, *, changed: bool) -> bool:
        """Note a file that is there; True where it has changed meanwhile, and will be put again."""
        self.faults.pop(name, None)
        self._pauses_s.pop(name, None)
        changed = self._under_way.pop(name) or changed
        if changed:
            self._again[name] = self._clock() + max(_AGAIN_S, 10 * took_s)
        self._forget(name)
        return changed

    def gone(self, name: str) -> None:
        """Note a file that is not here any more."""
        self._under_way.pop(name, None)
        self.faults.pop(name, None)
        self._pauses_s.pop(name, None)
        self._forget(name)

    def back(self, name: str) -> None:
        """Note a file that could not be put for no fault of its own: it comes last, should it be its fault yet."""
        self._under_way.pop(name, None)
        self._fresh[name] = None

    def faulty(self, name: str, fault: str) -> bool:
        """Note a file with which something is wrong, and try it again later; True at the first time."""
        self._under_way.pop(name, None)
        pause_s = self._pauses_s.get(name, _PAUSE_S)
        self._pauses_s[name] = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._again[name] = self._clock() + pause_s
        first = name not in self.faults
        self.faults[name] = fault
        return first

    def _forget(self, name: str) -> None:
        if name not in self._under_way and name not in self._again and name not in self._fresh:
            self._nbytes -= self._sizes.pop(name, 0)
