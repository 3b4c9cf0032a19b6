"""The order of things: for each stream its stages, a session over its frames, the comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid._version import version
from pellucid.config import Config
from pellucid.errors import PellucidError, RunError, SinkError, StageError
from pellucid.protocols import Stage, Stream
from pellucid.recording.changes import read_changes
from pellucid.recording.contents import Contents
from pellucid.reproduce.changes import Again
from pellucid.reproduce.ends import Compare, RecordedFrames
from pellucid.reproduce.stages import config_of, device_of, stages_then
from pellucid.reproduce.told import Reproduced, differences, engines
from pellucid.reproduce.ways import Way, tellable, ways_of
from pellucid.runtime.session import Session, Settings

__all__ = ["reproduce"]

_SLOTS = 4


def reproduce(
    folder: Path,
    tell: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Reproduced:
    """Restore a recording's raw frames again and compare; change nothing.

    Parameters
    ----------
    folder
    tell
        Takes how many frames came out, and of how many.
    say
        Takes lines while stages open that take long.

    Raises
    ------
    PellucidError
        One line: why it cannot be done.
    """
    contents = Contents(folder)
    contents.look_whether_ended()
    report = _report(folder)
    ways, changes = ways_of(contents), read_changes(folder)
    if not any(way.wanted for way in ways):
        raise SinkError(f"{folder} has no restored frames whose raw ones are there, so there is nothing to compare")
    found = Reproduced()
    total, done = sum(way.wanted for way in ways), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if tell is not None:
            tell(done, total)

    for way in ways:
        if way.wanted:
            mine = [row for row in changes if row["stream"] == way.stream.index]
            found.changes += len(mine)
            _replay(contents, way, report, found, advance, say, mine)
    found.different.sort()
    return found


def _replay(
    contents: Contents,
    way: Way,
    report: Mapping[str, Any],
    found: Reproduced,
    advance: Callable[[], None],
    say: Callable[[str], None] | None,
    changes: Sequence[Mapping[str, Any]],
) -> None:
    """Run the frames of one stream through its stages."""
    then = stages_then(contents, way.stream.index)
    config, pinned = config_of(contents.folder, then)
    try:
        again = Again(contents.folder, changes, then, pins=True)
        _run(contents, way, config, then, report, found, advance, say, again)
    except _NotHere:
        if not pinned:
            raise
        # What ran it then is not here: the config's own choice is.
        again = Again(contents.folder, changes, then, pins=False)
        _run(contents, way, config_of(contents.folder, [])[0], then, report, found, advance, say, again)


class _NotHere(StageError):
    """The stages cannot be opened."""


def _run(
    contents: Contents,
    way: Way,
    config: Config,
    then: Sequence[Mapping[str, Any]],
    report: Mapping[str, Any],
    found: Reproduced,
    advance: Callable[[], None],
    say: Callable[[str], None] | None,
    again: Again,
) -> None:
    hardware = report.get("hardware", {})
    device = device_of(config, then)
    stages: list[Stage] = []

    def make(_: Stream) -> dict[str, Stage]:
        made = config.make_stages(way.stream)
        stages.extend(made.values())
        return made

    source = RecordedFrames(contents, way.stream, way.rows)
    sink = Compare(contents, way.rows, found, advance)
    threads = config.settings.threads or hardware.get("threads")
    settings = Settings(device, threads, _SLOTS, "every", stall_s=config.settings.stall_s)
    session = Session(source, make, {"compare": sink}, settings, {"version": version}, say or _quiet)
    try:
        try:
            session.open()
        except StageError as error:
            raise _NotHere(f"the recorded stages do not open here: {error}") from None
        sink.told = tellable(way, stages)
        begun = session.lanes[0].begun_with
        again.give(session)
        session.run()
        again.look()
    except PellucidError as error:
        why = source.error or sink.error or error
        raise StageError(str(why)) if isinstance(why, RunError) else why from None
    finally:
        session.close()
    assert session.report is not None
    (told,) = session.report["streams"]
    if told["raw_only"]:
        raise StageError(f"the recorded stages do not work here: {told['raw_only']}")
    line = engines(begun, session.report["hardware"])
    if line not in found.engines:
        found.engines.append(line)
    unlike = differences(then, begun, hardware, session.report["hardware"])
    for line in (*unlike, *again.differences(session, hardware)):
        if line not in found.elsewhere:
            found.elsewhere.append(line)


def _report(folder: Path) -> dict[str, Any]:
    try:
        report = json.loads((folder / "report.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # a recovered recording may have lost it; verify says so
    return report if isinstance(report, dict) else {}


def _quiet(_: str) -> None:
    """Tell nobody."""
