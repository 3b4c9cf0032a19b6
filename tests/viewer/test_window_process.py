"""The real process on a virtual screen, fed by the sink over the wire; what it shows is read back as pixels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from real_window import BOTH, FOOTER, HEADER, RAW, RESTORED, SIZE, blocks, gone, picture, place, square, wait_for
from x11 import close_windows_titled

from pellucid.metrics import now_ns
from pellucid.protocols import Spec
from pellucid.sinks.window import Window
from pellucid.testing import check_sink

pytestmark = [pytest.mark.screen, pytest.mark.usefixtures("screen")]


def test_both_panes_show_what_was_sent(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png")
    info = one.write_until_drawn({"raw": square(RAW, 80, 20), "restored": square(RESTORED, 20, 50, 500.0, 100.0)})
    one.close()

    seen = picture(tmp_path / "window.png")
    assert seen.shape == (SIZE[1], SIZE[0], 3)
    # Neither mirrored, nor turned, nor mixed up; grey is linear between the limits.
    assert seen[place(0, 90, 30)].tolist() == [255] * 3
    for x, y in ((90, 60), (30, 30), (30, 60), (75, 30), (105, 30), (90, 15), (90, 45)):
        assert seen[place(0, x, y)].tolist() == [0] * 3, (x, y)
    assert seen[place(1, 30, 60)] == pytest.approx([127.5] * 3, abs=3)
    for x, y in ((90, 30), (30, 40), (15, 60), (45, 60)):
        assert seen[place(1, x, y)] == pytest.approx([25.5] * 3, abs=3), (x, y)

    # Drawn after the camera had it and before this moment, and counted once.
    assert info.camera_ns < info.displayed_ns < now_ns()
    assert one.ledger.displayed == one.sink.drawn == sum(i.displayed_ns > 0 for i in one.infos) > 0
    assert gone(one.process)


def test_one_pane_where_there_is_no_restored_plane(session, tmp_path):
    one = session([{"raw": RAW}], screenshot=tmp_path / "window.png")
    one.write_until_drawn({"raw": square(RAW, 50, 35)})
    one.close()
    seen = picture(tmp_path / "window.png")
    assert seen[place(0, 60, 45, columns=1)].tolist() == [255] * 3
    assert seen[place(0, 60, 25, columns=1)].tolist() == [0] * 3


def test_a_narrow_window_is_as_narrow_as_asked(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png", size=(320, 240))
    one.write_until_drawn({"raw": square(RAW, 50, 35), "restored": square(RESTORED, 50, 35)})
    one.close()
    assert picture(tmp_path / "window.png").shape == (240, 320, 3)


def test_two_streams_a_stack_and_a_type_without_a_texture(session, tmp_path):
    stack = Spec((5, 90, 120), "int16")
    one = session([BOTH, {"raw": stack, "restored": stack}], screenshot=tmp_path / "window.png")
    deep = np.full(stack.shape, -100, "int16")
    deep[2, 20:40, 80:100] = 1000  # in one plane of the stack only: shown as the brightest along z
    deep[4, 50:70, 20:40] = 500
    one.write_until_drawn({"raw": square(RAW, 80, 20), "restored": square(RESTORED, 20, 50)}, stream=0)
    one.write_until_drawn({"raw": deep, "restored": deep[::-1]}, stream=1)
    one.close()
    seen = picture(tmp_path / "window.png")
    two = {"rows": 2}
    assert seen[place(0, 90, 30, **two)].tolist() == [255] * 3
    assert seen[place(1, 30, 60, **two)].tolist() == [255] * 3
    for column in (0, 1):
        assert seen[place(column, 90, 30, row=1, **two)].tolist() == [255] * 3
        assert seen[place(column, 30, 60, row=1, **two)] == pytest.approx([127.5] * 3, abs=3)
        assert seen[place(column, 60, 45, row=1, **two)].tolist() == [0] * 3


def test_raw_only_is_said_over_the_pane(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png")
    one.write_until_drawn({"raw": square(RAW, 80, 20)}, where="stages[0] failed: no memory")
    one.close()
    seen = picture(tmp_path / "window.png")
    assert seen[place(0, 90, 30)].tolist() == [255] * 3
    top, left = place(1, 0, 0)
    pane = seen[top + 60 : -FOOTER, left:]
    amber = (pane[..., 0] > 150) & (pane[..., 2] < pane[..., 0] - 80)
    assert amber.sum() > 100  # letters in the middle of the empty pane
    state = seen[:HEADER, SIZE[0] // 2 :]
    assert ((state[..., 0] > 150) & (state[..., 2] < state[..., 0] - 80)).sum() > 100


def test_a_burst_is_not_queued_and_the_newest_is_on_the_screen(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png")
    shades = np.linspace(100, 800, 60)
    for shade in shades:
        one.write({"raw": np.full(RAW.shape, shade, "uint16"), "restored": np.full(RESTORED.shape, shade, "float32")})
    assert one.sink.skipped > 0  # faster than any screen, and none of them waited
    last = {"raw": np.full(RAW.shape, 900, "uint16"), "restored": np.full(RESTORED.shape, 900, "float32")}
    one.write_until_drawn(last)
    one.close()
    seen = picture(tmp_path / "window.png")
    for column in (0, 1):
        assert seen[place(column, 60, 45)] == pytest.approx([229.5] * 3, abs=3)
    drawn = [info for info in one.infos if info.displayed_ns]
    stamps = [info.displayed_ns for info in drawn]
    assert stamps == sorted(stamps)
    assert one.sink.drawn == len(drawn) <= len(one.infos) - one.sink.skipped


def test_max_fps_leaves_frames_out_evenly(session):
    one = session(max_fps=10)
    pixels = {"raw": square(RAW, 0, 0), "restored": square(RESTORED, 0, 0)}
    end = now_ns() + 10**9
    while now_ns() < end:
        one.write(pixels)
        time.sleep(0.002)
    assert 1 <= len(one.infos) - one.sink.skipped <= 12


def test_a_frame_that_was_overtaken_brings_only_what_is_newer(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png")
    shade = {level: {n: np.full(s.shape, level, s.dtype) for n, s in BOTH.items()} for level in (200, 500)}
    early = one.take()
    # The chain still works on this frame while later ones, which found it busy, go past it.
    later = one.write_until_drawn({"raw": shade[500]["raw"]}, where="chain busy")
    wait_for(lambda: one.sink.finish() or one.give(early, shade[200]) or early.displayed_ns)
    skipped = one.sink.skipped
    one.give(early, shade[200])
    one.give(later, {"raw": shade[200]["raw"]})
    assert one.sink.skipped == skipped + 2
    one.close()
    seen = picture(tmp_path / "window.png")
    assert seen[place(0, 60, 45)] == pytest.approx([127.5] * 3, abs=3)
    assert seen[place(1, 60, 45)] == pytest.approx([51] * 3, abs=3)


def test_cameras_that_fire_together_are_both_shown(session):
    one = session([{"raw": RAW}, {"raw": RAW}], max_fps=5)
    pixels = {"raw": square(RAW, 0, 0)}

    for stream in (0, 1):
        one.write_until_drawn(pixels, stream)
    wait_for(lambda: one.sink.finish() or not one.sink._link.waits)
    time.sleep(0.5)  # longer than between two frames at max_fps: both are due
    skipped = one.sink.skipped
    for stream in (0, 1):
        one.write(pixels, stream)
    assert one.sink.skipped == skipped


def test_it_keeps_the_contract_of_a_sink():
    check_sink(Window)


def test_the_user_closes_the_window_and_the_run_goes_on(session):
    one = session()
    pixels = {"raw": square(RAW, 0, 0), "restored": square(RESTORED, 0, 0)}
    one.write_until_drawn(pixels)
    assert close_windows_titled("specimen") == 1
    wait_for(lambda: one.sink.closed_by_user)
    before = one.sink.skipped
    for _ in range(3):
        one.write(pixels)
    assert one.sink.skipped == before + 3
    assert one.ledger.notes == ["window: it was closed; the run goes on"]
    one.close()
    assert gone(one.process)


def test_a_killed_window_disturbs_nothing(session):
    one = session()
    pixels = {"raw": square(RAW, 0, 0), "restored": square(RESTORED, 0, 0)}
    one.write_until_drawn(pixels)
    shared = blocks(one.process)
    one.process.kill()
    for _ in range(5):
        one.write(pixels)
    wait_for(lambda: one.ledger.notes)
    one.write(pixels)
    assert not one.sink.closed_by_user
    assert len(one.ledger.notes) == 1
    assert "the run goes on" in one.ledger.notes[0]
    # Its memory is nobody's any more, before the end of the run already.
    assert shared
    assert not blocks(psutil.Process()) & shared
    one.close()
    assert gone(one.process)
    wait_for(lambda: not any(os.path.exists(path) for path in shared))


def test_a_window_that_is_told_to_end_saves_its_picture(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png")
    one.write_until_drawn({"raw": square(RAW, 80, 20), "restored": square(RESTORED, 20, 50)})
    one.process.terminate()
    wait_for(lambda: one.ledger.notes)
    assert one.ledger.notes == ["window: it was closed; the run goes on"]
    assert picture(tmp_path / "window.png")[place(0, 90, 30)].tolist() == [255] * 3


def test_a_window_that_stands_still_holds_nobody_up(session):
    one = session()
    pixels = {"raw": square(RAW, 0, 0), "restored": square(RESTORED, 0, 0)}
    one.write_until_drawn(pixels)
    shared = blocks(one.process)
    one.process.send_signal(signal.SIGSTOP)
    drawn = one.sink.drawn
    began = now_ns()
    for _ in range(1000):
        one.write(pixels)
    # A thousand waits of any kind would be longer than this; without them it is a tenth of a second.
    assert now_ns() - began < 20 * 10**9
    assert one.sink.skipped >= 1000 - 4
    one.sink.finish()
    assert one.sink.drawn <= drawn + 4
    assert one.ledger.notes == []
    one.close()
    assert gone(one.process)
    wait_for(lambda: not any(os.path.exists(path) for path in shared))


def test_a_session_that_is_killed_takes_its_window_with_it():
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import real_window as t;"
        "s = t.Session(); s.write_until_drawn({'raw': t.square(t.RAW, 0, 0), 'restored': t.square(t.RESTORED, 0, 0)});"
        "print(s.process.pid, flush=True); time.sleep(100)"
    )
    session = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert session.stdout is not None
    with session.stdout as pipe:
        window = psutil.Process(int(pipe.readline()))
        assert window.is_running()
        session.kill()
        session.wait()
    wait_for(lambda: not window.is_running() or window.status() == psutil.STATUS_ZOMBIE)
