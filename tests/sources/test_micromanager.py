"""The real core of Micro-Manager with its DemoCamera, in this process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from pellucid.config import Config
from pellucid.errors import MissingExtra, PellucidError, RunError, SourceError
from pellucid.live import make_session
from pellucid.metrics import now_ns
from pellucid.sources.micromanager import MicroManager
from pellucid.testing import check_source
from tests.sources.core_parts import PATIENCE_S, SMALL, TWO_CAMERAS, Run, demo, snap_and_repeat

pytest.importorskip("pycromanager", reason="pycromanager is not installed: pip install pellucid[micromanager]")
adapters = pytest.importorskip(
    "mm_test_adapters", reason="mm-test-adapters is not installed: pip install pellucid[demo]"
)

NOISE = {"Mode": "Noise", "PixelType": "16bit"}


@pytest.fixture
def runs():
    made: list[Run] = []

    def make(*, slots: int = 4, **keys) -> Run:
        made.append(Run(demo(**keys), slots))
        return made[-1]

    yield make
    for run in made:
        run.close()


def alone(code: str) -> str:
    """Run code in a process of its own, since a fault of a driver would end this one."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(keys: dict) -> str:
    source = demo(**keys)
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


# -------------------------------------------------------------------- frames


def test_a_finite_sequence_keeps_the_contract_and_gives_every_frame():
    seen = check_source(lambda: demo(frames=9), frames=100)
    assert [info.seq for info in seen.infos] == list(range(9))
    assert [info.camera_number for info in seen.infos] == list(range(9))
    assert seen.account.missed == []
    assert seen.account.produced == 9
    assert seen.streams[0].frames == 9


def test_an_endless_sequence_keeps_the_contract():
    seen = check_source(lambda: demo(), frames=10)
    assert len(seen.infos) >= 10
    assert seen.account.produced == len(seen.infos) + len(seen.account.numbers())


@pytest.mark.parametrize(
    ("pixel_type", "keys", "dtype", "bits"),
    [
        ("8bit", {}, "uint8", 8),
        *(("16bit", {"bits": bits}, "uint16", bits) for bits in (10, 12, 14, 16)),
        ("32bit", {}, "float32", 32),
        ("32bit", {"float32": False}, "uint32", 32),
    ],
)
def test_pixels_are_those_of_a_snap_in_every_grey_pixel_type(runs, pixel_type, keys, dtype, bits):
    properties = {"Camera.PixelType": pixel_type, "Camera.BitDepth": keys.pop("bits", bits)}
    run = runs(frames=3, properties=properties | SMALL, **keys)
    assert (run.stream.spec.dtype, run.stream.bit_depth) == (dtype, bits)
    snapped = snap_and_repeat(run.source._core)
    run.start().take()
    assert len(run.planes) == 3
    for plane in run.planes:
        np.testing.assert_array_equal(plane.view(snapped.dtype), snapped)


def test_colours_come_apart_in_the_order_red_green_blue(runs):
    properties = {"Camera.PixelType": "32bitRGB", "Camera.Mode": "Color Test Pattern"}
    size = {"Camera.OnCameraCCDXSize": 300, "Camera.OnCameraCCDYSize": 500}  # more than one block, and a part
    run = runs(frames=3, properties=properties | size)
    spec = run.stream.spec
    assert (spec.shape, spec.dtype, spec.axes, run.stream.bit_depth) == ((3, 500, 300), "uint8", "cyx", 8)
    snapped = snap_and_repeat(run.core).view(np.uint8).reshape(500, 300, 4)
    assert not np.array_equal(snapped[..., 0], snapped[..., 2])
    run.start().take()
    for plane in run.planes:
        np.testing.assert_array_equal(plane, snapped[..., 2::-1].transpose(2, 0, 1))
    assert len(run.planes) == 3


def test_a_frame_that_is_not_square_keeps_its_rows(runs):
    run = runs(frames=2, properties={"Camera.OnCameraCCDXSize": 320, "Camera.OnCameraCCDYSize": 96})
    assert run.stream.spec.shape == (96, 320)
    snapped = snap_and_repeat(run.source._core)
    run.start().take()
    np.testing.assert_array_equal(run.planes[-1], snapped)


