"""A trial as a process: ``python -m pellucid.tuning.trial GIVEN.json TOLD.json``; and who starts one and hears it out.

A process of its own: a network's library that was opened with other threads, a plugin that dies, or memory that is not
given back would spoil what is measured next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil

from pellucid.errors import PellucidError
from pellucid.tuning.goal import Measured
from pellucid.tuning.measure import Trial, measure

__all__ = ["run_trial"]

_LOOK_S = 0.1
_FREE_S = 3.0


def run_trial(trial: Trial, patience_s: float, stopped: Callable[[], bool]) -> Measured:
    """Measure in a process of its own; whatever goes wrong there is told in the result.

    Parameters
    ----------
    trial
    patience_s
        One that takes longer is ended.
    stopped
        Tells whether the user has had enough; the process is ended then.
    """
    with tempfile.TemporaryDirectory(prefix="pellucid-trial-", ignore_cleanup_errors=True) as folder:
        given, told = Path(folder) / "given.json", Path(folder) / "told.json"
        given.write_text(json.dumps(asdict(trial)), encoding="utf-8")
        with (Path(folder) / "said").open("w+", encoding="utf-8", errors="replace") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "pellucid.tuning.trial", str(given), str(told)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)
                | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                start_new_session=sys.platform != "win32",  # Ctrl-C is for the search, which says when it is over
            )
            waited = 0.0
            while waited < patience_s and not stopped():
                try:
                    process.wait(_LOOK_S)
                    break
                except subprocess.TimeoutExpired:
                    waited += _LOOK_S
            if process.poll() is None:
                _end(process)
                return Measured("stopped" if stopped() else f"it took longer than {patience_s:g} s")
            if told.is_file():
                return Measured.of(json.loads(told.read_text(encoding="utf-8")))
            said.seek(0)
            lines = [line.strip() for line in said if line.strip()]
        last = f": {lines[-1]}" if lines else ""
        return Measured(f"its process died with {process.returncode}{last}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a trial with all that it started: a sender, windows."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        family = []
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(family, _FREE_S)
    process.wait()


def _main(given: str, told: str) -> None:
    trial = Trial(**json.loads(Path(given).read_text(encoding="utf-8")))
    try:
        result = measure(trial)
    except PellucidError as error:
        result = Measured(str(error))
    except Exception as error:  # of a plugin
        result = Measured(f"{type(error).__name__}: {error}")
    path = Path(told)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(result.told(), default=float), encoding="utf-8")
    beside.replace(path)
    if any(not t.daemon and t is not threading.main_thread() for t in threading.enumerate()):
        os._exit(0)  # a thread that a plugin forgot must not keep the search waiting


if __name__ == "__main__":
    _main(*sys.argv[1:])
