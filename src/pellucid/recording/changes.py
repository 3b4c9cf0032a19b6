"""``changes.jsonl``: a row for every parameter of a stage that was changed during the run; no such file, no change.

``config.toml`` is the config with which the run began. A row of this file says from which frame of which stream on one
of its keys had another value: ``frame``, ``stream``, ``time``, ``what``, ``from``, ``to``, ``by``, ``stage``, and in
``is`` what the stage said of itself from then on (hashes of model and PSF, engine).

A row is written before any plane is that was made with it, so that no crash leaves planes whose parameters nobody
knows.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from pellucid.errors import SinkError
from pellucid.ledger import Ledger
from pellucid.recording.disk import Disk, Growing

__all__ = ["NAME", "ChangeRows", "look_at_changes", "read_changes"]

NAME = "changes.jsonl"
_KEYS = {"frame": int, "stream": int, "what": str, "stage": str}


class ChangeRows:
    """Writes the ledger's changes as they come.

    Parameters
    ----------
    folder
        Of the recording.
    ledger
    disk
    """

    def __init__(self, folder: Path, ledger: Ledger, disk: Disk) -> None:
        self._path = folder / NAME
        self._changes, self._disk = ledger.changes, disk
        self._file: Growing | None = None
        self._written = 0
        self._writing = threading.Lock()

    def write(self) -> None:
        """Write those that are not written; from any thread, and next to nothing where there are none.

        Raises
        ------
        OSError
        """
        if self._written == len(self._changes):
            return
        with self._writing:
            rows = self._changes[self._written :]
            if rows:
                if self._file is None:
                    self._file = self._disk.grow(self._path)
                self._file.append(["".join(json.dumps(row, default=str) + "\n" for row in rows).encode()])
                self._written += len(rows)

    def close(self) -> None:
        """Close the file; safe more than once."""
        if self._file is not None:
            self._file.close()


def read_changes(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a recording in order; none where nothing was changed.

    Raises
    ------
    SinkError
        Where a line is damaged. One that was cut off at the end by a crash is left out: no plane was made with it.
    """
    path = folder / NAME
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SinkError(f"{path} cannot be read: {error.strerror or error}") from None
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
            sound = isinstance(row, dict) and all(type(row.get(key)) is kind for key, kind in _KEYS.items())
        except (ValueError, RecursionError):
            sound = False
        if not sound:
            raise SinkError(f"{path}: line {number} is damaged")
        rows.append(row)
    return rows


def look_at_changes(folder: Path, faults: list[str]) -> None:
    """Look whether the changes of a recording are those that its report tells of."""
    try:
        rows = read_changes(folder)
    except SinkError as error:
        faults.append(str(error))
        return
    try:
        told = json.loads((folder / "report.json").read_text("utf-8")).get("changes")  # older ones had none
    except (OSError, ValueError, AttributeError):
        return  # said already
    if isinstance(told, list) and len(told) != len(rows):
        faults.append(f"{NAME}: {len(rows)} changes of parameters, report.json tells of {len(told)}")
