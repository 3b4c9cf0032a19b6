"""Where frames wait for a slow disk: slots, memory, spill, and what happens when all of that is full."""

from __future__ import annotations

import threading
import time

import pytest

from pellucid.protocols import Spec, Stream
from pellucid.recording.backlog import Backlog, Full, Piece
from pellucid.recording.disk import Disk
from pellucid.recording.spill import Spill, read_spill
from pellucid.testing import LocalRing

STREAM = Stream(Spec((8, 8), "uint16"))
NBYTES = 128


class Bench:
    """A backlog whose writer stands still until it is told to go on."""

    def __init__(self, tmp_path, memory: int = 0, spill: int = 0, when_full: str = "stop", threads: int = 1):
        self.go = threading.Event()
        self.ring = LocalRing(STREAM, 8)
        self.released: list[int] = []
        self.written: list[int] = []
        self.dropped: list[int] = []
        self.said: list[str] = []
        self.path = tmp_path / "a.spill"
        make = (lambda: Spill(self.path, Disk(), spill)) if spill else None
        self.backlog = Backlog(
            lambda slot: self.released.append(slot.index), threads, memory, make, when_full, self.said.append
        )

    def put(self, i: int, keep: int = 2) -> bool:
        slot = self.ring.slots[i % 8]
        slot.planes["raw"][...] = i

        def work(arrays):
            assert self.go.wait(20)
            (array,) = arrays
            assert (array == array[0, 0]).all()
            self.written.append(int(array[0, 0]))

        piece = Piece([slot.planes["raw"]], work, lambda _: self.dropped.append(i), lambda: {"number": i}, slot)
        return self.backlog.put(piece, keep)

    def end(self) -> None:
        self.go.set()
        assert self.backlog.drain(lambda: True)
        self.backlog.close()
        self.ring.close()


def test_while_the_disk_keeps_up_nothing_is_copied(tmp_path):
    bench = Bench(tmp_path, memory=10 * NBYTES)
    bench.go.set()
    for i in range(20):
        assert bench.put(i)
        while len(bench.written) <= i:
            time.sleep(0.001)
    bench.end()
    assert bench.written == list(range(20))
    assert bench.backlog.most_bytes == 0
    assert len(bench.released) == 20


def test_some_memory_is_there_before_the_disk_stalls_for_the_first_time(tmp_path):
    bench = Bench(tmp_path, memory=40 * NBYTES)
    bench.backlog.reserve([NBYTES, NBYTES // 2])
    at_hand = bench.backlog._free
    before = {size: len(some) for size, some in at_hand.items()}
    assert before == {NBYTES: 13, NBYTES // 2: 13}  # half of what is allowed
    bench.backlog.reserve([NBYTES])
    assert {size: len(some) for size, some in at_hand.items()} == before
    assert all(bench.put(i) for i in range(8))
    assert len(at_hand[NBYTES]) == 13 - 6
    bench.end()
    assert bench.written == list(range(8))


def test_frames_wait_in_slots_then_memory_then_the_spill_file_and_keep_their_order(tmp_path):
    bench = Bench(tmp_path, memory=2 * NBYTES, spill=1 << 20)
    assert all(bench.put(i) for i in range(8))
    # Two stay in their slots (and one of them is being written), two are in memory, the rest in the file.
    assert bench.backlog.most_bytes == 2 * NBYTES
    assert len(bench.released) == 6
    assert [about["number"] for about, _ in read_spill(bench.path)] == [4, 5, 6, 7]
    assert sum("spill" in line for line in bench.said) == 1
    for slot in bench.ring.slots[2:]:
        slot.planes["raw"][...] = 9999  # the camera has them again
    bench.end()
    assert bench.written == list(range(8))
    assert sorted(bench.released) == list(range(8))
    assert not bench.path.exists()


def test_what_does_not_fit_any_more_stops_or_is_left_out_or_waits(tmp_path):
    stops = Bench(tmp_path, memory=NBYTES, when_full="stop")
    assert all(stops.put(i) for i in range(3))
    with pytest.raises(Full):
        stops.put(3)
    stops.end()
    assert stops.written == [0, 1, 2]
    assert sorted(stops.released) == [0, 1, 2, 3]
    drops = Bench(tmp_path, memory=NBYTES, when_full="drop")
    assert [drops.put(i) for i in range(6)] == [True, True, True, False, False, False]
    assert sum("left out" in line for line in drops.said) == 1
    drops.end()
    assert drops.written == [0, 1, 2]
    assert sorted(drops.released) == [0, 1, 2, 3, 4, 5]
    waits = Bench(tmp_path, memory=NBYTES, when_full="wait")
    assert all(waits.put(i) for i in range(6))
    assert sorted(waits.released) == [2]  # the others keep their slots: the source finds none
    waits.end()
    assert waits.written == [0, 1, 2, 3, 4, 5]


def test_a_spill_file_is_bounded_and_used_again_after_a_commit(tmp_path):
    room = 3 * (NBYTES + 100)
    bench = Bench(tmp_path, spill=room, when_full="drop")
    taken = [bench.put(i) for i in range(8)]
    assert taken[:2] == [True, True]
    in_file = len(list(read_spill(bench.path)))
    assert sum(taken) == 2 + in_file < 8
    assert bench.path.stat().st_size <= room
    bench.go.set()
    while len(bench.written) < sum(taken):
        time.sleep(0.001)
    bench.go.clear()
    assert bench.put(0)
    assert bench.put(1)
    assert not all([bench.put(2), bench.put(3), bench.put(4)]), "room was used again before a commit"
    bench.backlog.committing()
    bench.backlog.committed()
    bench.go.set()
    while bench.backlog.waiting[0]:
        time.sleep(0.001)
    bench.backlog.committing()
    bench.backlog.committed()
    bench.go.clear()
    time.sleep(0.05)
    again = [bench.put(i) for i in range(5)]
    assert all(again[:4])
    bench.end()


def test_a_fault_lets_go_of_everything_with_a_count(tmp_path):
    bench = Bench(tmp_path, memory=3 * NBYTES)
    for i in range(5):
        bench.put(i)
    bench.backlog.fail(OSError("gone"))
    bench.go.set()
    assert bench.backlog.drain(lambda: True)
    assert bench.backlog.lost == 5 - len(bench.written)
    assert len(bench.dropped) == bench.backlog.lost
    assert sorted(bench.released) == list(range(5))
    with pytest.raises(OSError, match="gone"):
        bench.put(6)
    assert 6 in bench.released
    bench.ring.close()


def test_several_threads_write_at_once(tmp_path):
    bench = Bench(tmp_path, memory=8 * NBYTES, threads=3)
    for i in range(8):
        bench.put(i)
    bench.end()
    assert sorted(bench.written) == list(range(8))
    assert sorted(bench.released) == list(range(8))
