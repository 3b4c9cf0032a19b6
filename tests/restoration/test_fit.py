"""Which tiles, and how many at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pellucid.errors import StageError
from pellucid.models.model import Side
from pellucid.restoration.fit import Task, fit, shape_of
from tests.restoration.network_parts import Eager, model

TASK = Task(1, 1, (512, 600), "uint16", "float32", 1, "cuda")
GB = 10**9


def test_a_whole_frame_where_it_fits():
    found = fit(model(), Eager(), TASK, GB)
    assert (found.tile, found.tiles, found.batch) == ((512, 600), 1, 1)


def test_a_gpu_is_given_many_tiles_at_once_and_a_cpu_one():
    fixed = model("fixed", side=Side(64, 0))
    on_gpu, on_cpu = (fit(fixed, Eager(), replace(TASK, device=device), GB) for device in ("cuda", "cpu"))
    assert on_gpu.tiles == on_cpu.tiles > 100
    assert (on_gpu.batch, on_cpu.batch) == (on_gpu.tiles, 1)
    assert on_gpu.nbytes > on_cpu.nbytes
    less = fit(fixed, Eager(), TASK, on_gpu.nbytes // 3)
    assert 1 < less.batch < on_gpu.batch
    assert less.nbytes <= on_gpu.nbytes // 3
    # As few calls as there can be with so many at once, and none of them half empty.
    calls = -(-less.tiles // less.batch)
    assert -(-less.tiles // (less.batch - 1)) > calls


def test_a_large_frame_is_no_batch():
    assert fit(model(), Eager(), replace(TASK, space=(2048, 2048), pictures=3), 100 * GB).batch == 1
    assert fit(model(), Eager(), replace(TASK, space=(512, 512), pictures=3), 100 * GB).batch == 3


@pytest.mark.parametrize("part", [2, 5, 20])
def test_less_memory_gives_smaller_tiles_that_stay_within_it(part):
    whole = fit(model(), Eager(), TASK, GB)
    found = fit(model(), Eager(), TASK, whole.nbytes // part)
    assert found.nbytes <= whole.nbytes // part
    assert found.tiles > part // 2
    assert max(found.tile) - min(found.tile) <= 0.6 * max(found.tile), "tiles are near to squares"


def test_stacks_are_cut_along_z_as_well_where_they_are_long():
    deep = model("deep", axes="bczyx", side=Side(4, 4))
    task = replace(TASK, space=(400, 64, 64))
    found = fit(deep, Eager(), task, fit(deep, Eager(), task, 100 * GB).nbytes // 4)
    assert found.tile[0] < 200
    assert found.tile[1:] == (64, 64)


def test_wishes_are_kept_or_refused():
    found = fit(model(), Eager(), TASK, GB, tile=(128, 64), batch=4)
    assert (found.tile, found.batch) == ((128, 64), 4)
    with pytest.raises(StageError, match="4 at once, need"):
        fit(model(), Eager(), TASK, found.nbytes - 1, tile=(128, 64), batch=4)
    no_batch = model("one", axes="cyx")
    assert fit(no_batch, Eager(), TASK, GB, tile=(128, 64), batch=4).batch == 1


def test_a_shape_is_in_the_axes_of_the_port():
    assert shape_of(model("a", axes="byxc").given, 2, 3, (4, 5)) == (2, 4, 5, 3)
    assert shape_of(model("b", axes="yx").given, 1, 1, (4, 5)) == (4, 5)
    assert shape_of(model("c", axes="bczyx").given, 1, 1, (3, 4, 5)) == (1, 1, 3, 4, 5)
