"""Experiments of useq-schema on the real core of Micro-Manager, in this process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

import pellucid
from pellucid.config import Config
from pellucid.errors import ConfigError, SourceError
from pellucid.live import make_session
from pellucid.process.recorded import Recorded
from pellucid.sources._experiment import Experiment
from pellucid.testing import check_source
from tests.sources.core_parts import PATIENCE_S, SMALL, TWO_CAMERAS, Run, demo

pytest.importorskip("useq", reason="useq-schema is not installed: pip install pellucid[micromanager]")
pytest.importorskip("pycromanager", reason="pycromanager is not installed: pip install pellucid[micromanager]")
adapters = pytest.importorskip(
    "mm_test_adapters", reason="mm-test-adapters is not installed: pip install pellucid[demo]"
)

TWO = ["DAPI", {"config": "FITC", "exposure": 8}]


@pytest.fixture
def runs():
    made: list[Run] = []

    def make(sequence, *, slots: int = 4, **keys) -> Run:
        made.append(Run(demo(**{"properties": SMALL, **keys}, sequence=sequence), slots))
        return made[-1]

    yield make
    for run in made:
        run.close()


def play(run: Run) -> list[dict]:
    """Run it to its end; return the core's state at each picture that was snapped."""
    core, seen = run.core, []
    snap = core.snap_image

    def note():
        seen.append(
            {
                "x": round(core.get_x_position(), 1),
                "y": round(core.get_y_position(), 1),
                "z": round(core.get_position(), 1),
                "channel": core.get_current_config("Channel"),
                "exposure": core.get_exposure(),
                "open": core.get_shutter_open(),
                "auto": core.get_auto_shutter(),
            }
        )
        snap()

    core.snap_image = note
    run.start().take()
    del core.snap_image
    run.explained()
    return seen


def axes_of(run: Run) -> list[tuple[int, ...]]:
    return [tuple((info.axes or {}).values()) for info in run.infos]


# -------------------------------------------------------------------- what comes


def test_an_experiment_keeps_the_contract_and_every_frame_has_its_axes():
    sequence = {"channels": TWO, "z_plan": {"range": 4, "step": 2}, "time_plan": {"interval": 0, "loops": 2}}
    seen = check_source(lambda: demo(properties=SMALL, sequence=sequence), frames=100)
    first, second = seen.streams
    assert (first.channel, second.channel) == ("DAPI", "FITC")
    assert (first.exposure_ms, second.exposure_ms) == (5.0, 8.0)
    assert dict(first.sizes) == dict(second.sizes) == {"t": 2, "c": 2, "z": 3}
    assert list(first.sizes) == ["t", "c", "z"]
    assert first.names == {"c": ["DAPI", "FITC"]}
    assert (first.z_um, first.frames) == (2.0, 6)
    assert [info.axes for info in seen.infos] == [
        {"t": t, "c": c, "z": z} for t in range(2) for c in range(2) for z in range(3)
    ]
    assert [info.stream for info in seen.infos] == [0, 0, 0, 1, 1, 1] * 2
    assert seen.account.missed == []
    assert seen.account.produced == 12


def test_each_picture_is_taken_where_and_how_the_sequence_says(runs):
    sequence = {
        "axis_order": "pcz",
        "channels": TWO,
        "z_plan": {"range": 2, "step": 1},
        "stage_positions": [{"x": 10, "y": 20, "z": 5}, {"x": -30, "y": 4.5, "z": 7, "name": "edge"}],
    }
    run = runs(sequence)
    seen = play(run)
    assert run.stream.names == {"c": ["DAPI", "FITC"], "p": ["p0", "edge"]}
    wanted = [
        {"p": p, "c": c, "z": z, "at": (x, y, middle + dz), "channel": channel, "exposure": exposure}
        for p, (x, y, middle) in enumerate([(10, 20, 5), (-30, 4.5, 7)])
        for c, (channel, exposure) in enumerate([("DAPI", 5.0), ("FITC", 8.0)])
        for z, dz in enumerate([-1, 0, 1])
    ]
    for got, want, info in zip(seen, wanted, run.infos, strict=True):
        assert info.axes == {axis: want[axis] for axis in "pcz"}
        assert (got["x"], got["y"], got["z"]) == pytest.approx(want["at"], abs=0.05)
        assert (got["channel"], got["exposure"]) == (want["channel"], want["exposure"])


