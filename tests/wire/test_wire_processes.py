"""Camera and session as two real processes."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import zmq

from pellucid.wire.keys import Curve


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("shape", "dtype"), [((24, 40), "uint16"), ((5, 33, 65), "uint8"), ((300, 300), "float32")])
def test_pixels_are_the_same_either_way(sessions, cameras, shared, shape, dtype):
    session = sessions()
    camera = cameras(session.receiver.endpoint, frames=50, shape=shape, dtype=dtype, shared=shared)
    session.welcome()
    session.to_the_end()
    assert session.wrong == []
    assert [info.seq for info in session.seen] == list(range(50))
    assert [info.camera_number for info in session.seen] == list(range(1000, 1050))
    assert all(info.camera_ns <= info.sent_ns <= info.received_ns for info in session.seen) or not shared
    result = camera.result()
    assert result["acked"]
    assert result["attached"] == session.receiver.attached == shared
    assert session.receiver.totals == (50, 50, 0)
    assert session.ledger.unaccounted == 0
    assert camera.process.returncode == 0


def test_receiver_without_shared_memory_gets_pixels_in_band(sessions, cameras):
    session = sessions(shared=False)
    cameras(session.receiver.endpoint, frames=20)
    session.welcome()
    session.to_the_end()
    assert not session.receiver.attached
    assert len(session.seen) == 20
    assert session.wrong == []


@pytest.mark.parametrize("shared", [True, False])
def test_a_killed_sender_leaves_nothing_unexplained(sessions, cameras, shared):
    session = sessions()
    camera = cameras(session.receiver.endpoint, frames=10**9, live=True, fps=300, shared=shared)
    session.welcome()
    session.until(lambda: len(session.seen) > 30)
    camera.process.kill()
    session.until(lambda: session.receiver.state == "gone")
    camera.process.wait()
    session.until(lambda: session.receiver.quarantined == 0)
    assert session.ledger.unaccounted == 0
    assert session.ledger.frames()["totals_confirmed"] is False
    assert session.wrong == []


def test_frames_produced_before_a_kill_are_lost_on_the_wire(sessions, cameras):
    session = sessions(slots=2)
    camera = cameras(session.receiver.endpoint, frames=10**9, live=True, fps=500)
    session.welcome()
    session.until(lambda: len(session.seen) == 2, grant=False)
    told = session.ledger.produced
    session.until(lambda: session.ledger.produced > told + 20, grant=False)  # beats tell of frames without a slot
    camera.process.kill()
    session.until(lambda: session.receiver.state == "gone", grant=False)
    assert session.ledger.dropped["sender"] + session.ledger.lost["wire"] >= 20
    assert session.ledger.unaccounted == 0


def test_another_camera_takes_over_after_a_kill(sessions, cameras):
    session = sessions()
    first = cameras(session.receiver.endpoint, frames=10**9, fps=200)
    session.welcome()
    session.until(lambda: len(session.seen) > 10)
    first.process.kill()
    first.process.wait()
    got = len(session.seen)
    session.first = -session.receiver._run.numbering.expected  # its pictures begin at 0 again
    second = cameras(session.receiver.endpoint, frames=30)
    session.wrong.clear()
    session.to_the_end()
    assert second.result()["acked"]
    assert len(session.seen) >= got + 30
    seqs = [info.seq for info in session.seen]
    assert seqs == sorted(set(seqs))
    assert session.ledger.unaccounted == 0
    assert session.ledger.frames()["totals_confirmed"] is False  # what the first had not told stays unknown


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP on Windows")
def test_slots_of_a_sleeping_sender_are_not_reused_until_it_speaks(sessions, cameras):
    session = sessions()
    camera = cameras(session.receiver.endpoint, frames=10**9, fps=200)
    session.welcome()
    session.until(lambda: len(session.seen) > 10)
    os.kill(camera.process.pid, signal.SIGSTOP)
    session.until(lambda: session.receiver.state == "gone")
    assert session.receiver.quarantined == session.slots
    assert session.receiver.released() == []
    os.kill(camera.process.pid, signal.SIGCONT)
    got = len(session.seen)
    session.until(lambda: len(session.seen) > got + 10)
    assert session.receiver.state == "connected"
    assert session.receiver.quarantined == 0
    session.receiver.stop()
    session.to_the_end()
    assert session.wrong == []
    assert session.ledger.unaccounted == 0
    assert session.ledger.frames()["totals_confirmed"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP on Windows")
def test_a_successor_does_not_get_the_slots_of_a_sleeping_sender(sessions, cameras):
    session = sessions()
    sleeper = cameras(session.receiver.endpoint, frames=10**9, fps=200)
    session.welcome()
    session.until(lambda: len(session.seen) > 5)
    os.kill(sleeper.process.pid, signal.SIGSTOP)
    session.until(lambda: session.receiver.state == "gone")
    cameras(session.receiver.endpoint, frames=20, live=False)
    session.until(lambda: session.receiver.state == "connected")
    session.until(lambda: session.receiver.attached)
    assert session.receiver.quarantined == session.slots
    sleeper.process.kill()  # now nobody can write there any more
    session.to_the_end()
    assert session.receiver.quarantined == 0
    assert session.ledger.unaccounted == 0


def test_a_restarted_receiver_gets_the_camera_back(sessions, cameras):
    first = sessions()
    endpoint = first.receiver.endpoint
    camera = cameras(endpoint, frames=10**9, fps=200, live=True)
    first.welcome()
    first.until(lambda: len(first.seen) > 10)
    first.close()
    second = sessions(endpoint)
    second.welcome()
    assert second.first >= 10
    second.until(lambda: len(second.seen) > 20)
    second.receiver.stop()
    second.to_the_end()
    assert second.seen[0].seq >= 0
    assert second.wrong == []
    assert second.ledger.unaccounted == 0
    assert camera.result()["acked"]


def test_live_without_credit_drops_and_counts(sessions, cameras):
    session = sessions(slots=2)
    camera = cameras(session.receiver.endpoint, frames=200, live=True, fps=1000)
    session.welcome()
    session.until(lambda: len(session.seen) == 2, grant=False)
    session.to_the_end()
    assert session.ledger.dropped["sender"] == camera.result()["dropped"] > 0
    assert session.ledger.produced == 200
    assert session.ledger.unaccounted == 0


@pytest.mark.parametrize("shared", [True, False])
def test_lossless_waits_for_a_slow_receiver(sessions, cameras, shared):
    session = sessions(slots=2)
    cameras(session.receiver.endpoint, frames=60, mode="lossless", shared=shared)
    session.welcome()
    held = []
    while session.receiver.state != "ended":
        arrival = session.take(0.02, grant=False)
        if arrival is not None:
            held.append(arrival)
        elif held:
            session.receiver.grant(0, held.pop(0).index)
    assert [info.seq for info in session.seen] == list(range(60))
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_curve_round_trip_and_a_stranger_stays_out(sessions, cameras):
    pairs = [tuple(key.decode() for key in zmq.curve_keypair()) for _ in range(3)]
    server, friend, stranger = pairs
    session = sessions(curve=Curve(*server, allowed=(friend[0],)))
    cameras(session.receiver.endpoint, frames=10**9, keys=[*stranger, server[0]], shared=False)
    cameras(session.receiver.endpoint, frames=30, keys=[*friend, server[0]], shared=False)
    session.welcome()
    session.to_the_end()
    assert len(session.seen) == 30
    assert session.wrong == []
