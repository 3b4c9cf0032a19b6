"""Recordings as a user makes them, for tests of what is done with them afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pellucid.config import Config
from pellucid.live import make_session

PARTS = (Path(__file__).parents[1] / "parts.py").as_posix()
PROCESS_PARTS = (Path(__file__).parents[1] / "process/process_parts.py").as_posix()
SIMULATED = 'kind = "simulated"\nshape = [48, 64]\nfps = 1000\non_full = "wait"\nframes = 12'
DECONVOLVE = 'kind = "deconvolve"\npsf = { kind = "gaussian", fwhm_px = 3.5 }\niterations = 3'
SCALE = 'kind = "scale"\nfactor = 0.5'
EXPERIMENT = 'kind = "experiment"\nsizes = { t = 2, p = 2, c = 2, z = 3 }\nlost = [7]'
STACKS = 'kind = "experiment"\nsizes = { t = 3, c = 2, z = 4 }\nlost = [9]'
COLOUR = 'kind = "experiment"\nsizes = { t = 3, c = 1 }\ncolour = true'


def record(
    folder: Path, source: str = SIMULATED, *stages: str, session: str = 'restore = "every"', **recorder: Any
) -> Path:
    """Run a session with a recorder, to its end; return the recording's folder."""
    text = [f'plugins = ["{PARTS}", "{PROCESS_PARTS}"]', f"[source]\n{source}"]
    text += [f"[[stages]]\n{stage}" for stage in stages]
    keys = {"path": folder.as_posix(), **recorder}
    text.append('[[sinks]]\nkind = "recorder"\n' + "\n".join(f"{k} = {json.dumps(v)}" for k, v in keys.items()))
    text.append(f"[session]\nthreads = 1\nslots = 6\n{session}")
    made = make_session(Config.parse("\n".join(text)), tell=lambda line: None)
    try:
        made.open()
        made.run()
    finally:
        made.close()
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows in order of their numbers."""
    lines = (folder / "frames.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda row: row["seq"])


def write_rows(folder: Path, changed: list[dict[str, Any]]) -> None:
    """Put other rows in the place of those of a recording."""
    (folder / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
