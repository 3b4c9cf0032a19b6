"""Source "micromanager-java" against a real core behind pycromanager's bridge."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time

import numpy as np
import pytest
import zarr
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pellucid
from pellucid.config import Config
from pellucid.errors import ConfigError, PellucidError, RunError, SourceError, WireError
from pellucid.sources._bridge_every import EveryFrame
from pellucid.sources.java import MicroManagerJava
from pellucid.testing import check_source
from pellucid.wire import bridge as bridge_module
from pellucid.wire.bridge import Bridge, attach
from pellucid.wire.bridge_message import Garbage, Refused, read_reply
from pellucid.wire.bridge_object import RemoteObject, snake
from tests.sources.bridge_parts import SMALL, TWO_CAMERAS, Answering, Proxy, Run, hello

pytest.importorskip("pymmcore", reason="pymmcore is not installed: pip install pellucid[micromanager]")
pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed: pip install pellucid[demo]")

from pellucid.testing.bridge import BridgeServer
from pellucid.testing.bridge.java import Face
from pellucid.testing.bridge.studio import Studio


@pytest.fixture
def server():
    with BridgeServer(properties=SMALL) as server:
        yield server


@pytest.fixture(autouse=True)
def no_long_patience(monkeypatch):
    """With a camera that is gone."""
    monkeypatch.setattr("pellucid.sources._bridge_watch.GONE_S", 0.3)


@pytest.fixture
def two(tmp_path):
    config = tmp_path / "two.cfg"
    config.write_text(TWO_CAMERAS)
    with BridgeServer(config=config) as server:
        server.core.setExposure(4)
        yield server


def repeat_a_picture(core) -> np.ndarray:
    """Snap a picture with something in it, and let the camera repeat it, so that pixels can be compared."""
    core.snapImage()
    snapped = core.getImage().copy()
    assert np.ptp(snapped) > 0
    core.setProperty("Camera", "FastImage", "1")
    return snapped


# -------------------------------------------------------------------- look


def test_looking_gives_each_newest_image_once_and_leaves_the_preview_alone(server):
    picture = repeat_a_picture(server.core)
    server.set_live(True)
    with Run(server.port).start() as run:
        run.take(30).finish()
    numbers = run.numbers()
    assert numbers == sorted(set(numbers))
    assert all((plane == picture).all() for plane in run.planes)
    assert set(run.missed()) <= {("dropped", "not looked at")}
    assert run.account.complete
    assert server.preview_errors == 0
    stream = run.streams[0]
    assert (stream.camera, stream.pixel_um, stream.exposure_ms, stream.bit_depth) == ("Camera", 4.0, 2.0, 16)
    assert stream.details["binning"] == "4"


def test_stamps_are_on_the_clock_of_the_run(server):
    server.set_live(True)
    with Run(server.port).start() as run:
        run.take(5).finish()
    for info in run.infos:
        assert 0 <= info.received_ns - info.camera_ns < 2e9


def test_looking_waits_for_live_mode_and_sees_it_begin_anew(server):
    with Run(server.port).start() as run:
        run.for_s(0.2)
        assert not run.infos
        ends = []
        for _ in range(2):
            server.set_live(True)
            run.take(4)
            server.set_live(False)
            last = int(server.remote.getLastTaggedImage().all_tags["ImageNumber"])
            run.until(lambda last=last: run.infos[-1].camera_number == last).for_s(0.1)
            ends.append(len(run.infos))
        run.finish()
    first, second = run.numbers()[: ends[0]], run.numbers()[ends[0] :]
    for numbers in (first, second):
        assert numbers == sorted(set(numbers))
    assert set(run.missed()) <= {("dropped", "not looked at")}
    # The last image of each sequence was looked at, so both are known from their first frame to their last.
    assert run.account.produced == first[-1] + 1 + second[-1] + 1


def test_an_image_from_before_is_not_looked_at(server):
    server.core.startSequenceAcquisition(3, 0, True)
    while server.core.isSequenceRunning():
        time.sleep(0.01)
    with Run(server.port).start() as run:
        run.for_s(0.4).finish()
    assert not run.infos
    assert run.account.produced == 0


def test_what_was_not_looked_at_is_dropped_with_a_count(server):
    server.set_live(True)
    with Run(server.port, slots=1).start() as run:
        for _ in range(4):
            run.take(1)
            time.sleep(0.1)
        run.finish()
    assert run.missed()["dropped", "not looked at"] > 10


def test_frames_ends_the_run(server):
    server.set_live(True)
    for mode in ("look", "every-frame"):
        with Run(server.port, mode, frames=7).start() as run:
            run.take()
            run.explained()
        assert len(run.infos) == 7


# -------------------------------------------------------------------- every frame


def test_every_frame_is_taken_and_the_preview_never_starves(server):
    picture = repeat_a_picture(server.core)
    server.set_live(True)
    time.sleep(0.1)
    with Run(server.port, "every-frame").start() as run:
        run.take(150).finish()
    numbers = run.numbers()
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert all((plane == picture).all() for plane in run.planes[::10])
    assert not run.missed()
    assert run.account.complete
    assert server.preview_errors == 0


def test_frames_from_before_the_run_are_none_of_it(server):
    server.core.startContinuousSequenceAcquisition(0)
    while server.core.getRemainingImageCount() < 20:
        time.sleep(0.01)
    with Run(server.port, "every-frame").start() as run:
        run.take(5).finish()
    assert run.numbers()[0] >= 19
    assert not run.missed()


def test_the_last_frame_of_a_sequence_is_taken_and_stays_where_it_is(server):
    server.core.setExposure(15)  # long enough that each is seen to run
    with Run(server.port, "every-frame").start() as run:
        for _ in range(2):
            server.core.startSequenceAcquisition(20, 0, True)
            run.take(20).for_s(0.3)
            assert server.core.getRemainingImageCount() == 1
            while server.core.isSequenceRunning():
                time.sleep(0.01)
        run.finish()
    assert run.numbers() == [*range(20), *range(20)]
    assert not run.missed()
    assert run.account.complete


def test_an_acquisition_of_the_application_keeps_its_frames(server, monkeypatch):
    """The one thing that the test server's application cannot do."""

    class Acquisitions:
        face = Face("org.micromanager.acquisition.internal.DefaultAcquisitionManager", "boolean isAcquisitionRunning()")
        running = True

        def isAcquisitionRunning(self):
            return self.running

    old, acquisitions = Studio.face, Acquisitions()
    method = "org.micromanager.acquisition.AcquisitionManager acquisitions()"
    monkeypatch.setattr(Studio, "face", Face(old.name, *old.methods, method, interfaces=old.types[1:-1]))
    monkeypatch.setattr(Studio, "acquisitions", lambda _: acquisitions, raising=False)
    with pytest.raises(SourceError, match="an acquisition runs"):
        Run(server.port, "drive", sequence=SEQUENCE)
    with Run(server.port, "every-frame").start() as run:
        server.core.startSequenceAcquisition(10, 0, True)
        run.for_s(0.4)
        assert not run.infos
        assert server.core.getRemainingImageCount() == 10
        acquisitions.running = False
        run.for_s(1.0)  # a sequence shorter than a look at whose it is could not be told from what they left
        server.core.startSequenceAcquisition(10, 0, True)
        run.take(10).finish()
    assert run.numbers() == list(range(10))
    assert any("acquisition of Micro-Manager runs" in note for note in run.account.notes)