def test_the_stream_says_what_the_camera_is(runs):
    run = runs(exposure_ms=7.0, properties={"Camera.Binning": 2}, channel="DAPI", pixel_um=0.065)
    stream = run.stream
    assert (stream.camera, stream.channel, stream.frames) == ("Camera", "DAPI", None)
    assert (stream.exposure_ms, stream.pixel_um, stream.spec.shape) == (7.0, 0.065, (256, 256))
    assert stream.details["binning"] == "2"
    assert stream.details["device"] == "DemoCamera DCam"
    assert stream.details["objective"] == "Nikon 10X S Fluor"
    assert "MMCore" in stream.details["core"]


def test_the_focus_is_sent_where_the_config_says(runs):
    run = runs(focus_um=12.5)
    assert run.source._core.get_position() == pytest.approx(12.5, abs=0.05)


def test_camera_ns_is_when_the_core_had_the_frame(runs):
    run = runs(exposure_ms=10.0, properties=SMALL)
    before = now_ns()
    run.start()
    time.sleep(0.3)  # the first frames grow old in the core's buffer
    run.take(10)
    after = now_ns()
    run.finish()
    times = np.array([info.camera_ns for info in run.infos])
    # Two clocks are compared; they were read one after the other, on a machine that may be busy.
    assert before - 20e6 < times[0]
    assert times[9] <= after
    assert np.all(np.diff(times) > 0)
    assert all(info.received_ns >= info.camera_ns for info in run.infos)
    first = run.infos[0]
    assert first.received_ns - first.camera_ns > 150e6
    # Nothing can be faster than its exposure for long; slower it may be.
    assert np.mean(np.diff(times)) > 0.8 * 10e6


# -------------------------------------------------------------------- what does not arrive


def test_without_slots_frames_wait_in_the_cores_buffer_and_none_is_lost(runs):
    run = runs(frames=20, properties=SMALL)
    run.start(offer=False)
    until = time.monotonic() + PATIENCE_S
    while run.source._core.is_sequence_running():
        assert run.source.read(0.01) is None
        assert time.monotonic() < until
    run.offer_all()
    run.take()
    assert len(run.infos) == 20
    assert run.account.missed == []
    run.explained()


def test_without_slots_for_long_the_oldest_are_dropped_and_counted(runs):
    run = runs(buffer_mb=8, exposure_ms=10.0)  # 16 frames of 512 x 512
    capacity = run.source._core.get_buffer_total_capacity()
    run.start(offer=False)
    until = time.monotonic() + PATIENCE_S
    while run.places().get(("dropped", "ring"), 0) < 20:
        assert run.source.read(0.005) is None
        assert time.monotonic() < until
    run.offer_all()
    run.take(2 * capacity)
    run.finish()
    places = run.places()
    assert places.pop(("dropped", "ring")) >= 20
    # A machine so busy that even the dropping came late may have let the buffer overflow; then that is told too.
    assert set(places) <= {("lost", "camera buffer")}
    if not places:
        assert [info.camera_number for info in run.infos] == [info.seq for info in run.infos]


def test_an_overflow_of_the_cores_buffer_is_told_and_the_sequence_goes_on(runs):
    run = runs(buffer_mb=8, exposure_ms=1.0, properties={"Camera.FastImage": 1})
    core = run.source._core
    capacity = core.get_buffer_total_capacity()
    run.start()
    until = time.monotonic() + PATIENCE_S
    while not core.is_buffer_overflowed():
        assert time.monotonic() < until, "the buffer never overflowed"
        time.sleep(0.01)
    run.take(capacity + 30)
    run.finish()
    assert run.places()["lost", "camera buffer"] >= 1
    # What was in the buffer is not thrown away, and the camera counts from 0 after it was started again.
    numbers = [info.camera_number for info in run.infos]
    assert numbers[:capacity] == list(range(capacity))
    assert 0 in numbers[capacity:]


def test_an_overflow_in_a_finite_sequence_still_gives_as_many_frames(runs):
    run = runs(frames=60, buffer_mb=8, exposure_ms=1.0, properties={"Camera.FastImage": 1})
    run.start()
    until = time.monotonic() + PATIENCE_S
    while not run.source._core.is_buffer_overflowed():
        assert time.monotonic() < until
        time.sleep(0.01)
    run.take()
    run.explained()
    assert len(run.infos) == 60
    assert set(run.places()) == {("lost", "camera buffer")}


def test_an_overflow_before_the_stop_is_told(runs):
    run = runs(buffer_mb=8, exposure_ms=1.0, properties={"Camera.FastImage": 1})
    run.start()
    until = time.monotonic() + PATIENCE_S
    while not run.source._core.is_buffer_overflowed():
        assert time.monotonic() < until
        time.sleep(0.01)
    run.finish()
    assert run.places() == {("lost", "camera buffer"): 1}


