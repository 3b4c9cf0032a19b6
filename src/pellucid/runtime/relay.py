"""The camera's side: any source, read straight into the session's memory.

The sender's slots lie in the session's ring (shared memory) or here (another computer). The source fills
them as it would fill a session's own, so a camera's pixels are copied once, into the place where the first
stage reads them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pellucid.metrics import now_ns
from pellucid.protocols import Source, Stream
from pellucid.wire.sender import Feed, Sender

__all__ = ["relay"]


def relay(
    source: Source,
    connect: Callable[[list[Feed]], Sender],
    stop: threading.Event,
    *,
    wait_s: float,
    frames: int | None = None,
    once: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Sender:
    """Send a source's frames until it ends, the session asks for no more, or `stop` is set.

    Parameters
    ----------
    source
    connect
        Makes the sender for what the source gives.
    stop
        Ends it cleanly.
    wait_s
        How long to look for a session at the start.
    frames
        End after so many.
    once
        End when the session goes, instead of waiting for the next one.
    tell
        Called with a line where something changes.

    Returns
    -------
    Sender
        Closed; its counters tell what became of the frames.
    """
    streams: tuple[Stream, ...] = source.open()
    sender = connect([Feed(stream, {"raw": stream.spec}) for stream in streams])
    try:
        sender.open(wait_s)
        tell(f"connected to {sender.endpoint}, pixels {'through shared memory' if sender.attached else 'in band'}")
        source.start(sender.rings, sender)
        _run(source, sender, stop, frames, once, tell)
    finally:
        # First: a camera may take seconds to shut down, and the session waits for the totals.
        sender.close()
        source.close()
    return sender


def _run(
    source: Source,
    sender: Sender,
    stop: threading.Event,
    frames: int | None,
    once: bool,
    tell: Callable[[str], None],
) -> None:
    connected = True
    stopping = False
    deadline = 0
    owned = 0
    while not source.finished:
        while (slot := sender.free()) is not None:
            source.offer(slot)
            owned += 1
        # A source that waits for room has none to fill: let the credits come in instead of looking for frames.
        if owned or source.live:
            slot = source.read(0.02)
        else:
            sender.poll(0.02)
            slot = source.read(0.0) if stopping else None
        if slot is not None:
            owned -= 1
            if frames is not None and sender.sent >= frames:
                sender.missing(slot.info.seq, 1, "dropped", "after the end")
            else:
                sender.commit(slot)
        sender.poll(0)
        if connected != sender.connected:
            connected = sender.connected
            tell("session is back" if connected else "session is gone")
        if stopping:
            if now_ns() > deadline:
                return
        elif (
            stop.is_set()
            or sender.stop_requested
            or (frames is not None and sender.sent >= frames)
            or (once and not connected)
        ):
            stopping = True
            deadline = now_ns() + 5_000_000_000
            source.stop()