def test_frames_wait_over_there_while_there_is_no_slot(server):
    with Run(server.port, "every-frame").start(offer=False) as run:
        server.core.startSequenceAcquisition(30, 0, True)
        run.for_s(0.5)
        assert not run.infos
        run.offer_all()
        run.take(30).finish()
    assert run.numbers() == list(range(30))
    assert not run.missed()


def test_a_buffer_that_is_nearly_full_is_emptied_with_a_count(server):
    server.core.setCircularBufferMemoryFootprint(2)  # 64 frames
    server.core.setExposure(8)
    server.set_live(True)
    with Run(server.port, "every-frame").start(offer=False) as run:
        run.until(lambda: run.account.count("dropped", "ring") > 20)
        run.offer_all()
        run.take(10).finish()
    assert set(run.missed()) == {("dropped", "ring")}
    numbers = run.numbers()
    assert len(set(numbers)) == len(numbers)
    assert server.preview_errors == 0


def test_a_buffer_that_was_thrown_away_is_told_by_the_numbers(server):
    with Run(server.port, "every-frame").start(offer=False) as run:
        server.core.startContinuousSequenceAcquisition(0)
        run.until(lambda: server.core.getRemainingImageCount() > 15)
        run.for_s(0.1)
        server.core.clearCircularBuffer()  # what a core does that is full, and says nothing
        run.for_s(0.1)
        run.offer_all()
        run.take(20).finish()
    assert run.account.count("lost", "camera buffer") >= 15
    assert set(run.missed()) == {("lost", "camera buffer")}


def test_a_sequence_that_ended_with_a_full_buffer_is_seen(server):
    server.core.setCircularBufferMemoryFootprint(1)  # 32 frames
    go = threading.Event()
    go.set()

    def change(frames):
        go.wait()
        return frames

    with Proxy(server.port, change) as proxy, Run(proxy.port, "every-frame", slots=40).start() as run:
        server.core.startSequenceAcquisition(1000, 0, True)
        run.take(3)
        go.clear()
        while server.core.isSequenceRunning():
            time.sleep(0.01)
        go.set()
        run.until(lambda: run.missed()).for_s(0.2).finish()
    assert server.core.isBufferOverflowed()
    assert run.missed() == {("lost", "camera buffer"): 1}
    assert run.numbers() == list(range(len(run.numbers())))
    assert len(run.numbers()) > 32
    assert any("full" in note for note in run.account.notes)


def test_a_sequence_that_begins_while_we_are_behind(server):
    with Run(server.port, "every-frame").start(offer=False) as run:
        server.core.startContinuousSequenceAcquisition(0)
        run.until(lambda: server.core.getRemainingImageCount() > 12).for_s(0.1)
        server.core.stopSequenceAcquisition()
        server.core.startContinuousSequenceAcquisition(0)
        run.for_s(0.1)
        run.offer_all()
        run.take(20).finish()
    numbers = run.numbers()
    # The one that was held for a slot, and the new sequence from its first frame.
    assert numbers[:2] == [0, 0]
    assert numbers[1:] == list(range(len(numbers) - 1))
    assert run.account.count("lost", "camera buffer") >= 12
    assert not run.account.complete


