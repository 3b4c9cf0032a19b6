"""The session's end of the window's wire: pictures there, the times at which they were drawn back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.errors import WireError
from pellucid.ledger import Ledger
from pellucid.metrics import Rate, now_ns
from pellucid.protocols import FrameInfo, Slot
from pellucid.sinks._window_note import WHY, Told, told_of, write_note
from pellucid.sinks._window_pictures import Pictures
from pellucid.wire.sender import Sender

__all__ = ["WindowLink"]

RATE_NS = 1_000_000_000
COUNT_NS = 250_000_000
"""Between two looks at what did not arrive, and at what is recorded."""
REMEMBER = 64
"""Frames under way to the screen whose times are still expected; the window has four slots."""


class WindowLink:
    """Shows frames as far as the window has room; may be called in several threads, and waits for nobody.

    Parameters
    ----------
    endpoint
        Of the window.
    pictures
        Of all streams that are known, in order.
    ledger
        Gets the times, and is asked for what did not arrive.
    options
        Of the wire, beyond those of one computer: keys, packed pixels.
    counts
        What is drawn there is drawn, as far as the run's figures go. Not of those who only look on: a frame would be
        displayed twice.

    Attributes
    ----------
    drawn : int
        Frames that are known to have been drawn.

    Raises
    ------
    WireError
        Where the streams cannot be described.
    """

    def __init__(
        self,
        endpoint: str,
        pictures: Sequence[Pictures],
        ledger: Ledger,
        *,
        options: Mapping[str, Any] | None = None,
        counts: bool = True,
    ) -> None:
        self.drawn = 0
        feeds = [one.feed for one in pictures]
        self._sender: Sender | None = Sender(endpoint, feeds, name="session", **(options or {}))
        self._ledger = ledger
        self._counts = counts
        if counts:
            ledger.expect("display")
        self._lock = threading.Lock()
        self._pictures = list(pictures)
        self._new: deque[Pictures] = deque()
        self._full = False
        self._shown: dict[int, FrameInfo] = {}
        self._next = 0
        self._to_tell: Told = {}
        self._told: Told = {}
        self._looked_ns = 0
        self._rate, self._rated_ns = (Rate(), Rate()), now_ns()
        self._told_rates: list[float] = []
        self._restores = any(one.computed for one in pictures)

    def open(self, timeout_s: float) -> None:
        """Shake hands; raises `WireError` where nobody answers."""
        assert self._sender is not None
        self._sender.open(timeout_s)
        for pictures, ring in zip(self._pictures, self._sender.rings, strict=True):
            pictures.ring = ring

    @property
    def connected(self) -> bool:
        """The window is there."""
        sender = self._sender
        return sender is not None and sender.connected

    @property
    def waits(self) -> bool:
        """There are frames on their way to the screen."""
        return bool(self._shown)

    def extend(self, pictures: Pictures) -> None:
        """Show another stream from now on, in the place of the one that it replaces."""
        self._new.append(pictures)  # no lock: the session's loop calls, and a copy of pixels may have it

    def show(self, pictures: Pictures, slot: Slot, names: Sequence[str], now: int) -> bool:
        """Copy planes into the window's memory, if it has room; return whether it had. Hot."""
        with self._lock:
            sender = self._sender
            if sender is None:
                return False
            self._keep_up(sender)
            free = pictures.ring.take() if pictures.ring is not None and sender.connected else None
            if free is None:
                return False
            given = slot.info
            pictures.fill(free, slot, names)
            said = write_note(free.planes[WHY], given.where, pictures.places(given), self._to_tell)
            free.ready = (*names, WHY) if said else tuple(names)
            # Numbered anew: streams may overtake each other here, and the wire wants an order.
            number = given.camera_number if given.camera_number >= 0 else given.seq
            free.info = FrameInfo(self._next, 0, number, given.camera_ns, 0, given.received_ns, axes=given.axes)
            self._next += 1
            if not sender.commit(free):
                return False
            self._shown[self._next - 1] = given
            self._told = self._to_tell
            pictures.went(given, names, now)
            return True

    def tend(self) -> None:
        """Keep the connection while no frame comes, and tell how the run is going."""
        with self._lock:
            if self._sender is not None:
                self._keep_up(self._sender)
                self._tell_run(self._sender)

    def _keep_up(self, sender: Sender) -> None:
        sender.poll(0)
        self._take_times(sender)
        if self._new:
            self._tell_streams(sender)

    def _tell_streams(self, sender: Sender) -> None:
        new = [self._new.popleft() for _ in range(len(self._new))]
        if self._full:
            return
        try:
            rings = sender.extend([pictures.feed for pictures in new])
        except WireError as error:
            self._full = True
            self._ledger.note(f"window: it shows no stream that begins from here on: {error}; the run goes on")
            return
        for pictures, ring in zip(new, rings, strict=True):
            self._pictures.append(pictures)
            pictures.ring = ring
            replaced = pictures.feed.stream.replaces
            if replaced is not None:
                self._pictures[replaced].ring = None
                self._shown = {n: info for n, info in self._shown.items() if info.stream != replaced}

    def _tell_run(self, sender: Sender) -> None:
        """Say what did not arrive and what is recorded where no frame brings it along: in a frame without pictures."""
        now = now_ns()
        if now - self._looked_ns > COUNT_NS:
            self._looked_ns = now
            before, self._to_tell = self._to_tell, told_of(self._ledger) | self._rates(now)
            if before == self._told and self._shown:
                return  # frames come: the next one brings it, and needs the room
        if self._to_tell == self._told or not sender.connected:
            return
        rings = (pictures.ring for pictures in self._pictures if pictures.ring is not None)
        free = next((slot for ring in rings if (slot := ring.take()) is not None), None)
        if free is None:
            return
        write_note(free.planes[WHY], "", {}, self._to_tell)
        free.ready = (WHY,)
        free.info = FrameInfo(self._next, camera_ns=now)
        self._next += 1
        if sender.commit(free):
            self._told = self._to_tell

    def _rates(self, now: int) -> Told:
        """Return what comes from the camera and what is restored, a second, as it was within the last one."""
        if now - self._rated_ns > RATE_NS:
            self._rated_ns = now
            counts = (self._ledger.received, self._ledger.processed if self._restores else 0)
            for rate, count in zip(self._rate, counts, strict=True):
                rate.count = count
            self._told_rates = [round(rate.per_s(), 1) for rate in self._rate]
        return {"rates": self._told_rates} if self._told_rates else {}

    def _take_times(self, sender: Sender) -> None:
        """Mark the frames that have been drawn."""
        while sender.acks:
            number, stamp_ns = sender.acks.popleft()
            info = self._shown.pop(number, None)
            if info is None:
                continue
            for older in [n for n, i in self._shown.items() if n < number and i.stream == info.stream]:
                del self._shown[older]  # a newer one took its place before it was drawn
            if stamp_ns and not self._counts:
                self.drawn += 1
            elif stamp_ns:
                info.displayed_ns = stamp_ns
                self._ledger.displayed += info.count
                self.drawn += 1
                self._ledger.marks_of(info.stream).display.add(stamp_ns - info.camera_ns)
        while len(self._shown) > REMEMBER:
            del self._shown[next(iter(self._shown))]

    def close(self, timeout_s: float) -> bool:
        """Say what did not arrive at last, and good-bye; return whether the window has heard it."""
        with self._lock:
            sender, self._sender = self._sender, None
            if sender is not None and sender.connected:
                self._to_tell = told_of(self._ledger) | self._rates(now_ns())
                self._looked_ns = now_ns()
                self._tell_run(sender)
        self._shown.clear()
        return sender is None or sender.close(timeout_s)