def test_a_gap_in_the_cameras_numbers_is_told(runs):
    run = runs(frames=12, properties=SMALL)
    run.start()
    run.take(4)
    sequence = run.source._run.sequence
    core, thief = sequence.core, Thief(sequence.core, 3)
    sequence.core = thief
    run.take(1)
    sequence.core = core
    run.take()
    run.explained()
    assert run.account.missed == [(4, 3, "lost", "camera")]
    assert [info.camera_number for info in run.infos] == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    assert [info.seq for info in run.infos] == [0, 1, 2, 3, 7, 8, 9, 10, 11]


def test_numbers_that_jump_back_make_the_totals_unsure(runs):
    run = runs(frames=3, properties=SMALL)
    run.start()
    lane = run.source._run._lanes.only
    lane.turn, lane.expected = 1, 2  # as if two frames had come before the camera's first number
    run.take()
    assert run.account.complete is False
    assert len(run.infos) == 3
    (line,) = run.account.ignored
    assert "counted anew" in line


class Thief:
    """A core from which somebody else has taken frames."""

    def __init__(self, core, count: int) -> None:
        self.core, self.count = core, count

    def __getattr__(self, name: str):
        return getattr(self.core, name)

    def pop_next_image_md(self, channel, piece, metadata):
        while self.count:
            if self.core.get_remaining_image_count():
                self.core.pop_next_image()
                self.count -= 1
        while not self.core.get_remaining_image_count():
            time.sleep(0.001)
        return self.core.pop_next_image_md(channel, piece, metadata)


def test_stop_ends_an_endless_sequence_and_what_was_acquired_can_be_read(runs):
    run = runs(properties=SMALL)
    run.start(offer=False)
    until = time.monotonic() + PATIENCE_S
    while run.source._core.get_remaining_image_count() < 5:
        assert time.monotonic() < until
        time.sleep(0.005)
    run.source.stop()
    waiting = run.source._core.get_remaining_image_count()
    assert not run.source.finished
    run.offer_all()
    run.take()
    assert len(run.infos) == waiting
    run.explained()


# -------------------------------------------------------------------- several cameras in one


@pytest.fixture
def pair(tmp_path):
    """Two DemoCameras behind one Multi Camera."""
    file = tmp_path / "two.cfg"
    file.write_text(TWO_CAMERAS + "Property,Core,Camera,Both\n")
    return {"config": str(file), "adapters": Path(adapters.device_adapter_path())}


def test_each_camera_of_several_has_a_stream_and_the_numbers_are_one_row(runs, pair):
    run = runs(frames=20, exposure_ms=3.0, **pair)
    assert [(s.camera, s.index) for s in run.streams] == [("Left", 0), ("Right", 1)]
    run.start().take()
    run.explained()
    assert run.account.missed == []
    assert run.numbers(0) == run.numbers(1) == list(range(20))
    assert [info.seq for info in run.infos] == list(range(40))


def test_frames_of_several_cameras_are_told_apart_by_their_tag(runs, pair):
    levels = {"Left.Photon Flux": 5.0, "Right.Photon Flux": 500.0}
    modes = {f"{name}.{key}": value for name in ("Left", "Right") for key, value in NOISE.items()}
    sizes = {f"{name}.OnCameraCCD{axis}Size": 64 for name in ("Left", "Right") for axis in "XY"}
    run = runs(frames=6, properties=modes | levels | sizes, **pair)
    run.start().take()
    means = [np.mean([p.mean() for p, i in zip(run.planes, run.infos, strict=True) if i.stream == n]) for n in (0, 1)]
    assert means[1] > 2 * means[0]


def test_a_gap_is_of_the_camera_that_has_it(runs, pair):
    run = runs(frames=12, exposure_ms=3.0, **pair)
    run.start().take(4)
    sequence, wanted = run.source._run.sequence, 2
    take, stolen = sequence.pop, []

    def steal():
        frame = take()
        while frame is not None and frame[1].GetSingleTag("Camera").GetValue() == "Right" and len(stolen) < wanted:
            stolen.append(frame)
            frame = take()
        return frame

    sequence.pop = steal
    run.take()
    run.explained()
    assert run.account.missed == [(run.account.missed[0][0], 2, "lost", "camera")]
    assert run.account.streams == [1]
    assert run.numbers(0) == list(range(12))