def test_a_sequence_that_begins_between_two_questions_loses_nothing(server, monkeypatch):
    """A look is three questions, and a busy computer may take its time between them."""
    core, armed, ask = server.core, threading.Event(), Bridge.ask

    def slow_ask(self, *requests):
        if not armed.is_set() or len(requests) != 3:
            return ask(self, *requests)
        armed.clear()
        first = ask(self, requests[0])
        core.startSequenceAcquisition(5, 0, True)
        while not core.getRemainingImageCount():
            time.sleep(0.001)
        return first + ask(self, *requests[1:])

    monkeypatch.setattr(Bridge, "ask", slow_ask)
    core.setExposure(50)
    with Run(server.port, "every-frame").start(offer=False) as run:
        run.for_s(0.2)
        armed.set()
        run.for_s(0.3)
        run.offer_all()
        run.take(5).for_s(0.2).finish()
    assert run.numbers() == list(range(5))
    assert not run.missed()


def test_sequences_of_one_frame_each(server):
    """The frame that was peeked at stays in the buffer until the next sequence, and was not lost with it."""
    with Run(server.port, "every-frame").start() as run:
        for exposure_ms in (2, 2, 300, 2, 300):
            server.core.setExposure(exposure_ms)
            server.core.startSequenceAcquisition(1, 0, True)
            run.take(1).for_s(0.3)  # looks are rare by then: short ones come and go between two of them
        run.finish()
    assert run.numbers() == [0] * 5
    assert not run.missed()


@pytest.fixture
def unseen(server):
    """A run that is shown nothing of a first sequence until it has ended."""
    go = threading.Event()
    go.set()

    def change(frames):
        go.wait()
        return frames

    def take(count, **keys):
        run.start(**keys).for_s(0.2)
        go.clear()
        server.core.startSequenceAcquisition(count, 0, True)
        while server.core.isSequenceRunning():
            time.sleep(0.01)
        go.set()
        return run

    with Proxy(server.port, change) as proxy, Run(proxy.port, "every-frame") as run:
        yield take


def test_a_sequence_that_begins_while_one_that_was_not_seen_waits_for_slots(server, unseen):
    run = unseen(5, offer=False)
    run.for_s(0.2)
    server.core.startContinuousSequenceAcquisition(0)
    run.for_s(0.2)
    run.offer_all()
    run.take(20).finish()
    numbers = run.numbers()
    assert numbers[:2] == [0, 0]
    assert numbers[1:] == list(range(len(numbers) - 1))
    assert run.missed() == {("lost", "camera buffer"): 4}


def test_a_sequence_that_begins_while_one_that_was_not_seen_is_taken(server, unseen, monkeypatch):
    pop, calls = EveryFrame._pop, []

    def third_is_another(self, *, shed):
        calls.append(1)
        if len(calls) == 3:
            server.core.startContinuousSequenceAcquisition(0)
            while server.core.getRemainingImageCount() < 2:
                time.sleep(0.001)
        pop(self, shed=shed)

    monkeypatch.setattr(EveryFrame, "_pop", third_is_another)
    run = unseen(8)
    run.take(20).finish()
    numbers = run.numbers()
    assert numbers[:2] == [0, 1]
    assert numbers[2:] == list(range(len(numbers) - 2))
    assert run.missed() == {("lost", "camera buffer"): 6}


def test_frames_whose_size_was_changed_before_their_end_was_seen_are_not_touched(server, monkeypatch):
    """Their number has grown since the last look, but by a sequence that was seen, not by another one."""
    core, armed, state, left = server.core, threading.Event(), EveryFrame._state, []

    def late(self):
        if armed.is_set():
            armed.clear()
            before = core.getRemainingImageCount()
            while core.getRemainingImageCount() < before + 5:
                time.sleep(0.001)
            core.stopSequenceAcquisition()
            core.setProperty("Camera", "Binning", "8")
            left.append(core.getRemainingImageCount())
        return state(self)

    monkeypatch.setattr(EveryFrame, "_state", late)
    core.setExposure(10)
    with Run(server.port, "every-frame").start() as run:
        core.startContinuousSequenceAcquisition(0)
        run.take(3)
        armed.set()
        run.until(lambda: run.account.missed).for_s(0.3)
        assert [core.getRemainingImageCount()] == left
        run.finish()
    assert len(run.streams) == 1
    assert run.numbers() == list(range(len(run.numbers())))
    assert run.missed() in ({("lost", "camera buffer"): n} for n in (left[0] - 1, left[0]))  # one peeked at, or none


def test_stop_takes_what_waits(server):
    with Run(server.port, "every-frame").start(offer=False) as run:
        server.core.startSequenceAcquisition(25, 0, True)
        while server.core.isSequenceRunning():
            run.read()
        run.source.stop()
        run.offer_all()
        run.take()
        run.explained()
    assert run.numbers()[:24] == list(range(24))


