"""What every test is held to: no thread and no process of ours is left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
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
def windows_of_tests_remember_nothing():
    """What the user likes, and what another test has chosen, must not decide what a test sees."""
    before = os.environ.get("PELLUCID_SETTINGS")
    os.environ["PELLUCID_SETTINGS"] = "off"
    yield
    if before is None:
        del os.environ["PELLUCID_SETTINGS"]
    else:
        os.environ["PELLUCID_SETTINGS"] = before


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


@pytest.fixture(scope="session")
def screen():
    """A screen for the tests that need one: a virtual one where there is Xvfb, so that no window pops up."""
    if sys.platform != "linux":
        yield
        return
    pytest.importorskip("vispy", reason='needs vispy: pip install "pellucid[window]"')
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            pytest.skip("needs a screen: install Xvfb, or set DISPLAY")
        yield
        return
    told, tell = os.pipe()
    server = subprocess.Popen(
        [xvfb, "-displayfd", str(tell), "-screen", "0", "1600x1000x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[tell],
        stderr=subprocess.DEVNULL,
    )
    os.close(tell)
    with os.fdopen(told) as line:
        number = line.readline().strip()  # complete only with its end of line; empty where the server died
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", f":{number}")
        patch.setenv("QT_QPA_PLATFORM", "xcb")
        patch.delenv("WAYLAND_DISPLAY", raising=False)
        if number:
            yield
    server.terminate()
    server.wait()
    if not number:
        pytest.fail("Xvfb did not start")


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
        line = " ".join(process.cmdline())
        # The one that starts the children of tests of faults stays for the next; what it imported has our name.
        return "" if "multiprocessing.forkserver" in line else line
    except psutil.Error:
        return ""
