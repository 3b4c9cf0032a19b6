"""A screen for the tests that need one: a virtual one where there is Xvfb, so that no window pops up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def screen():
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


@pytest.fixture
def session():
    from real_window import Session

    opened: list[Session] = []

    def make(*args, **keys) -> Session:
        opened.append(Session(*args, **keys))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
