"""What a recording says of its run beside the rows: ``recording.json``, ``report.json``, ``config.toml``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.errors import SinkError
from pellucid.recording.about import NAME as ABOUT
from pellucid.recording.contents import Contents

__all__ = ["Facts", "read_facts", "stream_name", "table"]

_LONGEST_CONFIG = 200_000


@dataclass
class Facts:
    """A recording's files but its rows and pixels.

    Parameters
    ----------
    contents
    report
        ``report.json``; empty where there is none yet, or none any more.
    config
        Text of ``config.toml``.
    config_sha256
        Of that text as it is now.
    remarks
        One line for each file that is not there or is not what it should be.
    """

    contents: Contents
    report: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    config_sha256: str = ""
    remarks: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """``"recording"`` where it still runs or was killed, ``"finished"``, ``"recovered"``."""
        return self.contents.about.state

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.contents.folder.absolute().name

    def stages(self, stream: int) -> list[dict[str, Any]]:
        """Return what the stages of a stream said of themselves, in the report or else in the recording."""
        streams = self.report.get("streams")
        told: Any = None
        if isinstance(streams, list) and 0 <= stream < len(streams) and isinstance(streams[stream], dict):
            told = streams[stream].get("stages")
        if told is None:
            some = self.contents.about.hashes.get("stages")
            told = some[stream] if isinstance(some, list) and 0 <= stream < len(some) else []
        return [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []


def read_facts(folder: Path) -> Facts:
    """Read what a recording says of itself, whatever its state.

    Raises
    ------
    SinkError
        Where the folder is no recording.
    """
    _look_whether_recording(folder)
    found = Facts(Contents(folder))
    path = folder / "report.json"
    try:
        told = json.loads(path.read_text("utf-8"))
        if not isinstance(told, dict):
            raise ValueError("it is no table")
        found.report = told
    except FileNotFoundError:
        if found.contents.ended:
            found.remarks.append("report.json is not there: machine, stages and sinks are known from the rows alone")
    except (OSError, ValueError) as error:
        found.remarks.append(f"report.json is damaged: {' '.join(str(error).split())}")
    try:
        data = (folder / "config.toml").read_bytes()
        found.config = data[:_LONGEST_CONFIG].decode("utf-8", "replace")
        found.config_sha256 = hashlib.sha256(data).hexdigest()
    except OSError as error:
        found.remarks.append(f"config.toml cannot be read: {error.strerror or error}")
    told_sha = found.contents.about.hashes.get("config_sha256")
    if told_sha and found.config_sha256 and told_sha != found.config_sha256:
        found.remarks.append("config.toml was changed after the run: its SHA-256 is not the one that was recorded")
    return found


def _look_whether_recording(folder: Path) -> None:
    """Say of a folder that is no recording what it is, where that can be told."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise SinkError(f"{folder} {what}. Give the folder of a recording, such as recordings/20260401-101500")
    if (folder / ABOUT).is_file():
        return
    if (folder.absolute().parent / ABOUT).is_file():
        raise SinkError(
            f"{folder} is a part of a recording, and its rows are in that one's. Type: pellucid report {folder.parent}"
        )
    inside = sorted(path.parent.name for path in folder.glob(f"*/{ABOUT}"))
    if inside:
        last = folder / inside[-1]
        raise SinkError(f"{folder} is no recording, it holds {len(inside)}. Type for the last: pellucid report {last}")
    if (folder / "frames.jsonl").is_file():
        raise SinkError(
            f"{folder} was made by pellucid process, whose frames have no latency. Give the recording it was made of"
        )
    raise SinkError(f"{folder} is no recording of pellucid: it has no {ABOUT}. Give the folder that a run named")


def table(told: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return a table within tables; empty where one on the way is none."""
    found: Any = told
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def stream_name(contents: Contents, index: int) -> str:
    """Return how a stream is called: camera and channel, with its number where another has the same."""
    stream = contents.streams.get(index)
    if stream is None:
        return "further streams" if index < 0 else f"stream {index}"
    names = [f"{s.camera}, {s.channel}" for s in contents.streams.values()]
    name = f"{stream.camera}, {stream.channel}"
    return name if names.count(name) == 1 else f"{name} (stream {index})"
