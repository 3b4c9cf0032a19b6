"""A screen that goes away during a run: the window ends, one line says so, the run goes on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from real_window import BOTH, RAW, RESTORED, gone, square, wait_for

pytestmark = pytest.mark.screen


@pytest.fixture
def own_screen(monkeypatch):
    """A virtual screen of this test alone, which may be killed."""
    program = shutil.which("Xvfb")
    if program is None or sys.platform != "linux":
        pytest.skip("there is no Xvfb here")
    reads, writes = os.pipe()
    server = subprocess.Popen(
        [program, "-displayfd", str(writes), "-screen", "0", "1280x800x24"],
        pass_fds=(writes,), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writes)
    with os.fdopen(reads) as line:
        number = line.readline().strip()  # complete only with its end of line
    monkeypatch.setenv("DISPLAY", f":{number}")
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    for other in ("XAUTHORITY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(other, raising=False)
    yield server
    server.kill()
    server.wait()


def test_a_lost_screen_is_one_line_and_the_run_goes_on(own_screen, session):
    one = session([BOTH])
    pixels = {"raw": square(RAW, 80, 20), "restored": square(RESTORED, 20, 50)}
    one.write_until_drawn(pixels)
    own_screen.kill()

    def told() -> list[str]:
        one.write(pixels)  # a frame that nobody can draw any more is nobody's error
        return one.ledger.notes

    (note,) = wait_for(told)
    # Mesa may crash on its way out where Xlib ends the process at once.
    assert re.fullmatch(r"window: it ended with (1|-\d+) \(its screen is gone\); the run goes on", note)
    assert not one.sink.closed_by_user
    skipped = one.sink.skipped
    one.write(pixels)
    assert one.sink.skipped == skipped + 1
    one.close()
    assert gone(one.process)