# -------------------------------------------------------------------- cameras and their changes


@pytest.mark.parametrize("mode", ["look", "every-frame"])
def test_two_cameras_are_two_streams(two, mode):
    two.set_live(True)
    with Run(two.port, mode).start() as run:
        assert [s.camera for s in run.streams] == ["Left", "Right"]
        run.until(lambda: min(len(run.numbers(0)), len(run.numbers(1))) >= 15).finish()
    for stream in (0, 1):
        numbers = run.numbers(stream)
        if mode == "look":
            assert numbers == sorted(set(numbers))
        else:
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert set(run.missed()) <= {("dropped", "not looked at")}
    assert two.preview_errors == 0


@pytest.mark.parametrize("mode", ["look", "every-frame"])
def test_a_change_of_roi_and_binning_begins_new_streams(server, mode):
    core = server.core
    core.setExposure(25)
    with Run(server.port, mode).start() as run:
        for change in (
            lambda: None,
            lambda: core.setROI(8, 16, 64, 48),
            lambda: (core.setProperty("Camera", "Binning", "2"), core.clearROI()),
        ):
            change()
            core.startSequenceAcquisition(10, 0, True)
            seen = len(run.infos)
            run.until(lambda seen=seen: len(run.infos) > seen and run.infos[-1].camera_number == 9)
        run.finish()
    assert [s.spec.shape for s in run.streams] == [(128, 128), (48, 64), (256, 256)]
    assert [s.replaces for s in run.streams] == [None, 0, 1]
    assert run.streams[2].details["binning"] == "2"
    assert run.streams[2].pixel_um == 2.0
    assert [info.stream for info in run.infos] == sorted(info.stream for info in run.infos)
    if mode == "every-frame":
        assert [run.numbers(i) for i in range(3)] == [list(range(10))] * 3
        assert not run.missed()


def test_frames_whose_size_was_changed_while_they_waited_are_not_touched(server):
    """They would be copied by the new size, past their end."""
    core = server.core
    with Run(server.port, "every-frame").start(offer=False) as run:
        core.startSequenceAcquisition(15, 0, True)
        while core.isSequenceRunning():
            run.read()
        run.for_s(0.2)
        core.setProperty("Camera", "Binning", "1")
        run.for_s(0.2)
        run.offer_all()
        run.until(lambda: run.account.missed).for_s(0.2)
        assert core.getRemainingImageCount() == 14
        core.startSequenceAcquisition(5, 0, True)
        run.until(lambda: len(run.infos) == 6).finish()
    assert run.numbers(0) == [0]
    assert run.numbers(1) == list(range(5))
    assert run.missed() == {("lost", "camera buffer"): 14}
    assert any("was changed while they waited" in note for note in run.account.notes)
    assert run.account.produced == 20


def test_another_channel_is_another_stream_and_the_first_comes_back(server):
    core = server.core
    with Run(server.port, "every-frame").start() as run:
        for channel in ("DAPI", "FITC", "DAPI"):
            core.setConfig("Channel", channel)
            core.waitForConfig("Channel", channel)
            core.startSequenceAcquisition(5, 0, True)
            run.take(5)
            while core.isSequenceRunning():
                run.read()
        run.finish()
    assert [run.streams[i.stream].channel for i in run.infos] == ["DAPI"] * 5 + ["FITC"] * 5 + ["DAPI"] * 5
    assert all(s.replaces is None for s in run.streams)


def test_an_exposure_may_change(server):
    server.set_live(True)
    with Run(server.port, "every-frame").start() as run:
        run.take(5)
        server.core.setExposure(4)
        run.until(lambda: any("exposure is 4 ms" in note for note in run.account.notes)).finish()
    assert not run.missed()
    assert len(run.streams) == 1


@pytest.mark.parametrize(
    ("mode", "kind", "spec", "bits"),
    [
        ("look", "8bit", "128x128 uint8", 8),
        ("look", "12bit", "128x128 uint16", 12),
        ("look", "14bit", "128x128 uint16", 14),
        ("every-frame", "32bit", "128x128 float32", 32),
        ("every-frame", "32bitRGB", "128x128 RGB uint8", 8),
        ("drive", "32bitRGB", "128x128 RGB uint8", 8),
    ],
)
def test_pixel_types(server, kind, spec, bits, mode):
    core = server.core
    if kind in ("12bit", "14bit"):
        core.setProperty("Camera", "PixelType", "16bit")
        core.setProperty("Camera", "BitDepth", kind.removesuffix("bit"))
    else:
        core.setProperty("Camera", "PixelType", kind)
    picture = repeat_a_picture(core)
    keys = {"sequence": {"time_plan": {"interval": 0, "loops": 3}}} if mode == "drive" else {}
    if mode != "drive":
        server.set_live(True)
    with Run(server.port, mode, **keys).start() as run:
        run.take(3).finish()
    assert str(run.streams[0].spec) == spec
    assert run.streams[0].bit_depth == bits
    if kind == "32bitRGB":
        colours = picture.view(np.uint8).reshape(128, 128, 4)
        picture = np.stack([colours[..., 2], colours[..., 1], colours[..., 0]])
    assert (run.planes[-1] == picture.view(run.planes[-1].dtype)).all()