def test_a_stack_without_a_place_is_around_where_the_focus_is_at_the_start(runs):
    run = runs({"z_plan": {"range": 2, "step": 1}, "channels": ["DAPI"]}, focus_um=50.0)
    assert [round(s["z"]) for s in play(run)] == [49, 50, 51]


def test_a_grid_is_around_the_stage_and_its_fields_lie_side_by_side(runs):
    sequence = {"grid_plan": {"rows": 1, "columns": 3, "mode": "row_wise"}}
    run = runs(sequence, pixel_um=0.5)  # 128 pixels: 64 um
    run.core.set_xy_position(100.0, 40.0)
    run.core.wait_for_device("XY")
    seen = play(run)
    assert dict(run.stream.sizes) == {"g": 3}
    assert [s["x"] for s in seen] == pytest.approx([36.0, 100.0, 164.0], abs=0.1)
    assert [s["y"] for s in seen] == pytest.approx([40.0] * 3, abs=0.1)


def test_a_time_series_without_a_pause_runs_at_the_cameras_speed(runs):
    run = runs({"time_plan": {"interval": 0, "loops": 60}, "channels": ["DAPI"]}, exposure_ms=2.0)
    assert play(run) == []  # not one was snapped
    assert [info.camera_number for info in run.infos] == list(range(60))
    assert [info.axes["t"] for info in run.infos] == list(range(60))


def test_time_points_wait_for_their_time(runs):
    run = runs({"time_plan": {"interval": 0.15, "loops": 3}, "channels": TWO})
    play(run)
    first = [info.camera_ns for info in run.infos if info.stream == 0]
    assert np.all(np.diff(first) > 0.13e9)
    assert all(info.received_ns >= info.camera_ns for info in run.infos)


def test_an_interval_makes_a_slow_time_lapse_without_a_file():
    run = Run(demo(properties=SMALL, frames=3, interval_ms=120))
    run.start().take()
    run.explained()
    run.close()
    assert dict(run.stream.sizes) == {"t": 3}
    assert np.all(np.diff([info.camera_ns for info in run.infos]) > 0.1e9)


def test_an_experiment_waits_for_room_and_drops_nothing(runs):
    run = runs({"channels": TWO, "z_plan": {"range": 6, "step": 1}}, slots=1)
    assert run.source.live is False
    run.start(offer=False)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        assert run.source.read(0.02) is None
    run.offer_all()
    run.take()
    run.explained()
    assert (len(run.infos), run.account.missed) == (14, [])


# -------------------------------------------------------------------- ragged


def test_channels_that_skip_time_points_and_stacks_leave_holes(runs):
    sequence = {
        "channels": ["DAPI", {"config": "FITC", "do_stack": False, "acquire_every": 2}],
        "z_plan": {"range": 2, "step": 1},
        "time_plan": {"interval": 0, "loops": 2},
    }
    run = runs(sequence)
    play(run)
    assert dict(run.stream.sizes) == {"t": 2, "c": 2, "z": 3}
    assert [stream.frames for stream in run.streams] == [6, 1]
    assert axes_of(run) == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 0, 2)]


def test_a_position_with_a_sequence_of_its_own_has_its_place_among_the_others(runs):
    sequence = {
        "channels": ["DAPI", "FITC"],
        "z_plan": {"range": 2, "step": 1},
        "stage_positions": [
            {"x": 1, "y": 2, "z": 5},
            {"x": 0, "y": 0, "z": 9, "sequence": {"channels": ["Cy5"], "z_plan": {"range": 4, "step": 1}}},
        ],
    }
    run = runs(sequence)
    seen = play(run)
    assert [stream.channel for stream in run.streams] == ["DAPI", "FITC", "Cy5"]
    assert dict(run.stream.sizes) == {"p": 2, "c": 3, "z": 5}
    assert [stream.frames for stream in run.streams] == [3, 3, 5]
    assert [info.axes for info in run.infos if info.stream == 2] == [{"p": 1, "c": 2, "z": z} for z in range(5)]
    assert [s["z"] for s in seen[-5:]] == pytest.approx([7, 8, 9, 10, 11], abs=0.05)


def test_a_channel_may_have_a_shape_of_its_own(runs):
    channels = [{"config": "LowRes", "group": "Camera"}, {"config": "MedRes", "group": "Camera"}]
    run = runs({"channels": channels, "time_plan": {"interval": 0, "loops": 2}})
    play(run)
    assert [stream.spec.shape for stream in run.streams] == [(128, 128), (256, 256)]
    assert [stream.bit_depth for stream in run.streams] == [8, 10]
    assert [plane.shape for plane in run.planes] == [(128, 128), (256, 256)] * 2


