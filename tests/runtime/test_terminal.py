"""What the terminal says of a run while it goes on and at its end."""

from __future__ import annotations

from pellucid.ledger import Ledger
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.runtime.report import make_report
from pellucid.terminal import LiveLine, console, print_summary

SPEC = Spec((4, 4), "uint16")


def line(*cameras: str, missing=()) -> str:
    ledger = Ledger()
    ledger.histogram("received")
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
