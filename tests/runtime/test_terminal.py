"""What the terminal says of a run while it goes on and at its end."""

from __future__ import annotations

from pellucid.ledger import Ledger
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.runtime.report import make_report
from pellucid.terminal import LiveLine, console, print_summary

SPEC = Spec((4, 4), "uint16")


def line(*cameras: str, missing=()) -> str:
    ledger = Ledger()
    for i, camera in enumerate(cameras):
        ledger.follow(Stream(SPEC, camera=camera, index=i))
    ledger.arrived(FrameInfo(0, camera_ns=1, received_ns=2), 32)
    ledger.ended(FrameInfo(0), "processed")
    for told in missing:
        ledger.missing(1, *told)
    with console.capture() as got:
        print_summary(
            make_report(ledger, {"version": "0", "ended": "x", "config_sha256": "", "hardware": {}, "streams": []})
        )
    line.summary = got.get()
    return str(LiveLine(ledger)._line())


def test_a_loss_is_told_under_its_name():
    assert "dropped 0  lost 0" in line("cam")
    text = line("cam", missing=[(3, "lost", "camera buffer", 0), (2, "lost", "wire", -1), (4, "dropped", "ring", 0)])
    assert "dropped 4 (ring 4)  lost 5 (camera buffer 3, wire 2)" in text
    for words in ("3 at camera buffer", "2 at wire", "4 at ring"):
        assert words in line.summary


def test_a_loss_is_told_with_its_camera_where_there_are_several():
    text = line("left", "right", missing=[(3, "lost", "camera", 1), (2, "lost", "wire", -1)])
    assert "lost 5 (right camera 3, unknown wire 2)" in text
    assert "4 produced" not in line.summary
    assert "right" in line.summary
    assert "3 produced, 0 processed, 3 lost at camera" in " ".join(line.summary.split())


def test_what_was_not_recorded_is_told_of_frames_and_of_planes():
    ledger = Ledger()
    ledger.follow(Stream(SPEC, camera="cam"))
    for seq in range(3):
        ledger.arrived(FrameInfo(seq, camera_ns=1, received_ns=2), 32)
        ledger.ended(FrameInfo(seq), "processed")
    ledger.unrecorded(FrameInfo(0), "disk too slow", ("raw",))
    for seq in range(2):
        ledger.unrecorded(FrameInfo(seq), "disk too slow", ("restored",))
    about = {"version": "0", "ended": "x", "config_sha256": "", "hardware": {}, "streams": []}
    report = make_report(ledger, about)
    assert report["frames"]["not_recorded"] == {"disk too slow": 1}
    assert report["frames"]["planes_not_recorded"] == {"raw": 1, "restored": 2}
    with console.capture() as got:
        print_summary(report)
    summary = " ".join(got.get().split())
    assert "1 frames: disk too slow; their rows say which" in summary
    assert "2 restored planes; their rows say which, and why" in summary
    assert "raw planes" not in summary
    assert "not recorded 1 (disk too slow 1)" in str(LiveLine(ledger)._line())
