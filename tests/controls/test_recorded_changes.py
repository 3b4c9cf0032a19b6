"""What a recording knows of parameters that were changed while it was made, and what is done with that afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

import pellucid
from pellucid.errors import PellucidError, SinkError, StageError
from pellucid.recording.recover import recover
from pellucid.recording.verify import verify
from pellucid.reproduce import reproduce
from pellucid.wire.control_client import ControlClient
from tests.controls.runs import OWN, PARTS, config, deconvolve, movie

CHANGES = {10: "stages.0.iterations=5", 25: "stages.0.on=false", 40: ("stages.0.on=true", "sum.sign=-1.0")}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    table = config(
        folder,
        deconvolve(),
        {"kind": "sum"},
        plugins=[OWN.as_posix()],
        sinks=[{"kind": "recorder", "path": (folder / "rec").as_posix()}],
    )
    with pellucid.open(table) as session:
        for frame in session:
            if (change := CHANGES.get(frame.info.seq)) is not None:
                session.set(*([change] if isinstance(change, str) else change))
    return folder / "rec"


def lines(folder):
    return [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]


def test_the_changes_lie_beside_the_data(recording):
    told = lines(recording)
    assert told == json.loads((recording / "report.json").read_text())["changes"]
    assert [(row["what"], row["from"], row["to"]) for row in told] == [
        ("stages.0.iterations", 2, 5),
        ("stages.0.on", None, False),
        ("stages.0.on", False, True),
        ("stages.1.sign", None, -1.0),
    ]
    assert told[0]["is"]["iterations"] == 5
    assert told[1]["is"]["on"] is False
    assert told[2]["frame"] == told[3]["frame"]
    assert "iterations = 2" in (recording / "config.toml").read_text()
    assert json.loads((recording / "recording.json").read_text())["hashes"]["stages"][0][0]["iterations"] == 2


def test_it_is_verified_and_reproduced_bit_for_bit(recording):
    assert verify(recording).faults == []
    found = reproduce(recording)
    assert (found.frames, found.different, found.untold, found.elsewhere) == (60, [], 0, [])
    assert "  4 changes of parameters in changes.jsonl were made again, each at its frame" in list(found.lines())


def test_without_its_changes_it_differs_from_that_frame_on(recording, tmp_path):
    rec = shutil.copytree(recording, tmp_path / "rec")
    first = lines(rec)[0]["frame"]
    (rec / "changes.jsonl").unlink()
    assert reproduce(rec).different == list(range(first, 60))
    assert verify(rec).faults == ["changes.jsonl: 0 changes of parameters, report.json tells of 4"]


def test_a_frame_later_is_a_frame_that_differs(recording, tmp_path):
    rec = shutil.copytree(recording, tmp_path / "rec")
    rows = lines(rec)
    rows[1]["frame"] += 1
    (rec / "changes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # One frame went through the stage that should have been off, and is in the sums behind it until these begin anew.
    assert reproduce(rec).different == list(range(rows[1]["frame"] - 1, rows[3]["frame"]))


def test_rows_that_are_none_and_stages_that_are_not_here_are_one_line(recording, tmp_path):
    rec = shutil.copytree(recording, tmp_path / "rec")
    good = (rec / "changes.jsonl").read_text()
    (rec / "changes.jsonl").write_text("{]\n" + good)
    with pytest.raises(SinkError, match=r"changes.jsonl: line 1 is damaged"):
        reproduce(rec)
    (fault,) = verify(rec).faults
    assert fault.endswith("changes.jsonl: line 1 is damaged")
    (rec / "changes.jsonl").write_text(good + '{"frame": 50, "str')  # cut off by a crash: nothing was made with it
    assert reproduce(rec).different == []
    rows = lines_of(good)
    rows[0]["to"] = 10_000
    (rec / "changes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StageError, match=f"from frame {rows[0]['frame']} on the recorded stages do not open here"):
        reproduce(rec)


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_that_is_killed_after_a_change_knows_it(tmp_path):
    path, rec = tmp_path / "run.toml", tmp_path / "rec"
    path.write_text(
        f'[source]\nkind = "replay"\npath = "{movie(tmp_path).as_posix()}"\nfps = 100\non_full = "wait"\nloop = 0\n'
        '[[stages]]\nkind = "deconvolve"\npsf = { kind = "gaussian", fwhm_px = 3.0 }\niterations = 2\n'
        f'[[sinks]]\nkind = "recorder"\npath = "{rec.as_posix()}"\ncommit_every_s = 0.2\n'
        '[session]\nthreads = 1\nrestore = "every"\n'
    )
    with subprocess.Popen([sys.executable, "-m", "pellucid", "run", str(path)], stdout=subprocess.DEVNULL) as run:
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until and not written(rec) > 20:
                time.sleep(0.02)
            with ControlClient.find(str(run.pid)) as client:
                answer = client.ask("set", {"changes": ["deconvolve.iterations=4"], "by": "test"})
            assert answer["text"].startswith("stages.0.iterations 2 -> 4, from frame ")
            now = written(rec)
            while time.monotonic() < until and written(rec) < now + 20:
                time.sleep(0.02)
        finally:
            run.kill()
    recover(rec)
    (row,) = lines(rec)
    assert (row["what"], row["to"], row["by"]) == ("stages.0.iterations", 4, "test")
    assert verify(rec).faults == []
    found = reproduce(rec)
    assert found.different == []
    assert found.frames > row["frame"] > 0


def written(rec):
    journal = rec / "journal"
    return journal.read_bytes().count(b'"restored"') if journal.exists() else 0


def test_a_network_its_engine_and_what_it_adapts_by(tmp_path):
    pytest.importorskip("openvino", reason='openvino is not installed: pip install "pellucid[openvino]"')
    changes = {
        8: "restore.engine.kind=torch",
        25: "restore.adapt_frames=0",
        40: 'restore.normalise={ kind = "fixed", offset = 100, scale = 500 }',
    }
    rec = tmp_path / "rec"
    table = config(
        tmp_path,
        {"kind": "restore", "model": "denoise", "engine": {"kind": "openvino", "precision": "float32"}},
        sinks=[{"kind": "recorder", "path": rec.as_posix()}],
    )
    frames = {}
    with pellucid.open(table) as session:
        for frame in session:
            frames[frame.info.seq] = frame["restored"]
            if frame.info.seq in changes:
                with pytest.raises(PellucidError, match="precision"):
                    session.set("restore.engine.precision=half")
                text = changes[frame.info.seq]
                session.set({"restore.engine": "torch"} if "torch" in text else text)
    told = lines(rec)
    assert [row["what"] for row in told] == ["stages.0.engine", "stages.0.adapt_frames", "stages.0.normalise"]
    assert told[0]["is"]["engine"]["kind"] == "torch"
    assert (
        told[0]["is"]["model"]["sha256"]
        == json.loads((rec / "report.json").read_text())["streams"][0]["stages"][0]["model"]["sha256"]
    )
    assert not np.allclose(frames[told[2]["frame"]], frames[told[2]["frame"] - 1])
    found = reproduce(rec)
    assert (found.different, found.frames, found.elsewhere) == ([], 60, [])


def test_a_stream_that_begins_after_a_change_has_it_from_its_first_frame(tmp_path):
    rec = tmp_path / "rec"
    table = config(
        tmp_path,
        {"kind": "scale", "factor": 2.0},
        plugins=[PARTS.as_posix()],
        sinks=[{"kind": "recorder", "path": rec.as_posix()}],
    )
    steps = [["a", "b", 16, 16, "uint16", 30], ["a", "b", 8, 8, "uint16", 30]]
    table["source"] = {"kind": "changing", "steps": steps}
    table["session"]["slots"] = 4
    factors = {}
    with pellucid.open(table) as session:
        for frame in session:
            factors[frame.info.stream, frame.info.seq] = (frame["restored"] / np.maximum(frame["raw"], 1)).max()
            if frame.info.seq == 5:
                session.set("scale.factor=3.0")
    first, late = lines(rec)
    assert 5 < first["frame"] < 30
    assert (first["stream"], late["stream"], late["frame"], late["to"]) == (0, 1, 0, 3.0)
    assert {stream for stream, _ in factors} == {0, 1}
    for (stream, number), factor in factors.items():
        assert factor == (3.0 if stream or number >= first["frame"] else 2.0)
    assert reproduce(rec).different == []
    assert verify(rec).faults == []
