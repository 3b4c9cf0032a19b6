"""Stacks out of planes: what comes together, what has holes, what finds no room; and that all of it is counted."""

from __future__ import annotations

import numpy as np
import pytest

from pellucid.errors import RunError, SourceError
from pellucid.runtime.stacks import PLANES, Stacks
from pellucid.testing import check_source
from tests.parts import Experiment
from tests.runtime.stack_parts import SHAPE, Slices, image, rows, run, stacks
from tests.sources.source_parts import Play, play


def config(tmp_path, frames, depth=3, *, slots=4, more="", source="", stage="") -> str:
    return f"""
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}, {{ kind = "keep", policy = "block" }}]
        {more}
        [source]
        kind = "slices"
        depth = {depth}
        frames = {str(frames).replace("':", "' =")}
        {source}
        [[stages]]
        kind = "blend"
        {stage}
        [session]
        unit = "stack"
        slots = {slots}
    """


# -------------------------------------------------------------------- what comes together


@pytest.mark.parametrize("shared", [False, True])
def test_stacks_keep_the_contract_of_a_source(shared):
    seen = check_source(lambda: Stacks(Slices(stacks(9, 3), 3, shares_memory=shared)), frames=6)
    (stream,) = seen.streams
    assert (stream.spec.shape, stream.spec.axes, dict(stream.sizes), stream.z_um) == ((3, *SHAPE), "zyx", {"t": 1}, 0.5)
    first = seen.infos[0]
    assert (first.seq, first.last_seq, first.camera_number, first.count) == (0, 2, 100, 3)
    assert first.camera_ns > first.began_ns > 0
    assert [info.axes for info in seen.infos[:2]] == [{"t": 0}, {"t": 1}]
    assert [plane[:, 0, 0].tolist() for plane in seen.planes[:2]] == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("order", ["tpcz", "ptcz", "tpzc", "ctpz"])
def test_channels_in_any_order_come_together(order):
    sizes = {axis: {"t": 2, "p": 2, "c": 2, "z": 3}[axis] for axis in order}
    source = Experiment(sizes)
    places = {tuple(at[a] for a in "tpcz"): n for n, at in enumerate(source._frames)}
    one = play(Stacks(source))
    assert len(one.infos) == 8
    assert one.seqs == sorted(one.seqs)
    for info, planes in zip(one.infos, one.planes, strict=True):
        wanted = [places[(*(info.axes[a] for a in "tpc"), z)] for z in range(3)]
        assert list(info.planes) == wanted
        assert planes[:, 0, 0].tolist() == [number + 1 for number in wanted]


@pytest.mark.parametrize(("order", "better"), [("tzcp", "tpcz"), ("pczt", "ptcz"), ("zt", "tz")])
def test_an_order_in_which_no_stack_comes_together_is_refused(order, better):
    sizes = {axis: {"t": 2, "p": 2, "c": 2, "z": 3}[axis] for axis in order}
    with pytest.raises(SourceError, match=f'axis_order = "{better}"'):
        Stacks(Experiment(sizes)).open()
    Stacks(Experiment(sizes | {"t": 1, "p": 1})).open()


def test_a_stack_is_given_as_soon_as_its_last_plane_is_there():
    with Play(Stacks(Slices(stacks(2, 3), 3))) as one:
        one.offer_all()
        source = one.source
        assert [source.read(0.1) for _ in range(2)] == [None, None]
        slot = source.read(0.1)
        assert slot.info.planes == (0, 1, 2)
        assert slot.info.received_ns - slot.info.camera_ns < 50e6


def test_an_experiment_that_repeats_without_an_axis_gives_stack_after_stack(tmp_path):
    _, session = run(config(tmp_path, [{"z": z} for _ in range(5) for z in (1, 0, 2)]))
    assert session.report["stacks"] == {"complete": 5}
    assert image(tmp_path / "rec")[:, 0, :, 0, 0].tolist() == [[3 * i + 2, 3 * i + 1, 3 * i + 3] for i in range(5)]


# -------------------------------------------------------------------- holes


