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
from pellucid.wire.codec import EXTRA
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
    warn: Callable[[str], None] = lambda _: None,
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
        Called with a line where something changes, first when a session is there.
    warn
        Called before that with a line, where the session does not seem to let this sender in.

    Returns
    -------
    Sender
        Closed; its counters tell what became of the frames.
    """
    streams: tuple[Stream, ...] = source.open()
    sender = connect([_feed(stream) for stream in streams])
    sender.asked_to_end = stop.is_set
    try:
        sender.open(wait_s, warn)
        tell(f"connected to {sender.endpoint}, pixels {_way(sender)}")
        source.start(sender.rings, sender)
        _run(source, sender, stop, frames, once, tell)
    finally:
        # First: a camera may take seconds to shut down, and the session waits for the totals.
        sender.close()
        source.close()
    return sender


def _feed(stream: Stream) -> Feed:
    return Feed(stream, {"raw": stream.spec})


def _way(sender: Sender) -> str:
    """Say how the pixels go."""
    if sender.attached:
        return "through shared memory"
    if sender.compress and not sender.codec:
        return (
            f"in band and as they are: the session cannot unpack {sender.compress}. "
            f'Type there: pip install "pellucid[{EXTRA}]"'
        )
    return f"in band, packed with {sender.codec}" if sender.codec else "in band"


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
    refused = ""
    deadline = 0
    while not source.finished:
        while (slot := sender.free()) is not None:
            source.offer(slot)
        # A source that waits for room has none to fill: let the credits come in instead of looking for frames. Where
        # only some of its streams have none a short look, for it may wait for just those.
        if all(ring.lent for ring in sender.rings) or source.live:
            slot = source.read(0.02)
        elif sender.lent:
            slot = source.read(0.001)
        else:
            sender.poll(0.02)
            slot = source.read(0.0) if stopping else None
        if slot is None:
            _turn(source, sender, stop, tell)
        elif frames is not None and sender.sent >= frames:
            sender.missing(slot.info.seq, 1, "dropped", "after the end", slot.stream.index)
            sender.take_back(slot)
        else:
            sender.commit(slot)
        sender.poll(0)
        while sender.notes:
            tell(sender.notes.pop(0))
        if connected != sender.connected:
            connected = sender.connected
            tell("session is back" if connected else "session is gone")
        if refused != sender.refused:
            refused = sender.refused
            if refused:
                tell(f"the session refuses this sender: {refused}")
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


def _turn(source: Source, sender: Sender, stop: threading.Event, tell: Callable[[str], None]) -> None:
    """Announce the streams that the source has met, and wait for the session to make ready for them.

    The source keeps their frames meanwhile (nobody reads it), as far as it can, and counts what it cannot keep.
    """
    fresh: list[Stream] | None = getattr(source, "fresh", None)
    if not fresh:
        return
    streams = list(fresh)
    fresh.clear()
    for stream in streams:
        was = "" if stream.replaces is None else " instead of what it gave before"
        tell(f"{stream.camera}, {stream.channel}: frames of {stream.spec}{was}")
    rings = sender.extend([_feed(stream) for stream in streams])
    while sender.turning and not stop.is_set():
        sender.poll(0.05)
    source.extend(rings)  # type: ignore[attr-defined]