def test_the_other_camera_waits_its_turn_where_one_has_no_slot(runs, pair):
    run = runs(frames=8, exposure_ms=3.0, **pair)
    run.start(offer=False)
    for slot in run.rings[0].slots:
        run.source.offer(slot)
    until = time.monotonic() + PATIENCE_S
    while run.core.is_sequence_running():
        slot = run.source.read(0.01)
        if slot is not None:
            run.infos.append(slot.info)
            run.source.offer(slot)
        assert time.monotonic() < until
    for slot in run.rings[1].slots:
        run.source.offer(slot)
    run.take()
    run.explained()
    assert run.account.missed == []


def test_a_camera_of_several_that_gives_fewer_frames_has_lost_them(runs, pair):
    run = runs(frames=5, exposure_ms=3.0, properties={"Right.Binning": 2}, **pair)
    run.start().take()
    run.explained()
    assert set(run.account.streams) == {1}
    assert run.account.produced == 10


# -------------------------------------------------------------------- what changes in a run


CHANGES = {
    "roi": ("core.set_roi(0, 0, 128, 96)", (96, 128), "uint16"),
    "roi, by its old name": ('core.setROI("Camera", 10, 20, 128, 96)', (96, 128), "uint16"),
    "roi of the same size": ("core.set_roi(0, 0, 256, 256); core.set_roi(0, 0, 256, 200)", (200, 256), "uint16"),
    "binning": ('stop(); core.set_property("Camera", "Binning", "4")', (128, 128), "uint16"),
    "binning, started by them": ('stop(); core.set_property("Camera", "Binning", "4"); begin()', (128, 128), "uint16"),
    "a larger picture": ('stop(); core.set_property("Camera", "Binning", "1")', (512, 512), "uint16"),
    "pixel type": ('stop(); core.set_property("Camera", "PixelType", "8bit"); begin()', (256, 256), "uint8"),
    "colour": ('stop(); core.set_property("Camera", "PixelType", "32bitRGB")', (3, 256, 256), "uint8"),
    "another shape of as many bytes": ("stop(); turn(256, 1024); begin()", (128, 512), "uint16"),
    "a preset": ('stop(); core.set_config("Camera", "LowRes")', (128, 128), "uint16"),
}