def test_several_cameras_have_a_stream_for_each_channel(tmp_path):
    file = tmp_path / "two.cfg"
    file.write_text(
        TWO_CAMERAS + "Property,Core,Camera,Both\nConfigGroup,Light,a,Left,Gain,1\nConfigGroup,Light,b,Left,Gain,2\n"
    )
    keys = {"config": str(file), "adapters": Path(adapters.device_adapter_path())}
    channels = [{"config": name, "group": "Light"} for name in "ab"]
    run = Run(demo(**keys, sequence={"channels": channels, "time_plan": {"interval": 0, "loops": 3}}))
    run.start().take()
    run.explained()
    assert [(s.camera, s.channel) for s in run.streams] == [
        ("Left", "a"),
        ("Right", "a"),
        ("Left", "b"),
        ("Right", "b"),
    ]
    assert [info.stream for info in run.infos] == [0, 1, 2, 3] * 3
    run.close()


def test_several_cameras_in_a_burst(tmp_path):
    file = tmp_path / "two.cfg"
    file.write_text(TWO_CAMERAS + "Property,Core,Camera,Both\n")
    keys = {"config": str(file), "adapters": Path(adapters.device_adapter_path())}
    run = Run(demo(**keys, sequence={"time_plan": {"interval": 0, "loops": 10}}))
    run.start().take()
    run.explained()
    assert [[i.axes["t"] for i in run.infos if i.stream == n] for n in (0, 1)] == [list(range(10))] * 2
    run.close()


def test_a_preset_that_comes_twice_is_two_channels_with_a_number(runs):
    channels = [{"config": "DAPI", "exposure": 3}, {"config": "DAPI", "exposure": 9}]
    own = {"x": 1, "y": 1, "sequence": {"channels": ["Cy5", "DAPI", "Cy5"]}}
    run = runs({"channels": channels, "stage_positions": [{"x": 0, "y": 0}, own]})
    seen = play(run)
    assert [stream.channel for stream in run.streams] == ["DAPI", "DAPI 2", "Cy5", "Cy5 2"]
    assert run.stream.names["c"] == ["DAPI", "DAPI 2", "Cy5", "Cy5 2"]
    assert axes_of(run) == [(0, 0), (0, 1), (1, 2), (1, 0), (1, 3)]
    assert [s["exposure"] for s in seen[:2]] == [3.0, 9.0]
    assert [stream.exposure_ms for stream in run.streams[:2]] == [3.0, 9.0]


# -------------------------------------------------------------------- where it ends


@pytest.mark.parametrize("how", ["end", "stop", "close", "error"])
def test_all_goes_back_to_where_it_was(runs, how):
    sequence = {
        "channels": [{"config": "FITC", "exposure": 20}],
        "z_plan": {"range": 4, "step": 2},
        "stage_positions": [{"x": 100, "y": 50}, {"x": -30, "y": 20}] * 10,
    }
    if how == "error":
        sequence["stage_positions"][2] = {"x": 1, "y": 2, "z": 1e9}
    run = runs(sequence, focus_um=40.0)
    core = run.core
    core.set_xy_position(10.0, 20.0)
    core.wait_for_device("XY")
    core.set_config("Channel", "DAPI")
    core.wait_for_config("Channel", "DAPI")
    run.source._player.prepare()  # as in open
    run.start()
    if how == "error":
        with pytest.raises(SourceError, match=r"z = 1e\+09"):
            run.take()
    elif how == "close":
        run.take(4)
    elif how == "stop":
        run.take(4)
        run.finish()
    else:
        run.take()
    run.source._run.close()  # the devices are there still
    assert run.account.ignored == []
    at = (core.get_x_position(), core.get_y_position(), core.get_position())
    assert at == pytest.approx((10.0, 20.0, 40.0), abs=0.05)
    assert (core.get_current_config("Channel"), core.get_exposure()) == ("DAPI", 5.0)


def test_what_cannot_be_put_back_is_said_in_one_line(runs):
    run = runs({"stage_positions": [{"x": 100, "y": 50, "z": 3}]})
    core = run.core
    go = core.set_xy_position

    def refuse(*args):
        if len(run.infos) or core.get_position("Z") > 2:
            raise RuntimeError("the stage is\nstuck")
        go(*args)

    core.set_xy_position = refuse
    run.start().take()
    del core.set_xy_position
    run.explained()
    assert run.account.ignored == ["not put back after the experiment: the XY stage (the stage is stuck)"]
    assert round(core.get_position("Z")) == 0


