"""Marks of each frame and of each stream: where a frame was when, in its row and in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pellucid.config import Config
from pellucid.ledger import Ledger
from pellucid.live import make_session
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.recording.rows import frame_row
from pellucid.sinks._window_note import WHY_SPEC, told_of, write_note
from pellucid.terminal import console, print_summary
from pellucid.viewer.note import read_note

PARTS = (Path(__file__).parents[1] / "parts.py").as_posix()
STAGES = 'stages = [{ kind = "scale" }, { kind = "scale", slow_s = 0.004, cameras = ["cam0"] }]'


def run(folder: Path, source: str, stages: str = "", sinks: str = "") -> tuple[dict, list[dict]]:
    text = f"""
        plugins = ["{PARTS}"]
        {source}
        {stages}
        sinks = [{{ kind = "recorder", path = "{folder.as_posix()}" }}{sinks}]
        session = {{ threads = 1, restore = "every" }}
    """
    session = make_session(Config.parse(text), tell=lambda line: None)
    try:
        session.open()
        session.run()
    finally:
        session.close()
    return session.report, [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def marks_in(row: dict) -> dict[str, float]:
    return {key[:-3]: ms for key, ms in row.items() if key.endswith("_ms")}


def test_each_row_has_its_marks_and_each_stream_its_percentiles(tmp_path):
    """Two cameras: one passes both stages, the other one the first alone."""
    source = 'source = { kind = "counting", frames = 60, cameras = 2 }'
    report, rows = run(tmp_path / "rec", source, STAGES)
    ways = {
        0: ["received", "uploaded", "scale", "scale 1", "downloaded", "processed", "recorded"],
        1: ["received", "uploaded", "scale", "downloaded", "processed", "recorded"],
    }
    for row in rows:
        marks = marks_in(row)
        assert list(marks) == ways[row["stream"]]
        on_way = [ms for mark, ms in marks.items() if mark != "recorded"]
        assert on_way == sorted(on_way)
        if row["stream"] == 0:
            assert marks["scale 1"] - marks["scale"] >= 4.0
    for index, stream in enumerate(report["streams"]):
        mine = [marks_in(row) for row in rows if row["stream"] == index]
        for mark in ways[index]:
            told = stream["latency_ms"]["disk" if mark == "recorded" else mark]
            values = np.sort([marks[mark] for marks in mine])
            assert told["n"] == len(values) == 30
            assert told["max"] == pytest.approx(values[-1], abs=2e-3)
            for key, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                exact = values[int(np.ceil(q * len(values))) - 1]
                assert told[key] == pytest.approx(exact, rel=0.012, abs=2e-3), mark
    first, second = (stream["duration_ms"] for stream in report["streams"])
    assert list(first) == ["scale", "scale 1"]
    assert list(second) == ["scale"]
    assert first["scale 1"]["p50"] >= 4.0 * 0.99
    # The run's are those of both streams; of stages each has its own.
    latency = report["latency_ms"]
    assert {mark: latency[mark]["n"] for mark in ("received", "uploaded", "processed", "disk")} == dict.fromkeys(
        ("received", "uploaded", "processed", "disk"), 60
    )
    assert latency["processed"]["max"] == max(s["latency_ms"]["processed"]["max"] for s in report["streams"])
    for told in (latency, report["duration_ms"]):
        assert [told[name]["n"] for name in ("scale", "scale 1", "scale (stream 1)")] == [30, 30, 30]
    with console.capture() as got:
        print_summary(report)
    for stream in report["streams"]:
        told = got.get().split(f"{stream['camera']}, {stream['channel']}")[1].split("latency")[0]
        for mark, row in stream["latency_ms"].items():
            line = next(line.split("│")[1:-1] for line in told.splitlines() if line.startswith(f"│ {mark} "))
            assert [cell.strip() for cell in line[1:]] == [f"{row[key]:.2f}" for key in ("p50", "p95", "p99", "max")]


def test_a_frame_that_skips_the_stages_has_no_mark_of_them(tmp_path):
    source = 'source = { kind = "counting", frames = 20 }'
    report, rows = run(tmp_path / "rec", source, 'stages = [{ kind = "scale", raise_at = 8 }]')
    raw = [row for row in rows if row["state"] == "raw_only"]
    assert len(raw) == 12
    assert all(list(marks_in(row)) == ["received", "recorded"] for row in raw)
    (stream,) = report["streams"]
    assert {mark: row["n"] for mark, row in stream["latency_ms"].items()} == {
        "received": 20,
        "uploaded": 8,
        "scale": 8,
        "downloaded": 8,
        "processed": 8,
        "disk_raw": 20,
        "disk": 8,
    }


def test_what_was_drawn_is_in_the_row_and_told_of_its_stream(tmp_path, screen):
    source = 'source = { kind = "simulated", frames = 60, shape = [64, 96], fps = 40 }'
    report, rows = run(tmp_path / "rec", source, 'stages = [{ kind = "scale" }]', ', { kind = "window" }')
    (stream,) = report["streams"]
    drawn = [row for row in rows if "displayed_ms" in row]
    assert report["frames"]["displayed"] == stream["latency_ms"]["display"]["n"] > 0
    assert len(drawn) <= report["frames"]["displayed"]
    # A row waits a second for its frame to be drawn, and for the window to say so; not longer.
    assert drawn or stream["latency_ms"]["display"]["max"] > 500
    assert all(row["displayed_ms"] > row["processed_ms"] for row in drawn)
    assert all(list(marks_in(row))[-1] == "displayed" for row in drawn)


def test_a_stage_that_is_called_like_a_mark_keeps_its_own():
    info = FrameInfo(3, camera_ns=1, received_ns=1_000_001, state="processed")
    info.uploaded_ns, info.downloaded_ns, info.processed_ns = 2_000_001, 5_000_001, 6_000_001
    info.stages, info.stages_ns = ("uploaded", "write", "not told"), (3_000_001, 4_000_001, 0)
    assert marks_in(frame_row(info, 0.0)) == {
        "received": 1.0,
        "uploaded": 2.0,
        "uploaded stage": 3.0,
        "write stage": 4.0,
        "downloaded": 5.0,
        "processed": 6.0,
    }


def test_the_window_is_told_medians_and_what_they_are_worth():
    ledger = Ledger()
    ledger.follow(Stream(Spec((4, 4), "uint16")))
    assert told_of(ledger) == {}
    for seq in range(100):
        ledger.arrived(FrameInfo(seq, camera_ns=1, received_ns=2_000_001, unsure_ns=150_000), 32)
        ledger.marks_of(0).display.add((5 if seq < 90 else 20) * 1_000_000)
    plane = np.zeros(WHY_SPEC.shape, np.uint8)
    assert write_note(plane, "", {}, told_of(ledger))
    note = read_note(bytes(plane[0][: list(plane[0]).index(0)]).decode())
    assert note.latency_ms == {"received": [2.0, 2.0], "display": [5.0, 20.0], "±": [0.15, 0.15]}
