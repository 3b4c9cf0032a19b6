"""A change of a chain's stages during a run: made ready while frames flow, carried out between two of them.

New stages are opened and tried in the thread of whoever asks, on memory of their own; the chain's thread then puts them
in the place of the old ones before it begins a frame. That frame is the change's stamp: it and all that follow in its
stream are made with the new stages, all before it with the old ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pellucid.ledger import Ledger
from pellucid.protocols import FrameInfo, Stage, Stream

__all__ = ["OVER", "Exchange", "change_line"]

OVER = "the run ended before another frame came"


class Exchange:
    """Waits for its frame.

    Parameters
    ----------
    stages
        Returns the new stages by their places in the chain, open and tried. Called once, between two frames.
    changes
        What differs, a row for each key: ``what``, ``from``, ``to``, ``by``, ``stage`` (the name of the stage).
    since
        Not before the frame of this number.

    Attributes
    ----------
    frame : int
        The first that the new stages were given; -1 before.
    why : str
        Why it was not carried out; empty where it was, or may yet be.
    done : threading.Event
        One of the two is known.
    """

    def __init__(
        self, stages: Callable[[], Mapping[int, Stage]], changes: Sequence[Mapping[str, Any]], since: int = 0
    ) -> None:
        self.since = since
        self.frame = -1
        self.why = ""
        self.done = threading.Event()
        self._stages = stages
        self._changes = [dict(change) for change in changes]

    def take(self) -> Mapping[int, Stage]:
        """Return the new stages; whoever calls owns them."""
        return self._stages()

    def took(self, info: FrameInfo, stream: Stream, told: Mapping[str, Mapping[str, Any]], ledger: Ledger) -> None:
        """Stamp it with the frame that comes first; `told` is what each stage says of itself now."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [
            {
                "frame": info.seq,
                "stream": stream.index,
                "time": now,
                **change,
                "is": dict(told.get(change["stage"], {})),
            }
            for change in self._changes
        ]
        ledger.changes.extend(rows)
        for row in rows:
            ledger.note(f"{change_line(row)}, from frame {info.seq} of stream {stream.index} on (by {row['by']})")
        self.frame = info.seq
        self.done.set()

    def refuse(self, why: str) -> None:
        """Say that it will not be carried out."""
        self.why = why
        self.done.set()

    def give_up(self) -> None:
        """Close stages that no frame will reach."""
        if not self.done.is_set():
            self.refuse(OVER)
            for stage in self.take().values():
                stage.close()


def change_line(row: Mapping[str, Any]) -> str:
    """Return ``stages.0.iterations 2 -> 3``."""
    return f"{row['what']} {_told(row['from'])} -> {_told(row['to'])}"


def _told(value: Any) -> str:
    if value is None:
        return "(left out)"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
