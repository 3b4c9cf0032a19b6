"""What is told beside the pictures: packed by the sink, read by the window, said in words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pellucid.ledger import Ledger, Recording
from pellucid.metrics import now_ns
from pellucid.protocols import Spec, Stream
from pellucid.sinks._window_note import WHY_SPEC, losses_of, told_of, write_note
from pellucid.viewer.names import names_of, title_of, where_taken
from pellucid.viewer.note import Note, read_note, told_losses

SPEC = Spec((4, 4), "uint16")


def sent(where: str = "", places=None, losses=None, **of_run) -> Note:
    plane = np.full(WHY_SPEC.shape, 255, WHY_SPEC.dtype)
    assert write_note(plane, where, places or {}, ({"losses": losses} if losses else {}) | of_run)
    return read_note(bytes(plane).split(b"\0", 1)[0].decode())


def ledger_of(*cameras: str) -> Ledger:
    ledger = Ledger()
    for index, camera in enumerate(cameras):
        ledger.follow(Stream(SPEC, camera, index=index))
    return ledger


def test_nothing_to_tell_is_not_told():
    plane = np.zeros(WHY_SPEC.shape, WHY_SPEC.dtype)
    assert not write_note(plane, "", {}, told_of(ledger_of("cam")))
    assert not plane.any()
    assert read_note("") == Note()


def test_reasons_places_and_losses_arrive():
    ledger = ledger_of("left", "right")
    ledger.missing(0, 3, "dropped", "ring", 0)
    ledger.missing(3, 10, "lost", "camera buffer", 1)
    ledger.missing(13, 2, "lost", "wire")
    note = sent('stages[0] failed: "no memory" in µ', {"p": "Well Ä1"}, losses_of(ledger))
    assert note.where == 'stages[0] failed: "no memory" in µ'
    assert note.places == {"p": "Well Ä1"}
    assert note.losses == {
        "dropped": {"left": {"ring": 3}},
        "lost": {"right": {"camera buffer": 10}, "unknown": {"wire": 2}},
    }
    assert told_losses(note.losses, 2) == "lost 12 (right camera buffer 10, unknown wire 2)   dropped 3 (left ring 3)"
    assert told_losses({"lost": {"cam": {"wire": 2}}}, 1) == "lost 2 (wire 2)"
    assert told_losses(None, 1) == told_losses({}, 1) == ""


def test_what_is_recorded_arrives():
    ledger = ledger_of("cam")
    ledger.recordings["a"] = Recording(False, switch=True, held_s=4.26, left_s=4000.2)
    assert sent(**told_of(ledger)).recording == {"on": False, "switch": True, "held_s": 4.3, "left_s": 4000}
    ledger.recordings["a"] = Recording(True, switch=True, frames=7, nbytes=3_000_000, left_s=4000.0, since_ns=now_ns())
    ledger.recordings["b"] = Recording(
        True, frames=9, nbytes=5_000_000, left_s=90.0, since_ns=now_ns() - 61_000_000_000
    )
    told = {"on": True, "switch": True, "frames": 9, "mb": 8, "for_s": 61, "left_s": 90}
    assert sent(**told_of(ledger)).recording == told
    ledger.recordings["a"] = Recording(False, failed=True)
    assert sent(**told_of(ledger)).recording["failed"] is True
    assert sent("why").recording is None  # not spoken of: the light stays as it is
    many = {"lost": {f"camera {i}": {"camera buffer": i} for i in range(1, 200)}}
    assert sent("busy", losses=many, recording=told).recording == told


def test_what_is_too_long_keeps_its_sums():
    cameras = {f"camera {i}": {"camera buffer": i, "ring": 1} for i in range(1, 200)}
    losses = sent("busy", {"p": "A1"}, {"lost": cameras}).losses
    assert losses == {"lost": {"all cameras": {"camera buffer": 19900, "ring": 199}}}
    places = {"cam": {f"place {i:050}": 1 for i in range(200)}}
    note = sent("w" * 9999 + "é", {}, {"lost": places, "dropped": places})
    assert note.losses == {"lost": {"all cameras": {"all": 200}}, "dropped": {"all cameras": {"all": 200}}}
    assert note.where == "w" * 500


@pytest.mark.parametrize("text", ["stage failed", "[1]", "5", '{"where": ', "null"])
def test_any_other_text_is_a_reason(text):
    assert read_note(text) == Note(text)


def test_places_in_the_order_of_the_experiment_counted_from_one():
    sizes = {"t": 60, "p": 3, "c": 2, "z": 7}
    stream = Stream(SPEC, sizes=sizes)
    axes = {"z": 2, "c": 1, "p": 0, "t": 11}
    assert where_taken(stream, axes, {"p": "A1"}) == "t 12/60   p A1 (1/3)   z 3/7"
    assert where_taken(stream, axes | {"g": 4}, {}) == "t 12/60   p 1/3   z 3/7   g 5"
    assert where_taken(Stream(SPEC), {"t": 11, "c": 0}, {}) == "t 12"
    assert where_taken(stream, None, {}) == ""


def test_names_tell_streams_apart():
    def of(*pairs: tuple[str, str]) -> list[str]:
        return names_of([Stream(SPEC, *pair, index=i) for i, pair in enumerate(pairs)])

    assert of(("a", "x")) == [""]
    assert of(("a", "x"), ("a", "y")) == ["x", "y"]
    assert of(("a", "x"), ("b", "x")) == ["a", "b"]
    assert of(("a", "x"), ("b", "y")) == ["a  x", "b  y"]
    assert of(("a", "x"), ("a", "x")) == ["stream 1", "stream 2"]
    streams = [Stream(SPEC, camera, channel) for camera in "ab" for channel in "xyz"]
    assert title_of(streams) == "a, b · x, y, z"
    assert title_of([Stream(SPEC, "a", "a")]) == "a"


def test_the_note_is_one_line_of_json():
    plane = np.zeros(WHY_SPEC.shape, WHY_SPEC.dtype)
    write_note(plane, "a\nb\0c", {}, {})
    text = bytes(plane).split(b"\0", 1)[0]
    assert json.loads(text) == {"where": "a\nb\0c"}