@pytest.mark.parametrize(("change", "shape", "dtype"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_camera_opens_a_new_stream_and_loses_nothing(runs, change, shape, dtype):
    run = runs(frames=40, exposure_ms=4.0, properties={"Camera.Binning": 2})
    core = run.core

    def turn(height, width):
        core.set_property("Camera", "OnCameraCCDYSize", str(height))
        core.set_property("Camera", "OnCameraCCDXSize", str(width))

    run.start().take(3)
    run.wait(6)  # frames of the old kind wait in the core's buffer when it is changed
    exec(
        change,
        {
            "core": core,
            "turn": turn,
            "stop": core.stop_sequence_acquisition,
            "begin": lambda: core.start_sequence_acquisition(20, 0, True),
        },
    )
    begun_by_them = "begin" in change
    if begun_by_them:
        run.take(12)
        run.finish()
    else:
        run.take()
        run.explained()
        assert len(run.infos) == 40
    old, new = run.streams
    assert (old.index, old.replaces, new.index, new.replaces) == (0, None, 1, 0)
    assert (new.spec.shape, new.spec.dtype) == (shape, dtype)
    assert new.camera == old.camera
    assert run.account.missed == []
    assert run.account.complete
    before, after = run.numbers(0), run.numbers(1)
    assert before == list(range(len(before)))
    assert len(before) >= 9
    assert after == list(range(len(after)))
    assert after
    assert all(p.shape == run.streams[i.stream].spec.shape for p, i in zip(run.planes, run.infos, strict=True))


def test_pixels_before_and_after_a_change_are_those_of_a_snap(runs):
    run = runs(exposure_ms=4.0, properties={"Camera.Binning": 2})
    core = run.core
    first = snap_and_repeat(core)
    run.start().take(2)
    run.wait(5)
    core.stop_sequence_acquisition()
    core.set_property("Camera", "FastImage", "0")
    core.set_property("Camera", "Binning", "1")
    second = snap_and_repeat(core)
    run.take(10)
    run.finish()
    for plane, info in zip(run.planes, run.infos, strict=True):
        np.testing.assert_array_equal(plane, second if info.stream else first)
    assert len(run.numbers(1)) >= 1
    assert run.account.missed == []


def test_a_pixel_is_larger_with_more_binning(runs):
    run = runs(frames=6, pixel_um=0.1)
    run.start().take(2)
    run.core.stop_sequence_acquisition()
    run.core.set_property("Camera", "Binning", "4")
    run.take()
    assert [stream.pixel_um for stream in run.streams] == [0.1, pytest.approx(0.4)]
    assert run.streams[1].details["binning"] == "4"


def test_the_roi_of_a_pair_of_cameras_replaces_both_streams(runs, pair):
    run = runs(frames=15, exposure_ms=3.0, **pair)
    run.start().take(6)
    run.core.set_roi(0, 0, 64, 48)
    run.take()
    run.explained()
    assert [(s.camera, s.replaces, s.spec.shape) for s in run.streams[2:]] == [
        ("Left", 0, (48, 64)),
        ("Right", 1, (48, 64)),
    ]
    # Of the two, one may have been stopped a frame before the other.
    assert set(run.places()) <= {("lost", "camera")}


def test_another_buffer_in_a_run_costs_nothing(runs):
    run = runs(frames=30, properties=SMALL)
    run.start().take(3)
    run.wait(3)
    run.core.set_circular_buffer_memory_footprint(16)
    run.take()
    run.explained()
    assert len(run.streams) == 1
    assert (len(run.infos), run.account.missed) == (30, [])


def test_another_exposure_in_a_run_goes_on(runs):
    run = runs(frames=20, properties=SMALL)
    run.start().take(3)
    run.core.set_exposure(10.0)
    run.take()
    run.explained()
    assert (len(run.infos), len(run.streams), run.account.missed) == (20, 1, [])


def test_a_camera_that_is_stopped_and_not_changed_was_stopped_on_purpose(runs):
    run = runs(properties=SMALL)
    run.start().take(3)
    run.core.stop_sequence_acquisition()
    with pytest.raises(SourceError, match="stopped by itself after") as caught:
        run.take()
    assert "\n" not in str(caught.value)
    assert run.source.finished
    run.explained()
    assert run.account.complete


def test_an_overflow_after_somebody_else_started_the_camera_is_told(runs):
    run = runs(buffer_mb=8, exposure_ms=2.0, properties={"Camera.FastImage": 1})
    run.start().take(3)
    core = run.core
    core.stop_sequence_acquisition()
    while run.source.read(0.05) is not None:
        pass  # all that was held; then it sees the camera stopped
    core.start_sequence_acquisition(10**6, 0, True)
    until = time.monotonic() + PATIENCE_S
    while not core.is_buffer_overflowed():
        assert time.monotonic() < until
        time.sleep(0.01)
    run.offer_all()
    run.take(40)
    run.source.stop()
    run.take()
    assert run.places()["lost", "camera buffer"] >= 1


@pytest.mark.parametrize("past", [False, True], ids=["through the core of this process", "past its methods"])
def test_a_camera_that_goes_is_said_in_one_line_and_what_came_is_kept(runs, past):
    run = runs(properties=SMALL)
    run.start().take(3)
    core, names = run.core, type(run.core)
    if past:
        names.stopSequenceAcquisition(core)
        names.unloadDevice(core, "Camera")
    else:
        core.stop_sequence_acquisition()
        core.unload_device("Camera")
    with pytest.raises(SourceError, match=r"camera Camera is gone after \d+ frames") as caught:
        run.take()
    assert "\n" not in str(caught.value)
    run.explained()


def test_a_kind_of_pixels_that_cannot_be_taken_ends_the_run_in_one_line(runs):
    run = runs(properties=SMALL)
    run.start().take(3)
    run.core.stop_sequence_acquisition()
    run.core.set_property("Camera", "PixelType", "64bitRGB")
    with pytest.raises(SourceError, match="64-bit RGB"):
        run.take()
    run.explained()
    assert run.source.finished


def test_nobody_starts_the_camera_on_what_crashes_it(runs):
    run = runs(properties=SMALL)
    run.start().take(3)
    run.core.stop_sequence_acquisition()
    run.core.set_property("Camera", "Mode", "Fluorescent Beads")
    run.core.set_property("Camera", "PixelType", "32bitRGB")
    with pytest.raises(SourceError, match="crash"):
        run.core.start_sequence_acquisition(5, 0, True)
    with pytest.raises(SourceError, match="crash"):
        run.take()
    run.explained()


def test_the_core_has_its_own_methods_back_afterwards(runs):
    run = runs(frames=1, properties=SMALL)
    core, before = run.core, set(vars(run.core))
    run.start()
    assert "set_roi" in vars(core)
    run.take()
    run.source._run.close()
    assert set(vars(core)) == before


PAST = {
    "roi": ("names.setROI(core, 0, 0, 128, 128)", (128, 128)),
    "binning": ('names.stopSequenceAcquisition(core); names.setProperty(core, "Camera", "Binning", "4")', (128, 128)),
    "a larger picture": (
        'names.stopSequenceAcquisition(core); names.setProperty(core, "Camera", "Binning", "1")',
        (512, 512),
    ),
}


@pytest.mark.parametrize(("change", "shape"), PAST.values(), ids=PAST)
def test_what_is_changed_past_the_methods_of_the_core_is_told_as_lost(runs, change, shape):
    run = runs(exposure_ms=4.0, properties={"Camera.Binning": 2})
    run.start(offer=False)
    run.wait(8)
    assert run.source.read(0.0) is None  # it has seen that they wait
    exec(change, {"core": run.core, "names": type(run.core)})
    run.offer_all()
    run.take(10)
    run.finish()
    assert run.streams[1].spec.shape == shape
    places = run.places()
    assert list(places) == [("lost", "camera buffer")]
    assert places["lost", "camera buffer"] >= 8
    assert not run.account.complete or "stop" in change  # what came after the last look, nobody knows
    after = run.numbers(1)
    assert after == list(range(len(after)))


# -------------------------------------------------------------------- open and close


def test_the_same_source_can_be_opened_again_and_counts_from_0(runs):
    source = demo(frames=3, properties=SMALL)
    for _ in range(3):
        run = Run(source)
        run.start().take()
        run.explained()
        assert [info.seq for info in run.infos] == [0, 1, 2]
        run.close()


def test_close_in_the_middle_of_a_sequence_gives_the_camera_back(runs):
    for _ in range(3):
        run = runs(properties=SMALL)
        run.start().take(2)
        run.close()
        assert run.source.read(0.01) is None


def test_each_run_gives_the_memory_of_the_cores_buffer_back():
    printed = alone(
        """
import time, psutil
from pellucid.sources.micromanager import MicroManager
from pellucid.testing import LocalRing, Told
for turn in range(5):
    source = MicroManager(config="demo", exposure_ms=1, buffer_mb=96, properties={"Camera.FastImage": 1})
    (stream,) = source.open()
    ring = LocalRing(stream, 2)
    source.start([ring], Told())
    while source._core.is_sequence_running():
        time.sleep(0.01)
    source.close()
    ring.close()
    print(psutil.Process().memory_info().rss >> 20)
"""
    )
    used = [int(line) for line in printed.split()]
    # What the allocator keeps for itself varies; five buffers that stay would be 480 MiB.
    assert used[-1] - used[0] < 2 * 96 + 64


def test_devices_that_refuse_to_be_unloaded_do_not_keep_the_next_session_out(monkeypatch):
    from mmpycorex import launcher

    run = Run(demo(frames=1, properties=SMALL))
    refusals: list[bool] = []

    def refuse(debug: bool = False) -> None:
        refusals.append(debug)
        raise RuntimeError("Cannot switch camera device while sequence acquisition is running")

    with monkeypatch.context() as patched:
        patched.setattr(launcher, "terminate_pymmcore_instances", refuse)
        run.close()
    assert refusals
    Run(demo(frames=1, properties=SMALL)).close()


def test_a_second_source_is_refused_while_one_is_open_and_does_it_no_harm(runs):
    run = runs(properties=SMALL)
    run.start().take(2)
    assert "runs in this process already" in refused({})
    run.take(3)
    run.finish()


def test_relative_paths_are_seen_from_the_folder_of_the_config(tmp_path):
    (tmp_path / "scope.cfg").write_text(TWO_CAMERAS)
    where = Path(adapters.device_adapter_path()).as_posix()
    config = Config.parse(
        f'[source]\nkind = "micromanager"\nconfig = "scope.cfg"\nadapters = "{where}"\ncamera = "Right"\n', tmp_path
    )
    run = Run(config.source)
    assert run.stream.camera == "Right"
    run.close()


def test_only_opening_it_starts_anything():
    assert MicroManager.passive is False
    assert demo(config="nowhere.cfg").finished is False


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"config": "nowhere.cfg"}, ['config = "nowhere.cfg"', "no such file", '"demo"']),
        ({"adapters": "/nowhere"}, ["adapters = ", "no such folder"]),
        ({"camera": "Camra"}, ['no camera "Camra"', 'Did you mean "Camera"?']),
        ({"camera": "Z"}, ['no camera "Z"', "There are: Camera"]),
        ({"properties": {"PixelType": "16bit"}}, ['properties."PixelType"', "a device, a dot and a property"]),
        ({"properties": {"Camra.PixelType": "16bit"}}, ['no device "Camra"', 'Did you mean "Camera"?', "more"]),
        ({"properties": {"Camera.PixlType": "16bit"}}, ['no property "PixlType"', 'mean "PixelType"?', "more"]),
        (
            {"properties": {"Camera.PixelType": "16bits"}},
            ['properties."Camera.PixelType" = "16bits"', 'mean "16bit"?', "Allowed: 16bit, 32bit"],
        ),
        ({"properties": {"Camera.Gain": 99}}, ['"Camera.Gain" = "99"', "refuses", "Allowed: -5 to 8"]),
        ({"properties": {"Camera.CCDTemperature RO": 3}}, ["can only be read"]),
        ({"exposure_ms": 20000.0}, ["exposure_ms = 20000", "instead"]),
        ({"focus_um": 1e9}, ["focus_um", "refuses", "out of range"]),
        ({"properties": {"Camera.PixelType": "64bitRGB"}}, ["64-bit RGB", "cannot be taken", "32bitRGB"]),
        (
            {"buffer_mb": 8, "properties": {"Camera.OnCameraCCDXSize": 2048, "Camera.OnCameraCCDYSize": 2048}},
            ["buffer_mb = 8", "Set buffer_mb = 32 or more"],
        ),
    ],
)
def test_mistakes_are_said_in_one_line(keys, says):
    text = refused(keys)
    for part in says:
        assert part in text
    # The refusal left no core behind.
    run = Run(demo(frames=1, properties=SMALL))
    run.close()


