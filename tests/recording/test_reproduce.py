"""Raw frames through the recorded config once more: the restored ones, bit for bit, or which are not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import pytest
import typer
import zarr
from typer.testing import CliRunner

from pellucid import recording_command
from pellucid.errors import ConfigError, SinkError, SourceError, StageError
from pellucid.recording.recover import recover
from pellucid.recording.verify import verify
from pellucid.reproduce import reproduce
from tests.recording.made_recordings import (
    COLOUR,
    DECONVOLVE,
    EXPERIMENT,
    PARTS,
    SCALE,
    SIMULATED,
    STACKS,
    record,
    rows,
    write_rows,
)

DENOISE = 'kind = "restore"\nmodel = "denoise"\nengine = "openvino"'
TRAIL = 'kind = "trail"\nhistory = 3'


@pytest.fixture(scope="module")
def denoised(tmp_path_factory):
    pytest.importorskip("openvino", reason='openvino is not installed: pip install "pellucid[openvino]"')
    return record(tmp_path_factory.mktemp("denoised") / "rec", SIMULATED, DECONVOLVE, DENOISE)


@pytest.fixture(scope="module")
def trailed(tmp_path_factory):
    return record(tmp_path_factory.mktemp("trailed") / "rec", SIMULATED, TRAIL)


def test_a_network_that_follows_its_frames_gives_the_same_bits(denoised):
    told = []
    found = reproduce(denoised, lambda done, total: told.append((done, total)))
    assert (found.frames, found.different, found.untold, found.elsewhere) == (12, [], 0, [])
    assert told[-1] == (12, 12)
    (line,) = found.lines()
    assert line.startswith(
        "12 of 12 restored frames are the same as when they were recorded, bit for bit (deconvolve on torch "
    )
    assert "restore on openvino" in line


@pytest.mark.parametrize(
    ("source", "stages", "session", "keys", "frames"),
    [
        (EXPERIMENT, [TRAIL], "", {}, 23),
        (STACKS, [TRAIL, 'kind = "soften"'], 'unit = "stack"', {}, 5),
        (COLOUR, [DECONVOLVE], "", {}, 3),
        ('kind = "counting"\nframes = 10\ncameras = 2\nheight = 8\nwidth = 8', [TRAIL], "", {}, 10),
        (SIMULATED, [TRAIL], "", {"part_frames": 5, "compression": "zstd"}, 12),
        (
            'kind = "changing"\nsteps = [["a", "b", 16, 16, "uint16", 4], ["a", "b", 8, 8, "uint8", 3]]',
            [SCALE],
            "",
            {},
            7,
        ),
        (SIMULATED, [f'{SCALE}\nwrites = "half"', 'kind = "soften"\nreads = "raw"'], "", {}, 12),
    ],
    ids=["experiment", "stacks", "colour", "cameras", "parts", "a camera that changes", "two planes"],
)
def test_whatever_the_chain_was_given_it_is_given_again(source, stages, session, keys, frames, tmp_path):
    rec = record(tmp_path / "rec", source, *stages, session=f'restore = "every"\n{session}', **keys)
    found = reproduce(rec)
    assert (found.frames, found.different, found.untold) == (frames, [], 0)


def test_frames_that_skipped_the_chain_are_not_given_to_it(tmp_path):
    source = 'kind = "counting"\nframes = 40\nlive = true\nevery_s = 0.002\nheight = 8\nwidth = 8'
    rec = record(tmp_path / "rec", source, f"{SCALE}\nslow_s = 0.01", TRAIL, session='restore = "latest"')
    restored = [row for row in rows(rec) if row["state"] == "processed"]
    assert 3 < len(restored) < 40
    found = reproduce(rec)
    assert (found.frames, found.different) == (len(restored), [])


def test_other_stages_give_other_frames(trailed, tmp_path):
    rec = shutil.copytree(trailed, tmp_path / "rec")
    text = (rec / "config.toml").read_text()
    (rec / "config.toml").write_text(text.replace("history = 3", "history = 2"))
    found = reproduce(rec)
    assert found.different == list(range(1, 12))  # the first has none before it
    assert found.frames == 12
    assert 0 < found.largest < 10
    (line, second) = found.lines()
    assert line.startswith("1 of 12 restored frames are the same")
    assert second.startswith("  different: frames 1, 2, 3,")


def test_a_restored_frame_that_was_altered_is_told_by_its_number(trailed, tmp_path):
    rec = shutil.copytree(trailed, tmp_path / "rec")
    changed = rows(rec)
    changed[5]["xxh3"]["restored"] = "0" * 16
    write_rows(rec, changed)
    found = reproduce(rec)
    assert found.different == [5]
    assert found.largest == 0.0  # only the checksum was


def test_what_depends_on_a_frame_that_is_not_recorded_cannot_be_told(trailed, denoised, tmp_path):
    for i, (given, untold) in enumerate([(trailed, [6, 7, 8]), (denoised, list(range(6, 12)))]):
        rec = shutil.copytree(given, tmp_path / str(i))
        changed = rows(rec)
        for key in ("at", "xxh3"):
            del changed[5][key]
        changed[5] |= {"index": None, "not_recorded": "raw: disk too slow"}
        write_rows(rec, changed)
        found = reproduce(rec)
        assert found.different == []
        assert found.untold == len(untold)
        assert found.first_untold == 6
        assert found.frames == 11 - len(untold)
        assert list(found.lines())[-1].startswith(f"  from frame 6 on {len(untold)} frames cannot be told")


def test_another_engine_and_another_processor_are_told(denoised, tmp_path):
    rec = shutil.copytree(denoised, tmp_path / "rec")
    about, report = (json.loads((rec / name).read_text()) for name in ("recording.json", "report.json"))
    about["hashes"]["stages"][0][1]["engine"]["library"] = "openvino 1.0"
    report["hardware"]["processor"] = "an abacus"
    (rec / "recording.json").write_text(json.dumps(about))
    (rec / "report.json").write_text(json.dumps(report))
    first, second = reproduce(rec).elsewhere
    assert first.startswith("restore: engine.library was openvino 1.0 when it was recorded, here it is openvino 20")
    assert second.startswith("processor was an abacus when it was recorded")


def test_an_engine_that_was_left_open_is_the_one_that_ran(tmp_path):
    rec = record(tmp_path / "rec", SIMULATED, 'kind = "restore"\nmodel = "denoise"\nengine = "torch"')
    text = (rec / "config.toml").read_text()
    (rec / "config.toml").write_text(text.replace('engine = "torch"', 'engine = { kind = "auto", bound = 0.02 }'))
    found = reproduce(rec)
    assert (found.frames, found.different, found.elsewhere) == (12, [], [])
    assert "restore on torch" in found.engines[0]


def test_raw_that_was_altered_is_said_and_nothing_compared(trailed, tmp_path):
    rec = shutil.copytree(trailed, tmp_path / "rec")
    zarr.open_array(str(rec / "raw.ome.zarr/0"), mode="r+")[4, 0, 0, 0] = 1
    with pytest.raises(SourceError, match="raw frame 4 is not there as it was recorded"):
        reproduce(rec)


def test_what_cannot_be_reproduced_is_one_line(trailed, tmp_path):
    rec = shutil.copytree(trailed, tmp_path / "rec")
    good = (rec / "config.toml").read_text()
    (rec / "config.toml").write_text(good.replace('kind = "trail"', 'kind = "trial"'))
    with pytest.raises(ConfigError, match='Did you mean "trail"'):
        reproduce(rec)
    (rec / "config.toml").write_text(
        f'plugins = ["{PARTS}"]\n[source]\nkind = "gone"\n[[stages]]\n{SCALE}\nraise_at = 2'
    )
    with pytest.raises(StageError, match="the recorded stages do not work here"):
        reproduce(rec)
    about = json.loads((rec / "recording.json").read_text())
    (rec / "recording.json").write_text(json.dumps(about | {"state": "recording"}))
    with pytest.raises(SinkError, match="was not ended"):
        reproduce(rec)
    raw_only = record(tmp_path / "raw", SIMULATED)
    with pytest.raises(SinkError, match="has no restored frames"):
        reproduce(raw_only)


def test_a_run_that_was_killed_is_recovered_verified_and_reproduced(tmp_path):
    config, rec = tmp_path / "run.toml", tmp_path / "rec"
    config.write_text(
        '[source]\nkind = "simulated"\nshape = [48, 64]\nfps = 100\non_full = "wait"\n'
        f"[[stages]]\n{DECONVOLVE}\n"
        f'[[sinks]]\nkind = "recorder"\npath = "{rec.as_posix()}"\ncommit_every_s = 0.1\n'
        '[session]\nthreads = 1\nrestore = "every"\n'
    )
    with subprocess.Popen([sys.executable, "-m", "pellucid", "run", str(config)], stdout=subprocess.DEVNULL) as run:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            journal = rec / "journal"
            if journal.exists() and journal.read_bytes().count(b'"restored"') > 30:
                break
            time.sleep(0.02)
        run.kill()
    with pytest.raises(SinkError, match="pellucid recover"):
        reproduce(rec)
    kept = recover(rec)
    assert kept.recorded > 15
    assert verify(rec).faults == []
    found = reproduce(rec)
    assert found.different == []
    assert found.frames >= 15


def test_the_commands_have_exit_codes(trailed, tmp_path):
    app = typer.Typer()
    for command in (recording_command.recover, recording_command.verify, recording_command.reproduce):
        app.command()(command)
    rec = str(shutil.copytree(trailed, tmp_path / "rec"))
    run = CliRunner().invoke
    for words, says in (
        (["recover", rec], "nothing to recover: the recording was ended properly"),
        (["verify", rec], "in order: 12 frames have a row each"),
        (["reproduce", rec], "12 of 12 restored frames are the same"),
    ):
        done = run(app, words)
        assert (done.exit_code, says in done.output) == (0, True), done.output
    array = zarr.open_array(f"{rec}/restored.ome.zarr/0", mode="r+")
    array[4, 0, 0, 0] = 1
    done = run(app, ["verify", rec])
    assert done.exit_code == 1
    assert "frame 4: restored.ome.zarr at t=4, c=0 is not what arrived" in done.output.replace("\n", " ")
    changed = rows(tmp_path / "rec")
    changed[5]["xxh3"]["restored"] = "0" * 16
    write_rows(tmp_path / "rec", changed)
    done = run(app, ["reproduce", rec])
    assert done.exit_code == 1
    assert "different: frame 5" in done.output
    for command in ("recover", "verify", "reproduce"):
        error = run(app, [command, str(tmp_path)]).exception
        assert isinstance(error, SinkError)
        assert error.exit_code == 2
