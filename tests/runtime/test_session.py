"""The loop with real parts: what arrives where, in which state, when things fail."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import pellucid
from pellucid.config import Config
from pellucid.errors import PellucidError, RunError, SinkError
from pellucid.live import make_session
from pellucid.runtime.chain import Chain

PARTS = Path(__file__).parents[1] / "parts.py"


def run(text: str, expect: type[PellucidError] | None = None, wait_s: float = 0.0):
    config = Config.parse(f'plugins = ["{PARTS.as_posix()}"]\n{text}')
    session = make_session(config)
    session.open()
    try:
        if expect:
            with pytest.raises(expect) as caught:
                session.run()
            session.caught = str(caught.value)
        else:
            session.run()
    finally:
        for sink in config.sinks.values():
            if hasattr(sink, "go_on"):
                sink.go_on.set()
        session.close()
    time.sleep(wait_s)
    assert not [t for t in threading.enumerate() if t.name.startswith("pellucid") and "keep" not in t.name]
    return config, session


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def test_a_recorder_that_dies_leaves_no_frame_without_a_word(tmp_path):
    path = (tmp_path / "rec").as_posix()
    text = f"""
        source = {{ kind = "simulated", shape = [32, 40], fps = 100, frames = 150 }}
        stages = [{{ kind = "scale" }}]
        sinks = [{{ kind = "recorder", path = "{path}", shard_frames = 1, commit_every_s = 0.1 }}]
        """
    config = Config.parse(f'plugins = ["{PARTS.as_posix()}"]\n{text}')
    session = make_session(config)

    def unplug() -> None:
        while session.ledger.recorded < 20:
            time.sleep(0.01)
        (tmp_path / "rec").rename(tmp_path / "unplugged")

    session.open()
    threading.Thread(target=unplug, daemon=True).start()
    with pytest.raises(PellucidError, match="recorder"):
        session.run()
    session.close()
    frames = session.ledger.frames()
    assert frames["unaccounted"] == 0
    assert set(frames["not_recorded"]) <= {"the recorder had failed", "it could not be written"}
    missed = sum(frames["not_recorded"].values())
    assert 0 < frames["planes_not_recorded"]["raw"] == missed
    # At the most the write that failed is neither: it was begun, and nobody can say how far it came.
    assert 0 <= frames["received"] - frames["recorded"] - missed <= 1
    (recording,) = session.ledger.recordings.values()
    assert recording.failed


def test_every_frame_goes_through_every_stage_in_order():
    config, session = run(
        """
        source = { kind = "counting", frames = 50 }
        stages = [{ kind = "scale" }, { kind = "scale", factor = 3 }]
        sinks = [{ kind = "keep" }]
        session = { slots = 4 }
        """
    )
    got = config.sinks["keep"].got
    assert [seq for seq, _ in got] == list(range(50))
    for seq, planes in got:
        assert set(planes) == {"raw", "restored"}
        assert (planes["raw"] == seq + 1).all()
        assert (planes["restored"] == 6 * (seq + 1)).all()
    frames = session.report["frames"]
    assert frames["produced"] == frames["received"] == frames["processed"] == 50
    assert frames["unaccounted"] == 0
    assert session.report["latency_ms"]["scale"]["n"] == 50
    assert session.report["throughput"]["frames_per_s"] > 0


def test_a_named_plane_between_is_given_and_an_unnamed_one_is_not():
    config, _ = run(
        """
        source = { kind = "counting", frames = 3 }
        stages = [{ kind = "scale", writes = "double" }, { kind = "scale" }, { kind = "scale", reads = "double" }]
        sinks = [{ kind = "keep" }]
        """
    )
    assert all(set(p) == {"raw", "double", "restored"} for _, p in config.sinks["keep"].got)
    assert all((p["restored"] == 4 * p["raw"].astype(float)).all() for _, p in config.sinks["keep"].got)


@pytest.mark.parametrize("fault", ["raise_at", "nan_at"])
def test_a_failing_stage_makes_the_stream_raw_only_and_recording_goes_on(fault, tmp_path):
    _, session = run(
        f"""
        source = {{ kind = "counting", frames = 30 }}
        stages = [{{ kind = "scale", {fault} = 10 }}]
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        session = {{ slots = 4 }}
        """
    )
    frames = session.report["frames"]
    assert frames["recorded"] == 30
    assert frames["processed"] == 10
    assert sum(frames["raw_only"].values()) == 20
    assert frames["unaccounted"] == 0
    assert len(session.ledger.notes) == 1
    assert "stages[0] scale" in session.ledger.notes[0]
    import zarr

    raw = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")[:, 0]
    restored = zarr.open_array(tmp_path / "rec/restored.ome.zarr/0", mode="r")[:, 0]
    assert (raw == np.arange(1, 31)[:, None, None]).all()
    assert (restored[:10] == 2 * np.arange(1, 11)[:, None, None]).all()
    assert len(restored) == 30
    assert not restored[10:].any()
    states = [row["state"] for row in rows(tmp_path / "rec")]
    assert states == ["processed"] * 10 + ["raw_only"] * 20


def test_black_results_are_told_once():
    _, session = run(
        """
        source = { kind = "simulated", shape = [32, 40], fps = 1000, frames = 12, on_full = "wait" }
        stages = [{ kind = "deconvolve", background = 60000, psf = { kind = "gaussian", fwhm_px = 2 } }]
        sinks = [{ kind = "null" }]
        """
    )
    (note,) = session.report["notes"]
    assert "stream 0: stages[0] deconvolve returned a black picture" in note
    assert "background = 60000" in note
    assert session.report["frames"]["processed"] == 12


def test_an_empty_camera_run_still_closes(tmp_path):
    _, session = run(
        f"""
        source = {{ kind = "counting", frames = 0 }}
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        """
    )
    assert session.report["frames"]["produced"] == 0
    assert json.loads((tmp_path / "rec/report.json").read_text())["frames"]["unaccounted"] == 0


def test_a_slow_recorder_makes_a_live_source_drop_with_a_count():
    config, session = run(
        """
        source = { kind = "counting", frames = 60, live = true, every_s = 0.001 }
        sinks = [{ kind = "keep", slow_s = 0.01 }]
        session = { slots = 3 }
        """
    )
    frames = session.report["frames"]
    assert frames["dropped"]["ring"] > 0
    assert frames["produced"] == 60 == frames["received"] + frames["dropped"]["ring"]
    assert len(config.sinks["keep"].got) == frames["received"]
    assert frames["unaccounted"] == 0


def test_latest_skips_but_never_blocks():
    config, session = run(
        """
        source = { kind = "counting", frames = 60 }
        sinks = [{ kind = "keep" }, { kind = "keep", policy = "latest", slow_s = 0.02 }]
        session = { slots = 6 }
        """
    )
    assert len(config.sinks["keep"].got) == 60
    slow = session.report["sinks"]["keep 1"]
    assert slow["skipped"] > 0
    assert slow["offered"] == 60 == slow["written"] + slow["skipped"]
    shown = [seq for seq, _ in config.sinks["keep 1"].got]
    assert shown == sorted(shown)
    assert session.report["frames"]["unaccounted"] == 0


def test_restore_latest_keeps_raw_at_full_rate():
    config, session = run(
        """
        source = { kind = "counting", frames = 80, live = true, every_s = 0.002 }
        stages = [{ kind = "scale", slow_s = 0.03 }]
        sinks = [{ kind = "keep", early = true }]
        session = { slots = 8, restore = "latest" }
        """
    )
    raw = [seq for seq, p in config.sinks["keep"].got if "raw" in p]
    restored = [seq for seq, p in config.sinks["keep"].got if "restored" in p]
    frames = session.report["frames"]
    assert raw == list(range(80))
    assert 0 < len(restored) < 80
    assert frames["processed"] == len(restored)
    assert frames["raw_only"] == {"chain busy": 80 - len(restored)}
    assert frames["unaccounted"] == 0


def test_a_full_disk_ends_the_run_loudly():
    config, session = run(
        """
        source = { kind = "counting", frames = 500, every_s = 0.001 }
        sinks = [{ kind = "keep", fail_at = 5 }]
        session = { slots = 4 }
        """,
        RunError,
    )
    assert "No space left" in session.caught
    assert session.report["frames"]["received"] < 500
    assert session.report["frames"]["unaccounted"] == 0
    counts = session.report["sinks"]["keep"]
    assert counts["written"] == 5
    assert counts["lost"] == counts["offered"] - 5
    assert config.sinks["keep"].closed == 1


def test_a_stalled_recorder_ends_the_run_loudly():
    _, session = run(
        """
        source = { kind = "counting", frames = 500, live = true, every_s = 0.01 }
        sinks = [{ kind = "keep", stall_at = 3 }]
        session = { slots = 4, stall_s = 0.5 }
        """,
        RunError,
    )
    assert "has not taken a frame" in session.caught
    assert session.report["frames"]["unaccounted"] == 0


def test_frames_and_stop_give_exact_counts():
    config, session = run(
        """
        source = { kind = "counting", frames = 500 }
        stages = [{ kind = "scale" }]
        sinks = [{ kind = "keep" }]
        session = { frames = 33 }
        """
    )
    assert len(config.sinks["keep"].got) == 33
    assert session.report["frames"]["unaccounted"] == 0
    assert session.report["ended"] == "33 frames"


def test_two_cameras_are_two_streams(tmp_path):
    _, session = run(
        f"""
        source = {{ kind = "counting", frames = 20, cameras = 2 }}
        stages = [{{ kind = "scale" }}]
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        """
    )
    import zarr

    first = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")[:, 0, 0, 0]
    second = zarr.open_array(tmp_path / "rec/raw-cam1-1.ome.zarr/0", mode="r")[:, 0, 0, 0]
    assert first.tolist() == list(range(1, 21, 2))
    assert second.tolist() == list(range(2, 21, 2))
    assert session.report["frames"]["unaccounted"] == 0


def test_raw_is_recorded_before_a_stage_is_done_with_it():
    """A stage that takes its time keeps no raw frame from the sinks that want it early."""
    config, session = run(
        """
        source = { kind = "counting", frames = 4 }
        stages = [{ kind = "scale", slow_s = 0.3 }]
        sinks = [{ kind = "keep", early = true }]
        """
    )
    order = [(seq, next(iter(planes))) for seq, planes in config.sinks["keep"].got]
    assert order[:4] == [(0, "raw"), (1, "raw"), (2, "raw"), (3, "raw")]
    assert [name for _, name in order[4:]] == ["restored"] * 4
    assert session.report["frames"]["processed"] == 4


def test_a_stage_that_works_in_place_does_not_reach_the_recording(tmp_path):
    run(
        f"""
        source = {{ kind = "counting", frames = 20 }}
        stages = [{{ kind = "scale", in_place = true }}]
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        session = {{ slots = 4 }}
        """
    )
    import zarr

    raw = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")[:, 0]
    assert (raw == np.arange(1, 21)[:, None, None]).all()


def test_a_source_that_breaks_off_ends_the_run_with_its_reason():
    _, session = run(
        """
        source = { kind = "counting", frames = 50, break_at = 7 }
        stages = [{ kind = "scale" }]
        sinks = [{ kind = "keep" }]
        """,
        RunError,
    )
    assert session.caught == "the source broke off: ValueError: the cable was pulled"
    assert session.report["frames"]["processed"] == 7
    assert "the cable was pulled" in session.report["ended"]
    with (
        pellucid.open({"plugins": [str(PARTS)], "source": {"kind": "counting", "break_at": 3}}) as live,
        pytest.raises(RunError, match="the cable was pulled"),
    ):
        list(live)


def test_a_source_that_cannot_be_closed_costs_no_recording(tmp_path):
    _, session = run(
        f"""
        source = {{ kind = "counting", frames = 5, break_close = true }}
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        """
    )
    assert any("could not be closed" in note for note in session.ledger.notes)
    assert len(rows(tmp_path / "rec")) == 5
    assert json.loads((tmp_path / "rec/report.json").read_text())["frames"]["recorded"] == 5


def test_a_frame_that_stands_still_in_a_stage_is_counted():
    _, session = run(
        """
        source = { kind = "counting", frames = 3 }
        stages = [{ kind = "scale", slow_s = 1.2 }]
        sinks = [{ kind = "keep" }]
        session = { stall_s = 0.3, slots = 3, seconds = 0.1 }
        """,
        wait_s=2.0,  # the stage comes back to a run that is over
    )
    frames = session.report["frames"]
    assert frames["unaccounted"] == 0
    assert frames["raw_only"]["chain stalled"] >= 1


class Delayed(Chain):
    """A chain whose results come later, as those of a GPU do; the stages run on the CPU."""

    @property
    def waits(self) -> bool:
        return True

    def finish(self, slot) -> str | None:
        time.sleep(0.03)
        return super().finish(slot)


def test_results_that_come_later_hold_no_raw_frame_up(monkeypatch):
    """On a GPU frames wait where no policy reaches them, so few may be under way."""
    import pellucid.runtime.session

    monkeypatch.setattr(pellucid.runtime.session, "Chain", Delayed)
    config, session = run(
        """
        source = { kind = "counting", frames = 80, live = true, every_s = 0.003 }
        stages = [{ kind = "scale" }]
        sinks = [{ kind = "keep", early = true }]
        session = { slots = 12 }
        """
    )
    frames = session.report["frames"]
    assert frames["dropped"] == {}
    assert [seq for seq, planes in config.sinks["keep"].got if "raw" in planes] == list(range(80))
    assert 0 < frames["processed"] < 80
    assert frames["raw_only"] == {"chain busy": 80 - frames["processed"]}
    assert frames["unaccounted"] == 0


def test_two_cameras_under_back_pressure_lose_nothing():
    config, session = run(
        """
        source = { kind = "counting", frames = 200, cameras = 2 }
        stages = [{ kind = "scale" }]
        sinks = [{ kind = "keep", slow_s = 0.001 }]
        session = { slots = 3 }
        """
    )
    assert sorted(seq for seq, _ in config.sinks["keep"].got) == list(range(200))
    assert session.report["frames"]["unaccounted"] == 0


def test_a_finished_session_can_be_iterated_again():
    with pellucid.open({"plugins": [str(PARTS)], "source": {"kind": "counting", "frames": 3}}) as live:
        assert len(list(live)) == 3
        assert list(live) == []


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "rec").mkdir()
    (tmp_path / "rec/precious").write_text("data")
    config = Config.parse(
        f"""
        plugins = ["{PARTS.as_posix()}"]
        source = {{ kind = "counting" }}
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        """
    )
    session = make_session(config)
    with pytest.raises(SinkError, match=r"recorder: path = .* exists and is never overwritten"):
        session.open()
    assert [p.name for p in (tmp_path / "rec").iterdir()] == ["precious"]


def test_what_fails_to_open_leaves_nothing_behind(tmp_path):
    recorder = f'{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}'
    config = Config.parse(
        f"""
        plugins = ["{PARTS.as_posix()}"]
        source = {{ kind = "counting" }}
        sinks = [{recorder}, {{ kind = "keep", fail_open = true }}]
        """
    )
    session = make_session(config)
    with pytest.raises(SinkError, match="keep: it is broken"):
        session.open()
    assert list(tmp_path.iterdir()) == []


def test_five_lines_of_python():
    text = {
        "plugins": [str(PARTS)],
        "source": {"kind": "counting", "frames": 12},
        "stages": [{"kind": "scale"}],
    }
    with pellucid.open(text) as session:
        seen = [(frame.info.seq, float(frame["restored"].mean()), frame.stream.pixel_um) for frame in session]
    assert seen == [(i, 2.0 * (i + 1), 0.1) for i in range(12)]
    assert session.report["frames"]["unaccounted"] == 0


def test_leaving_the_loop_early_ends_the_run():
    text = {"plugins": [str(PARTS)], "source": {"kind": "counting", "frames": 100000}}
    with pellucid.open(text) as session:
        for frame in session:
            if frame.info.seq == 5:
                break
    assert session.report["ended"] == "stopped from Python"
    assert session.report["frames"]["unaccounted"] == 0
