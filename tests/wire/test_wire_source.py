"""The wire as a session sees it: a source."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError
from wire_parts import LONG_S, picture

from pellucid.errors import SourceError, WireError
from pellucid.ledger import Ledger
from pellucid.protocols import Slot, Source
from pellucid.sources.wire import WireSource
from pellucid.wire.keys import Curve
from pellucid.wire.memory import SlotLayout, SlotMemory


@pytest.fixture
def run() -> Iterator[SimpleNamespace]:
    """Open and start a source, feed it slots, and count as the session does."""
    state = SimpleNamespace(source=None, memories=[], ledger=Ledger(), seen=[], wrong=[])

    def start(source: WireSource, slots: int = 4) -> None:
        state.source = source
        streams = source.open()
        rings = []
        for stream in streams:
            memory = SlotMemory.create(SlotLayout({"raw": stream.spec, "restored": stream.spec}, slots), shared=True)
            state.memories.append(memory)
            rings.append(SimpleNamespace(memory=memory, slots=[Slot(i, stream, memory.views(i)) for i in range(slots)]))
        source.start(rings, state.ledger)
        for ring in rings:
            for slot in ring.slots:
                source.offer(slot)
        rings.clear()

    def read(keep: bool = False) -> Slot | None:
        slot = state.source.read(0.02)
        if slot is not None:
            state.seen.append(slot.info)
            if not np.array_equal(slot.planes["raw"], picture(slot.info.camera_number - 1000, slot.stream.spec)):
                state.wrong.append(slot.info.seq)
            state.ledger.arrived(slot.info, 1)
            state.ledger.ended(slot.info, "processed")
            if not keep:
                state.source.offer(slot)
        return slot

    state.start, state.read = start, read
    yield state
    if state.source is not None:
        state.source.close()
        state.source.close()
    for memory in state.memories:
        memory.close()


def finish(run: SimpleNamespace) -> None:
    import time

    end = time.monotonic() + LONG_S
    while not run.source.finished:
        assert time.monotonic() < end
        run.read()


def test_it_is_a_source(run, cameras):
    source = WireSource(bind="tcp://127.0.0.1:*")
    assert isinstance(source, Source)
    assert source.shares_memory
    camera = cameras(source.listen(), frames=60)
    run.start(source)
    finish(run)
    assert [info.seq for info in run.seen] == list(range(60))
    assert run.wrong == []
    assert camera.result()["attached"]
    assert run.ledger.unaccounted == 0
    assert run.ledger.frames()["totals_confirmed"]
    assert source.read(0) is None


def test_what_the_sender_says_of_its_stream_arrives(run, cameras):
    source = WireSource(bind="tcp://127.0.0.1:*")
    cameras(source.listen(), frames=1, shape=(6, 7), dtype="uint8")
    run.start(source)
    stream = run.memories and run.source and run.source._lent[0].slots[0].stream
    assert (stream.camera, stream.pixel_um, stream.index) == ("counting", 0.1, 0)
    assert str(stream.spec) == "6x7 uint8"
    finish(run)


def test_stop_reaches_the_camera(run, cameras):
    source = WireSource(bind="tcp://127.0.0.1:*")
    camera = cameras(source.listen(), frames=10**9, live=True, fps=500)
    run.start(source)
    while len(run.seen) < 20:
        run.read()
    source.stop()
    finish(run)
    assert camera.result()["acked"]
    assert run.ledger.unaccounted == 0
    assert run.ledger.frames()["totals_confirmed"]


def test_a_vanished_sender_ends_the_run(run, cameras):
    source = WireSource(bind="tcp://127.0.0.1:*", linger_s=0.2)
    camera = cameras(source.listen(), frames=10**9, live=True, fps=500)
    run.start(source)
    while len(run.seen) < 20:
        run.read()
    camera.process.kill()
    finish(run)
    assert run.ledger.unaccounted == 0
    assert not run.ledger.frames()["totals_confirmed"]


def test_a_killed_sender_is_not_waited_for_after_stop(run, cameras):
    source = WireSource(bind="tcp://127.0.0.1:*", linger_s=1000.0)
    camera = cameras(source.listen(), frames=10**9, live=True, fps=500)
    run.start(source)
    while len(run.seen) < 5:
        run.read()
    camera.process.kill()
    source.stop()
    finish(run)
    assert source._receiver.sender_is_dead
    assert run.ledger.unaccounted == 0


def test_a_successor_keeps_the_run_alive(run, cameras):
    source = WireSource(bind="tcp://127.0.0.1:*", linger_s=20.0)
    camera = cameras(source.listen(), frames=10**9, fps=500)
    run.start(source, slots=3)
    while len(run.seen) < 20:
        run.read()
    camera.process.kill()
    camera.process.wait()
    cameras(source.endpoint, frames=40)
    finish(run)
    assert len(run.seen) >= 60
    assert [info.seq for info in run.seen] == sorted({info.seq for info in run.seen})
    assert run.wrong == []
    assert run.ledger.unaccounted == 0


@pytest.mark.parametrize("window", [1, 2])
def test_the_window_bounds_what_is_granted(run, cameras, window):
    source = WireSource(bind="tcp://127.0.0.1:*", window=window)
    cameras(source.listen(), frames=50)
    run.start(source)
    while not source.finished:
        run.read()
        assert len(source._lent[0].slots) <= window
    assert len(run.seen) == 50
    assert run.wrong == []


def test_slots_that_sinks_keep_are_not_written(run, cameras):
    source = WireSource(bind="tcp://127.0.0.1:*")
    cameras(source.listen(), frames=100, live=True, fps=1000)
    run.start(source)
    kept = []
    while not source.finished:
        slot = run.read(keep=True)
        if slot is not None:
            kept.append((slot, slot.planes["raw"].copy()))
    assert len(kept) == 4
    for slot, pixels in kept:
        np.testing.assert_array_equal(slot.planes["raw"], pixels)
    assert run.ledger.dropped["sender"] == 96
    assert run.ledger.unaccounted == 0
    kept.clear()


def test_no_sender_comes():
    source = WireSource(bind="tcp://127.0.0.1:*", wait_s=0.05)
    with pytest.raises(SourceError, match=r"pellucid send --to tcp://127\.0\.0\.1:") as caught:
        source.open()
    assert "\n" not in str(caught.value)
    source.close()


def test_keys_of_a_config():
    for wrong in ({"bind": "nonsense"}, {"wait_s": 0}, {"window": 0}, {"what": 1}, {"allow": ["x"]}):
        with pytest.raises(ValidationError):
            WireSource(**wrong)


def test_open_to_others_without_keys():
    with pytest.raises(WireError, match="needs keys"):
        WireSource(bind="tcp://0.0.0.0:0").open()


def test_with_keys(run, cameras, tmp_path):
    server, client = Curve.make(tmp_path / "server.toml"), Curve.make(tmp_path / "client.toml")
    source = WireSource(bind="tcp://127.0.0.1:*", keys=tmp_path / "server.toml", allow=[client.public])
    cameras(source.listen(), frames=10, keys=[client.public, client.secret, server.public])
    run.start(source)
    finish(run)
    assert len(run.seen) == 10