# -------------------------------------------------------------------- shutters, focus, properties


def test_the_shutter_stays_open_within_a_stack_only_and_is_left_as_it_was(runs):
    sequence = {"channels": TWO, "z_plan": {"range": 2, "step": 1}, "keep_shutter_open_across": "z"}
    run = runs(sequence)
    core = run.core
    assert core.get_auto_shutter()
    seen = play(run)
    # Open, and not automatic, before each plane but the last of a stack, where it is open still.
    assert [(s["open"], s["auto"]) for s in seen] == [(True, False)] * 6
    assert (core.get_shutter_open(), core.get_auto_shutter()) == (False, True)


def test_a_shutter_that_is_held_open_is_closed_where_the_run_is_stopped(runs):
    sequence = {"z_plan": {"range": 200, "step": 1}, "channels": ["DAPI"], "keep_shutter_open_across": "z"}
    run = runs(sequence, exposure_ms=10.0)
    run.start().take(3)
    assert run.core.get_shutter_open()
    run.finish()
    assert (run.core.get_shutter_open(), run.core.get_auto_shutter()) == (False, True)
    assert len(run.infos) < 50


def test_stop_ends_a_long_wait_at_once(runs):
    run = runs({"time_plan": {"interval": 3600, "loops": 3}, "channels": ["DAPI"]})
    run.start().take(1)
    before = time.monotonic()
    run.finish()
    assert time.monotonic() - before < 5
    assert len(run.infos) == 1
    assert not run.core.is_sequence_running()


def test_stop_ends_a_burst_and_what_was_acquired_can_be_read(runs):
    run = runs({"time_plan": {"interval": 0, "loops": 100000}}, exposure_ms=2.0)
    run.start().take(20)
    run.finish()
    assert 20 <= len(run.infos) < 2000
    assert run.account.missed == []
    assert not run.core.is_sequence_running()


def test_close_in_the_middle_leaves_nothing_behind(runs):
    for sequence in (
        {"time_plan": {"interval": 0, "loops": 100000}},
        {"channels": TWO, "time_plan": {"interval": 60, "loops": 9}},
    ):
        run = runs(sequence)
        run.start().take(1)
        run.close()
        assert run.source.finished


def test_properties_and_roi_of_the_setup_are_set_before_anything_is_looked_at(runs):
    setup = {"properties": [["Camera", "PixelType", "8bit"]], "roi": [0, 0, 64, 32]}
    run = runs({"setup": setup, "channels": ["DAPI"]})
    assert (run.stream.spec.shape, run.stream.spec.dtype) == ((32, 64), "uint8")
    play(run)
    assert len(run.infos) == 1


def test_the_autofocus_is_asked_and_its_answer_holds_for_the_rest_of_the_position(runs):
    sequence = {
        "channels": ["DAPI", "FITC"],
        "stage_positions": [{"x": 0, "y": 0, "z": 10}, {"x": 1, "y": 1, "z": 20}],
        "autofocus_plan": {"autofocus_motor_offset": None, "axes": ["p"]},
    }
    run = runs(sequence)
    core, asked = run.core, []

    def full_focus():
        asked.append(round(core.get_position()))
        core.set_position("Z", core.get_position() + 3.0)  # as a device does that finds the specimen higher

    core.full_focus = full_focus
    seen = play(run)
    assert asked == [10, 20]
    assert [round(s["z"]) for s in seen] == [13, 13, 23, 23]


def test_a_focus_that_is_not_found_is_told_and_the_experiment_goes_on(runs):
    run = runs({"stage_positions": [{"z": 10}, {"z": 20}], "autofocus_plan": {"axes": ["p"]}})
    asked = []

    def full_focus():
        asked.append(1)
        raise RuntimeError("no reflection")

    run.core.full_focus = full_focus
    seen = play(run)
    assert len(asked) == 2 * 3
    assert run.account.ignored == ["autofocus failed 3 times: no reflection"] * 2
    assert [round(s["z"]) for s in seen] == [10, 20]


# -------------------------------------------------------------------- what is lost, and what changes