def test_a_stack_with_a_hole_is_recorded_and_not_restored(tmp_path):
    frames = stacks(4, 3)
    frames[4] = "lost"  # the second of the second stack
    _, session = run(config(tmp_path, frames))
    sums = session.report["frames"]
    assert (sums["produced"], sums["received"], sums["processed"], sums["recorded"]) == (12, 11, 9, 11)
    assert (sums["raw_only"], sums["lost"]) == ({"incomplete stack": 2}, {"camera": 1})
    assert session.report["stacks"] == {"complete": 3, "incomplete": 1}
    assert session.report["cameras"]["camera"]["produced"] == 12
    raw, restored = image(tmp_path / "rec"), image(tmp_path / "rec", "restored")
    assert raw.shape == restored.shape == (4, 1, 3, *SHAPE)
    assert raw[:, 0, :, 3, 5].tolist() == [[1, 2, 3], [4, 0, 6], [7, 8, 9], [10, 11, 12]]
    assert restored[:, 0, :, 3, 5].tolist() == [[2] * 3, [0] * 3, [8] * 3, [11] * 3]
    told = rows(tmp_path / "rec")
    hole = next(row for row in told if row.get("missing_z"))
    assert (hole["seq"], hole["to_seq"], hole["planes"], hole["missing_z"]) == (3, 5, 2, [1])
    assert (hole["state"], hole["where"]) == ("raw_only", "incomplete stack")
    assert {"seq": 4, "state": "lost", "where": "camera", "stream": 0} in told
    assert [row["seq"] for row in told] == sorted(row["seq"] for row in told)
    assert all(row["began_ms"] < 0 for row in told if "planes" in row)


def test_memory_of_the_stack_before_does_not_show_through_a_hole(tmp_path):
    frames = stacks(12, 3)
    for stack in range(4, 12):
        frames[3 * stack + stack % 3] = "lost"
    run(config(tmp_path, frames, slots=3))
    raw = image(tmp_path / "rec")[:, 0, :, 0, 0]
    for stack in range(4, 12):
        assert raw[stack, stack % 3] == 0
        assert np.count_nonzero(raw[stack]) == 2


@pytest.mark.parametrize("order", ["tcz", "tzc"])
@pytest.mark.parametrize("lost", [[0, 1], [5, 6, 7], [11], [2, 3, 4, 8, 9, 10, 11]])
def test_losses_of_two_channels_are_told_apart(order, lost, tmp_path):
    sizes = {axis: {"t": 2, "c": 2, "z": 3}[axis] for axis in order}
    _, session = run(
        f"""
        source = {{ kind = "experiment", sizes = {str(sizes).replace("':", "' =")}, lost = {lost} }}
        stages = [{{ kind = "blend" }}]
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        session = {{ unit = "stack", slots = 3 }}
        """
    )
    source = Experiment(sizes)
    raw, restored = image(tmp_path / "rec"), image(tmp_path / "rec", "restored")
    whole = 0
    for t in range(2):
        for c in range(2):
            numbers = [n for n, at in enumerate(source._frames) if (at["t"], at["c"]) == (t, c)]
            wanted = [0 if n in lost else n + 1 for n in numbers]
            if t < raw.shape[0]:
                assert raw[t, c, :, 0, 0].tolist() == wanted
                assert (restored[t, c] == (np.mean(wanted) if all(wanted) else 0)).all()
            whole += all(wanted)
    assert session.report["frames"]["processed"] == 3 * whole
    assert session.report["frames"]["lost"] == {"camera": len(lost)}


def test_a_plane_beyond_the_stack_is_counted_and_left_out(tmp_path):
    frames = [*stacks(1, 3), {"t": 1, "z": 0}, {"t": 1, "z": 7}, {"t": 1}, {"t": 1, "z": 1}, {"t": 1, "z": 2}]
    _, session = run(config(tmp_path, frames))
    assert session.report["frames"]["dropped"] == {"no place in the stack": 2}
    assert session.report["frames"]["processed"] == 6
    assert image(tmp_path / "rec")[1, 0, :, 0, 0].tolist() == [4, 7, 8]


# -------------------------------------------------------------------- the end


def test_a_run_that_ends_within_a_stack_keeps_its_planes(tmp_path):
    _, session = run(config(tmp_path, stacks(3, 3)[:-1]))
    assert session.report["frames"]["raw_only"] == {"incomplete stack": 2}
    assert image(tmp_path / "rec")[2, 0, :, 0, 0].tolist() == [7, 8, 0]
    assert rows(tmp_path / "rec")[-1]["missing_z"] == [2]


def test_a_source_that_breaks_off_leaves_what_came(tmp_path):
    _, session = run(config(tmp_path, [*stacks(2, 3)[:-1], "break"]), fails=RunError)
    assert "the cable was pulled" in str(session.error)
    assert session.report["frames"]["recorded"] == 5
    assert session.report["stacks"] == {"complete": 1, "incomplete": 1}


