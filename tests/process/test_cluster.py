"""Workers of dask.distributed give what one process gives, to the last bit, also when one of them dies."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pellucid.errors import MissingExtra, RunError
from tests.process.conftest import files, report, rows

RNG = np.random.default_rng(6)


def test_two_workers_one_of_which_dies_give_what_one_process_gives(bench):
    pytest.importorskip("distributed", reason='dask is not installed: pip install "pellucid[dask]"')
    given = RNG.integers(1000, 4000, (3, 2, 400, 420)).astype("uint16")
    bench.tiff("given.ome.tif", given, metadata={"axes": "TCYX"})
    # Large enough for torch to share a sum out, so that another number of threads would give other bits.
    alone = bench.process("given.ome.tif", bench.config(threads=2), "alone")
    dead = bench.folder / "dead"
    config = bench.config(f'kind = "soften"\ndie_once = "{dead.as_posix()}"', name="two.toml", threads=2)
    process = bench.start("given.ome.tif", config, "out", "--workers", "2")
    said, wrong = process.communicate(timeout=55)
    assert process.returncode == 0, said + wrong
    assert "Traceback" not in wrong
    assert dead.exists()
    two = bench.folder / "out"
    ours, theirs = files(two), files(alone)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] != theirs[name] and not name.endswith(".zarr/zarr.json")]
    assert len(rows(two)) == report(two)["frames"]["processed"] == 6
    assert report(two)["process"]["workers"] == 2


@pytest.mark.parametrize("options", [{"workers": 2}, {"scheduler": "tcp://127.0.0.1:1"}])
def test_a_missing_dask_names_its_extra(bench, monkeypatch, options):
    bench.tiff("given.tif", np.ones((2, 8, 8), np.uint16))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"--\w+ needs the package distributed.*pellucid\[dask\]"):
        bench.process("given.tif", bench.config(), **options)
    assert not (bench.folder / "out").exists()


def test_a_worker_that_sees_other_folders_says_so(bench):
    cluster = pytest.importorskip("pellucid.process.cluster")
    with pytest.raises(RunError, match="All workers need IN and OUT under the same path"):
        cluster.run_block(str(bench.folder / "nowhere"), "token", 0)