def test_an_overflow_in_a_burst_is_told_and_the_rest_is_acquired(runs):
    run = runs(
        {"time_plan": {"interval": 0, "loops": 90}}, buffer_mb=8, exposure_ms=1.0, properties={"Camera.FastImage": 1}
    )
    run.start(offer=False)
    until = time.monotonic() + PATIENCE_S
    while not run.core.is_buffer_overflowed():
        assert run.source.read(0.01) is None
        assert time.monotonic() < until
    run.offer_all()
    run.take()
    run.explained()
    assert set(run.places()) == {("lost", "camera buffer")}
    assert run.account.produced == 90
    came = [info.axes["t"] for info in run.infos]
    assert came == sorted(set(came))
    assert len(came) == 90 - run.places()["lost", "camera buffer"]


@pytest.mark.parametrize("interval", [0, 0.02], ids=["burst", "snaps"])
def test_a_change_of_the_roi_in_an_experiment_opens_a_new_stream_and_loses_nothing(runs, interval):
    run = runs({"time_plan": {"interval": interval, "loops": 30}}, exposure_ms=5.0)
    run.start().take(5)
    run.core.set_roi(0, 0, 64, 48)
    run.take()
    run.explained()
    assert [stream.spec.shape for stream in run.streams] == [(128, 128), (48, 64)]
    assert run.streams[1].replaces == 0
    assert run.account.missed == []
    assert [info.axes["t"] for info in run.infos] == list(range(30))
    assert run.numbers(1)


CHANGES = {
    "colours of as many bytes": ({"Camera.PixelType": "32bit"}, {"PixelType": "32bitRGB"}, None),
    "a ROI that moves": ({}, None, (32, 16, 64, 64)),
    "binning to the size of the ROI": ({}, {"Binning": "8"}, ()),
    "bits": ({"Camera.PixelType": "16bit"}, {"BitDepth": "12"}, None),
}


@pytest.mark.parametrize("interval", [0, 0.02], ids=["burst", "snaps"])
@pytest.mark.parametrize(("before", "now", "roi"), CHANGES.values(), ids=CHANGES)
def test_a_change_that_leaves_shape_and_bytes_opens_a_new_stream(runs, interval, before, now, roi):
    keys = {"exposure_ms": 5.0, "properties": SMALL | before, "pixel_um": 0.1}
    run = runs({"setup": {"roi": [0, 0, 64, 64]}, "time_plan": {"interval": interval, "loops": 30}}, **keys)
    run.start().take(5)
    core = run.core
    if core.is_sequence_running():
        core.stop_sequence_acquisition()
    if roi == ():
        core.clear_roi()
    for name, value in (now or {}).items():
        core.set_property("Camera", name, value)
    if roi:
        core.set_roi(*roi)
    run.take()
    run.explained()
    old, new = run.streams[0], run.streams[-1]
    assert run.account.missed == []
    assert run.numbers(new.index)
    assert new.replaces is not None
    assert new.spec.shape[-2:] == old.spec.shape[-2:] == (64, 64)
    corner = list(roi[:2]) if roi else [0, 0]
    assert (old.details["roi"], new.details["roi"]) == ([0, 0, 64, 64], [*corner, 64, 64])
    assert new.details["binning"] == core.get_property("Camera", "Binning")
    assert new.pixel_um == pytest.approx(0.2 if now == {"Binning": "8"} else 0.1)
    assert new.bit_depth == core.get_image_bit_depth()
    assert str(new.spec) == ("64x64 RGB uint8" if "PixelType" in (now or {}) else str(old.spec))


def test_a_picture_that_was_changed_under_the_camera_is_taken_again(runs):
    run = runs({"time_plan": {"interval": 0.02, "loops": 3}}, properties=SMALL | {"Camera.PixelType": "32bit"})
    core, snap, done = run.core, run.core.snap_image, []

    def change_in_between():
        snap()
        if len(done) == 1:
            core.set_property("Camera", "PixelType", "32bitRGB")
        done.append(1)

    core.snap_image = change_in_between
    run.start().take()
    del core.snap_image
    run.explained()
    assert len(done) == 4
    assert [str(run.streams[info.stream].spec) for info in run.infos] == ["128x128 float32"] + ["128x128 RGB uint8"] * 2


def test_a_camera_that_goes_ends_the_experiment_in_one_line(runs):
    run = runs({"time_plan": {"interval": 0.05, "loops": 100}})
    run.start().take(2)
    run.core.unload_device("Camera")
    with pytest.raises(SourceError, match="the camera is gone") as caught:
        run.take()
    assert "\n" not in str(caught.value)
    assert run.source.finished
    run.explained()
    assert run.account.complete is False