def test_a_limit_counts_stacks(tmp_path):
    _, session = run(config(tmp_path, stacks(9, 3)).replace("unit =", "frames = 4\nunit ="))
    assert session.report["frames"]["received"] == 12
    assert session.report["stacks"] == {"complete": 4}
    assert session.report["ended"] == "4 stacks"
    assert len(image(tmp_path / "rec")) == 4


def test_planes_in_hand_are_told_when_a_source_is_closed_early():
    with Play(Stacks(Slices(stacks(3, 3), 3))) as one:
        one.offer_all()
        for _ in range(5):
            one.source.read(0.1)
    assert one.account.numbers() == [3, 4]
    assert one.account.missed[0][2:] == ("dropped", "after the end")


# -------------------------------------------------------------------- no room


def test_an_experiment_waits_for_room_and_loses_nothing(tmp_path):
    _, session = run(config(tmp_path, stacks(12, 3), slots=3, stage="slow_s = 0.02"))
    sums = session.report["frames"]
    assert sums["produced"] == sums["processed"] == sums["recorded"] == 36


@pytest.mark.parametrize("depth", [3, 20])
def test_a_live_source_leaves_out_whole_stacks_and_the_others_are_whole(depth):
    """Where slots come back too slowly a stack is left out, and the next that finds one has all its planes."""
    source = Stacks(Slices(stacks(40, depth), depth, live=True, every_s=0.001))
    with Play(source, slots=2) as one:
        one.offer_all().take(2, give_back=False)
        lent = list(one.rings[0].slots)
        whole = 2
        while not source.finished:
            for _ in range(3 * depth):
                slot = source.read(0.01)
                if slot is not None:
                    one.infos.append(slot.info)
                    lent.append(slot)
                    whole += slot.info.count == depth
            if lent and not source.finished:
                source.offer(lent.pop(0))
        dropped = one.missed("dropped", "ring")
    came = sum(info.count for info in one.infos)
    assert dropped > depth
    assert came + dropped == 40 * depth == one.account.produced
    numbers = sorted([n for info in one.infos for n in info.planes if n >= 0] + one.account.numbers())
    assert numbers == list(range(40 * depth))
    assert whole >= 4
    assert whole >= 0.6 * len(one.infos)


def test_a_source_that_waits_is_held_up_before_anything_is_dropped():
    """As a camera at the other end of a wire: live by name, with frames that wait over there."""
    source = Stacks(Slices(stacks(4, 2), 2, live=False))
    source.live = True
    with Play(source, slots=1) as one:
        one.offer_all().take(1, give_back=False)
        for _ in range(50):
            assert source.read(0.001) is None
        assert len(source._held) == 2 * 3 <= PLANES
        source.offer(one.rings[0].slots[0])
        one.take()
    assert one.account.missed == []
    assert [info.count for info in one.infos] == [2] * 4


# -------------------------------------------------------------------- streams


@pytest.mark.parametrize("after", [3, 4, 5])
def test_a_roi_that_changes_within_a_stack_ends_it(after, tmp_path):
    frames = stacks(4, 3)
    frames.insert(after, "smaller")
    _, session = run(config(tmp_path, frames, slots=3, stage="slow_s = 0.01"))
    cut = after % 3
    assert session.report["frames"]["received"] == 12
    assert session.report["stacks"] == {"complete": 3, "incomplete": 2} if cut else {"complete": 4}
    first, second = image(tmp_path / "rec"), image(tmp_path / "rec", "raw-camera-1")
    assert (first.shape[2:], second.shape[2:]) == ((3, *SHAPE), (3, SHAPE[0] // 2, SHAPE[1]))
    assert sorted({*first[..., 0, 0].flat, *second[..., 0, 0].flat} - {0}) == list(range(1, 13))
    assert [stream["replaces"] for stream in session.report["streams"]] == [None, 0]


def test_single_planes_are_refused_with_what_to_do():
    for depth in (0, 1):
        with pytest.raises(SourceError, match=r"gives single planes \(16x24 uint16\).*z_plan"):
            Stacks(Slices(stacks(2, 1), depth)).open()
    with pytest.raises(SourceError, match="takes grey planes"):
        Stacks(Slices(stacks(2, 3), 3, colour=True)).open()
