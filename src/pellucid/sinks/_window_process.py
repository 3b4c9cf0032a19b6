"""The process of the window: started by name, heard out when it fails, ended for certain."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from pellucid.errors import SinkError

__all__ = ["START_S", "WindowProcess"]

START_S = 30.0
COMMAND = [sys.executable, "-m", "pellucid.viewer"]
_SCREEN_GONE = (
    "X11 connection broke", "XIO:", "fatal IO error", "Wayland connection broke", "Wayland connection experienced",
)  # fmt: skip
"""As Qt, Xlib and libwayland say that the screen has gone; each then ends the process at once."""


class WindowProcess:
    """A process that draws. Never forked: it has an interpreter of its own.

    Parameters
    ----------
    told
        What ``python -m pellucid.viewer`` is told, as JSON.

    Attributes
    ----------
    endpoint : str
        Where it takes frames.

    Raises
    ------
    SinkError
        Where it does not come up.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        # A file, not a pipe: what Qt and drivers say must never fill a buffer that nobody empties.
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*COMMAND, json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self.endpoint = self._listen()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def _listen(self) -> str:
        line: list[str] = []
        pipe = self._process.stdout
        assert pipe is not None
        reader = threading.Thread(target=lambda: line.append(pipe.readline().strip()), daemon=True)
        reader.start()
        reader.join(START_S)
        if not line or not line[0].startswith("tcp://"):
            text = self.complaint() or f"it said nothing for {START_S:g} s"
            self.end(0)
            raise SinkError(f"the window did not come up: {text}. Type: --headless")
        return line[0]

    def poll(self) -> int | None:
        """Return how the process ended, None while it lives."""
        return self._process.poll()

    def complaint(self) -> str:
        """Return the line of its stderr that says most, after a moment for it to end."""
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            pass
        self._complaints.seek(0)
        lines = [line.strip() for line in self._complaints if line.strip()]
        # Behind this others complain that nothing was cleared away.
        if any(sign in line for line in lines for sign in _SCREEN_GONE):
            return "its screen is gone"
        # Qt names a library that is missing first, and the list of its plug-ins last.
        missing = [line for line in lines if "is needed to load" in line]
        return (missing or lines or [""])[-1]

    def end(self, patience_s: float) -> None:
        """Wait for the process to end by itself, then end it; nothing of it is left."""
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._complaints.close()
