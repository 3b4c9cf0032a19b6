"""Recording on demand: takes that are started and stopped, and the seconds before a start.

Between takes frames wait in memory for a while: the event that made somebody press the button is in them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import SinkError
from pellucid.metrics import now_ns
from pellucid.protocols import RAW, FrameInfo, Slot
from pellucid.recording.backlog import Backlog, Piece
from pellucid.recording.intake import cut
from pellucid.recording.part import Part
from pellucid.recording.parts import Parts

__all__ = ["Takes"]

Take = Callable[[Part, Slot, FrameInfo, tuple[str, ...], Piece], None]
_LONGEST_NAME = 80


class Takes:
    """The takes of an armed recorder.

    Parameters
    ----------
    folder
        The recording's, for what is said.
    parts
    backlog
        Gives the memory in which frames are held.
    before_s
        How long.
    take
        Takes planes that were held into a part; called with `lock`.
    lock
        With which frames are taken.
    tell
        Takes a line for the user.

    Attributes
    ----------
    over : bool
        The run is: nothing can be started any more.
    """

    def __init__(
        self,
        folder: Path,
        parts: Parts,
        backlog: Backlog,
        before_s: float,
        take: Take,
        lock: threading.RLock,
        tell: Callable[[str], None],
    ) -> None:
        self.over = False
        self._folder, self._parts, self._backlog, self._before_s = folder, parts, backlog, before_s
        self._take, self._lock, self._tell = take, lock, tell
        self._held: deque[tuple[int, Slot, FrameInfo, tuple[str, ...], Piece]] = deque()
        self._starting = threading.Lock()
        self._said_small = self._said_short = False

    # ---------------------------------------------------------------- start, stop

    def start(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a take; ``name`` is for its folder.

        Raises
        ------
        SinkError, OSError
        """
        name = given.get("name", "")
        if not isinstance(name, str) or len(name) > _LONGEST_NAME:
            raise SinkError(f"the name of a take is a text of at most {_LONGEST_NAME} letters")
        with self._starting:
            self._check()
            if self._parts.now is not None:
                raise SinkError(f"already recording {self._parts.now.prefix}: type pellucid record stop first")
            made = self._parts.make_take(name)  # before the lock: frames go on coming, and being held, meanwhile
            with self._lock:
                self._check()
                part = self._parts.go_on_in(made)
                self._forget_older(now_ns())
                raw = {info.seq: at for at, _slot, info, names, _piece in self._held if RAW in names}
                while self._held:
                    _, slot, info, names, piece = self._held.popleft()
                    if RAW in names:
                        self._parts.rotate(info)
                    its = self._parts.of(info) if info.place else self._parts.now
                    self._take(its or part, slot, info, names, piece)
                    info.pending -= 1
        text = f"recording to {self._folder}/{part.prefix}"
        if raw:
            seconds = (now_ns() - min(raw.values())) * 1e-9
            text += f"; {len(raw)} frames, {seconds:.1f} s, from before the start are in it"
        self._tell(text)
        return {"text": text, "part": part.number, "take": part.take, "frames_before": len(raw)}

    def stop(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """End the take.

        Raises
        ------
        SinkError
        """
        with self._starting:
            with self._lock:
                self._check()
                part = self._parts.now
                if part is None:
                    raise SinkError("nothing is being recorded: type pellucid record start")
                self._parts.end()
                frames, nbytes = self._parts.amount_of(part.take)
            self._parts.forget_next()
        text = f"recorded {frames} frames ({nbytes / 1e6:.0f} MB) to {self._where(part)}"
        self._tell(text)
        return {"text": text, "part": part.number, "take": part.take, "frames": frames}

    def status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Say what is being recorded."""
        with self._lock:
            part = self._parts.now
            waiting, nbytes = self._backlog.waiting
            if part is None:
                held = len({info.seq for _, _, info, _, _ in self._held})
                text = f"armed, not recording; {held} frames are held from before a start"
            else:
                frames, size = self._parts.amount_of(part.take)
                text = f"recording: {frames} frames ({size / 1e6:.0f} MB) in {self._where(part)}"
            return {"text": text, "recording": part is not None, "waiting": waiting, "waiting_bytes": nbytes}

    def _check(self) -> None:
        if self.over:
            raise SinkError("the run is over")

    def _where(self, part: Part) -> str:
        """Return the folder of a take, or the first and last of its parts."""
        prefixes = [each.prefix for each in self._parts if each.take == part.take]
        last = f" to {prefixes[-1]}" if len(prefixes) > 1 else ""
        return f"{self._folder}/{prefixes[0]}{last}"

    # ---------------------------------------------------------------- before a start

    @property
    def held_s(self) -> float:
        """How far back the frames go that are held."""
        try:
            return (now_ns() - self._held[0][0]) * 1e-9
        except IndexError:
            return 0.0

    def hold_back(self, slot: Slot, info: FrameInfo, names: tuple[str, ...]) -> None:
        """Hot, with the lock: keep a copy of planes for a while."""
        if not self._before_s:
            return
        now = info.received_ns or now_ns()
        self._forget_older(now)
        piece = Piece([plane for name in names for plane in cut(slot.planes[name], info)])
        while not self._backlog.keep_out_of_slot(piece):
            if not self._held:
                if not self._said_small:
                    self._said_small = True
                    self._tell(f"buffer_mb has no room for a single frame of {piece.nbytes / 1e6:.1f} MB")
                return
            if not self._said_short:
                self._said_short = True
                held_s = (now - self._held[0][0]) * 1e-9
                self._tell(f"buffer_mb has room for {held_s:.1f} s from before a start, not for {self._before_s:g}")
            self._forget()
        info.pending += 1  # its row waits: it may be recorded yet
        self._held.append((now, slot, info, names, piece))

    def _forget_older(self, now: int) -> None:
        """Let go of what is older than asked; a source may have stood still meanwhile."""
        while self._held and self._held[0][0] < now - self._before_s * 1e9:
            self._forget()

    def forget_all(self) -> None:
        """Let go of all planes that were held back."""
        with self._lock:
            while self._held:
                self._forget()

    def _forget(self) -> None:
        _, _, info, _, piece = self._held.popleft()
        self._backlog.give_up(piece)
        info.pending -= 1