# -------------------------------------------------------------------- refusals


def refused(sequence, **keys) -> str:
    source = demo(**{"properties": SMALL, **keys}, sequence=sequence)
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ({"channels": ["DAPY"]}, ['group "Channel" has no channel "DAPY"', 'mean "DAPI"?', "There are: Cy5, DAPI"]),
        ({"channels": [{"config": "DAPI", "group": "Chanel"}]}, ['no config group "Chanel"', 'mean "Channel"?']),
        ({"chanels": ["DAPI"]}, ['no such key "chanels"', 'mean "channels"?', "Allowed: metadata"]),
        ({"channels": [{"config": "DAPI", "exposre": 3}]}, ["channels[0]", '"exposre"', 'mean "exposure"?']),
        ({"channels": [{"config": "DAPI", "camera": "Left"}]}, ["channels[0].camera", "cannot be played"]),
        ({"channels": [{"config": "DAPI", "exposure": -3}]}, ["channels", "greater than 0"]),
        ({"z_plan": {"range": 4, "stp": 1}}, ['z_plan: no such key "stp"', 'mean "step"?']),
        ({"time_plan": {"interval": 1, "lops": 1}}, ['time_plan: no such key "lops"', 'mean "loops"?']),
        ({"axis_order": "tcq", "channels": ["DAPI"]}, ["axis_order", "Can only iterate"]),
        ({"metadata": {"who": "me"}}, ["nothing to acquire"]),
        ({"grid_plan": {"rows": 2, "columns": 2}}, ["grid_plan needs the size of a field", "pixel_um"]),
        (
            {"setup": {"properties": [["Camra", "Gain", 1]]}, "channels": ["DAPI"]},
            ['property "Camra.Gain"', 'mean "Camera"?'],
        ),
        (
            {"channels": ["DAPI"], "stage_positions": [{"x": 1, "y": 1, "properties": [["Camera", "Gian", 1]]}]},
            ['property "Camera.Gian"', 'mean "Gain"?'],
        ),
        (
            {"setup": {"action": {"type": "custom", "name": "bleach"}}, "channels": ["DAPI"]},
            ['the action "bleach"', "cannot be played"],
        ),
    ],
)
def test_mistakes_in_a_sequence_are_said_in_one_line(sequence, says):
    keys = {"properties": SMALL | {"Objective.State": 5}} if "grid_plan" in sequence else {}
    text = refused(sequence, **keys)
    for part in says:
        assert part in text


@pytest.mark.parametrize(
    ("sequence", "says"),
    [
        ({"z_plan": {"range": 2, "step": 1}}, "no focus device"),
        ({"stage_positions": [{"x": 1, "y": 2}]}, "no XY stage"),
        ({"channels": ["DAPI"]}, 'no config group "Channel". There are: none'),
        ({"stage_positions": [{"z": 1}], "autofocus_plan": {"axes": ["p"]}}, "no"),
    ],
)
def test_what_the_microscope_has_not_is_said_before_anything_moves(tmp_path, sequence, says):
    file = tmp_path / "bare.cfg"
    file.write_text("Device,Camera,DemoCamera,DCam\nProperty,Core,Initialize,1\nProperty,Core,Camera,Camera\n")
    text = refused(sequence, config=str(file), adapters=Path(adapters.device_adapter_path()))
    assert says in text


