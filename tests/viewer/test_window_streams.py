"""Streams that begin or change while the real window runs, colour, places of an experiment, and losses."""

from __future__ import annotations

import signal
import sys
import time

import numpy as np
import pytest
import tomlkit
from real_window import BOTH, FOOTER, RAW, SIZE, picture, place, square, wait_for

from pellucid.config import Config
from pellucid.live import make_session
from pellucid.metrics import now_ns
from pellucid.protocols import Spec
from pellucid.viewer.look import LOSS

pytestmark = [pytest.mark.screen, pytest.mark.usefixtures("screen")]

WIDE = {"raw": Spec((60, 160), "uint8"), "restored": Spec((60, 160), "float32")}
COLOUR = {"raw": Spec((3, 90, 120), "uint8", axes="cyx"), "restored": Spec((3, 90, 120), "float32", axes="cyx")}


def both(planes, x: int, y: int, value: float = 1000):
    return {name: square(spec, x, y, value) for name, spec in planes.items()}


def reddish(pixels: np.ndarray) -> int:
    wanted = [int(LOSS[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(axis=-1) < 40).sum())


def test_a_stream_that_changed_takes_its_row_and_nothing_of_the_old_one_stays(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png", contrast=[0, 200])
    one.write_until_drawn({name: np.full(spec.shape, 200, spec.dtype) for name, spec in BOTH.items()})
    late = one.take()
    changed = one.extend(WIDE, camera="cam0", replaces=0)
    skipped = one.sink.skipped
    one.give(late, both(BOTH, 0, 0))  # a frame of before that comes after all
    assert one.sink.skipped == skipped + 1
    info = one.write_until_drawn(both(WIDE, 120, 20, 200), changed)
    assert info.displayed_ns > info.camera_ns
    one.close()
    seen = picture(tmp_path / "window.png")
    shape = WIDE["raw"].shape
    for column in (0, 1):
        assert seen[place(column, 130, 30, shape=shape)].tolist() == [255] * 3
        assert seen[place(column, 60, 30, shape=shape)].tolist() == [0] * 3
        top, left = place(column, 80, 0, shape=shape)
        assert seen[top - 20, left].tolist() == [0] * 3  # the old picture was higher
    assert one.ledger.notes == []


def test_a_new_stream_gets_a_row_of_its_own(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png")
    one.write_until_drawn(both(BOTH, 80, 20))
    new = one.extend(BOTH)
    one.write_until_drawn(both(BOTH, 20, 50), new)
    one.write_until_drawn(both(BOTH, 80, 20))
    one.close()
    seen = picture(tmp_path / "window.png")
    for column in (0, 1):
        assert seen[place(column, 90, 30, rows=2)].tolist() == [255] * 3
        assert seen[place(column, 30, 60, rows=2)].tolist() == [0] * 3
        assert seen[place(column, 30, 60, row=1, rows=2)].tolist() == [255] * 3
        assert seen[place(column, 90, 30, row=1, rows=2)].tolist() == [0] * 3


@pytest.mark.parametrize("plane", ["restored", "denoised"])
def test_a_plane_that_only_a_later_stream_has_is_shown(session, tmp_path, plane):
    config = '[[stages]]\nkind = "x"\nwrites = "denoised"\nchannels = ["FITC"]\n'
    one = session([{"raw": RAW}], config=config, screenshot=tmp_path / "window.png")
    one.write_until_drawn({"raw": square(RAW, 0, 0)})
    planes = {"raw": RAW, plane: RAW}
    one.write_until_drawn(both(planes, 50, 35), one.extend(planes, camera="cam0", replaces=0))
    one.close()
    seen = picture(tmp_path / "window.png")
    assert seen[place(0, 60, 45)].tolist() == seen[place(1, 60, 45)].tolist() == [255] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be stopped there")
def test_a_window_that_stands_still_does_not_hold_up_a_new_stream(session):
    one = session()
    one.write_until_drawn(both(BOTH, 0, 0))
    one.process.send_signal(signal.SIGSTOP)
    began = now_ns()
    for replaced in range(20):
        changed = one.extend(WIDE, camera="cam0", replaces=replaced)
        skipped = one.sink.skipped
        one.write(both(WIDE, 0, 0, 200), changed)
        assert one.sink.skipped == skipped + 1
    assert now_ns() - began < 10**9  # it waits for nothing: an answer of the window would be seconds away
    one.process.send_signal(signal.SIGCONT)
    one.write_until_drawn(both(WIDE, 0, 0, 200), changed)
    assert one.ledger.notes == []


def test_colours_are_where_they_belong_and_share_their_limits(session, tmp_path):
    one = session([COLOUR], screenshot=tmp_path / "window.png", contrast={"raw": [0, 250], "restored": [0, 500]})
    pixels = {name: np.zeros(spec.shape, spec.dtype) for name, spec in COLOUR.items()}
    for i in range(3):
        pixels["raw"][i, :, 40 * i : 40 * i + 40] = 250
        pixels["restored"][i, :, 40 * i : 40 * i + 40] = 250.0
    pixels["raw"][:, 60:] = 125
    pixels["raw"][1, 60:] = 250
    one.write_until_drawn(pixels)
    one.close()
    seen = picture(tmp_path / "window.png")
    for i, x in enumerate((20, 60, 100)):
        wanted = np.eye(3)[i] * 255
        assert seen[place(0, x, 40)].tolist() == wanted.tolist()
        assert seen[place(1, x, 40)] == pytest.approx(wanted / 2, abs=3)
    assert seen[place(0, 60, 75)] == pytest.approx([127.5, 255, 127.5], abs=3)


def test_losses_are_red_also_when_no_frame_comes_any_more(session, tmp_path):
    one = session(screenshot=tmp_path / "window.png")
    one.write_until_drawn(both(BOTH, 0, 0))
    wait_for(lambda: one.sink._link._told.get("rates"))  # a word of its own, a second after the start
    skipped, shown = one.sink.skipped, one.sink._link._next
    one.ledger.missing(5, 3, "dropped", "ring", 0)
    one.ledger.missing(8, 12, "lost", "camera buffer", 0)
    wait_for(lambda: one.sink._link._next > shown)  # a word without pictures
    time.sleep(0.6)  # it is said once
    assert one.sink._link._next == shown + 1
    assert one.sink.skipped == skipped
    one.ledger.missing(20, 2, "lost", "wire", 0)  # at the very end
    one.close()
    seen = picture(tmp_path / "window.png")
    strip = seen[-FOOTER - 30 : -FOOTER]
    assert reddish(strip) > 200
    assert reddish(seen[: -FOOTER - 40]) == 0
    # As long as nothing was lost there is no strip: the pane reaches down to the footer.
    two = session(screenshot=tmp_path / "clean.png")
    two.write_until_drawn(both(BOTH, 0, 0))
    two.close()
    assert reddish(picture(tmp_path / "clean.png")) == 0


def test_a_run_whose_camera_changes_is_seen_in_the_window(screen, tmp_path):
    steps = [
        ["camA", "DAPI", 64, 96, "uint16", 30],
        ["camA", "DAPI", 48, 96, "uint16", 30],
        ["camB", "histology", 64, 96, "rgb", 400],  # on a busy machine the window needs a while to follow
        ["camA", "DAPI", 48, 96, "uint16", 400],
    ]
    config = {
        "plugins": ["tests/parts.py"],
        "source": {"kind": "changing", "steps": steps},
        "stages": [{"kind": "scale", "slow_s": 0.01}],
        "sinks": [{"kind": "window", "size": SIZE, "contrast": [0, 1], "screenshot": str(tmp_path / "window.png")}],
    }
    session = make_session(Config.parse(tomlkit.dumps(config), None, ()))
    session.open()
    try:
        report = session.run()
    finally:
        session.close()
    frames = report["frames"]
    assert (frames["processed"], frames["unaccounted"]) == (860, 0)
    assert [stream["replaces"] for stream in report["streams"]] == [None, 0, None]
    assert frames["displayed"] > 0
    assert not any("window" in note for note in report["notes"])
    seen = picture(tmp_path / "window.png")
    for column in (0, 1):
        assert seen[place(column, 48, 32, rows=2, shape=(48, 96))].tolist() == [255] * 3
        assert seen[place(column, 48, 32, row=1, rows=2, shape=(64, 96))].tolist() == [255] * 3
