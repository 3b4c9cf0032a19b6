"""What a recording says of itself, read back: its rows, and where each plane of a frame lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid.errors import SinkError
from pellucid.protocols import RAW, Stream
from pellucid.recording.about import About, to_stream
from pellucid.recording.image import At, Plan
from pellucid.recording.rows import NAME as ROWS
from pellucid.recording.schema import Malformed, row_of
from pellucid.recording.upload_state import freed_in

__all__ = ["Contents", "look_whether_here"]


class Contents:
    """A recording that was ended.

    Parameters
    ----------
    folder

    Attributes
    ----------
    about : About
    plans : dict of str to Plan
        Of each image, by its name.
    streams : dict of int to Stream
        As the sinks saw them, by index.
    damaged : list of int
        Lines of ``frames.jsonl`` that are none, counted from 1; complete after `rows`.

    Raises
    ------
    SinkError
        Where it is no recording, or was not ended.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SinkError(f"{folder} is no folder. Give that of a recording")
        self.folder = folder
        self.about = About.read(folder)
        self.plans: dict[str, Plan] = self.about.plans()
        self.streams: dict[int, Stream] = {row["index"]: to_stream(row) for row in self.about.streams}
        self._of: dict[tuple[int, int], dict[str, str]] = {
            (part["number"], int(index)): of for part in self.about.parts for index, of in part["of"].items()
        }
        self.damaged: list[int] = []

    @property
    def ended(self) -> bool:
        """Whether the recorder, or a recovery, has ended it."""
        return self.about.state != "recording"

    def look_whether_ended(self) -> None:
        """Raise SinkError where it was not, or where its pixels are elsewhere."""
        if not self.ended:
            raise SinkError(
                f"{self.folder} was not ended. If nothing records to it: type pellucid recover {self.folder}"
            )
        self.look_whether_here()

    def look_whether_here(self) -> None:
        """Raise SinkError where pixels were removed here after an upload."""
        look_whether_here(self.folder)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as they lie in the file; lines that are none are noted in `damaged`.

        Raises
        ------
        SinkError
            Where the file cannot be read.
        """
        self.damaged = []
        path = self.folder / ROWS
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    row = _row(line)
                    if row is None:
                        self.damaged.append(number)
                    else:
                        yield row
        except OSError as error:
            raise SinkError(f"{path} cannot be read: {error.strerror or error}") from None

    def images(self, row: dict[str, Any]) -> dict[str, str]:
        """Return the names of the images that a frame's planes go to, by the name of the plane."""
        return self._of.get((row.get("part", 0), row.get("stream", 0)), {})

    def places(self, row: dict[str, Any], image: str) -> list[At]:
        """Return where in an image the (y, x) planes of a frame lie: of a stack those slices that came."""
        at, plan = At(*row["at"]), self.plans[image]
        if plan.is_colour:
            return [At(at.p, at.t, at.c * 3 + i, at.z) for i in range(3)]
        stream = self.streams.get(row.get("stream", 0))
        if plan.depth is None or stream is None or stream.spec.axes != "zyx":
            return [at]
        missing = set(row.get("missing_z", ()))
        return [At(at.p, at.t, at.c, z) for z in range(plan.depth) if z not in missing]

    def has_raw(self, row: dict[str, Any]) -> bool:
        """Tell whether the raw planes of a frame are there, by what its row says."""
        return row.get("at") is not None and RAW in row.get("xxh3", {}) and RAW in self.images(row)


def look_whether_here(folder: Path) -> None:
    """Raise SinkError where pixels of a recording were removed after an upload (``--free-local``)."""
    freed = freed_in(folder)
    if freed is not None:
        url, count = freed
        raise SinkError(
            f"{folder}: {count} files of pixels were removed here after their upload and are in {url}. "
            f"Fetch them first, such as with: aws s3 sync {url} {folder}"
        )


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row_of(line)
    except Malformed:
        return None
    row: dict[str, Any] = json.loads(line)
    return row if line.endswith(b"\n") else None