def test_a_value_that_the_core_refuses_in_the_middle_ends_the_run_in_one_line(runs):
    run = runs({"channels": ["DAPI"], "stage_positions": [{"z": 1}, {"z": 1e9}]})
    run.start()
    with pytest.raises(SourceError, match=r"z = 1e\+09: Micro-Manager refuses") as caught:
        run.take()
    assert "\n" not in str(caught.value)
    run.explained()
    assert len(run.infos) == 1


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("no.yaml", None, "cannot read it: No such file"),
        ("bad.yaml", "channels: [DAPI\nz_plan: {", "not valid YAML"),
        ("bad.json", '{"channels": [', "not valid JSON"),
        ("list.yaml", "- DAPI\n- FITC\n", "is a table"),
        ("empty.yml", "", "is a table"),
        ("typo.yaml", "chanels: [DAPI]\n", 'no such key "chanels"'),
    ],
)
def test_files_that_are_no_sequences_are_said_in_one_line(tmp_path, name, text, says):
    if text is not None:
        (tmp_path / name).write_text(text)
    message = refused(str(tmp_path / name))
    assert says in message
    assert name in message


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('sequence = "x.yaml"\nframes = 3', "leave out frames"),
        ('sequence = "x.yaml"\ninterval_ms = 3', "leave out frames and interval_ms"),
        ("interval_ms = 100", "interval_ms needs frames"),
        ("sequence = 3", "sequence"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(line, says):
    with pytest.raises(ConfigError, match=says):
        Config.parse(f'[source]\nkind = "micromanager"\nconfig = "demo"\n{line}\n')


# -------------------------------------------------------------------- files and recordings


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_a_file_is_seen_from_the_folder_of_the_config(tmp_path, kind):
    table = {"channels": ["DAPI"], "z_plan": {"range": 2, "step": 1}}
    text = json.dumps(table) if kind == "json" else "channels: [DAPI]\nz_plan: {range: 2, step: 1}\n"
    (tmp_path / f"seq.{kind}").write_text(text)
    config = Config.parse(f'[source]\nkind = "micromanager"\nconfig = "demo"\nsequence = "seq.{kind}"\n', tmp_path)
    assert dict(Experiment.load(config.source.sequence).sizes) == {"c": 1, "z": 3}


def test_a_sequence_can_stand_in_the_config(tmp_path):
    text = '[source]\nkind = "micromanager"\nconfig = "demo"\n[source.sequence]\nchannels = ["DAPI"]\n'
    config = Config.parse(text, tmp_path)
    assert Experiment.load(config.source.sequence).pictures == 1


def test_a_recording_has_the_axes_of_the_experiment_and_holes_where_nothing_was_taken(tmp_path):
    config = Config.parse(
        f"""
[source]
kind = "micromanager"
config = "demo"
exposure_ms = 5
buffer_mb = 32
properties = {{ "Camera.Binning" = 4 }}
[source.sequence]
channels = ["DAPI", {{ config = "FITC", do_stack = false }}]
z_plan = {{ range = 4, step = 2 }}
time_plan = {{ interval = 0, loops = 2 }}
stage_positions = [{{ x = 0, y = 0, name = "left" }}, {{ x = 9, y = 9, name = "right" }}]
[[sinks]]
kind = "recorder"
path = "{(tmp_path / "rec").as_posix()}"
"""
    )
    session = make_session(config)
    session.open()
    try:
        report = session.run()
    finally:
        session.close()
    assert report["frames"]["unaccounted"] == 0
    assert report["frames"]["recorded"] == 2 * 2 * (3 + 1)
    group = zarr.open_group(tmp_path / "rec/raw.ome.zarr", mode="r")
    for name in ("left", "right"):
        array = group[f"{name}/0"][:]
        assert array.shape == (2, 2, 3, 128, 128)
        assert array[:, 0].any(axis=(-1, -2)).all()
        assert array[:, 1].any(axis=(-1, -2)).tolist() == [[False, True, False]] * 2
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    assert {tuple(row["axes"]) for row in rows} == {("t", "p", "c", "z")}


def record(folder, source: dict, *, stop_after: int | None = None):
    """Record an experiment; return the attributes of each group of its raw image."""
    table = {
        "source": {"kind": "micromanager", "config": "demo", "exposure_ms": 5, "buffer_mb": 32, **source},
        "sinks": [{"kind": "recorder", "path": str(folder / "rec")}],
    }
    with pellucid.open(table) as session:
        for n, _ in enumerate(session, 1):
            if n == stop_after:
                break
    return attributes(folder)


def attributes(folder, image: str = "raw") -> dict[str, dict]:
    root = folder / f"rec/{image}.ome.zarr"
    several = root / "OME/zarr.json"
    groups = json.loads(several.read_text())["attributes"]["ome"]["series"] if several.exists() else [""]
    return {group: json.loads((root / group / "zarr.json").read_text())["attributes"]["pellucid"] for group in groups}


def test_a_position_without_a_grid_beside_one_with_has_one_image_and_each_says_where_it_is(tmp_path):
    fields = {"rows": 1, "columns": 2, "fov_width": 100, "fov_height": 100, "mode": "row_wise"}
    sequence = {
        "channels": ["DAPI"],
        "z_plan": {"range": 2, "step": 1},
        "stage_positions": [
            {"x": 10, "y": 20, "z": 5, "name": "A"},
            {"x": 100, "y": 50, "z": 7, "name": "A", "sequence": {"grid_plan": fields}},
        ],
    }
    found = record(tmp_path, {"properties": SMALL, "sequence": sequence})
    assert list(found) == ["A", "A_g0", "A_g1"]
    group = zarr.open_group(tmp_path / "rec/raw.ome.zarr", mode="r")
    assert all(group[f"{name}/0"][:].any(axis=(-1, -2)).all() for name in found)
    places = [(10, 20, 5), (50, 50, 7), (150, 50, 7)]
    for (x, y, z), facts in zip(places, found.values(), strict=True):
        at = facts["position"]
        assert (at["name"], at["x_um"], at["y_um"], at["z_um"], at["z_first_um"]) == ("A", x, y, z, z - 1)
        assert facts["planes_written"] == facts["planes_expected"] == {"DAPI": 3}
    # Whoever processes it knows of each frame which row it has.
    recorded = Recorded(tmp_path / "rec", None, "plane")
    assert recorded.rows is not None
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    image = {(0, 0): 0, (1, 0): 1, (1, 1): 2}
    seqs = {(image[r["axes"]["p"], r["axes"]["g"]], r["axes"]["z"]): r["seq"] for r in rows}
    assert recorded.rows.seq.tolist() == [seqs[at] for at in sorted(seqs)]
    recorded.close()


def test_what_is_relative_is_recorded_where_the_stage_was(tmp_path):
    sequence = {"z_plan": {"range": 4, "step": 2}, "channels": ["DAPI"]}
    (facts,) = record(tmp_path, {"properties": SMALL, "sequence": sequence, "focus_um": 30.0}).values()
    assert facts["position"] == pytest.approx({"x_um": 0, "y_um": 0, "z_um": 30, "z_first_um": 28})


def test_an_image_says_how_many_of_its_planes_were_taken(tmp_path):
    sequence = {
        "channels": ["DAPI", {"config": "FITC", "do_stack": False, "acquire_every": 2}],
        "z_plan": {"range": 2, "step": 1},
        "time_plan": {"interval": 0.01, "loops": 3},
        "stage_positions": [{"x": 0, "y": 0, "name": "left"}, {"x": 9, "y": 9, "name": "right"}],
    }
    for facts in record(tmp_path / "whole", {"properties": SMALL, "sequence": sequence}).values():
        assert facts["planes_written"] == facts["planes_expected"] == {"DAPI": 9, "FITC": 2}
        assert facts["time_points"] == 3
    broken = record(tmp_path / "broken", {"properties": SMALL, "sequence": sequence}, stop_after=6)
    assert [facts["planes_expected"] for facts in broken.values()] == [{"DAPI": 9, "FITC": 2}] * 2
    rows = [json.loads(line) for line in (tmp_path / "broken/rec/frames.jsonl").read_text().splitlines()]
    for p, facts in enumerate(broken.values()):
        mine = [row["axes"] for row in rows if row["axes"]["p"] == p]
        assert facts["planes_written"] == {
            "DAPI": sum(axes["c"] == 0 for axes in mine),
            "FITC": sum(axes["c"] == 1 for axes in mine),
        }
        assert facts["time_points"] == len({axes["t"] for axes in mine}) < 3


def test_the_images_of_an_experiment_whose_roi_moved_say_each_their_own(tmp_path):
    sequence = {"channels": TWO, "time_plan": {"interval": 0.02, "loops": 10}, "setup": {"roi": [0, 0, 64, 64]}}
    table = {
        "source": {"kind": "micromanager", "config": "demo", "properties": SMALL, "sequence": sequence},
        "sinks": [{"kind": "recorder", "path": str(tmp_path / "rec")}],
    }
    with pellucid.open(table) as session:
        for n, _ in enumerate(session):
            if n == 3:
                session.session.source._core.set_roi(32, 16, 64, 64)
    images = sorted(path.name for path in (tmp_path / "rec").glob("raw*"))
    assert len(images) == 2
    (late,) = (name.removesuffix(".ome.zarr") for name in images if name != "raw.ome.zarr")
    first, then = attributes(tmp_path)[""], attributes(tmp_path, late)[""]
    assert (first["details"]["roi"], then["details"]["roi"]) == ([0, 0, 64, 64], [32, 16, 64, 64])
    assert sorted(row["stream"] for row in first["channels"]) == [0, 1]
    assert sorted(row["stream"] for row in then["channels"]) == [2, 3]
    assert sum((*first["planes_written"].values(), *then["planes_written"].values())) == 20
