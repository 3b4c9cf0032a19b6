"""What can be wrong with IN and the config before anything is opened or made."""

from __future__ import annotations

import os
from pathlib import Path

from pellucid.config import Config
from pellucid.errors import SourceError, StageError, did_you_mean
from pellucid.process.plan import PLACE
from pellucid.process.recorded import Recorded

__all__ = ["look_at", "look_for_names"]


def look_at(given: Path) -> None:
    """Say what is wrong with IN where its name tells it already."""
    try:
        if not given.exists():
            beside = [p.name for p in given.parent.iterdir()] if given.parent.is_dir() else []
            raise SourceError(f"IN {given} does not exist.{did_you_mean(given.name, beside)}")
        if given.is_dir() and not any(given.iterdir()):
            raise SourceError(f"IN {given} is an empty folder")
        if given.is_file() and not given.stat().st_size:
            raise SourceError(f"IN {given} is an empty file")
        if not os.access(given, os.R_OK):
            raise SourceError(f"IN {given}: you may not read it")
        for folder in (given, given.parent):
            if (folder / PLACE / "plan.json").is_file() and not (folder / "report.json").is_file():
                raise SourceError(
                    f"IN {given} is of a pellucid process that was stopped: the frames it has not done are zeros. "
                    "Type its command again, to let it end"
                )
        if given.is_dir() and not (given / "raw.ome.zarr").exists() and not (given / "zarr.json").exists():
            images = sorted(p.name for p in given.glob("*.ome.zarr"))
            if images and not (given / "NDTiff.index").exists():
                raise SourceError(
                    f"IN {given} has no raw; its images are {', '.join(images)}. Give one of them: "
                    f"{given / ('restored.ome.zarr' if 'restored.ome.zarr' in images else images[0])}"
                )
    except OSError as error:
        raise SourceError(f"IN {given} cannot be read: {error.strerror}") from None


def look_for_names(config: Config, recorded: Recorded) -> None:
    """Say that a stage waits for a channel or a camera that IN does not have."""
    for what in ("channel", "camera"):
        there = list(dict.fromkeys(getattr(stream, what) for stream in recorded.streams))
        for row in config.stages:
            for name in getattr(row, f"{what}s"):
                if name not in there:
                    # To one who types it, dapi is as near to DAPI as DPAI is.
                    by_sound = {one.casefold(): one for one in there}
                    near = by_sound.get(name.casefold(), name)
                    raise StageError(
                        f'{row.where}.{what}s = ["{name}"], but the {what}s of IN are {", ".join(there)}.'
                        f"{did_you_mean(near, there)}"
                    )