def test_rgb_of_64_bits_is_refused(server):
    server.core.setProperty("Camera", "PixelType", "64bitRGB")
    with pytest.raises(SourceError, match="64-bit RGB"):
        Run(server.port)


def test_32_bits_may_be_whole_numbers(server):
    server.core.setProperty("Camera", "PixelType", "32bit")
    with Run(server.port, float32=False) as run:
        assert run.streams[0].spec.dtype == "uint32"


# -------------------------------------------------------------------- an experiment

SEQUENCE = {
    "axis_order": "tpcz",
    "time_plan": {"interval": 0.01, "loops": 2},
    "channels": [
        {"config": "DAPI", "group": "Channel", "exposure": 3},
        {"config": "FITC", "group": "Channel", "exposure": 5},
    ],
    "z_plan": {"range": 2, "step": 1},
    "stage_positions": [{"x": 0, "y": 0, "z": 1}, {"x": 10, "y": 5, "z": 2}],
}


def test_an_experiment_is_driven_over_the_bridge(server):
    core = server.core
    core.setPosition(40.0)
    before = (core.getPosition(), core.getExposure(), core.getCurrentConfig("Channel"))
    with Run(server.port, "drive", sequence=SEQUENCE).start() as run:
        assert not run.source.live
        run.take()
        run.explained()
    sizes = {"t": 2, "p": 2, "c": 2, "z": 3}
    assert [dict(s.sizes) for s in run.streams] == [sizes, sizes]
    assert [(s.channel, s.exposure_ms, s.frames, s.z_um) for s in run.streams] == [
        ("DAPI", 3.0, 12, 1.0),
        ("FITC", 5.0, 12, 1.0),
    ]
    wanted = [{"t": t, "p": p, "c": c, "z": z} for t in range(2) for p in range(2) for c in range(2) for z in range(3)]
    assert [info.axes for info in run.infos] == wanted
    assert [info.stream for info in run.infos] == [axes["c"] for axes in wanted]
    # Stages, preset and exposure are as they were before.
    assert (core.getPosition(), core.getExposure(), core.getCurrentConfig("Channel")) == before
    assert (core.getXPosition(), core.getYPosition()) == pytest.approx((0.0, 0.0), abs=0.1)


def test_a_burst_is_driven_as_a_sequence(server, tmp_path):
    file = tmp_path / "burst.json"
    file.write_text(json.dumps({"time_plan": {"interval": 0, "loops": 40}}))
    with Run(server.port, "drive", sequence=str(file), exposure_ms=3).start() as run:
        run.take()
        run.explained()
    assert [info.axes["t"] for info in run.infos] == list(range(40))
    assert run.numbers() == list(range(40))
    assert server.core.getExposure() == 3


def test_an_experiment_waits_for_slots(server):
    with Run(server.port, "drive", slots=1, sequence={"time_plan": {"interval": 0, "loops": 12}}).start() as run:
        run.for_s(0.2)
        run.take()
        run.explained()
    assert len(run.infos) == 12


def test_a_driven_autofocus_that_fails_is_told_and_the_experiment_goes_on(server, monkeypatch):
    def fail():
        raise RuntimeError("no reflection")

    monkeypatch.setattr(server.remote, "fullFocus", fail, raising=False)
    sequence = {"stage_positions": [{"z": 10}, {"z": 20}], "autofocus_plan": {"axes": ["p"]}}
    with Run(server.port, "drive", sequence=sequence).start() as run:
        run.take()
        run.explained()
    assert [info.axes["p"] for info in run.infos] == [0, 1]
    assert len(run.account.ignored) == 2
    assert all("autofocus failed 3 times" in text and "no reflection" in text for text in run.account.ignored)


def test_an_overflow_in_a_driven_burst_is_told_for_each_camera(two):
    two.core.setCircularBufferMemoryFootprint(2)  # 64 frames
    with Run(two.port, "drive", sequence={"time_plan": {"interval": 0, "loops": 90}}).start(offer=False) as run:
        until = time.monotonic() + 20
        while not two.core.isBufferOverflowed():
            run.read()
            assert time.monotonic() < until
        run.offer_all()
        run.take()
        run.explained()
    assert run.account.produced == 2 * 90
    assert run.account.count("lost", "camera buffer") > 0
    for stream in (0, 1):
        of_it = [m for m, of in zip(run.account.missed, run.account.streams, strict=True) if of == stream]
        lost = sum(count for _, count, *_ in of_it)
        assert len(run.numbers(stream)) + lost == 90


def test_an_application_that_uses_its_camera_is_not_driven(server):
    server.set_live(True)
    with pytest.raises(SourceError, match="live mode is on"):
        Run(server.port, "drive", sequence=SEQUENCE)
    assert server.live


def test_a_sequence_that_runs_is_not_driven(server):
    server.core.startContinuousSequenceAcquisition(0)
    with pytest.raises(SourceError, match="a sequence of its camera runs"):
        Run(server.port, "drive", sequence=SEQUENCE)
    assert server.core.isSequenceRunning()