def test_a_buffer_as_large_as_the_message_says_is_enough(runs):
    run = runs(
        frames=2,
        buffer_mb=32,
        properties={"Camera.OnCameraCCDXSize": 2048, "Camera.OnCameraCCDYSize": 2048, "Camera.FastImage": 1},
    )
    run.start().take()
    run.explained()


def test_a_damaged_configuration_is_said_in_one_line(tmp_path):
    where = Path(adapters.device_adapter_path())
    garbage = tmp_path / "garbage.cfg"
    garbage.write_bytes(bytes(range(256)) * 4)
    unknown = tmp_path / "unknown.cfg"
    unknown.write_text("Device,Camera,NoSuchAdapter,Cam\n")
    for file in (garbage, unknown):
        text = refused({"config": str(file), "adapters": where})
        assert file.name in text


def test_a_configuration_without_a_camera_names_what_to_give(tmp_path):
    where = Path(adapters.device_adapter_path())
    (tmp_path / "two.cfg").write_text(TWO_CAMERAS + "Property,Core,Camera,\n")
    text = refused({"config": str(tmp_path / "two.cfg"), "adapters": where})
    assert 'names no camera. Its cameras: Left, Right, Both. Say which one: camera = "Left"' in text
    (tmp_path / "none.cfg").write_text("Device,Z,DemoCamera,DStage\nProperty,Core,Initialize,1\n")
    assert "names no camera. Its cameras: none" in refused({"config": str(tmp_path / "none.cfg"), "adapters": where})


