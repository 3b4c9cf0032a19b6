"""What every test is held to: no thread and no process of ours is left behind."""

from __future__ import annotations

import os
import socket
import threading
import time

import psutil
import pytest
from hypothesis import settings

# Tests assert behaviour, not seconds: a busy computer is no fault of what is tested.
settings.register_profile("pellucid", deadline=None)
settings.load_profile("pellucid")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True, scope="session")
def sessions_of_tests_are_their_own(tmp_path_factory):
    """Keep them out of the list of the user's running sessions."""
    before = os.environ.get("PELLUCID_RUNTIME")
    os.environ["PELLUCID_RUNTIME"] = str(tmp_path_factory.mktemp("sessions"))
    yield
    if before is None:
        del os.environ["PELLUCID_RUNTIME"]
    else:
        os.environ["PELLUCID_RUNTIME"] = before


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """Fail a test that leaves a thread of pellucid or a child process running."""
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    yield
    end = time.monotonic() + 5
    while time.monotonic() < end:
        threads = [t.name for t in threading.enumerate() if t.name.startswith("pellucid")]
        processes = [
            p for p in psutil.Process().children(recursive=True) if p.pid not in children and "pellucid" in _line(p)
        ]
        if not threads and not processes:
            return
        time.sleep(0.05)
    for process in processes:
        process.kill()
    assert not threads, f"threads left behind: {threads}"
    assert not processes, f"processes left behind: {processes}"


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
