"""Parameters that change while frames flow: which frame is made with what, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import pellucid
from pellucid.errors import ConfigError, PellucidError, StageError
from tests.controls.runs import OWN, PARTS, SHAPE, config, deconvolve, plain


def changed(table, at, *changes):
    """Run a config, change it when frame `at` has come, and return the frames and the report."""
    frames = {}
    with pellucid.open(table) as session:
        for frame in session:
            frames[frame.info.seq] = frame["restored"]
            if frame.info.seq == at:
                session.set(*changes)
    return frames, session.report


def assert_made_with(frames, before, after, first):
    assert len(frames) == 60
    for number, plane in frames.items():
        np.testing.assert_array_equal(plane, (before if number < first else after)[number], err_msg=str(number))


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("stages.0.iterations=7", {"iterations": 7}),
        ("deconvolve.background=50", {"background": 50}),
        ("stages.0.psf.fwhm_px=4.5", {"psf": {"kind": "gaussian", "fwhm_px": 4.5}}),
        ("stages.0.method=wiener", {"method": "wiener"}),
    ],
)
def test_the_stamp_is_the_first_frame_of_the_new_parameters(change, keys, tmp_path):
    rest = {} if "method" not in keys else {"iterations": None}
    first = {k: v for k, v in deconvolve(**rest).items() if v is not None}
    frames, report = changed(config(tmp_path, first), 20, change)
    (row,) = report["changes"]
    assert row["what"] == "stages.0." + change.partition("=")[0].partition(".")[2].removeprefix("0.")
    assert (row["by"], row["stream"], row["stage"]) == ("python", 0, "deconvolve")
    assert 20 < row["frame"] < 60
    assert row["to"] == (keys[row["what"].split(".")[2]] if "psf" not in keys else 4.5)
    before, after = plain(config(tmp_path, first)), plain(config(tmp_path, {**first, **keys}))
    assert not np.array_equal(before[0], after[0])
    assert_made_with(frames, before, after, row["frame"])
    assert report["frames"]["processed"] == 60
    assert report["frames"]["unaccounted"] == 0


def test_several_changes_and_back_again(tmp_path):
    table, frames = config(tmp_path, deconvolve()), {}
    with pellucid.open(table) as session:
        for frame in session:
            frames[frame.info.seq] = frame["restored"]
            if frame.info.seq == 10:
                session.set({"stages.0.iterations": 4, "stages.0.background": 90.0})
            elif frame.info.seq == 30:
                session.set("stages.0.iterations=2", "stages.0.background=100.0")
    rows = session.report["changes"]
    assert [row["what"] for row in rows] == 2 * ["stages.0.iterations", "stages.0.background"]
    assert [(row["from"], row["to"]) for row in rows] == [(2, 4), (100.0, 90.0), (4, 2), (90.0, 100.0)]
    first, _, last, _ = (row["frame"] for row in rows)
    assert 10 < first <= 30 < last < 60
    one, other = plain(table), plain(config(tmp_path, deconvolve(iterations=4, background=90.0)))
    for number, plane in frames.items():
        np.testing.assert_array_equal(plane, (other if first <= number < last else one)[number])


def test_a_stage_that_is_off_passes_planes_by_in_the_unit_of_its_result(tmp_path):
    frames, raws = {}, {}
    with pellucid.open(config(tmp_path, deconvolve(output="uint16", scale=4.0))) as session:
        for frame in session:
            frames[frame.info.seq], raws[frame.info.seq] = frame["restored"], frame["raw"]
            if frame.info.seq == 10:
                session.set("stages.0.on=false")
            elif frame.info.seq == 30:
                session.set("stages.0.on=true")
    off, on = (row["frame"] for row in session.report["changes"])
    restored = plain(config(tmp_path, deconvolve(output="uint16", scale=4.0)))
    assert 10 < off <= 30 < on < 60
    for number, plane in frames.items():
        passed = np.clip((raws[number].astype(np.float64) - 100) * 4, 0, 65535).astype(np.uint16)
        np.testing.assert_array_equal(plane, passed if off <= number < on else restored[number])


def test_a_stage_that_is_off_in_the_config_can_be_switched_on(tmp_path):
    frames, report = changed(config(tmp_path, deconvolve(on=False)), 20, "deconvolve.on=true")
    (row,) = report["changes"]
    off, on = plain(config(tmp_path, deconvolve(on=False))), plain(config(tmp_path, deconvolve()))
    assert off[3].dtype == np.float32
    assert_made_with(frames, off, on, row["frame"])


def test_only_the_stage_that_changes_is_made_anew(tmp_path):
    """One that looks back over frames goes on with those that it saw."""
    plugins = {"plugins": [OWN.as_posix()]}
    frames, report = changed(config(tmp_path, deconvolve(), {"kind": "sum"}, **plugins), 20, "stages.0.iterations=5")
    (row,) = report["changes"]
    before, after = plain(config(tmp_path, deconvolve())), plain(config(tmp_path, deconvolve(iterations=5)))
    total = np.zeros(SHAPE, np.float32)
    for number in range(60):
        total += (before if number < row["frame"] else after)[number]
        np.testing.assert_array_equal(frames[number], total)


def test_parameters_that_broke_a_chain_can_be_mended(tmp_path):
    table = config(tmp_path, {"kind": "scale", "factor": 2.0}, plugins=[PARTS.as_posix()])
    came, step = [], 0
    with pellucid.open(table) as session:
        for frame in session:
            came.append("restored" in frame.planes)
            if step == 0 and frame.info.seq == 10:
                session.set("scale.factor=inf")
                step = 1
            elif step == 1 and not came[-1]:
                session.set("scale.factor=3.0")
                step = 2
    bad, good = (row["frame"] for row in session.report["changes"])
    assert came == [not bad <= number < good for number in range(60)]
    assert session.report["frames"]["unaccounted"] == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("stages.0.iteration=3", 'no such key. Did you mean "iterations"'),
        ("stages.0.iterations=0", "greater than or equal to 1"),
        ("stages.0.iterations=many", "stages[0].iterations"),
        ("stages.3.iterations=3", "Stages: stages.0 (deconvolve)"),
        ("stages.0.reads=raw", "cannot be changed while the session runs"),
        ("stages.0.output=uint16", "cannot be changed while the session runs"),
        ("source.fps=3", "while a session runs the keys of its stages can be changed"),
        ("stages.0.psf.fwhm_px=40", "larger than the frame"),
        ("stages.0.order=3", "stages[0] deconvolve"),
        ("iterations", "give key=value"),
    ],
)
def test_nonsense_is_refused_in_one_line_and_the_old_one_runs_on(change, says, tmp_path):
    table, frames = config(tmp_path, deconvolve(method="richardson-lucy")), {}
    with pellucid.open(table) as session:
        for frame in session:
            frames[frame.info.seq] = frame["restored"]
            if frame.info.seq == 10:
                with pytest.raises(PellucidError) as caught:
                    session.set(change)
                assert says in str(caught.value)
                assert "\n" not in str(caught.value)
    assert session.report["changes"] == []
    assert_made_with(frames, plain(table), {}, 60)


def test_what_is_so_already_changes_nothing(tmp_path):
    with pellucid.open(config(tmp_path, deconvolve())) as session:
        assert session.set("stages.0.iterations=2") == "stages.0.iterations: as it was before"


def test_a_run_that_is_over_takes_no_change(tmp_path):
    with pellucid.open(config(tmp_path, deconvolve(), fps=1000.0)) as session:
        for _ in session:
            pass
        with pytest.raises(StageError, match="the run is over"):
            session.set("stages.0.iterations=3")


def test_a_change_that_no_frame_reaches_is_not_in_the_ledger(tmp_path):
    session = pellucid.open(config(tmp_path, deconvolve()))
    with session:
        assert session.set("stages.0.iterations=3") == "stages.0.iterations 2 -> 3, from the next frame on"
    assert session.session.ledger.changes == []


def test_a_stage_that_doubles_the_pixels_cannot_be_off(tmp_path):
    plugins = {"plugins": [OWN.as_posix()]}
    broken = pellucid.open(config(tmp_path, {"kind": "twice", "on": False}, **plugins))
    with pytest.raises(PellucidError, match="cannot be off"):
        broken.__enter__()
    session = pellucid.open(config(tmp_path, {"kind": "twice"}, **plugins))
    with session, pytest.raises(PellucidError, match="cannot be off"):
        session.set("twice.on=false")


def test_streams_are_stamped_each_for_itself(tmp_path):
    table = config(tmp_path, {"kind": "scale", "factor": 2.0}, plugins=[PARTS.as_posix()])
    table["source"] = {"kind": "counting", "frames": 200, "cameras": 2, "every_s": 0.004, "height": 8, "width": 8}
    frames = []
    with pellucid.open(table) as session:
        for frame in session:
            frames.append((frame.info.seq, frame.info.stream, frame["restored"][0, 0] / frame["raw"][0, 0]))
            if frame.info.seq == 50:
                session.set("scale.factor=5.0")
    first = {row["stream"]: row["frame"] for row in session.report["changes"]}
    assert set(first) == {0, 1}
    for number, stream, factor in frames:
        assert factor == (5.0 if number >= first[stream] else 2.0), number


def test_on_wants_true_or_false(tmp_path):
    with pytest.raises(ConfigError, match=r"stages\[0\].on = 3: true or false"):
        pellucid.open(config(tmp_path, deconvolve(on=3)))