def test_beads_in_colour_are_refused_before_they_crash_the_process():
    printed = alone(
        """
from pellucid.errors import SourceError
from pellucid.sources.micromanager import MicroManager
for kind in ("32bitRGB", "64bitRGB"):
    for order in (("Mode", "PixelType"), ("PixelType", "Mode")):
        values = {"Mode": "Fluorescent Beads", "PixelType": kind}
        source = MicroManager(config="demo", buffer_mb=32, properties={f"Camera.{n}": values[n] for n in order})
        try:
            source.open()
        except SourceError as error:
            print(error)
"""
    )
    lines = printed.splitlines()
    assert len(lines) == 4
    assert all("crash" in line and "16bit" in line for line in lines)


def test_what_the_core_refuses_during_a_run_does_no_harm(runs):
    run = runs()
    run.start().take(3)
    for name, value in (("Binning", "2"), ("PixelType", "8bit")):
        with pytest.raises(RuntimeError):
            run.source._core.set_property("Camera", name, value)
    with pytest.raises(RuntimeError):
        run.source._core.unload_device("Camera")
    run.take(3)
    run.finish()


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycromanager", None)
    with pytest.raises(MissingExtra, match=r"pellucid\[micromanager\]"):
        demo().open()


@pytest.mark.parametrize("line", ["exposure_ms = 0", "frames = 0", "buffer_mb = 1", "pixel_um = -1", "exposure = 5"])
def test_keys_are_checked_before_anything_moves(line):
    with pytest.raises(PellucidError) as caught:
        Config.parse(f'[source]\nkind = "micromanager"\nconfig = "demo"\n{line}\n')
    assert line.split()[0] in str(caught.value)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------- a whole session