def test_an_experiment_stops_where_it_is_told_to(server):
    long = {"time_plan": {"interval": 0.05, "loops": 1000}}
    with Run(server.port, "drive", sequence=long).start() as run:
        run.take(3)
        began = time.monotonic()
        run.finish()
        assert time.monotonic() - began < 5
    assert len(run.infos) < 20


def test_an_experiment_ends_with_its_micro_manager(server):
    with Run(server.port, "drive", sequence={"time_plan": {"interval": 0.02, "loops": 1000}}).start() as run:
        run.take(3)
        server.stop()
        with pytest.raises(SourceError, match="went away after"):
            run.take()
        run.explained()
    assert not run.account.complete


def test_what_the_core_lacks_is_said_before_anything_moves(server):
    wrong = {"channels": [{"config": "Purple", "group": "Channel"}]}
    with pytest.raises(SourceError, match="Purple"):
        Run(server.port, "drive", sequence=wrong)


# -------------------------------------------------------------------- coming and going


@pytest.mark.parametrize("mode", ["look", "every-frame"])
def test_a_micro_manager_that_restarts_is_taken_up_again(mode):
    with BridgeServer(properties=SMALL, live=True) as server, Run(server.port, mode).start() as run:
        run.take(5)
        server.stop()
        run.until(lambda: any("broke" in note for note in run.account.notes)).for_s(0.2)
        before = len(run.infos)
        server.start()
        run.take(5).finish()
    assert len(run.infos) >= before + 5
    assert not run.account.complete
    assert any("is back" in note for note in run.account.notes)


def test_stop_ends_the_wait_for_one_that_went_away(server):
    server.set_live(True)
    with Run(server.port).start() as run:
        run.take(2)
        server.stop()
        run.until(lambda: run.account.notes)
        began = time.monotonic()
        run.finish()
        assert time.monotonic() - began < 2


def test_it_waits_for_micro_manager_with_one_line(unused_port, caplog):
    server = BridgeServer(unused_port, properties=SMALL)
    later = threading.Timer(0.3, server.start)
    later.start()
    try:
        with caplog.at_level(logging.WARNING, "pellucid"), Run(unused_port) as run:
            assert run.streams
    finally:
        later.join()
        server.stop()
    assert [r.message for r in caplog.records] == [
        f"waiting for Micro-Manager on port {unused_port}. Start it, and in it: Tools > Options > "
        '"Run pycro-manager server on port 4827". Ctrl-C ends; the seconds of a run count from when it is there'
    ]


def test_the_wait_has_an_end(unused_port):
    with pytest.raises(WireError, match=r"no Micro-Manager came to port .* within 0.2 s"):
        Run(unused_port, wait_s=0.2)


def test_stop_ends_the_wait_at_the_start(unused_port):
    source = MicroManagerJava(port=unused_port)
    threading.Timer(0.3, source.stop).start()
    began = time.monotonic()
    with pytest.raises(SourceError, match="stopped while waiting"):
        source.open()
    assert time.monotonic() - began < 5


# -------------------------------------------------------------------- what else may listen there


def test_a_port_where_no_zeromq_listens(monkeypatch):
    monkeypatch.setattr(bridge_module, "HANDSHAKE_MS", 200)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        with pytest.raises(WireError, match="no Micro-Manager"):
            Run(silent.getsockname()[1])


