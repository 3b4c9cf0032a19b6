"""Changes of parameters that a run had in its middle: made again, at the same frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from pellucid.errors import StageError
from pellucid.protocols import Stage
from pellucid.reproduce.stages import config_of
from pellucid.reproduce.told import differences
from pellucid.runtime.exchange import Exchange
from pellucid.runtime.lane import Lane
from pellucid.runtime.session import Session

__all__ = ["Again"]

Rows = Sequence[Mapping[str, Any]]


class Again:
    """The changes of one stream.

    Parameters
    ----------
    folder
        Of the recording.
    changes
        Rows of ``changes.jsonl`` of this stream, in order.
    then
        What its stages said of themselves when the recording began.
    pins
        An engine that the config left open is to be the one that ran.
    """

    def __init__(self, folder: Path, changes: Rows, then: Rows, *, pins: bool) -> None:
        self._folder, self._changes, self._then, self._pins = folder, changes, then, pins
        self._exchanges: list[Exchange] = []

    def give(self, session: Session) -> None:
        """Have the stages of an open session change at the frames at which they did."""
        (lane,) = session.lanes
        if lane.chain is None:
            return
        for frame, rows in groupby(self._changes, lambda row: row["frame"]):
            some = list(rows)
            until = self._changes[: self._changes.index(some[-1]) + 1]
            exchange = Exchange(partial(self._stages, lane, some, until), [_needed(row) for row in some], frame)
            self._exchanges.append(exchange)
            lane.change(exchange)

    def _stages(self, lane: Lane, some: Rows, until: Rows) -> dict[int, Stage]:
        """Open the stages that some changes touch, as they are after all until then."""
        assert lane.chain is not None
        config, _ = config_of(self._folder, self._then_after(until) if self._pins else [], until)
        chain, names = lane.chain, config.stage_names()
        touched = {row["stage"] for row in some}
        fresh = {
            i: config.stages[names.index(name)].make(config.folder, chain.made(name))
            for i, name in enumerate(chain.names)
            if name in touched
        }
        return chain.prepare(fresh)

    def _then_after(self, until: Rows) -> list[Mapping[str, Any]]:
        now = {row["stage"]: row["is"] for row in until if row.get("is")}
        return [now.get(str(told.get("stage")), told) for told in self._then]

    def look(self) -> None:
        """Raise StageError where stages could not be made as they were; after the run."""
        for exchange in self._exchanges:
            if exchange.why and exchange.frame < 0:
                raise StageError(f"from frame {exchange.since} on the recorded stages do not open here: {exchange.why}")

    def differences(self, session: Session, hardware_then: Mapping[str, Any]) -> Iterator[str]:
        """Yield what was another when it was recorded, of the stages that came in the middle of the run."""
        for row, now in zip(self._changes, session.ledger.changes, strict=False):
            if row.get("is"):
                yield from differences([row["is"]], [now["is"]], hardware_then, hardware_then)


def _needed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row.get(key) for key in ("what", "from", "to", "by", "stage")}