def record(folder, source: str, act) -> tuple[dict, PellucidError | None]:
    """Run a session with a recorder, while `act`, somebody's script, has the core of this process."""
    config = Config.parse(
        f"""
[source]
kind = "micromanager"
config = "demo"
exposure_ms = 4
buffer_mb = 64
{source}
[[stages]]
kind = "deconvolve"
method = "wiener-butterworth"
psf = {{ kind = "gaussian", fwhm_px = 3 }}
[[sinks]]
kind = "recorder"
path = "{(folder / "rec").as_posix()}"
"""
    )
    session = make_session(config)
    session.open()

    def script():
        import pycromanager

        core, until = pycromanager.Core(), time.monotonic() + PATIENCE_S
        while session.ledger.received < 8 and time.monotonic() < until:
            time.sleep(0.005)
        act(core)

    thread = threading.Thread(target=script)
    thread.start()
    error = None
    try:
        report = session.run()
    except PellucidError as fault:
        error, report = fault, session.report
    finally:
        thread.join()
        session.close()
    assert report is not None
    assert report["frames"]["unaccounted"] == 0
    frames = json.loads((folder / "rec/report.json").read_text())["frames"]
    assert frames["produced"] == frames["received"] + sum((frames["dropped"] | frames["lost"]).values())
    return report, error


def test_a_script_that_changes_the_roi_twice_costs_no_frame_and_the_recording_has_all_of_it(tmp_path):
    def act(core):
        core.set_roi(0, 0, 96, 64)
        time.sleep(0.5)
        core.clear_roi()

    report, error = record(tmp_path, 'frames = 150\nproperties = { "Camera.Binning" = 4 }', act)
    assert error is None
    frames = report["frames"]
    assert (frames["received"], frames["dropped"], frames["lost"]) == (150, {}, {})
    assert frames["totals_confirmed"]
    shapes = {path.name: zarr.open_array(path / "0", mode="r").shape for path in (tmp_path / "rec").glob("raw*.zarr")}
    assert shapes["raw.ome.zarr"][-2:] == (128, 128)
    assert sorted(shape[-2:] for shape in shapes.values()) == [(64, 96), (128, 128), (128, 128)]
    assert sum(shape[0] for shape in shapes.values()) == 150
    for path in (tmp_path / "rec").glob("raw*.zarr"):
        assert zarr.open_array(path / "0", mode="r")[:].any(axis=(-1, -2)).all()


def test_a_camera_that_goes_in_a_session_leaves_a_recording_that_can_be_read(tmp_path):
    def act(core):
        core.stop_sequence_acquisition()
        core.unload_device("Camera")

    report, error = record(tmp_path, 'properties = { "Camera.Binning" = 4 }', act)
    assert isinstance(error, RunError)
    assert error.exit_code == 1
    assert "camera Camera is gone" in str(error)
    assert "\n" not in str(error)
    raw = zarr.open_array(tmp_path / "rec/raw.ome.zarr/0", mode="r")
    assert raw.shape[0] == report["frames"]["recorded"] >= 8


def test_colours_go_through_stages_and_recorder(tmp_path):
    report, error = record(
        tmp_path, 'frames = 12\nproperties = { "Camera.PixelType" = "32bitRGB", "Camera.Binning" = 4 }', lambda _: None
    )
    assert error is None
    assert report["frames"]["processed"] + sum(report["frames"]["raw_only"].values()) == 12
    group = zarr.open_group(tmp_path / "rec/raw.ome.zarr", mode="r")
    assert group["0"].shape == (12, 3, 128, 128)