def test_a_port_where_a_web_server_listens():
    def serve(listener):
        try:
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(100)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 60\r\n\r\n" + b"x" * 60)
        except OSError:
            pass

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    try:
        with pytest.raises(WireError, match="no Micro-Manager"):
            Run(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("kind", [zmq.PUB, zmq.DEALER])
def test_a_port_where_another_kind_of_zeromq_socket_listens(kind, monkeypatch):
    monkeypatch.setattr(bridge_module, "ANSWER_S", 0.3)
    with Answering(None, kind) as other, pytest.raises(WireError, match="no Micro-Manager"):
        Run(other.port)


@pytest.mark.parametrize(
    "answer",
    [None, [b"hello"], [b""], [b"{}"], [b"[1]"], [b'{"type": 3}'], [b"\xff\x00"], [b"[" * 100000], [b"{}"] * 5],
)
def test_a_port_where_something_answers_otherwise(answer, monkeypatch):
    monkeypatch.setattr(bridge_module, "ANSWER_S", 0.3)
    with Answering(answer) as other, pytest.raises(WireError, match="no Micro-Manager"):
        Run(other.port)


@pytest.mark.parametrize(("version", "update"), [("4.2.0", "Update Micro-Manager"), ("6.0.0", "Update pellucid")])
def test_another_version_is_refused_and_said_what_to_update(version, update):
    with BridgeServer(properties=SMALL, version=version) as server, pytest.raises(WireError, match=update) as error:
        Run(server.port)
    assert version in str(error.value)
    assert "5.1.0" in str(error.value)


def test_a_bridge_of_before_versions_is_old():
    with Answering([b'{"type": "none"}']) as other, pytest.raises(WireError, match="Update Micro-Manager"):
        Run(other.port)
    with Answering(hello("new")) as other, pytest.raises(WireError, match="no Micro-Manager"):
        Run(other.port)


def test_a_core_without_a_camera(server):
    server.core.setCameraDevice("")
    with pytest.raises(SourceError, match="has no camera"):
        Run(server.port)


@pytest.fixture
def in_turn(server, monkeypatch):
    """A lock held while the server answers: MMCore aborts where devices go as another thread asks for a preset."""
    turn, invoke = threading.Lock(), server.remote.invoke

    def one(*call):
        with turn:
            return invoke(*call)

    monkeypatch.setattr(server.remote, "invoke", one)
    return turn


@pytest.mark.parametrize("mode", ["look", "every-frame"])
def test_a_camera_that_goes_ends_the_run_in_words(server, in_turn, mode):
    server.set_live(True)
    with Run(server.port, mode).start() as run:
        run.take(3)
        server.set_live(False)
        with in_turn:
            server.core.unloadAllDevices()
        with pytest.raises(SourceError, match="camera Camera is gone"):
            run.take()
        run.explained()


def test_pixels_that_do_not_fit_their_tags_are_lost_not_shown(server):
    cut = {"left": 3}

    def change(frames):
        if len(frames) == 3 and cut["left"]:
            cut["left"] -= 1
            frames[2] = frames[2][:-2]
        return frames

    with Proxy(server.port, change) as proxy, Run(proxy.port, "every-frame").start() as run:
        server.set_live(True)
        run.take(10).finish()
    assert run.account.count("lost", "camera buffer") == 3
    assert any("do not fit" in note for note in run.account.notes)


# -------------------------------------------------------------------- a server that lies


@pytest.mark.parametrize("mode", ["look", "every-frame", "drive"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_server_that_lies_neither_crashes_nor_hangs_the_source(server, mode, data):
    """Each answer may be cut, changed in a byte, replaced, or left out."""
    spoil = data.draw(st.integers(0, 60), label="answers until the lie")
    how = data.draw(st.sampled_from(["cut", "byte", "json", "value", "part", "more"]), label="how")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    rng = np.random.default_rng(seed)
    count, said = 0, ""

    def change(frames):
        nonlocal count
        count += 1
        return _spoiled(frames, how, rng) if count > spoil and rng.random() < 0.5 else frames

    # With an exposure of its own, so that none is set that was a lie: the real core would expose for ever.
    channel = {"config": "DAPI", "group": "Channel", "exposure": 2}
    experiment = {"time_plan": {"interval": 0, "loops": 3}, "channels": [channel]}
    keys = {"sequence": experiment} if mode == "drive" else {}
    server.set_live(mode != "drive")
    began = time.monotonic()
    with Proxy(server.port, change) as proxy:
        try:
            with Run(proxy.port, mode, **keys).start() as run:
                run.for_s(0.1)
                run.source.stop()
                run.take()
                run.explained()
        except PellucidError as error:
            said = str(error)
    assert "\n" not in said
    assert time.monotonic() - began < 12
    if mode == "drive" and server.core.isSequenceRunning():
        server.core.stopSequenceAcquisition()


def _spoiled(frames, how, rng):
    frames = list(frames)
    at = rng.integers(len(frames))
    if how == "cut":
        frames[at] = frames[at][: rng.integers(len(frames[at]) + 1)]
    elif how == "byte":
        some = bytearray(frames[at])
        if some:
            some[rng.integers(len(some))] = rng.integers(256)
        frames[at] = bytes(some)
    elif how == "json":
        frames[0] = [b"{}", b"[]", b"null", b'{"type": "none"}', b'{"type": "string", "value": "@"}'][rng.integers(5)]
    elif how == "value":
        told = json.loads(frames[0])
        told["value"] = [None, -1, 1e308, "x", [], {}, True, float("nan"), 10**30][rng.integers(9)]
        frames[0] = json.dumps(told).encode()
    elif how == "part":
        del frames[at]
        frames = frames or [b""]
    else:
        frames.append(rng.bytes(5))
    return frames


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_an_answer_is_read_or_refused(parts):
    frames = [zmq.Frame(part) for part in [b"", *parts]]
    try:
        reply = read_reply(frames)
    except Garbage:
        return
    assert isinstance(reply["type"], str)


def test_ten_thousand_random_answers_are_read_or_refused():
    rng = np.random.default_rng(5)
    honest = [b'{"type":"short-array","value":"[B@1a2b"}', b"\x00\x00\x00\x01", b"\x01\x02" * 8]
    for _ in range(10_000):
        try:
            reply = read_reply(
                [zmq.Frame(b"")]
                + [zmq.Frame(p) for p in _spoiled(honest, ["cut", "byte", "part", "more"][rng.integers(4)], rng)]
            )
        except Garbage:
            continue
        assert isinstance(reply["type"], str)


# -------------------------------------------------------------------- the client


def test_a_remote_core_is_called_as_pycromanager_calls_it(server):
    bridge = attach(server.port, 5)
    try:
        core = RemoteObject.construct(bridge, "mmcorej.CMMCore")
        assert core.get_camera_device() == "Camera"
        assert "Camera" in core.get_loaded_devices()
        core.set_exposure(7)
        assert core.get_exposure() == 7.0
        core.set_exposure("Camera", 8.5)
        assert server.core.getExposure() == 8.5
        core.set_property("Camera", "Gain", 3)
        assert core.get_property("Camera", "Gain") == "3"
        with pytest.raises(Refused, match="No device with label"):
            core.get_property("Kamera", "Gain")
        with pytest.raises(AttributeError, match="no method fly"):
            core.fly()
        with pytest.raises(TypeError, match="set_exposure"):
            core.set_exposure([])
        assert len(bridge.objects) == 1
    finally:
        bridge.close()


def test_nothing_is_left_over_there(server):
    server.set_live(True)
    for mode in ("look", "every-frame"):
        with Run(server.port, mode).start() as run:
            run.take(5).finish()
    assert not [o for s in server._sockets.values() for o in s.objects.values() if type(o).__name__ == "TaggedImage"]


@pytest.mark.parametrize(
    ("camel", "with_snake"),
    [
        ("getNBeforeLastTaggedImage", "get_n_before_last_tagged_image"),
        ("getROI", "get_roi"),
        ("setXYPosition", "set_xy_position"),
        ("getLastImageMD", "get_last_image_md"),
        ("isSequenceRunning", "is_sequence_running"),
        ("createRewritableRAMDatastore", "create_rewritable_ram_datastore"),
    ],
)
def test_names_are_pycromanagers(camel, with_snake):
    assert snake(camel) == with_snake


def test_a_bridge_closes_twice(server):
    bridge = Bridge(server.port)
    bridge.close()
    bridge.close()


# -------------------------------------------------------------------- config and session


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("port = 0", "port"),
        ('mode = "watch"', "mode"),
        ('mode = "drive"', "needs sequence"),
        ('mode = "drive"\nsequence = "s.yaml"\nframes = 3', "leave out frames"),
        ("exposure_ms = 3", "exposure_ms is for"),
        ('sequence = "s.yaml"', "sequence is for"),
        ("speed = 3", "speed"),
        ("wait_s = -1", "wait_s"),
    ],
)
def test_keys_are_checked(keys, says):
    with pytest.raises(ConfigError, match=says):
        Config.parse(f'[source]\nkind = "micromanager-java"\n{keys}\n')


def test_a_sequence_that_is_missing_is_said_before_anything_is_waited_for(tmp_path):
    with pytest.raises(SourceError, match="cannot read"):
        MicroManagerJava(mode="drive", sequence=str(tmp_path / "none.yaml")).ready()


def test_the_contract(server):
    server.set_live(True)
    for mode in ("look", "every-frame"):
        check_source(lambda mode=mode: MicroManagerJava(port=server.port, mode=mode))
    server.set_live(False)
    burst = {"time_plan": {"interval": 0.001, "loops": 20}}
    check_source(lambda: MicroManagerJava(port=server.port, mode="drive", sequence=burst))


def test_a_session_records_through_a_change_of_roi(server, tmp_path):
    server.set_live(True)
    config = {
        "source": {"kind": "micromanager-java", "port": server.port, "mode": "every-frame"},
        "sinks": [{"kind": "recorder", "path": str(tmp_path / "rec")}],
    }

    def change():
        server.set_live(False)
        while server.core.getRemainingImageCount() > 1:
            time.sleep(0.01)
        time.sleep(0.1)
        server.core.setROI(8, 16, 64, 48)
        server.set_live(True)

    changing = threading.Thread(target=change)
    seen: dict[tuple[int, ...], list[int]] = {}
    with pellucid.open(config) as session:
        for frame in session:
            seen.setdefault(frame["raw"].shape, []).append(frame.info.camera_number)
            if len(seen) == 1 and len(seen[128, 128]) == 20:
                changing.start()
            if len(seen.get((48, 64), [])) == 20:
                session.stop()
    changing.join()
    frames = session.report["frames"]
    assert frames["unaccounted"] == 0
    assert not frames["lost"]
    assert frames["recorded"] == frames["received"]
    assert seen[128, 128] == list(range(seen[128, 128][0], seen[128, 128][0] + len(seen[128, 128])))
    assert seen[48, 64] == list(range(20))
    assert server.preview_errors == 0
    raw = [zarr.open_array(path, mode="r") for path in (tmp_path / "rec").glob("*raw*/0")]
    assert {a.shape[-2:] for a in raw} == set(seen)
    assert sum(a.shape[0] for a in raw) == frames["recorded"]


def test_a_session_ends_in_words_when_the_camera_goes(server, in_turn, tmp_path):
    server.set_live(True)
    config = {
        "source": {"kind": "micromanager-java", "port": server.port},
        "sinks": [{"kind": "recorder", "path": str(tmp_path / "rec")}],
    }
    session = pellucid.open(config)

    def iterate():
        for i, _ in enumerate(session):
            if i == 3:
                server.set_live(False)
                with in_turn:
                    server.core.unloadAllDevices()

    with session, pytest.raises(RunError, match="camera Camera is gone"):
        iterate()
    assert session.report["frames"]["recorded"] == session.report["frames"]["received"]
