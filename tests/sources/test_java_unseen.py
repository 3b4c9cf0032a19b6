"""Source "micromanager-java": what a look at the number of images alone would not show, with a real core."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from pellucid.errors import WireError
from pellucid.wire import bridge as bridge_module
from pellucid.wire.bridge import Bridge
from pellucid.wire.bridge_message import Gone, request
from tests.sources.bridge_parts import SMALL, Answering, Proxy, Run, hello

pytest.importorskip("pymmcore", reason="pymmcore is not installed: pip install pellucid[micromanager]")
pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed: pip install pellucid[demo]")

from pellucid.testing.bridge import BridgeServer

MODES = pytest.mark.parametrize("mode", ["look", "every-frame"])


@pytest.fixture
def server():
    with BridgeServer(properties=SMALL) as server:
        yield server


@pytest.fixture
def held(server):
    """A door to the server that may be closed for a while."""
    go = threading.Event()
    go.set()

    def change(frames):
        go.wait()
        return frames

    with Proxy(server.port, change) as proxy:
        proxy.go = go
        yield proxy


def play(core, count: int, *, stop_on_overflow: bool = True) -> None:
    core.startSequenceAcquisition(count, 0, stop_on_overflow)
    while core.isSequenceRunning():
        time.sleep(0.002)


# -------------------------------------------------------------------- a stream is more than its shape


def move(core) -> None:
    core.setROI(32, 16, 64, 64)


def bin_more(core) -> None:
    core.clearROI()
    core.setProperty("Camera", "Binning", "8")


CHANGES = [(move, (32, 16), "4", 4.0), (bin_more, (0, 0), "8", 8.0)]


@MODES
@pytest.mark.parametrize("given_um", [None, 0.5])
@pytest.mark.parametrize(("change", "corner", "binning", "pixel_um"), CHANGES)
def test_a_change_that_keeps_the_size_begins_a_new_stream(server, mode, given_um, change, corner, binning, pixel_um):
    core = server.core
    core.setROI(0, 0, 64, 64)
    with Run(server.port, mode, pixel_um=given_um).start() as run:
        for i in range(2):
            if i:
                change(core)
            core.startSequenceAcquisition(20, 0, True)
            seen = len(run.infos)
            run.until(lambda seen=seen: len(run.infos) > seen and run.infos[-1].camera_number == 19)
        run.finish()
    old, new = run.streams
    assert old.spec == new.spec
    assert (old.details["roi"], new.details["roi"]) == ([0, 0, 64, 64], [*corner, 64, 64])
    assert (new.replaces, new.details["binning"]) == (0, binning)
    assert new.pixel_um == (pixel_um if given_um is None else given_um * pixel_um / 4)
    assert [info.stream for info in run.infos] == sorted(info.stream for info in run.infos)
    if mode == "every-frame":
        assert [run.numbers(i) for i in range(2)] == [list(range(20))] * 2


@MODES
def test_a_change_before_the_first_frame_begins_a_new_stream(server, mode):
    server.core.setROI(0, 0, 64, 64)
    with Run(server.port, mode).start() as run:
        move(server.core)
        server.core.startSequenceAcquisition(5, 0, True)
        run.until(lambda: run.infos and run.infos[-1].camera_number == 4).finish()
    assert {info.stream for info in run.infos} == {1}
    assert run.streams[1].details["roi"] == [32, 16, 64, 64]


@MODES
def test_another_bit_depth_begins_a_new_stream(server, mode):
    with Run(server.port, mode).start() as run:
        for bits in ("16", "12"):
            server.core.setProperty("Camera", "BitDepth", bits)
            server.core.startSequenceAcquisition(20, 0, True)
            seen = len(run.infos)
            run.until(lambda seen=seen: len(run.infos) > seen and run.infos[-1].camera_number == 19)
        run.finish()
    assert [stream.bit_depth for stream in run.streams] == [16, 12]


@pytest.mark.parametrize(("change", "corner", "binning", "pixel_um"), CHANGES)
def test_a_change_that_keeps_the_size_in_a_driven_experiment(server, change, corner, binning, pixel_um):
    core = server.core
    core.setROI(0, 0, 64, 64)
    plan = {"channels": [{"config": "DAPI", "exposure": 2}], "time_plan": {"interval": 0.05, "loops": 12}}
    with Run(server.port, "drive", sequence=plan).start() as run:
        run.take(4)
        change(core)
        run.take()
        run.explained()
    old, new = run.streams
    assert old.spec == new.spec
    assert (new.replaces, new.details["roi"], new.details["binning"]) == (0, [*corner, 64, 64], binning)
    assert new.pixel_um == pixel_um
    assert len(run.infos) == 12


# -------------------------------------------------------------------- sequences between two looks


@MODES
def test_a_sequence_that_leaves_as_many_images_as_waited_before(server, held, mode):
    play(server.core, 5)
    with Run(held.port, mode).start() as run:
        run.for_s(0.4)
        assert not run.infos
        held.go.clear()
        play(server.core, 5)
        held.go.set()
        run.until(lambda: run.infos and run.infos[-1].camera_number == 4).for_s(0.3).finish()
    assert run.account.produced == 5
    assert not run.account.complete
    assert any("between two looks" in note for note in run.account.notes)
    if mode == "every-frame":
        assert run.numbers() == list(range(5))


def test_it_is_seen_at_the_end_too(server, held):
    play(server.core, 5)
    with Run(held.port).start() as run:
        run.for_s(0.4)
        held.go.clear()
        play(server.core, 5)
        run.source.stop()
        held.go.set()
        run.finish()
    assert run.account.produced == 5
    assert not run.account.complete


@MODES
def test_one_of_another_size_that_leaves_as_many_images(server, held, mode):
    """What waited before is never read: it would be copied by the size of now."""
    play(server.core, 5)
    server.core.setProperty("Camera", "Binning", "2")
    with Run(held.port, mode).start() as run:
        run.for_s(0.4)
        assert not run.infos
        held.go.clear()
        play(server.core, 5)
        held.go.set()
        run.until(lambda: run.infos and run.infos[-1].camera_number == 4).finish()
    assert run.account.produced == 5
    assert all(plane.shape == (256, 256) for plane in run.planes)


def test_images_of_another_size_from_before_are_none_of_the_run_when_they_can_be_read(server):
    play(server.core, 5)
    server.core.setProperty("Camera", "Binning", "2")
    with Run(server.port, "every-frame").start() as run:
        run.for_s(0.3)
        server.core.setProperty("Camera", "Binning", "4")
        run.for_s(0.3).finish()
    assert not run.infos
    assert run.account.produced == 0


def test_short_sequences_of_equal_length_are_all_taken(server):
    """Each leaves one image, as the one before."""
    server.core.setProperty("Camera", "FastImage", "1")
    with Run(server.port, "every-frame").start() as run:
        run.for_s(0.3)
        for _ in range(8):
            server.core.startSequenceAcquisition(1, 0, True)
            run.for_s(0.27)
        run.finish()
    assert run.numbers() == [0] * 8
    assert not run.missed()


@MODES
def test_a_sequence_that_overflowed_between_two_looks_is_told(server, held, mode):
    server.core.setCircularBufferMemoryFootprint(1)  # 32 frames
    play(server.core, 1)
    with Run(held.port, mode, slots=40).start() as run:
        run.for_s(0.4)
        held.go.clear()
        play(server.core, 1000)
        held.go.set()
        run.until(lambda: run.account.count("lost", "camera buffer")).for_s(0.3).finish()
    assert server.core.isBufferOverflowed()
    assert run.account.count("lost", "camera buffer") == 1
    assert run.account.produced == 33
    assert not run.account.complete


def test_a_full_buffer_that_was_thrown_away_and_filled_again_is_named(server, held):
    core = server.core
    core.setProperty("Camera", "FastImage", "1")
    core.setCircularBufferMemoryFootprint(1)  # 32 frames
    with Run(held.port, "every-frame", slots=40).start() as run:
        core.startContinuousSequenceAcquisition(0)
        run.take(3)
        held.go.clear()
        last = run.infos[-1].camera_number
        while int(server.remote.getLastTaggedImage().all_tags["ImageNumber"]) < last + 80:
            time.sleep(0.001)
        held.go.set()
        run.take(5).finish()
    assert run.account.count("lost", "camera buffer") >= 31
    assert run.account.count("lost", "camera") == 0


def test_idle_looks_are_few(server):
    """Ten a second, of some questions each."""
    play(server.core, 3)
    asked = []

    def change(frames):
        asked.append(1)
        return frames

    with Proxy(server.port, change) as proxy, Run(proxy.port, "every-frame").start() as run:
        run.for_s(0.5)
        before = len(asked)
        run.for_s(1.0)
        assert len(asked) - before < 12 * 12
        run.finish()


# -------------------------------------------------------------------- words


def test_an_application_that_was_killed_is_told_without_the_system_s_words():
    with Answering(hello(bridge_module.VERSION)) as other:
        bridge = Bridge(other.port)
    time.sleep(0.2)
    try:
        with pytest.raises(Gone) as raised:
            bridge.send(*[request("connect", debug=False)] * 2000)
    finally:
        bridge.close()
    assert str(raised.value) == bridge_module.ENDED


def test_a_port_that_listens_and_says_nothing(monkeypatch):
    monkeypatch.setattr(bridge_module, "HANDSHAKE_MS", 200)
    says = "nothing answers there in the way Micro-Manager does"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(WireError, match=says) as raised:
        Run(silent.getsockname()[1])
    assert "broke" not in str(raised.value)
